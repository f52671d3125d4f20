//! Units under AddressSanitizer and UBSan, for machines that may lack their runtime.

use hipc::toolchain::{Compiled, ToolchainError};

/// The program; `None`, with a line that says so, where no compiler has the sanitizers' runtime: the test is then skipped.
///
/// # Panics
/// If it wasn't compiled for any other reason: the test has failed.
pub fn program(compiled: Result<Compiled, ToolchainError>) -> Option<Vec<u8>> {
    match compiled {
        Ok(compiled) => Some(compiled.bytes),
        Err(ToolchainError::NoCompiler { tried, .. }) => {
            println!("skipped: no compiler has a sanitizer runtime (package libclang-rt-N-dev): {}", tried.join("; "));
            None
        }
        Err(error) => panic!("{error}"),
    }
}
