//! Looks for contradictions: rows that do not say what other rows imply. For `fsck`, and for tests after every step.
//! Owns nothing, changes nothing; reads one commit, all of it, in the memory of a few rows. Writers go on meanwhile; the
//! pages they replace are kept until it ends.
//!
//! A row that cannot be read is told, and the next one is looked at.

use redb::{ReadableTable, ReadableTableMetadata};

use super::journal;
use super::model::{Away, Counts, IndexError, Inode, Kind, ObjectRow, Pending, Presence, StagedRow};
use super::place::{self, View};
use super::row::Row;
use super::sent;
use super::snapshot::Snapshot;
use super::tables::{self, Child};
use super::{Index, MAX_DEPTH};
use crate::types::{Component, Ino, ObjectId};

/// What a look at the whole index came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contradictions {
    /// What contradicts itself, in words: the first ones.
    pub told: Vec<String>,
    /// All of them.
    pub found: u64,
    /// Inodes looked at.
    pub inodes: u64,
    /// Entries of directories looked at.
    pub entries: u64,
    /// Rows of the journal looked at.
    pub journal: u64,
}

impl Index {
    /// What in the index contradicts itself, in words; nothing in one that is sound. Reads all of it.
    pub fn contradictions(&self) -> Result<Vec<String>, IndexError> {
        Ok(self.check(usize::MAX)?.told)
    }

    /// The same; tells at most `most`, and counts the others. Takes seconds for a million inodes: call it where it may
    /// block.
    pub fn check(&self, most: usize) -> Result<Contradictions, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        let told = Contradictions::default();
        let mut check = Check { snapshot: &snapshot, most, told, counts: Counts::default(), rooted: Ino::ROOT };
        check.entries()?;
        check.inodes()?;
        check.pending()?;
        check.away()?;
        check.moved()?;
        check.sent()?;
        check.staging()?;
        check.objects()?;
        Ok(check.told)
    }
}

/// A check under way.
struct Check<'s> {
    snapshot: &'s Snapshot,
    most: usize,
    told: Contradictions,
    /// What the inodes seen so far come to.
    counts: Counts,
    /// A directory that was found to be below the root: most inodes have the parent of the one before.
    rooted: Ino,
}

impl Check<'_> {
    fn say(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.tell(otherwise());
        }
    }

    fn tell(&mut self, what: String) {
        self.told.found += 1;
        if self.told.told.len() < self.most {
            self.told.told.push(what);
        }
    }

    /// The look at one row has ended; perhaps because one could not be read.
    fn looked(&mut self, result: Result<(), IndexError>) {
        if let Err(error) = result {
            self.tell(error.to_string());
        }
    }

    /// `children` and `listing` agree with each other and with the inodes. Each entry is listed under its own cookie, and
    /// there are as many: so nothing else is listed.
    fn entries(&mut self) -> Result<(), IndexError> {
        let snapshot = self.snapshot;
        for entry in snapshot.children.iter()? {
            let (key, row) = entry?;
            let (dir, child) = (Ino(tables::be_u64(key.value())), Child::decode(row.value()));
            self.told.entries += 1;
            match key.value().get(8..).and_then(Component::from_bytes) {
                Some(component) => {
                    let result = self.entry(dir, &component, child);
                    self.looked(result);
                }
                None => self.tell(format!("an entry of directory {dir} has no legal name")),
            }
        }
        let (children, listed) = (snapshot.children.len()?, snapshot.listing.len()?);
        self.say(children == listed, || format!("{children} entries, but {listed} are listed"));
        Ok(())
    }

    fn entry(&mut self, dir: Ino, component: &Component, child: Child) -> Result<(), IndexError> {
        let inode = self.snapshot.row(child.ino)?.map(|row| row.inode);
        let fits = inode.is_some_and(|inode| inode.parent == dir && inode.component == *component);
        self.say(fits, || format!("entry {component:?} of {dir} names {}, which is not there", child.ino));
        let beside = Component::from_bytes(&[component.as_bytes(), b"/"].concat());
        let shadow = beside.map(|beside| self.snapshot.child(dir, &beside)).transpose()?.flatten();
        self.say(child.shadowed == shadow.is_some(), || format!("entry {component:?} of {dir} is shown wrongly"));
        let at = match child.cookie.checked_sub(1) {
            Some(before) => self.snapshot.listing(dir, before, 1)?,
            None => Vec::new(),
        };
        let same = at.first().is_some_and(|l| {
            (l.cookie, l.ino, l.shadowed, &l.component) == (child.cookie, child.ino, child.shadowed, component)
        });
        self.say(same, || format!("entry {component:?} of {dir} is not listed"));
        Ok(())
    }

    /// Each inode is named by its entry below the root, what it says of itself is in the journal, and all together are
    /// what the totals say.
    fn inodes(&mut self) -> Result<(), IndexError> {
        for entry in self.snapshot.inodes.iter()? {
            let ino = Ino(entry?.0.value());
            self.told.inodes += 1;
            let result = self.inode(ino);
            self.looked(result);
        }
        let (counted, told) = (self.counts, self.snapshot.counts);
        self.say(counted == told, || format!("the totals are {told:?}, but the inodes come to {counted:?}"));
        Ok(())
    }

    fn inode(&mut self, ino: Ino) -> Result<(), IndexError> {
        let Some(Row { inode, .. }) = self.snapshot.row(ino)? else { return Ok(()) };
        if ino == Ino::ROOT {
            return Ok(());
        }
        match inode.kind {
            Kind::Dir => self.counts.dirs += 1,
            _ => {
                self.counts.files += 1;
                self.counts.bytes = self.counts.bytes.saturating_add(inode.size);
            }
        }
        let child = self.snapshot.child(inode.parent, &inode.component)?;
        let is_named = child.is_some_and(|child| child.ino == ino);
        // what is below a removed directory goes later
        let is_orphan = self.snapshot.has_orphans;
        self.say(is_named || is_orphan, || format!("{ino} has no name"));
        let is_rooted = self.is_rooted(inode.parent)?;
        self.say(is_rooted || is_orphan, || format!("{ino} is in {}, which is not below the root", inode.parent));
        if is_named && is_rooted {
            self.journal_of(&inode)?;
            self.bytes_of(&inode)?;
            self.place_of(&inode)?;
        }
        Ok(())
    }

    /// Whether the way up from `dir` ends at the root: neither in a circle, nor where there is no directory.
    fn is_rooted(&mut self, dir: Ino) -> Result<bool, IndexError> {
        let mut at = dir;
        // a directory that was renamed may have a path that is too long for a key
        for _ in 0..4 * MAX_DEPTH {
            if at == Ino::ROOT || at == self.rooted {
                self.rooted = dir;
                return Ok(true);
            }
            match self.snapshot.row(at)? {
                Some(Row { inode, .. }) if inode.kind == Kind::Dir => at = inode.parent,
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    fn journal_of(&mut self, inode: &Inode) -> Result<(), IndexError> {
        let ino = inode.ino;
        let pending = self.snapshot.pending(ino)?;
        let lacks = |what: fn(&Pending) -> bool| pending.as_ref().is_some_and(what);
        if inode.staged.is_some() {
            self.say(lacks(|p| p.content), || format!("{ino} has staged bytes that nobody will upload"));
        }
        if inode.kind != Kind::Dir && inode.remote.is_none() {
            self.say(lacks(|p| p.content), || format!("{ino} is not in S3, and nobody will upload it"));
        }
        self.say(lacks(|p| p.place) == inode.origin.is_some(), || format!("{ino}: place and origin do not agree"));
        match (&inode.origin, &inode.remote) {
            (Some(origin), _) if inode.kind == Kind::Dir => {
                let dir = self.snapshot.moved.get(origin.as_str())?.map(|row| row.value());
                self.say(dir == Some(ino.0), || format!("{ino}: `moved` does not know it at {origin:?}"));
            }
            (Some(origin), Some(remote)) => {
                let wanted = Away { etag: remote.etag.clone(), size: remote.size, ino: Some(ino) };
                let away = self.snapshot.away(origin)?;
                self.say(away.as_ref() == Some(&wanted), || format!("{ino}: `away` has {away:?} at {origin:?}"));
            }
            (Some(origin), None) => self.tell(format!("{ino} has no version, but an origin {origin:?}")),
            (None, _) => {}
        }
        Ok(())
    }

    /// What the inode says of its files is what their rows say.
    fn bytes_of(&mut self, inode: &Inode) -> Result<(), IndexError> {
        let ino = inode.ino;
        if let Some(staged) = inode.staged {
            let row = self.snapshot.staged(staged)?;
            self.say(row.is_some_and(|row| row.ino == ino), || format!("{ino}: its staging file has no row"));
        }
        let Some(local) = inode.local else { return Ok(()) };
        let Some(ObjectRow { ino: owner, size, presence }) = self.snapshot.object(local.object)? else {
            self.tell(format!("{ino}: its object has no row"));
            return Ok(());
        };
        self.say(owner == ino, || format!("{ino}: its object is of {owner}"));
        let is_complete = presence == Presence::Complete;
        self.say(is_complete == local.complete, || {
            format!("{ino} and its object do not agree whether all of it is here")
        });
        // what is staged may lie over the version before the one that S3 has by now
        if let Some(remote) = inode.remote.as_ref().filter(|_| inode.staged.is_none()) {
            self.say(size == remote.size, || {
                format!("{ino}: its object has {size} bytes, its version {}", remote.size)
            });
        }
        Ok(())
    }

    /// Whoever sees the key of a version finds the inode. So no two inodes are at one key: `away` and `moved` have one
    /// owner a key, whose origin it is; and one directory owns the keys below a prefix, where each component has one entry.
    fn place_of(&mut self, inode: &Inode) -> Result<(), IndexError> {
        let mut view = self.snapshot;
        let Some(key) = place::remote_key(&mut view, inode)?.filter(|_| inode.origin.is_none()) else { return Ok(()) };
        let home = place::home(&mut view, inode)?;
        self.say(home.as_ref() == Some(&key), || format!("{}: {key:?} belongs to another directory", inode.ino));
        let away = view.away_at(&key)?;
        self.say(away.is_none(), || format!("{}: {key:?} is to be removed: {away:?}", inode.ino));
        Ok(())
    }

    fn pending(&mut self) -> Result<(), IndexError> {
        for entry in self.snapshot.pending.iter()? {
            let (ino, row) = entry?;
            let ino = Ino(ino.value());
            self.told.journal += 1;
            let says = journal::decode_pending(row.value()).is_some_and(|p| p.content || p.attributes || p.place);
            self.say(says, || format!("{ino} is pending, and nothing of it"));
            let is_there = self.snapshot.inodes.get(ino.0)?.is_some();
            self.say(is_there, || format!("{ino} is pending, and gone"));
        }
        Ok(())
    }

    fn away(&mut self) -> Result<(), IndexError> {
        for entry in self.snapshot.away.iter()? {
            let (key, row) = entry?;
            let key = key.value().to_owned();
            self.told.journal += 1;
            match journal::decode_away(row.value()) {
                None => self.tell(format!("`away` cannot be read at {key:?}")),
                Some(Away { ino: None, .. }) => {}
                Some(Away { ino: Some(ino), .. }) => self.waits_for(ino, &key),
            }
        }
        Ok(())
    }

    fn moved(&mut self) -> Result<(), IndexError> {
        for entry in self.snapshot.moved.iter()? {
            let (prefix, dir) = entry?;
            self.told.journal += 1;
            self.waits_for(Ino(dir.value()), prefix.value());
        }
        Ok(())
    }

    /// Somebody finds out what came of it: whoever removes the key, or the inode that has it.
    fn sent(&mut self) -> Result<(), IndexError> {
        for entry in self.snapshot.sent.iter()? {
            let key = entry?.0.value().to_owned();
            self.told.journal += 1;
            let is_sought = sent::is_sought(&self.snapshot, &key)?;
            self.say(is_sought, || format!("nobody will find out what became of {key:?}"));
        }
        Ok(())
    }

    /// What is noted of `key` is that `ino` is there.
    fn waits_for(&mut self, ino: Ino, key: &str) {
        let looked = self.snapshot.row(ino).map(|row| {
            let origin = row.and_then(|row| row.inode.origin);
            self.say(origin.as_deref() == Some(key), || format!("{key:?} waits for {ino}, which is not there"));
        });
        self.looked(looked);
    }

    /// Each staging file has one owner, promises nothing beyond its end, and is not garbage.
    fn staging(&mut self) -> Result<(), IndexError> {
        for entry in self.snapshot.staging.iter()? {
            let staged = ObjectId(entry?.0.value());
            let result = self.staging_row(staged);
            self.looked(result);
        }
        Ok(())
    }

    fn staging_row(&mut self, staged: ObjectId) -> Result<(), IndexError> {
        let id = staged.0;
        let is_garbage = self.snapshot.garbage.get(id)?.is_some();
        self.say(!is_garbage, || format!("staging file {id} is garbage, and in use"));
        let Some(StagedRow { ino, base_len, ranges }) = self.snapshot.staged(staged)? else { return Ok(()) };
        let owner = self.snapshot.row(ino)?.map(|row| row.inode).filter(|inode| inode.staged == Some(staged));
        let Some(owner) = owner else {
            self.tell(format!("staging file {id} is of no inode"));
            return Ok(());
        };
        let end = ranges.last().map_or(0, |last| last.end).max(base_len);
        self.say(end <= owner.size, || format!("staging file {id} has {end} bytes of {ino}, which has {}", owner.size));
        let are_apart = ranges.windows(2).all(|pair| pair[0].end < pair[1].start);
        let is_sound = are_apart && ranges.iter().all(|range| range.start < range.end);
        self.say(is_sound, || format!("staging file {id} has ranges that are none: {ranges:?}"));
        Ok(())
    }

    /// Each object has one owner, and is not garbage.
    fn objects(&mut self) -> Result<(), IndexError> {
        for entry in self.snapshot.objects.iter()? {
            let object = ObjectId(entry?.0.value());
            let result = self.object_row(object);
            self.looked(result);
        }
        Ok(())
    }

    fn object_row(&mut self, object: ObjectId) -> Result<(), IndexError> {
        let is_garbage = self.snapshot.garbage.get(object.0)?.is_some();
        self.say(!is_garbage, || format!("object {} is garbage, and in use", object.0));
        let owner = self.snapshot.object(object)?.map(|row| self.snapshot.row(row.ino)).transpose()?.flatten();
        let local = owner.and_then(|row| row.inode.local);
        self.say(local.is_some_and(|local| local.object == object), || format!("object {} is of no inode", object.0));
        Ok(())
    }
}
