//! From a connection to its loss: what is heard is applied, what is in the outbox is said.
//! A NATS that has JetStream, and cannot give us a stream now, is asked again all along: once it can, the session ends
//! between two messages, and the next one begins in the stream. What is said in between is in there.

use std::convert::Infallible;
use std::sync::atomic::Ordering;

use async_nats::jetstream::Context;
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::message::{self, Sender};
use super::stream::{self, Delivered};
use super::{Names, Pace, Peers, SILENT_BEATS};

/// 256 KiB: a fourth of what NATS takes by default.
const MESSAGE_BYTES: usize = 256 << 10;
/// Changes looked at for one message: what some 100 bytes each make of `MESSAGE_BYTES`.
const MESSAGE_CHANGES: usize = 2_500;

/// Sessions that end in a row, some 8 s, for a stream that was there and is not back yet.
const REFUSALS: u32 = 5;

/// Where what is said comes in.
enum Inbox {
    Plain(Subscriber),
    Stream(Box<stream::Inbox>),
}

/// What comes next.
enum Next {
    Heard(Heard),
    /// There is a stream now.
    Stream,
}

/// Something that was heard.
enum Heard {
    /// And is not said again.
    Once(Bytes),
    /// And is said again until it is `done`.
    Kept(Box<Delivered>),
}

impl Inbox {
    async fn next(&mut self) -> Result<Heard, String> {
        match self {
            Inbox::Plain(subscriber) => once(subscriber).await,
            Inbox::Stream(inbox) => inbox.next().await.map(|delivered| Heard::Kept(Box::new(delivered))),
        }
    }
}

async fn once(subscriber: &mut Subscriber) -> Result<Heard, String> {
    let message = subscriber.next().await.ok_or("the subscription has ended")?;
    Ok(Heard::Once(message.payload))
}

impl Peers {
    /// Listens and speaks, until there is a stream and this session is none in it.
    /// # Errors
    /// What fails.
    pub(super) async fn session(&self, client: &Client) -> Result<(), String> {
        let (inbox, alive) = self.open(client).await?;
        let stream = match &inbox {
            Inbox::Plain(_) => None,
            Inbox::Stream(inbox) => Some(inbox.context()),
        };
        tokio::select! {
            ended = self.listen(client, inbox, alive) => ended,
            never = self.speak(client, stream) => match never? {},
            never = self.beat(client) => match never? {},
        }
    }

    /// Begins to listen. Distrusts everything when that leaves a gap.
    async fn open(&self, client: &Client) -> Result<(Inbox, Subscriber), String> {
        let Names { subject, alive, .. } = &self.names;
        let inbox = match self.open_stream(client).await? {
            Some(inbox) => Inbox::Stream(Box::new(inbox)),
            None => Inbox::Plain(subscribe(client, subject).await?),
        };
        let mut alive = subscribe(client, alive).await?;
        self.is_heard(client, &mut alive).await?;
        let is_gap = match &inbox {
            Inbox::Plain(_) => true,
            Inbox::Stream(inbox) => inbox.is_new,
        };
        self.has_stream.store(matches!(inbox, Inbox::Stream(_)), Ordering::Relaxed);
        match self.was_there.swap(true, Ordering::Relaxed) {
            true if is_gap => self.distrust().await,
            // what was heard at the start is older than this
            false if is_gap => self.source.tell.distrust_all().await,
            _ => {}
        }
        Ok((inbox, alive))
    }

    /// Returns when what is said from now on, by anyone, is heard: NATS takes what comes from here in order, and the last
    /// of it has come back.
    async fn is_heard(&self, client: &Client, alive: &mut Subscriber) -> Result<(), String> {
        self.say_alive(client).await?;
        let Heard::Once(payload) = self.unless_silent(once(alive)).await? else { return Ok(()) };
        self.take(&payload).await;
        Ok(())
    }

    async fn open_stream(&self, client: &Client) -> Result<Option<stream::Inbox>, String> {
        let opened = match self.place(client).await {
            Ok(Some(place)) => place.listen(self.last.load(Ordering::Relaxed)).await.map(Some),
            Ok(None) => Ok(None),
            Err(why) => Err(why),
        };
        match opened {
            Ok(inbox) => {
                self.refusals.store(0, Ordering::Relaxed);
                Ok(inbox)
            }
            // it may only not be back yet, and without it everything is distrusted
            Err(why) if self.has_stream.load(Ordering::Relaxed) && !self.is_refused() => Err(why),
            Err(why) => {
                if !self.is_warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(why, "what peers say while this server is away is not kept by NATS; trying again");
                }
                Ok(None)
            }
        }
    }

    async fn place(&self, client: &Client) -> Result<Option<stream::Place>, String> {
        let Names { subject, stream, .. } = &self.names;
        stream::place(client, stream, subject, &self.place.server).await
    }

    /// Counts one more session that cannot have its stream; whether those are enough.
    fn is_refused(&self) -> bool {
        self.refusals.fetch_add(1, Ordering::Relaxed) >= REFUSALS
    }

    /// Waits until there is a stream, and a place in it for what is said from then on.
    async fn stream(&self, client: &Client) {
        let mut wait = self.settings.pace.retry;
        loop {
            tokio::time::sleep(wait).await;
            if let Ok(Some(_)) = self.place(client).await {
                tracing::info!("what peers say while this server is away is kept by NATS now");
                self.is_warned.store(false, Ordering::Relaxed);
                return self.has_stream.store(true, Ordering::Relaxed);
            }
            wait = (wait * 2).min(self.settings.pace.longest_retry);
        }
    }

    async fn listen(&self, client: &Client, mut inbox: Inbox, mut alive: Subscriber) -> Result<(), String> {
        let is_plain = matches!(inbox, Inbox::Plain(_));
        let mut stream = std::pin::pin!(self.stream(client));
        loop {
            let next = async {
                tokio::select! {
                    // what has come in is taken before the session ends
                    biased;
                    heard = inbox.next() => heard.map(Next::Heard),
                    heard = once(&mut alive) => heard.map(Next::Heard),
                    () = &mut stream, if is_plain => Ok(Next::Stream),
                }
            };
            match self.unless_silent(next).await? {
                Next::Stream => return Ok(()),
                Next::Heard(Heard::Once(payload)) => self.take(&payload).await,
                Next::Heard(Heard::Kept(delivered)) => {
                    if delivered.after_gap {
                        self.distrust().await;
                    }
                    self.take(delivered.payload()).await;
                    delivered.done().await?;
                    self.last.fetch_max(delivered.number, Ordering::Relaxed);
                }
            }
        }
    }

    /// What comes, if something does.
    async fn unless_silent<T>(&self, next: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let next = timeout(self.settings.pace.heartbeat * SILENT_BEATS, next).await;
        next.map_err(|_| "nothing comes back from NATS, not even what was sent from here")?
    }

    /// Says every now and then that this server is there.
    async fn beat(&self, client: &Client) -> Result<Infallible, String> {
        let mut beat = interval(self.settings.pace.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            self.say_alive(client).await?;
        }
    }

    async fn say_alive(&self, client: &Client) -> Result<(), String> {
        let (payload, _) = message::encode(&self.sender(0), self.source.clock.wall(), [], MESSAGE_BYTES);
        client.publish(self.names.alive.clone(), payload).await.map_err(|error| error.to_string())
    }

    async fn speak(&self, client: &Client, stream: Option<Context>) -> Result<Infallible, String> {
        let Pace { batch, .. } = self.settings.pace;
        loop {
            self.outbox.filled().await;
            tokio::time::sleep(batch).await;
            self.say(client, stream.as_ref()).await?;
        }
    }

    /// Says what is first in the outbox.
    async fn say(&self, client: &Client, stream: Option<&Context>) -> Result<(), String> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (payload, count) = self.message(client, number);
        let subject = self.names.subject.clone();
        match stream {
            Some(stream) => stream::say(stream, &subject, payload).await?,
            None => {
                let mut returned = self.returned.subscribe();
                client.publish(subject, payload).await.map_err(|error| error.to_string())?;
                let back = returned.wait_for(|returned| *returned == number);
                let back = timeout(self.settings.pace.heartbeat * SILENT_BEATS, back).await;
                back.map_err(|_| "NATS does not give back what it is told")?.map_err(|error| error.to_string())?;
            }
        }
        self.told(count);
        Ok(())
    }

    /// At the end: without waiting for it to come back.
    pub(super) async fn say_last(&self, client: &Client) {
        while !self.outbox.is_empty() {
            let (payload, count) = self.message(client, 0);
            if client.publish(self.names.subject.clone(), payload).await.is_err() {
                break;
            }
            self.told(count);
        }
        let _ = client.flush().await;
    }

    /// A message of what is first in the outbox, and how many changes that is.
    fn message(&self, client: &Client, number: u64) -> (Bytes, usize) {
        let limit = MESSAGE_BYTES.min(client.max_payload());
        let changes = self.outbox.first(MESSAGE_CHANGES);
        message::encode(&self.sender(number), self.source.clock.wall(), &changes, limit)
    }

    fn told(&self, count: usize) {
        self.outbox.told(count);
        self.told.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn sender(&self, number: u64) -> Sender {
        Sender { id: self.place.server.clone(), host: self.place.host.clone(), number }
    }
}

async fn subscribe(client: &Client, subject: &str) -> Result<Subscriber, String> {
    client.subscribe(subject.to_owned()).await.map_err(|error| error.to_string())
}
