//! Changes made here, as rows: what `Edit` leaves behind, made by hand, for the tests of reconciling.

use super::*;
use crate::index::change::Change;
use crate::index::locate::Walked;
use crate::index::row::Row;
use crate::index::tables::{self, Child};
use crate::types::name;

impl Bench {
    /// Runs `work` on the writer.
    async fn local<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, IndexError> + Send + 'static,
    ) -> T {
        self.index.writer.run(1, work).await.unwrap()
    }

    /// A new file (or, ending in a slash, directory) at a path whose directories are here.
    pub(super) async fn create(&self, path: &str) -> Ino {
        let (dir, component) = self.entry(path);
        let staged = (!path.ends_with('/')).then_some(ObjectId(self.index.allocate().await.unwrap()));
        self.local(move |change| create(change, dir, component, staged)).await
    }

    /// Bytes written to a file that is here.
    pub(super) async fn stage(&self, ino: Ino) -> ObjectId {
        let staged = ObjectId(self.index.allocate().await.unwrap());
        self.local(move |change| {
            let before = change.row(ino)?.unwrap();
            let mut after = before.clone();
            (after.inode.staged, after.inode.size) = (Some(staged), 1000);
            let base_len = before.inode.remote.as_ref().map_or(0, |remote| remote.size);
            change.replace(&before, after);
            change.put_staged(staged, &StagedRow { ino, base_len, ranges: vec![0..1] })?;
            change.mark_pending(ino, |pending| pending.content = true)
        })
        .await;
        staged
    }

    /// A mode given here.
    pub(super) async fn chmod(&self, ino: Ino, mode: u32) {
        self.local(move |change| {
            let before = change.row(ino)?.unwrap();
            let mut after = before.clone();
            (after.inode.mode, after.given.mode, after.inode.attributes_known) = (mode, true, true);
            change.replace(&before, after);
            change.mark_pending(ino, |pending| pending.attributes = true)
        })
        .await;
    }

    /// Moves an inode to a path where nothing is.
    pub(super) async fn rename(&self, ino: Ino, path: &str) {
        let (dir, component) = self.entry(path);
        self.local(move |change| rename(change, ino, dir, component)).await;
    }

    /// Removes a file, or a directory without entries.
    pub(super) async fn remove(&self, ino: Ino) {
        self.local(move |change| remove(change, ino)).await;
    }

    pub(super) fn entry(&self, path: &str) -> (Ino, Component) {
        let mut path = name::split(&Key::new(path).unwrap());
        let (last, mut dir) = (path.pop().unwrap(), Ino::ROOT);
        for component in path {
            let entries = self.index.entries(dir, 0, 10_000).unwrap();
            dir = entries.iter().find(|entry| entry.node.component == component).unwrap().node.ino;
        }
        (dir, last)
    }
}

fn create(
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

fn rename(change: &mut Change<'_>, ino: Ino, dir: Ino, component: Component) -> Result<(), IndexError> {
    let before = change.row(ino)?.unwrap();
    let is_dir = before.inode.kind == Kind::Dir;
    let place = place_of(change, ino)?;
    relink(change, &before, dir, &component)?;
    let mut after = before.clone();
    (after.inode.parent, after.inode.component, after.inode.origin) = (dir, component, None);
    change.replace(&before, after.clone());
    let Some(place) = place else { return Ok(()) };
    if change.inherited_key(&after.inode)?.as_ref() == Some(&place) {
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
    let Some(path) = change.remote_path(ino)? else { return Ok(None) };
    let is_own = change.walk_key(&path)? == Walked::Found(ino);
    Ok(if is_own { change.remote_prefix(ino)? } else { None })
}

fn relink(change: &mut Change<'_>, row: &Row, dir: Ino, component: &Component) -> Result<(), IndexError> {
    let Inode { parent, component: old, ino, .. } = &row.inode;
    let child = change.child(*parent, old)?.unwrap();
    change.tables.children.remove(tables::child_key(*parent, old.as_bytes()).as_slice())?;
    change.tables.listing.remove(&tables::listing_key(*parent, child.cookie))?;
    let child = Child { ino: *ino, cookie: child.cookie, shadowed: false };
    change.tables.children.insert(tables::child_key(dir, component.as_bytes()).as_slice(), &child.encode())?;
    let listing = tables::listing_row(&child, component);
    change.tables.listing.insert(&tables::listing_key(dir, child.cookie), listing.as_slice())?;
    Ok(())
}

fn remove(change: &mut Change<'_>, ino: Ino) -> Result<(), IndexError> {
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
