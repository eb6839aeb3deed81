//! Staging files, objects and garbage: each has one owner, which has a row of it.

use std::collections::HashMap;
use std::ops::Range;

use redb::ReadableTable;

use super::Repair;
use crate::index::journal::decode_staged;
use crate::index::model::{IndexError, Inode, Local, ObjectRow, Presence, StagedRow};
use crate::types::{Ino, ObjectId};

/// Who says to have a file.
type Owners = HashMap<ObjectId, Ino>;

impl Repair<'_, '_> {
    pub(super) fn bytes(&mut self) -> Result<(), IndexError> {
        self.garbage()?;
        let (mut staged, mut objects) = (Owners::new(), Owners::new());
        for ino in self.inodes()? {
            let Some(inode) = self.inode(ino)? else { continue };
            inode.staged.map(|id| staged.entry(id).or_insert(ino));
            inode.local.map(|local| objects.entry(local.object).or_insert(ino));
        }
        self.staging(&staged)?;
        self.objects(&objects)
    }

    /// What is in use is no garbage.
    fn garbage(&mut self) -> Result<(), IndexError> {
        let tables = &self.change.tables;
        let ids: Vec<u64> =
            tables.garbage.iter()?.map(|entry| Ok(entry?.0.value())).collect::<Result<_, IndexError>>()?;
        for id in ids {
            let tables = &self.change.tables;
            if tables.staging.get(id)?.is_some() || tables.objects.get(id)?.is_some() {
                self.change.collected(ObjectId(id))?;
            }
        }
        Ok(())
    }

    fn staging(&mut self, owners: &Owners) -> Result<(), IndexError> {
        let mut rows = HashMap::new();
        for entry in self.change.tables.staging.iter()? {
            let (id, row) = entry?;
            rows.insert(ObjectId(id.value()), decode_staged(row.value()));
        }
        for (id, row) in &rows {
            match (row, owners.get(id)) {
                (Some(row), Some(owner)) => self.staged(*id, row, *owner)?,
                (Some(row), None) => self.rescue_staged(*id, row)?,
                // of bytes of which neither length nor owner is known nothing can be made
                (None, None) => {}
                (None, Some(owner)) => self.staged_without_row(*id, *owner)?,
            }
        }
        for (id, owner) in owners.iter().filter(|(id, _)| !rows.contains_key(id)) {
            self.staged_without_row(*id, *owner)?;
        }
        Ok(())
    }

    /// The ranges in order; no byte of them beyond the end of the file.
    fn staged(&mut self, id: ObjectId, row: &StagedRow, ino: Ino) -> Result<(), IndexError> {
        let ranges = in_order(&row.ranges);
        let end = end(&ranges).max(row.base_len);
        let sound = StagedRow { ino, ranges, ..row.clone() };
        if sound != *row {
            self.change.put_staged(id, &sound)?;
        }
        if self.inode(ino)?.is_some_and(|inode| inode.size < end) {
            self.edit(ino, |inode| inode.size = end)?;
        }
        Ok(())
    }

    /// Bytes that no inode has: a file of their own.
    fn rescue_staged(&mut self, id: ObjectId, row: &StagedRow) -> Result<(), IndexError> {
        let ranges = in_order(&row.ranges);
        if ranges.is_empty() {
            self.change.remove_staged(id)?;
            return self.change.discard(id);
        }
        let what = "what was written here to a file that is not known any more";
        let ino = self.rescue(id, end(&ranges), what, |inode| inode.staged = Some(id))?;
        self.change.put_staged(id, &StagedRow { ino, base_len: 0, ranges })
    }

    /// Which bytes of the file were written nobody knows: a new file is all its staging file's. Of one that S3 has, S3's
    /// version takes its place, and what may have been written goes beside it.
    fn staged_without_row(&mut self, id: ObjectId, ino: Ino) -> Result<(), IndexError> {
        let Some(inode) = self.inode(ino)? else { return Ok(()) };
        let all = |ino| StagedRow {
            ino,
            base_len: 0,
            ranges: (inode.size > 0).then_some(0..inode.size).into_iter().collect(),
        };
        let Some(remote) = &inode.remote else { return self.change.put_staged(id, &all(ino)) };
        let size = remote.size;
        let what = "what may have been written to a file whose row was lost, with zeros for the rest";
        let beside = self.rescue(id, inode.size, what, |beside| beside.staged = Some(id))?;
        self.change.put_staged(id, &all(beside))?;
        self.edit(ino, |inode| (inode.staged, inode.size) = (None, size))?;
        self.change.settle_content(ino)
    }

    fn objects(&mut self, owners: &Owners) -> Result<(), IndexError> {
        let mut ids = Vec::new();
        for entry in self.change.tables.objects.iter()? {
            ids.push(ObjectId(entry?.0.value()));
        }
        for id in ids.iter().filter(|id| !owners.contains_key(id)) {
            self.stray_object(*id)?;
        }
        for (id, owner) in owners {
            let Some(inode) = self.inode(*owner)? else { continue };
            self.object(&inode, *id)?;
        }
        Ok(())
    }

    /// An object that no inode has. S3 has it, too, unless its inode is lost.
    fn stray_object(&mut self, id: ObjectId) -> Result<(), IndexError> {
        match self.change.object(id) {
            Ok(Some(row)) if row.presence == Presence::Complete && row.size > 0 && self.inode(row.ino)?.is_none() => {
                let local = Local { object: id, complete: true };
                let what = "the cached bytes of a file that is not known any more; S3 may have it";
                let ino = self.rescue(id, row.size, what, |inode| inode.local = Some(local))?;
                self.change.put_object(id, &ObjectRow { ino, ..row })
            }
            _ => self.change.discard(id),
        }
    }

    /// What `inode` says of its object is what its row says; where not, S3's version is fetched again, if it has one.
    fn object(&mut self, inode: &Inode, id: ObjectId) -> Result<(), IndexError> {
        let Some(local) = inode.local else { return Ok(()) };
        let row = self.change.object(id).ok().flatten();
        let is_sound = row.as_ref().is_some_and(|row| {
            let is_as_long =
                inode.staged.is_some() || inode.remote.as_ref().is_none_or(|remote| remote.size == row.size);
            row.ino == inode.ino && is_as_long && (row.presence == Presence::Complete) == local.complete
        });
        if is_sound {
            return Ok(());
        }
        if inode.remote.is_some() {
            self.edit(inode.ino, |inode| inode.local = None)?;
            return self.change.discard(id);
        }
        // all that there is of it
        let row = row.unwrap_or(ObjectRow { ino: inode.ino, size: inode.size, presence: Presence::Complete });
        let complete = row.presence == Presence::Complete;
        self.change.put_object(id, &ObjectRow { ino: inode.ino, ..row })?;
        self.edit(inode.ino, |inode| inode.local = Some(Local { object: id, complete }))
    }
}

/// The same bytes in ranges that are sorted and apart.
fn in_order(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = ranges.iter().filter(|range| range.start < range.end).cloned().collect();
    sorted.sort_unstable_by_key(|range| range.start);
    let mut apart: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match apart.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => apart.push(range),
        }
    }
    apart
}

fn end(ranges: &[Range<u64>]) -> u64 {
    ranges.last().map_or(0, |last| last.end)
}
