//! Changes made here: what a client's CREATE, WRITE, SETATTR, REMOVE or RENAME does to the index and to the
//! journal, in one transaction. The rules of POSIX and who may do what are `fs`'s, which runs them in the
//! same transaction; this keeps the journal true.
//!
//! Rule: an edit that refuses has changed nothing, because it shares its transaction with others. So
//! everything is looked at before the first change.

use super::change::Change;
use super::model::{Freshness, IndexError, Inode, Kind, SetHere, StagedRow, Work};
use super::row::{Given, Row};
use super::{Index, place, tables};
use crate::types::name::ComponentKind;
use crate::types::{Component, Ino, Key, Name, ObjectId, Time};

/// An edit under way: the index as the transaction sees it.
pub struct Edit<'e, 't> {
    change: &'e mut Change<'t>,
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its component.
    pub component: Component,
    /// Its inode.
    pub inode: Inode,
}

/// An inode to be made.
#[derive(Clone, Debug)]
pub struct NewInode {
    /// What it is.
    pub kind: Kind,
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number.
    pub rdev: (u32, u32),
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// For a file or a link: the staging file that has, or will have, its bytes; all `size` of them.
    pub staged: Option<ObjectId>,
    /// Length in bytes.
    pub size: u64,
}

/// What SETATTR changes. `ctime` moves on in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewAttributes {
    /// Permission bits (07777).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access.
    pub atime: Option<Time>,
    /// Last change of the content.
    pub mtime: Option<Time>,
}

impl NewAttributes {
    fn named(&self) -> SetHere {
        SetHere {
            mode: self.mode.is_some(),
            uid: self.uid.is_some(),
            gid: self.gid.is_some(),
            mtime: self.mtime.is_some(),
            atime: self.atime.is_some(),
        }
    }
}

/// What has been written to a staging file and is on the disk.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The staging file.
    pub staged: ObjectId,
    /// Its row.
    pub row: StagedRow,
    /// Length of the file in bytes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
}

impl Index {
    /// Runs `work` in the next transaction; returns after the commit, or with the refusal of `work`.
    /// # Errors
    /// What the storage says: then nothing is changed.
    pub async fn edit<T: Send + 'static, E: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Edit<'_, '_>) -> Result<Result<T, E>, IndexError> + Send + 'static,
    ) -> Result<Result<T, E>, IndexError> {
        self.writer.run(1, |change| work(&mut Edit { change })).await
    }
}

impl Edit<'_, '_> {
    /// Wall time of the transaction: what its changes are dated.
    pub fn now(&self) -> Time {
        self.change.now
    }

    /// The inode as the transaction sees it; `None` when it is gone, or a directory above it: whatever were changed of
    /// it would go with it.
    pub fn inode(&mut self, ino: Ino) -> Result<Option<Inode>, IndexError> {
        if self.change.is_cut_off(ino)? {
            return Ok(None);
        }
        Ok(self.change.row(ino)?.map(|row| row.inode))
    }

    /// What `name` stands for in `dir`.
    pub fn child(&mut self, dir: Ino, name: &Name) -> Result<Option<Found>, IndexError> {
        for component in name.candidates() {
            let Some(child) = self.change.child(dir, &component)? else { continue };
            // a file has its plain name or its escaped one, never both
            if component.name(child.shadowed) == *name {
                let row = self.change.row(child.ino)?.ok_or_else(|| tables::corrupted("inode", child.ino))?;
                return Ok(Some(Found { component, inode: row.inode }));
            }
        }
        Ok(None)
    }

    /// Whether `dir` has no entries.
    pub fn is_empty(&mut self, dir: Ino) -> Result<bool, IndexError> {
        Ok(self.change.children(dir, &[], 1)?.is_empty())
    }

    /// Whether `ino` is `below` or an ancestor of it.
    pub fn is_above(&mut self, ino: Ino, below: Ino) -> Result<bool, IndexError> {
        let mut at = below;
        while at != ino && at != Ino::ROOT {
            let Some(row) = self.change.row(at)? else { return Ok(false) };
            at = row.inode.parent;
        }
        Ok(at == ino)
    }

    /// The component that a new entry `name` of that kind would have; `None` when no key can say it: the name is too
    /// long, an escape of another, or the key would be longer than S3 allows (NAMETOOLONG).
    pub fn component(&mut self, dir: Ino, name: &Name, kind: Kind) -> Result<Option<Component>, IndexError> {
        self.change.component(dir, name, kind)
    }

    /// Makes an inode under `component` of `dir`, where nothing is. Its content (a directory: its marker, if it needs
    /// one) becomes pending.
    ///
    /// A new directory counts as listed if its parent does and S3 has nothing below its prefix that the journal speaks
    /// of: then the parent's listing has shown that there is nothing. It is as fresh as that listing.
    pub fn create(&mut self, dir: Ino, component: Component, new: NewInode) -> Result<Ino, IndexError> {
        let change = &mut *self.change;
        let Some(parent) = change.row(dir)? else { return Err(tables::corrupted("inode", dir)) };
        let freshness = Freshness::default();
        if let Some(listing) = change.load_freshness(dir)? {
            freshness.settle(listing.checked(), listing.observed());
        }
        let (defaults, now) = (*change.defaults(), change.now);
        let (kind, staged) = (new.kind, new.staged);
        let written = (new.kind == Kind::Symlink && new.size > 0).then_some(0..new.size);
        let mut row = change.new_inode(|ino| new.row(Row::directory(ino, dir, component.clone(), &defaults, now)));
        row.inode.listed = kind == Kind::Dir && parent.inode.listed && change.is_undisputed(&row.inode)?;
        let ino = change.enter(dir, &component, row, freshness)?;
        if let Some(staged) = staged {
            // the target of a link is there before its inode, the bytes of a file come after
            change.put_staged(staged, &StagedRow { ino, base_len: 0, ranges: written.into_iter().collect() })?;
        }
        change.mark_pending(ino, |pending| pending.content = true)?;
        change.advance_directory(dir)?;
        Ok(ino)
    }

    /// Sets attributes. A change of mode, owner or times becomes pending.
    pub fn set(&mut self, ino: Ino, new: NewAttributes) -> Result<Inode, IndexError> {
        let before = self.existing(ino)?;
        let mut after = before.clone();
        let Row { inode, given } = &mut after;
        inode.mode = new.mode.unwrap_or(inode.mode);
        inode.uid = new.uid.unwrap_or(inode.uid);
        inode.gid = new.gid.unwrap_or(inode.gid);
        inode.atime = new.atime.unwrap_or(inode.atime);
        inode.mtime = new.mtime.unwrap_or(inode.mtime);
        given.mode |= new.mode.is_some();
        given.uid |= new.uid.is_some();
        given.gid |= new.gid.is_some();
        inode.advance_ctime(self.change.now);
        let inode = inode.clone();
        self.change.replace(&before, after);
        // the root has no key, and so no marker
        if new != NewAttributes::default() && ino != Ino::ROOT {
            self.change.mark_pending(ino, |pending| {
                pending.set = pending.set.or(new.named());
                match inode.remote {
                    Some(_) => pending.attributes = true,
                    None => pending.content = true,
                }
            })?;
        }
        Ok(inode)
    }

    /// Gives a file that has no staging file the empty one `staged`: its first `base_len` bytes still are those of the
    /// version below. Sets its size to `size`; its content becomes pending; mtime and ctime are now.
    pub fn stage(&mut self, ino: Ino, staged: ObjectId, base_len: u64, size: u64) -> Result<Inode, IndexError> {
        let before = self.existing(ino)?;
        debug_assert!(before.inode.staged.is_none(), "whoever stages has seen that nothing is");
        let mut after = before.clone();
        (after.inode.staged, after.inode.size) = (Some(staged), size);
        after.inode.advance_times(self.change.now);
        let inode = after.inode.clone();
        self.change.replace(&before, after);
        self.change.put_staged(staged, &StagedRow { ino, base_len, ranges: Vec::new() })?;
        self.change.mark_pending(ino, |pending| pending.content = true)?;
        Ok(inode)
    }

    /// Records what of a staging file is on the disk. Nothing, when it is not the inode's any more.
    pub fn record(&mut self, progress: Progress) -> Result<(), IndexError> {
        let Progress { staged, row, size, mtime, ctime } = progress;
        let before = self.change.row(row.ino)?;
        let Some(before) = before.filter(|before| before.inode.staged == Some(staged)) else { return Ok(()) };
        let mut after = before.clone();
        (after.inode.size, after.inode.mtime) = (size, mtime);
        after.inode.ctime = after.inode.ctime.max(ctime);
        self.change.replace(&before, after);
        self.change.put_staged(staged, &row)?;
        self.change.mark_pending(row.ino, |pending| pending.content = true)
    }

    /// Removes the entry and what it names (a directory only when it is empty). What S3 has of it is to be removed.
    pub fn remove(&mut self, dir: Ino, found: &Found) -> Result<(), IndexError> {
        self.change.take_out(dir, found)?;
        self.change.advance_directory(dir)?;
        self.change.mark_if_emptied(dir)
    }

    /// Moves `found` of `from` to `component` of `to`, in place of `replaced`, which is there and may be replaced.
    pub fn rename(
        &mut self,
        from: Ino,
        found: &Found,
        to: Ino,
        component: Component,
        replaced: Option<&Found>,
    ) -> Result<(), IndexError> {
        let change = &mut *self.change;
        if from == to && found.component == component {
            return Ok(());
        }
        if let Some(replaced) = replaced {
            change.take_out(to, replaced)?;
        }
        change.move_entry((from, &found.component), (to, component))?;
        change.advance_directory(from)?;
        if to != from {
            change.advance_directory(to)?;
        }
        change.mark_if_emptied(from)
    }

    fn existing(&mut self, ino: Ino) -> Result<Row, IndexError> {
        self.change.row(ino)?.ok_or_else(|| tables::corrupted("inode", ino))
    }
}

impl NewInode {
    /// The row, made of one of an empty directory. All attributes are given: changed defaults do not change them.
    fn row(self, mut row: Row) -> Row {
        let inode = &mut row.inode;
        (inode.kind, inode.mode, inode.uid, inode.gid) = (self.kind, self.mode, self.uid, self.gid);
        (inode.rdev, inode.atime, inode.mtime) = (self.rdev, self.atime, self.mtime);
        (inode.staged, inode.attributes_known) = (self.staged, true);
        if self.kind != Kind::Dir {
            inode.size = self.size;
        }
        row.given = Given { mode: true, uid: true, gid: true };
        row
    }
}

impl Change<'_> {
    /// See [`Edit::component`].
    pub(super) fn component(&mut self, dir: Ino, name: &Name, kind: Kind) -> Result<Option<Component>, IndexError> {
        let wanted = if kind == Kind::Dir { ComponentKind::Dir } else { ComponentKind::File };
        let Some(component) = name.candidates().into_iter().find(|component| component.kind() == wanted) else {
            return Ok(None);
        };
        let shadowed = wanted == ComponentKind::File && self.is_shadowed(dir, &component)?;
        if component.name(shadowed) != *name {
            return Ok(None);
        }
        let key = self.path_key(dir)?.and_then(|prefix| Key::new(&[&prefix, component.suffix()].concat()));
        Ok(key.map(|_| component))
    }

    /// Removes an entry and its inode; the version that S3 has of it is away.
    pub(super) fn take_out(&mut self, dir: Ino, found: &Found) -> Result<(), IndexError> {
        let Some(child) = self.child(dir, &found.component)? else { return Ok(()) };
        let Some(Row { inode, .. }) = self.row(child.ino)? else { return Ok(()) };
        if let (Some(remote), Some(key)) = (&inode.remote, self.remote_key(&inode)?) {
            self.abandon(&key, &remote.etag, remote.size, self.observed(inode.ino)?)?;
        }
        self.unlink(dir, &found.component, child)?;
        self.remove_inode(child.ino)
    }

    /// Moves an entry to where nothing is. It gets a new cookie: a reader in the middle of a listing may see it twice
    /// and loses no other.
    pub(super) fn move_entry(
        &mut self,
        (from, old): (Ino, &Component),
        (to, new): (Ino, Component),
    ) -> Result<(), IndexError> {
        let Some(child) = self.child(from, old)? else { return Ok(()) };
        let Some(before) = self.row(child.ino)? else { return Ok(()) };
        let at = self.place_to_keep(&before.inode)?;
        self.unlink(from, old, child)?;
        self.link(to, &new, child.ino, self.number())?;
        let mut after = before.clone();
        (after.inode.parent, after.inode.component) = (to, new);
        after.inode.advance_ctime(self.now);
        self.replace(&before, after);
        if let Some(at) = at {
            self.settle_place(child.ino, &at)?;
        }
        if self.pending(child.ino)?.is_some() {
            // what is still to come has another key now
            self.work.push(Work::Inode(child.ino));
        }
        Ok(())
    }

    /// Where S3 has what `inode` is, and will have it after a rename. `None`: it has nothing of it.
    fn place_to_keep(&mut self, inode: &Inode) -> Result<Option<Key>, IndexError> {
        if inode.origin.is_some() {
            return Ok(inode.origin.clone());
        }
        if inode.kind != Kind::Dir {
            return self.remote_key(inode);
        }
        let Some(row) = self.row(inode.ino)? else { return Ok(None) };
        // what S3 has below a prefix that it does not own is another directory's
        if self.has_anything(&row)? { place::home(self, inode) } else { Ok(None) }
    }

    /// Whether nothing of the journal is about what S3 has below the prefix that the new directory `inode` has.
    fn is_undisputed(&mut self, inode: &Inode) -> Result<bool, IndexError> {
        match self.inherited_key(inode)? {
            Some(prefix) => Ok(!self.is_disputed(&prefix)?),
            None => Ok(false),
        }
    }

    /// Entries of `dir` have come or gone. At once, and not when the transaction ends: its caller reports the times.
    pub(super) fn advance_directory(&mut self, dir: Ino) -> Result<(), IndexError> {
        let Some(before) = self.row(dir)? else { return Ok(()) };
        let mut after = before.clone();
        after.inode.advance_times(self.now);
        self.replace(&before, after);
        Ok(())
    }

    /// A directory that S3 knew by its entries alone needs a marker when the last one has gone.
    fn mark_if_emptied(&mut self, dir: Ino) -> Result<(), IndexError> {
        let Some(Row { inode, .. }) = self.row(dir)? else { return Ok(()) };
        // neither the root nor a chunk can have one
        let can_be_marked = dir != Ino::ROOT && inode.component.kind() == ComponentKind::Dir;
        if can_be_marked && inode.remote.is_none() && self.children(dir, &[], 1)?.is_empty() {
            return self.mark_pending(dir, |pending| pending.content = true);
        }
        Ok(())
    }
}
