//! A driver for tests.

use hipc::toolchain::{Backend, CacheSetting, Settings, Toolchain};
use std::path::Path;

/// The environment's compilers with a cache in `cache` (or none), or `None` and a line on the terminal if there is no clang.
pub fn toolchain(cache: Option<&Path>) -> Option<Toolchain> {
    toolchain_with(cache, Settings::from_env())
}

/// The same with other settings.
pub fn toolchain_with(cache: Option<&Path>, settings: Settings) -> Option<Toolchain> {
    let cache = cache.map_or(CacheSetting::Off, |dir| CacheSetting::Dir(dir.to_owned()));
    let toolchain = Toolchain::new(Settings { cache, ..settings });
    match toolchain.compiler(Backend::Clang) {
        Ok(_) => Some(toolchain),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}
