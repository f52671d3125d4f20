//! Reference data that lies outside of the repository.

use std::path::{Path, PathBuf};

/// A file or folder of the reference data: in the folder that `HIPC_SHARED` names, else in `shared` beside the repository.
///
/// `None`, with a line that says so, where it isn't there: the test is then skipped.
pub fn shared(path: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let full = std::env::var_os("HIPC_SHARED").map_or(beside, PathBuf::from).join(path);
    if !full.exists() {
        println!("skipped: {} is not there (set HIPC_SHARED to the folder of the reference data)", full.display());
        return None;
    }
    Some(full)
}

/// The model that lives in the repository.
pub fn demo_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/rustdoc-26m-chat-Q4_K_M.gguf")
}
