//! The whole bucket, brought here behind the serving: one listing of everything, then the bytes, newest first.
//! Owns: how far it is. Asks over the background view only, so no client waits behind it.
//! Invariants
//! - It never makes room for itself: what does not fit beside what is here is left for when it is read.
//! - Memory is bounded by `MOST_FILES`, whatever the bucket holds.
//! - S3 going away stops nothing: it waits, and goes on where it was.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, FuturesUnordered};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::fetch::Pace;
use super::listing::How;
use super::{Revalidator, Trouble, WaitError, check};
use crate::index::Source;
use crate::store::{RequestKind, Turn};
use crate::types::{Ino, Time};

/// Files brought at once: enough to hide the round trips of small ones. The store limits what really runs.
const FILES_AT_ONCE: usize = 32;
/// Files in one plan: 24 MB. A larger bucket's older files come when they are read.
const MOST_FILES: usize = 1_000_000;
/// Rows read from the index in one go, between two yields.
const BATCH: usize = 1_000;

/// How far the mirror is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MirrorProgress {
    /// Whether it is at work.
    pub running: bool,
    /// Whether everything has been listed.
    pub listed: bool,
    /// Files whose bytes are all here.
    pub done: u64,
    /// Files in the bucket.
    pub total: u64,
    /// Their bytes that are here.
    pub bytes_done: u64,
    /// Their bytes.
    pub bytes_total: u64,
}

/// A file to bring; the newest is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    last_modified: Time,
    ino: Ino,
    size: u64,
}

impl Revalidator {
    /// Mirrors the bucket once: lists it all, then brings the newest files that fit. Returns when done or
    /// when `stop` is cancelled. Only one call at a time makes sense.
    pub async fn mirror(self: Arc<Revalidator>, stop: CancellationToken) {
        self.progress(|at| *at = MirrorProgress { running: true, ..MirrorProgress::default() });
        let mirrored = tokio::select! {
            () = stop.cancelled() => Ok(()),
            mirrored = self.mirror_all() => mirrored,
        };
        if let Err(trouble) = mirrored {
            tracing::warn!(%trouble, "the mirror ended early");
        }
        self.progress(|at| at.running = false);
    }

    /// How far the mirror is.
    pub fn mirror_progress(&self) -> MirrorProgress {
        *self.mirrored.lock()
    }

    /// Whether it lists the bucket now.
    pub(super) fn is_mirror_listing(&self) -> bool {
        let at = self.mirrored.lock();
        at.running && !at.listed
    }

    async fn mirror_all(&self) -> Result<(), Trouble> {
        let how = How { store: &self.stores.background, recursive: true, patient: true, paced: true };
        let swept = self.sweep(Ino::ROOT, how, || {
            let counts = self.index.counts();
            self.progress(|at| (at.total, at.bytes_total) = (counts.files, counts.bytes));
        });
        let outdated = swept.await?.outdated;
        self.progress(|at| at.listed = true);
        self.renew_all(outdated, FILES_AT_ONCE).await;
        let wanted = self.missing_files().await?;
        self.bring(wanted).await;
        Ok(())
    }

    /// Copies new versions of outdated files in, each in its turn of the budget, some at once.
    pub(super) async fn renew_all(&self, outdated: Vec<Ino>, at_once: usize) {
        let turns = stream::iter(outdated).then(async |ino| (ino, self.stores.budget.turn(RequestKind::Get).await));
        turns.for_each_concurrent(at_once, |(ino, turn)| self.renew(ino, turn)).await;
    }

    /// Copies the new version of an outdated file in, unless a check does so already.
    async fn renew(&self, ino: Ino, _turn: Turn) {
        let Some(_claim) = self.claim(ino) else { return };
        if let Err(trouble) = self.check_file(ino, Source::Mirror).await {
            self.note(ino, &trouble);
        }
    }

    /// The files that are not whole here, newest first, as many as could fit.
    async fn missing_files(&self) -> Result<Vec<Wanted>, Trouble> {
        let usage = self.content.usage();
        let mut plan = Plan::new(usage.limit.saturating_sub(usage.bytes));
        let mut total = MirrorProgress { running: true, listed: true, ..MirrorProgress::default() };
        let mut after = Ino(0);
        loop {
            let files = self.index.files(after, BATCH)?;
            let Some(last) = files.last() else { break };
            after = last.ino;
            for node in &files {
                let Some(remote) = &node.remote else { continue };
                total.total += 1;
                total.bytes_total += remote.size;
                if check::is_complete(node) {
                    total.done += 1;
                    total.bytes_done += remote.size;
                } else {
                    plan.add(Wanted { last_modified: remote.last_modified, ino: node.ino, size: remote.size });
                }
            }
            tokio::task::yield_now().await;
        }
        self.progress(|at| *at = total);
        Ok(plan.newest_first())
    }

    /// Brings files, some at once, as long as they fit.
    async fn bring(&self, wanted: Vec<Wanted>) {
        let mut coming = FuturesUnordered::new();
        let mut coming_bytes = 0;
        for file in wanted {
            while coming.len() >= FILES_AT_ONCE || (!coming.is_empty() && !self.fits(coming_bytes + file.size)) {
                let Some(size) = coming.next().await else { break };
                coming_bytes -= size;
            }
            if self.fits(coming_bytes + file.size) {
                coming_bytes += file.size;
                coming.push(self.bring_one(file));
            }
        }
        while coming.next().await.is_some() {}
    }

    fn fits(&self, bytes: u64) -> bool {
        let usage = self.content.usage();
        usage.bytes.saturating_add(bytes) <= usage.limit
    }

    /// Brings one file; where S3 does not answer, waits and tries again. Returns its size.
    async fn bring_one(&self, file: Wanted) -> u64 {
        loop {
            match self.fetcher.complete(file.ino, Pace::Budget).await {
                Ok(_) => {
                    self.progress(|at| {
                        at.done += 1;
                        at.bytes_done += file.size;
                    });
                    return file.size;
                }
                Err(WaitError::Busy) => {
                    self.outage.failed(&WaitError::Busy);
                    self.outage.over().await;
                }
                Err(error) => {
                    tracing::debug!(ino = %file.ino, %error, "not mirrored");
                    return file.size;
                }
            }
        }
    }

    fn progress(&self, change: impl FnOnce(&mut MirrorProgress)) {
        change(&mut self.mirrored.lock());
    }
}

/// The newest files that could fit into the room there is, found in one pass in bounded memory.
struct Plan {
    room: u64,
    bytes: u64,
    oldest_first: BinaryHeap<Reverse<Wanted>>,
}

impl Plan {
    fn new(room: u64) -> Plan {
        Plan { room, bytes: 0, oldest_first: BinaryHeap::new() }
    }

    /// Adds a file, and lets go of the oldest ones as long as the others alone fill the room.
    fn add(&mut self, file: Wanted) {
        if file.size > self.room {
            return;
        }
        self.bytes += file.size;
        self.oldest_first.push(Reverse(file));
        while let Some(Reverse(oldest)) = self.oldest_first.peek()
            && (self.oldest_first.len() > MOST_FILES || self.bytes - oldest.size >= self.room)
        {
            self.bytes -= oldest.size;
            self.oldest_first.pop();
        }
    }

    fn newest_first(self) -> Vec<Wanted> {
        self.oldest_first.into_sorted_vec().into_iter().map(|Reverse(file)| file).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(modified: i64, size: u64) -> Wanted {
        Wanted { last_modified: Time(modified), ino: Ino(modified as u64 + 2), size }
    }

    #[test]
    fn plan_keeps_the_newest_that_could_fit() {
        let mut plan = Plan::new(25);
        for modified in [3, 1, 5, 2, 4] {
            plan.add(file(modified, 10));
        }
        plan.add(file(9, 26));
        let newest: Vec<i64> = plan.newest_first().iter().map(|file| file.last_modified.0).collect();
        assert_eq!(newest, [5, 4, 3], "the third may fit once one of the others turns out smaller; nothing older");
    }

    #[test]
    fn plan_without_room_keeps_only_empty_files() {
        let mut plan = Plan::new(0);
        plan.add(file(1, 1));
        plan.add(file(2, 0));
        assert!(plan.newest_first().len() <= 1);
    }
}
