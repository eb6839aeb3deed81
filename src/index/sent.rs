//! What was sent to a key and is not settled: after a crash nobody else knows whether it has landed. Owns the table
//! `sent`; what a row says is `writeback`'s.
//!
//! Invariants
//! - A row is durable before its request leaves, and goes with the transaction that says what the key has.
//! - Somebody finds out: the inode that has the key by its path, whose row of the journal is pending; or, when that has
//!   left the key, whoever removes what is `away` there. So a row of `away` is made when it leaves. Its tag is
//!   nobody's: whether the object is ours, `writeback` sees when S3 refuses to remove it.
//! - Until then nothing that S3 is seen to have there comes back here (`reconcile/key.rs`).

use redb::{ReadableTable, ReadableTableMetadata};

use super::change::Change;
use super::model::{Away, IndexError};
use super::place::{self, View};
use super::{Index, Key};
use crate::types::name::{self, ComponentKind};
use crate::types::{Component, ETag, Ino};

/// Stands for the tag of what may have landed.
const NOBODYS: &str = "in-doubt";

impl Index {
    /// Notes, durably, what is about to be sent to `key`, in the place of what was noted there before. False, and nothing is
    /// noted: `key` is not that of `ino` any more, or nothing of it is pending.
    pub async fn note_sent(&self, ino: Ino, key: Key, sent: Vec<u8>) -> Result<bool, IndexError> {
        let note = move |change: &mut Change<'_>| {
            if change.pending(ino)?.is_none() || change.path_key(ino)?.as_ref() != Some(&key) {
                return Ok(false);
            }
            change.put_sent(&key, &sent)?;
            Ok(true)
        };
        self.writer.run_along(1, note).await
    }

    /// The same of a key that is no inode's.
    pub async fn note_sent_aside(&self, key: Key, sent: Vec<u8>) -> Result<(), IndexError> {
        let note = move |change: &mut Change<'_>| {
            change.put_sent(&key, &sent)?;
            if change.away(&key)?.is_none() { change.put_in_doubt(&key) } else { Ok(()) }
        };
        self.writer.run_along(1, note).await
    }

    /// What was noted of `key`.
    pub fn sent(&self, key: &Key) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.shared.cache.snapshot()?.sent.get(key.as_str())?.map(|row| row.value().to_vec()))
    }
}

impl Change<'_> {
    fn put_sent(&mut self, key: &Key, sent: &[u8]) -> Result<(), IndexError> {
        self.dirty = true;
        self.tables.sent.insert(key.as_str(), sent)?;
        Ok(())
    }

    /// Whether something was sent to `key` of which nobody knows whether it was done.
    pub(super) fn is_in_doubt(&self, key: &str) -> Result<bool, IndexError> {
        Ok(self.tables.sent.get(key)?.is_some())
    }

    /// It is known what `key` has.
    pub(super) fn forget_sent(&mut self, key: &str) -> Result<(), IndexError> {
        if self.is_in_doubt(key)? {
            self.dirty = true;
            self.tables.sent.remove(key)?;
        }
        Ok(())
    }

    /// What has the entry `component` of `dir` is about to leave it: of what was sent to its key, or below, others have to
    /// find out whether it was done. Where it has its version, that must leave the key anyway. What belongs to a directory
    /// that was there before, and has moved, was sent by what is in that one.
    pub(super) fn leave_in_doubt(&mut self, dir: Ino, component: &Component) -> Result<(), IndexError> {
        if self.tables.sent.is_empty()? {
            return Ok(());
        }
        let Some(prefix) = self.path_key(dir)? else { return Ok(()) };
        let prefix = [prefix.as_str(), component.suffix()].concat();
        for key in self.sent_below(&prefix, component.kind() == ComponentKind::File)? {
            if place::owner(self, &key, is_marker(&key))?.is_some() {
                continue;
            }
            let inode = by_path(self, &key)?.map(|ino| self.row(ino)).transpose()?.flatten().map(|row| row.inode);
            let at = inode.map(|inode| self.remote_key(&inode)).transpose()?.flatten();
            if at.as_ref() != Some(&key) && self.away(&key)?.is_none() {
                self.put_in_doubt(&key)?;
            }
        }
        Ok(())
    }

    /// The keys in doubt that begin with `prefix`, or that are `alone` that.
    fn sent_below(&self, prefix: &str, alone: bool) -> Result<Vec<Key>, IndexError> {
        let mut keys = Vec::new();
        for entry in self.tables.sent.range::<&str>(prefix..)? {
            let key = entry?.0.value().to_owned();
            if !key.starts_with(prefix) || (alone && key != prefix) {
                break;
            }
            keys.extend(Key::new(&key));
        }
        Ok(keys)
    }

    fn put_in_doubt(&mut self, key: &Key) -> Result<(), IndexError> {
        self.put_away(key, &Away { etag: ETag::new(NOBODYS), size: 0, ino: None })
    }
}

/// Whether somebody finds out what became of what was sent to `key`: whoever removes it, or the inode that has it.
pub(super) fn is_sought(view: &impl View, key: &str) -> Result<bool, IndexError> {
    let Some(key) = Key::new(key) else { return Ok(false) };
    if view.away_at(&key)?.is_some() || place::owner(view, &key, is_marker(&key))?.is_some() {
        return Ok(true);
    }
    Ok(by_path(view, &key)?.map(|ino| view.pending_of(ino)).transpose()?.flatten().is_some())
}

/// Whether it is the key of a directory's marker. Of chunks there are none.
fn is_marker(key: &str) -> bool {
    key.ends_with('/')
}

/// The inode that has `key` by its path.
pub(super) fn by_path(view: &impl View, key: &Key) -> Result<Option<Ino>, IndexError> {
    let mut at = Ino::ROOT;
    for component in name::split(key) {
        let Some(child) = view.child_of(at, &component)? else { return Ok(None) };
        at = child.ino;
    }
    Ok(Some(at))
}
