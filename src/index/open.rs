//! Opening the index: making a new one, migrating an old one, refusing what cannot be read, and starting the writer.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, TableError};
use tokio::sync::Notify;

use super::allocate::Sequence;
use super::cache::Cache;
use super::commit::{Files, Ledger};
use super::log;
use super::row::{self, Row};
use super::snapshot::Snapshot;
use super::tables::{self, Tables};
use super::writer::{Shared, Writer};
use super::{Defaults, Index, IndexError, IndexOptions};
use crate::types::{Clock, Ino};

/// How to open the file at `path`, and its log.
pub(super) fn files(path: &Path, page_cache_bytes: usize) -> Files {
    let (index, log) = (path.to_path_buf(), path.with_extension("log"));
    let database = move || {
        let opened = Builder::new().set_cache_size(page_cache_bytes).create(&index);
        opened.map_err(|error| refused(&index.display().to_string(), error))
    };
    Files { database: Box::new(database), log: Box::new(move || log::file(&log)), log_bytes: log::CAPACITY }
}

fn refused(path: &str, error: DatabaseError) -> IndexError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => IndexError::InUse,
        DatabaseError::Storage(redb::StorageError::Io(io)) if io.kind() != std::io::ErrorKind::InvalidData => {
            DatabaseError::Storage(redb::StorageError::Io(io)).into()
        }
        error => IndexError::Open(format!(
            "{path} is damaged or no index ({error}): move it, its log and the objects directory away; \
             what was in S3 is fetched again"
        )),
    }
}

/// Opens what is in `files`.
pub(super) fn open(files: Files, options: IndexOptions, defaults: Defaults, clock: Clock) -> Result<Index, IndexError> {
    let ledger = Ledger::open(&files, &defaults, &clock)?;
    let snapshot = Snapshot::take(ledger.database(), defaults)?;
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
    let writer = Writer::start(ledger, files, Arc::clone(&shared), has_orphans);
    Ok(Index { shared, writer })
}

/// The file's format; `None` for a new file. A newer one than ours is refused.
pub(super) fn format(db: &Database) -> Result<Option<u64>, IndexError> {
    let format = match db.begin_read()?.open_table(tables::META) {
        Ok(meta) => tables::meta(&meta, tables::META_FORMAT)?,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if format <= tables::FORMAT {
        return Ok(Some(format));
    }
    let known = tables::FORMAT;
    Err(IndexError::Open(format!(
        "the index is of format {format}, this fasts3 knows up to {known}: \
         use the newer fasts3 that wrote it, or another --cache directory"
    )))
}

/// Brings the tables of format `from` (`None`: of an empty file) to ours.
pub(super) fn migrate(
    tables: &mut Tables<'_>,
    from: Option<u64>,
    defaults: &Defaults,
    clock: &Clock,
) -> Result<(), IndexError> {
    if from.is_none() {
        let root = Row::directory(Ino::ROOT, Ino::ROOT, row::root_component(), defaults, clock.wall());
        tables.inodes.insert(Ino::ROOT.0, root.encode().as_slice())?;
    }
    // 1 to 2: the journal's tables, which are made when they are opened, and what `commit.rs` notes of the log
    tables.meta.insert(tables::META_FORMAT, tables::FORMAT)?;
    Ok(())
}
