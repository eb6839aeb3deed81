//! Listed keys that are not of the directories that a sweep walks, because of what was removed, renamed or changed here.

use super::{Stop, Walk};
use crate::index::locate::Walked;
use crate::index::model::Seen;
use crate::index::news::{News, is_dirty};
use crate::index::reconcile;
use crate::store::ObjectMeta;
use crate::types::{Component, Ino, Key};

impl Walk<'_, '_> {
    /// Whether `key` is not of the directories that the sweep walks: then it is reconciled alone, or it was removed since.
    pub(super) fn divert(&mut self, key: &Key, path: &[Component], object: Option<&ObjectMeta>) -> Result<bool, Stop> {
        if object.is_some() && self.change.is_key_buried(key, self.evidence.sent) {
            return Ok(true);
        }
        if self.change.is_all_in_place()? {
            return Ok(false);
        }
        let seen = || object.map_or(Seen::Prefix, |meta| Seen::Object(meta.clone()));
        let depth = self.sweep.base.len();
        let own_marker = (path.len() == depth && self.owns).then_some(self.sweep.dir);
        let away = object.is_some().then(|| self.change.away(key)).transpose()?.flatten();
        if let Some(away) = away.filter(|away| away.ino.is_none() || away.ino != own_marker) {
            if self.stays_warm(away.ino, object)? {
                return Ok(true);
            }
            let outcome = reconcile::apply_to_away(self.change, (key, path), &seen(), &mut self.evidence)?;
            if let Some((verdict, _)) = outcome {
                self.count(verdict);
                return Ok(true);
            }
        }
        if own_marker.is_some() || self.is_walked(path, depth)? {
            return Ok(false);
        }
        if let Walked::Found(ino) = self.change.walk_key(path)?
            && self.stays_warm(Some(ino), object)?
        {
            return Ok(true);
        }
        let (verdict, _) = reconcile::apply_to_key(self.change, (key, path), &seen(), &mut self.evidence)?;
        self.count(verdict);
        Ok(true)
    }

    /// Whether the way to a key, from the sweep's directory at `depth`, leads through no directory that is elsewhere.
    fn is_walked(&mut self, path: &[Component], depth: usize) -> Result<bool, Stop> {
        if !self.owns || self.change.start(path)?.depth > depth {
            return Ok(false);
        }
        Ok(self.change.walk(self.sweep.dir, &path[depth..])? != Walked::Blocked)
    }

    /// Whether all bytes of `ino` are here and others are listed: they stay, and the caller is told, unless they are
    /// changed here: then the upload finds out.
    pub(super) fn stays_warm(&mut self, ino: Option<Ino>, meta: Option<&ObjectMeta>) -> Result<bool, Stop> {
        let (Some(ino), Some(meta)) = (ino, meta) else { return Ok(false) };
        let Some(row) = self.change.row(ino)? else { return Ok(false) };
        if row.inode.local.is_none_or(|local| !local.complete)
            || News::of(&row, meta) != News::Bytes
            || reconcile::is_late(self.change, ino, &self.evidence)
        {
            return Ok(false);
        }
        if row.inode.remote.is_some() && !is_dirty(&row.inode, self.change.pending(ino)?.as_ref()) {
            self.applied.outdated.push(ino);
        }
        Ok(true)
    }
}
