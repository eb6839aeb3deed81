//! The memory in front of redb: inodes and names, and the snapshot that misses are read from.
//! Owns: `Cache`, shared by all readers and by the writer.
//!
//! Coherence: a miss takes a placeholder, and only then reads the snapshot and fills it. After a commit the
//! writer first installs the new snapshot and then inserts or removes every name and inode it changed,
//! which also removes their placeholders. So a reader that has read the old snapshot finds its placeholder
//! gone and keeps what it read to itself. Nobody holds a lock while reading redb but the placeholder's.

use std::hash::Hash;
use std::sync::Arc;

use parking_lot::RwLock;
use quick_cache::Equivalent;
use quick_cache::sync::{Cache as Map, GuardResult};

use super::IndexOptions;
use super::model::{DirEntry, Freshness, IndexError, Node};
use super::row::Row;
use super::snapshot::Snapshot;
use crate::types::{Ino, Name, Tick};

/// Inodes and names in memory, in front of the last commit.
pub(super) struct Cache {
    nodes: Map<Ino, Arc<Node>>,
    names: Map<NameKey, Ino>,
    snapshot: RwLock<Result<Arc<Snapshot>, IndexError>>,
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Hash)]
struct NameKey {
    dir: Ino,
    name: Name,
}

/// A `NameKey` to look up by; hashes as one.
#[derive(Hash)]
struct NameRef<'a> {
    dir: Ino,
    name: &'a Name,
}

impl Equivalent<NameKey> for NameRef<'_> {
    fn equivalent(&self, key: &NameKey) -> bool {
        self.dir == key.dir && *self.name == key.name
    }
}

impl Cache {
    pub(super) fn new(options: &IndexOptions, snapshot: Snapshot) -> Cache {
        Cache {
            nodes: Map::new(options.cached_inodes.max(1)),
            names: Map::new(options.cached_names.max(1)),
            snapshot: RwLock::new(Ok(Arc::new(snapshot))),
        }
    }

    /// The last commit.
    pub(super) fn snapshot(&self) -> Result<Arc<Snapshot>, IndexError> {
        self.snapshot.read().clone()
    }

    /// The node of `ino`.
    pub(super) fn node(&self, ino: Ino) -> Result<Option<Arc<Node>>, IndexError> {
        if let Some(node) = self.nodes.get(&ino) {
            return Ok(Some(node));
        }
        let guard = match self.nodes.get_value_or_guard(&ino, None) {
            GuardResult::Value(node) => return Ok(Some(node)),
            GuardResult::Guard(guard) => guard,
            GuardResult::Timeout => unreachable!("no timeout was given"),
        };
        let Some(row) = self.snapshot()?.row(ino)? else { return Ok(None) };
        let node = new_node(row, Arc::default());
        // refused when the row was changed meanwhile: then this is what it was when the call began
        let _ = guard.insert(Arc::clone(&node));
        Ok(Some(node))
    }

    /// The node of `ino`, when it is in memory.
    pub(super) fn peek(&self, ino: Ino) -> Option<Arc<Node>> {
        self.nodes.peek(&ino)
    }

    /// All nodes in memory.
    pub(super) fn all(&self) -> Vec<Arc<Node>> {
        self.nodes.iter().map(|(_, node)| node).collect()
    }

    /// A node of a row just read, for a reader of many: shares the freshness of one in memory, but takes no place there.
    pub(super) fn passing(&self, row: Row) -> Arc<Node> {
        let cached = self.nodes.peek(&row.inode.ino);
        new_node(row, cached.map(|node| Arc::clone(&node.freshness)).unwrap_or_default())
    }

    /// The entry of `dir` that clients know as `name`.
    pub(super) fn child(&self, dir: Ino, name: &Name) -> Result<Option<Arc<Node>>, IndexError> {
        if let Some(ino) = self.names.get(&NameRef { dir, name })
            && let Some(node) = self.node(ino)?
        {
            return Ok(Some(node));
        }
        // twice: between name and inode a commit may put another inode in the place of this one
        for _ in 0..2 {
            let Some(ino) = self.load_name(dir, name)? else { return Ok(None) };
            if let Some(node) = self.node(ino)? {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }

    fn load_name(&self, dir: Ino, name: &Name) -> Result<Option<Ino>, IndexError> {
        let key = NameKey { dir, name: name.clone() };
        let guard = match self.names.get_value_or_guard(&key, None) {
            GuardResult::Value(ino) => return Ok(Some(ino)),
            GuardResult::Guard(guard) => guard,
            GuardResult::Timeout => unreachable!("no timeout was given"),
        };
        let snapshot = self.snapshot()?;
        for component in name.candidates() {
            let Some(child) = snapshot.child(dir, &component)? else { continue };
            // a file has its plain name or its escaped one, never both
            if component.name(child.shadowed) == *name {
                let _ = guard.insert(child.ino);
                return Ok(Some(child.ino));
            }
        }
        Ok(None)
    }

    /// Up to `max` entries of `dir` with cookies above `after`, in cookie order.
    pub(super) fn entries(&self, dir: Ino, after: u64, max: usize) -> Result<Vec<DirEntry>, IndexError> {
        let snapshot = self.snapshot()?;
        let (mut entries, mut after) = (Vec::new(), after);
        while entries.is_empty() {
            let listed = snapshot.listing(dir, after, max)?;
            let Some(last) = listed.last() else { break };
            after = last.cookie;
            for entry in listed {
                // gone by a commit after the snapshot: no entry any more
                let Some(node) = self.node(entry.ino)? else { continue };
                entries.push(DirEntry { name: entry.component.name(entry.shadowed), cookie: entry.cookie, node });
            }
        }
        Ok(entries)
    }

    /// Installs a commit: what changed is replaced or removed, names first.
    pub(super) fn publish(&self, snapshot: Snapshot, changed: Changed) {
        *self.snapshot.write() = Ok(Arc::new(snapshot));
        for (dir, name) in changed.names {
            self.names.remove(&NameRef { dir, name: &name });
        }
        for (ino, row, freshness) in changed.inodes {
            let freshness = self.peek(ino).map(|node| Arc::clone(&node.freshness)).or(freshness);
            match row.zip(freshness) {
                Some((row, freshness)) => self.nodes.insert(ino, new_node(row, freshness)),
                None => drop(self.nodes.remove(&ino)),
            }
        }
        settle(changed.settled);
    }

    /// Ends reading from redb; what is in memory stays, for those who were answered last.
    pub(super) fn close(&self) {
        *self.snapshot.write() = Err(IndexError::Closed);
    }

    /// Forgets everything in memory and reads from `snapshot`, or fails, from now on.
    pub(super) fn reset(&self, snapshot: Result<Snapshot, IndexError>) {
        *self.snapshot.write() = snapshot.map(Arc::new);
        self.names.clear();
        self.nodes.clear();
    }
}

/// What a commit changed.
#[derive(Default)]
pub(super) struct Changed {
    /// Names that now stand for something else, or for nothing.
    pub(super) names: Vec<(Ino, Name)>,
    /// Inodes with their new rows (`None`: gone); without a freshness a row takes no place in memory.
    pub(super) inodes: Vec<(Ino, Option<Row>, Option<Arc<Freshness>>)>,
    /// What is fresh with it.
    pub(super) settled: Vec<Settled>,
}

/// A check whose outcome a transaction has brought here.
pub(super) struct Settled {
    pub(super) freshness: Arc<Freshness>,
    pub(super) sent: Tick,
    pub(super) answered: Tick,
}

/// To be called when readers see what was found.
pub(super) fn settle(settled: Vec<Settled>) {
    for Settled { freshness, sent, answered } in settled {
        freshness.settle(sent, answered);
    }
}

fn new_node(row: Row, freshness: Arc<Freshness>) -> Arc<Node> {
    Arc::new(Node { inode: row.inode, freshness })
}
