//! Brings bytes here: the range a READ waits for (F5), what a reader will want next, whole versions.
//! Owns: the transfers under way, their tasks, and how many requests they make at once.
//! Invariants
//! - A range of a version is asked for once, however many wait for it; the request outlives the waiters,
//!   and what it brought is kept.
//! - Every GET carries the version's ETag in `If-Match`; another version found instead goes to
//!   `index.apply`, and whoever waits starts again with what the index then says.
//! - What a client waits for never queues behind what nobody waits for: the two have separate lanes and stores.
//! - Of a file that is changed here, the index knows the version's file before anybody has bytes of it: so it has what was
//!   read of the version when S3 has lost it. (A fetch that opens its file while the first change commits makes it known when
//!   it saves it.)

mod adopt;
mod ahead;
mod body;
mod download;
mod transfer;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use self::body::{Told, Trouble, get_range};
use self::transfer::{Claim, End, Registry, Transfer, split};
use super::{Settings, Stores, WaitError};
use crate::content::{Content, Object};
use crate::index::{Index, IndexError, Node, Observation, Seen, Source, Verdict};
use crate::store::{self, RequestKind, Store, Turn};
use crate::types::{Clock, Ino};

pub use self::body::Body;
pub use self::download::DownloadError;

/// 1 MiB: what is asked for at least, so that small reads do not make a request each.
const BLOCK_BYTES: u64 = 1 << 20;
/// 8 MiB: up to here one GET brings the whole rest; above, S3 is faster in pieces of this size side by side.
const PIECE_BYTES: u64 = 8 << 20;
/// Pieces of one object side by side while it is brought here whole.
const PIECES_AT_ONCE: usize = 4;
/// Requests that clients wait for; each holds about 1 MiB of its body.
const FOREGROUND: usize = 64;
/// Requests that nobody waits for.
const BACKGROUND: usize = 32;
/// Requests without a single byte before one gives up on a range; whoever still waits asks again.
const TRIES: u32 = 5;
/// Pause after the first of these; doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// New versions in the course of one fetch before the client is asked to come again.
const VERSIONS: usize = 5;
/// How long a reader of a large object is remembered after its last read.
const IDLE: Duration = Duration::from_secs(30);

/// Brings bytes here.
pub struct Fetcher {
    index: Arc<Index>,
    content: Arc<Content>,
    stores: Stores,
    settings: Settings,
    clock: Clock,
    registry: Arc<Registry>,
    foreground: Lane,
    background: Lane,
    /// Held by the one who waits for the next turn of the budget: so all of them are one in that line.
    line: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Whether a fetch that no client waits for waits for the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// For each piece, before it claims it.
    Budget,
    /// Never: somebody asked for it.
    Free,
}

/// A bound on requests, and the store they go to.
#[derive(Clone)]
struct Lane {
    store: Arc<dyn Store>,
    slots: Arc<Semaphore>,
}

impl Fetcher {
    /// Makes it; nothing runs until something is asked for.
    pub fn new(
        index: Arc<Index>,
        content: Arc<Content>,
        stores: Stores,
        settings: Settings,
        clock: Clock,
    ) -> Arc<Fetcher> {
        let lane =
            |store: &Arc<dyn Store>, slots| Lane { store: store.clone(), slots: Arc::new(Semaphore::new(slots)) };
        Arc::new(Fetcher {
            foreground: lane(&stores.foreground, FOREGROUND),
            background: lane(&stores.background, BACKGROUND),
            index,
            content,
            stores,
            settings,
            clock,
            registry: Arc::default(),
            line: tokio::sync::Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Brings `range` of the current version of `ino` here: returns once that range is (F5), together
    /// with the node whose version it is. Fetches ahead when reads are sequential. Of a file that is changed here it is
    /// the version below the change, whose length is not the file's.
    /// # Errors
    /// `Busy` after the deadline; the request goes on. `Gone`, `Denied`, `NoSpace`, `Failed`.
    pub async fn fetch(self: &Arc<Self>, ino: Ino, range: Range<u64>) -> Result<(Arc<Node>, Arc<Object>), WaitError> {
        let fetched = timeout(self.settings.deadline, self.fetch_current(ino, range)).await;
        fetched.unwrap_or(Err(WaitError::Busy))
    }

    /// Brings all that is missing of the current version of `ino` here, behind what clients wait for.
    /// Tells how many bytes were fetched. No deadline; dropping the future stops it, what came is kept.
    /// # Errors
    /// As `fetch`; `Busy` when S3 is not reachable.
    pub async fn complete(self: &Arc<Self>, ino: Ino, pace: Pace) -> Result<u64, WaitError> {
        let mut fetched = 0;
        for _ in 0..VERSIONS {
            let (node, transfer) = self.join(ino)?;
            if node.local.is_some_and(|local| local.complete) {
                return Ok(fetched);
            }
            match self.complete_version(&transfer, pace, &mut fetched).await {
                Ok(()) => return Ok(fetched),
                Err(End::Changed) => {}
                Err(End::Failed(error)) => return Err(error),
            }
        }
        Err(WaitError::Busy)
    }

    /// See [`super::Revalidator::keep`].
    pub(super) async fn keep(&self, ino: Ino) {
        let transfer = self.registry.of(ino);
        if let Some((object, _)) = transfer.as_ref().and_then(|transfer| transfer.file.get()) {
            self.save(object).await;
        }
    }

    /// Waits until no fetch goes on behind an answer.
    pub(super) async fn quiet(&self) {
        super::none_running(&self.tasks).await;
    }

    /// Ends every request under way, and waits for their tasks. What came is kept.
    pub async fn shut_down(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn fetch_current(
        self: &Arc<Self>,
        ino: Ino,
        range: Range<u64>,
    ) -> Result<(Arc<Node>, Arc<Object>), WaitError> {
        for _ in 0..VERSIONS {
            let (node, transfer) = self.join(ino)?;
            match self.bring(&transfer, &range).await {
                // the node again: its attributes may have become known meanwhile
                Ok(object) => return Ok((self.node_of(&transfer)?.unwrap_or(node), object)),
                Err(End::Changed) => {}
                Err(End::Failed(error)) => return Err(error),
            }
        }
        Err(WaitError::Busy)
    }

    /// The transfer of the version that the index says S3 has.
    fn join(&self, ino: Ino) -> Result<(Arc<Node>, Arc<Transfer>), WaitError> {
        let node = self.index.node(ino).map_err(failed)?.ok_or(WaitError::Gone)?;
        let Some(remote) = &node.remote else { return Err(WaitError::Failed) };
        let key = self.index.remote_key(ino).map_err(failed)?.ok_or(WaitError::Gone)?;
        let transfer = self.registry.join(&node, remote, key, &self.content);
        Ok((node, transfer))
    }

    /// The node, if its version is still the transfer's.
    fn node_of(&self, transfer: &Transfer) -> Result<Option<Arc<Node>>, WaitError> {
        let node = self.index.node(transfer.ino).map_err(failed)?;
        Ok(node.filter(|n| n.remote.as_ref().is_some_and(|r| r.etag == transfer.version.etag)))
    }

    /// Waits until `range` is here, and sees to it that it comes.
    async fn bring(self: &Arc<Self>, transfer: &Arc<Transfer>, range: &Range<u64>) -> Result<Arc<Object>, End> {
        let object = self.file(transfer).await?;
        let wanted = self.widen(range, transfer.version.size);
        self.read_ahead(transfer, &object, &wanted);
        loop {
            let moved = transfer.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if object.has(range.clone()) {
                return Ok(object);
            }
            if let Some(end) = transfer.end() {
                return Err(end);
            }
            for claim in transfer.claim(&object, wanted.clone(), PIECE_BYTES, usize::MAX) {
                self.spawn_piece(claim, object.clone());
            }
            tokio::select! {
                _ = object.wait(range.clone()) => {}
                _ = moved => {}
            }
        }
    }

    /// What to ask for when `range` is wanted: whole blocks; of a small object all the rest.
    fn widen(&self, range: &Range<u64>, size: u64) -> Range<u64> {
        let start = range.start.min(size) / BLOCK_BYTES * BLOCK_BYTES;
        if self.is_small(size) {
            return start..size;
        }
        start..range.end.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES).min(size)
    }

    fn is_small(&self, size: u64) -> bool {
        size <= PIECE_BYTES.max(self.settings.small_object)
    }

    /// The file of the transfer's version: the one there is, or a new one.
    async fn file(self: &Arc<Self>, transfer: &Arc<Transfer>) -> Result<Arc<Object>, End> {
        let file = transfer.file.get_or_try_init(|| self.open_file(transfer)).await;
        file.map(|(object, _)| object.clone()).map_err(|error| disk_failed(&error))
    }

    async fn open_file(self: &Arc<Self>, transfer: &Arc<Transfer>) -> io::Result<(Arc<Object>, crate::content::Hold)> {
        let version = &transfer.version;
        // the index once more: a transfer that ended just now may have left its file
        let node = self.index.node(transfer.ino).map_err(io::Error::other)?;
        let current = node.filter(|n| n.remote.as_ref().is_some_and(|r| r.etag == version.etag));
        let mut found = None;
        if let Some(local) = current.and_then(|node| node.local) {
            found = self.content.try_get(local.object)?.filter(|object| object.size() == version.size);
            if found.is_none() {
                self.content.discard(local.object).await?;
            }
        }
        let object = match found {
            Some(object) => object,
            None => self.content.create(version.size).await?,
        };
        object.bind(transfer.ino, version.etag.clone());
        if self.index.node(transfer.ino).map_err(io::Error::other)?.is_some_and(|node| node.staged.is_some()) {
            self.content.save(&object).await?;
        }
        // a small file is made known once, when it is complete
        if !self.is_small(version.size) || object.is_complete() {
            self.spawn_save(transfer, &object);
        }
        if !self.is_small(version.size) {
            self.spawn_driver(transfer, &object);
        }
        Ok((object.clone(), object.hold()))
    }

    /// Fetches one claimed piece in its own task: whoever waits for it may go, the bytes still come.
    fn spawn_piece(self: &Arc<Self>, claim: Claim, object: Arc<Object>) {
        let fetcher = self.clone();
        self.spawn(async move {
            let Ok(_slot) = fetcher.foreground.slots.clone().acquire_owned().await else { return };
            fetcher.fetch_piece(&fetcher.foreground.store, claim, &object).await;
        });
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                _ = stop.cancelled() => {}
                _ = task => {}
            }
        });
    }

    /// Fetches a claimed piece, asking again for what is missing while S3 is in trouble; tells how many bytes came.
    async fn fetch_piece(&self, store: &Arc<dyn Store>, claim: Claim, object: &Arc<Object>) -> u64 {
        let transfer = claim.transfer.clone();
        let missing = || -> u64 { object.missing(claim.range.clone()).iter().map(|r| r.end - r.start).sum() };
        let (all, mut left, mut tries) = (missing(), missing(), 0);
        while let Some(gap) = object.missing(claim.range.clone()).into_iter().next() {
            let Err(trouble) = self.fetch_gap(store, &transfer, object, gap).await else { continue };
            let error = match self.settle(&transfer, object, trouble).await {
                Ok(end) => {
                    transfer.finish(end);
                    break;
                }
                Err(error) => error,
            };
            tries = if missing() < left { 1 } else { tries + 1 };
            left = missing();
            debug!(key = %transfer.version.key, tries, %error, "fetch broke off");
            if tries >= TRIES {
                break;
            }
            sleep((FIRST_PAUSE * 2u32.pow(tries - 1)).min(LAST_PAUSE)).await;
        }
        let fetched = all - missing();
        drop(claim);
        if object.is_complete() {
            self.save(object).await;
        }
        fetched
    }

    async fn fetch_gap(
        &self,
        store: &Arc<dyn Store>,
        transfer: &Transfer,
        object: &Arc<Object>,
        gap: Range<u64>,
    ) -> Result<(), Trouble> {
        self.content.make_room(gap.end - gap.start).await.map_err(Trouble::Disk)?;
        let told = get_range(&**store, &self.clock, &transfer.version, object, gap).await?;
        self.learn(transfer, told).await;
        Ok(())
    }

    /// A GET that brought the version has also told that it is still current, and its attributes.
    async fn learn(&self, transfer: &Transfer, told: Told) {
        let Told { meta, sent, answered } = told;
        if meta.user.is_some() && !transfer.attributes_told.swap(true, Ordering::AcqRel) {
            let (key, seen) = (transfer.version.key.clone(), Seen::Object(meta));
            let observation = Observation { key, seen, sent, answered, source: Source::Fetch, content: None };
            match self.index.apply(observation).await {
                Ok(applied) if applied.verdict == Verdict::Late => {
                    transfer.attributes_told.store(false, Ordering::Release);
                    return;
                }
                Ok(_) => {}
                Err(error) => warn!(ino = %transfer.ino, %error, "cannot record attributes"),
            }
        }
        if let Ok(Some(node)) = self.node_of(transfer) {
            node.freshness.settle(sent, answered);
        }
    }

    /// How a transfer in trouble ends; `Err`: it does not, trying again may cure it.
    async fn settle(&self, transfer: &Transfer, object: &Arc<Object>, trouble: Trouble) -> Result<End, store::Error> {
        match trouble {
            Trouble::Again(error) => Err(error),
            Trouble::Changed(told) => self.look_again(transfer, told).await,
            Trouble::Refused(error) => Ok(refused(transfer, &error)),
            // larger than all the room there is: its own bytes make way for the ones wanted now
            Trouble::Disk(e) if e.kind() == io::ErrorKind::StorageFull && object.filled_bytes() > 0 => {
                Ok(self.content.discard(object.id()).await.map_or_else(|e| disk_failed(&e), |()| End::Changed))
            }
            Trouble::Disk(error) => Ok(disk_failed(&error)),
        }
    }

    /// The version is not the one S3 has: tells the index which one that is.
    async fn look_again(&self, transfer: &Transfer, told: Option<Told>) -> Result<End, store::Error> {
        let _one = transfer.asking.lock().await;
        if let Some(end) = transfer.end() {
            return Ok(end);
        }
        let key = transfer.version.key.clone();
        let (seen, sent, answered) = match told {
            Some(Told { meta, sent, answered }) => (Seen::Object(meta), sent, answered),
            None => {
                let sent = self.clock.now();
                let seen = match self.stores.foreground.head(&key).await {
                    Ok(meta) => Seen::Object(meta),
                    Err(store::Error::NotFound { .. }) => Seen::Absent,
                    Err(error @ store::Error::Unavailable { .. }) => return Err(error),
                    Err(error) => return Ok(refused(transfer, &error)),
                };
                (seen, sent, self.clock.now())
            }
        };
        let observation = Observation { key, seen, sent, answered, source: Source::Fetch, content: None };
        Ok(self.index.apply(observation).await.map_or_else(|e| End::Failed(failed(e)), |_| End::Changed))
    }

    /// Notes a read, and fetches what the reader will want next.
    fn read_ahead(self: &Arc<Self>, transfer: &Arc<Transfer>, object: &Arc<Object>, read: &Range<u64>) {
        let size = transfer.version.size;
        if self.is_small(size) || object.is_complete() {
            return;
        }
        // an eighth of the cache at most: reading ahead must not push out what is being read
        let most = self.content.usage().limit / 8;
        let (next, mark) = {
            let mut ahead = transfer.ahead.lock();
            (ahead.read(read, size, most), ahead.mark())
        };
        object.mark(mark);
        for piece in next.into_iter().flat_map(|range| split(range, PIECE_BYTES)) {
            self.spawn_ahead(transfer.clone(), object.clone(), piece);
        }
    }

    /// Claims only when its turn has come: until then a reader who wants it does not wait for it.
    fn spawn_ahead(self: &Arc<Self>, transfer: Arc<Transfer>, object: Arc<Object>, piece: Range<u64>) {
        let fetcher = self.clone();
        self.spawn(async move {
            let Ok(_slot) = fetcher.background.slots.clone().acquire_owned().await else { return };
            for claim in transfer.claim(&object, piece, PIECE_BYTES, usize::MAX) {
                fetcher.fetch_piece(&fetcher.background.store, claim, &object).await;
            }
        });
    }

    /// Follows a reader that finds all it wants here and so asks for nothing, while it goes on reading.
    fn spawn_driver(self: &Arc<Self>, transfer: &Arc<Transfer>, object: &Arc<Object>) {
        let (fetcher, transfer, object) = (self.clone(), transfer.clone(), object.clone());
        self.spawn(async move {
            while !object.is_complete() && transfer.end().is_none() {
                let Ok(reader) = timeout(IDLE, object.reader_passed()).await else { return };
                fetcher.read_ahead(&transfer, &object, &(reader..reader));
            }
        });
    }

    fn spawn_save(self: &Arc<Self>, transfer: &Arc<Transfer>, object: &Arc<Object>) {
        let (fetcher, transfer, object) = (self.clone(), transfer.clone(), object.clone());
        self.spawn(async move {
            fetcher.save(&object).await;
            drop(transfer);
        });
    }

    async fn save(&self, object: &Arc<Object>) {
        if let Err(error) = self.content.save(object).await {
            warn!(object = object.id().0, %error, "cannot record what is cached");
        }
    }

    async fn complete_version(
        self: &Arc<Self>,
        transfer: &Arc<Transfer>,
        pace: Pace,
        fetched: &mut u64,
    ) -> Result<(), End> {
        let object = self.file(transfer).await?;
        let workers = PIECES_AT_ONCE.min(split(0..transfer.version.size, PIECE_BYTES).take(PIECES_AT_ONCE).count());
        loop {
            let moved = transfer.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if object.is_complete() {
                self.save(&object).await;
                return Ok(());
            }
            if let Some(end) = transfer.end() {
                return Err(end);
            }
            let workers: FuturesUnordered<_> = (0..workers).map(|_| self.work(transfer, &object, pace)).collect();
            let (pieces, bytes) = workers.fold((0, 0), |a, b| async move { (a.0 + b.0, a.1 + b.1) }).await;
            *fetched += bytes;
            if pieces == 0 {
                // others fetch what is left
                tokio::select! {
                    _ = object.wait(0..u64::MAX) => {}
                    _ = moved => {}
                }
            } else if bytes == 0 && transfer.end().is_none() && !object.is_complete() {
                return Err(End::Failed(WaitError::Busy));
            }
        }
    }

    async fn turn(&self) -> Turn {
        let _first = self.line.lock().await;
        self.stores.budget.turn(RequestKind::Get).await
    }

    /// Fetches piece after piece until none is left to claim, or one brought nothing. Tells how many, and their bytes.
    async fn work(&self, transfer: &Arc<Transfer>, object: &Arc<Object>, pace: Pace) -> (u64, u64) {
        let (mut pieces, mut bytes) = (0, 0);
        while transfer.end().is_none() {
            let _turn = match pace {
                Pace::Budget => Some(self.turn().await),
                Pace::Free => None,
            };
            let Ok(_slot) = self.background.slots.acquire().await else { break };
            let Some(claim) = transfer.claim(object, 0..transfer.version.size, PIECE_BYTES, 1).pop() else { break };
            let came = self.fetch_piece(&self.background.store, claim, object).await;
            (pieces, bytes) = (pieces + 1, bytes + came);
            if came == 0 {
                break;
            }
        }
        (pieces, bytes)
    }
}

fn failed(error: IndexError) -> WaitError {
    warn!(%error, "the index failed");
    WaitError::Failed
}

fn refused(transfer: &Transfer, error: &store::Error) -> End {
    warn!(ino = %transfer.ino, key = %transfer.version.key, %error, "S3 refused");
    End::Failed(if matches!(error, store::Error::Denied { .. }) { WaitError::Denied } else { WaitError::Failed })
}

fn disk_failed(error: &io::Error) -> End {
    if error.kind() == io::ErrorKind::StorageFull {
        return End::Failed(WaitError::NoSpace);
    }
    warn!(%error, "the cache disk failed");
    End::Failed(WaitError::Failed)
}

#[cfg(test)]
mod tests;
