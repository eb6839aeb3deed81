//! Copies inside S3: of what was renamed, and, onto itself, of what has other attributes. And the entries of renamed
//! directories, which become rows of their own.

use super::conflict::{Refused, Verdict, refusal};
use super::headers;
use super::plan::{Over, Version};
use super::put::Body;
use super::sent::Sent;
use super::sync::count;
use super::task::{Step, condition, settled};
use super::trouble::Trouble;
use super::{Asked, Stamps, Writeback};
use crate::crash;
use crate::index::{Kind, Observation, Seen, Source, Task, Work};
use crate::revalidate::WaitError;
use crate::store::{self, CopySource};
use crate::types::{Ino, Key};

/// Entries of a renamed directory that get rows in one transaction.
const ENTRIES: usize = 1_000;
/// Renames in a circle are found up to this length.
const LONGEST_CIRCLE: usize = 1_000;

impl Writeback {
    /// Copies the version `from` to `key` with the attributes of here.
    pub(super) async fn copy(&self, task: &Task, from: &Version, key: &Key, over: Over) -> Result<Step, Trouble> {
        let Some(copied) = self.copy_version(task, from, key, over, false).await? else { return Ok(Step::On) };
        let (etag, at) = copied;
        Ok(self.settle(task, settled(task, key, etag, from.size, at)).await?.into())
    }

    /// The same for a file whose bytes are, after all, those that S3 has: they are not sent again.
    pub(super) async fn copy_over(
        &self,
        task: &Task,
        body: &Body,
        from: &Version,
        key: &Key,
        over: Over,
    ) -> Result<Step, Trouble> {
        let Some((etag, at)) = self.copy_version(task, from, key, over, true).await? else { return Ok(Step::On) };
        self.finish_upload(task, body, key, etag, from.size, at).await
    }

    /// `None`: the journal says what comes next.
    async fn copy_version(
        &self,
        task: &Task,
        from: &Version,
        key: &Key,
        mut over: Over,
        content: bool,
    ) -> Result<Option<(crate::types::ETag, Stamps)>, Trouble> {
        let Asked { answer, at } = self.ask(self.rooms.store.describe(&from.key)).await;
        let (meta, before) = match answer {
            Ok(described) => described,
            Err(store::Error::NotFound { .. }) => return self.source_changed(task, from, None, at).await,
            Err(error) => return Err(error.into()),
        };
        let headers = headers::compose(Some(before), &task.node, &task.pending, key);
        let etag = (!from.etag.as_str().contains('-')).then(|| from.etag.clone());
        let sent = Sent::new(from.size, etag.as_ref(), &headers.user);
        if from.key == *key && meta.etag != from.etag && self.has_landed(key, &meta, &sent).await? {
            // of a copy whose answer was lost
            return Ok(Some((meta.etag, at)));
        }
        if meta.etag != from.etag {
            return self.source_changed(task, from, Some(meta), at).await;
        }
        if !self.note_sent(task.node.ino, key, &sent).await? {
            return Ok(None);
        }
        let source = CopySource { key: &from.key, etag: &from.etag, size: from.size };
        loop {
            let copy = self.writes().await?.copy(source, key, Some(&headers), condition(&over));
            let Asked { answer, at } = self.ask(copy).await;
            let error = match answer {
                Ok(put) => {
                    crash::point("writeback.after_copy");
                    count(&self.counters.copies);
                    return Ok(Some((put.etag, at)));
                }
                Err(store::Error::SourceChanged { .. }) => None,
                // onto itself, source and target are one
                Err(store::Error::PreconditionFailed { .. } | store::Error::NotFound { .. }) if from.key == *key => {
                    None
                }
                Err(error) => Some(error),
            };
            let Some(error) = error else {
                let (meta, at) = self.look(&from.key).await?;
                return self.source_changed(task, from, meta, at).await;
            };
            refusal(error)?;
            match self.judge(Refused { task, key, over: &over, sent: &sent, content }).await? {
                Verdict::Landed(etag, at) => return Ok(Some((etag, at))),
                Verdict::Resolved => return Ok(None),
                Verdict::Overwrite(etag) if over == Over::Own(etag.clone()) => return Ok(None),
                Verdict::Overwrite(etag) => over = Over::Own(etag),
            }
        }
    }

    /// The version that was to be copied is another one now, which goes along, or gone.
    /// # Errors
    /// `SourceChanged`: bytes of here are to be in its place.
    async fn source_changed<T>(
        &self,
        task: &Task,
        from: &Version,
        meta: Option<store::ObjectMeta>,
        at: Stamps,
    ) -> Result<Option<T>, Trouble> {
        let index = &self.rooms.index;
        if meta.as_ref().is_some_and(|meta| meta.etag == from.etag) {
            return Ok(None);
        }
        if let Some(meta) = &meta
            && self.take_up(task, &from.key, meta, at).await?
        {
            return Ok(None);
        }
        if meta.is_some() && task.node.staged.is_some() {
            return Err(Trouble::Store(store::Error::SourceChanged { key: from.key.clone() }));
        }
        if meta.is_some() || task.node.staged.is_some() {
            index.rebase(task.node.ino, meta, at.sent, at.answered).await?;
            return Ok(None);
        }
        let Stamps { sent, answered } = at;
        let (key, source) = (from.key.clone(), Source::Check);
        index.apply(Observation { key, seen: Seen::Absent, sent, answered, source, content: None }).await?;
        Ok(None)
    }

    /// Gives what is below a renamed directory rows of its own.
    pub(super) async fn expand(&self, task: &Task) -> Result<Step, Trouble> {
        let dir = task.node.ino;
        match self.rooms.revalidator.refresh(dir).await {
            Ok(_) => {}
            Err(WaitError::Gone) => return Ok(Step::On),
            Err(error) => return Err(error.into()),
        }
        self.describe_marker(dir).await?;
        loop {
            let expanded = self.rooms.index.expand(dir, ENTRIES).await?;
            crash::point("writeback.after_expand");
            if expanded.done {
                self.tell_settled(&Work::Inode(dir), Some(task.pending.change), None);
                return Ok(Step::On);
            }
            if self.stopping.is_cancelled() {
                return Err(Trouble::Stopping);
            }
        }
    }

    /// Has S3 tell the attributes of a marker of which only a listing has spoken, before it is made anew elsewhere.
    async fn describe_marker(&self, dir: Ino) -> Result<(), Trouble> {
        let index = &self.rooms.index;
        let wanting = index.node(dir)?.filter(|node| node.remote.is_some() && !node.attributes_known);
        let Some((_, key)) = wanting.zip(index.remote_prefix(dir)?) else { return Ok(()) };
        let (Some(meta), Stamps { sent, answered }) = self.look(&key).await? else { return Ok(()) };
        let (seen, source) = (Seen::Object(meta), Source::Check);
        index.apply(Observation { key, seen, sent, answered, source, content: None }).await?;
        Ok(())
    }

    /// Another's version must leave before `task`'s can come: whose task comes first. `None`: it was a circle (`mv a t;
    /// mv b a; mv t b`) and this one's version has stepped aside.
    pub(super) async fn make_way(&self, task: &Task, other: Ino) -> Result<Option<Work>, Trouble> {
        let index = &self.rooms.index;
        let mut at = other;
        for _ in 0..LONGEST_CIRCLE {
            let Some(next) = index.task(at)?.and_then(|task| task.in_the_way).and_then(|away| away.ino) else { break };
            if next == task.node.ino {
                // one of them is enough: the one with the least number
                return if task.node.ino < other { self.step_aside(task).await } else { Ok(Some(Work::Inode(other))) };
            }
            if next == at {
                break;
            }
            at = next;
        }
        Ok(Some(Work::Inode(other)))
    }

    /// Copies the version of `task` to a key that nobody has: the same one at each try.
    async fn step_aside(&self, task: &Task) -> Result<Option<Work>, Trouble> {
        let (Some(from), Some(key)) = (super::plan::version(task), &task.key) else {
            return Err(Trouble::Restless);
        };
        let aside = Key::new(&format!("{key}.moving-{}", task.node.ino.0)).ok_or(Trouble::TooLong)?;
        let _held = match self.hold(&aside, &Work::Inode(task.node.ino)) {
            Ok(held) => held,
            Err(holder) => return Ok(Some(holder)),
        };
        let (meta, at) = self.look(&from.key).await?;
        let user = match &meta {
            Some(meta) if meta.etag == from.etag => meta.user.clone().unwrap_or_default(),
            _ => return self.source_changed(task, &from, meta, at).await,
        };
        self.note_sent_aside(&aside, &Sent::new(from.size, Some(&from.etag), &user)).await?;
        let source = CopySource { key: &from.key, etag: &from.etag, size: from.size };
        let Asked { answer, at } = self.ask(self.writes().await?.copy(source, &aside, None, store::PutIf::Any)).await;
        match answer {
            Ok(put) => {
                crash::point("writeback.after_copy");
                count(&self.counters.copies);
                // its attributes and its bytes are still to come
                let aside = settled(task, &aside, put.etag, from.size, at);
                self.rooms.index.settle(crate::index::Settled { change: 0, ..aside }).await?;
            }
            Err(store::Error::SourceChanged { .. } | store::Error::NotFound { .. }) => {
                let (meta, at) = self.look(&from.key).await?;
                self.source_changed::<()>(task, &from, meta, at).await?;
            }
            Err(error) => return Err(error.into()),
        }
        debug_assert!(task.node.kind != Kind::Dir, "markers are written anew");
        Ok(None)
    }
}
