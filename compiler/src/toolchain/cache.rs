//! Compiled units by content, in the user's cache folder.
//!
//! An entry's name is the BLAKE3 of everything that decides its contents; the entry holds the BLAKE3 of its contents. Entries
//! are written to a temporary file and renamed, so that a reader, in whichever process, sees a whole entry or none; two
//! writers of one entry write the same bytes. A damaged entry is thrown away and made again.
//!
//! All entries together keep a limit: whoever has written one removes those that nobody has used for longest. The time of an
//! entry's file is that of its last use. Several processes may do so at once: an entry that is gone is a unit to be compiled.

use super::UnitSource;
use etcetera::BaseStrategy as _;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Raised when the key or the form of the entries changes.
const MAGIC: &[u8; 16] = b"hipc unit cache1";
const HASH_BYTES: usize = blake3::OUT_LEN;
/// MiB of all entries together, where `HIPC_CACHE_MIB` doesn't say otherwise: some thousand units.
const DEFAULT_MIB: u64 = 1024;
/// Temporary files that are older belong to nobody any more.
const ABANDONED: Duration = Duration::from_secs(3600);

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
    /// Most bytes of all entries.
    limit: u64,
    failed: AtomicBool,
}

/// A file of the cache.
struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Cache {
    /// The cache of a setting, `None` if it is off. `mib` is the value of `HIPC_CACHE_MIB`.
    ///
    /// # Errors
    /// A warning for the user if there is no home folder, or the limit is no number.
    pub(super) fn open(setting: &CacheSetting, mib: Option<&OsStr>) -> Result<Option<Self>, String> {
        let dir = match setting {
            CacheSetting::Off => return Ok(None),
            CacheSetting::Dir(dir) => dir.clone(),
            CacheSetting::User => etcetera::choose_base_strategy()
                .map_err(|e| format!("compiled units aren't cached: {e}; HIPC_CACHE_DIR names a folder"))?
                .cache_dir()
                .join("hipc"),
        };
        let mib = match mib {
            None => DEFAULT_MIB,
            Some(text) => text.to_str().and_then(|t| t.parse().ok()).ok_or_else(|| {
                format!(
                    "compiled units aren't cached: HIPC_CACHE_MIB is {text:?}, not a number of MiB (it is {DEFAULT_MIB} if unset)"
                )
            })?,
        };
        Ok(Some(Self { dir, limit: mib.saturating_mul(1 << 20), failed: AtomicBool::new(false) }))
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
            // Used now. In a cache that may only be read nothing is removed either.
            let _ = fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
            return Some(bytes);
        }
        // It will be written anew; if it can't be removed it can't be written either, and that is reported.
        let _ = fs::remove_file(&path);
        None
    }

    /// Stores an entry, unless it is larger than all may be, and removes what is too much by then.
    ///
    /// # Errors
    /// A warning for the user.
    pub(super) fn put(&self, key: &Key, contents: &[u8]) -> Result<(), String> {
        if (MAGIC.len() + HASH_BYTES + contents.len()) as u64 > self.limit {
            return Ok(());
        }
        let path = self.path(key);
        let store = || -> io::Result<()> {
            let dir = path.parent().unwrap_or(&self.dir);
            fs::create_dir_all(dir)?;
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            file.write_all(MAGIC)?;
            file.write_all(blake3::hash(contents).as_bytes())?;
            file.write_all(contents)?;
            // By the clock that `get` takes: the kernel's own for new files lags behind by up to a tick.
            file.as_file().set_modified(SystemTime::now())?;
            file.persist(&path)?;
            self.trim();
            Ok(())
        };
        store().map_err(|e| {
            format!(
                "compiled units aren't cached: cannot write to {}: {e}; HIPC_CACHE_DIR names another folder",
                self.dir.display()
            )
        })
    }

    /// Removes the entries that nobody has used for longest until the rest keeps the limit.
    fn trim(&self) {
        let mut entries = self.entries();
        let mut bytes: u64 = entries.iter().map(|e| e.bytes).sum();
        entries.sort_by_key(|e| e.used);
        for entry in &entries {
            if bytes <= self.limit {
                break;
            }
            // Another process may have been faster; what can't be removed stays, and the next one goes.
            if !matches!(fs::remove_file(&entry.path), Err(e) if e.kind() != io::ErrorKind::NotFound) {
                bytes -= entry.bytes;
            }
        }
    }

    /// Every file of the cache but those that somebody is writing. Folders that can't be read have none.
    fn entries(&self) -> Vec<Entry> {
        let files = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
        let entry = |file: fs::DirEntry| {
            let about = file.metadata().ok()?;
            let used = about.modified().ok()?;
            let in_work =
                file.file_name().as_encoded_bytes().starts_with(b".") && used.elapsed().is_ok_and(|age| age < ABANDONED);
            (about.is_file() && !in_work).then(|| Entry { path: file.path(), bytes: about.len(), used })
        };
        files(&self.dir.join("units")).flat_map(|folder| files(&folder.path())).filter_map(entry).collect()
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
        let cache = Cache::open(&CacheSetting::Dir(dir.path().to_owned()), None).unwrap().unwrap();
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

    /// A cache of 1 MiB, and the key of its n-th entry.
    fn small(dir: &Path) -> (Cache, impl Fn(u32) -> Key) {
        let cache = Cache::open(&CacheSetting::Dir(dir.to_owned()), Some(OsStr::new("1"))).unwrap().unwrap();
        let key = |n: u32| Key::new(&UnitSource { name: "k", source: &n.to_string(), headers: &[] }, "host", &[], "clang");
        (cache, key)
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, key) = small(dir.path());
        let contents = |n: u32| vec![n as u8; 300 << 10];
        let long_ago = |n: u32, seconds| {
            let file = fs::File::open(cache.path(&key(n))).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
        };
        for n in 0..3 {
            cache.put(&key(n), &contents(n)).unwrap();
            long_ago(n, 1000 - u64::from(n));
        }
        // Being used is what counts, not being written.
        assert!(cache.get(&key(0)).is_some());
        cache.put(&key(3), &contents(3)).unwrap();
        let first = [0, 1, 2, 3].map(|n| cache.get(&key(n)).map(|contents| contents[0]));
        assert_eq!(first, [Some(0), None, Some(2), Some(3)]);
        // Nothing that small is in the way of what is as large as all may be.
        let largest = vec![9; (1 << 20) - MAGIC.len() - HASH_BYTES];
        cache.put(&key(4), &largest).unwrap();
        let bytes = |n: u32| cache.get(&key(n)).map(|contents| contents.len());
        assert_eq!((bytes(4), cache.entries().len()), (Some(largest.len()), 1));
        cache.put(&key(5), &[&largest[..], &[9]].concat()).unwrap();
        assert_eq!((bytes(5), bytes(4)), (None, Some(largest.len())));
    }

    #[test]
    fn temporary_files_go_when_they_are_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, key) = small(dir.path());
        let folder = dir.path().join("units/ab");
        fs::create_dir_all(&folder).unwrap();
        let [old, new] = ["old", "new"].map(|name| folder.join(format!(".tmp-{name}")));
        for path in [&old, &new] {
            fs::write(path, vec![0; 1 << 20]).unwrap();
        }
        fs::File::open(&old).unwrap().set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        cache.put(&key(0), b"contents").unwrap();
        assert_eq!((old.exists(), new.exists(), cache.get(&key(0)).is_some()), (false, true, true));
    }

    #[test]
    fn several_at_once_lose_nothing_but_entries() {
        let dir = tempfile::tempdir().unwrap();
        // Each with an open cache of its own, as processes have: they share the files and nothing else.
        std::thread::scope(|scope| {
            for of in 0..4_u32 {
                let dir = dir.path();
                scope.spawn(move || {
                    let (cache, key) = small(dir);
                    for n in (0..60).map(|n| (n * (of + 1)) % 17) {
                        let contents = vec![n as u8; (100 + n as usize) << 10];
                        cache.put(&key(n), &contents).unwrap();
                        assert!(cache.get(&key(n)).is_none_or(|found| found == contents));
                    }
                });
            }
        });
        let (cache, key) = small(dir.path());
        cache.put(&key(99), b"contents").unwrap();
        assert!(cache.get(&key(99)).is_some());
        assert!(cache.entries().iter().map(|e| e.bytes).sum::<u64>() <= 1 << 20);
    }

    #[test]
    fn a_limit_is_a_number() {
        let open = |mib: &str| Cache::open(&CacheSetting::Dir("/x".into()), Some(OsStr::new(mib)));
        assert_eq!(open("3").unwrap().unwrap().limit, 3 << 20);
        assert_eq!(open(&u64::MAX.to_string()).unwrap().unwrap().limit, u64::MAX);
        for wrong in ["", "-1", "1GiB", "1e3"] {
            assert!(open(wrong).unwrap_err().contains("HIPC_CACHE_MIB"));
        }
    }
}
