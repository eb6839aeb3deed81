//! What `writeback` does to the journal: it learns what is to be done, and tells what has been done. Each call
//! is one transaction, does nothing twice, and holds for a change that came in between.

use super::journal;
use super::model::{Away, Backlog, IndexError, Local, Node, Pending, StagedRow, Work};
use super::{Defaults, Index, MAX_DEPTH};
use crate::store::ObjectMeta;
use crate::types::{ETag, Ino, Key, Name, ObjectId, Tick, Time};
use std::sync::Arc;

/// All that must be known to bring one inode to S3, as of one commit.
#[derive(Clone, Debug)]
pub struct Task {
    /// The inode.
    pub node: Arc<Node>,
    /// What of it S3 lacks.
    pub pending: Pending,
    /// The key that it should have (a directory: of its marker). `None`: longer than S3 allows.
    pub key: Option<Key>,
    /// The key that its version has; `None` when S3 has no version of it.
    pub remote_key: Option<Key>,
    /// For a directory: below which prefix S3 has its entries.
    pub remote_prefix: Option<Key>,
    /// What is in the way at `key`: the version that is to be replaced (`ino` is `None`), or one that must move first.
    pub in_the_way: Option<Away>,
    /// For a directory: whether it has entries, and so exists in S3 without a marker.
    pub has_entries: bool,
    /// For a directory: whether its attributes are the defaults, which need no marker.
    pub has_default_attributes: bool,
}

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
    pub local: Option<(Local, super::ObjectRow)>,
}

/// What became of a settling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// S3 has all of it.
    Done,
    /// It has changed since: there is more to do.
    Again,
    /// It is gone here: what was uploaded is to be removed again, and is `away` under its key.
    Gone,
}

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

/// What `Index::expand` has done of a moved directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// Entries that have a row of their own in the journal now.
    pub entries: u64,
    /// Whether all have: the directory itself is where it should be.
    pub done: bool,
}

impl Index {
    /// Takes what has come to the journal since the last call. After a start: nothing; see `pending` and `away`.
    pub fn take_work(&self) -> Vec<Work> {
        std::mem::take(&mut *self.shared.work.lock())
    }

    /// Waits until something may have come to the journal. For one waiter at a time.
    pub async fn work_added(&self) {
        self.shared.work_added.notified().await;
    }

    /// What `ino` lacks in S3; `None` when nothing, or when it is gone.
    pub fn pending(&self, ino: Ino) -> Result<Option<Pending>, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        Ok(snapshot.pending.get(ino.0)?.and_then(|row| journal::decode_pending(row.value())))
    }

    /// Rows of `pending` after `after`, at most `max`, in inode order.
    pub fn pending_rows(&self, after: Ino, max: usize) -> Result<Vec<(Ino, Pending)>, IndexError> {
        todo!("{after} {max}")
    }

    /// Rows of `away` after `after`, at most `max`, in key order.
    pub fn away_rows(&self, after: Option<&Key>, max: usize) -> Result<Vec<(Key, Away)>, IndexError> {
        todo!("{after:?} {max}")
    }

    /// What is away at `key`.
    pub fn away(&self, key: &Key) -> Result<Option<Away>, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        Ok(snapshot.away.get(key.as_str())?.and_then(|row| journal::decode_away(row.value())))
    }

    /// How much is in the journal.
    pub fn backlog(&self) -> Backlog {
        todo!()
    }

    /// The durable state of a staging file.
    pub fn staged(&self, staged: ObjectId) -> Result<Option<StagedRow>, IndexError> {
        let snapshot = self.shared.cache.snapshot()?;
        Ok(snapshot.staging.get(staged.0)?.and_then(|row| journal::decode_staged(row.value())))
    }

    /// All staging files after `after`, at most `max`: for the start-up scan of `content`.
    pub fn staged_rows(&self, after: ObjectId, max: usize) -> Result<Vec<(ObjectId, StagedRow)>, IndexError> {
        todo!("{after:?} {max}")
    }

    /// The key under which S3 has the version of `ino`: to be used in every request for its bytes. `None`: S3 has none.
    pub fn remote_key(&self, ino: Ino) -> Result<Option<Key>, IndexError> {
        let has_version = self.node(ino)?.is_some_and(|node| node.remote.is_some());
        if has_version { self.place_in_s3(ino) } else { Ok(None) }
    }

    /// The prefix below which S3 has the entries of `dir`: to be used to list it, and to ask for a name that is not here.
    pub fn remote_prefix(&self, dir: Ino) -> Result<Option<Key>, IndexError> {
        self.place_in_s3(dir)
    }

    /// Where S3 has, or would have, `ino`: its origin, or what follows from its directory's.
    fn place_in_s3(&self, ino: Ino) -> Result<Option<Key>, IndexError> {
        let (mut path, mut at, mut origin) = (Vec::new(), ino, None);
        while at != Ino::ROOT && origin.is_none() && path.len() <= MAX_DEPTH {
            let Some(node) = self.node(at)? else { return Ok(None) };
            (at, origin) = (node.parent, node.origin.clone());
            if origin.is_none() {
                path.push(node);
            }
        }
        let mut key = origin.map_or_else(String::new, |origin| origin.as_str().to_owned());
        key.extend(path.iter().rev().map(|node| node.component.suffix()));
        Ok(Key::new(&key))
    }

    /// Everything about bringing `ino` to S3; `None` when nothing is pending, or it is gone.
    pub fn task(&self, ino: Ino) -> Result<Option<Task>, IndexError> {
        todo!("{ino}")
    }

    /// Says what S3 has now.
    pub async fn settle(&self, settled: Settled) -> Result<Outcome, IndexError> {
        todo!("{settled:?}")
    }

    /// Says that S3 needs nothing of `ino` (an implied directory, a file that is not uploaded), unless it changed since `change`.
    pub async fn settle_without(&self, ino: Ino, change: u64) -> Result<Outcome, IndexError> {
        todo!("{ino} {change}")
    }

    /// Says that the object at `key` was removed from S3.
    pub async fn removed(&self, key: Key, sent: Tick, answered: Tick) -> Result<(), IndexError> {
        todo!("{key} {sent:?} {answered:?}")
    }

    /// Says that `key` has another version than the one that was to be removed: it is somebody else's, and appears again.
    pub async fn not_ours(&self, key: Key, meta: ObjectMeta, sent: Tick, answered: Tick) -> Result<(), IndexError> {
        todo!("{key} {meta:?} {sent:?} {answered:?}")
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
        todo!("{ino} {meta:?} {sent:?} {answered:?}")
    }

    /// Both sides changed `key`: the local inode goes on under `name` of the same directory, as a new one, and what S3 has takes the old name.
    pub async fn conflict(
        &self,
        ino: Ino,
        name: Name,
        theirs: ObjectMeta,
        (sent, answered): (Tick, Tick),
        record: Conflict,
    ) -> Result<(), IndexError> {
        todo!("{ino} {name} {theirs:?} {sent:?} {answered:?} {record:?}")
    }

    /// Keeps a note of a conflict that needed no second name.
    pub async fn note_conflict(&self, record: Conflict) -> Result<(), IndexError> {
        todo!("{record:?}")
    }

    /// Conflicts noted, oldest first, with their numbers.
    pub fn conflicts(&self) -> Result<Vec<(u64, Conflict)>, IndexError> {
        todo!()
    }

    /// Forgets a conflict that a person has dealt with.
    pub async fn forget_conflict(&self, number: u64) -> Result<(), IndexError> {
        todo!("{number}")
    }

    /// Gives up to `max` entries of a moved directory rows of their own, after S3's listing of its old prefix is applied.
    pub async fn expand(&self, dir: Ino, max: usize) -> Result<Expanded, IndexError> {
        todo!("{dir} {max}")
    }

    /// Makes a file that is not to be in S3 a local one: it has no version there, and the one that it had is to be removed.
    /// Its bytes are all here, in `local` or staged.
    pub async fn localise(&self, ino: Ino, change: u64) -> Result<Outcome, IndexError> {
        todo!("{ino} {change}")
    }

    /// What `writeback` noted of the multipart upload of `ino`.
    pub fn upload(&self, ino: Ino) -> Result<Option<Vec<u8>>, IndexError> {
        todo!("{ino}")
    }

    /// All of them.
    pub fn uploads(&self) -> Result<Vec<(Ino, Vec<u8>)>, IndexError> {
        todo!()
    }

    /// Notes the multipart upload of `ino`, durably, before its first part; `None` forgets it.
    pub async fn note_upload(&self, ino: Ino, upload: Option<Vec<u8>>) -> Result<(), IndexError> {
        todo!("{ino} {upload:?}")
    }

    /// The attributes of objects that carry none.
    pub fn defaults(&self) -> Defaults {
        self.shared.defaults
    }

    /// Wall time, as changes are dated.
    pub fn wall(&self) -> Time {
        self.shared.clock.wall()
    }
}
