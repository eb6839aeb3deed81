//! How many answers were stale, and for how long (F7).
//! Owns: the counters. A check that finds a new version says how long the old one may have been served.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Upper bounds of the histogram's buckets in milliseconds; the last takes the rest.
const BOUNDS_MS: [u64; 10] = [10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, u64::MAX];

/// The counters of F7, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FreshStats {
    /// Keys whose check S3 has answered, alone or in a listing.
    pub checks: u64,
    /// Checks that found what is here unchanged.
    pub hits: u64,
    /// Checks that found a new version, or none any more.
    pub changes: u64,
    /// Answers that may have been stale: those given since the last check that still found the old
    /// version. An upper bound, for S3 does not tell which of them came before the change.
    pub stale_served: u64,
    /// The longest that any of them can have been stale, in milliseconds.
    pub max_stale_ms: u64,
    /// Changes by how long their old version can have been served: (upper bound in milliseconds, count).
    pub stale_histogram: Vec<(u64, u64)>,
    /// Checks waiting their turn.
    pub queued: u64,
    /// Of these, checks that wait for the budget.
    pub held: u64,
    /// Checks under way.
    pub in_flight: u64,
    /// Checks given up because the queue was full; the next touch asks again.
    pub dropped: u64,
    /// Checks that were not made because events tell of changes.
    pub spared: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    checks: AtomicU64,
    hits: AtomicU64,
    changes: AtomicU64,
    stale_served: AtomicU64,
    max_stale_ms: AtomicU64,
    histogram: [AtomicU64; BOUNDS_MS.len()],
    dropped: AtomicU64,
    spared: AtomicU64,
    pub(super) in_flight: AtomicUsize,
}

impl Counters {
    /// A check found what is here.
    pub(super) fn unchanged(&self) {
        self.checks.fetch_add(1, Ordering::Relaxed);
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// A check found something else; the old version was served `served` times and for at most `stale`.
    pub(super) fn changed(&self, served: u32, stale: Duration) {
        self.checks.fetch_add(1, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Relaxed);
        if served == 0 {
            return;
        }
        let ms = u64::try_from(stale.as_millis()).unwrap_or(u64::MAX);
        self.stale_served.fetch_add(u64::from(served), Ordering::Relaxed);
        self.max_stale_ms.fetch_max(ms, Ordering::Relaxed);
        let bucket = BOUNDS_MS.iter().position(|bound| ms <= *bound).unwrap_or(BOUNDS_MS.len() - 1);
        self.histogram[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// The queue was full.
    pub(super) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// A check would have been made without events.
    pub(super) fn spared(&self) {
        self.spared.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self, queued: usize, held: usize) -> FreshStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FreshStats {
            checks: read(&self.checks),
            hits: read(&self.hits),
            changes: read(&self.changes),
            stale_served: read(&self.stale_served),
            max_stale_ms: read(&self.max_stale_ms),
            stale_histogram: BOUNDS_MS.iter().copied().zip(self.histogram.iter().map(read)).collect(),
            queued: (queued + held) as u64,
            held: held as u64,
            in_flight: self.in_flight.load(Ordering::Relaxed) as u64,
            dropped: read(&self.dropped),
            spared: read(&self.spared),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_that_nobody_was_served_is_not_stale() {
        let counters = Counters::default();
        counters.unchanged();
        counters.changed(0, Duration::from_secs(5));
        counters.changed(3, Duration::from_millis(31));
        let stats = counters.snapshot(0, 0);
        assert_eq!((stats.checks, stats.hits, stats.changes), (3, 1, 2));
        assert_eq!((stats.stale_served, stats.max_stale_ms), (3, 31));
        assert_eq!(stats.stale_histogram.iter().map(|(_, n)| n).sum::<u64>(), 1);
        assert!(stats.stale_histogram.contains(&(100, 1)));
    }
}
