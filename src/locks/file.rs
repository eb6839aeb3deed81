//! One file that somebody has locks on: what is held, who waits, and who has opened it so that others may not.

use super::held::{Held, Run};
use super::{Asked, HostId, Owner, Range, Share};

/// What is known of a file.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) held: Held,
    /// In the order in which they came.
    pub(super) waiters: Vec<Waiter>,
    pub(super) shares: Vec<Opened>,
}

/// A lock that was asked for and could not be had at once.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) id: u64,
    pub(super) run: Run,
    /// It is kept free for the waiter, who does not know yet, or has not answered.
    pub(super) offered: bool,
    pub(super) asked: Asked,
}

/// A share that is held.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) host: HostId,
    pub(super) owner: Box<[u8]>,
    pub(super) share: Share,
}

impl File {
    /// What is locked: held, or kept for a waiter.
    fn locked(&self) -> impl Iterator<Item = &Run> {
        self.held.runs().chain(self.waiters.iter().filter(|waiter| waiter.offered).map(|waiter| &waiter.run))
    }

    /// A lock in the way of one that `owner` asks for.
    pub(super) fn conflict(&self, owner: Option<Owner>, range: Range, exclusive: bool) -> Option<&Run> {
        self.locked().find(|run| run.conflicts(owner, range, exclusive))
    }

    /// Whom `run` has to wait for.
    pub(super) fn blockers<'a>(&'a self, run: &'a Run) -> impl Iterator<Item = Owner> + 'a {
        let conflicting = |other: &&Run| other.conflicts(Some(run.owner), run.range, run.exclusive);
        self.locked().filter(conflicting).map(|run| run.owner)
    }

    /// Those before place `at` who wait for what conflicts with `run`.
    pub(super) fn ahead<'a>(&'a self, at: usize, run: &'a Run) -> impl Iterator<Item = (usize, &'a Waiter)> {
        let conflicting = |waiter: &Waiter| waiter.run.conflicts(Some(run.owner), run.range, run.exclusive);
        self.waiters[..at].iter().enumerate().filter(move |(_, waiter)| !waiter.offered && conflicting(waiter))
    }

    /// The place of the waiter with just this wish.
    pub(super) fn place_of(&self, run: &Run) -> Option<usize> {
        self.waiters.iter().position(|waiter| waiter.run == *run)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.len() == 0 && self.waiters.is_empty() && self.shares.is_empty()
    }

    /// All that it counts for its bound.
    pub(super) fn len(&self) -> usize {
        self.held.len() + self.waiters.len() + self.shares.len()
    }
}
