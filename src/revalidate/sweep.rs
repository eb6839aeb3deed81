//! The sweep: all of the bucket listed over and over, slowly, so that what no event told of is found all the same.
//! Owns: its pace, how far it is, and the changes that may have been missed (`missed`).
//! Invariants
//! - Pages go where every listing's go, `index.apply_page`: what is changed here and not in S3 yet stays, and so on.
//! - A pass takes the period, spread evenly over as many pages as the last one had; but never more than one page a
//!   `PAGE_GAP`, so a pass over a very large bucket takes longer. So what it costs is bounded, whatever the bucket holds.
//! - It asks over the background view only, waits while S3 does not answer, and goes on where it was.
//! - Memory is bounded: one page, and the changes that are to be judged.
//!
//! With `--lazy` nobody wants the whole bucket in the index: only directories that were listed are, each by itself. Files
//! known elsewhere were asked for one by one, and are checked when they are used, as ever.

mod missed;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::listing::{Fetched, How, keys_of};
use super::{Revalidator, Trouble};
use crate::index::{IndexError, Kind, PageApplied, Sweep};
use crate::store::ListRequest;
use crate::types::name::ComponentKind;
use crate::types::{Ino, Tick};
use missed::Doubts;
pub use missed::Tellers;

/// 1 s: at most 86,400 LISTs a day, which are $0.43; 900 pages in 15 minutes.
const PAGE_GAP: Duration = Duration::from_secs(1);
/// Keys on one page.
const PAGE: u64 = 1_000;
/// Rows read from the index in one go, between two yields.
const BATCH: usize = 1_000;

/// How the sweep goes about.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// How long one pass should take.
    pub every: Duration,
    /// Only directories that were listed, not all of the bucket.
    pub listed_only: bool,
}

/// How far the sweep is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SweepProgress {
    /// How long one pass should take; 0: there is no sweep.
    pub every_s: u64,
    /// Whether a pass is under way, and not the pause before the next.
    pub running: bool,
    /// Pages that this pass has listed, or the last one, before the next.
    pub pages: u64,
    /// Pages that the last whole pass listed.
    pub last_pages: u64,
    /// How long the last whole pass took.
    pub last_took_s: u64,
    /// How long ago the last whole pass ended; `None`: none has yet.
    pub ended_s: Option<u64>,
    /// Whole passes.
    pub passes: u64,
    /// Changes found, told of or not.
    pub changes: u64,
}

/// The same, and when the last pass ended.
#[derive(Default)]
pub(super) struct Swept {
    progress: SweepProgress,
    ended: Option<Tick>,
}

impl Revalidator {
    /// Sweeps until `stop`. Only one call at a time makes sense. The first pass begins after a period: at the start
    /// everything is checked anyway. Changes of which `tellers` should have told are counted there.
    pub async fn keep_sweeping(
        self: Arc<Revalidator>,
        rounds: Rounds,
        tellers: Arc<dyn Tellers>,
        stop: CancellationToken,
    ) {
        self.swept.lock().progress.every_s = rounds.every.as_secs();
        let doubts = Doubts::new(tellers, self.clone());
        let mut sweeper = Sweeper { revalidator: self, rounds, doubts, gap: Duration::ZERO, asked: None };
        tokio::select! {
            () = stop.cancelled() => {}
            () = sweeper.run() => {}
        }
    }

    /// How far the sweep is.
    pub fn sweep_progress(&self) -> SweepProgress {
        let swept = self.swept.lock();
        let ended_s = swept.ended.map(|ended| self.clock.now().since(ended).as_secs());
        SweepProgress { ended_s, ..swept.progress }
    }
}

/// The task.
struct Sweeper {
    revalidator: Arc<Revalidator>,
    rounds: Rounds,
    doubts: Doubts,
    /// From page to page of this pass.
    gap: Duration,
    /// When the last page of this pass was asked for.
    asked: Option<Tick>,
}

impl Sweeper {
    async fn run(&mut self) {
        let mut due = after(self.now(), self.rounds.every);
        loop {
            self.rest_until(due).await;
            let started = self.now();
            // The mirror lists everything itself.
            if !self.revalidator.is_mirror_listing() {
                self.begin();
                match self.pass().await {
                    Ok(()) => self.end(started),
                    Err(Trouble::Index(IndexError::Closed)) => return,
                    Err(trouble) => tracing::warn!(%trouble, "a sweep over the bucket ended early"),
                }
                self.progress(|at| at.running = false);
            }
            due = after(started, self.rounds.every).max(after(self.asked.unwrap_or(started), PAGE_GAP));
        }
    }

    /// One pass over all that is to be listed.
    async fn pass(&mut self) -> Result<(), Trouble> {
        if !self.rounds.listed_only {
            return self.list(Ino::ROOT, true).await;
        }
        let mut last = Ino(0);
        loop {
            let nodes = self.revalidator.index.nodes(last, BATCH)?;
            let Some(node) = nodes.last() else { return Ok(()) };
            last = node.ino;
            for node in nodes {
                // A chunk is of its directory's level.
                let is_wanted = node.kind == Kind::Dir && node.listed && node.component.kind() != ComponentKind::Chunk;
                if is_wanted && !self.revalidator.is_ours(&node) {
                    self.list(node.ino, false).await?;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Lists `dir`, or all below it, page by page, each in its turn.
    async fn list(&mut self, dir: Ino, recursive: bool) -> Result<(), Trouble> {
        let asker = self.revalidator.clone();
        let Some(prefix) = asker.index.remote_prefix(dir)? else { return Ok(()) };
        let how = How { store: &asker.stores.background, recursive, patient: true, paced: true };
        let mut request = ListRequest { prefix: prefix.to_string(), delimited: !recursive, ..ListRequest::default() };
        let mut sweep = Sweep::new(dir, prefix, recursive).noting();
        self.turn().await;
        let mut fetched = asker.page(&how, &request).await?;
        loop {
            let Fetched { page, next } = fetched;
            let (keys, sent) = (keys_of(&page), page.sent);
            let (moved, applied) = asker.index.apply_page(sweep, page).await?;
            sweep = moved;
            asker.distrust_again(&keys, sent)?;
            self.take(applied, sent)?;
            if next.is_none() {
                return Ok(());
            }
            self.turn().await;
            let Some(following) = asker.following(&how, &mut request, next).await? else { return Ok(()) };
            fetched = following;
        }
    }

    /// Waits until it is time for another page, and S3 is there.
    async fn turn(&mut self) {
        if let Some(asked) = self.asked {
            self.rest_until(after(asked, self.gap)).await;
        }
        self.revalidator.outage.over().await;
        self.asked = Some(self.now());
        self.progress(|at| at.pages += 1);
    }

    /// What a page that was asked for at `sent` changed.
    fn take(&mut self, applied: PageApplied, sent: Tick) -> Result<(), Trouble> {
        let PageApplied { created, replaced, removed, outdated, found } = applied;
        self.progress(|at| at.changes += created + replaced + removed + outdated.len() as u64);
        self.doubts.take(found);
        for ino in outdated {
            if let Some(node) = self.revalidator.index.node(ino)? {
                // A check that was sent before does not know it.
                node.freshness.distrust(sent);
                self.revalidator.enqueue(&node);
            }
        }
        Ok(())
    }

    /// Waits, and judges meanwhile what is to be judged.
    async fn rest_until(&mut self, until: Tick) {
        loop {
            let now = self.now();
            let next = self.doubts.judge(now).map_or(until, |next| next.min(until));
            if now >= until {
                return;
            }
            self.revalidator.clock.reached(next).await;
        }
    }

    fn begin(&mut self) {
        let counts = self.revalidator.index.counts();
        let guess = if self.rounds.listed_only { counts.dirs + 1 } else { counts.files / PAGE + 1 };
        let mut pages = 0;
        self.progress(|at| {
            pages = if at.passes == 0 { guess } else { at.last_pages };
            (at.running, at.pages) = (true, 0);
        });
        let pages = u32::try_from(pages.max(1)).unwrap_or(u32::MAX);
        self.gap = (self.rounds.every / pages).max(PAGE_GAP);
        self.asked = None;
    }

    fn end(&mut self, started: Tick) {
        let now = self.now();
        self.doubts.passed(started);
        let mut swept = self.revalidator.swept.lock();
        swept.ended = Some(now);
        let at = &mut swept.progress;
        at.passes += 1;
        (at.last_pages, at.last_took_s) = (at.pages, now.since(started).as_secs());
    }

    fn now(&self) -> Tick {
        self.revalidator.clock.now()
    }

    fn progress(&self, change: impl FnOnce(&mut SweepProgress)) {
        change(&mut self.revalidator.swept.lock().progress);
    }
}

fn after(tick: Tick, pause: Duration) -> Tick {
    Tick(tick.0.saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)))
}
