//! The journal: rows that say what S3 should have and has not. Owns the tables `pending`, `away`, `moved`,
//! `staging`, and where in S3 an inode is.
//!
//! Nothing here is a log of deeds: a row says how things should be, so doing it twice does no harm, and
//! changing a file a hundred times leaves one row.
//!
//! Where an inode is in S3
//! - A directory's entries are at its `origin`, or else where its parent's are plus its component. Its marker is at
//!   that prefix, too.
//! - A file is at its `origin`, or else where its directory's entries are plus its component.
//! - So a rename of a directory writes one row: its origin. All below stays where it is, in S3 and here.
//! - An inode without a version is nowhere, but for a directory, which may have entries that have one.
//!
//! Invariants
//! - A file with an origin has `place` pending, and `away` has its origin with its number: nobody else's object is written
//!   there before it has left. Without one it is where its directory's entries are, which owns that key (`place.rs`).
//! - A version that was removed or replaced here is `away` under its key, with no number, until S3 has
//!   removed or replaced it too.
//! - A directory with an origin has `place` pending, and `moved` has its origin with its number.
//! - An inode with `staged` has `content` pending and a row in `staging`. A file without a version has, too.
//!
//! `check.rs` looks whether all of this holds.

use redb::ReadableTable;

use super::change::Change;
use super::model::{Away, IndexError, Inode, Kind, Pending, SetHere, StagedRow, Work};
use super::place::{self, View};
use super::tables::{self, be_u64};
use crate::types::{ETag, Ino, Key, ObjectId, Tick, Time};

impl Change<'_> {
    /// What of `ino` S3 does not have.
    pub(super) fn pending(&self, ino: Ino) -> Result<Option<Pending>, IndexError> {
        let Some(row) = self.tables.pending.get(ino.0)? else { return Ok(None) };
        decode_pending(row.value()).map(Some).ok_or_else(|| tables::corrupted("pending", ino))
    }

    /// Notes a change of `ino` that S3 does not have; `what` says of what kind.
    pub(super) fn mark_pending(&mut self, ino: Ino, what: impl FnOnce(&mut Pending)) -> Result<(), IndexError> {
        let (content, attributes, place) = (false, false, false);
        let none = Pending { content, attributes, set: SetHere::NONE, place, since: self.now, change: 0 };
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

    /// S3 has the bytes of `ino`; what else it lacks it still does.
    pub(super) fn settle_content(&mut self, ino: Ino) -> Result<(), IndexError> {
        match self.pending(ino)? {
            Some(pending) => self.put_pending(ino, &Pending { content: false, change: self.number(), ..pending }),
            None => Ok(()),
        }
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

    /// Notes that nobody here wants the version at `key` any more: it must leave. S3 had it by `observed`.
    pub(super) fn abandon(&mut self, key: &Key, etag: &ETag, size: u64, observed: Tick) -> Result<(), IndexError> {
        self.bury_version(key, observed);
        self.put_away(key, &Away { etag: etag.clone(), size, ino: None })
    }

    /// When S3 was last seen to have `ino`.
    pub(super) fn observed(&self, ino: Ino) -> Result<Tick, IndexError> {
        Ok(self.load_freshness(ino)?.map_or(Tick::NEVER, |freshness| freshness.observed()))
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

    /// Stores the durable state of a staging file.
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

    /// See [`place::path_key`].
    pub(super) fn path_key(&mut self, ino: Ino) -> Result<Option<Key>, IndexError> {
        place::path_key(self, ino)
    }

    /// See [`place::remote_prefix`].
    pub(super) fn remote_prefix(&mut self, dir: Ino) -> Result<Option<Key>, IndexError> {
        place::remote_prefix(self, dir)
    }

    /// See [`place::remote_key`].
    pub(super) fn remote_key(&mut self, inode: &Inode) -> Result<Option<Key>, IndexError> {
        place::remote_key(self, inode)
    }

    /// See [`place::inherited_key`].
    pub(super) fn inherited_key(&mut self, inode: &Inode) -> Result<Option<Key>, IndexError> {
        place::inherited_key(self, inode)
    }

    /// Whether anything of S3 below `prefix`, or the prefix itself, is away or belongs to a directory that was moved.
    pub(super) fn is_disputed(&self, prefix: &Key) -> Result<bool, IndexError> {
        if self.longest_moved(prefix)?.is_some() {
            return Ok(true);
        }
        let begins = |key: Option<String>| key.is_some_and(|key| key.starts_with(prefix.as_str()));
        let away = self.tables.away.range::<&str>(prefix.as_str()..)?.next().transpose()?;
        let moved = self.tables.moved.range::<&str>(prefix.as_str()..)?.next().transpose()?;
        Ok(begins(away.map(|(key, _)| key.value().to_owned())) || begins(moved.map(|(key, _)| key.value().to_owned())))
    }

    /// Says that S3 has the version of a file, or the entries of a directory, at `at`; notes what follows from that and
    /// from its path: its origin, that it must leave (`away`, `moved`), that its place is pending.
    pub(super) fn settle_place(&mut self, ino: Ino, at: &Key) -> Result<(), IndexError> {
        let Some(before) = self.row(ino)? else { return Ok(()) };
        let is_home = place::home(self, &before.inode)?.as_ref() == Some(at);
        let mut after = before.clone();
        after.inode.origin = Some(at.clone()).filter(|_| !is_home);
        let parent = after.inode.parent;
        match (&after.inode.remote, after.inode.kind) {
            (_, Kind::Dir) if is_home => self.remove_moved(at)?,
            (_, Kind::Dir) => self.put_moved(at, ino)?,
            (Some(_), _) if is_home => {
                if self.away(at)?.is_some_and(|away| away.ino == Some(ino)) {
                    self.remove_away(at)?;
                }
            }
            (Some(remote), _) => {
                let away = Away { etag: remote.etag.clone(), size: remote.size, ino: Some(ino) };
                if self.away(at)?.as_ref() != Some(&away) {
                    self.put_away(at, &away)?;
                }
            }
            (None, _) => debug_assert!(false, "a file without a version is nowhere"),
        }
        self.replace(&before, after);
        if is_home {
            self.expand_again(parent)?;
        }
        self.set_place_pending(ino, !is_home)
    }

    /// Notes whether the place of `ino` is pending. No upload under way is made obsolete by it.
    pub(super) fn set_place_pending(&mut self, ino: Ino, place: bool) -> Result<(), IndexError> {
        match self.pending(ino)? {
            Some(pending) if pending.place != place => self.put_pending(ino, &Pending { place, ..pending }),
            None if place => self.mark_pending(ino, |pending| pending.place = true),
            _ => Ok(()),
        }
    }

    /// Forgets what the journal has of an inode that is removed. Its version stays `away` if that was noted before.
    pub(super) fn forget(&mut self, inode: &Inode) -> Result<(), IndexError> {
        let ino = inode.ino;
        self.settle_pending(ino)?;
        if let Some(staged) = inode.staged {
            self.remove_staged(staged)?;
            self.discard(staged)?;
        }
        if self.tables.uploads.get(ino.0)?.is_some() {
            // to be aborted
            self.work.push(Work::Inode(ino));
        }
        let Some(origin) = &inode.origin else { return Ok(()) };
        if inode.kind == Kind::Dir && self.moved(origin)? == Some(ino) {
            self.remove_moved(origin)?;
            self.tables.expanding.remove(ino.0)?;
        }
        if self.away(origin)?.is_some_and(|away| away.ino == Some(ino)) {
            self.remove_away(origin)?;
        }
        Ok(())
    }

    /// An entry of `dir` has come to be where its directory is in S3: whoever expands that begins again.
    pub(super) fn expand_again(&mut self, dir: Ino) -> Result<(), IndexError> {
        if self.tables.expanding.get(dir.0)?.is_some() {
            self.tables.expanding.remove(dir.0)?;
        }
        Ok(())
    }
}

const CONTENT: u8 = 1;
const ATTRIBUTES: u8 = 2;
const PLACE: u8 = 4;
const MODE: u8 = 8;
const UID: u8 = 16;
const GID: u8 = 32;
const MTIME: u8 = 64;
const ATIME: u8 = 128;

fn encode_pending(pending: &Pending) -> [u8; 17] {
    let mut row = [0; 17];
    let set = &pending.set;
    let bits = [
        (pending.content, CONTENT),
        (pending.attributes, ATTRIBUTES),
        (pending.place, PLACE),
        (set.mode, MODE),
        (set.uid, UID),
        (set.gid, GID),
        (set.mtime, MTIME),
        (set.atime, ATIME),
    ];
    row[0] = bits.iter().filter(|(on, _)| *on).fold(0, |bits, (_, bit)| bits | bit);
    row[1..9].copy_from_slice(&pending.since.0.to_be_bytes());
    row[9..].copy_from_slice(&pending.change.to_be_bytes());
    row
}

/// Reads a row of `pending`.
pub(super) fn decode_pending(row: &[u8]) -> Option<Pending> {
    let row: &[u8; 17] = row.try_into().ok()?;
    let has = |bit: u8| row[0] & bit != 0;
    let set = SetHere { mode: has(MODE), uid: has(UID), gid: has(GID), mtime: has(MTIME), atime: has(ATIME) };
    Some(Pending {
        content: has(CONTENT),
        attributes: has(ATTRIBUTES),
        // a row that was written before they were told apart
        set: if has(ATTRIBUTES) && set == SetHere::NONE { SetHere::ALL } else { set },
        place: has(PLACE),
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
