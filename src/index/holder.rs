//! What the index says of one key of S3, for a reader: `fsck` compares it with what S3 says. The way of a key is that of
//! `locate.rs`, which goes it in a transaction.

use std::sync::Arc;

use super::model::{Away, IndexError, Node};
use super::snapshot::Snapshot;
use super::{Index, Ino};
use crate::types::name::{self, ComponentKind};
use crate::types::{Component, Key};

/// Whose a key is.
#[derive(Clone, Debug)]
pub enum Holder {
    /// This inode's: S3 has its version (a directory: its marker) there, or nothing.
    Inode(Arc<Node>),
    /// Something must leave it.
    Away(Away),
    /// Nobody's, and this directory would have it, or what is above it.
    Nobody(Arc<Node>),
    /// Nobody's: what has the name is elsewhere in S3.
    Elsewhere,
}

impl Index {
    /// Whose `key` is (ending in `/`: whose marker).
    pub fn holder(&self, key: &Key) -> Result<Holder, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        if let Some(away) = snapshot.away(key)? {
            return Ok(Holder::Away(away));
        }
        let path = name::split(key);
        let (mut at, depth) = start(&snapshot, &path)?;
        for component in &path[depth..] {
            let Some(child) = snapshot.child(at, component)? else {
                return Ok(self.node(at)?.map_or(Holder::Elsewhere, Holder::Nobody));
            };
            at = child.ino;
            if snapshot.row(at)?.is_none_or(|row| row.inode.origin.is_some()) {
                return Ok(Holder::Elsewhere);
            }
        }
        Ok(self.node(at)?.map_or(Holder::Elsewhere, Holder::Inode))
    }
}

/// Where the way of a key begins, and how many of its components lead there.
fn start(snapshot: &Snapshot, path: &[Component]) -> Result<(Ino, usize), IndexError> {
    let mut prefix: String = path.iter().map(Component::suffix).collect();
    for depth in (1..=path.len()).rev() {
        let component = &path[depth - 1];
        if component.kind() != ComponentKind::File
            && let Some(dir) = snapshot.moved.get(prefix.as_str())?
        {
            return Ok((Ino(dir.value()), depth));
        }
        prefix.truncate(prefix.len() - component.suffix().len());
    }
    Ok((Ino::ROOT, 0))
}
