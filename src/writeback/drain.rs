//! The owner task: takes what is due off the queue, runs it, and takes back what became of it.
//! Invariant: at most `uploads` tasks at once, but for those that have their answer and only tell the index (as many
//! again at most); one, and not before its time, while S3 does not answer.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::backoff::May;
use super::queue::End;
use super::sync::is_waited_for;
use super::{Failure, State, Writeback};
use crate::index::{IndexError, Work};
use crate::types::{Ino, Key, Tick};

/// Rows of the journal read in one go.
const BATCH: usize = 1_000;

/// Tasks under way.
#[derive(Default)]
struct Running {
    tasks: JoinSet<End>,
    rows: HashMap<Id, Work>,
}

impl Writeback {
    /// The owner task. On `stop`, uploads that are nearly done end, the others are left to the next start.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        if let Err(error) = self.load() {
            error!(%error, "the journal cannot be read: what is in it waits for the next start");
        }
        let left_overs = tokio::spawn(self.clone().sweep_left_overs());
        let mut running = Running::default();
        loop {
            self.take_work();
            while let Some(work) = self.next() {
                let task = running.tasks.spawn(self.clone().carry_out(work.clone()));
                running.rows.insert(task.id(), work);
            }
            let due = self.next_due();
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.rooms.index.work_added() => {}
                () = self.poked.notified() => {}
                Some(ended) = running.tasks.join_next_with_id() => self.take_back(&mut running, ended),
                () = self.clock.reached(due.unwrap_or(Tick::NEVER)), if due.is_some() => {}
            }
        }
        self.stopping.cancel();
        left_overs.abort();
        while let Some(ended) = running.tasks.join_next_with_id().await {
            self.take_back(&mut running, ended);
        }
        self.report_rest();
    }

    /// Puts what the journal had at the start into the queue.
    fn load(&self) -> Result<(), IndexError> {
        let index = &self.rooms.index;
        let now = self.clock.now();
        let mut after = Ino(0);
        loop {
            let rows = index.pending_rows(after, BATCH)?;
            let Some((last, _)) = rows.last() else { break };
            after = *last;
            let mut state = self.state.lock();
            rows.into_iter().for_each(|(ino, _)| state.queue.found(Work::Inode(ino), now));
        }
        let mut after: Option<Key> = None;
        loop {
            let rows = index.away_rows(after.as_ref(), BATCH)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = Some(last.clone());
            let mut state = self.state.lock();
            rows.into_iter().for_each(|(key, _)| state.queue.found(Work::Away(key), now));
        }
    }

    /// Takes what has come to the journal.
    pub(super) fn take_work(&self) {
        let work = self.rooms.index.take_work();
        let now = self.clock.now();
        let mut state = self.state.lock();
        let state = &mut *state;
        for work in work {
            let pressed = is_waited_for(&state.waiters, &work).then(|| work.clone());
            state.queue.changed(work, now);
            if let Some(work) = pressed {
                state.queue.press(&work, now);
            }
        }
    }

    /// The next to be begun.
    fn next(&self) -> Option<Work> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let most = match state.outage.may() {
            May::All => self.most_tasks(&state),
            May::One(from) => usize::from(now >= from),
        };
        if state.queue.running() >= most { None } else { state.queue.next(now) }
    }

    /// When to look again; `None`: when something happens.
    fn next_due(&self) -> Option<Tick> {
        let state = self.state.lock();
        let due = state.queue.next_due()?;
        match state.outage.may() {
            May::All => (state.queue.running() < self.most_tasks(&state)).then_some(due),
            May::One(from) => (state.queue.running() == 0).then(|| due.max(from)),
        }
    }

    fn most_tasks(&self, state: &State) -> usize {
        let uploads = self.settings.uploads.max(1);
        uploads + state.settling.min(uploads)
    }

    fn take_back(&self, running: &mut Running, ended: Result<(Id, End), JoinError>) {
        let (id, end) = match ended {
            Ok((id, end)) => (id, Some(end)),
            Err(failed) => {
                error!(error = %failed, "an upload's task failed");
                (failed.id(), None)
            }
        };
        let Some(work) = running.rows.remove(&id) else { return };
        let end = end.unwrap_or_else(|| {
            let why = "an error in the program: see the log, and report it".to_owned();
            End::Failed { failure: Failure { key: format!("{work:?}"), why, may_pass: false }, unanswered: false }
        });
        self.finish(&work, end);
    }

    /// Takes a row back.
    fn finish(&self, work: &Work, end: End) {
        let now = self.clock.now();
        self.tell_end(work, &end);
        let mut state = self.state.lock();
        let state = &mut *state;
        if let End::Failed { failure, unanswered } = &end {
            if *unanswered {
                if state.outage.failed(now) {
                    warn!(why = failure.why, "S3 does not answer: changes are kept here and go up when it is back");
                }
                state.silence = Some(failure.clone());
            } else if state.queue.failure(work) != Some(failure) {
                // once, and not at every try
                warn!(key = failure.key, why = failure.why, "not in S3 yet, will be tried again");
            }
        }
        let is_left = end == End::Done && is_waited_for(&state.waiters, work);
        state.queue.finish(work, end, now);
        if is_left {
            state.queue.press(work, now);
        }
    }

    /// Says what the next start will find.
    fn report_rest(&self) {
        let rest = self.progress();
        if rest.pending > 0 {
            let changes = if rest.pending == 1 { "1 change".to_owned() } else { format!("{} changes", rest.pending) };
            let bytes = bytesize::ByteSize(rest.bytes);
            info!("{changes}, {bytes} not in S3 yet: they go up at the next start");
        }
    }
}
