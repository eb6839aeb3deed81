//! From a key of S3 to the entry that it is of here, which may be somewhere else than its path.

use super::{Evidence, Outcome, Place, apply_to_entry, directory, existing};
use crate::index::change::Change;
use crate::index::locate::{Start, Walked};
use crate::index::model::{IndexError, Inode, Seen, Verdict};
use crate::types::{Component, Ino, Key};

/// Reconciles one observation of `key`, whose components are `path`.
pub(in crate::index) fn apply_to_key(
    change: &mut Change<'_>,
    (key, path): (&Key, &[Component]),
    seen: &Seen,
    evidence: &mut Evidence,
) -> Result<Outcome, IndexError> {
    if let Some(outcome) = apply_to_away(change, (key, path), seen, evidence)? {
        return Ok(outcome);
    }
    let is_prefix = matches!(seen, Seen::Prefix);
    if !is_prefix && change.is_key_buried(key, evidence.sent) {
        // nor is it about what has the name now
        return Ok((Verdict::Late, None));
    }
    let start = change.start(path)?;
    if start.depth == path.len() {
        return apply_to_inode(change, start.dir, seen, evidence);
    }
    let may_be_empty = is_prefix && (change.is_prefix_buried(key, evidence.sent) || change.is_leaving(key)?);
    if may_be_empty && !matches!(change.walk_key(path)?, Walked::Found(_)) {
        return Ok((Verdict::Unchanged, None));
    }
    apply_below(change, start, path, seen, evidence)
}

/// The same, where the object at `key` is known to have to leave. `None`: it is no such object, or none any more.
pub(in crate::index) fn apply_to_away(
    change: &mut Change<'_>,
    (key, path): (&Key, &[Component]),
    seen: &Seen,
    evidence: &mut Evidence,
) -> Result<Option<Outcome>, IndexError> {
    let nothing = Ok(Some((Verdict::Unchanged, None)));
    let (Some(away), false) = (change.away(key)?, matches!(seen, Seen::Prefix)) else { return Ok(None) };
    if let Some(ino) = away.ino
        && change.row(ino)?.is_some()
    {
        return apply_to_inode(change, ino, seen, evidence).map(Some);
    }
    if matches!(seen, Seen::Object(meta) if meta.etag == away.etag && meta.size == away.size) {
        return nothing;
    }
    if change.is_in_doubt(key)? {
        // it may be of ours: the DELETE finds out
        return nothing;
    }
    if change.is_key_buried(key, evidence.sent) {
        return Ok(Some((Verdict::Late, None)));
    }
    match change.walk_key(path)? {
        // replaced here: the upload will find out
        Walked::Found(_) | Walked::Blocked if !matches!(seen, Seen::Absent) => return nothing,
        _ => change.remove_away(key)?,
    }
    if matches!(seen, Seen::Absent) { nothing } else { Ok(None) }
}

/// What was seen is of `ino`, wherever that is here.
fn apply_to_inode(
    change: &mut Change<'_>,
    ino: Ino,
    seen: &Seen,
    evidence: &mut Evidence,
) -> Result<Outcome, IndexError> {
    let Inode { parent: dir, component, .. } = existing(change, ino)?.inode;
    let place = Place { dir, component: &component, child: change.child(dir, &component)? };
    change.load_freshness(ino)?;
    apply_to_entry(change, &place, seen, evidence)
}

/// Goes on from where the way of the key begins, and makes the directories on it.
fn apply_below(
    change: &mut Change<'_>,
    start: Start,
    path: &[Component],
    seen: &Seen,
    evidence: &mut Evidence,
) -> Result<Outcome, IndexError> {
    let (Some((component, parents)), exists) = (path.split_last(), !matches!(seen, Seen::Absent)) else {
        return Ok((Verdict::Unchanged, None));
    };
    // whether `dir` is in S3 where the key says
    let (mut dir, mut in_place) = (start.dir, true);
    for (depth, component) in parents.iter().enumerate().skip(start.depth) {
        let place = Place { dir, component, child: change.child(dir, component)? };
        dir = match place.child {
            Some(child) => child.ino,
            None if !exists => return Ok((Verdict::Unchanged, None)),
            None => match directory(change, &place, None, evidence)? {
                (_, Some(made)) => made,
                late => return Ok(late),
            },
        };
        if place.child.is_some() {
            in_place &= !change.is_elsewhere(dir)?;
        } else if !in_place {
            in_place = found_at(change, dir, &path[..=depth])?;
        }
        // what is below it proves that the directory exists: no older word may remove it
        if let Some(freshness) = change.load_freshness(dir)?.filter(|_| exists && in_place) {
            freshness.observe(evidence.answered);
        }
    }
    let place = Place { dir, component, child: change.child(dir, component)? };
    if let Some(child) = place.child {
        change.load_freshness(child.ino)?;
        if !in_place || change.is_elsewhere(child.ino)? {
            return Ok((Verdict::Unchanged, Some(child.ino)));
        }
    }
    let outcome = apply_to_entry(change, &place, seen, evidence)?;
    if let (Verdict::Created, Some(made), false) = (outcome.0, outcome.1, in_place) {
        found_at(change, made, path)?;
    }
    Ok(outcome)
}

/// Notes that a new inode is in S3 at the key of `path`, and not where its directory is.
fn found_at(change: &mut Change<'_>, ino: Ino, path: &[Component]) -> Result<bool, IndexError> {
    let key: String = path.iter().map(Component::suffix).collect();
    let Some(key) = Key::new(&key) else { return Ok(false) };
    change.found_at(ino, &key)?;
    Ok(true)
}
