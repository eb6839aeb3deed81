//! Tables that note every change for the redo log: one way in for rows, so none can be forgotten.
//!
//! A record is a row of changes, each: table (1 byte), length of the key (4), the key, then length of the value plus one
//! (4) and the value, or zero for a removal. Keys and values are redb's own bytes. Doing a record again
//! gives the same rows, whatever part of it was there before.

use std::borrow::Borrow;
use std::cell::RefCell;
use std::ops::Deref;

use redb::{AccessGuard, Key, StorageError, Table, Value};

use super::log::FRAME;

/// What a transaction has changed so far, in order. Leaves room in front for the log's frame.
#[derive(Debug)]
pub(super) struct Record(RefCell<Vec<u8>>);

impl Record {
    pub(super) fn new() -> Record {
        Record(RefCell::new(vec![0; FRAME]))
    }

    /// Bytes of the changes.
    pub(super) fn len(&self) -> usize {
        self.0.borrow().len() - FRAME
    }

    /// The changes behind an empty frame.
    pub(super) fn into_framed(self) -> Vec<u8> {
        self.0.into_inner()
    }

    /// Notes that `key` of a table got `value`, or was removed.
    pub(super) fn note(&self, table: u8, key: &[u8], value: Option<&[u8]>) {
        let mut bytes = self.0.borrow_mut();
        bytes.push(table);
        bytes.extend_from_slice(&(key.len() as u32).to_be_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(&value.map_or(0, |value| value.len() as u32 + 1).to_be_bytes());
        bytes.extend_from_slice(value.unwrap_or_default());
    }
}

/// One change of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Redo<'a> {
    pub(super) table: u8,
    pub(super) key: &'a [u8],
    /// `None`: the row was removed.
    pub(super) value: Option<&'a [u8]>,
}

/// Takes the first change off `changes`; `None` when it cannot be read.
pub(super) fn next_change<'a>(changes: &mut &'a [u8]) -> Option<Redo<'a>> {
    let table = *changes.split_off_first()?;
    let len = length(changes)?;
    let key = changes.split_off(..len)?;
    let value = match length(changes)? {
        0 => None,
        len => Some(changes.split_off(..len - 1)?),
    };
    Some(Redo { table, key, value })
}

fn length(changes: &mut &[u8]) -> Option<usize> {
    let bytes = changes.split_off(..4)?;
    usize::try_from(u32::from_be_bytes(bytes.try_into().ok()?)).ok()
}

/// A table whose changes are noted in a record. Reads are the table's own.
pub(super) struct Logged<'t, K: Key + 'static, V: Value + 'static> {
    table: Table<'t, K, V>,
    id: u8,
    record: &'t Record,
}

impl<'t, K: Key + 'static, V: Value + 'static> Logged<'t, K, V> {
    pub(super) fn new(table: Table<'t, K, V>, id: u8, record: &'t Record) -> Logged<'t, K, V> {
        Logged { table, id, record }
    }

    /// See [`Table::insert`].
    pub(super) fn insert<'k, 'v>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
        value: impl Borrow<V::SelfType<'v>>,
    ) -> Result<Option<AccessGuard<'_, V>>, StorageError> {
        let (key_bytes, value_bytes) = (K::as_bytes(key.borrow()), V::as_bytes(value.borrow()));
        self.record.note(self.id, key_bytes.as_ref(), Some(value_bytes.as_ref()));
        drop((key_bytes, value_bytes));
        self.table.insert(key, value)
    }

    /// See [`Table::remove`].
    pub(super) fn remove<'k>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<AccessGuard<'_, V>>, StorageError> {
        self.record.note(self.id, K::as_bytes(key.borrow()).as_ref(), None);
        self.table.remove(key)
    }

    /// Makes a change again. `None`: it is none of this table's.
    pub(super) fn redo(&mut self, change: &Redo<'_>) -> Result<Option<()>, StorageError> {
        let fits = |width: Option<usize>, bytes: &[u8]| width.is_none_or(|width| width == bytes.len());
        if !fits(K::fixed_width(), change.key) || !change.value.is_none_or(|value| fits(V::fixed_width(), value)) {
            return Ok(None);
        }
        let key = K::from_bytes(change.key);
        match change.value {
            Some(value) => drop(self.table.insert(key, V::from_bytes(value))?),
            None => drop(self.table.remove(key)?),
        }
        Ok(Some(()))
    }
}

impl<'t, K: Key + 'static, V: Value + 'static> Deref for Logged<'t, K, V> {
    type Target = Table<'t, K, V>;

    fn deref(&self) -> &Table<'t, K, V> {
        &self.table
    }
}
