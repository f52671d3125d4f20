//! The kernels as HIP C++ headers, with a typed catalogue: which skeleton a [`KernelSpec`](hipc_ir::plan::KernelSpec)
//! instantiates, with which arguments, and which geometries a skeleton takes.
//!
//! The headers are ordinary C++17 files under `include/hipc`, one per skeleton or policy. A kernel is one call of a
//! skeleton that names types, so this crate only spells types; it contains no code of kernels.
#![forbid(unsafe_code)]

mod geometry;
mod instance;
mod summary;

pub use geometry::check_geometry;
pub use instance::{Instance, instantiate};
pub use summary::{summary, weight_type};

/// The headers: path as an `#include` names it, contents.
pub const HEADERS: &[(&str, &str)] = &[
    ("hipc/act.h", include_str!("../include/hipc/act.h")),
    ("hipc/attention.h", include_str!("../include/hipc/attention.h")),
    ("hipc/bandwidth.h", include_str!("../include/hipc/bandwidth.h")),
    ("hipc/choose.h", include_str!("../include/hipc/choose.h")),
    ("hipc/embed.h", include_str!("../include/hipc/embed.h")),
    ("hipc/finish.h", include_str!("../include/hipc/finish.h")),
    ("hipc/gemv.h", include_str!("../include/hipc/gemv.h")),
    ("hipc/heads.h", include_str!("../include/hipc/heads.h")),
    ("hipc/host.h", include_str!("../include/hipc/host.h")),
    ("hipc/host_main.cpp", include_str!("../include/hipc/host_main.cpp")),
    ("hipc/platform.h", include_str!("../include/hipc/platform.h")),
    ("hipc/quant.h", include_str!("../include/hipc/quant.h")),
    ("hipc/reduce.h", include_str!("../include/hipc/reduce.h")),
    ("hipc/repack.h", include_str!("../include/hipc/repack.h")),
    ("hipc/rope.h", include_str!("../include/hipc/rope.h")),
    ("hipc/row.h", include_str!("../include/hipc/row.h")),
    ("hipc/sample.h", include_str!("../include/hipc/sample.h")),
    ("hipc/target.h", include_str!("../include/hipc/target.h")),
    ("hipc/vec.h", include_str!("../include/hipc/vec.h")),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_header_is_in_the_catalogue() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/hipc");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder of headers")
            .map(|entry| format!("hipc/{}", entry.expect("an entry").file_name().display()))
            .collect();
        files.sort();
        let listed: Vec<&str> = HEADERS.iter().map(|(path, _)| *path).collect();
        assert_eq!(listed, files);
    }

    /// What differs between processors comes from the target table, as template arguments.
    #[test]
    fn no_header_knows_a_processor() {
        for (path, text) in HEADERS {
            let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
            for (number, line) in code.enumerate() {
                assert!(!line.contains("gfx") && !line.contains("__AMDGCN_WAVEFRONT_SIZE"), "{path}:{}: {line}", number + 1);
            }
        }
    }
}
