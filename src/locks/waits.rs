//! Who waits for whom, over all files: whether a wait would never end, and whether it is fair to have one wait.

use std::collections::HashSet;

use super::Owner;
use super::held::Run;
use super::state::State;

/// Owners looked at before a question is given up: real chains are of two or three.
const STEPS: usize = 32;
/// Waiters that have others line up behind them: those who have waited longest.
const LINE: usize = 4;

impl State {
    /// Whether `run`'s owner, having to wait in `file`, would wait for itself in the end.
    pub(super) fn is_deadlock(&self, file: u64, run: &Run) -> bool {
        let Some(entry) = self.files.get(&file) else { return false };
        let (mut next, mut seen) = (entry.blockers(run).collect::<Vec<_>>(), HashSet::new());
        while let Some(owner) = next.pop() {
            if owner == run.owner {
                return true;
            }
            if seen.len() == STEPS {
                return false;
            }
            if seen.insert(owner) {
                next.extend(self.waited_for(owner..=owner, false));
            }
        }
        false
    }

    /// Whether `run` has to let the waiters before place `at` go first, though nothing that is locked is in its way.
    /// Only those of other hosts, and none who waits, directly or in turn, for this host: what a host does with its
    /// locks before it gets another is not known here, and to hold it back could be a deadlock of our making.
    pub(super) fn is_held_back(&self, file: u64, at: usize, run: &Run) -> bool {
        let Some(entry) = self.files.get(&file) else { return false };
        let host = run.owner.host;
        entry.ahead(at, run).take(LINE).any(|(place, waiter)| {
            let owners = entry.blockers(&waiter.run).chain(entry.ahead(place, &waiter.run).map(|(_, w)| w.run.owner));
            waiter.run.owner.host != host && !self.reaches(owners.collect(), host)
        })
    }

    /// Whether one of the `next` is of `host`, or is of a host that waits for it.
    fn reaches(&self, mut next: Vec<Owner>, host: super::HostId) -> bool {
        let mut seen = HashSet::new();
        while let Some(owner) = next.pop() {
            if owner.host == host || seen.len() == STEPS {
                return true;
            }
            if seen.insert(owner.host) {
                next.extend(self.waited_for(Owner::all_of(owner.host), true));
            }
        }
        false
    }

    /// Whom these owners wait for; `in_line`: those too who only came first.
    fn waited_for(&self, owners: std::ops::RangeInclusive<Owner>, in_line: bool) -> Vec<Owner> {
        let mut found = Vec::new();
        for (file, id) in self.waiting.range(owners).flat_map(|(_, waits)| waits) {
            let Some(entry) = self.files.get(file) else { continue };
            let Some(place) = entry.waiters.iter().position(|waiter| waiter.id == *id) else { continue };
            let run = &entry.waiters[place].run;
            found.extend(entry.blockers(run));
            if in_line {
                found.extend(entry.ahead(place, run).map(|(_, waiter)| waiter.run.owner));
            }
        }
        found
    }
}
