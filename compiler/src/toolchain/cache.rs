//! Compiled units by content, in the user's cache folder.
//!
//! An entry's name is the BLAKE3 of everything that decides its contents; the entry holds the BLAKE3 of its contents. Entries
//! are written to a temporary file and renamed, so that a reader, in whichever process, sees a whole entry or none; two
//! writers of one entry write the same bytes. A damaged entry is thrown away and made again.

use super::UnitSource;
use etcetera::BaseStrategy as _;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Raised when the key or the form of the entries changes.
const MAGIC: &[u8; 16] = b"hipc unit cache1";
const HASH_BYTES: usize = blake3::OUT_LEN;

/// Where compiled units are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CacheSetting {
    /// `hipc` in the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`).
    #[default]
    User,
    /// Here (`HIPC_CACHE_DIR`).
    Dir(PathBuf),
    /// Nowhere (`HIPC_CACHE=off`).
    Off,
}

impl CacheSetting {
    /// From the values of `HIPC_CACHE` and `HIPC_CACHE_DIR`.
    pub(super) fn from_values(cache: Option<OsString>, dir: Option<OsString>) -> Self {
        match (cache, dir) {
            (Some(value), _) if value.eq_ignore_ascii_case("off") => Self::Off,
            (_, Some(dir)) => Self::Dir(dir.into()),
            _ => Self::User,
        }
    }
}

/// What decides a compiled unit.
pub(super) struct Key(blake3::Hash);

impl Key {
    pub(super) fn new(unit: &UnitSource<'_>, target: &str, flags: &[String], compiler: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        // Each part with its length: no two lists of parts run together alike.
        let mut part = |bytes: &str| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes.as_bytes());
        };
        for text in [compiler, target, unit.name, unit.source] {
            part(text);
        }
        part(&flags.len().to_string());
        flags.iter().for_each(|f| part(f));
        for (path, contents) in unit.headers {
            part(path);
            part(contents);
        }
        Self(hasher.finalize())
    }
}

/// An open cache.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    failed: AtomicBool,
}

impl Cache {
    /// The cache of a setting, `None` if it is off.
    ///
    /// # Errors
    /// A warning for the user if there is no home folder.
    pub(super) fn open(setting: &CacheSetting) -> Result<Option<Self>, String> {
        let dir = match setting {
            CacheSetting::Off => return Ok(None),
            CacheSetting::Dir(dir) => dir.clone(),
            CacheSetting::User => etcetera::choose_base_strategy()
                .map_err(|e| format!("compiled units aren't cached: {e}; HIPC_CACHE_DIR names a folder"))?
                .cache_dir()
                .join("hipc"),
        };
        Ok(Some(Self { dir, failed: AtomicBool::new(false) }))
    }

    fn path(&self, key: &Key) -> PathBuf {
        let name = key.0.to_hex();
        self.dir.join("units").join(&name[..2]).join(&name[2..])
    }

    /// The entry's contents, if it is there and whole.
    pub(super) fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let path = self.path(key);
        let mut bytes = fs::read(&path).ok()?;
        let whole = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk::<HASH_BYTES>());
        if whole.is_some_and(|(hash, contents)| blake3::hash(contents) == *hash) {
            bytes.drain(..MAGIC.len() + HASH_BYTES);
            return Some(bytes);
        }
        // It will be written anew; if it can't be removed it can't be written either, and that is reported.
        let _ = fs::remove_file(&path);
        None
    }

    /// Stores an entry.
    ///
    /// # Errors
    /// A warning for the user.
    pub(super) fn put(&self, key: &Key, contents: &[u8]) -> Result<(), String> {
        let path = self.path(key);
        let store = || -> io::Result<()> {
            let dir = path.parent().unwrap_or(&self.dir);
            fs::create_dir_all(dir)?;
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            file.write_all(MAGIC)?;
            file.write_all(blake3::hash(contents).as_bytes())?;
            file.write_all(contents)?;
            file.persist(&path)?;
            Ok(())
        };
        store().map_err(|e| {
            format!(
                "compiled units aren't cached: cannot write to {}: {e}; HIPC_CACHE_DIR names another folder",
                self.dir.display()
            )
        })
    }

    /// Whether this is the first call: one warning is enough.
    pub(super) fn first_failure(&self) -> bool {
        !self.failed.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let unit = UnitSource { name: "k", source: "int x;", headers: &[("a.h", "1")] };
        let key = |unit: &UnitSource<'_>, target, flags: &[&str], compiler| {
            let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
            Key::new(unit, target, &flags, compiler).0
        };
        let base = key(&unit, "gfx1100", &["-a"], "clang 22");
        assert_eq!(base, key(&unit, "gfx1100", &["-a"], "clang 22"));
        let others = [
            key(&UnitSource { name: "l", ..unit }, "gfx1100", &["-a"], "clang 22"),
            key(&UnitSource { source: "int y;", ..unit }, "gfx1100", &["-a"], "clang 22"),
            key(&UnitSource { headers: &[("a.h", "2")], ..unit }, "gfx1100", &["-a"], "clang 22"),
            key(&UnitSource { headers: &[("b.h", "1")], ..unit }, "gfx1100", &["-a"], "clang 22"),
            key(&UnitSource { headers: &[], ..unit }, "gfx1100", &["-a", "a.h", "1"], "clang 22"),
            key(&unit, "gfx1101", &["-a"], "clang 22"),
            key(&unit, "gfx1100", &[], "clang 22"),
            key(&unit, "gfx1100", &["-", "a"], "clang 22"),
            key(&unit, "gfx1100", &["-a"], "clang 23"),
        ];
        for (n, other) in others.iter().enumerate() {
            assert_ne!(base, *other, "{n}");
            assert!(!others[..n].contains(other), "{n}");
        }
    }

    #[test]
    fn settings() {
        let os = |s: &str| Some(OsString::from(s));
        assert_eq!(CacheSetting::from_values(None, None), CacheSetting::User);
        assert_eq!(CacheSetting::from_values(None, os("/x")), CacheSetting::Dir("/x".into()));
        assert_eq!(CacheSetting::from_values(os("OFF"), os("/x")), CacheSetting::Off);
        assert_eq!(CacheSetting::from_values(os("on"), None), CacheSetting::User);
    }

    #[test]
    fn damaged_entries_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&CacheSetting::Dir(dir.path().to_owned())).unwrap().unwrap();
        let unit = UnitSource { name: "k", source: "", headers: &[] };
        let key = Key::new(&unit, "host", &[], "clang");
        assert_eq!(cache.get(&key), None);
        cache.put(&key, b"contents").unwrap();
        assert_eq!(cache.get(&key).unwrap(), b"contents");
        let path = cache.path(&key);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(cache.get(&key), None, "byte {at}");
            assert!(!path.exists());
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(cache.get(&key), None, "cut at {at}");
        }
        cache.put(&key, b"contents").unwrap();
        assert_eq!(cache.get(&key).unwrap(), b"contents");
    }
}
