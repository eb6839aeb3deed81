//! Uploads in parts: of long objects, several at a time. A part of which nothing was written is copied inside S3 from
//! the version below; so a small change to a large object sends a part or two.
//! Invariants
//! - An upload is noted in the index before its first part, and forgotten when it is completed or aborted. So one that
//!   nobody noted, because of a crash just then, has no parts, and costs nothing. It is left alone: S3 does not tell whose
//!   an upload is, and another writer may be about to send its first part.
//! - After a restart it goes on only if it is about the same change, staging file and base: then its parts have the
//!   bytes that are here. Otherwise it is aborted.
//! - All parts are of one version of the bytes: it is compared before completing. What changes meanwhile is given up and
//!   tried again; once the oldest change has waited for `longest_delay`, from a copy of the file.
//! - Parts that are copied and parts that are sent are over one version of the base (`base`).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::SemaphorePermit;

use super::conflict::{Refused, Verdict, refusal};
use super::headers;
use super::plan::{self, Over, Version};
use super::put::{Body, blocking};
use super::sent::{Sent, digest, digest_of_parts};
use super::sync::count;
use super::task::{Step, condition};
use super::trouble::Trouble;
use super::{Asked, OnConflict, Writeback};
use crate::content::Staged;
use crate::crash;
use crate::index::Task;
use crate::positioned::read_exact_at;
use crate::store::{self, CopySource, Headers, Part, Upload};
use crate::types::{Ino, Key, Tick};

/// Most parts of an object.
const MOST_PARTS: u64 = 10_000;
/// 5 MiB: S3 takes no smaller part but as the last.
const LEAST_PART_BYTES: u64 = 5 << 20;
/// Parts of one object under way.
const PARTS_AT_ONCE: usize = 4;

/// What is noted of an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    key: String,
    id: String,
    /// Of what: the number of the staging file (zero: none), of the change, the tag of the version below.
    staged: u64,
    change: u64,
    base: Option<String>,
    size: u64,
    part_bytes: u64,
}

impl Note {
    fn upload(&self) -> Option<Upload> {
        Some(Upload { key: Key::new(&self.key)?, id: self.id.clone() })
    }

    /// Whether it is of the same bytes, to the same place.
    fn is_of(&self, other: &Note) -> bool {
        Note { id: self.id.clone(), ..other.clone() } == *self
    }
}

/// An upload under way.
struct Work<'a> {
    task: &'a Task,
    body: &'a Body,
    key: &'a Key,
    upload: Upload,
    part_bytes: u64,
    /// Parts that S3 has already.
    there: HashMap<u16, Part>,
    /// The version below, if S3 still has it.
    from: Option<Version>,
}

fn by_number(parts: Vec<Part>) -> HashMap<u16, Part> {
    parts.into_iter().map(|part| (part.number, part)).collect()
}

impl Writeback {
    /// Uploads a long object.
    pub(super) async fn put_parts(&self, task: &Task, body: &Body, key: &Key, over: Over) -> Result<Step, Trouble> {
        let headers = headers::compose(self.before(task, key, &over).await?, &task.node, &task.pending, key);
        let (upload, note, there) = self.begin(task, body, key, &headers).await?;
        let is_gone = there.is_none();
        let (part_bytes, there, from) = (note.part_bytes, there.unwrap_or_default(), plan::version(task));
        let mut work = Work { task, body, key, upload, part_bytes, there, from };
        if is_gone {
            return self.complete(&work, Vec::new(), note.size, &headers, over).await;
        }
        let mut sent = self.send_parts(&work, note.size).await;
        if let Err(Trouble::Store(store::Error::SourceChanged { .. })) = sent {
            let upload = work.upload.clone();
            work = match self.send_instead(work).await? {
                Some(work) => work,
                None => {
                    self.give_up(task.node.ino, &upload).await?;
                    return Ok(Step::On);
                }
            };
            sent = self.send_parts(&work, note.size).await;
        }
        let parts = match sent {
            Ok(Some(parts)) => parts,
            Ok(None) => return self.changed_meanwhile(task.node.ino, &work.upload).await,
            Err(Trouble::Store(store::Error::NoSuchUpload { .. })) => Vec::new(),
            Err(trouble) => return Err(trouble),
        };
        self.complete(&work, parts, note.size, &headers, over).await
    }

    /// Goes on with the upload that was noted, or begins one; with the parts that S3 has of it. `None`: S3 knows it no
    /// more, so it was completed, or swept.
    async fn begin(
        &self,
        task: &Task,
        body: &Body,
        key: &Key,
        headers: &Headers,
    ) -> Result<(Upload, Note, Option<HashMap<u16, Part>>), Trouble> {
        let (index, ino, size) = (&self.rooms.index, task.node.ino, body.size());
        let mut note = Note {
            key: key.to_string(),
            id: String::new(),
            staged: task.node.staged.map_or(0, |staged| staged.0),
            change: task.pending.change,
            base: task.node.remote.as_ref().map(|remote| remote.etag.to_string()),
            size,
            part_bytes: part_bytes(size, self.settings.part_bytes),
        };
        if let Some((noted, upload)) = self.noted(ino)? {
            if noted.is_of(&note) {
                match self.ask(self.rooms.store.parts(&upload)).await.answer {
                    Ok(parts) => return Ok((upload, noted, Some(by_number(parts)))),
                    Err(store::Error::NoSuchUpload { .. }) => return Ok((upload, noted, None)),
                    Err(error) => return Err(error.into()),
                }
            }
            self.give_up(ino, &upload).await?;
        }
        let upload = self.ask(self.writes().await?.begin_upload(key, headers)).await.answer?;
        note.id.clone_from(&upload.id);
        let encoded = serde_json::to_vec(&note).map_err(std::io::Error::other)?;
        index.note_upload(ino, Some(encoded)).await?;
        crash::point("writeback.after_note_upload");
        Ok((upload, note, Some(HashMap::new())))
    }

    fn noted(&self, ino: Ino) -> Result<Option<(Note, Upload)>, Trouble> {
        let noted = self.rooms.index.upload(ino)?.and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
        Ok(noted.and_then(|note| note.upload().map(|upload| (note, upload))))
    }

    /// Sends or copies all parts that S3 lacks; `None`: the bytes have changed meanwhile.
    async fn send_parts(&self, work: &Work<'_>, size: u64) -> Result<Option<Vec<Part>>, Trouble> {
        let ranges =
            (0..size.div_ceil(work.part_bytes)).map(|n| n * work.part_bytes..((n + 1) * work.part_bytes).min(size));
        let parts = stream::iter(ranges.enumerate()).map(|(n, range)| self.send_part(work, n as u16 + 1, range));
        let parts: Option<Vec<Option<Part>>> = parts.buffered(PARTS_AT_ONCE).try_collect().await.map(Some)?;
        Ok(parts.and_then(|parts| parts.into_iter().collect()))
    }

    /// `None`: the bytes have changed meanwhile.
    async fn send_part(&self, work: &Work<'_>, number: u16, range: Range<u64>) -> Result<Option<Part>, Trouble> {
        if self.stopping.is_cancelled() {
            return Err(Trouble::Stopping);
        }
        if !is_unchanged(work.body) {
            return Ok(None);
        }
        if let Some(part) = work.there.get(&number).filter(|part| part.size == range.end - range.start) {
            return Ok(Some(part.clone()));
        }
        let part = match unwritten(work, &range) {
            Some(from) => {
                let source = CopySource { key: &from.key, etag: &from.etag, size: from.size };
                self.ask(self.writes().await?.copy_part(&work.upload, number, source, range)).await.answer?
            }
            None => {
                let length = range.end - range.start;
                let _room = self.room(length).await?;
                let below = self.below(work.task, work.body, range.clone()).await?;
                let Some(bytes) = read(work.body, range, below).await? else { return Ok(None) };
                let digest = self.digests.are_unknown().then(|| digest(&bytes));
                let part = self.ask(self.writes().await?.put_part(&work.upload, number, bytes)).await.answer?;
                self.counters.bytes.fetch_add(length, std::sync::atomic::Ordering::Relaxed);
                if let Some(digest) = digest {
                    self.digests.learn(&digest, &part.etag);
                }
                part
            }
        };
        crash::point("writeback.after_part");
        Ok(Some(part))
    }

    /// Makes the object of its parts, and tells the index.
    async fn complete(
        &self,
        work: &Work<'_>,
        parts: Vec<Part>,
        size: u64,
        headers: &Headers,
        mut over: Over,
    ) -> Result<Step, Trouble> {
        let (task, key, ino) = (work.task, work.key, work.task.node.ino);
        let (user, etag) = (headers.user.clone(), digest_of_parts(&parts));
        let sent = Sent::new(size, etag.filter(|_| !parts.is_empty()).as_ref(), &user);
        if !parts.is_empty() && !self.note_sent(ino, key, &sent).await? {
            return Ok(Step::On);
        }
        loop {
            crash::point("writeback.before_complete");
            if !is_unchanged(work.body) {
                return self.changed_meanwhile(ino, &work.upload).await;
            }
            let asked = match parts.is_empty() {
                // the upload is gone: was it completed?
                true => Asked {
                    answer: Err(store::Error::PreconditionFailed { key: key.clone() }),
                    at: super::Stamps { sent: self.clock.now(), answered: self.clock.now() },
                },
                false => self.ask(self.writes().await?.complete_upload(&work.upload, &parts, condition(&over))).await,
            };
            crash::point("writeback.after_complete");
            let (etag, at) = match asked.answer {
                Ok(put) => {
                    count(&self.counters.uploads);
                    (put.etag, asked.at)
                }
                Err(error) => {
                    let error = match error {
                        store::Error::NoSuchUpload { key } => store::Error::PreconditionFailed { key },
                        error => error,
                    };
                    refusal(error)?;
                    match self.judge(Refused { task, key, over: &over, sent: &sent, content: true }).await? {
                        Verdict::Landed(etag, at) => (etag, at),
                        Verdict::Overwrite(etag) if over != Over::Own(etag.clone()) && !parts.is_empty() => {
                            over = Over::Own(etag);
                            continue;
                        }
                        Verdict::Overwrite(_) | Verdict::Resolved => {
                            self.give_up(ino, &work.upload).await?;
                            return Ok(Step::On);
                        }
                    }
                }
            };
            let step = self.finish_upload(task, work.body, key, etag, size, at).await?;
            self.rooms.index.note_upload(ino, None).await?;
            return Ok(step);
        }
    }

    /// What could not be copied is to be sent: S3 has another version now. `None`: it must not be; the journal says what
    /// comes next.
    async fn send_instead<'a>(&self, work: Work<'a>) -> Result<Option<Work<'a>>, Trouble> {
        let Some(from) = plan::version(work.task) else { return Ok(None) };
        let (meta, at) = self.look(&from.key).await?;
        if meta.as_ref().is_some_and(|meta| meta.etag == from.etag) {
            return Ok(None);
        }
        if self.settings.on_conflict == OnConflict::LocalWins
            && meta.is_some()
            && self.has_base(work.task, work.body)?
        {
            let parts = self.ask(self.rooms.store.parts(&work.upload)).await.answer?;
            return Ok(Some(Work { there: by_number(parts), from: None, ..work }));
        }
        self.part_from_base(work.task, work.body, meta, at).await?;
        Ok(None)
    }

    /// Its file has changed during the upload.
    async fn changed_meanwhile(&self, ino: Ino, upload: &Upload) -> Result<Step, Trouble> {
        self.state.lock().restless.insert(ino);
        self.give_up(ino, upload).await?;
        Err(Trouble::Restless)
    }

    /// Takes a copy of the bytes of a file that is never quiet for as long as its upload takes; one at a time, because each
    /// takes as much of the disk as was written to its file.
    pub(super) async fn freeze(&self, task: &Task, body: Body) -> Result<(Body, Option<SemaphorePermit<'_>>), Trouble> {
        let staged = match &body {
            Body::Staged(staged, _) if self.is_restless(task, staged) => staged.clone(),
            _ => return Ok((body, None)),
        };
        let one = self.freezing.try_acquire().map_err(|_| Trouble::Restless)?;
        let frozen = self.rooms.content.freeze(&staged).await?;
        // S3 gets nothing that a crash here would undo
        self.rooms.content.sync(&staged).await?;
        tracing::debug!(ino = %task.node.ino, "a long file that is never quiet goes up as it was at one moment");
        Ok((Body::Frozen(frozen), Some(one)))
    }

    /// Whether a file has waited for quiet as long as it may, and in vain.
    fn is_restless(&self, task: &Task, staged: &Staged) -> bool {
        let waited = self.rooms.index.wall().0.saturating_sub(task.pending.since.0);
        let is_overdue = i128::from(waited) >= self.settings.longest_delay.as_nanos() as i128;
        let written = staged.written_at();
        let is_quiet = written == Tick::NEVER || self.clock.now().since(written) >= self.settings.upload_delay;
        is_overdue && (!is_quiet || self.state.lock().restless.contains(&task.node.ino))
    }

    /// Aborts an upload and forgets it.
    async fn give_up(&self, ino: Ino, upload: &Upload) -> Result<(), Trouble> {
        self.ask(self.rooms.store.abort_upload(upload)).await.answer?;
        Ok(self.rooms.index.note_upload(ino, None).await?)
    }

    /// Aborts the upload of an inode of which nothing is to be uploaded any more: it was removed, is short now, or stays here.
    pub(super) async fn drop_upload(&self, ino: Ino) -> Result<(), Trouble> {
        match self.noted(ino)? {
            Some((_, upload)) => self.give_up(ino, &upload).await,
            None => Ok(()),
        }
    }

    /// Aborts uploads that were noted and have nothing to upload any more.
    pub(super) async fn sweep_left_overs(self: Arc<Self>) {
        let Ok(uploads) = self.rooms.index.uploads() else { return };
        for (ino, bytes) in uploads {
            if !matches!(self.rooms.index.pending(ino), Ok(None)) {
                continue;
            }
            let upload = serde_json::from_slice::<Note>(&bytes).ok().and_then(|note| note.upload());
            let given_up = match &upload {
                Some(upload) => self.give_up(ino, upload).await,
                None => self.rooms.index.note_upload(ino, None).await.map_err(Trouble::from),
            };
            if let Err(error) = given_up {
                tracing::warn!(%ino, %error, "a left-over upload could not be aborted; the next start will try again");
            }
        }
    }
}

/// The version that has all of `range`, of which nothing was written here.
fn unwritten<'a>(work: &'a Work<'_>, range: &Range<u64>) -> Option<&'a Version> {
    let (staged, _) = work.body.staged()?;
    let from = work.from.as_ref()?;
    let below = staged.base_len().min(from.size);
    let is_written = staged.written().iter().any(|written| written.start < range.end && range.start < written.end);
    // S3 takes smaller parts as the last alone, which this may not be there
    let is_long = range.end - range.start >= LEAST_PART_BYTES || range.end == work.body.size();
    (range.end <= below && !is_written && is_long).then_some(from)
}

fn is_unchanged(body: &Body) -> bool {
    body.staged().is_none_or(|(staged, version)| staged.version() == version)
}

/// The bytes of `range`; `None` when they are no longer those of the body's version.
async fn read(
    body: &Body,
    range: Range<u64>,
    below: Option<crate::content::Below>,
) -> Result<Option<bytes::Bytes>, Trouble> {
    if let Some((staged, version)) = body.staged() {
        let staged = staged.clone();
        let read = move || {
            let (bytes, read) = staged.read(range, below.as_ref())?;
            Ok((read == version).then_some(bytes))
        };
        return Ok(blocking(read).await?);
    }
    match body {
        Body::Staged(..) | Body::Frozen(_) | Body::Empty => Ok(Some(bytes::Bytes::new())),
        Body::Here(object) => {
            let object = object.clone();
            let read = move || {
                let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(std::io::Error::other)?];
                read_exact_at(object.file(), &mut bytes, range.start)?;
                Ok(Some(bytes.into()))
            };
            Ok(blocking(read).await?)
        }
    }
}

/// The length of a part: so that `MOST_PARTS` are enough.
fn part_bytes(size: u64, wanted: u64) -> u64 {
    let mut part = wanted.max(LEAST_PART_BYTES);
    while size.div_ceil(part) > MOST_PARTS {
        part *= 2;
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_double_until_ten_thousand_are_enough() {
        let mib = 1 << 20;
        for (size, part) in [(17 * mib, 8 * mib), (80_000 * mib, 8 * mib), (80_000 * mib + 1, 16 * mib)] {
            assert_eq!(part_bytes(size, 8 * mib), part);
        }
        let largest = 50_000_000_000_000;
        assert!(largest / part_bytes(largest, 8 * mib) < 10_000);
        assert_eq!(part_bytes(10 * mib, mib), LEAST_PART_BYTES);
    }

    #[test]
    fn an_upload_goes_on_only_with_the_same_bytes() {
        let note = Note {
            key: "k".into(),
            id: "u".into(),
            staged: 5,
            change: 7,
            base: Some("e".into()),
            size: 100,
            part_bytes: 8,
        };
        let now = Note { id: String::new(), ..note.clone() };
        assert!(note.is_of(&now));
        for other in [
            Note { change: 8, ..now.clone() },
            Note { staged: 6, ..now.clone() },
            Note { base: None, ..now.clone() },
            Note { key: "j".into(), ..now.clone() },
            Note { size: 99, ..now.clone() },
        ] {
            assert!(!note.is_of(&other), "{other:?}");
        }
    }
}
