//! Which of the changes that the sweep finds events should have told of, and did not.
//! A change counts when a source was healthy before it happened and has worked ever since, and nobody has said anything of
//! that key by the time at which even a late event would have come. All that is in doubt does not count: a source is
//! distrusted for what is certain only.
//! Invariant: bounded; of what is too much nothing is said.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::after;
use crate::index::Finding;
use crate::revalidate::Revalidator;
use crate::types::{Key, Tick, Time};

/// Changes that wait to be judged: with keys of 100 bytes some MB.
const MOST: usize = 16_384;
/// 60 s: how far S3's clock and ours may be apart; and S3 says of an upload in parts when it began.
const SKEW: Duration = Duration::from_secs(60);

/// Who is to tell of changes, as far as the sweep has to know. `notify` has them; here they are only judged.
pub trait Tellers: Send + Sync + 'static {
    /// Since when any of them can be relied on.
    fn since(&self) -> Option<Tick>;
    /// Whether one of them has worked and was not late ever since `tick`. What it missed does not count here: who counts that
    /// wants to go on counting.
    fn has_worked_since(&self, tick: Tick) -> bool;
    /// How long after a change they tell of it at the latest.
    fn latest(&self) -> Duration;
    /// So many changes were found of which none of them told.
    fn missed(&self, changes: u64);
}

/// What may have been missed.
pub(super) struct Doubts {
    tellers: Arc<dyn Tellers>,
    revalidator: Arc<Revalidator>,
    /// Since when a source works that was healthy then.
    since: Option<Tick>,
    /// When the last whole pass began: what is here was in S3 then, or came later.
    passed: Tick,
    /// In the order in which they were found.
    waiting: VecDeque<Doubt>,
}

/// A change of which an event may still come.
struct Doubt {
    key: Key,
    /// When it can have happened at the earliest: what was said since then was said of it.
    from: Tick,
    due: Tick,
}

impl Doubts {
    pub(super) fn new(tellers: Arc<dyn Tellers>, revalidator: Arc<Revalidator>) -> Doubts {
        Doubts { tellers, revalidator, since: None, passed: Tick::NEVER, waiting: VecDeque::new() }
    }

    /// A whole pass that began at `started` has ended.
    pub(super) fn passed(&mut self, started: Tick) {
        self.passed = started;
    }

    /// Takes what a page has shown.
    pub(super) fn take(&mut self, found: Vec<Finding>) {
        if found.is_empty() {
            return;
        }
        self.look_at_health();
        let now = self.revalidator.clock.now();
        let due = after(now, self.tellers.latest());
        for finding in found {
            let Some(from) = self.earliest(&finding, now) else { continue };
            if finding.distrusted < from && self.waiting.len() < MOST {
                self.waiting.push_back(Doubt { key: finding.key, from, due });
            }
        }
    }

    /// Counts what is due at `now` and was not told of; says when there is more to judge.
    pub(super) fn judge(&mut self, now: Tick) -> Option<Tick> {
        let due = self.waiting.iter().take_while(|doubt| doubt.due <= now).count();
        if due > 0 {
            self.look_at_health();
            let is_untold = |doubt: &Doubt| self.revalidator.recent.since(&doubt.key, doubt.from).is_none();
            let missed = self.waiting.drain(..due).filter(is_untold).count();
            if missed > 0 {
                tracing::warn!(missed, "the sweep found changes that no event told of");
                self.tellers.missed(missed as u64);
            }
        }
        self.waiting.front().map(|doubt| doubt.due)
    }

    /// Where sources fail, an event may be late for that: then nothing is judged that was found before.
    fn look_at_health(&mut self) {
        if !self.since.is_some_and(|since| self.tellers.has_worked_since(since)) {
            self.waiting.clear();
            self.since = self.tellers.since();
        }
    }

    /// When a change can have happened at the earliest; `None`: perhaps when nobody was to tell of it.
    fn earliest(&self, finding: &Finding, now: Tick) -> Option<Tick> {
        let since = self.since?;
        let (surely_after, from) = match finding.written {
            Some(written) => {
                let earliest = before(self.tick_of(written, now), SKEW);
                (earliest, finding.checked.max(earliest))
            }
            None => {
                let last_here = finding.checked.max(self.passed);
                (last_here, last_here)
            }
        };
        (surely_after >= since).then_some(from)
    }

    /// When `time` was, at `now` at the latest.
    fn tick_of(&self, time: Time, now: Tick) -> Tick {
        let ago = self.revalidator.clock.wall().0.saturating_sub(time.0).max(0) / 1_000_000;
        before(now, Duration::from_millis(ago as u64))
    }
}

fn before(tick: Tick, ago: Duration) -> Tick {
    Tick(tick.0.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
}
