//! Uploads: an object of up to `multipart_threshold` bytes is one PUT of bytes that were read in one go, so of one
//! version; what is longer is `multipart`'s.
//! Invariant: what is settled is what was sent. The bytes are compared by `Staged::version` after the answer, in the
//! sole turn, in which nobody can write.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::SemaphorePermit;

use super::conflict::{Refused, Verdict, refusal};
use super::headers;
use super::plan::{self, Action, Over, Version};
use super::sent::{Sent, digest};
use super::sync::count;
use super::task::{Step, condition, settled};
use super::trouble::Trouble;
use super::{Asked, BODY_BYTES, BODY_UNIT, Stamps, Writeback};
use crate::content::{Below, Frozen, Object, Staged};
use crate::crash;
use crate::index::{Kind, Outcome, Settled, Task};
use crate::positioned::read_exact_at;
use crate::store::{self, Headers};
use crate::types::{ETag, Key};

/// Tries to write over what S3 has, where the local version is to win: somebody may write all the time.
const TRIES: usize = 3;

/// Where the bytes of an object are.
pub(super) enum Body {
    /// It has none: a marker, a FIFO.
    Empty,
    /// In a staging file, as of this version of it.
    Staged(Arc<Staged>, u64),
    /// In a copy of a staging file that is never quiet.
    Frozen(Frozen),
    /// In an object file, all of them.
    Here(Arc<Object>),
}

impl Body {
    pub(super) fn size(&self) -> u64 {
        match self {
            Body::Empty => 0,
            Body::Staged(staged, _) => staged.live().size,
            Body::Frozen(frozen) => frozen.bytes().live().size,
            Body::Here(object) => object.size(),
        }
    }

    /// What lies over the version below, and which version of that counts.
    pub(super) fn staged(&self) -> Option<(&Arc<Staged>, u64)> {
        match self {
            Body::Staged(staged, version) => Some((staged, *version)),
            Body::Frozen(frozen) => Some((frozen.bytes(), frozen.bytes().version())),
            Body::Empty | Body::Here(_) => None,
        }
    }

    /// The staging file that this is of, and its version then.
    fn origin(&self) -> Option<(&Arc<Staged>, u64)> {
        match self {
            Body::Frozen(frozen) => Some(frozen.origin()),
            Body::Staged(..) | Body::Empty | Body::Here(_) => self.staged(),
        }
    }
}

impl Writeback {
    /// Uploads what is at `task`'s path.
    pub(super) async fn put(&self, task: &Task, key: &Key, over: Over) -> Result<Step, Trouble> {
        let Some(body) = self.body(task).await? else {
            // what S3 has of it is what it is to be, elsewhere
            let Some(from) = plan::version(task) else { return Ok(Step::Changed) };
            return self.copy_over(task, &Body::Empty, &from, key, over).await;
        };
        // what was just made durable belongs to the journal's view
        let Some(task) = self.rooms.index.task(task.node.ino)? else { return Ok(Step::Done) };
        match plan::plan(&task, self.is_excluded(&task.node)) {
            Action::Put { key: planned, over: expected } if planned == *key && expected == over => {}
            _ => return Ok(Step::On),
        }
        if body.size() > self.settings.multipart_threshold {
            let (body, _one) = self.freeze(&task, body).await?;
            return self.put_parts(&task, &body, key, over).await;
        }
        let size = body.size();
        let _room = self.room(size).await?;
        let below = self.below(&task, &body, 0..size).await?;
        let Some((bytes, etag)) = read(&body, below).await? else { return Ok(Step::Changed) };
        if let Some(from) = plan::version(&task).filter(|from| from.etag == etag && from.size == size) {
            match self.copy_over(&task, &body, &from, key, over.clone()).await {
                // somebody wrote there: the condition of the PUT finds out
                Err(Trouble::Store(store::Error::SourceChanged { .. })) => {}
                copied => return copied,
            }
        }
        self.send(&task, &body, (bytes, etag), key, over).await
    }

    /// One PUT, and what follows from its answer.
    async fn send(
        &self,
        task: &Task,
        body: &Body,
        (bytes, digest): (Bytes, ETag),
        key: &Key,
        mut over: Over,
    ) -> Result<Step, Trouble> {
        let before = self.before(task, key, &over).await?;
        let headers = headers::compose(before, &task.node, &task.pending, key);
        let size = bytes.len() as u64;
        let sent = Sent::new(size, Some(&digest), &headers.user);
        if !self.note_sent(task.node.ino, key, &sent).await? {
            return Ok(Step::On);
        }
        for _ in 0..TRIES {
            crash::point("writeback.before_put");
            let put = self.writes().await?.put(key, bytes.clone(), &headers, condition(&over));
            let Asked { answer, at } = self.ask(put).await;
            crash::point("writeback.after_put");
            let (etag, at) = match answer {
                Ok(put) => {
                    if !bytes.is_empty() {
                        self.digests.learn(&digest, &put.etag);
                    }
                    count(&self.counters.uploads);
                    self.counters.bytes.fetch_add(size, std::sync::atomic::Ordering::Relaxed);
                    (put.etag, at)
                }
                Err(error) => {
                    refusal(error)?;
                    match self.judge(Refused { task, key, over: &over, sent: &sent, content: true }).await? {
                        Verdict::Landed(etag, at) => (etag, at),
                        Verdict::Resolved => return Ok(Step::On),
                        Verdict::Overwrite(etag) => {
                            over = Over::Own(etag);
                            continue;
                        }
                    }
                }
            };
            return self.finish_upload(task, body, key, etag, size, at).await;
        }
        Err(Trouble::Restless)
    }

    /// Tells the index that S3 has the bytes of `body`.
    pub(super) async fn finish_upload(
        &self,
        task: &Task,
        body: &Body,
        key: &Key,
        etag: ETag,
        size: u64,
        at: Stamps,
    ) -> Result<Step, Trouble> {
        let settled = Settled { content: true, ..settled(task, key, etag, size, at) };
        let Some((staged, version)) = body.origin() else { return Ok(self.settle(task, settled).await?.into()) };
        let content = &self.rooms.content;
        let turn = staged.sole_turn().await;
        let Some(turn) = turn.filter(|_| staged.version() == version) else {
            // so that the index knows that there is more
            let synced = content.sync(staged).await;
            self.settle(task, settled).await?;
            synced?;
            return Ok(Step::Changed);
        };
        let base = (staged.base_len() > 0).then_some(&task.node.inode);
        let local = match content.promote(staged, base).await {
            Ok(local) => Some(local),
            // removed meanwhile: what was sent has to leave S3 again
            Err(_) if self.rooms.index.node(task.node.ino)?.is_none() => None,
            Err(error) => {
                // what S3 has now is told all the same
                self.settle(task, settled).await?;
                return Err(error.into());
            }
        };
        let outcome = self.settle(task, Settled { local, ..settled }).await?;
        let is_replaced = self.rooms.index.node(task.node.ino)?.is_none_or(|node| node.staged != Some(staged.id()));
        if outcome != Outcome::Again || is_replaced {
            content.close_staged(staged, turn);
        }
        Ok(outcome.into())
    }

    /// Where the bytes are; what was written and is not durable yet is made so. `None`: only S3 has them.
    async fn body(&self, task: &Task) -> Result<Option<Body>, Trouble> {
        let node = &task.node;
        let content = &self.rooms.content;
        if !matches!(node.kind, Kind::File | Kind::Symlink) {
            return Ok(Some(Body::Empty));
        }
        if node.staged.is_some() {
            let staged = match content.staged(node) {
                Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => return Err(Trouble::Restless),
                staged => staged?,
            };
            let version = staged.version();
            content.sync(&staged).await?;
            return Ok(Some(Body::Staged(staged, version)));
        }
        match (node.local.filter(|local| local.complete), &node.remote) {
            (_, Some(_)) => Ok(None),
            (Some(local), None) => match content.try_get(local.object)? {
                Some(object) => Ok(Some(Body::Here(object))),
                None => Err(io::Error::new(io::ErrorKind::NotFound, "the only copy of the file is lost").into()),
            },
            (None, None) if node.size == 0 => Ok(Some(Body::Empty)),
            (None, None) => Err(io::Error::new(io::ErrorKind::NotFound, "the only copy of the file is lost").into()),
        }
    }

    /// The headers of the version that is rewritten; of a new file that takes the name of another, that one's.
    pub(super) async fn before(&self, task: &Task, key: &Key, over: &Over) -> Result<Option<Headers>, Trouble> {
        let own = plan::version(task);
        let from = match (&own, over) {
            (Some(Version { key, .. }), _) => key,
            (None, Over::Replaced(_) | Over::Own(_)) => key,
            (None, Over::Nothing) => return Ok(None),
        };
        let Asked { answer, .. } = self.ask(self.rooms.store.describe(from)).await;
        match answer {
            Ok((_, headers)) if own.is_some() => Ok(Some(headers)),
            Ok((_, headers)) => Ok(Some(headers::inherited(headers))),
            // the write's condition finds out
            Err(store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for room in memory for so many bytes; all of it is enough for any.
    pub(super) async fn room(&self, bytes: u64) -> Result<SemaphorePermit<'_>, Trouble> {
        let units = bytes.div_ceil(BODY_UNIT).min(BODY_BYTES as u64 / BODY_UNIT) as u32;
        self.memory.acquire_many(units).await.map_err(|_| Trouble::Stopping)
    }
}

/// All bytes of `body` and their digest; `None` when they are no longer those of its version.
async fn read(body: &Body, below: Option<Below>) -> Result<Option<(Bytes, ETag)>, Trouble> {
    let (staged, version) = match body {
        Body::Staged(staged, version) => (staged.clone(), *version),
        Body::Frozen(frozen) => (frozen.bytes().clone(), frozen.bytes().version()),
        Body::Empty => return Ok(Some((Bytes::new(), digest(b"")))),
        Body::Here(object) => {
            let object = object.clone();
            let read = move || {
                let mut bytes = vec![0; usize::try_from(object.size()).map_err(io::Error::other)?];
                read_exact_at(object.file(), &mut bytes, 0)?;
                Ok((digest(&bytes), Bytes::from(bytes)))
            };
            let (etag, bytes) = blocking(read).await?;
            return Ok(Some((bytes, etag)));
        }
    };
    let with_digest = move |(bytes, read): (Bytes, u64)| (read == version).then(|| (bytes.clone(), digest(&bytes)));
    if let Some(read) = staged.read_at_once() {
        return Ok(with_digest(read));
    }
    Ok(blocking(move || Ok(with_digest(staged.read(0..u64::MAX, below.as_ref())?))).await?)
}

/// Runs `work` where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
