//! The layout of the cache directory: `lock`, `identity`, `index.redb`, `objects/ab/<id>`, `staging/`.
//! Owns: the names and the fan-out; opening the directory as a whole, lock first.
//! Invariant: what has a name of ours under `objects/` and `staging/` belongs to us; anything else there is left alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::disk::sync_dir;
use super::identity::{FORMAT, Identity};
use super::lock::Lock;
use crate::types::ObjectId;

/// Why a cache directory cannot be used. One line each, which says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Another server has it.
    #[error("cache directory {} is in use by {holder}: stop it, or give this server another --cache", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who has it, as far as known.
        holder: String,
    },
    /// A newer program made it.
    #[error("{} has format {found}, this fasts3 knows up to {FORMAT}: use a newer fasts3, or another --cache", path.display())]
    Newer {
        /// The identity file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The identity file is not what we wrote.
    #[error("{} is damaged: put it back from a copy, or remove the cache directory and mount again", path.display())]
    Damaged {
        /// The identity file.
        path: PathBuf,
    },
    /// The OS refused.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the OS said.
        #[source]
        source: io::Error,
    },
}

/// A cache directory that is ours while this value lives.
#[derive(Debug)]
pub struct CacheDir {
    path: PathBuf,
    identity: Identity,
    _lock: Lock,
}

impl CacheDir {
    /// Makes `path` where needed, takes its lock, reads or makes its identity.
    /// # Errors
    /// See [`DirError`].
    pub fn open(path: &Path) -> Result<CacheDir, DirError> {
        fs::create_dir_all(path).map_err(|source| DirError::Io { path: path.to_path_buf(), source })?;
        let lock = Lock::acquire(path)?;
        let identity = Identity::load_or_create(path)?;
        Ok(CacheDir { path: path.to_path_buf(), identity, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the index is.
    pub fn index(&self) -> PathBuf {
        self.path.join("index.redb")
    }

    /// Who this directory is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// The paths under `objects/`.
#[derive(Debug)]
pub(super) struct Objects {
    root: PathBuf,
}

impl Objects {
    /// Makes `objects/` and its 256 directories in cache directory `dir`.
    pub(super) fn create(dir: &Path) -> io::Result<Objects> {
        let root = dir.join("objects");
        for low in 0..=u8::MAX {
            fs::create_dir_all(root.join(format!("{low:02x}")))?;
        }
        Ok(Objects { root })
    }

    /// The file of `object`: fanned out by the low byte, which spreads consecutive ids evenly.
    pub(super) fn path(&self, object: ObjectId) -> PathBuf {
        self.root.join(format!("{:02x}/{:016x}", object.0 as u8, object.0))
    }

    /// The objects that have a file whose low byte is `low`.
    pub(super) fn files(&self, low: u8) -> io::Result<Vec<ObjectId>> {
        let mut found = ids(&self.root.join(format!("{low:02x}")))?;
        found.retain(|id| id.0 as u8 == low);
        Ok(found)
    }

    /// Unlinks the file of `object`; one that is not there is fine.
    pub(super) fn unlink(&self, object: ObjectId) -> io::Result<()> {
        unlink(&self.path(object))
    }
}

/// The paths under `staging/`. Flat: there is little in it, and one fsync makes all new names durable.
#[derive(Debug)]
pub(super) struct Staging {
    root: PathBuf,
    /// How many names were made.
    made: AtomicU64,
    /// How many of them, the first ones, are durable.
    durable: Mutex<u64>,
}

impl Staging {
    /// Makes `staging/` in cache directory `dir`.
    pub(super) fn create(dir: &Path) -> io::Result<Staging> {
        let root = dir.join("staging");
        fs::create_dir_all(&root)?;
        Ok(Staging { root, made: AtomicU64::new(0), durable: Mutex::new(0) })
    }

    /// The file of `staged`.
    pub(super) fn path(&self, staged: ObjectId) -> PathBuf {
        self.root.join(format!("{:016x}", staged.0))
    }

    /// The staging files that are there.
    pub(super) fn files(&self) -> io::Result<Vec<ObjectId>> {
        ids(&self.root)
    }

    /// Unlinks the file of `staged`; one that is not there is fine.
    pub(super) fn unlink(&self, staged: ObjectId) -> io::Result<()> {
        unlink(&self.path(staged))
    }

    /// A name was made: its ticket for `settle_name`.
    pub(super) fn name_made(&self) -> u64 {
        self.made.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Makes a name durable: one fsync for all that were made before it.
    pub(super) fn settle_name(&self, ticket: u64) -> io::Result<()> {
        let mut durable = self.durable.lock();
        if *durable < ticket {
            let made = self.made.load(Ordering::Acquire);
            sync_dir(&self.root)?;
            *durable = made;
        }
        Ok(())
    }
}

fn ids(dir: &Path) -> io::Result<Vec<ObjectId>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        found.extend(entry?.file_name().to_str().and_then(parse));
    }
    Ok(found)
}

fn unlink(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn parse(name: &str) -> Option<ObjectId> {
    let ours = name.len() == 16 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    ours.then(|| u64::from_str_radix(name, 16).ok().map(ObjectId))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_fanned_out_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::create(dir.path()).unwrap();
        let ids = [ObjectId(0x1ab), ObjectId(0xab), ObjectId(u64::MAX - 0x54)];
        for id in ids {
            fs::write(objects.path(id), "x").unwrap();
        }
        fs::write(dir.path().join("objects/ab/notes.txt"), "not ours").unwrap();
        fs::write(dir.path().join("objects/ab/00000000000000AB"), "not ours").unwrap();

        let mut found = objects.files(0xab).unwrap();
        found.sort();

        assert_eq!(found, [ObjectId(0xab), ObjectId(0x1ab), ObjectId(u64::MAX - 0x54)]);
        assert!(objects.files(0xac).unwrap().is_empty());
        assert!(objects.path(ObjectId(0x1ab)).ends_with("objects/ab/00000000000001ab"));
    }

    #[test]
    fn unlinking_twice_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::create(dir.path()).unwrap();
        fs::write(objects.path(ObjectId(5)), "x").unwrap();
        objects.unlink(ObjectId(5)).unwrap();
        objects.unlink(ObjectId(5)).unwrap();
        assert!(!objects.path(ObjectId(5)).exists());
    }

    #[test]
    fn directory_is_held_until_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = CacheDir::open(&path).unwrap();
        assert!(matches!(CacheDir::open(&path), Err(DirError::InUse { .. })));
        let identity = first.identity().clone();
        drop(first);
        assert_eq!(*CacheDir::open(&path).unwrap().identity(), identity);
    }
}
