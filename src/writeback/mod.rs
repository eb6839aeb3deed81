//! Brings to S3 what was changed here: drains the journal, in parallel where nothing depends on it.
//! Owns: when to upload and in which order, the uploads under way, backoff, conflicts.
//! Invariants
//! - The journal (`index`) alone says what is to be done; a task is planned from one commit, carried out, and
//!   told to the index. Doing it again after a crash does no harm.
//! - Nothing is written over a version that is not the one the local change was made of (`If-Match`,
//!   `If-None-Match`). What S3 has instead is kept, and so is what is here (D4).
//! - One task an inode at a time, and one a key.
//! - A failure is retried for ever, later and later; it never goes by in silence.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::content::Content;
use crate::index::Index;
use crate::revalidate::Revalidator;
use crate::store::WriteStore;
use crate::types::{Clock, Ino};

/// What to do when both sides changed (D4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
}

/// Names that are not uploaded.
#[derive(Clone, Debug, Default)]
pub struct Exclude {}

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

/// The drain of the journal.
#[derive(Debug)]
pub struct Writeback {}

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

impl Writeback {
    /// Puts it together; `run` starts it.
    pub fn new(rooms: Rooms, settings: Settings, clock: Clock) -> Arc<Writeback> {
        let _ = (rooms, settings, clock);
        todo!()
    }

    /// The owner task. On `stop`, uploads that are nearly done end, the others are left to the next start.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        stop.cancelled().await;
    }

    /// Waits until S3 has every change made before the call: of `under` and what is below it, or of everything (D5).
    /// Uploads what is waiting for quiet at once.
    /// # Errors
    /// What cannot be brought to S3, and why, as soon as nothing else is left to wait for.
    pub async fn synced(&self, under: Option<Ino>) -> Result<(), Vec<Failure>> {
        let _ = under;
        todo!()
    }

    /// What is still to be done.
    pub fn progress(&self) -> Progress {
        todo!()
    }
}

impl Exclude {
    /// From globs, each matched against the last component of a path.
    /// # Errors
    /// What is wrong with one of them.
    pub fn new(globs: &[String]) -> Result<Exclude, String> {
        let _ = globs;
        todo!()
    }

    /// Whether a file of that name stays here.
    pub fn matches(&self, name: &[u8]) -> bool {
        let _ = name;
        todo!()
    }
}
