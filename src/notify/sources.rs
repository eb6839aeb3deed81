//! Starts the sources that were asked for, each with its way to `Intake` and to `Health`.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::sqs::{self, Sqs};
use super::webhook::Webhook;
use super::{Beat, Health, Heartbeat, Origin, Peers, Scope, Secret, Source, SourceHealth, Tell, peers};
use crate::config::EventSource;
use crate::store::{Carried, Counters};
use crate::types::Clock;

/// An idle queue answers a poll every 20 s: two of them may be lost.
const QUEUE_HEARTBEAT: Duration = Duration::from_secs(60);
/// Who pushes says nothing while nothing happens, and nobody knows whether that is so. So a bucket that is quiet for longer
/// is checked as without events.
const PUSH_HEARTBEAT: Duration = Duration::from_secs(10 * 60);

/// What all sources are made with.
pub struct Setting {
    /// Which keys concern this server.
    pub scope: Scope,
    /// Who takes the hints.
    pub tell: Arc<dyn Tell>,
    /// Who hears how the sources fare.
    pub health: Arc<Health>,
    /// Source of time.
    pub clock: Clock,
    /// What the clients of AWS's services share.
    pub shared: SdkConfig,
    /// Where requests are counted.
    pub requests: Arc<Counters>,
    /// What who pushes must show.
    pub secret: Option<Secret>,
}

/// Sources at work.
#[derive(Default)]
pub struct Sources {
    /// How each fares.
    pub health: Vec<Arc<SourceHealth>>,
    /// To be waited for after `stop` was cancelled.
    pub tasks: Vec<JoinHandle<()>>,
}

impl Sources {
    /// Starts what is `wanted`; it ends with `stop`. One that cannot be reached is waited for: until it is there, checks go
    /// on as without it.
    /// # Errors
    /// When the address of a webhook cannot be had.
    pub async fn start(wanted: &[EventSource], setting: &Setting, stop: &CancellationToken) -> anyhow::Result<Sources> {
        let mut sources = Sources::default();
        for wanted in wanted {
            let (health, task) = match wanted {
                EventSource::Sqs(url) => {
                    let source = setting.reliable(url.to_string(), Origin::Sqs, QUEUE_HEARTBEAT);
                    let (timing, health) = (sqs::Timing::default(), source.health.clone());
                    let client = sqs::counted(&setting.shared, url, timing, setting.requests.clone());
                    (health, tokio::spawn(Sqs::new(client, url.clone(), source, timing).run(stop.clone())))
                }
                EventSource::Webhook(addr) => {
                    let source = setting.reliable(addr.to_string(), Origin::Webhook, PUSH_HEARTBEAT);
                    let health = source.health.clone();
                    let secret = setting.secret.clone().expect("checked with the flags: no webhook without it");
                    (health, tokio::spawn(Webhook::bind(*addr, secret, source).await?.run(stop.clone())))
                }
            };
            sources.health.push(health);
            sources.tasks.push(task);
        }
        Ok(sources)
    }
}

impl Setting {
    /// The other servers, to be run when what is written here is told to them. They tell of what they write alone, so
    /// nothing is checked less often for their sake.
    pub fn peers(&self, settings: peers::Settings, place: peers::Place, carried: Arc<Carried>) -> Arc<Peers> {
        let health = SourceHealth::new(settings.servers.to_string(), Origin::Peer);
        Peers::new(settings, place, self.source(health), carried)
    }

    /// A source that can be relied on while it works.
    fn reliable(&self, name: String, origin: Origin, heartbeat: Duration) -> Source {
        self.source(SourceHealth::new(name, origin).telling(self.health.register(origin, heartbeat)))
    }

    fn source(&self, health: SourceHealth) -> Source {
        let (scope, tell) = (Arc::new(self.scope.clone()), self.tell.clone());
        Source { scope, tell, health: Arc::new(health), clock: self.clock.clone() }
    }
}

/// Runs `peers`; without them, checks go on as they do.
pub async fn run_peers(peers: Arc<Peers>, stop: CancellationToken) {
    if let Err(error) = peers.run(stop).await {
        error!(%error, "other servers are neither told nor heard");
    }
}

impl Heartbeat for Beat {
    fn heard(&self) {
        Beat::heard(self);
    }

    fn failed(&self, error: &str) {
        Beat::failed(self, &error);
    }

    fn delivered(&self, lag: Option<Duration>) {
        Beat::delivered(self, lag);
    }
}
