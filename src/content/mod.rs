//! Bytes on the local disk. `objects/` holds one immutable file a version (clean, disposable);
//! `staging/` will hold what is not in S3 yet (dirty, precious).
//! Owns: the files, which ranges of them are filled, the cache of open files, the space they take.
//! Invariants
//! - A range is recorded in the index only after its bytes are fdatasynced; a version counts as
//!   complete only after all of it is. So a torn file is one that is shorter than its row says, or missing:
//!   it is detected at open, detached and fetched again.
//! - A file is never changed once complete, and its bytes outlive its name while somebody reads them.
//! - The sum of the files' sizes stays below the limit, but for what is being fetched right now;
//!   the least recently used complete file goes first, pinned ones never.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::index::Index;
use crate::types::{Clock, ObjectId};

/// How much disk the cache may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CacheLimit {
    /// So many bytes.
    Bytes(u64),
    /// What leaves this share of the disk free (0.1 = 10%).
    LeaveFree(f64),
}

/// What the cache takes and may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of objects here.
    pub bytes: u64,
    /// Files under `objects/`.
    pub objects: u64,
    /// The limit in force, in bytes.
    pub limit: u64,
}

/// Size and room of the file system the cache is on, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// All of it.
    pub total: u64,
    /// Free to us.
    pub available: u64,
}

/// The cache of object files.
pub struct Content {}

impl Content {
    /// Opens `dir` (the `--cache` directory; makes `objects/` and `staging/`).
    pub fn open(dir: &Path, index: Arc<Index>, limit: CacheLimit, clock: Clock) -> io::Result<Arc<Content>> {
        todo!()
    }

    /// The open file of `object`. At once when it is in the cache of open files, else after one open(2)
    /// and one index read. `None` when the file is missing or torn (it is then detached in the background).
    pub fn get(&self, object: ObjectId) -> Option<Arc<Object>> {
        todo!()
    }

    /// A new, empty file for a version of `size` bytes. Evicts to make room.
    /// # Errors
    /// `StorageFull` when the disk or the limit has no room even so.
    pub async fn create(&self, size: u64) -> io::Result<Arc<Object>> {
        todo!()
    }

    /// What the cache takes.
    pub fn usage(&self) -> Usage {
        todo!()
    }

    /// The disk below.
    pub fn disk(&self) -> io::Result<Disk> {
        todo!()
    }

    /// The owner task: unlinks garbage, evicts, persists presence, removes files no row knows (once, at start).
    /// Returns when `stop` is cancelled and all is settled.
    pub async fn run(self: Arc<Content>, stop: tokio_util::sync::CancellationToken) {
        todo!()
    }
}

/// One version's bytes.
pub struct Object {}

impl Object {
    /// Its id.
    pub fn id(&self) -> ObjectId {
        todo!()
    }

    /// Length of the whole version in bytes.
    pub fn size(&self) -> u64 {
        todo!()
    }

    /// The file, for reading at offsets.
    pub fn file(&self) -> &Arc<std::fs::File> {
        todo!()
    }

    /// Whether all of `range` (cut at the end of the version) is here. One atomic load when complete.
    pub fn has(&self, range: Range<u64>) -> bool {
        todo!()
    }

    /// Whether everything is here.
    pub fn is_complete(&self) -> bool {
        todo!()
    }

    /// The parts of `range` that are not here.
    pub fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        todo!()
    }

    /// Writes fetched bytes, then counts them as here. Blocks on the disk: call from a blocking task.
    pub fn fill(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        todo!()
    }

    /// Makes what is here durable (fdatasync). Blocks on the disk.
    pub fn sync(&self) -> io::Result<()> {
        todo!()
    }
}

/// Fills `buf` from `file` at `offset` (bytes), without moving a shared position. Blocks on the disk.
/// # Errors
/// `UnexpectedEof` when the file ends before.
pub fn read_exact_at(file: &std::fs::File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    todo!()
}
