//! What others want to know: whether all is in S3 (`synced`), what is not and why (`progress`), and how much was done.
//!
//! Whoever waits has a `Waiter`: the rows that there were when they asked. Tasks tick them off.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, future, stream};

use super::queue::End;
use super::{Failure, Progress, State, Writeback};
use crate::index::{IndexError, Kind, Pending, Work};
use crate::types::{Ino, Key, Tick};

/// Rows of the journal read in one go.
const BATCH: usize = 1_000;

/// What was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Objects uploaded.
    pub uploads: u64,
    /// Bytes of their bodies and parts that were sent.
    pub bytes: u64,
    /// Objects copied inside S3: moved, or given other attributes.
    pub copies: u64,
    /// Objects removed.
    pub deletes: u64,
    /// Conflicts met.
    pub conflicts: u64,
    /// Tasks that came to nothing.
    pub failures: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) uploads: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) copies: AtomicU64,
    pub(super) deletes: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) failures: AtomicU64,
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A journal that is read faster than that is read anew each time.
const CHEAP: Duration = Duration::from_millis(20);
/// A twentieth of the time may go into reading the journal.
const SHARE: u32 = 20;

/// What was still to be done a moment ago.
#[derive(Debug)]
pub(super) struct Lately {
    at: Tick,
    /// How long it took to find out.
    cost: Duration,
    progress: Progress,
}

impl Lately {
    fn holds(&self, now: Tick) -> bool {
        self.cost >= CHEAP && now.since(self.at) < self.cost * SHARE
    }
}

/// Somebody who waits for rows.
#[derive(Debug)]
pub(super) struct Waiter {
    number: u64,
    /// What is waited for, and the change that must be in S3.
    left: BTreeMap<Work, u64>,
    /// What of it has failed for good, as things are.
    failed: HashMap<Work, Failure>,
}

impl Waiter {
    fn tick_off(&mut self, work: &Work) {
        self.left.remove(work);
        self.failed.remove(work);
    }
}

/// Whether somebody waits for `work`.
pub(super) fn is_waited_for(waiters: &[Waiter], work: &Work) -> bool {
    waiters.iter().any(|waiter| waiter.left.contains_key(work))
}

/// A waiter that is taken off the list with whoever waits.
pub(super) struct Registered<'a> {
    writeback: &'a Writeback,
    number: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.writeback.state.lock().waiters.retain(|waiter| waiter.number != self.number);
    }
}

impl Writeback {
    /// Waits until S3 has every change made before the call: of `under` and what is below it, or of everything (D5).
    /// Uploads what is waiting for quiet at once.
    /// # Errors
    /// What cannot be brought to S3, and why, as soon as nothing else is left to wait for; at once what cannot be made
    /// durable here.
    pub async fn synced(&self, under: Option<Ino>) -> Result<(), Vec<Failure>> {
        self.save(under).await?;
        loop {
            let (rows, moves) = self.rows(under).map_err(|error| broken(&error))?;
            let registered = self.register(rows, under).map_err(|error| broken(&error))?;
            self.wait_for(registered).await?;
            if !moves {
                return Ok(());
            }
            // what was below a moved directory has rows of its own now
        }
    }

    /// Has the journal know all that was written: of a WRITE without a COMMIT it does not, and an upload that began before
    /// would pass for one of it.
    async fn save(&self, under: Option<Ino>) -> Result<(), Vec<Failure>> {
        let content = &self.rooms.content;
        let mut unsaved = content.unsaved();
        if under.is_some() {
            // who was removed is in nothing
            unsaved.retain(|staged| self.is_in(staged.ino(), under).unwrap_or(true));
        }
        let saves = stream::iter(unsaved).map(|staged| async move {
            content.sync(&staged).await.err().map(|error| {
                let key = self.rooms.index.key(staged.ino()).ok().flatten().map(|key| key.to_string());
                Failure { key: key.unwrap_or_default(), why: error.to_string(), may_pass: false }
            })
        });
        let failures: Vec<Failure> =
            saves.buffer_unordered(self.settings.uploads.max(1)).filter_map(future::ready).collect().await;
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    pub(super) async fn wait_for(&self, registered: Registered<'_>) -> Result<(), Vec<Failure>> {
        loop {
            let advanced = self.advanced.notified();
            tokio::pin!(advanced);
            advanced.as_mut().enable();
            {
                let state = self.state.lock();
                let waiter = state.waiters.iter().find(|waiter| waiter.number == registered.number);
                let Some(waiter) = waiter else { return Ok(()) };
                if waiter.left.is_empty() {
                    return Ok(());
                }
                if waiter.left.len() == waiter.failed.len() {
                    let mut failures: Vec<Failure> = waiter.failed.values().cloned().collect();
                    failures.sort_by(|a, b| a.key.cmp(&b.key));
                    return Err(failures);
                }
            }
            advanced.await;
        }
    }

    /// Has `rows`, which are of `under`, waited for, and what is to leave S3. That is read last, as a task that ended
    /// before told nobody that it follows.
    pub(super) fn register(&self, rows: BTreeMap<Work, u64>, under: Option<Ino>) -> Result<Registered<'_>, IndexError> {
        // first, so that a task that ends now finds them in the queue
        self.take_work();
        let registered = Registered { writeback: self, number: self.enlist(rows) };
        let left = self.left(under)?;
        let mut state = self.state.lock();
        let State { waiters, queue, .. } = &mut *state;
        if let Some(waiter) = waiters.iter_mut().find(|waiter| waiter.number == registered.number) {
            for key in left {
                let work = Work::Away(key);
                queue.press(&work, self.clock.now());
                waiter.left.entry(work).or_insert(0);
            }
        }
        self.poked.notify_one();
        Ok(registered)
    }

    /// A new waiter for `rows`: its number.
    fn enlist(&self, rows: BTreeMap<Work, u64>) -> u64 {
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.waiter_numbers += 1;
        let number = state.waiter_numbers;
        // in their order: neighbours together, for whom one question to S3 is enough
        rows.keys().for_each(|work| state.queue.press(work, now));
        state.waiters.push(Waiter { number, left: rows, failed: HashMap::new() });
        number
    }

    /// What of `under` and below S3 lacks, and whether a moved directory is among it.
    pub(super) fn rows(&self, under: Option<Ino>) -> Result<(BTreeMap<Work, u64>, bool), IndexError> {
        let (mut rows, mut moves) = (BTreeMap::new(), false);
        self.each_pending(|ino, pending| {
            let Some(node) = self.rooms.index.node(ino)? else { return Ok(()) };
            let stays = self.is_excluded(&node) && node.remote.is_none();
            if !stays && self.is_in(ino, under)? {
                moves |= pending.place && node.kind == Kind::Dir;
                rows.insert(Work::Inode(ino), pending.change);
            }
            Ok(())
        })?;
        Ok((rows, moves))
    }

    /// Where S3 has what nobody wants any more of `under` and below.
    fn left(&self, under: Option<Ino>) -> Result<Vec<Key>, IndexError> {
        let (below, mut left) = (self.prefixes(under)?, Vec::new());
        self.each_away(|key| {
            if below.iter().any(|prefix| key.starts_with(prefix)) {
                left.push(key);
            }
        })?;
        Ok(left)
    }

    fn is_in(&self, ino: Ino, under: Option<Ino>) -> Result<bool, IndexError> {
        let Some(under) = under else { return Ok(true) };
        let mut at = ino;
        while at != under && at != Ino::ROOT {
            let Some(node) = self.rooms.index.node(at)? else { return Ok(false) };
            at = node.parent;
        }
        Ok(at == under)
    }

    /// What keys begin with that are of `under`: here, and in S3.
    fn prefixes(&self, under: Option<Ino>) -> Result<Vec<String>, IndexError> {
        let Some(ino) = under else { return Ok(vec![String::new()]) };
        let index = &self.rooms.index;
        let Some(node) = index.node(ino)? else { return Ok(Vec::new()) };
        let elsewhere = if node.kind == Kind::Dir { index.remote_prefix(ino)? } else { index.remote_key(ino)? };
        Ok([index.key(ino)?, elsewhere].into_iter().flatten().map(|key| key.to_string()).collect())
    }

    fn each_pending(&self, mut each: impl FnMut(Ino, Pending) -> Result<(), IndexError>) -> Result<(), IndexError> {
        let mut after = Ino(0);
        loop {
            let rows = self.rooms.index.pending_rows(after, BATCH)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = *last;
            rows.into_iter().try_for_each(|(ino, pending)| each(ino, pending))?;
        }
    }

    /// Each key that an object must leave which is nobody's; the others are part of a move.
    fn each_away(&self, mut each: impl FnMut(Key)) -> Result<(), IndexError> {
        let mut after: Option<Key> = None;
        loop {
            let rows = self.rooms.index.away_rows(after.as_ref(), BATCH)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = Some(last.clone());
            rows.into_iter().filter(|(_, away)| away.ino.is_none()).for_each(|(key, _)| each(key));
        }
    }

    /// S3 has `work` as of `change` (`None`: it has to be done again); `next` follows from it and is waited for too.
    pub(super) fn tell_settled(&self, work: &Work, change: Option<u64>, next: Option<Work>) {
        if !is_waited_for(&self.state.lock().waiters, work) {
            return;
        }
        // a rename makes no upload under way obsolete, and its own change is the same: the copy is still to come
        let is_moving = match work {
            Work::Inode(ino) => matches!(self.rooms.index.pending(*ino), Ok(Some(pending)) if pending.place),
            Work::Away(_) => false,
        };
        let now = self.clock.now();
        let mut state = self.state.lock();
        let state = &mut *state;
        for waiter in &mut state.waiters {
            if waiter.left.get(work).is_some_and(|wanted| change.is_none_or(|change| *wanted <= change)) {
                if change.is_some() && !is_moving {
                    waiter.tick_off(work);
                }
                if let Some(next) = &next {
                    waiter.left.insert(next.clone(), 0);
                    state.queue.press(next, now);
                    self.poked.notify_one();
                }
            }
        }
        self.advanced.notify_waiters();
    }

    /// A task of `work` has ended.
    pub(super) fn tell_end(&self, work: &Work, end: &End) {
        if matches!(end, End::Failed { .. }) {
            count(&self.counters.failures);
        }
        if !is_waited_for(&self.state.lock().waiters, work) {
            return;
        }
        // a task that saw the journal before the row came says nothing of the row
        let is_left = match work {
            Work::Inode(ino) => !self.stays_here(*ino) && matches!(self.rooms.index.pending(*ino), Ok(Some(_))),
            Work::Away(key) => matches!(self.rooms.index.away(key), Ok(Some(_))),
        };
        let mut state = self.state.lock();
        let state = &mut *state;
        let failure = match end {
            End::Failed { failure, .. } => Some(failure),
            End::Blocked(by) => state.queue.failure(by),
            End::Done | End::Changed | End::Later(_) => None,
        };
        let failure = failure.filter(|failure| !failure.may_pass).cloned();
        for waiter in &mut state.waiters {
            if !waiter.left.contains_key(work) {
                continue;
            }
            match &failure {
                _ if !is_left => waiter.tick_off(work),
                Some(failure) => drop(waiter.failed.insert(work.clone(), failure.clone())),
                None => drop(waiter.failed.remove(work)),
            }
        }
        self.advanced.notify_waiters();
    }

    /// Whether nobody waits for it to be in S3.
    fn stays_here(&self, ino: Ino) -> bool {
        let node = self.rooms.index.node(ino).ok().flatten();
        node.is_some_and(|node| node.remote.is_none() && self.is_excluded(&node))
    }

    /// What is still to be done. Reads the journal.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress { failures: self.failures(), ..Progress::default() };
        if let Err(error) = self.add_up(&mut progress) {
            tracing::error!(%error, "the journal cannot be read");
        }
        progress
    }

    /// The same for whoever asks again and again: of a long journal it may be some seconds old, so that looking at it does
    /// not take more than a small share of the time.
    pub fn progress_lately(&self) -> Progress {
        let now = self.clock.now();
        if let Some(lately) = self.lately.lock().as_ref().filter(|lately| lately.holds(now)) {
            return Progress { failures: self.failures(), ..lately.progress.clone() };
        }
        let progress = self.progress();
        let cost = self.clock.now().since(now);
        *self.lately.lock() = Some(Lately { at: self.clock.now(), cost, progress: progress.clone() });
        progress
    }

    fn failures(&self) -> Vec<Failure> {
        let state = self.state.lock();
        let mut failures: Vec<Failure> = match state.silence.as_ref().filter(|_| state.outage.is_on()) {
            // one line for all that waits for S3
            Some(silence) => {
                [silence].into_iter().chain(state.queue.failures().filter(|f| !f.may_pass)).cloned().collect()
            }
            None => state.queue.failures().cloned().collect(),
        };
        failures.sort_by(|a, b| a.key.cmp(&b.key));
        failures
    }

    fn add_up(&self, progress: &mut Progress) -> Result<(), IndexError> {
        let now = self.rooms.index.wall();
        let mut oldest = now;
        self.each_pending(|ino, pending| {
            let Some(node) = self.rooms.index.node(ino)? else { return Ok(()) };
            if self.is_excluded(&node) && node.remote.is_none() {
                return Ok(());
            }
            progress.pending += 1;
            oldest = oldest.min(pending.since);
            if pending.content && node.kind != Kind::Dir {
                let live = self.rooms.content.staged_if_open(ino).map(|staged| staged.live().size);
                progress.bytes += live.unwrap_or(node.size);
            }
            progress.moving += u64::from(pending.place && !pending.content && node.kind != Kind::Dir);
            Ok(())
        })?;
        self.each_away(|_| progress.pending += 1)?;
        progress.oldest = Duration::from_nanos(u64::try_from(now.0.saturating_sub(oldest.0)).unwrap_or(0));
        Ok(())
    }

    /// What was done since the start.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Counts {
            uploads: read(&counters.uploads),
            bytes: read(&counters.bytes),
            copies: read(&counters.copies),
            deletes: read(&counters.deletes),
            conflicts: read(&counters.conflicts),
            failures: read(&counters.failures),
        }
    }
}

fn broken(error: &IndexError) -> Vec<Failure> {
    vec![Failure { key: String::new(), why: error.to_string(), may_pass: false }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_took_long_is_kept_and_not_for_long() {
        let lately = |cost| Lately { at: Tick(1_000), cost, progress: Progress::default() };
        assert!(!lately(CHEAP - Duration::from_millis(1)).holds(Tick(1_000)));
        let slow = lately(Duration::from_millis(500));
        assert!(slow.holds(Tick(10_999)) && !slow.holds(Tick(11_000)));
    }
}
