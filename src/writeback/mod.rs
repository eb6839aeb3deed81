//! Brings to S3 what was changed here: drains the journal, in parallel where nothing depends on it.
//! Owns: when to upload and in which order, the uploads under way, backoff, conflicts.
//! Invariants
//! - The journal (`index`) alone says what is to be done; a task is planned from one commit, carried out, and
//!   told to the index. Doing it again after a crash loses nothing.
//! - What is sent is noted before, durably, so that what was never answered is known for ours (`sent`).
//! - Nothing is written over a version that is not the one the local change was made of (`If-Match`,
//!   `If-None-Match`). What S3 has instead is kept, and so is what is here (D4).
//! - One task an inode at a time, and one a key.
//! - A failure is retried for ever, later and later; it never goes by in silence.
//!
//! `drain` takes from the `queue` what is due and gives it to `task`, which does what the `plan` says: `put` and
//! `multipart` upload what lies over a `base`, `moves` copies, `remove` deletes, `conflict` judges what S3 refused. `sync` waits and reports.

mod backoff;
mod base;
mod conflict;
mod drain;
mod exclude;
mod headers;
mod moves;
mod multipart;
mod plan;
mod put;
mod queue;
mod remove;
mod sent;
mod sync;
mod task;
#[cfg(test)]
mod tests;
mod trouble;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

pub use exclude::{DEFAULT_EXCLUDES, Exclude};
pub use sync::Counts;

use crate::content::Content;
use crate::index::{Index, Work};
use crate::revalidate::Revalidator;
use crate::store::conditions::{self, Conditions};
use crate::store::{self, Announce, WriteStore, announcing};
use crate::types::{Clock, Ino, Key, Tick};
use backoff::Outage;
use queue::Queue;
use sent::Digests;
use sync::{Counters, Lately, Waiter};
use trouble::Trouble;

/// 64 MiB of bodies in memory at once, however many uploads there are.
const BODY_BYTES: usize = 64 << 20;
/// What `memory` counts in: a semaphore's permits are 32 bits.
const BODY_UNIT: u64 = 1 << 10;

/// What to do when both sides changed (D4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnConflict {
    /// S3's version keeps the name, the local one gets another beside it.
    #[default]
    KeepBoth,
    /// The local version replaces S3's.
    LocalWins,
    /// S3's version replaces the local one.
    RemoteWins,
}

/// Settings of the uploads.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--upload-delay`: how long a file must be quiet.
    pub upload_delay: Duration,
    /// How long a file that is never quiet waits at most.
    pub longest_delay: Duration,
    /// Uploads at once.
    pub uploads: usize,
    /// Above so many bytes an object is uploaded in parts.
    pub multipart_threshold: u64,
    /// Length of a part, where 10,000 of them are enough.
    pub part_bytes: u64,
    /// `--on-conflict`.
    pub on_conflict: OnConflict,
    /// Names that stay here (`--exclude`).
    pub exclude: Exclude,
    /// What stands in the names of conflicting copies.
    pub host: String,
    /// Which conditions on writes the store honours; `None`: it is asked before the first write.
    pub conditions: Option<Conditions>,
}

/// Why something is not in S3 yet.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// Its key.
    pub key: String,
    /// In words, with what to do.
    pub why: String,
    /// Whether it may get better by itself (S3 is not reachable) or not (denied, name too long).
    pub may_pass: bool,
}

/// What is still to be brought to S3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Changes that S3 lacks; files that stay here are not counted.
    pub pending: u64,
    /// Bytes to be uploaded.
    pub bytes: u64,
    /// Age of the oldest change.
    pub oldest: Duration,
    /// What failed at its last try.
    pub failures: Vec<Failure>,
    /// Objects of renamed directories that are still to be copied.
    pub moving: u64,
}

/// The rooms it works with.
#[derive(Clone)]
pub struct Rooms {
    /// The journal.
    pub index: Arc<Index>,
    /// The bytes.
    pub content: Arc<Content>,
    /// Fetches what is not here, lists what is not listed.
    pub revalidator: Arc<Revalidator>,
    /// S3.
    pub store: Arc<dyn WriteStore>,
}

/// The drain of the journal.
pub struct Writeback {
    rooms: Rooms,
    settings: Settings,
    clock: Clock,
    /// The store, asked what is there before each write whose condition it would ignore.
    writes: OnceCell<Arc<dyn WriteStore>>,
    /// Who is told what was written.
    announce: OnceLock<Arc<dyn Announce>>,
    state: Mutex<State>,
    /// Something in `state` is not as it was: for the drain.
    poked: Notify,
    /// A row was settled or failed: for whoever waits in `synced`.
    advanced: Notify,
    /// Room for bodies in memory.
    memory: Semaphore,
    /// The right to make a copy of a file.
    freezing: Semaphore,
    /// Whether entity tags are digests.
    digests: Digests,
    counters: Counters,
    lately: Mutex<Option<Lately>>,
    stopping: CancellationToken,
}

/// What the drain, its tasks and those who wait share. Never locked across anything that waits.
struct State {
    queue: Queue,
    outage: Outage,
    /// Why nobody answered, for a person.
    silence: Option<Failure>,
    /// Tasks that have asked S3 and only tell the index what it said.
    settling: usize,
    /// Keys that are being written, and by whose task.
    keys: HashMap<Key, Work>,
    /// Long files that changed during their last upload.
    restless: HashSet<Ino>,
    waiters: Vec<Waiter>,
    waiter_numbers: u64,
}

impl std::fmt::Debug for Writeback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writeback").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Writeback {
    /// Puts it together; `run` starts it.
    pub fn new(rooms: Rooms, settings: Settings, clock: Clock) -> Arc<Writeback> {
        let state = State {
            queue: Queue::new(settings.upload_delay, settings.longest_delay),
            outage: Outage::default(),
            silence: None,
            settling: 0,
            keys: HashMap::new(),
            restless: HashSet::new(),
            waiters: Vec::new(),
            waiter_numbers: 0,
        };
        Arc::new(Writeback {
            rooms,
            settings,
            clock,
            writes: OnceCell::new(),
            announce: OnceLock::new(),
            state: Mutex::new(state),
            poked: Notify::new(),
            advanced: Notify::new(),
            memory: Semaphore::new(BODY_BYTES / BODY_UNIT as usize),
            freezing: Semaphore::new(1),
            digests: Digests::default(),
            counters: Counters::default(),
            lately: Mutex::default(),
            stopping: CancellationToken::new(),
        })
    }

    /// Tells `announce` of everything written from now on. Once, and before `run`: later it may be too late.
    pub fn announce_to(&self, announce: Arc<dyn Announce>) {
        let _ = self.announce.set(announce);
    }

    /// Runs one request: notes when it was sent and answered, and that S3 answers.
    async fn ask<T>(&self, request: impl Future<Output = Result<T, store::Error>>) -> Asked<T> {
        let sent = self.clock.now();
        let answer = request.await;
        let answered = self.clock.end();
        if !matches!(answer, Err(store::Error::Unavailable { .. })) {
            self.answered(answered);
        }
        Asked { answer, at: Stamps { sent, answered } }
    }

    /// The store to write to. Before the first write it is found out which conditions it honours.
    async fn writes(&self) -> Result<&Arc<dyn WriteStore>, Trouble> {
        let store = &self.rooms.store;
        let find_out = async {
            let found = match self.settings.conditions {
                Some(conditions) => return Ok(self.announced(conditions::careful(store.clone(), conditions))),
                None => conditions::probe(&**store, &conditions::probe_key()).await,
            };
            let conditions = match found {
                Ok(conditions) => conditions,
                Err(error @ store::Error::Unavailable { .. }) => return Err(Trouble::from(error)),
                Err(error) => {
                    tracing::warn!(%error, "cannot find out which conditions on writes S3 honours: asking before each");
                    Conditions::none()
                }
            };
            if conditions != Conditions::all() {
                tracing::warn!("{conditions}");
            }
            Ok(self.announced(conditions::careful(store.clone(), conditions)))
        };
        self.writes.get_or_try_init(|| find_out).await
    }

    /// `store`, with who is told of its writes.
    fn announced(&self, store: Arc<dyn WriteStore>) -> Arc<dyn WriteStore> {
        match self.announce.get() {
            Some(announce) => announcing(store, announce.clone()),
            None => store,
        }
    }

    /// S3 answered, whatever it said.
    fn answered(&self, now: Tick) {
        let mut state = self.state.lock();
        if state.outage.answered() {
            state.silence = None;
            state.queue.answered_again(now);
            tracing::info!("S3 answers again: uploads go on");
            self.poked.notify_one();
        }
    }

    /// Whether the file of that node stays here.
    fn is_excluded(&self, node: &crate::index::Inode) -> bool {
        node.kind != crate::index::Kind::Dir && self.settings.exclude.matches(node.component.text().as_bytes())
    }
}

/// When a request was sent and answered.
#[derive(Clone, Copy, Debug)]
struct Stamps {
    sent: Tick,
    answered: Tick,
}

/// A request's answer and when it came.
struct Asked<T> {
    answer: Result<T, store::Error>,
    at: Stamps,
}
