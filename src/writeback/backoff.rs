//! How long to leave alone what failed: one object by itself, or, when nobody answers, all of them.
//! Invariants
//! - What one object's failure costs is that object's: the others go on.
//! - Several failures in a row without one answer are an outage: then one request at a time asks whether it is over.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::types::Tick;

/// 1 s: a hiccup of S3 is over by then.
const FIRST: Duration = Duration::from_secs(1);
/// 5 min: what a person who has just put things right waits at most.
const LONGEST: Duration = Duration::from_secs(300);
/// 15 s: how long S3 may be back before it is noticed.
const LONGEST_OUTAGE: Duration = Duration::from_secs(15);
/// 2: one object may be unlucky, two one after the other are not.
const SIGNS: u32 = 2;

/// How long an object waits after so many failures in a row.
pub(super) fn pause(failures: u32, seed: u64) -> Duration {
    jittered(doubled(failures, LONGEST), seed)
}

fn doubled(failures: u32, longest: Duration) -> Duration {
    FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest)
}

/// Between half of `pause` and all of it, so that many objects do not come back in step.
fn jittered(pause: Duration, seed: u64) -> Duration {
    let half = pause / 2;
    half + half.mul_f64((RandomState::new().hash_one(seed) % 1024) as f64 / 1024.0)
}

/// Whether S3 answers.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// Requests in a row that nobody answered.
    unanswered: u32,
    /// When to ask again.
    until: Option<Tick>,
}

/// What may be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum May {
    /// Anything.
    All,
    /// One at a time, to see whether S3 is back; not before that.
    One(Tick),
}

impl Outage {
    /// What may be begun now.
    pub(super) fn may(&self) -> May {
        self.until.map_or(May::All, May::One)
    }

    /// Whether S3 is taken to be away.
    pub(super) fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// S3 answered, whatever it said; true when that ends an outage.
    pub(super) fn answered(&mut self) -> bool {
        self.unanswered = 0;
        self.until.take().is_some()
    }

    /// S3 did not answer; true when that begins an outage.
    pub(super) fn failed(&mut self, now: Tick) -> bool {
        // those that were under way together count once
        if self.until.is_some_and(|until| now < until) {
            return false;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        if self.unanswered < SIGNS {
            return false;
        }
        let pause = jittered(doubled(self.unanswered + 1 - SIGNS, LONGEST_OUTAGE), now.0);
        self.until.replace(Tick(now.0 + pause.as_millis() as u64)).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_doubles_from_a_second_to_five_minutes() {
        let bounds = [(1, 1), (2, 2), (3, 4), (8, 128), (9, 256), (10, 300), (1_000, 300)];
        for (failures, seconds) in bounds {
            let pause = pause(failures, 7).as_secs_f64();
            assert!(pause >= f64::from(seconds) / 2.0 && pause <= f64::from(seconds), "{failures}: {pause}");
        }
    }

    #[test]
    fn one_unlucky_object_is_no_outage() {
        let mut outage = Outage::default();
        for now in 1..100 {
            assert!(!outage.failed(Tick(now)));
            assert!(!outage.answered());
        }
        assert_eq!(outage.may(), May::All);
    }

    #[test]
    fn an_outage_is_asked_about_less_and_less_and_ends_with_the_first_answer() {
        let (mut outage, mut now) = (Outage::default(), Tick(1));
        assert!(!outage.failed(now) && outage.failed(now));
        let mut longest = 0;
        for _ in 0..20 {
            let May::One(until) = outage.may() else { panic!("still on") };
            assert!(!outage.failed(now));
            assert_eq!(outage.may(), May::One(until), "what failed together counts once");
            longest = longest.max(until.since(now).as_secs());
            now = until;
            assert!(!outage.failed(now), "it has begun already");
        }
        assert!((7..=15).contains(&longest), "{longest}");
        assert!(outage.answered() && !outage.is_on());
    }
}
