//! The one place that decides newer, stale or gone: what an observation of one key does to the index.
//! `apply` takes a HEAD, a GET or our own write; `sweep.rs` brings the entries of listings here.
//!
//! - Two observations are of the same bytes when ETag and size agree, of the same version when the whole
//!   seconds of Last-Modified do too (HEAD tells no more). The same bytes with another Last-Modified are a
//!   rewrite of the metadata: the bytes here stay, the attributes are in doubt until a HEAD tells them.
//! - Other bytes under the same key keep inode, cookie and name; `ctime` grows strictly.
//! - An inode never changes its kind: clients must not find a file where their handle named a link.
//! - An observation sent before the last applied one was answered changes nothing: when both are of the same version, its
//!   attributes may still be older. Only bytes that it brought are taken, if they are those of the version here.
//! - What is changed here and not in S3 yet wins: S3's word about it is left to the upload, which finds the conflict.
//!   What was removed here does not come back before S3 has removed it, too, unless somebody wrote it since.
//! - An observation is of a key of S3: `locate.rs` tells which inode that is.

mod gone;
mod key;

use super::change::Change;
use super::metadata::{self, Attributes};
use super::model::{Away, Freshness, IndexError, Inode, Kind, Local, ObjectRow, Observation, Presence, Seen, Verdict};
use super::news::{self, News, is_dirty};
use super::row::Row;
use super::shelter::Shelter;
use super::tables::{self, Child};
use crate::store::ObjectMeta;
use crate::types::name::ComponentKind;
use crate::types::{Component, Ino, ObjectId, Tick, Time, name};

pub(super) use gone::{absent, unmark};
pub(super) use key::{apply_to_away, apply_to_key};

/// When and with what an observation was made.
pub(super) struct Evidence {
    pub(super) sent: Tick,
    pub(super) answered: Tick,
    /// The bytes that came with it, until an inode takes them.
    pub(super) content: Option<ObjectId>,
}

/// Where an entry is, and what is there.
pub(super) struct Place<'a> {
    pub(super) dir: Ino,
    pub(super) component: &'a Component,
    pub(super) child: Option<Child>,
}

/// Decision about one key, and the inode that it has then.
pub(super) type Outcome = (Verdict, Option<Ino>);

/// Reconciles one observation; directories on the way to what exists are made.
pub(super) fn apply(change: &mut Change<'_>, observation: Observation) -> Result<Outcome, IndexError> {
    let Observation { key, seen, sent, answered, content, .. } = observation;
    let mut evidence = Evidence { sent, answered, content };
    let path = name::split(&key);
    let outcome = match &seen {
        _ if !path.is_empty() => apply_to_key(change, (&key, &path), &seen, &mut evidence)?,
        Seen::Object(meta) => mark(change, Ino::ROOT, meta, &evidence)?,
        Seen::Prefix | Seen::Absent => (Verdict::Unchanged, Some(Ino::ROOT)),
    };
    if let Some(unused) = evidence.content {
        change.discard(unused)?;
    }
    Ok(outcome)
}

/// What was seen is of this entry.
fn apply_to_entry(
    change: &mut Change<'_>,
    place: &Place<'_>,
    seen: &Seen,
    evidence: &mut Evidence,
) -> Result<Outcome, IndexError> {
    match (seen, place.component.kind()) {
        (Seen::Absent, _) => absent(change, place, evidence, &mut Shelter::default()),
        (Seen::Object(meta), ComponentKind::File) => file(change, place, meta, evidence),
        (Seen::Object(meta), _) => directory(change, place, Some(meta), evidence),
        (Seen::Prefix, ComponentKind::Dir | ComponentKind::Chunk) => directory(change, place, None, evidence),
        // a prefix ends in a slash: of the object with this key it says nothing
        (Seen::Prefix, ComponentKind::File) => Ok((Verdict::Unchanged, place.child.map(|child| child.ino))),
    }
}

/// An object that is no directory marker.
pub(super) fn file(
    change: &mut Change<'_>,
    place: &Place<'_>,
    meta: &ObjectMeta,
    evidence: &mut Evidence,
) -> Result<Outcome, IndexError> {
    let Some(child) = place.child else { return create_file(change, place, meta, evidence) };
    let (before, pending) = (existing(change, child.ino)?, change.pending(child.ino)?);
    let attributes = meta.user.as_ref().map(metadata::parse);
    let is_other_kind = attributes.is_some_and(|a| file_kind(&a) != before.inode.kind);
    let (news, kept) = (News::of(&before, meta), news::kept(&before.inode, pending.as_ref()));
    let is_ours = before.inode.remote.is_none() || is_dirty(&before.inode, pending.as_ref());
    if is_ours && (news == News::Bytes || is_other_kind) {
        return Ok((Verdict::Unchanged, Some(child.ino)));
    }
    let mut after = before.clone();
    if is_late(change, child.ino, evidence) {
        if news == News::Nothing {
            adopt(change, &mut after.inode, evidence)?;
            change.replace(&before, after);
        }
        return Ok(overtaken(change, &before.inode, news));
    }
    if is_other_kind {
        return other_kind(change, place, &before.inode, meta, evidence);
    }
    news.describe(&mut after, meta, attributes, kept, change);
    if news == News::Bytes {
        after.inode.size = meta.size;
        if let Some(local) = after.inode.local.take() {
            change.discard(local.object)?;
        }
        // S3 tells whole seconds: two versions of one second must still differ, or a client that goes by
        // mtime alone keeps the pages of the old one (F3).
        if after.inode.mtime == before.inode.mtime && !kept.mtime {
            after.inode.mtime = Time(after.inode.mtime.0.saturating_add(1));
        }
        follow(change, &after.inode, meta)?;
    }
    adopt(change, &mut after.inode, evidence)?;
    if visible(&after.inode) != visible(&before.inode) || news == News::Bytes {
        after.inode.advance_ctime(meta.last_modified);
    }
    change.replace(&before, after);
    if let Some(freshness) = change.freshness(child.ino) {
        change.settle(freshness, evidence.sent, evidence.answered);
    }
    let verdict = if news == News::Bytes { Verdict::Replaced } else { Verdict::Unchanged };
    Ok((verdict, Some(child.ino)))
}

/// A directory: seen by its marker, or only by the keys below it.
pub(super) fn directory(
    change: &mut Change<'_>,
    place: &Place<'_>,
    marker: Option<&ObjectMeta>,
    evidence: &Evidence,
) -> Result<Outcome, IndexError> {
    let Place { dir, component, child } = *place;
    if let Some(child) = child {
        return match marker {
            Some(meta) => mark(change, child.ino, meta, evidence),
            None => {
                observe(change, child.ino, evidence);
                Ok((Verdict::Unchanged, Some(child.ino)))
            }
        };
    }
    if change.is_buried(dir, component, evidence.sent) {
        return Ok((Verdict::Late, None));
    }
    let freshness = Freshness::default();
    freshness.observe(evidence.answered);
    let (defaults, now) = (*change.defaults(), change.now);
    let ino = change.create(dir, component, freshness, |ino| {
        let mut row = Row::directory(ino, dir, component.clone(), &defaults, now);
        if let Some(meta) = marker {
            news::describe(&mut row, meta, meta.user.as_ref().map(metadata::parse), &defaults);
            row.inode.ctime = row.inode.mtime;
        }
        row
    })?;
    Ok((Verdict::Created, Some(ino)))
}

/// The marker of a directory that is here.
pub(super) fn mark(
    change: &mut Change<'_>,
    ino: Ino,
    meta: &ObjectMeta,
    evidence: &Evidence,
) -> Result<Outcome, IndexError> {
    let (before, pending) = (existing(change, ino)?, change.pending(ino)?);
    let news = News::of(&before, meta);
    if is_dirty(&before.inode, pending.as_ref()) && news == News::Bytes {
        return Ok((Verdict::Unchanged, Some(ino)));
    }
    if is_late(change, ino, evidence) {
        return Ok(overtaken(change, &before.inode, news));
    }
    let mut after = before.clone();
    let kept = news::kept(&before.inode, pending.as_ref());
    news.describe(&mut after, meta, meta.user.as_ref().map(metadata::parse), kept, change);
    after.inode.mtime = after.inode.mtime.max(before.inode.mtime);
    if news == News::Bytes {
        follow(change, &after.inode, meta)?;
    }
    if visible(&after.inode) != visible(&before.inode) {
        after.inode.advance_ctime(meta.last_modified);
    }
    change.replace(&before, after);
    observe(change, ino, evidence);
    let verdict = if news == News::Bytes { Verdict::Replaced } else { Verdict::Unchanged };
    Ok((verdict, Some(ino)))
}

/// A file that became a link, or the like: another inode takes its place.
fn other_kind(
    change: &mut Change<'_>,
    place: &Place<'_>,
    before: &Inode,
    meta: &ObjectMeta,
    evidence: &mut Evidence,
) -> Result<Outcome, IndexError> {
    let Some(child) = place.child else { return Ok((Verdict::Unchanged, None)) };
    change.drop_rows(before)?;
    change.remove(place.dir, place.component, child, evidence.answered)?;
    match &before.origin {
        None => create_file(change, place, meta, evidence),
        // it was renamed here: the new one is at its old name, where the next listing finds it
        Some(_) => Ok((Verdict::Removed, None)),
    }
}

/// Somebody wrote to what is to leave its key: it takes that version along.
fn follow(change: &mut Change<'_>, inode: &Inode, meta: &ObjectMeta) -> Result<(), IndexError> {
    let key = match (&inode.origin, inode.kind) {
        (None, Kind::Dir) => change.remote_prefix(inode.ino)?,
        (origin, _) => origin.clone(),
    };
    let Some(key) = key else { return Ok(()) };
    match change.away(&key)? {
        Some(away) if away.ino == Some(inode.ino) => {
            change.put_away(&key, &Away { etag: meta.etag.clone(), size: meta.size, ino: Some(inode.ino) })
        }
        _ => Ok(()),
    }
}

fn create_file(
    change: &mut Change<'_>,
    place: &Place<'_>,
    meta: &ObjectMeta,
    evidence: &mut Evidence,
) -> Result<Outcome, IndexError> {
    let Place { dir, component, child } = *place;
    if child.is_none() && change.is_buried(dir, component, evidence.sent) {
        return Ok((Verdict::Late, None));
    }
    let freshness = Freshness::default();
    freshness.settle(evidence.sent, evidence.answered);
    let (defaults, content) = (*change.defaults(), evidence.content.take());
    let ino = change.create(dir, component, freshness, |ino| {
        let attributes = meta.user.as_ref().map(metadata::parse);
        let mut row = Row::directory(ino, dir, component.clone(), &defaults, meta.last_modified);
        row.inode.kind = attributes.map_or(Kind::File, |a| file_kind(&a));
        row.inode.mode = defaults.file_mode;
        row.inode.size = meta.size;
        news::describe(&mut row, meta, attributes, &defaults);
        row.inode.ctime = attributes.and_then(|a| a.ctime).unwrap_or(meta.last_modified);
        row.inode.local = content.map(|object| Local { object, complete: true });
        row
    })?;
    if let Some(object) = content {
        change.put_object(object, &ObjectRow { ino, size: meta.size, presence: Presence::Complete })?;
    }
    Ok((Verdict::Created, Some(ino)))
}

/// Takes the bytes that came with the observation, unless all are here already.
fn adopt(change: &mut Change<'_>, inode: &mut Inode, evidence: &mut Evidence) -> Result<(), IndexError> {
    let Some(object) = evidence.content else { return Ok(()) };
    match inode.local {
        Some(local) if local.object != object && local.complete => return Ok(()),
        Some(local) if local.object != object => change.discard(local.object)?,
        _ => {}
    }
    evidence.content = None;
    inode.local = Some(Local { object, complete: true });
    // the version's length: a file that is changed here has another one
    let size = inode.remote.as_ref().map_or(inode.size, |remote| remote.size);
    change.put_object(object, &ObjectRow { ino: inode.ino, size, presence: Presence::Complete })
}

/// Under a key without a slash at its end there is never a directory, whatever its metadata says.
fn file_kind(attributes: &Attributes) -> Kind {
    attributes.kind.filter(|kind| *kind != Kind::Dir).unwrap_or(Kind::File)
}

/// What clients see change by `ctime`.
fn visible(inode: &Inode) -> (u32, u32, u32, Time, u64) {
    (inode.mode, inode.uid, inode.gid, inode.mtime, inode.size)
}

fn existing(change: &mut Change<'_>, ino: Ino) -> Result<Row, IndexError> {
    change.row(ino)?.ok_or_else(|| tables::corrupted("inode", ino))
}

/// Whether a newer word than this has been applied.
pub(super) fn is_late(change: &Change<'_>, ino: Ino, evidence: &Evidence) -> bool {
    change.freshness(ino).is_some_and(|freshness| freshness.observed() > evidence.sent)
}

fn late(change: &Change<'_>, ino: Ino) -> Outcome {
    if let Some(freshness) = change.freshness(ino) {
        freshness.expire();
    }
    (Verdict::Late, Some(ino))
}

/// A newer word than this has been applied. Of the same version it agrees; but its attributes may be older than those
/// here: where these are in doubt, they stay so.
fn overtaken(change: &Change<'_>, inode: &Inode, news: News) -> Outcome {
    match news {
        News::Nothing if inode.attributes_known => (Verdict::Unchanged, Some(inode.ino)),
        _ => late(change, inode.ino),
    }
}

fn observe(change: &Change<'_>, ino: Ino, evidence: &Evidence) {
    if let Some(freshness) = change.freshness(ino) {
        freshness.observe(evidence.answered);
    }
}
