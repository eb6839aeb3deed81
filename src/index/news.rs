//! What an observed version says that a row does not, and how it is written into the row.
//! Owns nothing. What is changed here and not in S3 yet stays as it is: S3 does not know it.

use super::change::Change;
use super::metadata::Attributes;
use super::model::{Inode, Kind, Pending, Remote, SetHere};
use super::row::{Given, Row};
use crate::store::ObjectMeta;
use crate::types::Time;

/// What an observation says that the row does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The version is the one here.
    Nothing,
    /// The same bytes, put there again: the metadata may be other.
    Metadata,
    /// Other bytes.
    Bytes,
}

/// Which attributes of `inode` are changed here, and so not S3's to tell, given its row of the journal.
pub(super) fn kept(inode: &Inode, pending: Option<&Pending>) -> SetHere {
    pending.map_or(SetHere::NONE, |pending| pending.set_here(inode))
}

/// Whether the bytes of `inode` (a directory: its marker) are changed here.
pub(super) fn is_dirty(inode: &Inode, pending: Option<&Pending>) -> bool {
    inode.staged.is_some() || pending.is_some_and(|pending| pending.content)
}

impl News {
    pub(super) fn of(row: &Row, meta: &ObjectMeta) -> News {
        match &row.inode.remote {
            Some(remote) if remote.etag != meta.etag || remote.size != meta.size => News::Bytes,
            Some(remote) if remote.last_modified == Remote::UNTOLD => News::Nothing,
            Some(remote) if remote.last_modified.seconds() != meta.last_modified.seconds() => News::Metadata,
            Some(_) => News::Nothing,
            None => News::Bytes,
        }
    }

    /// Brings version and attributes of `row` up to what was observed, but for what is `kept`.
    pub(super) fn describe(
        self,
        row: &mut Row,
        meta: &ObjectMeta,
        attributes: Option<Attributes>,
        kept: SetHere,
        change: &Change<'_>,
    ) {
        let before = row.clone();
        match self {
            News::Nothing => confirm(row, meta, attributes, change.defaults()),
            News::Metadata | News::Bytes => describe(row, meta, attributes, change.defaults()),
        }
        keep(row, &before, kept);
    }
}

fn keep(row: &mut Row, before: &Row, kept: SetHere) {
    let (Row { inode, given }, old) = (row, &before.inode);
    if kept.mode {
        (inode.mode, given.mode) = (old.mode, before.given.mode);
    }
    if kept.uid {
        (inode.uid, given.uid) = (old.uid, before.given.uid);
    }
    if kept.gid {
        (inode.gid, given.gid) = (old.gid, before.given.gid);
    }
    if kept.mtime {
        inode.mtime = old.mtime;
    }
    if kept.atime {
        inode.atime = old.atime;
    }
}

/// The version is the one here: what was not told of it yet may be told now.
fn confirm(row: &mut Row, meta: &ObjectMeta, attributes: Option<Attributes>, defaults: &super::Defaults) {
    // an mtime that was moved to tell this version from the one before stays moved
    let mut modified = row.inode.mtime;
    if let Some(remote) = &mut row.inode.remote {
        if remote.last_modified == Remote::UNTOLD {
            remote.last_modified = meta.last_modified;
        } else {
            // the Last-Modified that is here may be the finer one
            modified = modified.max(remote.last_modified);
        }
    }
    if let Some(attributes) = attributes {
        set_attributes(row, &attributes, modified, defaults);
    }
}

/// Writes a version into a row; where its attributes are not told, those of the one before stay, in doubt.
pub(super) fn describe(row: &mut Row, meta: &ObjectMeta, attributes: Option<Attributes>, defaults: &super::Defaults) {
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
    if let (Some(rdev), Kind::CharDevice | Kind::BlockDevice) = (attributes.rdev, inode.kind) {
        inode.rdev = rdev;
    }
    inode.attributes_known = true;
    *given = Given { mode: attributes.mode.is_some(), uid: attributes.uid.is_some(), gid: attributes.gid.is_some() };
}
