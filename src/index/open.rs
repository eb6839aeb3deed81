//! Opening the index: making a new one, refusing what cannot be read, and starting the writer.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, TableError};
use tokio::sync::Notify;

use super::allocate::Sequence;
use super::cache::Cache;
use super::row::{self, Row};
use super::snapshot::Snapshot;
use super::tables::{self, Tables};
use super::writer::{OpenDatabase, Shared, Writer};
use super::{Defaults, Index, IndexError, IndexOptions};
use crate::types::{Clock, Ino};

/// How to open the file at `path`.
pub(super) fn database(path: &Path, page_cache_bytes: usize) -> OpenDatabase {
    let path = path.to_path_buf();
    Box::new(move || {
        let opened = Builder::new().set_cache_size(page_cache_bytes).create(&path);
        opened.map_err(|error| refused(&path.display().to_string(), error))
    })
}

fn refused(path: &str, error: DatabaseError) -> IndexError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => IndexError::InUse,
        DatabaseError::Storage(redb::StorageError::Io(io)) if io.kind() != std::io::ErrorKind::InvalidData => {
            DatabaseError::Storage(redb::StorageError::Io(io)).into()
        }
        error => IndexError::Open(format!(
            "{path} is damaged or no index ({error}): move it and the objects directory away; \
             what was in S3 is fetched again"
        )),
    }
}

/// Opens what `database` opens.
pub(super) fn open(
    database: OpenDatabase,
    options: IndexOptions,
    defaults: Defaults,
    clock: Clock,
) -> Result<Index, IndexError> {
    let db = database()?;
    match format(&db)? {
        None => make(&db, &defaults, &clock)?,
        Some(tables::FORMAT) => {}
        Some(1) => migrate(&db)?,
        Some(newer) => {
            let known = tables::FORMAT;
            return Err(IndexError::Open(format!(
                "the index is of format {newer}, this fasts3 knows up to {known}: \
                 use the newer fasts3 that wrote it, or another --cache directory"
            )));
        }
    }
    let snapshot = Snapshot::take(&db, defaults)?;
    let has_orphans = snapshot.has_orphans;
    let has_garbage = !snapshot.garbage(1)?.is_empty();
    let sequence = Sequence::after(snapshot.sequence);
    let cache = Cache::new(&options, snapshot);
    let shared = Arc::new(Shared {
        cache,
        sequence,
        garbage_added: Notify::new(),
        work: Mutex::default(),
        work_added: Notify::new(),
        defaults,
        clock,
    });
    if has_garbage {
        shared.garbage_added.notify_one();
    }
    let writer = Writer::start(db, database, Arc::clone(&shared), has_orphans);
    Ok(Index { shared, writer })
}

/// The file's format; `None` for a new file.
fn format(db: &Database) -> Result<Option<u64>, IndexError> {
    match db.begin_read()?.open_table(tables::META) {
        Ok(meta) => Ok(Some(tables::meta(&meta, tables::META_FORMAT)?)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Brings an index of format 1, which had no journal, to this one.
fn migrate(db: &Database) -> Result<(), IndexError> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    Tables::open(&txn)?.meta.insert(tables::META_FORMAT, tables::FORMAT)?;
    Ok(txn.commit()?)
}

/// Makes the tables and the root of a new index.
fn make(db: &Database, defaults: &Defaults, clock: &Clock) -> Result<(), IndexError> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    {
        let mut tables = Tables::open(&txn)?;
        let root = Row::directory(Ino::ROOT, Ino::ROOT, row::root_component(), defaults, clock.wall());
        tables.inodes.insert(Ino::ROOT.0, root.encode().as_slice())?;
        tables.meta.insert(tables::META_FORMAT, tables::FORMAT)?;
    }
    Ok(txn.commit()?)
}
