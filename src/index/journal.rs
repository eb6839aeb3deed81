//! The journal: rows that say what S3 should have and has not. Owns the tables `pending`, `away`, `moved`,
//! `staging`, and where in S3 an inode is.
//!
//! Nothing here is a log of deeds: a row says how things should be, so doing it twice does no harm, and
//! changing a file a hundred times leaves one row.
//!
//! Where an inode is in S3
//! - A directory's entries are at its `origin`, or else where its parent's are plus its component.
//! - A file (a marker) is at its `origin`, or else where its directory's entries are plus its component.
//! - So a rename of a directory writes one row: its origin. All below stays where it is, in S3 and here.
//!
//! Invariants
//! - An inode whose version is not under the key of its path has `place` pending, and `away` has its key
//!   with its number: nobody else's object is written there before it has left.
//! - A version that was removed or replaced here is `away` under its key, with no number, until S3 has
//!   removed or replaced it too.
//! - A directory whose entries are not under the prefix of its path has `place` pending, and is in `moved`
//!   under that prefix.
//! - An inode with `staged` has `content` pending and a row in `staging`.

use redb::ReadableTable;

use super::change::Change;
use super::model::{Away, IndexError, Inode, Kind, Pending, StagedRow, Work};
use super::row::Row;
use super::tables::{self, be_u64};
use crate::types::{ETag, Ino, Key, ObjectId, Time};

impl Change<'_> {
    /// What of `ino` S3 does not have.
    pub(super) fn pending(&self, ino: Ino) -> Result<Option<Pending>, IndexError> {
        let Some(row) = self.tables.pending.get(ino.0)? else { return Ok(None) };
        decode_pending(row.value()).map(Some).ok_or_else(|| tables::corrupted("pending", ino))
    }

    /// Notes a change of `ino` that S3 does not have; `what` says of what kind.
    pub(super) fn mark_pending(&mut self, ino: Ino, what: impl FnOnce(&mut Pending)) -> Result<(), IndexError> {
        let none = Pending { content: false, attributes: false, place: false, since: self.now, change: 0 };
        let mut pending = self.pending(ino)?.unwrap_or(none);
        what(&mut pending);
        pending.change = self.number();
        self.put_pending(ino, &pending)
    }

    /// Stores what of `ino` S3 does not have; nothing is left of a row that says nothing.
    pub(super) fn put_pending(&mut self, ino: Ino, pending: &Pending) -> Result<(), IndexError> {
        if !(pending.content || pending.attributes || pending.place) {
            return self.settle_pending(ino);
        }
        self.dirty = true;
        self.tables.pending.insert(ino.0, encode_pending(pending).as_slice())?;
        self.work.push(Work::Inode(ino));
        Ok(())
    }

    /// S3 has all of `ino`, or needs not.
    pub(super) fn settle_pending(&mut self, ino: Ino) -> Result<(), IndexError> {
        self.dirty |= self.tables.pending.remove(ino.0)?.is_some();
        Ok(())
    }

    /// The object that must leave `key`.
    pub(super) fn away(&self, key: &str) -> Result<Option<Away>, IndexError> {
        let Some(row) = self.tables.away.get(key)? else { return Ok(None) };
        decode_away(row.value()).map(Some).ok_or_else(|| tables::corrupted("away", key))
    }

    /// Notes that the object at `key` must leave.
    pub(super) fn put_away(&mut self, key: &Key, away: &Away) -> Result<(), IndexError> {
        self.dirty = true;
        self.tables.away.insert(key.as_str(), encode_away(away).as_slice())?;
        self.work.push(Work::Away(key.clone()));
        Ok(())
    }

    /// The object at `key` has left, or may stay.
    pub(super) fn remove_away(&mut self, key: &str) -> Result<(), IndexError> {
        self.dirty |= self.tables.away.remove(key)?.is_some();
        Ok(())
    }

    /// The directory whose entries S3 still has below `prefix`.
    pub(super) fn moved(&self, prefix: &str) -> Result<Option<Ino>, IndexError> {
        Ok(self.tables.moved.get(prefix)?.map(|ino| Ino(ino.value())))
    }

    /// Notes that the entries of `dir` are below `prefix`.
    pub(super) fn put_moved(&mut self, prefix: &Key, dir: Ino) -> Result<(), IndexError> {
        self.dirty = true;
        self.tables.moved.insert(prefix.as_str(), dir.0)?;
        Ok(())
    }

    /// Nothing of a directory that was there is below `prefix` any more.
    pub(super) fn remove_moved(&mut self, prefix: &str) -> Result<(), IndexError> {
        self.dirty |= self.tables.moved.remove(prefix)?.is_some();
        Ok(())
    }

    /// The durable state of a staging file.
    pub(super) fn staged(&self, staged: ObjectId) -> Result<Option<StagedRow>, IndexError> {
        let Some(row) = self.tables.staging.get(staged.0)? else { return Ok(None) };
        decode_staged(row.value()).map(Some).ok_or_else(|| tables::corrupted("staging", staged.0))
    }

    /// Stores it.
    pub(super) fn put_staged(&mut self, staged: ObjectId, row: &StagedRow) -> Result<(), IndexError> {
        self.dirty = true;
        self.tables.staging.insert(staged.0, encode_staged(row).as_slice())?;
        Ok(())
    }

    /// Forgets it: the file is for `content` to remove, as what has neither a row nor an owner.
    pub(super) fn remove_staged(&mut self, staged: ObjectId) -> Result<(), IndexError> {
        self.dirty |= self.tables.staging.remove(staged.0)?.is_some();
        Ok(())
    }

    /// The key that `ino` should have: a directory's ends in `/`. `None`: gone, or longer than S3 allows.
    pub(super) fn path_key(&mut self, ino: Ino) -> Result<Option<Key>, IndexError> {
        let (mut parts, mut at) = (Vec::new(), ino);
        while at != Ino::ROOT {
            let Some(Row { inode, .. }) = self.row(at)? else { return Ok(None) };
            at = inode.parent;
            parts.push(inode.component);
        }
        let key: String = parts.iter().rev().map(|component| component.suffix()).collect();
        Ok(Key::new(&key))
    }

    /// The prefix below which S3 has the entries of `dir`.
    pub(super) fn remote_prefix(&mut self, dir: Ino) -> Result<Option<Key>, IndexError> {
        let (mut parts, mut at, mut base) = (Vec::new(), dir, None);
        while at != Ino::ROOT && base.is_none() {
            let Some(Row { inode, .. }) = self.row(at)? else { return Ok(None) };
            base = inode.origin;
            if base.is_none() {
                at = inode.parent;
                parts.push(inode.component);
            }
        }
        let mut key = base.map_or_else(String::new, |key| key.as_str().to_owned());
        key.extend(parts.iter().rev().map(|component| component.suffix()));
        Ok(Key::new(&key))
    }

    /// The key under which S3 has the version of `inode` (a directory: its marker); `None` when it has none.
    pub(super) fn remote_key(&mut self, inode: &Inode) -> Result<Option<Key>, IndexError> {
        if inode.remote.is_none() {
            return Ok(None);
        }
        self.place_in_s3(inode)
    }

    /// Where S3 has, or would have, what `inode` is: its origin, or what follows from its directory's.
    fn place_in_s3(&mut self, inode: &Inode) -> Result<Option<Key>, IndexError> {
        match (&inode.origin, inode.kind) {
            (Some(origin), _) => Ok(Some(origin.clone())),
            (None, Kind::Dir) => self.remote_prefix(inode.ino),
            (None, _) => self.inherited_key(inode),
        }
    }

    /// The key that `inode` has in S3 unless its origin says another.
    pub(super) fn inherited_key(&mut self, inode: &Inode) -> Result<Option<Key>, IndexError> {
        let Some(prefix) = self.remote_prefix(inode.parent)? else { return Ok(None) };
        Ok(Key::new(&[prefix.as_str(), &inode.component.suffix()].concat()))
    }
}

const CONTENT: u8 = 1;
const ATTRIBUTES: u8 = 2;
const PLACE: u8 = 4;

fn encode_pending(pending: &Pending) -> [u8; 17] {
    let mut row = [0; 17];
    let kinds = [(pending.content, CONTENT), (pending.attributes, ATTRIBUTES), (pending.place, PLACE)];
    row[0] = kinds.iter().filter(|(on, _)| *on).fold(0, |bits, (_, bit)| bits | bit);
    row[1..9].copy_from_slice(&pending.since.0.to_be_bytes());
    row[9..].copy_from_slice(&pending.change.to_be_bytes());
    row
}

/// Reads a row of `pending`.
pub(super) fn decode_pending(row: &[u8]) -> Option<Pending> {
    let row: &[u8; 17] = row.try_into().ok()?;
    Some(Pending {
        content: row[0] & CONTENT != 0,
        attributes: row[0] & ATTRIBUTES != 0,
        place: row[0] & PLACE != 0,
        since: Time(be_u64(&row[1..9]) as i64),
        change: be_u64(&row[9..]),
    })
}

fn encode_away(away: &Away) -> Vec<u8> {
    let mut row = Vec::with_capacity(16 + away.etag.as_str().len());
    row.extend_from_slice(&away.size.to_be_bytes());
    // no inode has the number zero
    row.extend_from_slice(&away.ino.map_or(0, |ino| ino.0).to_be_bytes());
    row.extend_from_slice(away.etag.as_str().as_bytes());
    row
}

/// Reads a row of `away`.
pub(super) fn decode_away(row: &[u8]) -> Option<Away> {
    let (numbers, etag) = row.split_at_checked(16)?;
    let ino = Some(Ino(be_u64(&numbers[8..]))).filter(|ino| ino.0 != 0);
    Some(Away { etag: ETag::new(std::str::from_utf8(etag).ok()?), size: be_u64(&numbers[..8]), ino })
}

fn encode_staged(row: &StagedRow) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + 16 * row.ranges.len());
    out.extend_from_slice(&row.ino.0.to_be_bytes());
    out.extend_from_slice(&row.base_len.to_be_bytes());
    for range in &row.ranges {
        out.extend_from_slice(&range.start.to_be_bytes());
        out.extend_from_slice(&range.end.to_be_bytes());
    }
    out
}

/// Reads a row of `staging`.
pub(super) fn decode_staged(row: &[u8]) -> Option<StagedRow> {
    let (numbers, ranges) = row.split_at_checked(16)?;
    let ranges = ranges.chunks_exact(16).map(|r| be_u64(&r[..8])..be_u64(&r[8..])).collect();
    Some(StagedRow { ino: Ino(be_u64(&numbers[..8])), base_len: be_u64(&numbers[8..]), ranges })
}
