//! One write transaction under way: rows read and changed so far, entries linked and unlinked, objects
//! given up. `reconcile.rs` and `sweep.rs` decide; this keeps the tables consistent with each other.
//!
//! Invariants
//! - An entry in `children` has its row in `listing` and its inode; `shadowed` is set on exactly the files
//!   that have a directory of the same text beside them.
//! - An object that no inode has any more is in `garbage` by the same transaction.
//! - A directory's times grow with every entry that comes or goes.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use redb::{ReadableTable, ReadableTableMetadata};

use super::allocate::Sequence;
use super::cache::{Cache, Changed, Settled};
use super::graves::Graves;
use super::model::{Counts, Defaults, Freshness, IndexError, Inode, Kind, ObjectRow, Work};
use super::row::Row;
use super::tables::{self, Child, Tables};
use crate::types::name::ComponentKind;
use crate::types::{Component, Ino, Name, ObjectId, Tick, Time};

/// A write transaction, and what it will change in memory once it is committed.
pub(super) struct Change<'t> {
    pub(super) tables: Tables<'t>,
    cache: &'t Cache,
    sequence: &'t Sequence,
    pub(super) graves: &'t mut Graves,
    defaults: Defaults,
    /// Wall time of the transaction.
    pub(super) now: Time,
    rows: HashMap<Ino, Slot>,
    pub(super) names: Vec<(Ino, Name)>,
    settled: Vec<Settled>,
    touched: HashMap<Ino, Time>,
    counts: Counts,
    pub(super) dirty: bool,
    garbage_added: bool,
    pub(super) work: Vec<Work>,
}

/// An inode read or changed in this transaction.
struct Slot {
    row: Option<Row>,
    freshness: Option<Arc<Freshness>>,
}

/// What is left to do when the tables are written.
pub(super) struct Finished {
    /// Whether there is anything to commit.
    pub(super) dirty: bool,
    pub(super) changed: Changed,
    pub(super) garbage_added: bool,
    /// What has come to the journal.
    pub(super) work: Vec<Work>,
    /// To be told to the sequence after the commit.
    pub(super) reservation: Option<u64>,
}

impl<'t> Change<'t> {
    pub(super) fn new(
        tables: Tables<'t>,
        cache: &'t Cache,
        sequence: &'t Sequence,
        graves: &'t mut Graves,
        (defaults, now): (Defaults, Time),
    ) -> Result<Change<'t>, IndexError> {
        let counts = cache.snapshot()?.counts;
        let (rows, names, settled, touched) = (HashMap::new(), Vec::new(), Vec::new(), HashMap::new());
        let (dirty, garbage_added) = (false, false);
        Ok(Change {
            tables,
            cache,
            sequence,
            graves,
            defaults,
            now,
            rows,
            names,
            settled,
            touched,
            counts,
            dirty,
            garbage_added,
            work: Vec::new(),
        })
    }

    /// A fresh number from the durable sequence.
    pub(super) fn number(&self) -> u64 {
        self.sequence.take_for_writer()
    }

    /// The defaults of attributes.
    pub(super) fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// The row of `ino` as this transaction sees it.
    pub(super) fn row(&mut self, ino: Ino) -> Result<Option<Row>, IndexError> {
        if let Some(slot) = self.rows.get(&ino) {
            return Ok(slot.row.clone());
        }
        let Some(bytes) = self.tables.inodes.get(ino.0)? else { return Ok(None) };
        let row = Row::decode(ino, bytes.value(), &self.defaults);
        row.map(Some).ok_or_else(|| tables::corrupted("inode", ino))
    }

    /// When S3 was last asked about `ino`, if that is in memory.
    pub(super) fn freshness(&self, ino: Ino) -> Option<Arc<Freshness>> {
        let changed = self.rows.get(&ino).and_then(|slot| slot.freshness.clone());
        changed.or_else(|| self.cache.peek(ino).map(|node| Arc::clone(&node.freshness)))
    }

    /// The same, brought into memory.
    pub(super) fn load_freshness(&self, ino: Ino) -> Result<Option<Arc<Freshness>>, IndexError> {
        if let Some(freshness) = self.freshness(ino) {
            return Ok(Some(freshness));
        }
        Ok(self.cache.node(ino)?.map(|node| Arc::clone(&node.freshness)))
    }

    /// What a check has found is what this transaction leaves: so it settles the freshness when that can be read, not before.
    pub(super) fn settle(&mut self, freshness: Arc<Freshness>, sent: Tick, answered: Tick) {
        // whoever comes after in this transaction is late all the same
        freshness.observe(answered);
        self.settled.push(Settled { freshness, sent, answered });
    }

    /// Stores `after` in the place of `before`, the row as it was read; nothing when they are equal.
    pub(super) fn replace(&mut self, before: &Row, after: Row) {
        if *before == after {
            return;
        }
        self.counts.bytes =
            self.counts.bytes.saturating_sub(counted_bytes(&before.inode)) + counted_bytes(&after.inode);
        self.store(after.inode.ino, Some(after), None);
    }

    fn store(&mut self, ino: Ino, row: Option<Row>, freshness: Option<Arc<Freshness>>) {
        self.dirty = true;
        let freshness = freshness.or_else(|| self.freshness(ino));
        self.rows.insert(ino, Slot { row, freshness });
    }

    /// The entry of `dir` that adds `component` to its prefix.
    pub(super) fn child(&self, dir: Ino, component: &Component) -> Result<Option<Child>, IndexError> {
        self.child_of_bytes(dir, component.as_bytes())
    }

    fn child_of_bytes(&self, dir: Ino, component: &[u8]) -> Result<Option<Child>, IndexError> {
        let key = tables::child_key(dir, component);
        Ok(self.tables.children.get(key.as_slice())?.map(|row| Child::decode(row.value())))
    }

    /// Up to `max` entries of `dir` after the component `after`, in the order of keys.
    pub(super) fn children(&self, dir: Ino, after: &[u8], max: usize) -> Result<Vec<(Component, Child)>, IndexError> {
        let (first, end) = (tables::child_key(dir, after), tables::children_end(dir));
        let range = (Bound::Excluded(first.as_slice()), Bound::Excluded(end.as_slice()));
        let mut entries = Vec::new();
        for entry in self.tables.children.range::<&[u8]>(range)?.take(max) {
            let (key, row) = entry?;
            let component = key.value().get(8..).and_then(Component::from_bytes);
            entries.push((component.ok_or_else(|| tables::corrupted("children", dir))?, Child::decode(row.value())));
        }
        Ok(entries)
    }

    /// A new inode under `component` of `dir`, as S3 was seen to have it; the caller has seen that there is none.
    pub(super) fn create(
        &mut self,
        dir: Ino,
        component: &Component,
        freshness: Freshness,
        make: impl FnOnce(Ino) -> Row,
    ) -> Result<Ino, IndexError> {
        let row = self.new_inode(make);
        self.expand_again(dir)?;
        self.touch(dir, row.inode.mtime);
        self.enter(dir, component, row, freshness)
    }

    /// The row of an inode to be, with a number of its own.
    pub(super) fn new_inode(&self, make: impl FnOnce(Ino) -> Row) -> Row {
        make(Ino(self.number()))
    }

    /// Enters a new inode under `component` of `dir`, where nothing is. The directory's times are the caller's.
    pub(super) fn enter(
        &mut self,
        dir: Ino,
        component: &Component,
        row: Row,
        freshness: Freshness,
    ) -> Result<Ino, IndexError> {
        let ino = row.inode.ino;
        debug_assert!(row.inode.parent == dir && row.inode.component == *component, "the row is of this entry");
        self.link(dir, component, ino, ino.0)?;
        self.count(&row.inode, true);
        self.store(ino, Some(row), Some(Arc::new(freshness)));
        Ok(ino)
    }

    /// Makes the entry `component` of `dir`, where nothing is.
    pub(super) fn link(&mut self, dir: Ino, component: &Component, ino: Ino, cookie: u64) -> Result<(), IndexError> {
        let shadowed = match component.kind() {
            ComponentKind::File => self.is_shadowed(dir, component)?,
            ComponentKind::Dir => self.set_shadowed(dir, component, true)?,
            ComponentKind::Chunk => false,
        };
        self.write_entry(dir, component, &Child { ino, cookie, shadowed })?;
        self.names.push((dir, component.name(shadowed)));
        Ok(())
    }

    /// Whether a directory stands where the file `component` is or will be.
    pub(super) fn is_shadowed(&self, dir: Ino, component: &Component) -> Result<bool, IndexError> {
        Ok(self.child_of_bytes(dir, &dir_bytes(component))?.is_some())
    }

    /// Takes the entry `component` away from `dir`; what it names stays.
    pub(super) fn unlink(&mut self, dir: Ino, component: &Component, child: Child) -> Result<(), IndexError> {
        self.leave_in_doubt(dir, component)?;
        self.tables.children.remove(tables::child_key(dir, component.as_bytes()).as_slice())?;
        self.tables.listing.remove(&tables::listing_key(dir, child.cookie))?;
        if component.kind() == ComponentKind::Dir {
            self.set_shadowed(dir, component, false)?;
        }
        self.names.push((dir, component.name(child.shadowed)));
        Ok(())
    }

    /// Removes the entry and its inode; what is below a directory is left to `remove_orphans`. `answered`
    /// is when S3's word for it arrived: an observation sent before is no reason to bring it back.
    pub(super) fn remove(
        &mut self,
        dir: Ino,
        component: &Component,
        child: Child,
        answered: Tick,
    ) -> Result<(), IndexError> {
        self.unlink(dir, component, child)?;
        self.touch(dir, self.now);
        self.bury(dir, component, answered);
        self.remove_inode(child.ino)
    }

    /// Removes an inode that has no entry any more, its bytes, and what the journal has of it.
    pub(super) fn remove_inode(&mut self, ino: Ino) -> Result<(), IndexError> {
        let Some(row) = self.row(ino)? else { return Ok(()) };
        self.forget(&row.inode)?;
        if row.inode.kind == Kind::Dir {
            self.tables.orphans.insert(ino.0, ())?;
        }
        if let Some(local) = row.inode.local {
            self.discard(local.object)?;
        }
        self.count(&row.inode, false);
        self.store(ino, None, None);
        Ok(())
    }

    /// Whether `ino` is below a directory that was cut off, and so still to be removed.
    pub(super) fn is_cut_off(&mut self, ino: Ino) -> Result<bool, IndexError> {
        if self.tables.orphans.is_empty()? {
            return Ok(false);
        }
        let mut at = ino;
        while at != Ino::ROOT {
            let Some(row) = self.row(at)? else { return Ok(true) };
            at = row.inode.parent;
        }
        Ok(false)
    }

    /// Removes up to about `max` inodes below directories that were cut off.
    pub(super) fn remove_orphans(&mut self, max: usize) -> Result<(), IndexError> {
        let mut left = max;
        while left > 0 {
            let Some(dir) = self.tables.orphans.first()?.map(|(ino, _)| Ino(ino.value())) else { return Ok(()) };
            self.dirty = true;
            let entries = self.children(dir, &[], left)?;
            if entries.is_empty() {
                self.tables.orphans.remove(dir.0)?;
            }
            left = left.saturating_sub(entries.len().max(1));
            for (component, child) in entries {
                self.tables.children.remove(tables::child_key(dir, component.as_bytes()).as_slice())?;
                self.tables.listing.remove(&tables::listing_key(dir, child.cookie))?;
                self.names.push((dir, component.name(child.shadowed)));
                self.remove_inode(child.ino)?;
            }
        }
        Ok(())
    }

    /// What is known of an object.
    pub(super) fn object(&self, object: ObjectId) -> Result<Option<ObjectRow>, IndexError> {
        self.tables.objects.get(object.0)?.map(|row| tables::parse_object_row(row.value())).transpose()
    }

    /// Stores what is known of an object.
    pub(super) fn put_object(&mut self, object: ObjectId, row: &ObjectRow) -> Result<(), IndexError> {
        self.dirty = true;
        self.tables.objects.insert(object.0, tables::object_row(row).as_slice())?;
        Ok(())
    }

    /// Gives an object up: its file can be unlinked.
    pub(super) fn discard(&mut self, object: ObjectId) -> Result<(), IndexError> {
        self.dirty = true;
        self.garbage_added = true;
        self.tables.objects.remove(object.0)?;
        self.tables.garbage.insert(object.0, ())?;
        Ok(())
    }

    /// Whether the file of `object` is to be unlinked.
    pub(super) fn is_garbage(&self, object: ObjectId) -> Result<bool, IndexError> {
        Ok(self.tables.garbage.get(object.0)?.is_some())
    }

    /// Forgets garbage whose file is unlinked.
    pub(super) fn collected(&mut self, object: ObjectId) -> Result<(), IndexError> {
        self.dirty |= self.tables.garbage.remove(object.0)?.is_some();
        Ok(())
    }

    /// Makes the transaction commit, so that the sequence's reservation is stored.
    pub(super) fn reserve(&mut self) -> Result<(), IndexError> {
        self.dirty = true;
        Ok(())
    }

    /// Writes the rows and numbers that were kept in memory so far.
    pub(super) fn finish(mut self) -> Result<Finished, IndexError> {
        for (dir, at) in std::mem::take(&mut self.touched) {
            let Some(before) = self.row(dir)? else { continue };
            let mut after = before.clone();
            after.inode.advance_times(at);
            self.replace(&before, after);
        }
        let mut rows: Vec<_> = self.rows.into_iter().collect();
        // in order, so that a page of new inodes is appended and not scattered
        rows.sort_unstable_by_key(|(ino, _)| *ino);
        for (ino, slot) in &rows {
            match &slot.row {
                Some(row) => drop(self.tables.inodes.insert(ino.0, row.encode().as_slice())?),
                None => drop(self.tables.inodes.remove(ino.0)?),
            }
        }
        let reservation = if self.dirty { self.sequence.reservation() } else { None };
        let counts = [
            (tables::META_FILES, Some(self.counts.files)),
            (tables::META_DIRS, Some(self.counts.dirs)),
            (tables::META_BYTES, Some(self.counts.bytes)),
            (tables::META_SEQUENCE, reservation),
        ];
        for (name, number) in counts.into_iter().filter(|_| self.dirty) {
            if let Some(number) = number {
                self.tables.meta.insert(name, number)?;
            }
        }
        let inodes = rows.into_iter().map(|(ino, slot)| (ino, slot.row, slot.freshness)).collect();
        let changed = Changed { names: self.names, inodes, settled: self.settled };
        Ok(Finished { dirty: self.dirty, changed, garbage_added: self.garbage_added, work: self.work, reservation })
    }

    /// Tells the file beside the directory `component` whether it is shadowed. Always false: a directory never is.
    fn set_shadowed(&mut self, dir: Ino, component: &Component, shadowed: bool) -> Result<bool, IndexError> {
        let Some(file) = Component::from_bytes(component.text().as_bytes()) else { return Ok(false) };
        let Some(mut child) = self.child(dir, &file)? else { return Ok(false) };
        child.shadowed = shadowed;
        self.write_entry(dir, &file, &child)?;
        self.names.extend([(dir, file.name(false)), (dir, file.name(true))]);
        Ok(false)
    }

    /// Writes the row of an entry, and the one that lists it.
    pub(super) fn write_entry(&mut self, dir: Ino, component: &Component, child: &Child) -> Result<(), IndexError> {
        let key = tables::child_key(dir, component.as_bytes());
        self.tables.children.insert(key.as_slice(), &child.encode())?;
        let row = tables::listing_row(child, component);
        self.tables.listing.insert(&tables::listing_key(dir, child.cookie), row.as_slice())?;
        Ok(())
    }

    /// Whether `row` lists an entry of `dir` under `cookie`.
    pub(super) fn is_listed(&self, dir: Ino, cookie: u64, row: &[u8]) -> Result<bool, IndexError> {
        Ok(self.tables.listing.get(&tables::listing_key(dir, cookie))?.is_some_and(|listed| listed.value() == row))
    }

    /// For a repair: takes away an entry of which nothing can be read but its cookie.
    pub(super) fn forget_entry(&mut self, key: &[u8]) -> Result<(), IndexError> {
        self.dirty = true;
        self.tables.children.remove(key)?;
        Ok(())
    }

    /// For a repair: takes away an inode and nothing that belongs to it.
    pub(super) fn forget_row(&mut self, ino: Ino) {
        self.store(ino, None, None);
    }

    /// For a repair: stores an inode, and counts nothing.
    pub(super) fn put_row(&mut self, row: Row) {
        self.store(row.inode.ino, Some(row), None);
    }

    /// For a repair: the totals.
    pub(super) fn set_counts(&mut self, counts: Counts) {
        self.dirty |= self.counts != counts;
        self.counts = counts;
    }

    /// All inodes, those that this transaction makes among them, and without those that it removes.
    pub(super) fn known_inodes(&self) -> Result<Vec<Ino>, IndexError> {
        let mut all = Vec::new();
        for entry in self.tables.inodes.iter()? {
            all.push(Ino(entry?.0.value()));
        }
        all.retain(|ino| !self.rows.contains_key(ino));
        all.extend(self.rows.iter().filter(|(_, slot)| slot.row.is_some()).map(|(ino, _)| *ino));
        all.sort_unstable();
        Ok(all)
    }

    /// Entries of `dir` came or went at `at`; its times follow when the transaction is finished.
    fn touch(&mut self, dir: Ino, at: Time) {
        let latest = self.touched.entry(dir).or_insert(at);
        *latest = at.max(*latest);
    }

    fn count(&mut self, inode: &Inode, more: bool) {
        let is_dir = inode.kind == Kind::Dir;
        let number = if is_dir { &mut self.counts.dirs } else { &mut self.counts.files };
        *number = if more { *number + 1 } else { number.saturating_sub(1) };
        let bytes = counted_bytes(inode);
        self.counts.bytes =
            if more { self.counts.bytes.saturating_add(bytes) } else { self.counts.bytes.saturating_sub(bytes) };
    }
}

impl Inode {
    /// Moves the times on to `at`, and in any case on: clients compare them for equality.
    pub(super) fn advance_times(&mut self, at: Time) {
        self.mtime = at.max(Time(self.mtime.0.saturating_add(1)));
        self.advance_ctime(at);
    }

    /// The same for `ctime` alone.
    pub(super) fn advance_ctime(&mut self, at: Time) {
        self.ctime = at.max(Time(self.ctime.0.saturating_add(1)));
    }
}

fn counted_bytes(inode: &Inode) -> u64 {
    if inode.kind == Kind::Dir { 0 } else { inode.size }
}

/// The ordered form of the directory with the text of this file.
fn dir_bytes(component: &Component) -> Vec<u8> {
    [component.as_bytes(), b"/"].concat()
}
