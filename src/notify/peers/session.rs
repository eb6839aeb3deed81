//! From a connection to its loss: what is heard is applied, what is in the outbox is said.

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

/// Where what is said comes in.
enum Inbox {
    Plain(Subscriber),
    Stream(Box<stream::Inbox>),
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
    /// Listens and speaks until something fails: what does.
    pub(super) async fn session(&self, client: &Client) -> String {
        let (inbox, alive) = match self.open(client).await {
            Ok(opened) => opened,
            Err(why) => return why,
        };
        let stream = match &inbox {
            Inbox::Plain(_) => None,
            Inbox::Stream(inbox) => Some(inbox.context()),
        };
        match tokio::try_join!(self.listen(inbox, alive), self.speak(client, stream), self.beat(client)) {
            Ok((never, ..)) => match never {},
            Err(why) => why,
        }
    }

    /// Begins to listen. Distrusts everything when that leaves a gap.
    async fn open(&self, client: &Client) -> Result<(Inbox, Subscriber), String> {
        let Names { subject, alive, .. } = &self.names;
        let alive = subscribe(client, alive).await?;
        let inbox = match self.open_stream(client).await? {
            Some(inbox) => Inbox::Stream(Box::new(inbox)),
            None => Inbox::Plain(subscribe(client, subject).await?),
        };
        // so that what is said from now on, by anyone, is heard
        client.flush().await.map_err(|error| error.to_string())?;
        let is_gap = match &inbox {
            Inbox::Plain(_) => true,
            Inbox::Stream(inbox) => inbox.is_new,
        };
        self.has_stream.store(matches!(inbox, Inbox::Stream(_)), Ordering::Relaxed);
        if self.was_there.swap(true, Ordering::Relaxed) && is_gap {
            self.distrust().await;
        }
        Ok((inbox, alive))
    }

    async fn open_stream(&self, client: &Client) -> Result<Option<stream::Inbox>, String> {
        let Names { subject, stream, .. } = &self.names;
        let last = self.last.load(Ordering::Relaxed);
        match stream::open(client, stream, subject, &self.place.server, last).await {
            Ok(found) => Ok(found),
            // it may only not be back yet
            Err(why) if self.has_stream.swap(false, Ordering::Relaxed) => Err(why),
            Err(why) => {
                if !self.was_there.load(Ordering::Relaxed) {
                    tracing::warn!(why, "what peers say while this server is away is not kept by NATS");
                }
                Ok(None)
            }
        }
    }

    async fn listen(&self, mut inbox: Inbox, mut alive: Subscriber) -> Result<Infallible, String> {
        let silence = self.settings.pace.heartbeat * SILENT_BEATS;
        loop {
            let next = async {
                tokio::select! {
                    heard = inbox.next() => heard,
                    heard = once(&mut alive) => heard,
                }
            };
            let heard = timeout(silence, next).await;
            let heard = heard.map_err(|_| "nothing comes back from NATS, not even what was sent from here")??;
            match heard {
                Heard::Once(payload) => self.take(&payload).await,
                Heard::Kept(delivered) => {
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

    /// Says that this server is there.
    async fn beat(&self, client: &Client) -> Result<Infallible, String> {
        let mut beat = interval(self.settings.pace.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let (payload, _) = message::encode(&self.sender(0), self.source.clock.wall(), [], MESSAGE_BYTES);
            client.publish(self.names.alive.clone(), payload).await.map_err(|error| error.to_string())?;
        }
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
