//! The tables of the index and the encodings of their keys and small rows; `row.rs` has the inode's.
//!
//! | table | key | value |
//! |---|---|---|
//! | `inodes` | inode | its row |
//! | `children` | directory, component in ordered form | inode, cookie, whether a directory shadows it |
//! | `listing` | directory, cookie | inode, shadowed, component |
//! | `objects` | object id | inode, size, ranges here |
//! | `garbage` | id of an object or of a staging file (one space of numbers): whichever file there is goes | |
//! | `orphans` | inode of a directory that is cut off; what is below it is still to be removed | |
//! | `pending` | inode | what of it S3 does not have |
//! | `away` | key | version, size, inode of an object that must leave this key |
//! | `moved` | prefix | inode of the directory whose entries S3 still has there |
//! | `expanding` | directory in `moved` | the last component, in ordered form, that has a row of its own |
//! | `staging` | staging file's id | inode, bytes of the version below that count, ranges written |
//! | `uploads` | inode | the multipart upload under way, as `writeback` keeps it |
//! | `conflicts` | number | what became of two writers' changes, as JSON |
//! | `sent` | key | what was sent there and is not settled, as `writeback` keeps it |
//! | `lock_hosts` | a client that holds locks: its address, ours, its name | |
//! | `meta` | name | number: format, sequence, counts, redo log, state of the status monitor |
//!
//! Invariant: `children` and `listing` hold the same entries, and both change in one transaction.

use std::sync::Arc;

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use smallvec::SmallVec;

use super::logged::{Logged, Record, Redo};
use super::model::{IndexError, ObjectRow, Presence};
use crate::types::{Component, Ino};

/// Declares the tables: number in the redo log, name in the file, definition, types of key and value. A number
/// is never given to another table.
macro_rules! tables {
    ($($id:literal $name:ident $definition:ident: $key:ty => $value:ty;)*) => {
        $(pub(super) const $definition: TableDefinition<$key, $value> = TableDefinition::new(stringify!($name));)*

        /// All tables of one write transaction.
        pub(super) struct Tables<'t> {
            $(pub(super) $name: Logged<'t, $key, $value>,)*
        }

        impl<'t> Tables<'t> {
            /// Opens them, making those that do not exist. What is changed in them is noted in `record`.
            pub(super) fn open(txn: &'t WriteTransaction, record: &'t Record) -> Result<Tables<'t>, IndexError> {
                Ok(Tables { $($name: Logged::new(txn.open_table($definition)?, $id, record),)* })
            }

            /// Makes a change again that a record tells of.
            pub(super) fn redo(&mut self, change: &Redo<'_>) -> Result<(), IndexError> {
                let redone = match change.table {
                    $($id => self.$name.redo(change)?,)*
                    _ => None,
                };
                redone.ok_or_else(|| corrupted("redo log", change.table))
            }
        }
    };
}

tables! {
    1 inodes INODES: u64 => &'static [u8];
    2 children CHILDREN: &'static [u8] => &'static [u8; 17];
    3 listing LISTING: &'static [u8; 16] => &'static [u8];
    4 objects OBJECTS: u64 => &'static [u8];
    5 garbage GARBAGE: u64 => ();
    6 orphans ORPHANS: u64 => ();
    7 meta META: &'static str => u64;
    8 pending PENDING: u64 => &'static [u8];
    9 away AWAY: &'static str => &'static [u8];
    10 moved MOVED: &'static str => u64;
    11 staging STAGING: u64 => &'static [u8];
    12 uploads UPLOADS: u64 => &'static [u8];
    13 conflicts CONFLICTS: u64 => &'static [u8];
    14 expanding EXPANDING: u64 => &'static [u8];
    15 sent SENT: &'static str => &'static [u8];
    16 lock_hosts LOCK_HOSTS: &'static [u8] => ();
}

/// Version of the file format. 1 had no journal and no redo log; 3 and above are of programs to come.
pub(super) const FORMAT: u64 = 2;
/// Rows of `meta`.
pub(super) const META_FORMAT: &str = "format";
pub(super) const META_SEQUENCE: &str = "sequence";
pub(super) const META_FILES: &str = "files";
pub(super) const META_DIRS: &str = "dirs";
pub(super) const META_BYTES: &str = "bytes";
pub(super) const META_MONITOR: &str = "monitor";
/// Which redo log belongs to this file, and the last of its records that these tables contain. Kept by `commit.rs`.
pub(super) const META_LOG: &str = "log";
pub(super) const META_LOGGED: &str = "logged";

/// Key of `children`.
pub(super) type ChildKey = SmallVec<[u8; 64]>;

/// The key of an entry in `children`; an empty component sorts before all entries of the directory.
pub(super) fn child_key(dir: Ino, component: &[u8]) -> ChildKey {
    let mut key = ChildKey::with_capacity(8 + component.len());
    key.extend_from_slice(&dir.0.to_be_bytes());
    key.extend_from_slice(component);
    key
}

/// The first key above all entries of `dir` in `children`.
pub(super) fn children_end(dir: Ino) -> ChildKey {
    child_key(Ino(dir.0 + 1), &[])
}

/// The key of an entry in `listing`.
pub(super) fn listing_key(dir: Ino, cookie: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&dir.0.to_be_bytes());
    key[8..].copy_from_slice(&cookie.to_be_bytes());
    key
}

/// Value of `children`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) ino: Ino,
    pub(super) cookie: u64,
    /// A directory of the same text stands beside this file.
    pub(super) shadowed: bool,
}

impl Child {
    pub(super) fn encode(&self) -> [u8; 17] {
        let mut row = [0; 17];
        row[..8].copy_from_slice(&self.ino.0.to_be_bytes());
        row[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        row[16] = u8::from(self.shadowed);
        row
    }

    pub(super) fn decode(row: &[u8; 17]) -> Child {
        let (ino, cookie) = (be_u64(&row[..8]), be_u64(&row[8..16]));
        Child { ino: Ino(ino), cookie, shadowed: row[16] != 0 }
    }
}

/// Value of `listing`.
pub(super) fn listing_row(child: &Child, component: &Component) -> SmallVec<[u8; 64]> {
    let mut row = SmallVec::with_capacity(9 + component.as_bytes().len());
    row.extend_from_slice(&child.ino.0.to_be_bytes());
    row.push(u8::from(child.shadowed));
    row.extend_from_slice(component.as_bytes());
    row
}

/// Inode, shadowed flag and component of a row of `listing`.
pub(super) fn parse_listing_row(row: &[u8]) -> Result<(Ino, bool, Component), IndexError> {
    let parsed = row
        .split_at_checked(9)
        .and_then(|(head, component)| Some((Ino(be_u64(&head[..8])), head[8] != 0, Component::from_bytes(component)?)));
    parsed.ok_or_else(|| corrupted("listing", row.len()))
}

/// Value of `objects`: inode, size, then begin and end of each range, or nothing when complete.
pub(super) fn object_row(row: &ObjectRow) -> Vec<u8> {
    let mut out = Vec::with_capacity(17);
    out.extend_from_slice(&row.ino.0.to_be_bytes());
    out.extend_from_slice(&row.size.to_be_bytes());
    out.push(u8::from(row.presence == Presence::Complete));
    if let Presence::Partial(ranges) = &row.presence {
        for range in ranges {
            out.extend_from_slice(&range.start.to_be_bytes());
            out.extend_from_slice(&range.end.to_be_bytes());
        }
    }
    out
}

pub(super) fn parse_object_row(row: &[u8]) -> Result<ObjectRow, IndexError> {
    let (head, ranges) = row.split_at_checked(17).ok_or_else(|| corrupted("object", row.len()))?;
    let presence = match head[16] {
        0 => Presence::Partial(ranges.chunks_exact(16).map(|r| be_u64(&r[..8])..be_u64(&r[8..])).collect()),
        _ => Presence::Complete,
    };
    Ok(ObjectRow { ino: Ino(be_u64(&head[..8])), size: be_u64(&head[8..16]), presence })
}

/// A number of `meta`, zero when it has none.
pub(super) fn meta(table: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, IndexError> {
    Ok(table.get(name)?.map_or(0, |value| value.value()))
}

/// The number in the first eight bytes of `bytes`, which has that many.
pub(super) fn be_u64(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// What a row that cannot be read is reported as.
pub(super) fn corrupted(table: &str, id: impl std::fmt::Display) -> IndexError {
    redb::StorageError::Corrupted(format!("{table} row {id} cannot be read")).into()
}

macro_rules! from_redb {
    ($($error:ident)*) => {$(
        impl From<redb::$error> for IndexError {
            fn from(error: redb::$error) -> IndexError {
                IndexError::Storage(Arc::new(error.into()))
            }
        }
    )*};
}
from_redb!(StorageError TableError TransactionError CommitError DatabaseError SetDurabilityError);

impl From<std::io::Error> for IndexError {
    fn from(error: std::io::Error) -> IndexError {
        redb::StorageError::Io(error).into()
    }
}
