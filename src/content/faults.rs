//! Faults of the disk that tests ask for: an fsync or a write-back that fails, a disk that is full, a power cut.
//! Owns: what was asked for, shared by all clones. By default nothing is wrong, which costs a server an atomic or two for
//! an fsync and for a look at the disk's room.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Disk;

/// What is wrong with the disk under the cache.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    syncs: AtomicU64,
    failing_syncs: AtomicU32,
    failing_write_backs: AtomicU32,
    /// Zero: the real disk.
    disk_bytes: AtomicU64,
}

impl Faults {
    /// The next `count` fdatasyncs of staging files fail with an I/O error.
    pub fn fail_syncs(&self, count: u32) {
        self.0.failing_syncs.store(count, Ordering::Release);
    }

    /// The next `count` write-backs of staging files fail with an I/O error.
    pub fn fail_write_backs(&self, count: u32) {
        self.0.failing_write_backs.store(count, Ordering::Release);
    }

    /// The disk has `bytes` in all, and nothing on it but the cache; `None`: it is the real one again.
    pub fn shrink_disk(&self, bytes: Option<u64>) {
        self.0.disk_bytes.store(bytes.unwrap_or(0), Ordering::Release);
    }

    /// How many fdatasyncs of staging files there were.
    pub fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::Acquire)
    }

    /// Comes before every fdatasync of a staging file.
    pub(super) fn before_sync(&self) -> io::Result<()> {
        self.0.syncs.fetch_add(1, Ordering::AcqRel);
        one_less(&self.0.failing_syncs)
    }

    /// Comes before every write-back of a staging file.
    pub(super) fn before_write_back(&self) -> io::Result<()> {
        one_less(&self.0.failing_write_backs)
    }

    /// The disk that is pretended to be there, `used` bytes of which the cache takes.
    pub(super) fn disk(&self, used: u64) -> Option<Disk> {
        let total = Some(self.0.disk_bytes.load(Ordering::Acquire)).filter(|bytes| *bytes > 0)?;
        Some(Disk { total, available: total.saturating_sub(used) })
    }
}

/// Fails if there is one left to fail.
fn one_less(failing: &AtomicU32) -> io::Result<()> {
    if failing.load(Ordering::Acquire) == 0 {
        return Ok(());
    }
    let left = failing.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
    left.map_or(Ok(()), |_| Err(io::Error::other("asked to fail")))
}
