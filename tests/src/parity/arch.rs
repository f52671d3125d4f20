//! The small random models of the reference data: one file per feature of an architecture.

use crate::npz::npz;
use crate::shared::shared;
use hipc_models::ModelError;
use std::path::PathBuf;

/// The reference models of the supported architectures and types.
pub const SUPPORTED: [&str; 7] = [
    "llama-float-F32",
    "llama-float-F16",
    "llama-float-BF16",
    "llama-rope3-Q4_K_M",
    "llama-rope3-Q8_0",
    "llama-rope3-Q4_0",
    "qwen3-Q4_K_M",
];

/// A model and what llama.cpp makes of it on dequantised weights.
pub struct Golden {
    /// Name in the manifest.
    pub id: String,
    /// The GGUF file.
    pub path: PathBuf,
    /// Prompt and greedy continuation.
    pub ids: Vec<u32>,
    /// Where the continuation begins.
    pub prompt: usize,
    /// Logits after each of the ids.
    pub rows: Vec<Vec<f32>>,
    /// NMSE of llama.cpp's own int8 (or half) activations.
    pub noise: f64,
}

/// All entries of the manifest that we support; `None` (and a line that says so) without the reference data.
///
/// # Panics
/// If the data are damaged, or a file that must load doesn't.
pub fn goldens() -> Option<Vec<Golden>> {
    let folder = shared("golden")?;
    let manifest = std::fs::read(folder.join("MANIFEST.json")).expect("the manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("the manifest is JSON");
    let text = |entry: &serde_json::Value, key: &str| entry[key].as_str().expect("a text").to_owned();
    let mut goldens = Vec::new();
    for entry in manifest["arch"].as_array().expect("a list") {
        let (id, path) = (text(entry, "id"), folder.join(text(entry, "file")));
        match hipc_models::load(&path) {
            Ok(_) => {}
            Err(
                ModelError::UnsupportedArchitecture(_)
                | ModelError::UnsupportedType { .. }
                | ModelError::UnsupportedFeature { .. },
            ) => continue,
            Err(e) => panic!("{id}: {e}"),
        }
        let arrays = npz(folder.join(text(entry, "golden")));
        let mut ids = arrays["prompt_ids"].ids();
        let prompt = ids.len();
        ids.extend(arrays["gen_ids_b"].ids());
        let vocab = entry["n_vocab"].as_u64().expect("a number") as usize;
        let rows: Vec<Vec<f32>> = arrays["logits_b"].floats().chunks(vocab).map(<[f32]>::to_vec).collect();
        assert_eq!(rows.len(), ids.len(), "{id}: rows");
        goldens.push(Golden { id, path, ids, prompt, rows, noise: entry["nmse_a_vs_b"].as_f64().expect("a number") });
    }
    for id in SUPPORTED {
        assert!(goldens.iter().any(|g| g.id == id), "{id} doesn't load");
    }
    Some(goldens)
}

/// Most noise of a device's logits: three times that of llama.cpp's activations, and the cache's.
pub fn bound(noise: f64, kv: hipc_ir::dtype::KvType) -> f64 {
    3.0 * noise + if kv == hipc_ir::dtype::KvType::F16 { 3e-6 } else { 1e-9 }
}
