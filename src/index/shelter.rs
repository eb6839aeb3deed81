//! What an observation must not take away: inodes that S3 does not have all of, and the directories they are in.

use std::collections::HashSet;

use redb::{ReadableTable, ReadableTableMetadata};

use super::change::Change;
use super::conflict::Conflict;
use super::model::{IndexError, Inode};
use crate::types::Ino;

/// The directories above pending inodes, found out at the first question. Holds for one observation, or for one page.
#[derive(Debug, Default)]
pub(super) struct Shelter(Option<HashSet<Ino>>);

impl Shelter {
    /// Whether `dir` must stay although S3 has nothing of it: its marker is still to come, or something below it is pending.
    pub(super) fn keeps(&mut self, change: &mut Change<'_>, dir: Ino) -> Result<bool, IndexError> {
        if change.tables.pending.is_empty()? {
            return Ok(false);
        }
        if change.pending(dir)?.is_some_and(|pending| pending.content) {
            return Ok(true);
        }
        let above = match &mut self.0 {
            Some(above) => above,
            none => none.insert(above_pending(change)?),
        };
        Ok(above.contains(&dir))
    }
}

fn above_pending(change: &mut Change<'_>) -> Result<HashSet<Ino>, IndexError> {
    let mut above = HashSet::new();
    let mut pending = Vec::new();
    for entry in change.tables.pending.iter()? {
        pending.push(Ino(entry?.0.value()));
    }
    for ino in pending {
        let mut at = ino;
        while at != Ino::ROOT
            && let Some(row) = change.row(at)?
            && above.insert(row.inode.parent)
        {
            at = row.inode.parent;
        }
    }
    Ok(above)
}

impl Change<'_> {
    /// Removes what the journal has of an inode that goes because S3 has lost it.
    pub(super) fn drop_rows(&mut self, inode: &Inode) -> Result<(), IndexError> {
        self.settle_pending(inode.ino)?;
        if let Some(key) = self.remote_key(inode)? {
            self.forget_sent(&key)?;
        }
        let Some(origin) = &inode.origin else { return Ok(()) };
        if self.moved(origin)? == Some(inode.ino) {
            self.remove_moved(origin)?;
        }
        self.drop_away_of(inode.ino, origin)
    }

    /// What is away at `key` with the bytes of `ino` is gone.
    pub(super) fn drop_away_of(&mut self, ino: Ino, key: &str) -> Result<(), IndexError> {
        match self.away(key)? {
            Some(away) if away.ino == Some(ino) => {
                self.forget_sent(key)?;
                self.remove_away(key)
            }
            _ => Ok(()),
        }
    }

    /// S3 has lost the version that a change here was made on: the change goes up again, as a new object.
    pub(super) fn outlive(&mut self, ino: Ino) -> Result<(), IndexError> {
        let Some(before) = self.row(ino)? else { return Ok(()) };
        let mut after = before.clone();
        after.inode.remote = None;
        if let Some(origin) = after.inode.origin.take() {
            self.drop_away_of(ino, &origin)?;
        }
        self.replace(&before, after);
        if let Some(mut pending) = self.pending(ino)? {
            (pending.content, pending.place) = (true, false);
            self.put_pending(ino, &pending)?;
        }
        let key = self.path_key(ino)?.map_or_else(String::new, |key| key.as_str().to_owned());
        let what = "removed in S3 and changed here: the change stays, and goes up again".to_owned();
        self.record_conflict(&Conflict { key, kept_as: String::new(), at: self.now.0, what })
    }

    /// Keeps a note of a conflict.
    pub(super) fn record_conflict(&mut self, conflict: &Conflict) -> Result<(), IndexError> {
        // plain text and numbers: that cannot fail
        let row = serde_json::to_vec(conflict).unwrap_or_default();
        self.dirty = true;
        let number = self.number();
        self.tables.conflicts.insert(number, row.as_slice())?;
        Ok(())
    }
}
