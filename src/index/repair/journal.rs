//! The journal: a row for all that S3 lacks, and none for what is not there.

use redb::ReadableTable;

use super::Repair;
use crate::index::journal::{decode_away, decode_pending};
use crate::index::model::{Away, IndexError, Inode, Kind, SetHere};
use crate::index::{place, sent};
use crate::types::Ino;

impl Repair<'_, '_> {
    pub(super) fn journal(&mut self) -> Result<(), IndexError> {
        self.pending()?;
        self.away()?;
        self.moved()?;
        for ino in self.inodes()? {
            let Some(inode) = self.inode(ino)?.filter(|_| ino != Ino::ROOT) else { continue };
            self.lacks(&inode)?;
            self.place(&inode)?;
        }
        self.sent()
    }

    /// Rows of what is gone, or that say nothing. Of one that cannot be read all is pending.
    fn pending(&mut self) -> Result<(), IndexError> {
        let mut rows = Vec::new();
        for entry in self.change.tables.pending.iter()? {
            let (ino, row) = entry?;
            rows.push((Ino(ino.value()), decode_pending(row.value())));
        }
        for (ino, row) in rows {
            let is_there = self.inode(ino)?.is_some();
            match row {
                Some(row) if is_there && (row.content || row.attributes || row.place) => {}
                Some(_) => self.change.settle_pending(ino)?,
                None => {
                    self.change.settle_pending(ino)?;
                    let inode = self.inode(ino)?.filter(|inode| inode.remote.is_some());
                    if let Some(inode) = inode {
                        self.change.mark_pending(ino, |pending| {
                            (pending.attributes, pending.set) = (true, SetHere::ALL);
                            pending.content = inode.kind == Kind::Dir;
                        })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What waits for an inode that is not there stays in S3.
    fn away(&mut self) -> Result<(), IndexError> {
        let mut rows = Vec::new();
        for entry in self.change.tables.away.iter()? {
            let (key, row) = entry?;
            rows.push((key.value().to_owned(), decode_away(row.value())));
        }
        for (key, row) in rows {
            let holds = match row {
                Some(Away { ino: Some(ino), .. }) => self.is_at(ino, &key)?,
                Some(Away { ino: None, .. }) => true,
                None => false,
            };
            if !holds {
                self.change.remove_away(&key)?;
            }
        }
        Ok(())
    }

    fn moved(&mut self) -> Result<(), IndexError> {
        let mut rows = Vec::new();
        for entry in self.change.tables.moved.iter()? {
            let (prefix, dir) = entry?;
            rows.push((prefix.value().to_owned(), Ino(dir.value())));
        }
        for (prefix, dir) in rows {
            if !self.is_at(dir, &prefix)? {
                self.change.remove_moved(&prefix)?;
            }
        }
        Ok(())
    }

    /// Notes that nobody will look into go: what has landed there is then somebody else's, and stays.
    fn sent(&mut self) -> Result<(), IndexError> {
        let mut keys = Vec::new();
        for entry in self.change.tables.sent.iter()? {
            keys.push(entry?.0.value().to_owned());
        }
        for key in keys {
            if !sent::is_sought(&*self.change, &key)? {
                self.change.forget_sent(&key)?;
            }
        }
        Ok(())
    }

    fn is_at(&mut self, ino: Ino, key: &str) -> Result<bool, IndexError> {
        Ok(self.inode(ino)?.is_some_and(|inode| inode.origin.as_deref() == Some(key)))
    }

    /// What S3 does not have is to be uploaded.
    fn lacks(&mut self, inode: &Inode) -> Result<(), IndexError> {
        let is_new = inode.kind != Kind::Dir && inode.remote.is_none();
        if (inode.staged.is_some() || is_new) && !self.change.pending(inode.ino)?.is_some_and(|row| row.content) {
            self.change.mark_pending(inode.ino, |pending| pending.content = true)?;
        }
        Ok(())
    }

    /// Where it is in S3, and what follows from that.
    fn place(&mut self, inode: &Inode) -> Result<(), IndexError> {
        let ino = inode.ino;
        let has_version = inode.kind == Kind::Dir || inode.remote.is_some();
        match &inode.origin {
            Some(origin) if has_version => {
                let noted = match (inode.kind, &inode.remote) {
                    (Kind::Dir, _) => self.change.moved(origin)? == Some(ino),
                    (_, remote) => self.change.away(origin)?.is_some_and(|away| {
                        away.ino == Some(ino)
                            && remote.as_ref().is_some_and(|r| r.etag == away.etag && r.size == away.size)
                    }),
                };
                let is_pending = self.change.pending(ino)?.is_some_and(|row| row.place);
                if noted && is_pending { Ok(()) } else { self.change.settle_place(ino, origin) }
            }
            Some(_) => {
                self.edit(ino, |inode| inode.origin = None)?;
                self.change.set_place_pending(ino, false)
            }
            None => {
                self.change.set_place_pending(ino, false)?;
                let Some(key) = self.change.remote_key(inode)? else { return Ok(()) };
                if place::home(self.change, inode)?.as_ref() != Some(&key) {
                    return self.change.settle_place(ino, &key);
                }
                // who has the key keeps it
                if self.change.away(&key)?.is_some() { self.change.remove_away(&key) } else { Ok(()) }
            }
        }
    }
}
