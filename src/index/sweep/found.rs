//! What a sweep tells of the changes it found, so that somebody can say whether they had been told of.
//! Bounded: of one page some thousand. What is not certain is left out: new entries of a directory that was not listed
//! before, and what was diverted.

use super::Walk;
use crate::index::model::{Finding, IndexError, Kind, Verdict};
use crate::index::tables::Child;
use crate::store::ObjectMeta;
use crate::types::{Ino, Key, Tick};

/// Of one page: all of its keys, and as many removals and more.
const MOST: usize = 4096;
/// A key has 1,024 bytes: no deeper directory has anything.
const DEEPEST: usize = 512;

impl Walk<'_, '_> {
    /// Whether the directory `child` of the innermost one was listed before; a new one is as known as that is.
    pub(super) fn was_known(&mut self, child: Option<Child>) -> Result<bool, IndexError> {
        match child {
            _ if !self.sweep.noting => Ok(false),
            None => Ok(self.top().known),
            Some(child) => Ok(self.change.row(child.ino)?.is_some_and(|row| row.inode.listed)),
        }
    }

    /// Another version is listed than is here, or one of what is not here.
    pub(super) fn note_written(&mut self, key: &Key, meta: &ObjectMeta, child: Option<Child>) {
        if self.is_noting() {
            let (checked, distrusted) = child.map_or((Tick::NEVER, Tick::NEVER), |child| self.trust_in(child.ino));
            let written = Some(meta.last_modified);
            self.applied.found.push(Finding { key: key.clone(), written, checked, distrusted });
        }
    }

    /// What is to be told of `child` if it goes. A directory may be no object: what was in it is.
    pub(super) fn departure(&mut self, child: Child) -> Result<Option<Finding>, IndexError> {
        if !self.is_noting() {
            return Ok(None);
        }
        let mut ino = child.ino;
        for _ in 0..DEEPEST {
            let Some(row) = self.change.row(ino)? else { return Ok(None) };
            let below = match row.inode.kind {
                Kind::Dir => self.change.children(ino, &[], 1)?.pop(),
                _ => None,
            };
            if let Some((_, below)) = below {
                ino = below.ino;
                continue;
            }
            let Some(key) = self.change.remote_key(&row.inode)? else { return Ok(None) };
            let (checked, distrusted) = self.trust_in(ino);
            return Ok(Some(Finding { key, written: None, checked, distrusted }));
        }
        Ok(None)
    }

    /// It went, or did not.
    pub(super) fn note_gone(&mut self, verdict: Verdict, departure: Option<Finding>) {
        if verdict == Verdict::Removed {
            self.applied.found.extend(departure);
        }
    }

    /// When `ino` was last checked, and when it was last distrusted, as far as that is in memory.
    fn trust_in(&self, ino: Ino) -> (Tick, Tick) {
        let freshness = self.change.freshness(ino);
        freshness.map_or((Tick::NEVER, Tick::NEVER), |freshness| (freshness.last_checked(), freshness.distrusted()))
    }

    fn is_noting(&self) -> bool {
        self.sweep.noting && self.applied.found.len() < MOST
    }
}
