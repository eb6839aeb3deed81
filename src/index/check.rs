//! Looks for contradictions: rows that do not say what other rows imply. For `fsck`, and for tests after every step.
//! Owns nothing, changes nothing; reads one commit, all of it.

use std::collections::HashMap;

use redb::{ReadableTable, ReadableTableMetadata};

use super::Index;
use super::journal;
use super::model::{Away, IndexError, Inode, Kind, Pending};
use super::place::{self, View};
use super::row::Row;
use super::snapshot::Snapshot;
use super::tables::{self, Child};
use crate::types::{Component, Ino, Key, ObjectId};

impl Index {
    /// What in the index contradicts itself, in words; nothing in one that is sound. Reads all of it.
    pub fn contradictions(&self) -> Result<Vec<String>, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        let mut check = Check { snapshot: &snapshot, found: Vec::new(), holders: HashMap::new() };
        check.entries()?;
        check.inodes()?;
        check.pending()?;
        check.away()?;
        check.moved()?;
        check.files()?;
        Ok(check.found)
    }
}

/// A check under way.
struct Check<'s> {
    snapshot: &'s Snapshot,
    found: Vec<String>,
    /// Who is at each key of S3.
    holders: HashMap<Key, Ino>,
}

impl Check<'_> {
    fn say(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.found.push(otherwise());
        }
    }

    /// `children` and `listing` agree with each other and with the inodes.
    fn entries(&mut self) -> Result<(), IndexError> {
        for entry in self.snapshot.children.iter()? {
            let (key, row) = entry?;
            let (dir, child) = (Ino(tables::be_u64(key.value())), Child::decode(row.value()));
            let Some(component) = key.value().get(8..).and_then(Component::from_bytes) else {
                self.found.push(format!("an entry of directory {dir} has no legal name"));
                continue;
            };
            let inode = self.snapshot.row(child.ino)?.map(|row| row.inode);
            let fits = inode.is_some_and(|inode| inode.parent == dir && inode.component == component);
            self.say(fits, || format!("entry {component:?} of {dir} names {}, which is not there", child.ino));
            let beside = Component::from_bytes(&[component.as_bytes(), b"/"].concat());
            let shadow = beside.map(|beside| self.snapshot.child(dir, &beside)).transpose()?.flatten();
            self.say(child.shadowed == shadow.is_some(), || format!("entry {component:?} of {dir} is shown wrongly"));
            let at = self.snapshot.listing(dir, child.cookie - 1, 1)?;
            let same = at.first().is_some_and(|l| {
                (l.cookie, l.ino, l.shadowed, &l.component) == (child.cookie, child.ino, child.shadowed, &component)
            });
            self.say(same, || format!("entry {component:?} of {dir} is not listed"));
        }
        let (children, listed) = (self.snapshot.children.len()?, self.snapshot.listing.len()?);
        self.say(children == listed, || format!("{children} entries, but {listed} are listed"));
        Ok(())
    }

    /// Each inode is named by its entry, and what it says of itself is in the journal.
    fn inodes(&mut self) -> Result<(), IndexError> {
        for entry in self.snapshot.inodes.iter()? {
            let ino = Ino(entry?.0.value());
            let Some(Row { inode, .. }) = self.snapshot.row(ino)? else { continue };
            if ino == Ino::ROOT {
                continue;
            }
            let child = self.snapshot.child(inode.parent, &inode.component)?;
            let is_named = child.is_some_and(|child| child.ino == ino);
            if !is_named {
                // what is below a removed directory goes later
                self.say(self.snapshot.has_orphans, || format!("{ino} has no name"));
                continue;
            }
            self.inode(&inode)?;
        }
        Ok(())
    }

    fn inode(&mut self, inode: &Inode) -> Result<(), IndexError> {
        let ino = inode.ino;
        let pending = self.snapshot.pending(ino)?;
        let lacks = |what: fn(&Pending) -> bool| pending.as_ref().is_some_and(what);
        let is_dir = inode.kind == Kind::Dir;
        if let Some(staged) = inode.staged {
            let row = self.snapshot.staged(staged)?;
            self.say(row.is_some_and(|row| row.ino == ino), || format!("{ino}: its staging file has no row"));
            self.say(lacks(|p| p.content), || format!("{ino} has staged bytes that nobody will upload"));
        }
        if !is_dir && inode.remote.is_none() {
            self.say(lacks(|p| p.content), || format!("{ino} is not in S3, and nobody will upload it"));
        }
        self.say(lacks(|p| p.place) == inode.origin.is_some(), || format!("{ino}: place and origin do not agree"));
        if let Some(local) = inode.local {
            let object = self.snapshot.object(local.object)?;
            self.say(object.is_some_and(|row| row.ino == ino), || format!("{ino}: its object has no row"));
        }
        match (&inode.origin, &inode.remote) {
            (Some(origin), _) if is_dir => {
                let dir = self.snapshot.moved.get(origin.as_str())?.map(|row| row.value());
                self.say(dir == Some(ino.0), || format!("{ino}: `moved` does not know it at {origin:?}"));
            }
            (Some(origin), Some(remote)) => {
                let wanted = Away { etag: remote.etag.clone(), size: remote.size, ino: Some(ino) };
                let away = self.snapshot.away(origin)?;
                self.say(away.as_ref() == Some(&wanted), || format!("{ino}: `away` has {away:?} at {origin:?}"));
            }
            (Some(origin), None) => self.found.push(format!("{ino} has no version, but an origin {origin:?}")),
            (None, _) => {}
        }
        self.holder(inode)
    }

    /// One version is at one key, and whoever sees the key finds the inode.
    fn holder(&mut self, inode: &Inode) -> Result<(), IndexError> {
        let mut view = self.snapshot;
        let Some(key) = place::remote_key(&mut view, inode)? else { return Ok(()) };
        if inode.origin.is_none() {
            let home = place::home(&mut view, inode)?;
            self.say(home.as_ref() == Some(&key), || format!("{}: {key:?} belongs to another directory", inode.ino));
            let away = view.away_at(&key)?;
            self.say(away.is_none(), || format!("{}: {key:?} is to be removed: {away:?}", inode.ino));
        }
        if let Some(other) = self.holders.insert(key.clone(), inode.ino) {
            self.found.push(format!("{other} and {} are both at {key:?}", inode.ino));
        }
        Ok(())
    }

    fn pending(&mut self) -> Result<(), IndexError> {
        for entry in self.snapshot.pending.iter()? {
            let (ino, row) = entry?;
            let ino = Ino(ino.value());
            let says = journal::decode_pending(row.value()).is_some_and(|p| p.content || p.attributes || p.place);
            self.say(says, || format!("{ino} is pending, and nothing of it"));
            let is_there = self.snapshot.row(ino)?.is_some();
            self.say(is_there, || format!("{ino} is pending, and gone"));
        }
        Ok(())
    }

    fn away(&mut self) -> Result<(), IndexError> {
        for entry in self.snapshot.away.iter()? {
            let (key, row) = entry?;
            let key = key.value().to_owned();
            let Some(away) = journal::decode_away(row.value()) else {
                self.found.push(format!("`away` cannot be read at {key:?}"));
                continue;
            };
            let Some(ino) = away.ino else { continue };
            let origin = self.snapshot.row(ino)?.and_then(|row| row.inode.origin);
            self.say(origin.as_deref() == Some(&*key), || format!("{key:?} waits for {ino}, which is not there"));
        }
        Ok(())
    }

    fn moved(&mut self) -> Result<(), IndexError> {
        for entry in self.snapshot.moved.iter()? {
            let (prefix, dir) = entry?;
            let (prefix, dir) = (prefix.value().to_owned(), Ino(dir.value()));
            let origin = self.snapshot.row(dir)?.and_then(|row| row.inode.origin);
            self.say(origin.as_deref() == Some(&*prefix), || format!("{prefix:?} waits for {dir}, not there"));
        }
        Ok(())
    }

    /// Each file of the cache has one owner, and what is garbage has none.
    fn files(&mut self) -> Result<(), IndexError> {
        for entry in self.snapshot.staging.iter()? {
            let staged = ObjectId(entry?.0.value());
            let owner = self.snapshot.staged(staged)?.map(|row| self.snapshot.row(row.ino)).transpose()?.flatten();
            let is_owned = owner.is_some_and(|row| row.inode.staged == Some(staged));
            self.say(is_owned, || format!("staging file {} is of no inode", staged.0));
            let is_garbage = self.snapshot.garbage.get(staged.0)?.is_some();
            self.say(!is_garbage, || format!("staging file {} is garbage, and in use", staged.0));
        }
        for entry in self.snapshot.objects.iter()? {
            let object = entry?.0.value();
            let is_garbage = self.snapshot.garbage.get(object)?.is_some();
            self.say(!is_garbage, || format!("object {object} is garbage, and in use"));
        }
        Ok(())
    }
}
