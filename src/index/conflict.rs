//! Two writers changed the same key: what becomes of both versions, and the notes for a person to read.
//! S3's version goes through the reconcile function, as every other; this prepares the journal for it.

use redb::ReadableTable;

use super::change::Change;
use super::model::{IndexError, Inode, Kind, Observation, Remote, Seen, Source};
use super::row::Row;
use super::settle::{forget_version, freshen};
use super::{Index, reconcile, tables};
use crate::store::ObjectMeta;
use crate::types::{Component, Ino, Key, Name, Tick};

/// Two writers changed the same thing: what was done about it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Conflict {
    /// Key of the two versions.
    pub key: String,
    /// Key of the one that lost the name; empty when none did.
    pub kept_as: String,
    /// Wall time, in nanoseconds since the epoch.
    pub at: i64,
    /// In words: who changed what, and which version has the name now.
    pub what: String,
}

/// An answer of S3 about one key.
struct Answer {
    seen: Seen,
    sent: Tick,
    answered: Tick,
}

impl Index {
    /// Says that `key` has another version than the one that was to be removed: it is somebody else's, and appears again.
    pub async fn not_ours(&self, key: Key, meta: ObjectMeta, sent: Tick, answered: Tick) -> Result<(), IndexError> {
        let answer = Answer { seen: Seen::Object(meta), sent, answered };
        self.writer.run(1, |change| not_ours(change, key, answer)).await
    }

    /// The version of `ino` that S3 has is another one now, or (`None`) gone, and the local change is to be made on top of that:
    /// its bytes are not staged, or the local ones win.
    pub async fn rebase(
        &self,
        ino: Ino,
        meta: Option<ObjectMeta>,
        sent: Tick,
        answered: Tick,
    ) -> Result<(), IndexError> {
        let answer = Answer { seen: meta.map_or(Seen::Absent, Seen::Object), sent, answered };
        self.writer.run(1, move |change| rebase(change, ino, answer)).await
    }

    /// Both sides changed `key`: the local inode goes on under `name` of the same directory, as a new one, and what S3 has takes the old name.
    /// Where `name` is taken or too long, it gets another like it: the key is noted as `kept_as`, if that is not empty.
    pub async fn conflict(
        &self,
        ino: Ino,
        name: Name,
        theirs: ObjectMeta,
        (sent, answered): (Tick, Tick),
        record: Conflict,
    ) -> Result<(), IndexError> {
        let answer = Answer { seen: Seen::Object(theirs), sent, answered };
        self.writer.run(1, move |change| conflict(change, ino, &name, answer, record)).await
    }

    /// Keeps a note of a conflict that needed no second name.
    pub async fn note_conflict(&self, record: Conflict) -> Result<(), IndexError> {
        self.writer.run(1, move |change| change.record_conflict(&record)).await
    }

    /// Conflicts noted, oldest first, with their numbers.
    pub fn conflicts(&self) -> Result<Vec<(u64, Conflict)>, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        let mut rows = Vec::new();
        for entry in snapshot.conflicts.iter()? {
            let (number, row) = entry?;
            let conflict = serde_json::from_slice(row.value());
            rows.push((number.value(), conflict.map_err(|_| tables::corrupted("conflicts", number.value()))?));
        }
        Ok(rows)
    }

    /// Forgets a conflict that a person has dealt with.
    pub async fn forget_conflict(&self, number: u64) -> Result<(), IndexError> {
        let forget = move |change: &mut Change<'_>| {
            change.dirty |= change.tables.conflicts.remove(number)?.is_some();
            Ok(())
        };
        self.writer.run(1, forget).await
    }
}

/// Has the reconcile function decide about what S3 has at `key`.
fn observe(change: &mut Change<'_>, key: Key, answer: Answer) -> Result<(), IndexError> {
    let Answer { seen, sent, answered } = answer;
    reconcile::apply(change, Observation { key, seen, sent, answered, source: Source::Check, content: None })?;
    Ok(())
}

/// See [`Index::not_ours`].
fn not_ours(change: &mut Change<'_>, key: Key, answer: Answer) -> Result<(), IndexError> {
    change.forget_sent(&key)?;
    change.replaced_elsewhere(&key)?;
    observe(change, key, answer)
}

impl Change<'_> {
    /// What was to be removed at `key` is gone, by nobody's doing here.
    fn replaced_elsewhere(&mut self, key: &Key) -> Result<(), IndexError> {
        let is_ours = self.away(key)?.is_some_and(|away| away.ino.is_none());
        if is_ours { self.remove_away(key) } else { Ok(()) }
    }
}

/// See [`Index::rebase`].
fn rebase(change: &mut Change<'_>, ino: Ino, answer: Answer) -> Result<(), IndexError> {
    let Some(before) = change.row(ino)? else { return Ok(()) };
    let place = match change.remote_key(&before.inode)? {
        None => change.path_key(ino)?,
        place => place,
    };
    let Some(place) = place else { return Ok(()) };
    let wins = before.inode.staged.is_some() || change.pending(ino)?.is_some_and(|pending| pending.content);
    match &answer.seen {
        Seen::Object(meta) if wins => {
            put_over(change, &before, place, meta)?;
            freshen(change, &before.inode, answer.sent, answer.answered)
        }
        Seen::Absent if wins => {
            forget_version(change, &before)?;
            // nothing is left to be removed
            change.replaced_elsewhere(&place)
        }
        _ => observe(change, place, answer),
    }
}

/// What is pending of an inode is to replace the version `meta` at `place`.
fn put_over(change: &mut Change<'_>, before: &Row, place: Key, meta: &ObjectMeta) -> Result<(), IndexError> {
    let Inode { ino, kind, .. } = before.inode;
    if kind == Kind::Dir && change.remote_prefix(ino)?.as_ref() != Some(&place) {
        // the directory comes apart first, and its marker is made after that
        return Ok(());
    }
    let mut after = before.clone();
    let (etag, size, last_modified) = (meta.etag.clone(), meta.size, meta.last_modified);
    after.inode.remote = Some(Remote { etag, size, last_modified });
    // bytes of the old version that are not here can be had no more: those of the new one take their place
    if let Some(local) = after.inode.local.take_if(|local| !local.complete) {
        change.discard(local.object)?;
    }
    change.replaced_elsewhere(&place)?;
    change.replace(before, after);
    if kind != Kind::Dir {
        change.settle_place(ino, &place)?;
    }
    change.mark_pending(ino, |pending| pending.content = true)
}

/// See [`Index::conflict`].
fn conflict(
    change: &mut Change<'_>,
    ino: Ino,
    name: &Name,
    theirs: Answer,
    mut record: Conflict,
) -> Result<(), IndexError> {
    let (Some(key), Some(before)) = (Key::new(&record.key), change.row(ino)?) else { return Ok(()) };
    if before.inode.kind == Kind::Dir {
        // markers have no bytes to lose
        change.record_conflict(&record)?;
        return rebase(change, ino, theirs);
    }
    if change.remote_key(&before.inode)?.as_ref() == Some(&key) {
        // its version was replaced by theirs
        forget_version(change, &before)?;
    }
    // it is theirs, and nothing of ours has to leave it
    change.forget_sent(&key)?;
    change.replaced_elsewhere(&key)?;
    let (dir, component) = free_place(change, &before.inode, name)?;
    change.move_entry((before.inode.parent, &before.inode.component), (dir, component))?;
    change.advance_directory(before.inode.parent)?;
    if dir != before.inode.parent {
        change.advance_directory(dir)?;
    }
    if !record.kept_as.is_empty() {
        record.kept_as = change.path_key(ino)?.map_or_else(String::new, |key| key.as_str().to_owned());
    }
    change.record_conflict(&record)?;
    observe(change, key, theirs)
}

/// Where a file that lost its name goes: `name` in the same directory, with a number where that is taken. As the
/// last resort, where no key there is short enough, the root.
fn free_place(change: &mut Change<'_>, inode: &Inode, name: &Name) -> Result<(Ino, Component), IndexError> {
    let short = format!("conflict-{}", inode.ino.0);
    for (dir, stem) in
        [(inode.parent, name.as_bytes()), (inode.parent, short.as_bytes()), (Ino::ROOT, short.as_bytes())]
    {
        for number in 0..100 {
            let suffix = if number == 0 { String::new() } else { format!("-{number}") };
            let Ok(name) = Name::new(&[stem, suffix.as_bytes()].concat()) else { break };
            let Some(component) = change.component(dir, &name, inode.kind)? else { break };
            if change.child(dir, &component)?.is_none() && !change.is_shadowed(dir, &component)? {
                return Ok((dir, component));
            }
        }
    }
    Err(tables::corrupted("children", inode.parent))
}
