//! Whether S3 is answering at all: one back-off for everything that nobody waits for.
//! Owns: until when checks and the mirror hold still, and how often in a row S3 did not answer.
//! Invariants
//! - Any answer, a refusal too, ends the pause at once; only silence (`Unavailable`) begins or lengthens it.
//! - Failures inside a pause do not lengthen it: sixty-four checks that fail together count once.
//! - Clients' own requests never wait for it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::types::{Clock, Tick};

/// 250 ms: about one slow request, so a hiccup costs little freshness.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// 10 s: how stale a copy may stay after S3 is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The pause. All of it is in memory; a new process asks at once.
pub(super) struct Outage {
    clock: Clock,
    /// Tick at which the pause ends; 0 = none.
    until: AtomicU64,
    /// Failures in a row.
    failures: Mutex<u32>,
    over: Notify,
}

impl Outage {
    pub(super) fn new(clock: Clock) -> Outage {
        Outage { clock, until: AtomicU64::new(0), failures: Mutex::new(0), over: Notify::new() }
    }

    /// Whether S3 was silent so lately that asking again is no use.
    pub(super) fn is_on(&self) -> bool {
        self.is_on_at(self.clock.now())
    }

    /// The same, for a caller that has read the clock.
    pub(super) fn is_on_at(&self, now: Tick) -> bool {
        now.0 < self.until.load(Ordering::Acquire)
    }

    /// S3 answered, whatever it said.
    pub(super) fn answered(&self) {
        if self.until.load(Ordering::Acquire) == 0 {
            return;
        }
        *self.failures.lock() = 0;
        self.until.store(0, Ordering::Release);
        self.over.notify_waiters();
        tracing::info!("S3 answers again");
    }

    /// S3 did not answer.
    pub(super) fn failed(&self, error: &dyn std::fmt::Display) {
        let now = self.clock.now();
        let mut failures = self.failures.lock();
        if self.is_on_at(now) {
            return;
        }
        *failures = failures.saturating_add(1);
        let pause = jittered(FIRST_PAUSE.saturating_mul(1 << (*failures - 1).min(6)).min(LONGEST_PAUSE), now);
        self.until.store(now.0 + pause.as_millis() as u64, Ordering::Release);
        if *failures == 1 {
            tracing::warn!(%error, "S3 does not answer: serving what is here");
        }
    }

    /// Waits until the pause is over; at once when there is none.
    pub(super) async fn over(&self) {
        loop {
            let over = self.over.notified();
            let rest = Tick(self.until.load(Ordering::Acquire)).since(self.clock.now());
            if rest.is_zero() {
                return;
            }
            // The end, or an answer to somebody else's request, whichever is first.
            let _ = tokio::time::timeout(rest, over).await;
        }
    }
}

/// Between half of `pause` and all of it, so that many servers do not come back in step.
fn jittered(pause: Duration, seed: Tick) -> Duration {
    let half = pause / 2;
    half + half.mul_f64((RandomState::new().hash_one(seed) % 1024) as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_grows_to_ten_seconds_and_one_answer_ends_it() {
        let clock = Clock::manual();
        let outage = Outage::new(clock.clone());
        let mut longest = 0;
        for _ in 0..20 {
            outage.failed(&"refused");
            assert!(outage.is_on());
            let until = outage.until.load(Ordering::Relaxed);
            outage.failed(&"refused");
            assert_eq!(until, outage.until.load(Ordering::Relaxed), "a failure inside the pause does not lengthen it");
            let pause = until - clock.now().0;
            longest = longest.max(pause);
            assert!(pause <= LONGEST_PAUSE.as_millis() as u64);
            clock.advance(LONGEST_PAUSE);
            assert!(!outage.is_on());
        }
        assert!(longest >= LONGEST_PAUSE.as_millis() as u64 / 2);
        outage.failed(&"refused");
        outage.answered();
        assert!(!outage.is_on());
    }
}
