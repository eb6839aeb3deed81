//! What a person asks for: `refresh` and `warm`. Both wait until it is done.

use futures::StreamExt;
use futures::stream;
use serde::{Deserialize, Serialize};

use super::check::{self, Outcome};
use super::fetch::Pace;
use super::listing::How;
use super::{Claim, Revalidator, Trouble, WaitError};
use crate::index::{Kind, Node, Source};
use crate::types::Ino;

/// Files of one command worked on at once.
const FILES_AT_ONCE: usize = 16;
/// Entries read from the index in one go.
const BATCH: usize = 1_000;

/// What `refresh` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// Keys that S3 was asked about.
    pub checked: u64,
    /// Of these, new, changed or gone.
    pub changed: u64,
}

/// What `warm` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warmed {
    /// Files brought here.
    pub files: u64,
    /// Their bytes that had to be fetched.
    pub bytes: u64,
    /// Files that were here already.
    pub already: u64,
}

impl Revalidator {
    /// Asks S3 now, however fresh the copy is: a file, or everything below a directory.
    pub async fn refresh(&self, ino: Ino) -> Result<Refreshed, WaitError> {
        self.refresh_now(ino).await.map_err(|trouble| trouble.to_wait())
    }

    async fn refresh_now(&self, ino: Ino) -> Result<Refreshed, Trouble> {
        let (node, _) = self.node_and_key(ino)?;
        if node.kind != Kind::Dir {
            let changed = self.check_now(ino).await? == Outcome::Changed;
            return Ok(Refreshed { checked: 1, changed: u64::from(changed) });
        }
        let how = How { store: &self.stores.background, recursive: true, patient: false, paced: false };
        let swept = self.sweep(ino, how, || ()).await?;
        let mut refreshed = Refreshed { checked: swept.keys.max(1), changed: swept.changed };
        let mut checks = stream::iter(swept.outdated).map(|ino| self.check_now(ino)).buffer_unordered(FILES_AT_ONCE);
        while let Some(outcome) = checks.next().await {
            match outcome {
                Ok(Outcome::Changed) => refreshed.changed += 1,
                Ok(Outcome::Unchanged) | Err(Trouble::Gone) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(refreshed)
    }

    /// Checks a file now; waits its turn when a check of it is under way.
    async fn check_now(&self, ino: Ino) -> Result<Outcome, Trouble> {
        let (node, _) = self.node_and_key(ino)?;
        let _claim = loop {
            match Claim::take(&node, &self.waiters) {
                Some(claim) => break claim,
                None => self.waiters.released(&node).await,
            }
        };
        self.check_file(ino, Source::Command).await
    }

    /// Has S3 tell the attributes of a file of which only a listing has spoken, before some of them are changed here, so that
    /// permissions are checked by what they are. Past the deadline, and without S3, by the defaults; the upload asks again.
    pub async fn describe(&self, ino: Ino) {
        let wanting = || self.index.node(ino).ok().flatten().filter(|node| check::wants_attributes(node));
        let asked = async {
            let Some(node) = wanting().filter(|node| node.kind != Kind::Dir) else { return };
            if node.freshness.is_pending() {
                self.waiters.released(&node).await;
            }
            if wanting().is_some()
                && let Err(trouble) = self.check_now(ino).await
            {
                tracing::debug!(%ino, error = ?trouble.to_wait(), "cannot ask for attributes before they are changed");
            }
        };
        let _ = tokio::time::timeout(self.settings.deadline, asked).await;
    }

    /// Brings a file here, or all files below a directory, after a listing of it.
    pub async fn warm(&self, ino: Ino) -> Result<Warmed, WaitError> {
        let (node, _) = self.node_and_key(ino).map_err(|trouble| trouble.to_wait())?;
        let mut warmed = Warmed::default();
        if node.kind != Kind::Dir {
            // what is new here is here
            let missing = if node.remote.is_some() { vec![ino] } else { Vec::new() };
            warmed.already += u64::from(missing.is_empty());
            self.warm_files(missing, &mut warmed).await?;
            return Ok(warmed);
        }
        self.refresh(ino).await?;
        let mut dirs = vec![ino];
        while let Some(dir) = dirs.pop() {
            self.warm_dir(dir, &mut dirs, &mut warmed).await?;
        }
        Ok(warmed)
    }

    async fn warm_dir(&self, dir: Ino, below: &mut Vec<Ino>, warmed: &mut Warmed) -> Result<(), WaitError> {
        let mut after = 0;
        loop {
            let entries = self.index.entries(dir, after, BATCH).map_err(|error| Trouble::Index(error).to_wait())?;
            let Some(last) = entries.last() else { return Ok(()) };
            after = last.cookie;
            let (dirs, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.node.kind == Kind::Dir);
            below.extend(dirs.iter().map(|entry| entry.node.ino));
            let is_here = |node: &Node| node.remote.is_none() || check::is_complete(node);
            let (here, missing): (Vec<_>, Vec<_>) = files.iter().partition(|entry| is_here(&entry.node));
            warmed.already += here.len() as u64;
            self.warm_files(missing.iter().map(|entry| entry.node.ino).collect(), warmed).await?;
        }
    }

    async fn warm_files(&self, files: Vec<Ino>, warmed: &mut Warmed) -> Result<(), WaitError> {
        let mut coming =
            stream::iter(files).map(|ino| self.fetcher.complete(ino, Pace::Free)).buffer_unordered(FILES_AT_ONCE);
        while let Some(fetched) = coming.next().await {
            match fetched {
                Ok(0) => warmed.already += 1,
                Ok(bytes) => {
                    warmed.files += 1;
                    warmed.bytes += bytes;
                }
                Err(WaitError::Gone) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
