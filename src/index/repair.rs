//! Repair of an index that contradicts itself (`check.rs` says of what kind), for `fsck`. One transaction.
//! Rules
//! - Nothing that only this disk has is given up: bytes that no file owns become a file `fasts3-recovered-<number>` in the
//!   root, and a file or directory that has no way to it is linked there under such a name.
//! - What S3 has can go: its directory counts as not listed after that, so it comes again.
//! - Nothing that was not to be removed from S3 before will be: of two rows of the journal, the one that keeps wins.
//!
//! The order: rows that cannot be read, entries, the tree, bytes, the journal, totals. What one step makes, the next ones see.

mod bytes;
mod journal;

use std::collections::{HashMap, HashSet};

use redb::ReadableTable;

use super::change::Change;
use super::model::{Counts, Freshness, IndexError, Inode, Kind};
use super::row::{Given, Row};
use super::tables::{self, Child};
use super::{Index, MAX_DEPTH};
use crate::types::name::ComponentKind;
use crate::types::{Component, Ino, Name, ObjectId};

/// What a repair has brought to light.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rescued {
    /// The name that it has in the root now.
    pub name: String,
    /// What it is, in words.
    pub what: String,
}

impl Index {
    /// Repairs what contradicts itself and can be repaired without losing anything; another `check` tells the rest.
    pub async fn repair(&self) -> Result<Vec<Rescued>, IndexError> {
        self.writer.run(1, repair).await
    }
}

fn repair(change: &mut Change<'_>) -> Result<Vec<Rescued>, IndexError> {
    // entries alone do not say that there is something to commit
    change.dirty = true;
    let mut repair = Repair { change, rooted: HashSet::from([Ino::ROOT]), rescued: Vec::new() };
    repair.unreadable()?;
    // what is cut off on purpose is no contradiction
    repair.change.remove_orphans(usize::MAX)?;
    repair.entries()?;
    repair.tree()?;
    repair.bytes()?;
    repair.journal()?;
    repair.listing()?;
    repair.totals()?;
    Ok(repair.rescued)
}

/// A repair under way.
struct Repair<'r, 't> {
    change: &'r mut Change<'t>,
    /// Directories that are known to be below the root.
    rooted: HashSet<Ino>,
    rescued: Vec<Rescued>,
}

impl Repair<'_, '_> {
    fn inodes(&self) -> Result<Vec<Ino>, IndexError> {
        self.change.known_inodes()
    }

    fn inode(&mut self, ino: Ino) -> Result<Option<Inode>, IndexError> {
        Ok(self.change.row(ino)?.map(|row| row.inode))
    }

    fn is_dir(&mut self, ino: Ino) -> Result<bool, IndexError> {
        Ok(self.inode(ino)?.is_some_and(|inode| inode.kind == Kind::Dir))
    }

    fn edit(&mut self, ino: Ino, with: impl FnOnce(&mut Inode)) -> Result<(), IndexError> {
        let Some(before) = self.change.row(ino)? else { return Ok(()) };
        let mut after = before.clone();
        with(&mut after.inode);
        self.change.replace(&before, after);
        Ok(())
    }

    /// Inodes of which nothing can be said: their bytes, if they have any, are found by their rows.
    fn unreadable(&mut self) -> Result<(), IndexError> {
        for ino in self.inodes()? {
            if self.change.row(ino).is_err() {
                self.change.forget_row(ino);
            }
        }
        if self.change.row(Ino::ROOT)?.is_none() {
            let (defaults, now) = (*self.change.defaults(), self.change.now);
            let root = Row::directory(Ino::ROOT, Ino::ROOT, super::row::root_component(), &defaults, now);
            self.change.put_row(root);
        }
        Ok(())
    }

    /// Entries that name nothing, or what has its name elsewhere.
    fn entries(&mut self) -> Result<(), IndexError> {
        let mut entries = Vec::new();
        for entry in self.change.tables.children.iter()? {
            let (key, row) = entry?;
            entries.push((key.value().to_vec(), Child::decode(row.value())));
        }
        for (key, child) in entries {
            let dir = Ino(tables::be_u64(&key));
            match key.get(8..).and_then(Component::from_bytes) {
                Some(component) => self.entry(dir, &component, child)?,
                None => self.change.forget_entry(&key)?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, dir: Ino, component: &Component, child: Child) -> Result<(), IndexError> {
        let Some(inode) = self.inode(child.ino)? else {
            self.change.unlink(dir, component, child)?;
            // S3 may have what it named
            return self.edit(dir, |dir| dir.listed = false);
        };
        if inode.parent == dir && inode.component == *component {
            return Ok(());
        }
        let fits = (component.kind() == ComponentKind::File) == (inode.kind != Kind::Dir);
        let has_other = self.change.child(inode.parent, &inode.component)?.is_some_and(|other| other.ino == child.ino);
        if has_other || !fits || !self.is_dir(dir)? {
            return self.change.unlink(dir, component, child);
        }
        let component = component.clone();
        self.edit(child.ino, |inode| (inode.parent, inode.component) = (dir, component))
    }

    /// Inodes without a name, and those that the root does not lead to.
    fn tree(&mut self) -> Result<(), IndexError> {
        for ino in self.inodes()? {
            while let Some(at) = self.first_fault(ino)? {
                self.reattach(at)?;
            }
        }
        Ok(())
    }

    /// The first on the way up from `ino` that has no entry, or whose entry is in no directory, or in one below it.
    fn first_fault(&mut self, ino: Ino) -> Result<Option<Ino>, IndexError> {
        let (mut at, mut way) = (ino, HashSet::new());
        while !self.rooted.contains(&at) {
            let Some(inode) = self.inode(at)? else { return Ok(None) };
            let child = self.change.child(inode.parent, &inode.component)?;
            let is_named = child.is_some_and(|child| child.ino == at) && self.is_dir(inode.parent)?;
            if !is_named || !way.insert(at) || way.len() > 4 * MAX_DEPTH {
                return Ok(Some(at));
            }
            at = inode.parent;
        }
        // only directories are asked about again
        way.remove(&ino);
        self.rooted.extend(way);
        Ok(None)
    }

    /// Gives `ino` a name: its own, if that is free, else one in the root; or removes what S3 has, too.
    fn reattach(&mut self, ino: Ino) -> Result<(), IndexError> {
        let Some(inode) = self.inode(ino)? else { return Ok(()) };
        let (parent, component) = (inode.parent, inode.component.clone());
        match self.change.child(parent, &component)? {
            Some(child) if child.ino == ino => self.change.unlink(parent, &component, child)?,
            None if parent != ino && self.is_dir(parent)? => {
                return self.change.link(parent, &component, ino, self.change.number());
            }
            _ => {}
        }
        let has_more = match inode.kind {
            Kind::Dir => !self.change.children(ino, &[], 1)?.is_empty(),
            _ => inode.remote.is_none() || inode.staged.is_some(),
        };
        if has_more || self.change.pending(ino).map_or(true, |pending| pending.is_some_and(|row| row.content)) {
            let what = if inode.kind == Kind::Dir { "a directory without a name" } else { "a file without a name" };
            let component = self.free_component(ino.0, inode.kind, what)?;
            // where it is in S3 it stays: its place becomes pending below
            let at = self.change.remote_key(&inode)?.filter(|_| inode.kind != Kind::Dir && inode.origin.is_none());
            self.change.link(Ino::ROOT, &component, ino, self.change.number())?;
            self.edit(ino, |inode| (inode.parent, inode.component) = (Ino::ROOT, component))?;
            return at.map_or(Ok(()), |at| self.change.settle_place(ino, &at));
        }
        self.edit(parent, |dir| dir.listed = false)?;
        self.change.remove_inode(ino)?;
        self.change.remove_orphans(usize::MAX)
    }

    /// A name in the root that nothing has; it is noted.
    fn free_component(&mut self, number: u64, kind: Kind, what: &str) -> Result<Component, IndexError> {
        for again in 1.. {
            let again = if again > 1 { format!("-{again}") } else { String::new() };
            let name = format!("fasts3-recovered-{number}{again}");
            let Ok(legal) = Name::new(name.as_bytes()) else { break };
            let Some(component) = self.change.component(Ino::ROOT, &legal, kind)? else { break };
            if self.change.child(Ino::ROOT, &component)?.is_none() && !self.change.is_shadowed(Ino::ROOT, &component)? {
                self.rescued.push(Rescued { name, what: what.to_owned() });
                return Ok(component);
            }
        }
        Err(tables::corrupted("children", Ino::ROOT))
    }

    /// A new file in the root for bytes that nothing owns.
    fn rescue(
        &mut self,
        id: ObjectId,
        size: u64,
        what: &str,
        with: impl FnOnce(&mut Inode),
    ) -> Result<Ino, IndexError> {
        let component = self.free_component(id.0, Kind::File, what)?;
        let (defaults, now) = (*self.change.defaults(), self.change.now);
        let mut row = self.change.new_inode(|ino| Row::directory(ino, Ino::ROOT, component.clone(), &defaults, now));
        let inode = &mut row.inode;
        (inode.kind, inode.mode, inode.size, inode.attributes_known) = (Kind::File, 0o600, size, true);
        row.given = Given { mode: true, uid: true, gid: true };
        with(&mut row.inode);
        let ino = self.change.enter(Ino::ROOT, &component, row, Freshness::default())?;
        self.change.mark_pending(ino, |pending| pending.content = true)?;
        self.change.advance_directory(Ino::ROOT)?;
        Ok(ino)
    }

    /// `listing` is made of `children` again, and who is shadowed of who is there.
    fn listing(&mut self) -> Result<(), IndexError> {
        let mut entries = Vec::new();
        for entry in self.change.tables.children.iter()? {
            let (key, row) = entry?;
            let component = key.value().get(8..).and_then(Component::from_bytes);
            let component = component.ok_or_else(|| tables::corrupted("children", tables::be_u64(key.value())))?;
            entries.push((Ino(tables::be_u64(key.value())), component, Child::decode(row.value())));
        }
        let mut rows = HashMap::new();
        for (dir, component, before) in entries {
            let is_file = component.kind() == ComponentKind::File;
            let shadowed = is_file && self.change.is_shadowed(dir, &component)?;
            let is_free = |cookie| cookie > 2 && !rows.contains_key(&tables::listing_key(dir, cookie));
            let cookie = if is_free(before.cookie) { before.cookie } else { self.change.number() };
            let child = Child { cookie, shadowed, ..before };
            let row = tables::listing_row(&child, &component).to_vec();
            if child != before || !self.change.is_listed(dir, cookie, &row)? {
                self.change.write_entry(dir, &component, &child)?;
                self.change.names.extend([(dir, component.name(false)), (dir, component.name(true))]);
            }
            rows.insert(tables::listing_key(dir, cookie), ());
        }
        let mut listed: Vec<[u8; 16]> = Vec::new();
        for entry in self.change.tables.listing.iter()? {
            listed.push(*entry?.0.value());
        }
        for key in listed.into_iter().filter(|key| !rows.contains_key(key)) {
            self.change.dirty = true;
            self.change.tables.listing.remove(&key)?;
        }
        Ok(())
    }

    fn totals(&mut self) -> Result<(), IndexError> {
        let mut counts = Counts::default();
        for ino in self.inodes()? {
            match self.inode(ino)? {
                Some(inode) if inode.kind != Kind::Dir => {
                    counts.files += 1;
                    counts.bytes = counts.bytes.saturating_add(inode.size);
                }
                Some(_) if ino != Ino::ROOT => counts.dirs += 1,
                _ => {}
            }
        }
        self.change.set_counts(counts);
        Ok(())
    }
}
