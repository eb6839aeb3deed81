//! The one sequence of inode numbers, cookies and object ids.
//!
//! Numbers are handed out from memory; a block ahead of them is reserved in the index first. A crash
//! loses the rest of a block and never gives a number twice.
//! Invariant: a number handed out by `take` is below `reserved`, which is durable; one taken by the writer
//! is below the reservation that its own transaction stores.

use std::sync::atomic::{AtomicU64, Ordering};

/// 65,536: a sweep of a million keys stores the reservation some 30 times, a crash wastes next to nothing of 2^64.
const BLOCK: u64 = 65_536;
/// Numbers start here: above the root's, and above NFS's cookies of `.` and `..`.
pub(super) const FIRST: u64 = 16;

/// The sequence.
#[derive(Debug)]
pub(super) struct Sequence {
    next: AtomicU64,
    reserved: AtomicU64,
}

impl Sequence {
    /// Goes on after all that was reserved before.
    pub(super) fn after(stored: u64) -> Sequence {
        let next = stored.max(FIRST);
        Sequence { next: AtomicU64::new(next), reserved: AtomicU64::new(next) }
    }

    /// A number out of the durable reservation; `None` when it is used up.
    pub(super) fn take(&self) -> Option<u64> {
        let reserved = self.reserved.load(Ordering::Acquire);
        let below = |next| if next < reserved { Some(next + 1) } else { None };
        self.next.fetch_update(Ordering::AcqRel, Ordering::Acquire, below).ok()
    }

    /// A number for the writer, whose transaction must then store `reservation`.
    pub(super) fn take_for_writer(&self) -> u64 {
        self.next.fetch_add(1, Ordering::AcqRel)
    }

    /// The reservation to store, when less than half a block is left.
    pub(super) fn reservation(&self) -> Option<u64> {
        let next = self.next.load(Ordering::Acquire);
        let short = next + BLOCK / 2 > self.reserved.load(Ordering::Acquire);
        short.then_some(next + BLOCK)
    }

    /// Says that `reservation` is durable.
    pub(super) fn reserved(&self, reservation: u64) {
        self.reserved.fetch_max(reservation, Ordering::AcqRel);
    }
}
