//! What `writeback` reads of the journal: what there is to do, and for one inode all that must be known to do it.
//! Each answer is of one commit.

use std::sync::Arc;

use redb::{ReadableTable, ReadableTableMetadata};

use super::journal;
use super::model::{Away, Backlog, IndexError, Kind, Node, Pending, StagedRow, Work};
use super::place;
use super::snapshot::Snapshot;
use super::{Defaults, Index, tables};
use crate::types::{Ino, Key, ObjectId, Time};

/// All that must be known to bring one inode to S3, as of one commit.
#[derive(Clone, Debug)]
pub struct Task {
    /// The inode.
    pub node: Arc<Node>,
    /// What of it S3 lacks.
    pub pending: Pending,
    /// The key that it should have (a directory: of its marker). `None`: longer than S3 allows.
    pub key: Option<Key>,
    /// The key that its version has; `None` when S3 has no version of it.
    pub remote_key: Option<Key>,
    /// What is in the way at `key`: the version that is to be replaced (`ino` is `None`), or one that must move first.
    /// A directory is in the way (its `etag` is empty) while it has entries of its own below a prefix that `key` begins
    /// with, and while it is above this inode and its entries are elsewhere: it is to be expanded first. Directories that are
    /// in each other's way do not exist; files do, where names were swapped: one of them is to be settled under another key.
    pub in_the_way: Option<Away>,
    /// For a directory: whether it has entries, and so exists in S3 without a marker.
    pub has_entries: bool,
    /// For a directory: whether its attributes are the defaults, which need no marker.
    pub has_default_attributes: bool,
    /// Whether something was sent to `key` of which nobody knows whether it was done.
    pub is_in_doubt: bool,
}

impl Index {
    /// Takes what has come to the journal since the last call. After a start: nothing; see `pending` and `away`.
    pub fn take_work(&self) -> Vec<Work> {
        std::mem::take(&mut *self.shared.work.lock())
    }

    /// Waits until something may have come to the journal. For one waiter at a time.
    pub async fn work_added(&self) {
        self.shared.work_added.notified().await;
    }

    /// What `ino` lacks in S3; `None` when nothing, or when it is gone.
    pub fn pending(&self, ino: Ino) -> Result<Option<Pending>, IndexError> {
        self.shared.cache.snapshot()?.pending(ino)
    }

    /// Rows of `pending` after `after`, at most `max`, in inode order.
    pub fn pending_rows(&self, after: Ino, max: usize) -> Result<Vec<(Ino, Pending)>, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        let Some(first) = after.0.checked_add(1) else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        for entry in snapshot.pending.range(first..)?.take(max) {
            let (ino, row) = entry?;
            let pending = journal::decode_pending(row.value());
            rows.push((Ino(ino.value()), pending.ok_or_else(|| tables::corrupted("pending", ino.value()))?));
        }
        Ok(rows)
    }

    /// Rows of `away` after `after`, at most `max`, in key order.
    pub fn away_rows(&self, after: Option<&Key>, max: usize) -> Result<Vec<(Key, Away)>, IndexError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let snapshot = self.shared.cache.snapshot()?;
        let first = after.map_or(Unbounded, |key| Excluded(key.as_str()));
        let mut rows = Vec::new();
        for entry in snapshot.away.range::<&str>((first, Unbounded))?.take(max) {
            let (key, row) = entry?;
            let parsed = Key::new(key.value()).zip(journal::decode_away(row.value()));
            rows.push(parsed.ok_or_else(|| tables::corrupted("away", key.value()))?);
        }
        Ok(rows)
    }

    /// What is away at `key`.
    pub fn away(&self, key: &Key) -> Result<Option<Away>, IndexError> {
        self.shared.cache.snapshot()?.away(key)
    }

    /// How much is in the journal.
    pub fn backlog(&self) -> Backlog {
        let count = || -> Result<Backlog, IndexError> {
            let snapshot = self.shared.cache.snapshot()?;
            Ok(Backlog { inodes: snapshot.pending.len()?, away: snapshot.away.len()? })
        };
        count().unwrap_or_default()
    }

    /// The durable state of a staging file.
    pub fn staged(&self, staged: ObjectId) -> Result<Option<StagedRow>, IndexError> {
        self.shared.cache.snapshot()?.staged(staged)
    }

    /// All staging files after `after`, at most `max`: for the start-up scan of `content`.
    pub fn staged_rows(&self, after: ObjectId, max: usize) -> Result<Vec<(ObjectId, StagedRow)>, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        let Some(first) = after.0.checked_add(1) else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        for entry in snapshot.staging.range(first..)?.take(max) {
            let (staged, row) = entry?;
            let parsed = journal::decode_staged(row.value());
            rows.push((ObjectId(staged.value()), parsed.ok_or_else(|| tables::corrupted("staging", staged.value()))?));
        }
        Ok(rows)
    }

    /// The key under which S3 has the version of `ino`: to be used in every request for its bytes. `None`: S3 has none.
    pub fn remote_key(&self, ino: Ino) -> Result<Option<Key>, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        let Some(row) = snapshot.row(ino)? else { return Ok(None) };
        place::remote_key(&mut &*snapshot, &row.inode)
    }

    /// The prefix below which S3 has the entries of `dir`: to be used to list it, and to ask for a name that is not here.
    pub fn remote_prefix(&self, dir: Ino) -> Result<Option<Key>, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        place::remote_prefix(&mut &*snapshot, dir)
    }

    /// Everything about bringing `ino` to S3; `None` when nothing is pending, or it is gone.
    pub fn task(&self, ino: Ino) -> Result<Option<Task>, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        let Some((row, pending)) = snapshot.row(ino)?.zip(snapshot.pending(ino)?) else { return Ok(None) };
        let (view, inode): (&mut &Snapshot, _) = (&mut &*snapshot, &row.inode);
        let key = place::path_key(view, ino)?;
        let remote_key = place::remote_key(view, inode)?;
        let in_the_way = key.as_ref().map(|key| place::obstacle(view, inode, key)).transpose()?.flatten();
        let is_in_doubt = match &key {
            Some(key) => snapshot.sent.get(key.as_str())?.is_some(),
            None => false,
        };
        let is_dir = inode.kind == Kind::Dir;
        let has_entries = is_dir && snapshot.has_entries(ino)?;
        let Defaults { uid, gid, dir_mode, .. } = self.shared.defaults;
        let has_default_attributes = is_dir && (inode.mode, inode.uid, inode.gid) == (dir_mode, uid, gid);
        let node = self.shared.cache.passing(row);
        Ok(Some(Task { node, pending, key, remote_key, in_the_way, has_entries, has_default_attributes, is_in_doubt }))
    }

    /// What `writeback` noted of the multipart upload of `ino`.
    pub fn upload(&self, ino: Ino) -> Result<Option<Vec<u8>>, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        Ok(snapshot.uploads.get(ino.0)?.map(|row| row.value().to_vec()))
    }

    /// All of them.
    pub fn uploads(&self) -> Result<Vec<(Ino, Vec<u8>)>, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        let mut rows = Vec::new();
        for entry in snapshot.uploads.iter()? {
            let (ino, row) = entry?;
            rows.push((Ino(ino.value()), row.value().to_vec()));
        }
        Ok(rows)
    }

    /// The attributes of objects that carry none.
    pub fn defaults(&self) -> Defaults {
        self.shared.defaults
    }

    /// Wall time, as changes are dated.
    pub fn wall(&self) -> Time {
        self.shared.clock.wall()
    }
}
