//! A JetStream stream between the servers, where NATS has one or lets us make one: a server that was away catches up.
//! Owns: the stream's name and bounds; one durable consumer a server, which NATS forgets with the last message it missed.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, Stream};
use async_nats::jetstream::{self, Context, Message};
use bytes::Bytes;
use futures::StreamExt;

/// A day: who was away for longer has to distrust everything anyhow.
const MAX_AGE: Duration = Duration::from_secs(86_400);
/// 64 MiB: some 500,000 changes.
const MAX_STREAM_BYTES: i64 = 64 << 20;
/// Messages that NATS sends ahead.
const AHEAD: usize = 32;
/// 10 s: what was under way when a connection broke comes again after it. Doubled, when applying takes longer, does no harm.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// Far above `AHEAD`, so that what comes again holds up nothing new.
const UNDER_WAY: i64 = 1_024;
/// How often NATS is asked for more, when there is nothing.
const EXPIRES: Duration = Duration::from_secs(30);
/// Below a third of `EXPIRES`: two of them missed, and it is asked anew.
const IDLE: Duration = Duration::from_secs(5);

/// Our place in a stream: from the moment it is made, nothing that is said there is missed.
pub(super) struct Place {
    context: Context,
    consumer: Consumer<pull::Config>,
    /// Whether it was made just now: what was said before is not delivered.
    pub(super) is_new: bool,
}

/// What is delivered at our place.
pub(super) struct Inbox {
    messages: pull::Stream,
    context: Context,
    /// Number of the last message in the stream.
    last: u64,
    /// As of the place.
    pub(super) is_new: bool,
}

/// Our place in the stream of that name; both are made where they are not there. `Ok(None)`: NATS has no JetStream.
/// # Errors
/// It has, and does not let us use it.
pub(super) async fn place(client: &Client, name: &str, subject: &str, server: &str) -> Result<Option<Place>, String> {
    if client.try_server_info().is_none_or(|info| !info.jetstream) {
        return Ok(None);
    }
    let context = jetstream::new(client.clone());
    let stream = stream(&context, name, subject).await?;
    let consumer_name = format!("fasts3-{server}");
    let config = pull::Config {
        durable_name: Some(consumer_name.clone()),
        description: Some("a fasts3 server".into()),
        // at its start a server distrusts everything
        deliver_policy: DeliverPolicy::New,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: UNDER_WAY,
        filter_subject: subject.into(),
        inactive_threshold: MAX_AGE,
        ..pull::Config::default()
    };
    let is_new = stream.consumer_info(&consumer_name).await.is_err();
    let consumer = stream.get_or_create_consumer(&consumer_name, config).await;
    let consumer = consumer.map_err(|error| format!("no consumer in the stream {name}: {error}"))?;
    Ok(Some(Place { context, consumer, is_new }))
}

impl Place {
    /// Begins to listen, after message number `last`.
    pub(super) async fn listen(self, last: u64) -> Result<Inbox, String> {
        let Place { context, consumer, is_new } = self;
        let stream = consumer.stream().max_messages_per_batch(AHEAD).expires(EXPIRES).heartbeat(IDLE);
        let messages = stream.messages().await.map_err(unreadable)?;
        Ok(Inbox { messages, context, last, is_new })
    }
}

fn unreadable(error: impl std::fmt::Display) -> String {
    format!("the stream cannot be read: {error}")
}

async fn stream(context: &Context, name: &str, subject: &str) -> Result<Stream, String> {
    let failure = match context.get_stream(name).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    if !matches!(failure.kind(), GetStreamErrorKind::JetStream(_)) {
        return Err(format!("JetStream cannot be used: {failure}"));
    }
    let config = Config {
        name: name.into(),
        description: Some("what fasts3 servers have changed in one bucket".into()),
        subjects: vec![subject.into()],
        max_age: MAX_AGE,
        max_bytes: MAX_STREAM_BYTES,
        ..Config::default()
    };
    context.create_stream(config).await.map_err(|error| format!("the stream {name} cannot be made: {error}"))
}

/// A message of the stream.
pub(super) struct Delivered {
    message: Message,
    /// Its number in the stream.
    pub(super) number: u64,
    /// Others before it have left the stream before they were delivered.
    pub(super) after_gap: bool,
}

impl Inbox {
    /// What says something into the stream.
    pub(super) fn context(&self) -> Context {
        self.context.clone()
    }

    /// The next message.
    pub(super) async fn next(&mut self) -> Result<Delivered, String> {
        let message = self.messages.next().await.ok_or("the stream has ended")?;
        let message = message.map_err(unreadable)?;
        let number = message.info().map_err(|error| error.to_string())?.stream_sequence;
        let after_gap = self.last > 0 && number > self.last + 1;
        self.last = self.last.max(number);
        Ok(Delivered { message, number, after_gap })
    }
}

impl Delivered {
    pub(super) fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    /// It is applied: NATS need not deliver it again.
    pub(super) async fn done(&self) -> Result<(), String> {
        self.message.ack().await.map_err(|error| error.to_string())
    }
}

/// Says `payload`; it is in the stream when this returns.
pub(super) async fn say(context: &Context, subject: &str, payload: Bytes) -> Result<(), String> {
    let said = context.publish(subject.to_owned(), payload).await.map_err(|error| error.to_string())?;
    said.await.map(|_| ()).map_err(|error| error.to_string())
}
