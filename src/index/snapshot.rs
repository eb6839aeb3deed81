//! The index as of one commit, for readers: redb tables of one read transaction, opened once.
//!
//! A snapshot is replaced by the next commit's; whoever still has the old one goes on reading it, and
//! redb re-uses its pages when the last is gone.

use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable};

use super::journal;
use super::model::{Away, Counts, Defaults, IndexError, Kind, ObjectRow, Pending, StagedRow};
use super::row::Row;
use super::tables::{self, Child};
use crate::types::{Component, Ino, ObjectId};

/// The index as of one commit.
pub(super) struct Snapshot {
    pub(super) inodes: ReadOnlyTable<u64, &'static [u8]>,
    pub(super) children: ReadOnlyTable<&'static [u8], &'static [u8; 17]>,
    pub(super) listing: ReadOnlyTable<&'static [u8; 16], &'static [u8]>,
    pub(super) objects: ReadOnlyTable<u64, &'static [u8]>,
    pub(super) garbage: ReadOnlyTable<u64, ()>,
    pub(super) pending: ReadOnlyTable<u64, &'static [u8]>,
    pub(super) away: ReadOnlyTable<&'static str, &'static [u8]>,
    pub(super) moved: ReadOnlyTable<&'static str, u64>,
    pub(super) staging: ReadOnlyTable<u64, &'static [u8]>,
    pub(super) uploads: ReadOnlyTable<u64, &'static [u8]>,
    pub(super) conflicts: ReadOnlyTable<u64, &'static [u8]>,
    pub(super) sent: ReadOnlyTable<&'static str, &'static [u8]>,
    pub(super) counts: Counts,
    pub(super) has_orphans: bool,
    pub(super) sequence: u64,
    defaults: Defaults,
}

impl Snapshot {
    /// The last commit of `db`.
    pub(super) fn take(db: &Database, defaults: Defaults) -> Result<Snapshot, IndexError> {
        let txn = db.begin_read()?;
        let meta = txn.open_table(tables::META)?;
        let counts = Counts {
            files: tables::meta(&meta, tables::META_FILES)?,
            dirs: tables::meta(&meta, tables::META_DIRS)?,
            bytes: tables::meta(&meta, tables::META_BYTES)?,
        };
        Ok(Snapshot {
            inodes: txn.open_table(tables::INODES)?,
            children: txn.open_table(tables::CHILDREN)?,
            listing: txn.open_table(tables::LISTING)?,
            objects: txn.open_table(tables::OBJECTS)?,
            garbage: txn.open_table(tables::GARBAGE)?,
            pending: txn.open_table(tables::PENDING)?,
            away: txn.open_table(tables::AWAY)?,
            moved: txn.open_table(tables::MOVED)?,
            staging: txn.open_table(tables::STAGING)?,
            uploads: txn.open_table(tables::UPLOADS)?,
            conflicts: txn.open_table(tables::CONFLICTS)?,
            sent: txn.open_table(tables::SENT)?,
            counts,
            has_orphans: txn.open_table(tables::ORPHANS)?.first()?.is_some(),
            sequence: tables::meta(&meta, tables::META_SEQUENCE)?,
            defaults,
        })
    }

    /// The row of an inode.
    pub(super) fn row(&self, ino: Ino) -> Result<Option<Row>, IndexError> {
        let Some(bytes) = self.inodes.get(ino.0)? else { return Ok(None) };
        let row = Row::decode(ino, bytes.value(), &self.defaults);
        row.map(Some).ok_or_else(|| tables::corrupted("inode", ino))
    }

    /// The entry of `dir` that adds `component` to its prefix.
    pub(super) fn child(&self, dir: Ino, component: &Component) -> Result<Option<Child>, IndexError> {
        let key = tables::child_key(dir, component.as_bytes());
        Ok(self.children.get(key.as_slice())?.map(|row| Child::decode(row.value())))
    }

    /// Up to `max` entries of `dir` with cookies above `after`, in cookie order.
    pub(super) fn listing(&self, dir: Ino, after: u64, max: usize) -> Result<Vec<Listed>, IndexError> {
        let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
        let range = tables::listing_key(dir, first)..=tables::listing_key(dir, u64::MAX);
        let mut entries = Vec::new();
        for entry in self.listing.range::<&[u8; 16]>(&range.start()..=&range.end())?.take(max) {
            let (key, row) = entry?;
            let (ino, shadowed, component) = tables::parse_listing_row(row.value())?;
            entries.push(Listed { cookie: tables::be_u64(&key.value()[8..]), ino, shadowed, component });
        }
        Ok(entries)
    }

    /// Up to `max` inodes after `after` that are no directories.
    pub(super) fn files(&self, after: Ino, max: usize) -> Result<Vec<Row>, IndexError> {
        self.rows(after, max, |row| row.inode.kind != Kind::Dir)
    }

    /// Up to `max` inodes after `after` that `are_wanted`.
    pub(super) fn rows(&self, after: Ino, max: usize, are_wanted: fn(&Row) -> bool) -> Result<Vec<Row>, IndexError> {
        let Some(first) = after.0.checked_add(1) else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        for entry in self.inodes.range(first..)? {
            if rows.len() >= max {
                break;
            }
            let (ino, bytes) = entry?;
            let ino = Ino(ino.value());
            let row = Row::decode(ino, bytes.value(), &self.defaults);
            let row = row.ok_or_else(|| tables::corrupted("inode", ino))?;
            if are_wanted(&row) {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// What of `ino` S3 does not have.
    pub(super) fn pending(&self, ino: Ino) -> Result<Option<Pending>, IndexError> {
        let Some(row) = self.pending.get(ino.0)? else { return Ok(None) };
        journal::decode_pending(row.value()).map(Some).ok_or_else(|| tables::corrupted("pending", ino))
    }

    /// The object that must leave `key`.
    pub(super) fn away(&self, key: &str) -> Result<Option<Away>, IndexError> {
        let Some(row) = self.away.get(key)? else { return Ok(None) };
        journal::decode_away(row.value()).map(Some).ok_or_else(|| tables::corrupted("away", key))
    }

    /// The durable state of a staging file.
    pub(super) fn staged(&self, staged: ObjectId) -> Result<Option<StagedRow>, IndexError> {
        let Some(row) = self.staging.get(staged.0)? else { return Ok(None) };
        journal::decode_staged(row.value()).map(Some).ok_or_else(|| tables::corrupted("staging", staged.0))
    }

    /// Whether `dir` has entries.
    pub(super) fn has_entries(&self, dir: Ino) -> Result<bool, IndexError> {
        let (first, end) = (tables::child_key(dir, &[]), tables::children_end(dir));
        Ok(self.children.range::<&[u8]>(first.as_slice()..end.as_slice())?.next().transpose()?.is_some())
    }

    /// What is known of an object.
    pub(super) fn object(&self, object: ObjectId) -> Result<Option<ObjectRow>, IndexError> {
        self.objects.get(object.0)?.map(|row| tables::parse_object_row(row.value())).transpose()
    }

    /// Up to `max` objects after `after`, in order.
    pub(super) fn objects(&self, after: u64, max: usize) -> Result<Vec<(ObjectId, ObjectRow)>, IndexError> {
        let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        for entry in self.objects.range(first..)?.take(max) {
            let (object, row) = entry?;
            rows.push((ObjectId(object.value()), tables::parse_object_row(row.value())?));
        }
        Ok(rows)
    }

    /// Up to `max` objects that are garbage.
    pub(super) fn garbage(&self, max: usize) -> Result<Vec<ObjectId>, IndexError> {
        let mut objects = Vec::new();
        for entry in self.garbage.iter()?.take(max) {
            objects.push(ObjectId(entry?.0.value()));
        }
        Ok(objects)
    }
}

/// One row of `listing`.
pub(super) struct Listed {
    pub(super) cookie: u64,
    pub(super) ino: Ino,
    pub(super) shadowed: bool,
    pub(super) component: Component,
}
