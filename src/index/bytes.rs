//! Which object file holds the bytes of which inode: attached while they are fetched, detached when they
//! are evicted, torn or missing.

use super::change::Change;
use super::model::{IndexError, Local, ObjectRow, Presence};
use crate::types::{ETag, Ino, ObjectId};

/// See [`super::Index::attach`].
pub(super) fn attach(
    change: &mut Change<'_>,
    ino: Ino,
    etag: &ETag,
    object: ObjectId,
    presence: Presence,
) -> Result<bool, IndexError> {
    if change.is_garbage(object)? {
        // others took its place between two pieces of it
        return Ok(false);
    }
    let before = change.row(ino)?;
    let is_its = before.as_ref().is_some_and(|row| row.inode.local.is_some_and(|local| local.object == object));
    let size = match before.as_ref().and_then(|row| row.inode.remote.as_ref()) {
        Some(remote) => (remote.etag == *etag).then_some(remote.size),
        // what S3 has lost may be all there is of a file that is changed here
        None if is_its => change.object(object)?.map(|row| row.size),
        None => None,
    };
    let (Some(before), Some(size)) = (before.as_ref(), size) else {
        if !is_its {
            change.discard(object)?;
        }
        return Ok(false);
    };
    let mut after = before.clone();
    if let Some(old) = after.inode.local.filter(|local| local.object != object) {
        change.discard(old.object)?;
    }
    after.inode.local = Some(Local { object, complete: presence == Presence::Complete });
    change.put_object(object, &ObjectRow { ino, size, presence })?;
    change.replace(before, after);
    Ok(true)
}

/// See [`super::Index::detach`].
pub(super) fn detach(change: &mut Change<'_>, object: ObjectId) -> Result<(), IndexError> {
    let owner = change.object(object)?.map(|row| row.ino);
    let before = owner.map(|ino| change.row(ino)).transpose()?.flatten();
    if let Some(before) = before.filter(|row| row.inode.local.is_some_and(|local| local.object == object)) {
        let mut after = before.clone();
        after.inode.local = None;
        change.replace(&before, after);
    }
    change.discard(object)
}

/// See [`super::Index::evict`].
pub(super) fn evict(change: &mut Change<'_>, object: ObjectId) -> Result<bool, IndexError> {
    let owner = change.object(object)?.map(|row| row.ino);
    let owner = owner.map(|ino| change.row(ino)).transpose()?.flatten().map(|row| row.inode);
    if owner.is_some_and(|inode| inode.remote.is_none() && inode.local.is_some_and(|local| local.object == object)) {
        return Ok(false);
    }
    detach(change, object)?;
    Ok(true)
}
