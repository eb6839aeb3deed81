//! What S3 has no more: it goes here, too, unless it holds something that S3 never had.

use super::{Evidence, Outcome, Place, existing, is_late, late};
use crate::index::change::Change;
use crate::index::model::{IndexError, Kind, Verdict};
use crate::index::news::is_dirty;
use crate::index::row::Given;
use crate::index::shelter::Shelter;
use crate::types::Ino;

/// A directory whose marker is gone, and which stays: it has the attributes of one never marked, unless they were
/// changed here: then it needs a new marker.
pub(in crate::index) fn unmark(change: &mut Change<'_>, ino: Ino, evidence: &Evidence) -> Result<(), IndexError> {
    let before = existing(change, ino)?;
    if is_late(change, ino, evidence) {
        return Ok(());
    }
    let mut after = before.clone();
    after.inode.attributes_known = true;
    if before.inode.remote.is_some() {
        after.inode.remote = None;
        after.inode.advance_ctime(change.now);
        if let Some(marker) = change.remote_prefix(ino)? {
            change.drop_away_of(ino, &marker)?;
        }
        match change.pending(ino)? {
            Some(mut pending) if pending.content || pending.attributes => {
                pending.content = true;
                change.put_pending(ino, &pending)?;
            }
            _ => {
                let defaults = change.defaults();
                after.given = Given::default();
                (after.inode.mode, after.inode.uid, after.inode.gid) = (defaults.dir_mode, defaults.uid, defaults.gid);
            }
        }
    }
    change.replace(&before, after);
    Ok(())
}

/// S3 has no such key, or nothing below the prefix.
pub(in crate::index) fn absent(
    change: &mut Change<'_>,
    place: &Place<'_>,
    evidence: &Evidence,
    shelter: &mut Shelter,
) -> Result<Outcome, IndexError> {
    let Some(child) = place.child else { return Ok((Verdict::Unchanged, None)) };
    if is_late(change, child.ino, evidence) {
        return Ok(late(change, child.ino));
    }
    let stays = Ok((Verdict::Unchanged, Some(child.ino)));
    let (inode, pending) = (existing(change, child.ino)?.inode, change.pending(child.ino)?);
    match inode.kind {
        Kind::Dir if shelter.keeps(change, child.ino)? => {
            unmark(change, child.ino, evidence)?;
            // what of its entries is gone shows when it is listed
            if let Some(freshness) = change.freshness(child.ino) {
                freshness.expire();
            }
            return stays;
        }
        Kind::Dir => {}
        _ if inode.remote.is_none() => return stays,
        _ if is_dirty(&inode, pending.as_ref()) => {
            change.outlive(child.ino)?;
            return stays;
        }
        _ => {}
    }
    change.drop_rows(&inode)?;
    change.remove(place.dir, place.component, child, evidence.answered)?;
    Ok((Verdict::Removed, None))
}
