//! Write-back ahead of COMMIT: the disk takes what was written while more of it comes, so that COMMIT of a long file finds
//! little left to wait for. Durable it is not before its COMMIT.
//! Owns: how much of a file has been added since the kernel was last asked, and what was wrong when it was.
//! Invariants: one thread at most is asking for a file, and no WRITE waits for it; what was wrong fails the next sync, as
//! the kernel tells it once.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::super::disk;
use super::Staged;

/// 8 MiB: what is asked for at a time; of shorter files nothing.
const STRETCH_BYTES: u64 = 8 << 20;

/// What has been added to a file.
#[derive(Default)]
pub(super) struct Ahead {
    added: Mutex<Added>,
    /// Held by the thread that asks.
    failure: Mutex<Option<io::Error>>,
}

#[derive(Default)]
struct Added {
    range: Range<u64>,
    bytes: u64,
    /// Whether a thread is asking.
    busy: bool,
}

impl Ahead {
    /// Notes that a WRITE of `range` added `bytes` to what was written before; what is written over is likely to be
    /// written over again, and does not count.
    pub(super) fn added(&self, range: &Range<u64>, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut added = self.added.lock();
        added.range = match added.bytes {
            0 => range.clone(),
            _ => added.range.start.min(range.start)..added.range.end.max(range.end),
        };
        added.bytes += bytes;
    }

    /// What the kernel is to be asked for now, by whoever gets it; `done` follows. Not what lies scattered.
    fn due(&self) -> Option<Range<u64>> {
        let mut added = self.added.lock();
        if added.busy || added.bytes < STRETCH_BYTES {
            return None;
        }
        let (range, bytes) = (std::mem::take(&mut added.range), std::mem::take(&mut added.bytes));
        added.busy = bytes >= (range.end - range.start) / 2;
        added.busy.then_some(range)
    }

    fn done(&self) {
        self.added.lock().busy = false;
    }

    /// Comes after an fdatasync: what was wrong since the last one, once whoever is asking has ended.
    pub(super) fn settled(&self) -> io::Result<()> {
        self.failure.lock().take().map_or(Ok(()), Err)
    }
}

impl Staged {
    /// Has the disk take what was added, if it is enough. To be called in a runtime.
    pub(super) fn write_back_ahead(self: &Arc<Self>) {
        if let Some(range) = self.ahead.due() {
            let staged = self.clone();
            // it may have to wait for the disk's queue, and nobody waits for it
            drop(spawn_blocking(move || {
                staged.write_back(range);
                staged.ahead.done();
            }));
        }
    }

    /// Blocks on the disk.
    pub(super) fn write_back(&self, range: Range<u64>) {
        // what is wrong with the file itself, its sync finds, too
        let Ok(file) = self.file() else { return };
        let mut failure = self.ahead.failure.lock();
        let begun = self.volume.faults.before_write_back().and_then(|()| disk::begin_write_back(&file, range));
        *failure = failure.take().or(begun.err());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn write(ahead: &Ahead, range: Range<u64>) -> Option<Range<u64>> {
        ahead.added(&range, range.end - range.start);
        ahead.due()
    }

    #[test]
    fn a_stream_is_asked_for_in_stretches_one_at_a_time() {
        let ahead = Ahead::default();
        assert!((0..7).all(|n| write(&ahead, n * MIB..(n + 1) * MIB).is_none()));
        assert_eq!(write(&ahead, 7 * MIB..8 * MIB), Some(0..8 * MIB));
        assert!((8..40).all(|n| write(&ahead, n * MIB..(n + 1) * MIB).is_none()), "the first is not done");
        ahead.done();
        assert_eq!(ahead.due(), Some(8 * MIB..40 * MIB));
    }

    #[test]
    fn what_is_scattered_or_written_over_is_left_to_commit() {
        let ahead = Ahead::default();
        assert!((0..100).all(|n| write(&ahead, n * 100 * MIB..n * 100 * MIB + MIB).is_none()));
        ahead.added(&(0..100 * MIB), 0);
        assert_eq!(ahead.due(), None);
    }
}
