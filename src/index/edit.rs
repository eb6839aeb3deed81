//! Changes made here: what a client's CREATE, WRITE, SETATTR, REMOVE or RENAME does to the index and to the
//! journal, in one transaction. The rules of POSIX and who may do what are `fs`'s, which runs them in the
//! same transaction; this keeps the journal true.
//!
//! Rule: an edit that refuses has changed nothing, because it shares its transaction with others. So
//! everything is looked at before the first change.

use super::change::Change;
use super::model::{IndexError, Inode, Kind};
use super::{Index, StagedRow};
use crate::types::{Component, Ino, Name, ObjectId, Time};

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

    /// The inode as the transaction sees it; `None` when it is gone.
    pub fn inode(&mut self, ino: Ino) -> Result<Option<Inode>, IndexError> {
        Ok(self.change.row(ino)?.map(|row| row.inode))
    }

    /// What `name` stands for in `dir`.
    pub fn child(&mut self, dir: Ino, name: &Name) -> Result<Option<Found>, IndexError> {
        todo!("{dir} {name}")
    }

    /// Whether `dir` has no entries.
    pub fn is_empty(&mut self, dir: Ino) -> Result<bool, IndexError> {
        todo!("{dir}")
    }

    /// Whether `ino` is `below` or an ancestor of it.
    pub fn is_above(&mut self, ino: Ino, below: Ino) -> Result<bool, IndexError> {
        todo!("{ino} {below}")
    }

    /// The component that a new entry `name` of that kind would have; `None` when no key can say it: the name is too
    /// long, an escape of another, or the key would be longer than S3 allows (NAMETOOLONG).
    pub fn component(&mut self, dir: Ino, name: &Name, kind: Kind) -> Result<Option<Component>, IndexError> {
        todo!("{dir} {name} {kind:?}")
    }

    /// Makes an inode under `component` of `dir`, where nothing is. Its content (a directory: its marker, if it needs
    /// one) becomes pending.
    pub fn create(&mut self, dir: Ino, component: Component, new: NewInode) -> Result<Ino, IndexError> {
        todo!("{dir} {component:?} {new:?}")
    }

    /// Sets attributes. A change of mode, owner or times becomes pending.
    pub fn set(&mut self, ino: Ino, new: NewAttributes) -> Result<Inode, IndexError> {
        todo!("{ino} {new:?}")
    }

    /// Gives a file that has no staging file the empty one `staged`: its first `base_len` bytes still are those of the
    /// version below. Sets its size to `size`; its content becomes pending; mtime and ctime are now.
    pub fn stage(&mut self, ino: Ino, staged: ObjectId, base_len: u64, size: u64) -> Result<Inode, IndexError> {
        todo!("{ino} {staged:?} {base_len} {size}")
    }

    /// Records what of a staging file is on the disk. Nothing, when it is not the inode's any more.
    pub fn record(&mut self, progress: Progress) -> Result<(), IndexError> {
        todo!("{progress:?}")
    }

    /// Removes the entry and what it names (a directory only when it is empty). What S3 has of it is to be removed.
    pub fn remove(&mut self, dir: Ino, found: &Found) -> Result<(), IndexError> {
        todo!("{dir} {found:?}")
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
        todo!("{from} {found:?} {to} {component:?} {replaced:?}")
    }
}
