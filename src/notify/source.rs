//! What every source of S3's events does with a message once it has one, and how it tells how it fares.
//! Owns: `SourceHealth`, which the source writes and everybody may read.
//! Invariant: hints are counted after they are applied, so that who waits for the count waits for the effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::records::{self, Events, Message, Unreadable};
use super::{Hint, Origin, Scope, Tell, Told};
use crate::types::{Clock, Key, Tick, Time};

/// How a source fares. Cheap to write to from several tasks.
pub struct SourceHealth {
    name: String,
    origin: Origin,
    last_good: AtomicU64,
    last_event: AtomicU64,
    lag_ms: AtomicU64,
    messages: AtomicU64,
    hints: AtomicU64,
    ignored: AtomicU64,
    unreadable: AtomicU64,
    errors: AtomicU64,
    /// What is wrong now, from the first failure to the next success.
    trouble: Mutex<Option<String>>,
    probe: Mutex<Option<Key>>,
    heartbeat: Option<Box<dyn Heartbeat>>,
}

/// Who wants to know at once how a source fares.
pub trait Heartbeat: Send + Sync {
    /// It works: a poll was answered, a delivery came.
    fn heard(&self);
    /// It does not work.
    fn failed(&self, error: &str);
    /// An event came, of whatever key, and was so long under way, as far as it tells.
    fn delivered(&self, lag: Option<Duration>);
}

/// A copy of `SourceHealth`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// What `--events` says of it.
    pub source: String,
    /// When it last proved that it works: a poll that was answered, a delivery. `Tick::NEVER`: it never did.
    #[serde(skip, default = "never")]
    pub last_good: Tick,
    /// When it last brought an event.
    #[serde(skip, default = "never")]
    pub last_event: Tick,
    /// How long the last event was under way, in milliseconds.
    pub lag_ms: u64,
    /// Messages taken.
    pub messages: u64,
    /// Hints applied.
    pub hints: u64,
    /// Events of other buckets and prefixes, and of kinds that change nothing here.
    pub ignored: u64,
    /// Messages and records that nobody understands, and refused deliveries.
    pub unreadable: u64,
    /// Requests to it that failed.
    pub errors: u64,
    /// What is wrong now.
    pub trouble: Option<String>,
    /// The last key of `fasts3 events check` that came by.
    pub probe: Option<String>,
}

/// Nothing that another process can know.
fn never() -> Tick {
    Tick::NEVER
}

impl SourceHealth {
    /// Of a source that has done nothing yet.
    pub fn new(name: impl Into<String>, origin: Origin) -> SourceHealth {
        SourceHealth {
            name: name.into(),
            origin,
            last_good: AtomicU64::new(Tick::NEVER.0),
            last_event: AtomicU64::new(Tick::NEVER.0),
            lag_ms: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            hints: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            trouble: Mutex::new(None),
            probe: Mutex::new(None),
            heartbeat: None,
        }
    }

    /// The same, and `heartbeat` is told.
    pub fn telling(self, heartbeat: impl Heartbeat + 'static) -> SourceHealth {
        SourceHealth { heartbeat: Some(Box::new(heartbeat)), ..self }
    }

    /// What kind of source it is.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// How it fares now.
    pub fn state(&self) -> SourceState {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        SourceState {
            source: self.name.clone(),
            last_good: Tick(read(&self.last_good)),
            last_event: Tick(read(&self.last_event)),
            lag_ms: read(&self.lag_ms),
            messages: read(&self.messages),
            hints: read(&self.hints),
            ignored: read(&self.ignored),
            unreadable: read(&self.unreadable),
            errors: read(&self.errors),
            trouble: self.trouble.lock().clone(),
            probe: self.probe.lock().as_ref().map(Key::to_string),
        }
    }

    /// It works; `true` when it did not before.
    pub(super) fn good(&self, now: Tick) -> bool {
        self.last_good.fetch_max(now.0, Ordering::Relaxed);
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.heard();
        }
        self.trouble.lock().take().is_some()
    }

    /// Some requests failed and it still works; gives how many did before.
    pub(super) fn errors(&self, more: u64) -> u64 {
        self.errors.fetch_add(more, Ordering::Relaxed)
    }

    /// It does not work; `true` when it did before.
    pub(super) fn failed(&self, reason: &str) -> bool {
        self.errors(1);
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.failed(reason);
        }
        self.trouble.lock().replace(reason.to_owned()).is_none()
    }

    /// A message is nonsense; `true` of the first.
    pub(super) fn nonsense(&self) -> bool {
        self.unreadable.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// A message is done with.
    pub(super) fn done(&self, messages: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
    }

    fn applied(&self, hints: usize, ignored: usize, unreadable: usize) {
        self.hints.fetch_add(hints as u64, Ordering::Relaxed);
        self.ignored.fetch_add(ignored as u64, Ordering::Relaxed);
        self.unreadable.fetch_add(unreadable as u64, Ordering::Relaxed);
    }

    fn event(&self, now: Tick, lag: Option<Duration>) {
        self.last_event.fetch_max(now.0, Ordering::Relaxed);
        if let Some(lag) = lag {
            self.lag_ms.store(lag.as_millis() as u64, Ordering::Relaxed);
        }
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.delivered(lag);
        }
    }
}

/// The end that all sources of S3's events share: what concerns this server, whom to tell, how it fares.
#[derive(Clone)]
pub struct Source {
    /// What concerns this server.
    pub scope: Arc<Scope>,
    /// Who is told.
    pub tell: Arc<dyn Tell>,
    /// How it fares.
    pub health: Arc<SourceHealth>,
    /// Source of time.
    pub clock: Clock,
}

impl Source {
    /// Reads a message.
    /// # Errors
    /// When nobody understands it; that is counted by the caller, who knows whether it comes again.
    pub(super) fn read(&self, message: &str) -> Result<Message, Unreadable> {
        records::read(message, &self.scope, self.health.origin())
    }

    /// Applies what came in one go, from one message or several. `sent`: when the oldest of them was, where the events do
    /// not say.
    pub(super) async fn apply(&self, events: Events, sent: Option<Time>) -> Told {
        let Events { hints, probes, ignored, unreadable } = events;
        let (count, happened) = (hints.len(), oldest(&hints));
        let told = match count {
            0 => Told::default(),
            _ => self.tell.tell(hints).await,
        };
        if count + probes.len() + ignored > 0 {
            self.health.event(self.clock.now(), happened.or(sent).map(|at| self.since(at)));
        }
        if let Some(probe) = probes.into_iter().next_back() {
            *self.health.probe.lock() = Some(probe);
        }
        self.health.applied(count, ignored, unreadable);
        told
    }
}

impl Source {
    /// Whoever brings events was there then, and had none.
    pub(super) fn is_there(&self, at: Time) {
        self.health.event(self.clock.now(), Some(self.since(at)));
    }

    /// How long ago it was; a clock that is ahead of ours is no lag.
    fn since(&self, at: Time) -> Duration {
        Duration::from_nanos(u64::try_from(self.clock.wall().0.saturating_sub(at.0)).unwrap_or(0))
    }
}

fn oldest(hints: &[Hint]) -> Option<Time> {
    hints.iter().filter_map(|hint| hint.at).min()
}

#[cfg(test)]
pub(crate) mod double {
    //! A `Tell` that remembers.

    use async_trait::async_trait;
    use tokio::sync::watch;

    use super::*;

    /// Remembers what it was told, and waits while it is held.
    pub(crate) struct Recorder {
        told: watch::Sender<Vec<Hint>>,
        held: watch::Sender<bool>,
    }

    impl Recorder {
        pub(crate) fn new() -> Arc<Recorder> {
            Arc::new(Recorder { told: watch::Sender::new(Vec::new()), held: watch::Sender::new(false) })
        }

        pub(crate) fn hold(&self, held: bool) {
            self.held.send_replace(held);
        }

        pub(crate) fn told(&self) -> Vec<Hint> {
            self.told.borrow().clone()
        }
    }

    #[async_trait]
    impl Tell for Recorder {
        async fn tell(&self, hints: Vec<Hint>) -> Told {
            let _ = self.held.subscribe().wait_for(|held| !held).await;
            let told = Told { applied: hints.len(), ..Told::default() };
            self.told.send_modify(|all| all.extend(hints));
            told
        }

        async fn distrust_all(&self) {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::double::Recorder;
    use super::*;
    use crate::notify::Said;

    #[tokio::test]
    async fn health_tells_lag_and_counts_what_was_applied() {
        let clock = Clock::manual();
        let tell = Recorder::new();
        let health = Arc::new(SourceHealth::new("sqs=q", Origin::Sqs));
        let source = Source {
            scope: Arc::new(Scope::new("b", "")),
            tell: tell.clone(),
            health: health.clone(),
            clock: clock.clone(),
        };
        let hint = |at| Hint {
            key: Key::new("k").unwrap(),
            said: Said::Removed,
            sequencer: None,
            at: Some(at),
            origin: Origin::Sqs,
        };
        let before = clock.wall();
        clock.advance(Duration::from_millis(1_500));
        let hints = vec![hint(clock.wall()), hint(before)];
        source.apply(Events { hints, ignored: 3, ..Events::default() }, None).await;
        let state = health.state();
        assert_eq!((state.hints, state.ignored, state.lag_ms), (2, 3, 1_500));
        assert_eq!(state.last_event, clock.now());
        assert_eq!(state.last_good, Tick::NEVER, "only the source knows");
        let ahead = Time(clock.wall().0 + 5_000_000_000);
        source.apply(Events { hints: vec![hint(ahead)], ..Events::default() }, None).await;
        assert_eq!(health.state().lag_ms, 0, "a clock that is ahead is no lag");
        assert_eq!(tell.told().len(), 3);
    }

    #[test]
    fn heartbeat_is_told() {
        struct Heart(Arc<Mutex<Vec<String>>>);
        impl Heartbeat for Heart {
            fn heard(&self) {
                self.0.lock().push("heard".into());
            }
            fn failed(&self, error: &str) {
                self.0.lock().push(error.into());
            }
            fn delivered(&self, lag: Option<Duration>) {
                self.0.lock().push(format!("{lag:?}"));
            }
        }
        let told = Arc::new(Mutex::new(Vec::new()));
        let health = SourceHealth::new("sqs=q", Origin::Sqs).telling(Heart(told.clone()));
        health.good(Tick(1));
        health.failed("gone");
        health.event(Tick(2), Some(Duration::from_secs(1)));
        health.event(Tick(3), None);
        assert_eq!(*told.lock(), ["heard", "gone", "Some(1s)", "None"]);
        assert_eq!(health.state().lag_ms, 1_000);
    }

    #[test]
    fn trouble_lasts_from_the_first_failure_to_the_next_success() {
        let health = SourceHealth::new("sqs=q", Origin::Sqs);
        assert!(!health.good(Tick(5)));
        assert!(health.failed("gone") && !health.failed("still gone"));
        assert_eq!((health.state().trouble.as_deref(), health.state().errors), (Some("still gone"), 2));
        assert!(health.good(Tick(3)));
        assert_eq!((health.state().trouble, health.state().last_good), (None, Tick(5)));
    }
}
