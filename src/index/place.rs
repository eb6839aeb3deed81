//! Where in S3 an inode is, and whose the keys below a prefix are. The rules are `journal.rs`'s; they are written once
//! here, for a transaction (`Change`) and for a reader (`Snapshot`).
//!
//! A prefix can be the place of two directories by name: `a` is renamed to `b`, whose entries stay below `a/` for a
//! while, and a new `a` is made. It is *owned* by one: the longest row of `moved` that a key begins with says whose
//! the key is; where there is none, the path does.
//!
//! Invariant: a version that has no origin of its own is at a key that its directory owns. So nothing is brought
//! below a prefix that another directory still owns: see `obstacle`.

use redb::ReadableTable;

use super::change::Change;
use super::model::{Away, IndexError, Inode, Kind, Pending};
use super::row::Row;
use super::snapshot::Snapshot;
use super::tables::Child;
use crate::types::{Component, Ino, Key};

/// What is asked here, of one state of the index.
pub(super) trait View {
    /// The row of `ino`.
    fn row_of(&mut self, ino: Ino) -> Result<Option<Row>, IndexError>;
    /// The entry that adds `component` to the prefix of `dir`.
    fn child_of(&self, dir: Ino, component: &Component) -> Result<Option<Child>, IndexError>;
    /// What S3 lacks of `ino`.
    fn pending_of(&self, ino: Ino) -> Result<Option<Pending>, IndexError>;
    /// The object that must leave `key`.
    fn away_at(&self, key: &str) -> Result<Option<Away>, IndexError>;
    /// The longest row of `moved` that `key` begins with, `key` itself included.
    fn longest_moved(&self, key: &str) -> Result<Option<Moved>, IndexError>;
}

/// A row of `moved`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) prefix: String,
    pub(super) dir: Ino,
}

impl View for Change<'_> {
    fn row_of(&mut self, ino: Ino) -> Result<Option<Row>, IndexError> {
        self.row(ino)
    }

    fn child_of(&self, dir: Ino, component: &Component) -> Result<Option<Child>, IndexError> {
        self.child(dir, component)
    }

    fn pending_of(&self, ino: Ino) -> Result<Option<Pending>, IndexError> {
        self.pending(ino)
    }

    fn away_at(&self, key: &str) -> Result<Option<Away>, IndexError> {
        self.away(key)
    }

    fn longest_moved(&self, key: &str) -> Result<Option<Moved>, IndexError> {
        longest_prefix(&*self.tables.moved, key)
    }
}

impl View for &Snapshot {
    fn row_of(&mut self, ino: Ino) -> Result<Option<Row>, IndexError> {
        self.row(ino)
    }

    fn child_of(&self, dir: Ino, component: &Component) -> Result<Option<Child>, IndexError> {
        self.child(dir, component)
    }

    fn pending_of(&self, ino: Ino) -> Result<Option<Pending>, IndexError> {
        self.pending(ino)
    }

    fn away_at(&self, key: &str) -> Result<Option<Away>, IndexError> {
        Snapshot::away(self, key)
    }

    fn longest_moved(&self, key: &str) -> Result<Option<Moved>, IndexError> {
        longest_prefix(&self.moved, key)
    }
}

/// The longest row that `key` begins with. Each step goes on from what the nearest row below has in common with the
/// key, so it takes at most one for each row on the way that looks alike.
fn longest_prefix(moved: &impl ReadableTable<&'static str, u64>, key: &str) -> Result<Option<Moved>, IndexError> {
    let mut probe = key;
    loop {
        let Some(row) = moved.range::<&str>(..=probe)?.next_back() else { return Ok(None) };
        let (prefix, dir) = row?;
        let prefix = prefix.value();
        if probe.starts_with(prefix) {
            return Ok(Some(Moved { prefix: prefix.to_owned(), dir: Ino(dir.value()) }));
        }
        let common = probe.bytes().zip(prefix.bytes()).take_while(|(a, b)| a == b).count();
        probe = &probe[..probe.floor_char_boundary(common)];
    }
}

/// The key that `ino` should have: a directory's ends in `/`. `None`: gone, or longer than S3 allows.
pub(super) fn path_key(view: &mut impl View, ino: Ino) -> Result<Option<Key>, IndexError> {
    let (mut parts, mut at) = (Vec::new(), ino);
    while at != Ino::ROOT {
        let Some(Row { inode, .. }) = view.row_of(at)? else { return Ok(None) };
        at = inode.parent;
        parts.push(inode.component);
    }
    let key: String = parts.iter().rev().map(|component| component.suffix()).collect();
    Ok(Key::new(&key))
}

/// Where the entries of a directory are.
struct Base {
    prefix: String,
    /// The directory that has an origin: it, or the nearest one above.
    moved: Option<Ino>,
}

fn base(view: &mut impl View, dir: Ino) -> Result<Option<Base>, IndexError> {
    let (mut parts, mut at, mut origin) = (Vec::new(), dir, None);
    while at != Ino::ROOT && origin.is_none() {
        let Some(Row { inode, .. }) = view.row_of(at)? else { return Ok(None) };
        origin = inode.origin.map(|key| (key, at));
        if origin.is_none() {
            at = inode.parent;
            parts.push(inode.component);
        }
    }
    let moved = origin.as_ref().map(|(_, dir)| *dir);
    let mut prefix = origin.map_or_else(String::new, |(key, _)| key.as_str().to_owned());
    prefix.extend(parts.iter().rev().map(|component| component.suffix()));
    Ok(Some(Base { prefix, moved }))
}

/// The prefix below which S3 has the entries of `dir`.
pub(super) fn remote_prefix(view: &mut impl View, dir: Ino) -> Result<Option<Key>, IndexError> {
    Ok(base(view, dir)?.and_then(|base| Key::new(&base.prefix)))
}

/// The key under which S3 has the version of `inode` (a directory: its marker); `None` when it has none.
pub(super) fn remote_key(view: &mut impl View, inode: &Inode) -> Result<Option<Key>, IndexError> {
    match (&inode.remote, &inode.origin) {
        (None, _) => Ok(None),
        (Some(_), Some(origin)) => Ok(Some(origin.clone())),
        (Some(_), None) => inherited_key(view, inode),
    }
}

/// The key (a directory: the prefix) that `inode` has in S3 unless its origin says another.
pub(super) fn inherited_key(view: &mut impl View, inode: &Inode) -> Result<Option<Key>, IndexError> {
    if inode.ino == Ino::ROOT {
        return Ok(Some(Key::root()));
    }
    let Some(base) = base(view, inode.parent)? else { return Ok(None) };
    Ok(Key::new(&(base.prefix + inode.component.suffix())))
}

/// The same, if its directory owns that key: what is there needs no origin. `None`: it needs one.
pub(super) fn home(view: &mut impl View, inode: &Inode) -> Result<Option<Key>, IndexError> {
    let Some(base) = base(view, inode.parent)? else { return Ok(None) };
    let Some(key) = Key::new(&(base.prefix + inode.component.suffix())) else { return Ok(None) };
    let owner = owner_but(view, &key, inode)?.map(|moved| moved.dir);
    Ok(Some(key).filter(|_| owner == base.moved))
}

/// The row of `moved` that decides about `key`, which is a directory's prefix, or an object's key.
pub(super) fn owner(view: &impl View, key: &str, is_dir: bool) -> Result<Option<Moved>, IndexError> {
    // a file has the very text of a chunk's prefix beside it, and not below
    view.longest_moved(if is_dir { key } else { without_last(key) })
}

/// The same, but for the one of `inode` itself.
fn owner_but(view: &mut impl View, key: &str, inode: &Inode) -> Result<Option<Moved>, IndexError> {
    match owner(view, key, inode.kind == Kind::Dir)? {
        Some(moved) if moved.dir == inode.ino => view.longest_moved(without_last(&moved.prefix)),
        found => Ok(found),
    }
}

fn without_last(key: &str) -> &str {
    let mut chars = key.chars();
    chars.next_back();
    chars.as_str()
}

/// What must leave before anything of `inode` is written at `key`, the one of its path: `ino` is what is to be
/// moved first. A directory stands for all that it still has below a prefix: its `etag` is empty.
pub(super) fn obstacle(view: &mut impl View, inode: &Inode, key: &Key) -> Result<Option<Away>, IndexError> {
    let whole = |dir| Away { etag: crate::types::ETag::new(""), size: 0, ino: Some(dir) };
    if let Some(dir) = base(view, inode.parent)?.and_then(|base| base.moved) {
        return Ok(Some(whole(dir)));
    }
    if inode.kind == Kind::Dir && inode.origin.is_some() {
        // it is about to be expanded, which writes nothing
        return Ok(None);
    }
    if let Some(owner) = owner_but(view, key, inode)? {
        return Ok(Some(whole(owner.dir)));
    }
    Ok(view.away_at(key)?.filter(|away| away.ino != Some(inode.ino)))
}
