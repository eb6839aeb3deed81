//! Which inode a key of S3 is of, while directories are elsewhere in S3 than their paths say.
//!
//! The longest row of `moved` that a key begins with is where its directories begin; where there is none, the root
//! is. From there it goes on by components, but never into an inode with an `origin`: that one is somewhere else.
//! A file that is elsewhere is in `away`, which is looked at before (`reconcile.rs`).

use redb::{ReadableTable, ReadableTableMetadata};

use super::change::Change;
use super::model::{Away, IndexError, Kind, Located};
use super::snapshot::Snapshot;
use super::{Index, Name};
use crate::types::name::{self, ComponentKind};
use crate::types::{Component, Ino, Key};

/// Where the way of a key begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) dir: Ino,
    /// How many components of the path lead there.
    pub(super) depth: usize,
}

/// Where the way of a key ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// At the inode that has it.
    Found(Ino),
    /// At a directory of its own that has no such entry: at how many of the components walked.
    Missing(Ino, usize),
    /// At an entry of that name which is elsewhere in S3.
    Blocked,
}

impl Change<'_> {
    /// Whether every inode is in S3 where its path says.
    pub(super) fn is_all_in_place(&self) -> Result<bool, IndexError> {
        Ok(self.tables.moved.is_empty()? && self.tables.away.is_empty()?)
    }

    /// Where the way of a key begins.
    pub(super) fn start(&mut self, path: &[Component]) -> Result<Start, IndexError> {
        let root = Start { dir: Ino::ROOT, depth: 0 };
        if self.tables.moved.is_empty()? {
            return Ok(root);
        }
        let mut prefix: String = path.iter().map(Component::suffix).collect();
        for depth in (1..=path.len()).rev() {
            let component = &path[depth - 1];
            if component.kind() != ComponentKind::File
                && let Some(dir) = self.moved(&prefix)?
                && self.row(dir)?.is_some()
            {
                return Ok(Start { dir, depth });
            }
            prefix.truncate(prefix.len() - component.suffix().len());
        }
        Ok(root)
    }

    /// Walks `path` down from `dir`.
    pub(super) fn walk(&mut self, dir: Ino, path: &[Component]) -> Result<Walked, IndexError> {
        let mut at = dir;
        for (n, component) in path.iter().enumerate() {
            let Some(child) = self.child(at, component)? else { return Ok(Walked::Missing(at, n)) };
            at = child.ino;
            if self.is_elsewhere(at)? {
                return Ok(Walked::Blocked);
            }
        }
        Ok(Walked::Found(at))
    }

    /// The same, from where the way of the key begins.
    pub(super) fn walk_key(&mut self, path: &[Component]) -> Result<Walked, IndexError> {
        let start = self.start(path)?;
        Ok(match self.walk(start.dir, &path[start.depth..])? {
            Walked::Missing(dir, n) => Walked::Missing(dir, start.depth + n),
            end => end,
        })
    }

    /// Whether S3 has `ino` somewhere else than where its directory's entries are.
    pub(super) fn is_elsewhere(&mut self, ino: Ino) -> Result<bool, IndexError> {
        Ok(self.row(ino)?.is_some_and(|row| row.inode.origin.is_some()))
    }

    /// Whether the journal has something that must leave `prefix` or a key below it.
    pub(super) fn is_leaving(&self, prefix: &str) -> Result<bool, IndexError> {
        Ok(begins(&*self.tables.away, prefix)? || begins(&*self.tables.moved, prefix)?)
    }

    /// Says that S3 has a new inode at `key`, which is not where its directory's entries are: it is to be moved there.
    pub(super) fn found_at(&mut self, ino: Ino, key: &Key) -> Result<(), IndexError> {
        let Some(before) = self.row(ino)? else { return Ok(()) };
        let mut after = before.clone();
        after.inode.origin = Some(key.clone());
        match (&after.inode.remote, after.inode.kind) {
            (_, Kind::Dir) => self.put_moved(key, ino)?,
            (Some(remote), _) => {
                let away = Away { etag: remote.etag.clone(), size: remote.size, ino: Some(ino) };
                self.put_away(key, &away)?;
            }
            (None, _) => {}
        }
        self.replace(&before, after);
        self.mark_pending(ino, |pending| pending.place = true)
    }
}

/// As `Change::start`, for a reader.
fn start(snapshot: &Snapshot, path: &[Component]) -> Result<Start, IndexError> {
    let root = Start { dir: Ino::ROOT, depth: 0 };
    if snapshot.moved.is_empty()? {
        return Ok(root);
    }
    let mut prefix: String = path.iter().map(Component::suffix).collect();
    for depth in (1..=path.len()).rev() {
        let component = &path[depth - 1];
        let moved = snapshot.moved.get(prefix.as_str())?.map(|row| Ino(row.value()));
        if component.kind() != ComponentKind::File
            && let Some(dir) = moved
            && snapshot.row(dir)?.is_some()
        {
            return Ok(Start { dir, depth });
        }
        prefix.truncate(prefix.len() - component.suffix().len());
    }
    Ok(root)
}

/// The components of a directory's prefix: one without a slash at its end is a chunk's.
pub(super) fn prefix_path(prefix: &Key) -> Vec<Component> {
    let mut path = name::split(prefix);
    if let Some(last) = path.last_mut().filter(|last| last.kind() == ComponentKind::File)
        && let Some(chunk) = Component::from_bytes(&[last.as_bytes(), &[0xFF]].concat())
    {
        *last = chunk;
    }
    path
}

/// Whether a key of `table` begins with `prefix`.
fn begins<V: redb::Value + 'static>(
    table: &impl ReadableTable<&'static str, V>,
    prefix: &str,
) -> Result<bool, IndexError> {
    let first = table.range::<&str>(prefix..)?.next().transpose()?;
    Ok(first.is_some_and(|(key, _)| key.value().starts_with(prefix)))
}

impl Index {
    /// Which inode S3's `key` is of, or where the way there ends: by the rules of `Change::walk_key`.
    pub fn locate(&self, key: &Key) -> Result<Located, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        if let Some(ino) = snapshot.away(key)?.and_then(|away| away.ino)
            && let Some(node) = self.node(ino)?
        {
            return Ok(Located::Here(node));
        }
        let path = name::split(key);
        let start = start(&snapshot, &path)?;
        let mut at = start.dir;
        for (n, component) in path.iter().enumerate().skip(start.depth) {
            let Some(child) = snapshot.child(at, component)? else {
                let text: String = path[..=n].iter().map(Component::suffix).collect();
                let (Some(dir), Some(key)) = (self.node(at)?, Key::new(&text)) else { return Ok(Located::Elsewhere) };
                return Ok(Located::Missing { dir, component: component.clone(), key });
            };
            at = child.ino;
            if snapshot.row(at)?.is_some_and(|row| row.inode.origin.is_some()) {
                return Ok(Located::Elsewhere);
            }
        }
        Ok(self.node(at)?.map_or(Located::Elsewhere, Located::Here))
    }

    /// Whether `name`, which `dir` does not have, has been removed here or moved away, and may be in S3 still: S3 need
    /// not be asked for it. A name below which S3 still has such keys counts, too.
    pub fn has_left(&self, dir: Ino, name: &Name) -> Result<bool, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        if snapshot.away.is_empty()? && snapshot.moved.is_empty()? {
            return Ok(false);
        }
        let Some(prefix) = self.remote_prefix(dir)? else { return Ok(false) };
        for component in name.candidates() {
            let key = [prefix.as_str(), component.suffix()].concat();
            let left = match component.kind() {
                ComponentKind::File => snapshot.away.get(key.as_str())?.is_some(),
                ComponentKind::Dir | ComponentKind::Chunk => {
                    begins(&snapshot.away, &key)? || begins(&snapshot.moved, &key)?
                }
            };
            if left {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
