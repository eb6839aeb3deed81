//! The byte ranges that are locked of one file, as POSIX has them: an owner has at most one lock on a byte; a new one
//! takes the place of what the owner had there, and runs of the same kind become one.
//! Invariants: sorted by first byte; runs of one owner and kind neither overlap nor touch, runs of one owner do not
//! overlap. That owners do not conflict is for `State` to see to.

use super::{Owner, Range};

/// One locked run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) range: Range,
    pub(super) owner: Owner,
    pub(super) exclusive: bool,
}

impl Run {
    /// Whether `owner` (`None`: somebody who has no locks) cannot have `range` besides this.
    pub(super) fn conflicts(&self, owner: Option<Owner>, range: Range, exclusive: bool) -> bool {
        Some(self.owner) != owner && (self.exclusive || exclusive) && self.range.overlaps(range)
    }
}

/// All of a file's.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Vec<Run>);

impl Held {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.0.iter()
    }

    /// Whether `owner` has a lock of just this kind on every byte of `range`.
    pub(super) fn covers(&self, owner: Owner, range: Range, exclusive: bool) -> bool {
        self.0.iter().any(|run| run.owner == owner && run.exclusive == exclusive && run.range.contains(range))
    }

    /// The runs, when `owner` has a lock of this kind on `range`, or (`None`) no more lock there.
    pub(super) fn changed(&self, owner: Owner, range: Range, exclusive: Option<bool>) -> Held {
        let mut runs = Vec::with_capacity(self.0.len() + 2);
        let mut whole = range;
        for run in &self.0 {
            if run.owner != owner {
                runs.push(*run);
            } else if Some(run.exclusive) == exclusive && run.range.touches(range) {
                whole = whole.with(run.range);
            } else if run.range.overlaps(range) {
                runs.extend(run.range.without(range).map(|range| Run { range, ..*run }));
            } else {
                runs.push(*run);
            }
        }
        runs.extend(exclusive.map(|exclusive| Run { range: whole, owner, exclusive }));
        runs.sort_by_key(|run| run.range);
        Held(runs)
    }

    /// Lets go of all whose owner is none that `keeps`; how many there were.
    pub(super) fn retain(&mut self, keeps: impl Fn(Owner) -> bool) -> usize {
        let before = self.0.len();
        self.0.retain(|run| keeps(run.owner));
        before - self.0.len()
    }
}
