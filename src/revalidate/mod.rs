//! When to ask S3, and how: checks behind answers, names and listings that are not here, fetches, the mirror.
//! Owns: the queue of checks, single flight per key, per listing and per range, the counters of F7.
//! Invariants
//! - One check of a key is in flight at a time; a key checked less than `recheck` ago is not asked again.
//! - Everything S3 says goes to `index.apply` or `index.apply_page`; nothing here decides what is newer.
//! - A new version of a file that was complete here is copied in whole and swapped by one transaction;
//!   of any other file the new version is swapped in at once and fetched when read (F2, F5).
//! - The queue is bounded; a check that finds it full is dropped and asked for again by the next touch.
//! - What nobody waits for takes a turn of `Stores::budget` before it claims anything, so that nobody comes to wait for the
//!   budget; what a client, or a person's command, waits for takes none. Reading ahead takes none either: a reader whose
//!   pieces come too late asks for smaller ones itself, which costs more.
//!
//! `queue` decides what is due and groups it, `owed` has what waits for the budget, `check` asks about one key, `batch` about many of one
//! directory, `listing` walks pages, `lookup` finds names that are not here, `fetch` brings bytes, `hinted` takes what
//! others say has changed, `sweep` finds what they did not say.

mod batch;
mod check;
mod claim;
mod commands;
pub mod fetch;
mod flights;
mod hinted;
mod listing;
mod lookup;
mod mirror;
mod outage;
mod owed;
mod queue;
mod stats;
mod sweep;
#[cfg(test)]
pub(crate) mod tests;

use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use commands::{Refreshed, Warmed};
pub use hinted::Effect;
pub use listing::ListingProgress;
pub use mirror::MirrorProgress;
pub use stats::FreshStats;
pub use sweep::{Rounds, SweepProgress, Tellers};

use crate::content::{Content, Object};
use crate::index::{Applied, Index, IndexError, Node, Observation, Seen, Source, Verdict};
use crate::store::{self, Budget, Store};
use crate::types::{Clock, Ino, Key, Name, Tick};
use claim::{Claim, Waiters};
use fetch::{DownloadError, Fetcher};
use flights::Flights;
use hinted::{Recent, Wanted};
use lookup::{Absences, Found};
use outage::Outage;
use owed::Owed;
use stats::Counters;

/// Directories and keys of which something is remembered: some MB at most.
const REMEMBERED: usize = 65_536;

/// What a wait for S3 can end in, for `fs/` to turn into an NFS error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WaitError {
    /// The deadline passed, or S3 is not reachable: the client should ask again (JUKEBOX).
    #[error("S3 has not answered in time")]
    Busy,
    /// The inode is gone (STALE).
    #[error("gone from S3")]
    Gone,
    /// The cache disk is full (NOSPC).
    #[error("the cache disk is full")]
    NoSpace,
    /// S3 refused (ACCES).
    #[error("denied by S3")]
    Denied,
    /// Anything else, already logged (IO).
    #[error("failed")]
    Failed,
}

/// The knobs of freshness; the defaults are `config.rs`'s.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A key checked less than this ago is not asked for again (`--recheck`).
    pub recheck: Duration,
    /// The same while events tell of changes (`--recheck-healthy`), of what was checked since they do.
    pub recheck_healthy: Duration,
    /// Longest wait of a client for S3 before JUKEBOX (`--deadline`).
    pub deadline: Duration,
    /// `--stale-limit one`: longest wait of an open for a check in flight (`--stale-wait`); `None` = never waits.
    pub stale_wait: Option<Duration>,
    /// Checks up to this size are one conditional GET; above, HEAD and ranged GETs (bytes).
    pub small_object: u64,
}

/// The two views of S3: what a client waits for must not queue behind what nobody waits for.
#[derive(Clone)]
pub struct Stores {
    /// For requests a client waits for.
    pub foreground: Arc<dyn Store>,
    /// For checks, the mirror and read-ahead.
    pub background: Arc<dyn Store>,
    /// Where checks and the mirror take a turn before they ask.
    pub budget: Arc<Budget>,
}

impl Stores {
    /// Both, decorated.
    pub fn map(self, with: impl Fn(Arc<dyn Store>) -> Arc<dyn Store>) -> Stores {
        Stores { foreground: with(self.foreground), background: with(self.background), ..self }
    }
}

/// Asks S3. Cheap to share behind an `Arc`.
pub struct Revalidator {
    /// Itself, for the tasks it starts.
    me: Weak<Revalidator>,
    index: Arc<Index>,
    content: Arc<Content>,
    stores: Stores,
    settings: Settings,
    clock: Clock,
    /// Tick since which events tell of every change; 0 = they do not.
    told_since: AtomicU64,
    /// Up to which tick copies are paid off that nobody uses and that were replaced for hints.
    unused_paid: AtomicU64,
    fetcher: Arc<Fetcher>,
    /// Checks that are due, and the end that `run` takes them from.
    queue: mpsc::Sender<Claim>,
    due: Mutex<Option<mpsc::Receiver<Claim>>>,
    waiters: Arc<Waiters>,
    /// Checks that wait for the budget.
    owed: Owed,
    outage: Outage,
    /// Keys whose last check was refused, and until when they are left alone.
    refused: Cache<Ino, Tick>,
    /// How many pages the last listing of a directory had.
    pages: Cache<Ino, u64>,
    /// Files of a directory asked alone within one `recheck`, and since when.
    alone: Cache<Ino, (Tick, usize)>,
    lookups: Flights<(Ino, Name), Option<Found>>,
    absences: Absences,
    recent: Recent,
    wanted: Mutex<Wanted>,
    listings: Flights<Ino, listing::State>,
    mirrored: Mutex<MirrorProgress>,
    swept: Mutex<sweep::Swept>,
    counters: Counters,
    /// Lookups and listings under way; they outlive whoever started them, but not `run`.
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Revalidator {
    /// Makes it; nothing runs until `run`.
    pub fn new(
        index: Arc<Index>,
        content: Arc<Content>,
        stores: Stores,
        settings: Settings,
        clock: Clock,
    ) -> Arc<Revalidator> {
        let fetcher = Fetcher::new(index.clone(), content.clone(), stores.clone(), settings, clock.clone());
        let (queue, due) = mpsc::channel(queue::QUEUE);
        Arc::new_cyclic(|me| Revalidator {
            me: me.clone(),
            outage: Outage::new(clock.clone()),
            index,
            content,
            stores,
            settings,
            clock,
            told_since: AtomicU64::new(0),
            unused_paid: AtomicU64::new(0),
            fetcher,
            queue,
            due: Mutex::new(Some(due)),
            waiters: Arc::default(),
            owed: Owed::default(),
            refused: Cache::new(REMEMBERED),
            pages: Cache::new(REMEMBERED),
            alone: Cache::new(REMEMBERED),
            lookups: Flights::default(),
            absences: Absences::new(),
            recent: Recent::new(),
            wanted: Mutex::default(),
            listings: Flights::default(),
            mirrored: Mutex::default(),
            swept: Mutex::default(),
            counters: Counters::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        })
    }

    /// The owner task: takes checks off the queue, groups them (one LIST for 13 or more keys of one
    /// directory where that is cheaper), runs them. Returns when `stop` is cancelled and all is settled.
    pub async fn run(self: Arc<Revalidator>, stop: CancellationToken) {
        let Some(due) = self.due.lock().take() else { return };
        tokio::select! {
            () = self.work_off(due, &stop) => {}
            () = self.pay_off() => {}
        }
        self.stopping.cancel();
        self.fetcher.shut_down().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Says since when events tell of every change, so that what was checked since then is checked less often; `None`: they
    /// do not, and everything is as without them at once.
    pub fn told_since(&self, since: Option<Tick>) {
        self.told_since.store(since.map_or(0, |since| since.0), Ordering::Release);
    }

    /// For how long what was checked at `checked` is not asked about again.
    pub fn recheck(&self, checked: Tick) -> Duration {
        let since = self.told_since.load(Ordering::Acquire);
        let is_told = since != 0 && checked.0 >= since;
        if is_told { self.settings.recheck.max(self.settings.recheck_healthy) } else { self.settings.recheck }
    }

    /// Strict mode (F6): whether an open of `node` must wait for a check that an earlier request set off.
    /// To be asked before this request's own `touch`.
    pub fn must_settle(&self, node: &Arc<Node>) -> bool {
        self.settings.stale_wait.is_some() && (node.freshness.is_pending() || self.is_held(node))
    }

    /// Waits until the check in flight on `ino` has settled, at most `stale_wait`. One that waits for the budget does not
    /// do so any longer.
    pub async fn settled(&self, ino: Ino) {
        let (Some(longest), Ok(Some(node))) = (self.settings.stale_wait, self.index.node(ino)) else { return };
        self.hurry(&node);
        // Past the limit the copy here is served, stale or not: that is what the limit says.
        let _ = tokio::time::timeout(longest, self.waiters.released(&node)).await;
    }

    /// Brings `range` of the current version of `ino` here: returns once that range is (F5), together
    /// with the node whose version it is. Fetches ahead when reads are sequential.
    pub async fn fetch(&self, ino: Ino, range: Range<u64>) -> Result<(Arc<Node>, Arc<Object>), WaitError> {
        self.fetcher.fetch(ino, range).await
    }

    /// Has the index know what of `ino`'s version was read, or is read just now. Comes before the first change of its bytes
    /// here: when S3 loses the version, that is what is left of it.
    pub async fn keep(&self, ino: Ino) {
        self.fetcher.keep(ino).await;
    }

    /// The counters of F7.
    pub fn stats(&self) -> FreshStats {
        self.counters.snapshot(self.queue.max_capacity() - self.queue.capacity(), self.owed.len())
    }

    /// Waits for a moment at which no check, lookup, listing or fetch is queued or under way.
    pub async fn quiet(&self) {
        loop {
            self.waiters.no_claims().await;
            none_running(&self.tasks).await;
            self.fetcher.quiet().await;
            if self.waiters.claims() == 0 && self.tasks.is_empty() {
                return;
            }
        }
    }

    /// Itself, to own in a task.
    fn me(&self) -> Arc<Revalidator> {
        self.me.upgrade().expect("made in an Arc by new, and this call borrows it")
    }

    /// Runs one request: notes when it was sent and answered, and whether S3 answers at all.
    async fn ask<T>(&self, request: impl Future<Output = Result<T, store::Error>>) -> Asked<T> {
        let sent = self.clock.now();
        let answer = request.await;
        let answered = self.clock.now();
        match &answer {
            Err(error @ store::Error::Unavailable { .. }) => self.outage.failed(error),
            _ => self.outage.answered(),
        }
        Asked { answer, at: Stamps { sent, answered } }
    }

    /// Hands one fact to the reconcile function.
    async fn apply(&self, key: Key, seen: Seen, at: Stamps, source: Source) -> Result<Applied, Trouble> {
        self.apply_with(key, seen, at, source, None).await
    }

    /// The same, with the bytes of the version. Holds the file until the index does.
    async fn apply_with(
        &self,
        key: Key,
        seen: Seen,
        Stamps { sent, answered }: Stamps,
        source: Source,
        content: Option<Arc<Object>>,
    ) -> Result<Applied, Trouble> {
        let content_id = content.as_ref().map(|object| object.id());
        let observation = Observation { key: key.clone(), seen, sent, answered, source, content: content_id };
        let applied = self.index.apply(observation).await?;
        if let (Verdict::Created, Some(node), Some(said)) =
            (applied.verdict, &applied.node, self.recent.since(&key, sent))
        {
            node.freshness.distrust(said);
        }
        Ok(applied)
    }
}

/// Waits until `tasks` has none running; new ones may start at any time.
async fn none_running(tasks: &TaskTracker) {
    let was_open = !tasks.is_closed();
    tasks.close();
    tasks.wait().await;
    if was_open {
        tasks.reopen();
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

/// Why a check, a lookup or a listing came to nothing.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// S3 refused, or did not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The index failed or is closing.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A new version could not be copied in.
    #[error("{key}: copying the new version in: {source}")]
    Copy {
        /// The object.
        key: Key,
        /// What happened.
        source: DownloadError,
    },
    /// The inode has gone meanwhile.
    #[error("gone from S3")]
    Gone,
    /// It changed under every attempt to copy it in.
    #[error("{0}: changes faster than it can be copied in")]
    Restless(Key),
}

impl Trouble {
    /// What whoever waits is told.
    fn to_wait(&self) -> WaitError {
        match self {
            Trouble::Store(error) => waited_for(error),
            Trouble::Index(IndexError::Closed) => WaitError::Busy,
            Trouble::Index(error) => {
                tracing::error!(%error, "the index failed");
                WaitError::Failed
            }
            Trouble::Copy { source: DownloadError::NoSpace, .. } => WaitError::NoSpace,
            Trouble::Copy { .. } | Trouble::Restless(_) => WaitError::Busy,
            Trouble::Gone => WaitError::Gone,
        }
    }
}

/// What an error of S3 is to whoever waits.
fn waited_for(error: &store::Error) -> WaitError {
    match error {
        store::Error::Unavailable { .. } => WaitError::Busy,
        store::Error::NotFound { .. } => WaitError::Gone,
        store::Error::Denied { .. } => {
            tracing::warn!(%error, "S3 refused");
            WaitError::Denied
        }
        store::Error::PreconditionFailed { .. }
        | store::Error::SourceChanged { .. }
        | store::Error::NoSuchUpload { .. } => WaitError::Busy,
        store::Error::NoSuchBucket { .. } | store::Error::Other { .. } => {
            tracing::warn!(%error, "S3 failed");
            WaitError::Failed
        }
    }
}
