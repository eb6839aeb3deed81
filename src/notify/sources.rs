//! Starts the sources that were asked for, each with its way to `Intake` and to `Health`.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::sqs::{self, Sqs};
use super::webhook::Webhook;
use super::{Beat, Health, Heartbeat, Origin, Scope, Secret, Source, SourceHealth, Tell};
use crate::config::EventSource;
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
                    let source = setting.source(url.to_string(), Origin::Sqs, QUEUE_HEARTBEAT);
                    let (timing, health) = (sqs::Timing::default(), source.health.clone());
                    let client = sqs::client(&setting.shared, url, timing);
                    (health, tokio::spawn(Sqs::new(client, url.clone(), source, timing).run(stop.clone())))
                }
                EventSource::Webhook(addr) => {
                    let source = setting.source(addr.to_string(), Origin::Webhook, PUSH_HEARTBEAT);
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
    fn source(&self, name: String, origin: Origin, heartbeat: Duration) -> Source {
        let health = SourceHealth::new(name, origin).telling(self.health.register(origin, heartbeat));
        let (scope, tell) = (Arc::new(self.scope.clone()), self.tell.clone());
        Source { scope, tell, health: Arc::new(health), clock: self.clock.clone() }
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
