//! A directory that survives a restart: `DIR/<bucket>/<id>.data` holds the bytes of a version and
//! `DIR/<bucket>/<id>.json` its key and metadata. Ids only grow.
//! Invariant: a row appears by a rename after its bytes are whole; of two rows of one key (a crash between
//! the new row and the removal of the old one) the one with the higher id counts.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::blob::{Blob, DataFile};
use super::data::{Described, Keys, Version};
use crate::types::{ETag, Time};

/// Where bytes wait until their row is written; not a legal bucket name.
const DATA: &str = "_data";

/// The directory of a server.
pub(super) struct Disk {
    dir: PathBuf,
    last_id: AtomicU64,
}

#[derive(Serialize, Deserialize)]
struct Row {
    key: String,
    etag: String,
    modified_ns: i64,
    size: u64,
    described: Described,
}

impl Disk {
    pub(super) fn open(dir: &Path) -> io::Result<Disk> {
        fs::create_dir_all(dir.join(DATA))?;
        Ok(Disk { dir: dir.to_owned(), last_id: AtomicU64::new(0) })
    }

    pub(super) fn create_bucket(&self, name: &str) -> io::Result<()> {
        fs::create_dir_all(self.dir.join(name))
    }

    /// Reads all rows; removes what a crash left behind.
    pub(super) fn load(&self) -> io::Result<BTreeMap<String, Keys>> {
        let mut buckets = BTreeMap::new();
        let mut used = HashMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != DATA && entry.file_type()?.is_dir() {
                buckets.insert(name, self.load_bucket(&entry.path(), &mut used)?);
            }
        }
        for entry in fs::read_dir(self.dir.join(DATA))? {
            let path = entry?.path();
            if !used.contains_key(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(buckets)
    }

    fn load_bucket(&self, dir: &Path, used: &mut HashMap<PathBuf, ()>) -> io::Result<Keys> {
        let mut rows: Vec<(u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            match id_of(&path, "json") {
                Some(id) => rows.push((id, path)),
                None => fs::remove_file(path)?, // a row that was not renamed yet
            }
        }
        rows.sort_unstable();
        let mut keys = Keys::new();
        for (id, path) in rows {
            self.last_id.fetch_max(id, Ordering::SeqCst);
            let row: Row = serde_json::from_slice(&fs::read(&path)?)?;
            let data = self.data_path(id);
            if fs::metadata(&data).map(|m| m.len()).ok() != Some(row.size) {
                fs::remove_file(path)?;
                continue;
            }
            used.insert(data.clone(), ());
            let version = Version {
                etag: ETag::new(&row.etag),
                modified: Time(row.modified_ns),
                described: row.described,
                blob: Blob::file(DataFile::new(data), row.size),
            };
            if let Some(old) = keys.insert(row.key.into(), Arc::new(version)) {
                remove_row(dir, &old);
            }
        }
        Ok(keys)
    }

    /// Writes the bytes to a new file; the blob that is that file.
    pub(super) fn store(&self, blob: &Blob) -> io::Result<Blob> {
        let path = self.data_path(self.last_id.fetch_add(1, Ordering::SeqCst) + 1);
        let data = DataFile::new(path);
        let mut file = File::create(data.path())?;
        for chunk in blob.clone().chunks() {
            file.write_all(&chunk?)?;
        }
        Ok(Blob::file(data, blob.len()))
    }

    /// Unlinks the bytes of a version that did not come to be.
    pub(super) fn forget(blob: &Blob) {
        if let Some(file) = blob.as_file() {
            file.doom();
        }
    }

    /// Makes `version` the one that a restart finds.
    pub(super) fn write_row(&self, bucket: &str, key: &str, version: &Version) -> io::Result<()> {
        let row = Row {
            key: key.to_owned(),
            etag: version.etag.as_str().to_owned(),
            modified_ns: version.modified.0,
            size: version.blob.len(),
            described: version.described.clone(),
        };
        let path = row_path(&self.dir.join(bucket), version).ok_or(io::ErrorKind::InvalidInput)?;
        let temporary = path.with_extension("new");
        fs::write(&temporary, serde_json::to_vec(&row)?)?;
        fs::rename(temporary, path)
    }

    /// Drops the row of `old` now, and its bytes when their last reader is done.
    pub(super) fn remove_row(&self, bucket: &str, old: &Version) {
        remove_row(&self.dir.join(bucket), old);
    }

    fn data_path(&self, id: u64) -> PathBuf {
        self.dir.join(DATA).join(format!("{id:016}.data"))
    }
}

fn remove_row(dir: &Path, old: &Version) {
    if let Some(path) = row_path(dir, old) {
        let _ = fs::remove_file(path);
    }
    Disk::forget(&old.blob);
}

fn row_path(dir: &Path, version: &Version) -> Option<PathBuf> {
    let id = id_of(version.blob.as_file()?.path(), "data")?;
    Some(dir.join(format!("{id:016}.json")))
}

fn id_of(path: &Path, extension: &str) -> Option<u64> {
    let matches = path.extension().is_some_and(|e| e == extension);
    matches.then(|| path.file_stem()?.to_str()?.parse().ok()).flatten()
}
