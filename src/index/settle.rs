//! What `writeback` tells the journal: what S3 has now. Each call is one transaction, does nothing twice, and
//! holds for a change that came in between: what has changed since stays pending, and a version that was left
//! under a key which is not the inode's any more has to leave it again.

use super::Index;
use super::change::Change;
use super::model::{Away, IndexError, Inode, Kind, Local, ObjectRow, Pending, Remote, SetHere};
use super::row::Row;
use crate::types::{ETag, Ino, Key, Tick};

/// What an upload, a copy or a change of headers has left in S3.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The inode it was made of.
    pub ino: Ino,
    /// `Pending::change` when it began: what changed since stays pending.
    pub change: u64,
    /// Where it is now.
    pub key: Key,
    /// The version.
    pub etag: ETag,
    /// Its length in bytes.
    pub size: u64,
    /// When the request was sent.
    pub sent: Tick,
    /// When it was answered.
    pub answered: Tick,
    /// What is settled by it: bytes with all attributes, or attributes and place alone.
    pub content: bool,
    /// With `content`, and nothing changed since: the object file that has the bytes from now on, and which
    /// ranges of them (`Presence`). It takes the place of the staging file.
    pub local: Option<(Local, ObjectRow)>,
}

/// What became of a settling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// S3 has all of it.
    Done,
    /// It has changed since: there is more to do.
    Again,
    /// It is not where its directory is any more: all of it is to be done again there, and what was done is `away`.
    Elsewhere,
    /// It is gone here: what was uploaded is to be removed again, and is `away` under its key.
    Gone,
}

impl Index {
    /// Says what S3 has now.
    pub async fn settle(&self, settled: Settled) -> Result<Outcome, IndexError> {
        self.writer.run_along(1, |change| settle(change, settled)).await
    }

    /// Says that S3 needs nothing of `ino` (an implied directory, a file that is not uploaded), unless it changed since `change`.
    pub async fn settle_without(&self, ino: Ino, change: u64) -> Result<Outcome, IndexError> {
        self.writer.run(1, move |transaction| settle_without(transaction, ino, change)).await
    }

    /// Says that the object at `key` was removed from S3.
    pub async fn removed(&self, key: Key, sent: Tick, answered: Tick) -> Result<(), IndexError> {
        let _ = sent;
        self.writer.run(1, move |change| removed(change, &key, answered)).await
    }

    /// Makes a file that is not to be in S3 a local one: it has no version there, and the one that it had is to be removed.
    /// Its bytes are all here, in `local` or staged. Its content stays pending: under another name it may be uploaded.
    pub async fn localise(&self, ino: Ino, change: u64) -> Result<Outcome, IndexError> {
        self.writer.run(1, move |transaction| localise(transaction, ino, change)).await
    }

    /// Notes the multipart upload of `ino`, durably, before its first part; `None` forgets it.
    pub async fn note_upload(&self, ino: Ino, upload: Option<Vec<u8>>) -> Result<(), IndexError> {
        let note = move |change: &mut Change<'_>| {
            change.dirty = true;
            match upload {
                Some(upload) => drop(change.tables.uploads.insert(ino.0, upload.as_slice())?),
                None => drop(change.tables.uploads.remove(ino.0)?),
            }
            Ok(())
        };
        self.writer.run(1, note).await
    }
}

/// See [`Index::settle`].
fn settle(change: &mut Change<'_>, settled: Settled) -> Result<Outcome, IndexError> {
    let Settled { ino, change: number, key, etag, size, sent, answered, content, local } = settled;
    // whatever was sent there before: this is what it has come to
    change.forget_sent(&key)?;
    let Some(before) = change.row(ino)? else {
        change.abandon(&key, &etag, size, answered)?;
        give_up(change, None, local)?;
        return Ok(Outcome::Gone);
    };
    let is_dir = before.inode.kind == Kind::Dir;
    if is_dir && change.remote_prefix(ino)?.as_ref() != Some(&key) {
        // the marker of a directory that was renamed meanwhile: it will have another
        change.abandon(&key, &etag, size, answered)?;
        change.mark_pending(ino, |pending| pending.content = true)?;
        return Ok(Outcome::Elsewhere);
    }
    let mut after = before.clone();
    leave(change, &before.inode, &key)?;
    after.inode.remote = Some(Remote { etag, size, last_modified: Remote::UNTOLD });
    let is_current = change.pending(ino)?.is_none_or(|pending| pending.change == number);
    match local {
        Some(local) if content && is_current => take_bytes(change, &mut after.inode, local)?,
        unused => give_up(change, Some(&before.inode), unused)?,
    }
    let is_staged = after.inode.staged.is_some();
    change.replace(&before, after);
    if is_dir {
        change.expand_again(before.inode.parent)?;
    } else {
        change.settle_place(ino, &key)?;
    }
    freshen(change, &before.inode, sent, answered)?;
    prove_directories(change, before.inode.parent, &key, answered)?;
    clear_pending(change, ino, number, Done { content: content && !is_staged, attributes: true })
}

/// What was brought to S3.
struct Done {
    content: bool,
    attributes: bool,
}

/// Clears what is done of a pending row, unless it has changed since `number`; its place is settled apart.
fn clear_pending(change: &mut Change<'_>, ino: Ino, number: u64, done: Done) -> Result<Outcome, IndexError> {
    let Some(pending) = change.pending(ino)? else { return Ok(Outcome::Done) };
    let left = if pending.change == number {
        Pending {
            content: pending.content && !done.content,
            attributes: pending.attributes && !done.attributes,
            set: if done.attributes { SetHere::NONE } else { pending.set },
            ..pending
        }
    } else {
        // what S3 lacks now is younger than what it has got
        Pending { since: change.now, ..pending }
    };
    change.put_pending(ino, &left)?;
    let is_done = !(left.content || left.attributes || left.place);
    Ok(if is_done { Outcome::Done } else { Outcome::Again })
}

/// The version that S3 had of `inode` is not what it is any more: it leaves its key, unless the new one is there.
fn leave(change: &mut Change<'_>, inode: &Inode, to: &Key) -> Result<(), IndexError> {
    if let Some((remote, key)) = inode.remote.as_ref().zip(change.remote_key(inode)?)
        && key != *to
    {
        change.abandon(&key, &remote.etag, remote.size, change.observed(inode.ino)?)?;
    }
    // what was in the way is overwritten
    if change.away(to)?.is_some_and(|away| away.ino.is_none_or(|ino| ino == inode.ino)) {
        change.remove_away(to)?;
    }
    Ok(())
}

/// The object file `local` has all bytes of `inode` from now on.
fn take_bytes(change: &mut Change<'_>, inode: &mut Inode, local: (Local, ObjectRow)) -> Result<(), IndexError> {
    let (local, row) = local;
    if let Some(staged) = inode.staged.take() {
        change.remove_staged(staged)?;
        // one that became the object itself has the object's number
        if staged != local.object {
            change.discard(staged)?;
        }
    }
    if let Some(old) = inode.local.filter(|old| old.object != local.object) {
        change.discard(old.object)?;
    }
    inode.local = Some(local);
    change.put_object(local.object, &row)
}

/// An object file that is of no use: garbage, unless it is a second name of what `inode` still has.
fn give_up(
    change: &mut Change<'_>,
    inode: Option<&Inode>,
    local: Option<(Local, ObjectRow)>,
) -> Result<(), IndexError> {
    let Some((local, _)) = local else { return Ok(()) };
    let in_use = inode.is_some_and(|inode| {
        inode.staged == Some(local.object) || inode.local.is_some_and(|old| old.object == local.object)
    });
    if in_use { Ok(()) } else { change.discard(local.object) }
}

/// S3 was seen, by our own request, to have what is here.
pub(super) fn freshen(change: &mut Change<'_>, inode: &Inode, sent: Tick, answered: Tick) -> Result<(), IndexError> {
    match change.load_freshness(inode.ino)? {
        // of its entries this says nothing
        Some(freshness) if inode.kind == Kind::Dir => freshness.observe(answered),
        Some(freshness) => change.settle(freshness, sent, answered),
        None => {}
    }
    Ok(())
}

/// What is at `key` proves that the directories exist that it is in: no older word may remove them.
fn prove_directories(change: &mut Change<'_>, parent: Ino, key: &Key, answered: Tick) -> Result<(), IndexError> {
    let mut dir = parent;
    while dir != Ino::ROOT
        && let Some(Row { inode, .. }) = change.row(dir)?
        && change.remote_prefix(dir)?.is_some_and(|prefix| key.starts_with(prefix.as_str()))
    {
        if let Some(freshness) = change.load_freshness(dir)? {
            freshness.observe(answered);
        }
        dir = inode.parent;
    }
    Ok(())
}

/// See [`Index::settle_without`].
fn settle_without(change: &mut Change<'_>, ino: Ino, number: u64) -> Result<Outcome, IndexError> {
    let Some(Row { inode, .. }) = change.row(ino)? else { return Ok(Outcome::Gone) };
    if inode.kind != Kind::Dir
        && let Some(at) = change.remote_key(&inode)?
    {
        // it may have come to be in its place while others left theirs
        change.settle_place(ino, &at)?;
    }
    clear_pending(change, ino, number, Done { content: inode.staged.is_none(), attributes: true })
}

/// See [`Index::removed`].
fn removed(change: &mut Change<'_>, key: &Key, answered: Tick) -> Result<(), IndexError> {
    change.forget_sent(key)?;
    if change.away(key)?.is_some_and(|away| away.ino.is_none()) {
        change.remove_away(key)?;
    }
    // a listing that was sent before still has it
    change.bury_key(key, answered);
    Ok(())
}

/// See [`Index::localise`].
fn localise(change: &mut Change<'_>, ino: Ino, number: u64) -> Result<Outcome, IndexError> {
    let Some(before) = change.row(ino)? else { return Ok(Outcome::Gone) };
    let is_here = before.inode.local.is_some_and(|local| local.complete);
    let is_empty = before.inode.remote.as_ref().is_none_or(|remote| remote.size == 0);
    // what was here may have been evicted since
    if change.pending(ino)?.is_none_or(|pending| pending.change != number) || !(is_here || is_empty) {
        return Ok(Outcome::Again);
    }
    if let Some(key) = change.remote_key(&before.inode)? {
        change.bury_version(&key, change.observed(ino)?);
    }
    forget_version(change, &before)?;
    Ok(Outcome::Done)
}

/// Makes a file one that S3 has no version of: the one that it had is to be removed, its content is to be uploaded.
pub(super) fn forget_version(change: &mut Change<'_>, before: &Row) -> Result<(), IndexError> {
    let ino = before.inode.ino;
    if let Some((remote, key)) = before.inode.remote.as_ref().zip(change.remote_key(&before.inode)?) {
        change.put_away(&key, &Away { etag: remote.etag.clone(), size: remote.size, ino: None })?;
    }
    let mut after = before.clone();
    after.inode.remote = None;
    if before.inode.kind != Kind::Dir {
        after.inode.origin = None;
        change.set_place_pending(ino, false)?;
    }
    change.replace(before, after);
    change.mark_pending(ino, |pending| (pending.content, pending.attributes) = (true, false))
}
