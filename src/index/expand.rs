//! A directory that was renamed as one row comes apart: each entry that S3 still has below the old prefix gets rows
//! of its own, batch by batch, until nothing depends on that prefix. Files are then moved like others; directories
//! below come apart in their turn.
//!
//! Invariant: `expanding` has the last entry up to which none inherits the old prefix with something in S3.
//! Whatever comes to inherit it (`Change::expand_again`) begins anew.

use redb::ReadableTable;

use super::Index;
use super::change::Change;
use super::model::{Away, IndexError, Kind};
use super::place::View;
use super::row::Row;
use crate::types::{Component, Ino, Key};

/// What `Index::expand` has done of a moved directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// Entries that have a row of their own in the journal now.
    pub entries: u64,
    /// Whether all have: the directory itself is where it should be.
    pub done: bool,
}

impl Index {
    /// Gives up to `max` entries of a moved directory rows of their own, after S3's listing of its old prefix is applied.
    pub async fn expand(&self, dir: Ino, max: usize) -> Result<Expanded, IndexError> {
        self.writer.run(max, move |change| expand(change, dir, max)).await
    }
}

/// See [`Index::expand`].
fn expand(change: &mut Change<'_>, dir: Ino, max: usize) -> Result<Expanded, IndexError> {
    let finished = Expanded { entries: 0, done: true };
    let Some(row) = change.row(dir)?.filter(|row| row.inode.kind == Kind::Dir) else { return Ok(finished) };
    let Some(origin) = row.inode.origin else { return Ok(finished) };
    // those above it may have come apart, and it is in its place again
    change.settle_place(dir, &origin)?;
    if change.row(dir)?.is_some_and(|row| row.inode.origin.is_none()) {
        change.tables.expanding.remove(dir.0)?;
        return Ok(finished);
    }
    let after = change.tables.expanding.get(dir.0)?.map(|row| row.value().to_vec()).unwrap_or_default();
    let batch = change.children(dir, &after, max.max(1))?;
    let mut expanded = Expanded { entries: 0, done: batch.len() < max.max(1) };
    for (component, child) in &batch {
        expanded.entries += u64::from(detach(change, child.ino, component, &origin)?);
    }
    if expanded.done {
        finish(change, dir, &origin)?;
    } else if let Some((last, _)) = batch.last() {
        change.dirty = true;
        change.tables.expanding.insert(dir.0, last.as_bytes())?;
    }
    Ok(expanded)
}

/// Gives an entry of a directory at `prefix` rows of its own, if S3 has anything of it there.
fn detach(change: &mut Change<'_>, ino: Ino, component: &Component, prefix: &Key) -> Result<bool, IndexError> {
    let Some(before) = change.row(ino)?.filter(|row| row.inode.origin.is_none()) else { return Ok(false) };
    let Some(at) = Key::new(&[prefix.as_str(), component.suffix()].concat()) else { return Ok(false) };
    let is_dir = before.inode.kind == Kind::Dir;
    let is_there = match is_dir {
        // a prefix that belongs to another one has nothing of this
        true => change.has_anything(&before)? && change.longest_moved(&at)?.is_some_and(|row| row.prefix == **prefix),
        false => before.inode.remote.is_some(),
    };
    if !is_there {
        return Ok(false);
    }
    let mut after = before.clone();
    after.inode.origin = Some(at.clone());
    change.replace(&before, after);
    match &before.inode.remote {
        Some(remote) if !is_dir => {
            change.put_away(&at, &Away { etag: remote.etag.clone(), size: remote.size, ino: Some(ino) })?;
        }
        _ => change.put_moved(&at, ino)?,
    }
    change.set_place_pending(ino, true)?;
    Ok(true)
}

/// Nothing inherits `origin` any more: the directory is where its path says. Its marker is made anew there.
fn finish(change: &mut Change<'_>, dir: Ino, origin: &Key) -> Result<(), IndexError> {
    let Some(before) = change.row(dir)? else { return Ok(()) };
    change.remove_moved(origin)?;
    change.tables.expanding.remove(dir.0)?;
    let mut after = before.clone();
    (after.inode.origin, after.inode.remote) = (None, None);
    change.replace(&before, after);
    if let Some(remote) = &before.inode.remote {
        change.abandon(origin, &remote.etag, remote.size, change.observed(dir)?)?;
        change.mark_pending(dir, |pending| (pending.content, pending.attributes) = (true, false))?;
    }
    change.set_place_pending(dir, false)
}

impl Change<'_> {
    /// Whether S3 can have anything of a directory below its prefix.
    pub(super) fn has_anything(&self, dir: &Row) -> Result<bool, IndexError> {
        let inode = &dir.inode;
        Ok(inode.remote.is_some() || !inode.listed || !self.children(inode.ino, &[], 1)?.is_empty())
    }
}
