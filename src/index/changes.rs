//! Changes made here, for the tests of reconciling: renamed and removed as `Edit` does it, the others made by hand as the rows
//! that it leaves behind.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

use super::change::Change;
use super::edit::Found;
use super::row::Row;
use super::*;
use crate::types::{Component, name};

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
    let inode = change.row(ino)?.unwrap().inode;
    change.move_entry((inode.parent, &inode.component), (dir, component))
}

fn remove_entry(change: &mut Change<'_>, ino: Ino) -> Result<(), IndexError> {
    let inode = change.row(ino)?.unwrap().inode;
    let (dir, component) = (inode.parent, inode.component.clone());
    change.take_out(dir, &Found { component, inode })
}
