//! What is due for a check, and in which order and company it is asked.
//! Owns: the queue's other end. `touch` puts claims in, or has them wait for the budget (`owed`); `work_off` takes them out,
//! a bounded number at once.
//! Invariant: from `touch` to the end of its check a node is claimed, so it is in the queue at most once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::check::wants_attributes;
use super::{Claim, DownloadError, Revalidator, Trouble};
use crate::index::{IndexError, Kind, Node, Source};
use crate::store;
use crate::types::{Ino, Tick};

/// Checks waiting: a second's worth at 16,000 new keys a second, in less than a megabyte.
pub(super) const QUEUE: usize = 16_384;
/// Checks at once: S3 concurrency is limited in the store; this only bounds what waits there.
const SLOTS: usize = 64;
/// A LIST page costs as much as 12.5 HEADs, so from 13 keys on it is cheaper.
pub(super) const LIST_PAYS: usize = 13;
/// Keys on one page of a listing.
const PAGE: usize = 1_000;
/// How long a key that S3 refused is left alone.
const REFUSAL: Duration = Duration::from_secs(10);

/// One task's work.
pub(super) enum Job {
    /// A file, alone. `known_stale`: a listing has shown another version already.
    File { claim: Claim, known_stale: bool },
    /// A directory: its listing, and on the way what that says of these files in it.
    Dir { claim: Claim, files: Vec<Claim> },
    /// Many files of one directory.
    Many { dir: Ino, files: Vec<Claim> },
}

impl Revalidator {
    /// Notes that an answer was given from `node`, and queues a check behind it when one is due (F2).
    /// Never blocks: one clock read, two atomics.
    pub fn touch(&self, node: &Arc<Node>) {
        node.freshness.serve();
        let now = self.clock.now();
        if !self.is_due(node, now) {
            if self.told_since.load(Ordering::Relaxed) != 0 && node.freshness.spare(now, self.settings.recheck) {
                self.counters.spared();
            }
        } else if !self.outage.is_on_at(now) && !self.is_refused(node.ino, now) {
            self.enqueue(node);
        }
    }

    /// Whether S3 should be asked about `node` at `now`.
    pub(super) fn is_due(&self, node: &Node, now: Tick) -> bool {
        let is_old = |asked: Tick, limit: Duration| asked == Tick::NEVER || now.since(asked) >= limit;
        let checked = node.freshness.checked();
        let old = is_old(checked, self.recheck(checked));
        let due = match node.kind {
            // Distrusted or not: every name that is said to be new would list all of it otherwise.
            Kind::Dir => {
                let relist = || is_old(node.freshness.last_checked(), self.relist_after(node.ino));
                (node.listed && old && relist()) || wants_attributes(node)
            }
            _ => old || wants_attributes(node),
        };
        due && !self.is_ours(node)
    }

    /// How old a listing must be to be asked for again: one page a `recheck` on average, however large the
    /// directory is, so that keeping a huge one in view does not cost a LIST of all of it every moment.
    fn relist_after(&self, dir: Ino) -> Duration {
        let pages = self.pages.get(&dir).unwrap_or(1).max(1);
        self.settings.recheck.saturating_mul(u32::try_from(pages).unwrap_or(u32::MAX))
    }

    fn is_refused(&self, ino: Ino, now: Tick) -> bool {
        self.refused.peek(&ino).is_some_and(|until| now < until)
    }

    /// Runs checks until `stop`; what is then in flight is dropped, to be asked again after the start.
    pub(super) async fn work_off(self: &Arc<Revalidator>, mut due: mpsc::Receiver<Claim>, stop: &CancellationToken) {
        let mut jobs: VecDeque<Job> = VecDeque::new();
        let mut running: JoinSet<Vec<Job>> = JoinSet::new();
        loop {
            while running.len() < SLOTS
                && let Some(job) = jobs.pop_front()
            {
                running.spawn(self.clone().perform(job));
            }
            self.counters.in_flight.store(running.len(), Ordering::Relaxed);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = running.join_next() => match done {
                    Ok(more) => jobs.extend(more),
                    Err(error) => tracing::error!(%error, "a check ended badly"),
                },
                Some(claim) = due.recv(), if jobs.is_empty() => {
                    let claims = gather(claim, &mut due).await;
                    jobs.extend(self.plan(claims));
                }
            }
        }
        running.shutdown().await;
    }

    /// Makes jobs of claims: a directory's listing answers for its files too where that costs no more.
    fn plan(&self, claims: Vec<Claim>) -> Vec<Job> {
        if self.outage.is_on() {
            return Vec::new();
        }
        let mut jobs = Vec::new();
        let mut groups: HashMap<Ino, (Option<Claim>, Vec<Claim>)> = HashMap::new();
        for claim in claims {
            let node = claim.node().clone();
            match node.kind {
                Kind::Dir => groups.entry(node.ino).or_default().0 = Some(claim),
                _ if wants_attributes(&node) => jobs.push(Job::File { claim, known_stale: false }),
                _ => groups.entry(node.parent).or_default().1.push(claim),
            }
        }
        for (dir, (own, files)) in groups {
            self.plan_directory(dir, own, files, &mut jobs);
        }
        jobs
    }

    /// Makes jobs of a directory's own claim and of those of files in it whose attributes are known.
    fn plan_directory(&self, dir: Ino, own: Option<Claim>, mut files: Vec<Claim>, jobs: &mut Vec<Job>) {
        let own = own.or_else(|| self.is_asked_piecemeal(dir, files.len()).then(|| self.claim(dir)).flatten());
        if let Some(claim) = own {
            let along = if self.listing_pays(dir, files.len()) { std::mem::take(&mut files) } else { Vec::new() };
            jobs.push(Job::Dir { claim, files: along });
        }
        if files.len() >= LIST_PAYS {
            jobs.push(Job::Many { dir, files });
        } else {
            jobs.extend(files.into_iter().map(|claim| Job::File { claim, known_stale: false }));
        }
    }

    /// Whether a listing would have been cheaper than the files asked one by one lately, and is short.
    fn is_asked_piecemeal(&self, dir: Ino, count: usize) -> bool {
        if count == 0 || count >= LIST_PAYS {
            return false;
        }
        let now = self.clock.now();
        let lately = self.alone.get(&dir).filter(|(since, _)| now.since(*since) < self.settings.recheck);
        let (since, before) = lately.unwrap_or((now, 0));
        self.alone.insert(dir, (since, before + count));
        before + count >= LIST_PAYS && self.is_short(dir)
    }

    /// Whether the listing of `dir` is known to be one page.
    pub(super) fn is_short(&self, dir: Ino) -> bool {
        let pages = self.pages.get(&dir).or_else(|| {
            let entries = self.index.entries(dir, 0, PAGE + 1).ok()?.len();
            let pages = entries.div_ceil(PAGE) as u64;
            self.pages.insert(dir, pages);
            Some(pages)
        });
        pages.is_some_and(|pages| pages <= 1)
    }

    /// Whether `count` files may wait for a listing of `dir` that happens anyway: it is short, or cheaper.
    pub(super) fn listing_pays(&self, dir: Ino, count: usize) -> bool {
        self.pages.get(&dir).is_some_and(|pages| pages <= 1 || pages * 25 <= count as u64 * 2)
    }

    async fn perform(self: Arc<Revalidator>, job: Job) -> Vec<Job> {
        match job {
            Job::File { claim, known_stale } => self.check_alone(claim, known_stale).await,
            Job::Dir { claim, files } => self.check_dir_and(claim, files).await,
            Job::Many { dir, files } => {
                self.past(distrusted(&files)).await;
                let files = files.into_iter().filter_map(|claim| self.still_due(claim)).collect();
                self.check_many(dir, files).await.unwrap_or_else(|trouble| {
                    self.note(dir, &trouble);
                    Vec::new()
                })
            }
        }
    }

    /// A file's check, and the next one where somebody has said meanwhile that there is something new.
    async fn check_alone(&self, claim: Claim, known_stale: bool) -> Vec<Job> {
        let ino = claim.node().ino;
        self.past(claim.node().freshness.distrusted()).await;
        let claim = if known_stale { Some(claim) } else { self.still_due(claim) };
        let Some(claim) = claim else { return Vec::new() };
        match self.check_file(ino, Source::Check).await {
            Ok(_) => claim.end().into_iter().map(|claim| Job::File { claim, known_stale: false }).collect(),
            Err(trouble) => {
                self.note(ino, &trouble);
                Vec::new()
            }
        }
    }

    /// A directory's check, and what it leaves to be asked alone.
    async fn check_dir_and(&self, claim: Claim, files: Vec<Claim>) -> Vec<Job> {
        let dir = claim.node().ino;
        self.past(claim.node().freshness.distrusted().max(distrusted(&files))).await;
        let outdated = match self.is_still_due(&claim) {
            true => self.check_dir(dir, Source::Check).await,
            false => Ok(Vec::new()),
        };
        let outdated = match outdated {
            Ok(outdated) => outdated.into_iter().filter_map(|ino| self.claim(ino)),
            Err(trouble) => {
                self.note(dir, &trouble);
                return Vec::new();
            }
        };
        // What the listing settled is not due any more; what it left alone is.
        let left = files.into_iter().filter_map(|claim| {
            let left = self.still_due(claim);
            if left.is_none() {
                self.counters.unchanged();
            }
            left
        });
        left.chain(outdated).map(|claim| Job::File { claim, known_stale: true }).collect()
    }

    /// The right to check `ino`, if it is there and nobody has it.
    pub(super) fn claim(&self, ino: Ino) -> Option<Claim> {
        self.index.node(ino).ok().flatten().and_then(|node| Claim::take(&node, &self.waiters))
    }

    /// Whether the node as it is now is due: a listing may have answered for it while it was queued.
    fn is_still_due(&self, claim: &Claim) -> bool {
        let now = self.clock.now();
        matches!(self.index.node(claim.node().ino), Ok(Some(node)) if self.is_due(&node, now))
    }

    /// A claim whose check is still to be made; `None`, and it is given back: it is not.
    fn still_due(&self, claim: Claim) -> Option<Claim> {
        if self.is_still_due(&claim) { Some(claim) } else { claim.end() }
    }

    /// Logs why a check came to nothing, and leaves a key alone that S3 refuses to tell about.
    pub(super) fn note(&self, ino: Ino, trouble: &Trouble) {
        match trouble {
            // `ask` has noted it for all keys.
            Trouble::Store(store::Error::Unavailable { .. }) => tracing::debug!(%ino, %trouble, "check failed"),
            Trouble::Restless(_) => tracing::debug!(%ino, %trouble, "check failed"),
            Trouble::Index(IndexError::Closed) | Trouble::Gone => {}
            Trouble::Copy { source: DownloadError::Store(store::Error::Unavailable { .. }), .. } => {
                self.outage.failed(trouble);
            }
            _ => {
                let now = self.clock.now();
                self.refused.insert(ino, Tick(now.0 + REFUSAL.as_millis() as u64));
                tracing::warn!(%ino, %trouble, "check failed");
            }
        }
    }
}

/// When any of them was last distrusted.
fn distrusted(claims: &[Claim]) -> Tick {
    claims.iter().map(|claim| claim.node().freshness.distrusted()).max().unwrap_or(Tick::NEVER)
}

/// Takes all that is queued now, after letting the touches of the same moment arrive.
async fn gather(first: Claim, due: &mut mpsc::Receiver<Claim>) -> Vec<Claim> {
    tokio::task::yield_now().await;
    let mut claims = vec![first];
    while claims.len() < QUEUE
        && let Ok(claim) = due.try_recv()
    {
        claims.push(claim);
    }
    claims
}
