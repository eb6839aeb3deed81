//! Whether events can be relied on, so that what is here is checked less often.
//! Owns: what each source has shown of itself. The outcome is one tick that `Revalidator` reads: since when.
//! Invariants
//! - A source is healthy while it works (was heard of within its heartbeat, no error since), has proved itself (an
//!   event of it came, in time) and is not late. Whatever ends that ends the trust in the same call.
//! - Silence is noticed without anybody's call: `run` wakes up at the moment a source is overdue.
//! - What was checked before a source became healthy is never trusted for longer on its account.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Origin;
use crate::revalidate::{Revalidator, Tellers};
use crate::types::{Clock, Tick};

/// 24 h: an event of this age still shows that bucket, queue and permissions are as they must be. A bucket in which
/// nothing changes for so long is checked as one without events, until `fasts3 events check` or a change.
const PROOF: Duration = Duration::from_secs(24 * 3600);
/// 30 s: S3's events come within seconds; what is later comes out of a backlog, and there is more behind it.
const LATE: Duration = Duration::from_secs(30);
/// 60 s: for so long one late event tells of others.
const LATE_FOR: Duration = Duration::from_secs(60);

/// What the sources have shown of themselves.
pub struct Health {
    revalidator: Arc<Revalidator>,
    clock: Clock,
    sources: Mutex<Vec<Source>>,
    changed: Notify,
    missed: AtomicU64,
}

/// One source.
struct Source {
    origin: Origin,
    number: u64,
    heartbeat: Duration,
    /// When it last showed that it works.
    heard: Tick,
    /// When an event of it last came in time.
    proved: Tick,
    /// When one last came late.
    late: Tick,
    lag: Option<Duration>,
    error: Option<String>,
    /// Since when it works and is not late, proved or not; never, when it does not.
    works: Tick,
    /// Since when it is healthy; never, when it is not.
    since: Tick,
}

/// A source as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub origin: Origin,
    /// Whether it can be relied on.
    pub healthy: bool,
    /// How late its last event was.
    pub lag: Option<Duration>,
    /// Its last error, until it works again.
    pub error: Option<String>,
}

/// By which a source shows that it works. Dropped, it is none any more.
pub struct Beat {
    health: Arc<Health>,
    number: u64,
}

impl Health {
    /// Nothing is relied on yet.
    pub fn new(revalidator: Arc<Revalidator>, clock: Clock) -> Arc<Health> {
        Arc::new(Health {
            revalidator,
            clock,
            sources: Mutex::default(),
            changed: Notify::new(),
            missed: AtomicU64::new(0),
        })
    }

    /// A new source, which must be heard of every `heartbeat` at least.
    pub fn register(self: &Arc<Health>, origin: Origin, heartbeat: Duration) -> Beat {
        let mut sources = self.sources.lock();
        let number = sources.last().map_or(0, |last| last.number + 1);
        sources.push(Source {
            origin,
            number,
            heartbeat,
            heard: Tick::NEVER,
            proved: Tick::NEVER,
            late: Tick::NEVER,
            lag: None,
            error: None,
            works: Tick::NEVER,
            since: Tick::NEVER,
        });
        Beat { health: self.clone(), number }
    }

    /// How many changes were missed.
    pub fn missed_events(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// All sources.
    pub fn sources(&self) -> Vec<Standing> {
        let told = |source: &Source| Standing {
            origin: source.origin,
            healthy: source.since != Tick::NEVER,
            lag: source.lag,
            error: source.error.clone(),
        };
        self.sources.lock().iter().map(told).collect()
    }

    /// Since when any source can be relied on.
    pub fn since(&self) -> Option<Tick> {
        since(&self.sources.lock())
    }

    /// Notices silence, until `stop`.
    pub async fn run(self: Arc<Health>, stop: CancellationToken) {
        loop {
            let changed = self.changed.notified();
            let next = self.update(|_, _| ());
            tokio::select! {
                () = stop.cancelled() => return,
                () = changed => {}
                () = self.overdue(next) => {}
            }
        }
    }

    async fn overdue(&self, next: Option<Tick>) {
        match next {
            Some(next) => self.clock.reached(next).await,
            None => std::future::pending().await,
        }
    }

    /// Changes sources, and what follows from it. Returns when time alone may change it next.
    fn update(&self, change: impl Fn(&mut Source, Tick)) -> Option<Tick> {
        let mut sources = self.sources.lock();
        let now = self.clock.now();
        for source in sources.iter_mut() {
            change(source, now);
            source.judge(now);
        }
        // Under the lock, so that an older word never overtakes a newer one.
        self.revalidator.told_since(since(&sources));
        sources.iter().filter_map(|source| source.next_change(now)).min()
    }

    fn update_one(&self, number: u64, change: impl Fn(&mut Source, Tick)) {
        self.update(|source, now| {
            if source.number == number {
                change(source, now);
            }
        });
        self.changed.notify_one();
    }
}

impl Tellers for Health {
    fn since(&self) -> Option<Tick> {
        Health::since(self)
    }

    fn has_worked_since(&self, tick: Tick) -> bool {
        self.update(|_, _| ());
        self.sources.lock().iter().any(|source| source.works != Tick::NEVER && source.works <= tick)
    }

    fn latest(&self) -> Duration {
        LATE
    }

    /// What proved the sources proves nothing any more.
    fn missed(&self, changes: u64) {
        self.missed.fetch_add(changes, Ordering::Relaxed);
        self.update(|source, _| source.proved = Tick::NEVER);
    }
}

impl Source {
    fn judge(&mut self, now: Tick) {
        let within = |at: Tick, limit: Duration| at != Tick::NEVER && now.since(at) < limit;
        let works = self.error.is_none() && within(self.heard, self.heartbeat) && !within(self.late, LATE_FOR);
        let is_healthy = works && within(self.proved, PROOF);
        match works {
            true if self.works == Tick::NEVER => self.works = now,
            true => {}
            false => self.works = Tick::NEVER,
        }
        if is_healthy == (self.since != Tick::NEVER) {
            return;
        }
        self.since = if is_healthy { now } else { Tick::NEVER };
        match is_healthy {
            true => info!(source = self.origin.name(), "events are in time: checking less often"),
            false => {
                let (error, lag) = (self.error.as_deref().unwrap_or("none"), self.lag);
                warn!(source = self.origin.name(), error, ?lag, "events cannot be relied on: checking as without them");
            }
        }
    }

    /// When it becomes overdue, or is no longer late.
    fn next_change(&self, now: Tick) -> Option<Tick> {
        let ends = [(self.heard, self.heartbeat), (self.proved, PROOF), (self.late, LATE_FOR)];
        let ends = ends
            .into_iter()
            .filter(|(at, _)| *at != Tick::NEVER)
            .map(|(at, limit)| Tick(at.0.saturating_add(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))));
        ends.filter(|end| *end > now).min()
    }
}

fn since(sources: &[Source]) -> Option<Tick> {
    sources.iter().map(|source| source.since).filter(|since| *since != Tick::NEVER).min()
}

impl Beat {
    /// It works: a poll was answered, a connection is up.
    pub fn heard(&self) {
        self.health.update_one(self.number, |source, now| {
            source.heard = now;
            source.error = None;
        });
    }

    /// An event came, so long after what it tells of (`None`: it does not say).
    pub fn delivered(&self, lag: Option<Duration>) {
        self.health.update_one(self.number, |source, now| {
            source.lag = lag.or(source.lag);
            match lag.is_some_and(|lag| lag > LATE) {
                true => source.late = now,
                false => source.proved = now,
            }
        });
    }

    /// It does not work.
    pub fn failed(&self, error: &dyn fmt::Display) {
        let error = error.to_string();
        self.health.update_one(self.number, |source, _| source.error = Some(error.clone()));
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.health.sources.lock().retain(|source| source.number != self.number);
        self.health.update(|_, _| ());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::revalidate::tests::Rig;

    const HEARTBEAT: Duration = Duration::from_secs(40);

    struct Bench {
        rig: Rig,
        health: Arc<Health>,
        beat: Beat,
    }

    impl Bench {
        /// With a source that has proved itself, and `run` on its way.
        async fn new() -> Bench {
            let rig = Rig::new().await;
            let health = Health::new(rig.revalidator.clone(), rig.clock.clone());
            tokio::spawn(health.clone().run(rig.stop.clone()));
            let beat = health.register(Origin::Sqs, HEARTBEAT);
            assert_eq!(health.since(), None, "nothing is proved yet");
            beat.heard();
            assert_eq!(health.since(), None, "a queue that answers may have no bucket behind it");
            beat.delivered(Some(Duration::from_secs(1)));
            assert_eq!(health.since(), Some(rig.clock.now()));
            Bench { rig, health, beat }
        }

        /// Lets time pass; whoever waits for it runs.
        async fn pass(&self, seconds: u64) {
            self.rig.clock.advance(Duration::from_secs(seconds));
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }

        fn is_healthy(&self) -> bool {
            self.health.since().is_some()
        }
    }

    #[tokio::test]
    async fn silence_past_the_heartbeat_is_noticed_by_itself() {
        let bench = Bench::new().await;
        tokio::task::yield_now().await;
        bench.pass(39).await;
        assert!(bench.is_healthy());
        bench.beat.heard();
        tokio::task::yield_now().await;
        bench.pass(39).await;
        assert!(bench.is_healthy());
        bench.pass(1).await;
        assert!(!bench.is_healthy());
        let again = bench.rig.clock.now();
        bench.beat.heard();
        assert_eq!(bench.health.since(), Some(again), "what was checked in between is not trusted for longer");
    }

    #[tokio::test]
    async fn errors_and_late_events_end_the_trust_at_once() {
        let bench = Bench::new().await;
        bench.beat.failed(&"access denied");
        assert!(!bench.is_healthy());
        assert_eq!(bench.health.sources()[0].error.as_deref(), Some("access denied"));
        bench.beat.heard();
        assert!(bench.is_healthy());
        bench.beat.delivered(Some(Duration::from_secs(31)));
        assert!(!bench.is_healthy(), "there is a backlog");
        bench.beat.delivered(Some(Duration::from_secs(1)));
        assert!(!bench.is_healthy());
        for _ in 0..3 {
            tokio::task::yield_now().await;
            bench.pass(20).await;
            bench.beat.heard();
        }
        assert!(bench.is_healthy());
    }

    #[tokio::test]
    async fn source_that_missed_a_change_works_on_and_one_that_fails_does_not() {
        let bench = Bench::new().await;
        let since = bench.health.since().unwrap();
        bench.health.missed(1);
        assert!(bench.health.has_worked_since(since));
        bench.pass(5).await;
        bench.beat.failed(&"access denied");
        assert!(!bench.health.has_worked_since(since));
        bench.beat.heard();
        assert!(!bench.health.has_worked_since(since) && bench.health.has_worked_since(bench.rig.clock.now()));
        bench.pass(40).await;
        assert!(!bench.health.has_worked_since(bench.rig.clock.now()), "silent");
    }

    #[tokio::test]
    async fn source_that_is_given_up_or_misses_a_change_is_not_relied_on() {
        let bench = Bench::new().await;
        bench.health.missed(1);
        assert!(!bench.is_healthy());
        let other = bench.health.register(Origin::Webhook, HEARTBEAT);
        other.delivered(None);
        assert!(!bench.is_healthy(), "another source's event proves nothing of this one");
        bench.beat.delivered(None);
        assert!(bench.is_healthy());
        let Bench { health, beat, .. } = bench;
        drop(beat);
        assert_eq!(health.since(), None);
    }
}
