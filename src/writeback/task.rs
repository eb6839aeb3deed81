//! One row of the journal, worked on until nothing is left of it, or something else must come first.

use std::sync::Arc;

use super::plan::{self, Action};
use super::queue::End;
use super::trouble::Trouble;
use super::{Asked, Stamps, Writeback};
use crate::crash;
use crate::index::{IndexError, Outcome, Settled, Task, Work};
use crate::store::{self, PutIf};
use crate::types::{ETag, Ino, Key, Tick};

/// Most steps of one task: what needs more has others before it.
const STEPS: usize = 16;

/// What a step of a task came to.
#[derive(Debug)]
pub(super) enum Step {
    /// The journal has been told; it may have more.
    On,
    /// S3 has it all, as of the journal.
    Done,
    /// It has changed meanwhile: it waits for quiet again.
    Changed,
}

impl From<Outcome> for Step {
    fn from(outcome: Outcome) -> Step {
        match outcome {
            // and no look at what came since: that waits for quiet
            Outcome::Done | Outcome::Gone => Step::Done,
            Outcome::Again | Outcome::Elsewhere => Step::Changed,
        }
    }
}

/// The right to write to a key, while it lives.
pub(super) struct Held<'a> {
    writeback: &'a Writeback,
    key: Key,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.writeback.state.lock().keys.remove(&self.key);
    }
}

/// A task that leaves its place among the uploads to another, while it lives.
struct Settling<'a>(&'a Writeback);

impl Settling<'_> {
    fn new(writeback: &Writeback) -> Settling<'_> {
        writeback.state.lock().settling += 1;
        writeback.poked.notify_one();
        Settling(writeback)
    }
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.0.state.lock().settling -= 1;
    }
}

impl Writeback {
    /// Works on one row.
    pub(super) async fn carry_out(self: Arc<Self>, work: Work) -> End {
        if let Some(quiet) = self.not_before(&work) {
            return End::Later(quiet);
        }
        let end = match &work {
            Work::Inode(ino) => match self.bring(*ino, &work).await {
                Ok(End::Done) => self.drop_upload(*ino).await.map(|()| End::Done),
                end => end,
            },
            Work::Away(key) => self.take_away(key, &work).await,
        };
        match end {
            Ok(end) => end,
            // the next start goes on
            Err(Trouble::Index(IndexError::Closed) | Trouble::Stopping) => End::Later(Tick(u64::MAX)),
            Err(_) if self.is_gone(&work) => End::Done,
            Err(trouble) => trouble.into_end(self.name(&work)),
        }
    }

    /// When the file will have been quiet, if it is not.
    fn not_before(&self, work: &Work) -> Option<Tick> {
        let Work::Inode(ino) = work else { return None };
        let patience = self.state.lock().queue.patience(work)?;
        let written = self.rooms.content.staged_if_open(*ino)?.written_at();
        let quiet = Tick(written.0 + self.settings.upload_delay.as_millis() as u64).min(patience);
        (written != Tick::NEVER && quiet > self.clock.now()).then_some(quiet)
    }

    /// Whether its inode was removed, and its bytes perhaps while they were wanted.
    fn is_gone(&self, work: &Work) -> bool {
        matches!(work, Work::Inode(ino) if matches!(self.rooms.index.node(*ino), Ok(None)))
    }

    /// What a person calls it.
    fn name(&self, work: &Work) -> String {
        match work {
            Work::Away(key) => key.to_string(),
            Work::Inode(ino) => match self.rooms.index.key(*ino) {
                Ok(Some(key)) => key.to_string(),
                _ => self.last_name(*ino),
            },
        }
    }

    /// The last part of a path that is longer than a key.
    fn last_name(&self, ino: Ino) -> String {
        let node = self.rooms.index.node(ino).ok().flatten();
        node.map_or_else(|| ino.to_string(), |node| format!(".../{}", node.component.text()))
    }

    async fn bring(&self, ino: Ino, work: &Work) -> Result<End, Trouble> {
        let mut held: Option<Held<'_>> = None;
        for _ in 0..STEPS {
            let Some(task) = self.rooms.index.task(ino)? else { return Ok(End::Done) };
            let action = plan::plan(&task, self.is_excluded(&task.node));
            if let Action::Put { key, .. } | Action::Copy { key, .. } = &action
                && held.as_ref().is_none_or(|held| held.key != *key)
            {
                drop(held.take());
                match self.hold(key, work) {
                    // and look again: whoever had it may have written
                    Ok(key) => held = Some(key),
                    Err(holder) => return Ok(End::Blocked(holder)),
                }
                continue;
            }
            let step = match action {
                Action::Leave => return Ok(End::Done),
                Action::TooLong => return Err(Trouble::TooLong),
                Action::WaitFor(other) => match self.make_way(&task, other).await? {
                    Some(by) => return Ok(End::Blocked(by)),
                    None => Step::On,
                },
                Action::Nothing => self.rooms.index.settle_without(ino, task.pending.change).await?.into(),
                Action::Localise => self.localise(&task).await?,
                Action::Put { key, over } => self.put(&task, &key, over).await?,
                Action::Copy { from, key, over } => self.copy(&task, &from, &key, over).await?,
                Action::Expand => self.expand(&task).await?,
            };
            match step {
                Step::On => {}
                Step::Done => return Ok(End::Done),
                Step::Changed => return Ok(End::Changed),
            }
        }
        Ok(End::Changed)
    }

    /// The right to write to `key`; or who has it.
    pub(super) fn hold(&self, key: &Key, work: &Work) -> Result<Held<'_>, Work> {
        let mut state = self.state.lock();
        if let Some(holder) = state.keys.get(key) {
            return Err(holder.clone());
        }
        state.keys.insert(key.clone(), work.clone());
        Ok(Held { writeback: self, key: key.clone() })
    }

    /// Brings the bytes of a file here that is not to be in S3, and makes it a local one.
    async fn localise(&self, task: &Task) -> Result<Step, Trouble> {
        let ino = task.node.ino;
        if task.node.remote.as_ref().is_some_and(|remote| remote.size > 0) {
            self.rooms.revalidator.warm(ino).await?;
        }
        let outcome = self.rooms.index.localise(ino, task.pending.change).await?;
        if outcome == Outcome::Done {
            self.tell_settled(&Work::Inode(ino), Some(task.pending.change), task.remote_key.clone().map(Work::Away));
        }
        Ok(outcome.into())
    }

    /// Tells the index what S3 has now, and whoever waits for it.
    pub(super) async fn settle(&self, task: &Task, settled: Settled) -> Result<Outcome, Trouble> {
        let (ino, change, key) = (settled.ino, settled.change, settled.key.clone());
        let settling = Settling::new(self);
        let outcome = self.rooms.index.settle(settled).await?;
        drop(settling);
        crash::point("writeback.after_settle");
        self.state.lock().restless.remove(&ino);
        let (change, left) = match outcome {
            Outcome::Elsewhere => (None, Some(key)),
            _ => (Some(change), task.remote_key.clone().filter(|left| *left != key)),
        };
        self.tell_settled(&Work::Inode(ino), change, left.map(Work::Away));
        Ok(outcome)
    }

    /// What the object at `key` is now.
    pub(super) async fn look(&self, key: &Key) -> Result<(Option<store::ObjectMeta>, Stamps), Trouble> {
        let Asked { answer, at } = self.ask(self.rooms.store.head(key)).await;
        match answer {
            Ok(meta) => Ok((Some(meta), at)),
            Err(store::Error::NotFound { .. }) => Ok((None, at)),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a settling of `task` says, but for the bytes.
pub(super) fn settled(task: &Task, key: &Key, etag: ETag, size: u64, at: Stamps) -> Settled {
    Settled {
        ino: task.node.ino,
        change: task.pending.change,
        key: key.clone(),
        etag,
        size,
        sent: at.sent,
        answered: at.answered,
        content: false,
        local: None,
    }
}

/// The condition of a write over what is expected.
pub(super) fn condition(over: &plan::Over) -> PutIf {
    match over {
        plan::Over::Nothing => PutIf::Absent,
        plan::Over::Own(etag) | plan::Over::Replaced(etag) => PutIf::Match(etag.clone()),
    }
}
