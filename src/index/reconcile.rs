//! The one place that decides newer, stale or gone: what an observation of one key does to the index.
//! `apply` takes a HEAD, a GET or our own write; `sweep.rs` brings the entries of listings here.
//!
//! - Two observations are of the same bytes when ETag and size agree, of the same version when the whole
//!   seconds of Last-Modified do too (HEAD tells no more). The same bytes with another Last-Modified are a
//!   rewrite of the metadata: the bytes here stay, the attributes are in doubt until a HEAD tells them.
//! - Other bytes under the same key keep inode, cookie and name; `ctime` grows strictly.
//! - An inode never changes its kind: clients must not find a file where their handle named a link.
//! - An observation sent before the last applied one was answered changes nothing when it says something else.

use super::change::Change;
use super::metadata::{self, Attributes};
use super::model::{
    Freshness, IndexError, Inode, Kind, Local, ObjectRow, Observation, Presence, Remote, Seen, Verdict,
};
use super::row::{Given, Row};
use super::tables::{self, Child};
use crate::store::ObjectMeta;
use crate::types::name::ComponentKind;
use crate::types::{Component, Ino, ObjectId, Tick, Time, name};

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
    let outcome = match path.split_last() {
        Some((last, parents)) => apply_below_root(change, (parents, last), &seen, &mut evidence)?,
        None => match &seen {
            Seen::Object(meta) => mark(change, Ino::ROOT, meta, &evidence)?,
            Seen::Prefix | Seen::Absent => (Verdict::Unchanged, Some(Ino::ROOT)),
        },
    };
    if let Some(unused) = evidence.content {
        change.discard(unused)?;
    }
    Ok(outcome)
}

fn apply_below_root(
    change: &mut Change<'_>,
    (parents, component): (&[Component], &Component),
    seen: &Seen,
    evidence: &mut Evidence,
) -> Result<Outcome, IndexError> {
    let exists = !matches!(seen, Seen::Absent);
    let mut dir = Ino::ROOT;
    for component in parents {
        let place = Place { dir, component, child: change.child(dir, component)? };
        dir = match place.child {
            Some(child) => child.ino,
            None if !exists => return Ok((Verdict::Unchanged, None)),
            None => match directory(change, &place, None, evidence)? {
                (_, Some(made)) => made,
                late => return Ok(late),
            },
        };
        // what is below it proves that the directory exists: no older word may remove it
        if let Some(freshness) = change.load_freshness(dir)?.filter(|_| exists) {
            freshness.observe(evidence.answered);
        }
    }
    let place = Place { dir, component, child: change.child(dir, component)? };
    if let Some(child) = place.child {
        change.load_freshness(child.ino)?;
    }
    match (seen, component.kind()) {
        (Seen::Absent, _) => absent(change, &place, evidence),
        (Seen::Object(meta), ComponentKind::File) => file(change, &place, meta, evidence),
        (Seen::Object(meta), _) => directory(change, &place, Some(meta), evidence),
        (Seen::Prefix, ComponentKind::Dir | ComponentKind::Chunk) => directory(change, &place, None, evidence),
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
    let before = existing(change, child.ino)?;
    let attributes = meta.user.as_ref().map(metadata::parse);
    let news = News::of(&before, meta);
    if is_late(change, child.ino, evidence) && news != News::Nothing {
        return Ok(late(change, child.ino));
    }
    if attributes.is_some_and(|a| file_kind(&a) != before.inode.kind) {
        change.remove(place.dir, place.component, child, evidence.answered)?;
        return create_file(change, place, meta, evidence);
    }
    let mut after = before.clone();
    news.describe(&mut after, meta, attributes, change);
    if news == News::Bytes {
        after.inode.size = meta.size;
        if let Some(local) = after.inode.local.take() {
            change.discard(local.object)?;
        }
        // S3 tells whole seconds: two versions of one second must still differ, or a client that goes by
        // mtime alone keeps the pages of the old one (F3).
        if after.inode.mtime == before.inode.mtime {
            after.inode.mtime = Time(after.inode.mtime.0.saturating_add(1));
        }
    }
    adopt(change, &mut after.inode, evidence)?;
    if visible(&after.inode) != visible(&before.inode) || news == News::Bytes {
        after.inode.advance_ctime(meta.last_modified);
    }
    change.replace(&before, after);
    if let Some(freshness) = change.freshness(child.ino) {
        freshness.settle(evidence.sent, evidence.answered);
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
            describe(&mut row, meta, meta.user.as_ref().map(metadata::parse), &defaults);
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
    let before = existing(change, ino)?;
    let news = News::of(&before, meta);
    if is_late(change, ino, evidence) && news != News::Nothing {
        return Ok(late(change, ino));
    }
    let mut after = before.clone();
    news.describe(&mut after, meta, meta.user.as_ref().map(metadata::parse), change);
    after.inode.mtime = after.inode.mtime.max(before.inode.mtime);
    if visible(&after.inode) != visible(&before.inode) {
        after.inode.advance_ctime(meta.last_modified);
    }
    change.replace(&before, after);
    observe(change, ino, evidence);
    let verdict = if news == News::Bytes { Verdict::Replaced } else { Verdict::Unchanged };
    Ok((verdict, Some(ino)))
}

/// A directory whose marker is gone while keys below it are not: it has the attributes of one never marked.
pub(super) fn unmark(change: &mut Change<'_>, ino: Ino, evidence: &Evidence) -> Result<(), IndexError> {
    let before = existing(change, ino)?;
    if is_late(change, ino, evidence) {
        return Ok(());
    }
    let mut after = before.clone();
    after.inode.attributes_known = true;
    if before.inode.remote.is_some() {
        let defaults = change.defaults();
        after.inode.remote = None;
        after.given = Given::default();
        (after.inode.mode, after.inode.uid, after.inode.gid) = (defaults.dir_mode, defaults.uid, defaults.gid);
        after.inode.advance_ctime(change.now);
    }
    change.replace(&before, after);
    Ok(())
}

/// S3 has no such key, or nothing below the prefix.
pub(super) fn absent(change: &mut Change<'_>, place: &Place<'_>, evidence: &Evidence) -> Result<Outcome, IndexError> {
    let Some(child) = place.child else { return Ok((Verdict::Unchanged, None)) };
    if is_late(change, child.ino, evidence) {
        return Ok(late(change, child.ino));
    }
    change.remove(place.dir, place.component, child, evidence.answered)?;
    Ok((Verdict::Removed, None))
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
        describe(&mut row, meta, attributes, &defaults);
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
    change.put_object(object, &ObjectRow { ino: inode.ino, size: inode.size, presence: Presence::Complete })
}

/// What an observation says that the row does not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// The version is the one here.
    Nothing,
    /// The same bytes, put there again: the metadata may be other.
    Metadata,
    /// Other bytes.
    Bytes,
}

impl News {
    pub(super) fn of(row: &Row, meta: &ObjectMeta) -> News {
        match &row.inode.remote {
            Some(remote) if remote.etag != meta.etag || remote.size != meta.size => News::Bytes,
            Some(remote) if remote.last_modified.seconds() != meta.last_modified.seconds() => News::Metadata,
            Some(_) => News::Nothing,
            None => News::Bytes,
        }
    }

    /// Brings version and attributes of `row` up to what was observed.
    fn describe(self, row: &mut Row, meta: &ObjectMeta, attributes: Option<Attributes>, change: &Change<'_>) {
        match (self, attributes) {
            (News::Nothing, None) => {}
            (News::Nothing, Some(attributes)) => {
                // the Last-Modified that is here may be the finer one
                let modified = row.inode.remote.as_ref().map_or(meta.last_modified, |remote| remote.last_modified);
                // and an mtime that was moved to tell this version from the one before stays moved
                set_attributes(row, &attributes, modified.max(row.inode.mtime), change.defaults());
            }
            (News::Metadata | News::Bytes, _) => describe(row, meta, attributes, change.defaults()),
        }
    }
}

/// Writes a version into a row; where its attributes are not told, those of the one before stay, in doubt.
fn describe(row: &mut Row, meta: &ObjectMeta, attributes: Option<Attributes>, defaults: &super::Defaults) {
    let inode = &mut row.inode;
    let before =
        inode.remote.replace(Remote { etag: meta.etag.clone(), size: meta.size, last_modified: meta.last_modified });
    match attributes {
        Some(attributes) => set_attributes(row, &attributes, meta.last_modified, defaults),
        None => {
            inode.attributes_known = false;
            let same_bytes = before.as_ref().is_some_and(|b| b.etag == meta.etag && b.size == meta.size);
            let from_metadata = before.is_some_and(|b| b.last_modified != inode.mtime);
            if !(same_bytes && from_metadata) {
                (inode.mtime, inode.atime) = (meta.last_modified, meta.last_modified);
            }
        }
    }
}

fn set_attributes(row: &mut Row, attributes: &Attributes, modified: Time, defaults: &super::Defaults) {
    let Row { inode, given } = row;
    let default_mode = if inode.kind == Kind::Dir { defaults.dir_mode } else { defaults.file_mode };
    inode.mode = attributes.mode.unwrap_or(default_mode);
    inode.uid = attributes.uid.unwrap_or(defaults.uid);
    inode.gid = attributes.gid.unwrap_or(defaults.gid);
    inode.mtime = attributes.mtime.unwrap_or(modified);
    inode.atime = attributes.atime.unwrap_or(inode.mtime);
    inode.attributes_known = true;
    *given = Given { mode: attributes.mode.is_some(), uid: attributes.uid.is_some(), gid: attributes.gid.is_some() };
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

fn observe(change: &Change<'_>, ino: Ino, evidence: &Evidence) {
    if let Some(freshness) = change.freshness(ino) {
        freshness.observe(evidence.answered);
    }
}
