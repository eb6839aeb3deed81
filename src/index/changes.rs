//! Changes made here, as rows: what `Edit` leaves behind, made by hand, for the tests of reconciling.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

use super::change::Change;
use super::locate::Walked;
use super::row::Row;
use super::tables::{self, Child};
use super::*;
use crate::types::{Component, Tick, name};

/// A new file of 7 bytes (or, ending in a slash, a directory) in `dir`.
pub(crate) async fn create(index: &Index, dir: Ino, entry: &str) -> Ino {
    let component = component(entry);
    let staged = (!entry.ends_with('/')).then_some(ObjectId(index.allocate().await.unwrap()));
    run(index, move |change| create_entry(change, dir, component, staged)).await
}

/// Bytes written to a file that is here, which makes it `size` bytes long.
pub(crate) async fn stage(index: &Index, ino: Ino, size: u64) -> ObjectId {
    let staged = ObjectId(index.allocate().await.unwrap());
    run(index, move |change| {
        let before = change.row(ino)?.unwrap();
        let mut after = before.clone();
        (after.inode.staged, after.inode.size) = (Some(staged), size);
        let base_len = before.inode.remote.as_ref().map_or(0, |remote| remote.size);
        change.replace(&before, after);
        change.put_staged(staged, &StagedRow { ino, base_len, ranges: vec![] })?;
        change.mark_pending(ino, |pending| pending.content = true)
    })
    .await;
    staged
}

/// Takes away the entry of an inode, and what the journal has of it: what an index must never come to.
pub(crate) async fn spoil(index: &Index, ino: Ino) {
    run(index, move |change| {
        let inode = change.row(ino)?.unwrap().inode;
        let child = change.child(inode.parent, &inode.component)?.unwrap();
        change.dirty = true;
        change.unlink(inode.parent, &inode.component, child)?;
        change.settle_pending(ino)
    })
    .await;
}

/// A mode given here.
pub(crate) async fn chmod(index: &Index, ino: Ino, mode: u32) {
    run(index, move |change| {
        let before = change.row(ino)?.unwrap();
        let mut after = before.clone();
        (after.inode.mode, after.given.mode, after.inode.attributes_known) = (mode, true, true);
        change.replace(&before, after);
        change.mark_pending(ino, |pending| (pending.attributes, pending.set.mode) = (true, true))
    })
    .await;
}

/// Moves an inode to an entry that is not there.
pub(crate) async fn rename(index: &Index, ino: Ino, dir: Ino, entry: &str) {
    let component = component(entry);
    run(index, move |change| move_entry(change, ino, dir, component)).await;
}

/// Removes a file, or a directory without entries.
pub(crate) async fn remove(index: &Index, ino: Ino) {
    run(index, move |change| remove_entry(change, ino)).await;
}

/// As after an upload, whose answer tells no Last-Modified.
pub(crate) async fn untell(index: &Index, ino: Ino) {
    run(index, move |change| {
        let before = change.row(ino)?.unwrap();
        let mut after = before.clone();
        after.inode.remote.as_mut().unwrap().last_modified = Remote::UNTOLD;
        change.replace(&before, after);
        Ok(())
    })
    .await;
}

async fn run<T: Send + 'static>(
    index: &Index,
    work: impl FnOnce(&mut Change<'_>) -> Result<T, IndexError> + Send + 'static,
) -> T {
    index.writer.run(1, work).await.unwrap()
}

fn component(entry: &str) -> Component {
    name::split(&Key::new(entry).unwrap()).pop().unwrap()
}

fn create_entry(
    change: &mut Change<'_>,
    dir: Ino,
    component: Component,
    staged: Option<ObjectId>,
) -> Result<Ino, IndexError> {
    let (defaults, now) = (*change.defaults(), change.now);
    let ino = change.create(dir, &component, Freshness::default(), |ino| {
        let mut row = Row::directory(ino, dir, component.clone(), &defaults, now);
        (row.inode.attributes_known, row.inode.listed, row.inode.staged) = (true, true, staged);
        if staged.is_some() {
            (row.inode.kind, row.inode.size, row.inode.listed) = (Kind::File, 7, false);
        }
        row
    })?;
    if let Some(staged) = staged {
        change.put_staged(staged, &StagedRow { ino, base_len: 0, ranges: vec![0..7] })?;
    }
    change.mark_pending(ino, |pending| pending.content = true)?;
    Ok(ino)
}

fn move_entry(change: &mut Change<'_>, ino: Ino, dir: Ino, component: Component) -> Result<(), IndexError> {
    let before = change.row(ino)?.unwrap();
    let is_dir = before.inode.kind == Kind::Dir;
    let place = place_of(change, ino)?;
    relink(change, &before, dir, &component)?;
    let mut after = before.clone();
    (after.inode.parent, after.inode.component, after.inode.origin) = (dir, component, None);
    change.replace(&before, after.clone());
    let Some(place) = place else { return Ok(()) };
    if change.inherited_key(&after.inode)?.as_ref() == Some(&place) && is_owner(change, dir)? {
        // back at its own place
        if is_dir {
            change.remove_moved(&place)?
        } else {
            change.drop_away_of(ino, &place)?
        }
        if let Some(mut pending) = change.pending(ino)? {
            pending.place = false;
            change.put_pending(ino, &pending)?;
        }
        return Ok(());
    }
    let moving = after.clone();
    after.inode.origin = Some(place.clone());
    if is_dir {
        change.put_moved(&place, ino)?;
    } else {
        let remote = after.inode.remote.clone().unwrap();
        change.put_away(&place, &Away { etag: remote.etag, size: remote.size, ino: Some(ino) })?;
    }
    change.replace(&moving, after);
    change.mark_pending(ino, |pending| pending.place = true)
}

/// The key under which S3 has it; `None` when it has none, or one that is another directory's.
fn place_of(change: &mut Change<'_>, ino: Ino) -> Result<Option<Key>, IndexError> {
    let inode = change.row(ino)?.unwrap().inode;
    if inode.kind != Kind::Dir {
        return change.remote_key(&inode);
    }
    Ok(if is_owner(change, ino)? { change.remote_prefix(ino)? } else { None })
}

/// Whether what is below the prefix of `dir` is its own, and not of a directory that was there before.
fn is_owner(change: &mut Change<'_>, dir: Ino) -> Result<bool, IndexError> {
    let Some(path) = change.remote_path(dir)? else { return Ok(false) };
    Ok(change.walk_key(&path)? == Walked::Found(dir))
}

fn relink(change: &mut Change<'_>, row: &Row, dir: Ino, component: &Component) -> Result<(), IndexError> {
    let Inode { parent, component: old, ino, .. } = &row.inode;
    let child = change.child(*parent, old)?.unwrap();
    change.tables.children.remove(tables::child_key(*parent, old.as_bytes()).as_slice())?;
    change.tables.listing.remove(&tables::listing_key(*parent, child.cookie))?;
    let child = Child { ino: *ino, cookie: child.cookie, shadowed: false };
    change.tables.children.insert(tables::child_key(dir, component.as_bytes()).as_slice(), &child.encode())?;
    for (dir, component) in [(*parent, old), (dir, component)] {
        change.names.extend([(dir, component.name(false)), (dir, component.name(true))]);
    }
    let listing = tables::listing_row(&child, component);
    change.tables.listing.insert(&tables::listing_key(dir, child.cookie), listing.as_slice())?;
    Ok(())
}

fn remove_entry(change: &mut Change<'_>, ino: Ino) -> Result<(), IndexError> {
    let inode = change.row(ino)?.unwrap().inode;
    let key = change.remote_key(&inode)?;
    let seen = change.load_freshness(ino)?.map_or(Tick::NEVER, |freshness| freshness.observed());
    change.drop_rows(&inode)?;
    if let Some(staged) = inode.staged {
        change.remove_staged(staged)?;
    }
    if let Some((key, remote)) = key.zip(inode.remote.as_ref()) {
        change.put_away(&key, &Away { etag: remote.etag.clone(), size: remote.size, ino: None })?;
    }
    let child = change.child(inode.parent, &inode.component)?.unwrap();
    change.remove(inode.parent, &inode.component, child, seen)
}
