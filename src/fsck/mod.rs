//! `fsck`: compares the index with itself, with the files of the cache, and with S3; repairs what can be repaired.
//! Owns: nothing. Each part looks for itself, in batches of bounded size, off the threads that answer.
//!
//! | what is wrong | what `--repair` does |
//! |---|---|
//! | rows of the index contradict each other | nothing: it is a bug, and S3 has what the journal does not |
//! | a cached object is lost, or not as long as it should be | lets go of it: it is fetched again |
//! | a file that nobody knows | unlinks it |
//! | bytes that only this disk had are lost | S3's version takes their place, if there is one, and is noted as a conflict |
//! | S3 has something else than the index says | asks S3 again, through the one reconcile function |
//! | a multipart upload of ours that nothing needs | aborts it |
//!
//! Invariant: the server works meanwhile, so a difference is told only when it is still there at a second look.

mod data;
mod remote;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::content::Content;
use crate::index::{Index, IndexError, Rescued};
use crate::revalidate::{Revalidator, WaitError};
use crate::store::{self, WriteStore};
use crate::types::{Clock, Ino, Key};

/// Problems told one by one; more of them are counted.
pub const MOST_TOLD: usize = 1_000;

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Compare with S3, too: lists the whole bucket.
    pub remote: bool,
    /// Repair what can be repaired.
    pub repair: bool,
}

/// What `fsck` came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Inodes looked at.
    pub inodes: u64,
    /// Entries of directories looked at.
    pub entries: u64,
    /// Rows of the journal looked at.
    pub journal: u64,
    /// Files looked at: cached objects and staged changes.
    pub files: u64,
    /// Keys of S3 looked at.
    pub keys: u64,
    /// Problems found.
    pub found: u64,
    /// Those of them that are repaired.
    pub repaired: u64,
    /// The first of them.
    pub problems: Vec<Problem>,
    /// What a repair of the index has found a new name for.
    pub rescued: Vec<Rescued>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// In words, with what to do where `--repair` does nothing.
    pub what: String,
    /// The key of the file that it is about, by its path.
    pub key: Option<String>,
    /// Whether it is repaired.
    pub repaired: bool,
}

/// Why a check could not be brought to its end.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Wait(#[from] WaitError),
}

/// The side of S3; there is none without a server.
#[derive(Clone)]
pub struct Remote {
    /// Asks about single files.
    pub revalidator: Arc<Revalidator>,
    /// S3, for what nobody waits for.
    pub store: Arc<dyn WriteStore>,
    /// When it was asked.
    pub clock: Clock,
}

/// Checks. Dropping it stops it between two batches. What cannot be checked to its end is a problem as well.
pub async fn run(index: &Arc<Index>, content: &Arc<Content>, remote: Option<Remote>, options: Options) -> Report {
    let mut told = Told { repair: options.repair, ..Told::default() };
    let looked = check_index(index, &mut told).await;
    told.looked("the index", looked);
    let looked = data::check(index, content, &mut told).await;
    told.looked("the files of the cache", looked);
    if let Some(remote) = remote.filter(|_| options.remote) {
        let looked = remote::check(index, &remote, &mut told).await;
        told.looked("S3", looked);
    }
    told.report
}

async fn check_index(index: &Arc<Index>, told: &mut Told) -> Result<(), Error> {
    let look = || blocking(index, |index| index.check(MOST_TOLD).map_err(Error::from));
    let found = look().await?;
    let report = &mut told.report;
    (report.inodes, report.entries, report.journal) = (found.inodes, found.entries, found.journal);
    let untold = found.found - found.told.len() as u64;
    let mut left = None;
    if told.repair && found.found > 0 {
        told.report.rescued = index.repair().await?;
        left = Some(look().await?);
    }
    let is_left = |what: &String| left.as_ref().is_none_or(|left| left.told.contains(what));
    let new = left.iter().flat_map(|left| &left.told).filter(|what| !found.told.contains(what));
    for what in found.told.iter().chain(new) {
        told.tell(None, format!("the index contradicts itself: {what}"), !is_left(what));
    }
    told.report.found += untold;
    told.report.repaired += if left.is_some_and(|left| left.found == 0) { untold } else { 0 };
    Ok(())
}

/// The report, as it grows.
#[derive(Default)]
struct Told {
    report: Report,
    repair: bool,
}

impl Told {
    fn tell(&mut self, key: Option<Key>, what: String, repaired: bool) {
        let report = &mut self.report;
        report.found += 1;
        report.repaired += u64::from(repaired);
        if report.problems.len() < MOST_TOLD {
            report.problems.push(Problem { what, key: key.map(|key| key.to_string()), repaired });
        }
    }

    fn looked(&mut self, at: &str, result: Result<(), Error>) {
        if let Err(error) = result {
            self.tell(None, format!("{at} cannot be looked at to the end: {error}"), false);
        }
    }

    /// Whether another problem would be neither told nor repaired: then it is not worth a second look.
    fn only_counts(&self) -> bool {
        !self.repair && self.report.problems.len() >= MOST_TOLD
    }
}

/// Runs `work` where it may block.
async fn blocking<R, T>(room: &Arc<R>, work: impl FnOnce(&R) -> Result<T, Error> + Send + 'static) -> Result<T, Error>
where
    R: Send + Sync + 'static,
    T: Send + 'static,
{
    let room = room.clone();
    spawn_blocking(move || work(&room)).await.map_err(io::Error::other)?
}

/// The key that a person knows an inode by.
fn key_of(index: &Index, ino: Ino) -> Option<Key> {
    index.key(ino).ok().flatten()
}
