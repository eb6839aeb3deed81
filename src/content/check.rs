//! Compares the files with their rows, for `fsck`: what is lost, and what nobody knows.
//! Owns nothing. Each find is looked at twice, because the rows and the files change meanwhile; so what is told was so
//! at some moment, however busy the server is.
//! Everything here blocks on the disk: call it where it may. A call looks at one batch.

use std::io;
use std::path::Path;

use super::Content;
use super::keeper::ROWS;
use crate::index::{ObjectRow, Presence, StagedRow};
use crate::types::{Ino, ObjectId};

/// A file that does not have what its row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The file.
    pub id: ObjectId,
    /// Whose bytes it has.
    pub ino: Ino,
    /// Its length; `None`: there is none.
    pub length: Option<u64>,
    /// Where it must end, at least.
    pub promised: u64,
}

/// Some rows, looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// How many.
    pub files: u64,
    /// The last one: go on after it.
    pub last: ObjectId,
    /// Those whose files are damaged.
    pub damaged: Vec<Damaged>,
}

impl Content {
    /// Looks at the files of some objects after `after`; `None`: there are none.
    /// # Errors
    /// What the OS or the index says.
    pub fn look_at_objects(&self, after: Option<ObjectId>) -> io::Result<Option<Looked>> {
        let rows = self.index.objects(after, ROWS).map_err(io::Error::other)?;
        let Some(&(last, _)) = rows.last() else { return Ok(None) };
        let mut damaged = Vec::new();
        for (id, row) in &rows {
            let Some(found) = self.damage_of(*id, row)? else { continue };
            // a row that is gone or another one by now explains it
            let again = self.index.presence(*id).map_err(io::Error::other)?;
            if let Some(again) = again.filter(|again| again.ino == row.ino)
                && self.damage_of(*id, &again)?.is_some()
            {
                damaged.push(found);
            }
        }
        Ok(Some(Looked { files: rows.len() as u64, last, damaged }))
    }

    fn damage_of(&self, id: ObjectId, row: &ObjectRow) -> io::Result<Option<Damaged>> {
        let length = length(&self.objects.path(id))?;
        let promised = match &row.presence {
            Presence::Complete => row.size,
            Presence::Partial(ranges) => ranges.last().map_or(0, |last| last.end),
        };
        let is_whole = length.is_some_and(|length| self.is_whole(row, length));
        Ok((!is_whole).then_some(Damaged { id, ino: row.ino, length, promised }))
    }

    /// Looks at some staging files after `after`; `None`: there are none.
    /// # Errors
    /// What the OS or the index says.
    pub fn look_at_staging(&self, after: ObjectId) -> io::Result<Option<Looked>> {
        let rows = self.index.staged_rows(after, ROWS).map_err(io::Error::other)?;
        let Some(&(last, _)) = rows.last() else { return Ok(None) };
        let mut damaged = Vec::new();
        for (id, row) in &rows {
            if let Some(found) = self.staging_damage(*id, row)?
                && self.index.staged(*id).map_err(io::Error::other)?.as_ref() == Some(row)
            {
                damaged.push(found);
            }
        }
        Ok(Some(Looked { files: rows.len() as u64, last, damaged }))
    }

    /// What a staging file lacks of what its row promises.
    pub(super) fn staging_damage(&self, id: ObjectId, row: &StagedRow) -> io::Result<Option<Damaged>> {
        let Some(last) = row.ranges.last() else { return Ok(None) };
        let length = length(&self.volume.dir.path(id))?;
        let is_short = length.is_none_or(|length| length < last.end);
        Ok(is_short.then_some(Damaged { id, ino: row.ino, length, promised: last.end }))
    }

    /// Whether this process still has a staging file open: then its bytes are not lost, whatever became of its name.
    pub fn has_open(&self, staged: ObjectId) -> bool {
        self.staged.get(&staged).is_some_and(|staged| staged.is_file_open())
    }

    /// The files in directory `low` of `objects/` that neither the index nor this process knows.
    /// # Errors
    /// What the OS or the index says.
    pub fn stray_objects(&self, low: u8) -> io::Result<Vec<ObjectId>> {
        let mut strays = Vec::new();
        for id in self.objects.files(low)? {
            if self.is_stray(id)? && self.objects.path(id).try_exists()? && self.is_stray(id)? {
                strays.push(id);
            }
        }
        Ok(strays)
    }

    /// The same of `staging/`.
    /// # Errors
    /// What the OS or the index says.
    pub fn stray_staging(&self) -> io::Result<Vec<ObjectId>> {
        let mut strays = Vec::new();
        for id in self.volume.dir.files()? {
            if self.is_stray(id)? && self.volume.dir.path(id).try_exists()? && self.is_stray(id)? {
                strays.push(id);
            }
        }
        Ok(strays)
    }

    /// A number in the garbage is known: its file is about to go.
    fn is_stray(&self, id: ObjectId) -> io::Result<bool> {
        if self.ledger.knows(id) || self.ledger.knows_staged(id) {
            return Ok(false);
        }
        Ok(!self.index.is_known(id).map_err(io::Error::other)?)
    }
}

/// The length of the file at `path`; `None`: there is none.
fn length(path: &Path) -> io::Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
