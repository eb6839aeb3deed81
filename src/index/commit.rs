//! How a group of changes becomes durable: redb's tables and the redo log in front of them.
//!
//! A durable commit of redb writes every page from the changed rows up to the roots, and the allocator's state, and
//! syncs twice. So most groups are committed to redb without a sync (`Durability::None`: readers of this
//! process see them) and made durable by one record in the log, which is one write and one sync. When the log
//! has no room, the next group is a *checkpoint*: a durable commit of redb, which takes all groups before with it.
//!
//! | crash | what opening finds |
//! |---|---|
//! | before or in the write of a record | the groups before it; the torn record fails its check |
//! | between the record and the answer | the group too, though nobody was told |
//! | in a checkpoint | redb as of the checkpoint before, and the log since: nothing of it is overwritten yet |
//! | after a checkpoint | redb as of it; what is in the log has lower numbers, and is left alone |
//!
//! Invariants
//! - Order: record in the log, synced; then redb; then memory (`writer.rs`); then the answer.
//! - `meta` says which number the tables contain, in the same transaction: a record is never applied twice nor
//!   left out, whatever redb has kept of the commits without a sync.
//! - The log is written over only after a checkpoint is durable.
//! - A checkpoint carries redb's allocator state (`set_quick_repair`), so that opening after a crash does not walk
//!   the file. redb frees the pages of commits without a sync at the checkpoint: the log's size bounds those too.

use std::io;

use redb::{Database, Durability, ReadableDatabase, StorageBackend, WriteTransaction};

use super::log::Log;
use super::logged::{self, Record};
use super::model::{Defaults, IndexError};
use super::open;
use super::tables::{self, Tables};
use crate::crash;
use crate::types::Clock;

/// Opens the files; again after an I/O error.
pub(super) struct Files {
    pub(super) database: Box<dyn Fn() -> Result<Database, IndexError> + Send>,
    /// Called when the database is open, which keeps other processes out.
    pub(super) log: Box<dyn Fn() -> io::Result<Box<dyn StorageBackend>> + Send>,
    /// Bytes of records that a new log has room for.
    pub(super) log_bytes: usize,
}

/// The index on disk: the tables, and the log of what they may not contain durably yet.
pub(super) struct Ledger {
    db: Database,
    log: Log,
    /// Number of the last group.
    sequence: u64,
}

impl Ledger {
    /// Opens the index, or makes it; everything that was ever answered is in it.
    pub(super) fn open(files: &Files, defaults: &Defaults, clock: &Clock) -> Result<Ledger, IndexError> {
        let db = (files.database)()?;
        let format = open::format(&db)?;
        let (id, sequence) = match format {
            None => (0, 0),
            Some(_) => {
                let meta = db.begin_read()?.open_table(tables::META)?;
                (tables::meta(&meta, tables::META_LOG)?, tables::meta(&meta, tables::META_LOGGED)?)
            }
        };
        let storage = (files.log)()?;
        if id == 0 {
            return Ledger::make(db, Log::make(storage, files.log_bytes)?, format, (defaults, clock));
        }
        let log = Log::open(storage)?.filter(|log| log.id() == id).ok_or_else(lost)?;
        let mut ledger = Ledger { db, log, sequence };
        ledger.replay()?;
        Ok(ledger)
    }

    /// A new index, or one from before there was a log, with its new log.
    fn make(
        db: Database,
        log: Log,
        format: Option<u64>,
        (defaults, clock): (&Defaults, &Clock),
    ) -> Result<Ledger, IndexError> {
        let mut txn = db.begin_write()?;
        txn.set_quick_repair(true);
        {
            let record = Record::new();
            let mut tables = Tables::open(&txn, &record)?;
            open::migrate(&mut tables, format, defaults, clock)?;
            tables.meta.insert(tables::META_LOG, log.id())?;
        }
        txn.commit()?;
        Ok(Ledger { db, log, sequence: 0 })
    }

    /// Brings what is only in the log into the tables. It is durable there with the next commit, a checkpoint; that is
    /// not hurried, so that an index on a full disk can be opened and read.
    fn replay(&mut self) -> Result<(), IndexError> {
        let Ledger { db, log, sequence } = self;
        let mut txn = db.begin_write()?;
        txn.set_durability(Durability::None)?;
        let record = Record::new();
        // the last one: an index from before it was thought of
        let lacks_a_table = db.begin_read()?.open_table(tables::SENT).is_err();
        let mut tables = Tables::open(&txn, &record)?;
        let before = *sequence;
        *sequence = log.replay(before, |number, mut changes| {
            *sequence += 1;
            if number != *sequence {
                return Err(lost());
            }
            while !changes.is_empty() {
                let change = logged::next_change(&mut changes);
                tables.redo(&change.ok_or_else(|| tables::corrupted("redo log", number))?)?;
            }
            Ok(())
        })?;
        tables.meta.insert(tables::META_LOGGED, *sequence)?;
        drop(tables);
        if *sequence == before && !lacks_a_table {
            txn.abort()?;
        } else {
            txn.commit()?;
        }
        Ok(())
    }

    /// The tables, for readers.
    pub(super) fn database(&self) -> &Database {
        &self.db
    }

    /// A transaction, and the record its tables note their changes in.
    pub(super) fn begin(&self) -> Result<(WriteTransaction, Record), IndexError> {
        Ok((self.db.begin_write()?, Record::new()))
    }

    /// Makes a group durable and has new readers see it.
    /// # Errors
    /// Nothing of the group is kept; the ledger is to be opened again.
    pub(super) fn commit(&mut self, txn: WriteTransaction, record: Record) -> Result<(), IndexError> {
        let sequence = self.sequence + 1;
        txn.open_table(tables::META)?.insert(tables::META_LOGGED, sequence)?;
        if self.log.has_room(&record) {
            self.commit_to_log(txn, sequence, record)?;
        } else {
            self.checkpoint(txn)?;
        }
        self.sequence = sequence;
        Ok(())
    }

    fn commit_to_log(&mut self, mut txn: WriteTransaction, sequence: u64, record: Record) -> Result<(), IndexError> {
        let len = record.len();
        txn.set_durability(Durability::None)?;
        self.log.append(sequence, record)?;
        crash::point("index.after_log_sync");
        if let Err(error) = txn.commit() {
            self.log.take_back(len);
            return Err(error.into());
        }
        Ok(())
    }

    fn checkpoint(&mut self, mut txn: WriteTransaction) -> Result<(), IndexError> {
        txn.set_quick_repair(true);
        crash::point("index.before_checkpoint");
        txn.commit()?;
        crash::point("index.after_checkpoint");
        self.log.restart();
        Ok(())
    }

    /// Ends with a checkpoint, so that the next open finds nothing to do.
    pub(super) fn close(mut self) -> Result<(), IndexError> {
        if self.log.is_empty() {
            return Ok(());
        }
        let txn = self.db.begin_write()?;
        self.checkpoint(txn)
    }
}

fn lost() -> IndexError {
    IndexError::Open(
        "index.log is missing or does not belong to index.redb, and the last changes with it: put the files of one \
         time back, both of them, or use another --cache directory"
            .into(),
    )
}
