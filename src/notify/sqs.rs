//! S3's events out of an SQS queue.
//! Owns: the queue's address, its pollers, what becomes of messages nobody understands.
//! Invariants
//! - A message is deleted after its hints are applied, never before; what cannot be deleted comes again, which is harmless.
//! - A queue that fails is asked ever more rarely, up to once in `Timing::longest_pause`, and is no failure of the server.
//! - A message that nobody understands is left to the queue's own dead-letter policy where it has one, and deleted when it
//!   has come `POISON_RECEIVES` times where it has none.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::Region;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::types::{
    DeleteMessageBatchRequestEntry, Message as Received, MessageSystemAttributeName as Attribute, QueueAttributeName,
};
use tokio::sync::{Notify, OnceCell};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Source;
use super::queue_url::QueueUrl;
use super::records::{Events, Message, Unreadable};
use crate::store::{CountQueue, Counters, Failure};
use crate::types::{Tick, Time};

/// Most messages of one answer; SQS gives no more.
const BATCH: i32 = 10;
/// A message that was no event three times will not become one.
const POISON_RECEIVES: u64 = 3;

/// How often a queue is asked, by how many, and how long one waits for it.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long SQS holds a poll when there is nothing; 20 s is the most that it does, and the cheapest.
    pub wait: Duration,
    /// How long a message is hidden from others after it was received: far longer than it takes to apply one.
    pub hidden: Duration,
    /// Pause after a poll that failed; it doubles with each.
    pub pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// Those who always poll: one waits while the other one works.
    pub pollers: usize,
    /// Those who come along while answers are full: with 16 in all, 100,000 messages are read in less than half a
    /// minute at 40 ms for receiving and deleting ten.
    pub helpers: usize,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            wait: Duration::from_secs(20),
            hidden: Duration::from_secs(60),
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
            pollers: 2,
            helpers: 14,
        }
    }
}

/// A client of the queue's service, with the credentials of `shared`, at the address and in the region that the URL
/// names.
pub fn client(shared: &SdkConfig, url: &QueueUrl, timing: Timing) -> Client {
    Client::from_conf(config(shared, url, timing).build())
}

/// The same, with its requests counted: they are billed.
pub fn counted(shared: &SdkConfig, url: &QueueUrl, timing: Timing, counters: Arc<Counters>) -> Client {
    Client::from_conf(config(shared, url, timing).interceptor(CountQueue(counters)).build())
}

fn config(shared: &SdkConfig, url: &QueueUrl, timing: Timing) -> aws_sdk_sqs::config::Builder {
    let region = url.region().map(|region| Region::new(region.to_owned())).or_else(|| shared.region().cloned());
    builder(shared, timing)
        .endpoint_url(url.endpoint())
        .region(region.unwrap_or_else(|| Region::from_static("us-east-1")))
}

/// Bounds on waiting that fit polls which SQS holds.
pub(crate) fn builder(shared: &SdkConfig, timing: Timing) -> aws_sdk_sqs::config::Builder {
    let connect = Duration::from_secs(5);
    let attempt = timing.wait + Duration::from_secs(10);
    aws_sdk_sqs::config::Builder::from(shared)
        // the pollers try again themselves
        .retry_config(RetryConfig::standard().with_max_attempts(2))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(connect)
                .operation_attempt_timeout(attempt)
                .operation_timeout(attempt + connect)
                .build(),
        )
}

/// A queue that is listened to.
pub struct Sqs {
    client: Client,
    url: QueueUrl,
    source: Source,
    timing: Timing,
    /// Told by whoever received as much as an answer holds.
    busy: Notify,
    /// Whether somebody else sets aside what nobody understands, once that is known.
    has_dead_letters: OnceCell<bool>,
}

impl Sqs {
    /// Listens to the queue at `url` once it runs.
    pub fn new(client: Client, url: QueueUrl, source: Source, timing: Timing) -> Arc<Sqs> {
        let (busy, has_dead_letters) = (Notify::new(), OnceCell::new());
        Arc::new(Sqs { client, url, source, timing, busy, has_dead_letters })
    }

    /// Polls until `stop` is cancelled. What was received and not applied by then comes again.
    pub async fn run(self: Arc<Sqs>, stop: CancellationToken) {
        info!(queue = %self.url, "listening for events");
        let mut tasks = JoinSet::new();
        for _ in 0..self.timing.pollers {
            let (sqs, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move { stop.run_until_cancelled(sqs.poll()).await.unwrap_or_default() });
        }
        for _ in 0..self.timing.helpers {
            let (sqs, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move { stop.run_until_cancelled(sqs.help()).await.unwrap_or_default() });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                warn!(queue = %self.url, %error, "a poller failed");
            }
        }
    }

    async fn poll(&self) {
        let mut pause = self.timing.pause;
        loop {
            match self.receive(self.timing.wait).await {
                Ok(_) => pause = self.timing.pause,
                Err(()) => {
                    let clock = &self.source.clock;
                    clock.reached(Tick(clock.now().0 + pause.as_millis() as u64)).await;
                    pause = (pause * 2).min(self.timing.longest_pause);
                }
            }
        }
    }

    /// Polls while there is much.
    async fn help(&self) {
        loop {
            self.busy.notified().await;
            while self.receive(Duration::ZERO).await == Ok(true) {}
        }
    }

    /// Receives, applies and deletes what one answer holds. `true`: there is probably more.
    async fn receive(&self, wait: Duration) -> Result<bool, ()> {
        let messages = self.ask(wait).await?;
        let is_full = messages.len() >= BATCH as usize;
        if is_full {
            self.busy.notify_one();
        }
        if !messages.is_empty() {
            self.handle(messages).await;
        }
        Ok(is_full)
    }

    async fn ask(&self, wait: Duration) -> Result<Vec<Received>, ()> {
        let request = self.client.receive_message().queue_url(self.url.as_str());
        let answer = request
            .max_number_of_messages(BATCH)
            .wait_time_seconds(seconds(wait))
            .visibility_timeout(seconds(self.timing.hidden))
            .message_system_attribute_names(Attribute::ApproximateReceiveCount)
            .message_system_attribute_names(Attribute::SentTimestamp)
            .send()
            .await;
        match answer {
            Ok(answer) => {
                if self.source.health.good(self.source.clock.now()) {
                    info!(queue = %self.url, "the queue answers again");
                }
                Ok(answer.messages.unwrap_or_default())
            }
            Err(error) => {
                let reason = explain(&Failure::new(&error));
                if self.source.health.failed(&reason) {
                    warn!(queue = %self.url, reason, "no events from the queue; checking as without it, and trying again");
                }
                Err(())
            }
        }
    }

    async fn handle(&self, messages: Vec<Received>) {
        let mut all = Events::default();
        let mut done = Vec::with_capacity(messages.len());
        let sent = messages.iter().filter_map(sent).min();
        for message in messages {
            let is_done = match self.source.read(message.body().unwrap_or_default()) {
                Ok(Message::Events(events)) => {
                    all.hints.extend(events.hints);
                    all.probes.extend(events.probes);
                    all.ignored += events.ignored;
                    all.unreadable += events.unreadable;
                    true
                }
                Ok(Message::Test) => true,
                Ok(Message::Subscription { topic, .. }) => {
                    warn!(queue = %self.url, topic, "SNS asks whether its messages are wanted: confirm the subscription of the queue");
                    true
                }
                Err(error) => self.set_aside(&message, &error).await,
            };
            if is_done {
                done.extend(message.receipt_handle);
            }
        }
        self.source.apply(all, sent).await;
        let count = done.len() as u64;
        self.delete(done).await;
        self.source.health.done(count);
    }

    /// Whether a message that nobody understands is to be deleted.
    async fn set_aside(&self, message: &Received, error: &Unreadable) -> bool {
        let receives = number(message, &Attribute::ApproximateReceiveCount).unwrap_or(1);
        let id = message.message_id().unwrap_or_default();
        if receives <= 1 && self.source.health.nonsense() {
            warn!(queue = %self.url, id, %error, "a message is no event of S3, further ones are only counted");
        } else {
            debug!(queue = %self.url, id, receives, %error, "a message is no event of S3");
        }
        receives >= POISON_RECEIVES && !self.has_dead_letters().await
    }

    /// Whether the queue sets messages aside that come again and again. As long as it does not say, it is not deleted
    /// what it may want.
    async fn has_dead_letters(&self) -> bool {
        let ask = || async {
            let request = self.client.get_queue_attributes().queue_url(self.url.as_str());
            let answer = request.attribute_names(QueueAttributeName::RedrivePolicy).send().await;
            match answer {
                Ok(answer) => {
                    Ok(answer.attributes().is_some_and(|a| a.contains_key(&QueueAttributeName::RedrivePolicy)))
                }
                Err(error) => {
                    debug!(queue = %self.url, reason = Failure::new(&error).message, "its policy is not known");
                    Err(())
                }
            }
        };
        self.has_dead_letters.get_or_try_init(ask).await.copied().unwrap_or(true)
    }

    async fn delete(&self, receipts: Vec<String>) {
        if receipts.is_empty() {
            return;
        }
        let entries = receipts.into_iter().enumerate().map(|(id, receipt)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(id.to_string()).receipt_handle(receipt);
            entry.build().expect("id and handle are set")
        });
        let request = self.client.delete_message_batch().queue_url(self.url.as_str());
        let reason = match request.set_entries(Some(entries.collect())).send().await {
            Ok(answer) => match answer.failed().first() {
                None => return,
                Some(failed) => failed.message().unwrap_or(failed.code()).to_owned(),
            },
            Err(error) => explain(&Failure::new(&error)),
        };
        if self.source.health.errors(1) == 0 {
            warn!(queue = %self.url, reason, "messages cannot be deleted: they come again");
        } else {
            debug!(queue = %self.url, reason, "messages cannot be deleted: they come again");
        }
    }
}

/// What is wrong with a queue, and what to do.
pub(crate) fn explain(failure: &Failure) -> String {
    let message = if failure.message.is_empty() { "no answer" } else { &failure.message };
    match failure.code.as_str() {
        code if code.ends_with("NonExistentQueue") || code.ends_with("QueueDoesNotExist") => {
            "the queue does not exist: check its URL, or create it with `fasts3 events setup`".to_owned()
        }
        "AccessDenied" | "AccessDeniedException" => {
            format!("{message}: the credentials need sqs:ReceiveMessage and sqs:DeleteMessage on the queue")
        }
        code if code.contains("Kms") => format!("{message}: the credentials need kms:Decrypt on the queue's key"),
        _ => message.to_owned(),
    }
}

fn seconds(time: Duration) -> i32 {
    i32::try_from(time.as_secs()).unwrap_or(i32::MAX)
}

fn number(message: &Received, name: &Attribute) -> Option<u64> {
    message.attributes()?.get(name)?.parse().ok()
}

fn sent(message: &Received) -> Option<Time> {
    let millis = i64::try_from(number(message, &Attribute::SentTimestamp)?).ok()?;
    Some(Time(millis.saturating_mul(1_000_000)))
}

#[cfg(test)]
mod tests;
