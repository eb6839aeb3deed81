//! Servers of one bucket tell each other what they have written, over NATS.
//! Owns: what is still to be told, the connection, which other servers were heard of lately.
//! Invariants
//! - What is told is in S3 already, and stays in the outbox until it has come back from NATS, or is in its stream. So
//!   as long as the server runs, every change is told at least once, however often NATS goes away.
//! - Where something may have been missed, all of the export is distrusted once: at the first session what was said
//!   since the start, later what was said since the last one. With a stream that is rare.
//! - What came in is applied before NATS is told so (`Tell`), and bounded before it is parsed.
//! - A NATS that is down costs a warning. It is tried for ever.
//!
//! A `session` lasts from a connection to its loss: it listens, in the `stream` if there is one, and speaks from the
//! `outbox`. Every `heartbeat` each server says that it is there: that this comes back proves the way.

mod connection;
mod message;
mod outbox;
mod session;
mod stream;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest, Md5};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::connection::{Link, failed};
pub use self::connection::{Papers, PeersError, Servers};
use self::message::{Change, Message};
use self::outbox::Outbox;
use super::records::Events;
use super::{Hint, Origin, Said, Source, SourceState};
use crate::store::carried::is_digest;
use crate::store::{Announce, Announced, Carried};
use crate::types::{Key, Tick};

/// Other servers remembered; who was heard of longest ago is forgotten first.
const MAX_PEERS: usize = 1_024;
/// After so many heartbeats without a word, a server counts as gone.
const SILENT_BEATS: u32 = 3;

/// How to reach the peers, and what to tell them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--peers`.
    pub servers: Servers,
    /// `--peers-creds` and its like.
    pub papers: Papers,
    /// `--peers-group`: what servers have in common that reach one S3 by different URLs.
    pub group: Option<String>,
    /// `--peer-inline`: objects of up to so many bytes ride along; 0: none.
    pub inline_bytes: u64,
    /// How fast.
    pub pace: Pace,
}

/// How fast things go; tests go faster.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long changes wait for others to go with.
    pub batch: Duration,
    /// How often a server says that it is there.
    pub heartbeat: Duration,
    /// How long after a failure a session is tried again, at first.
    pub retry: Duration,
    /// The longest such wait.
    pub longest_retry: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            // a tenth of what a change may take from server to server
            batch: Duration::from_millis(10),
            // often enough that who is cut off knows it in half a minute; 100 servers then say ten words a second
            heartbeat: Duration::from_secs(10),
            retry: Duration::from_millis(250),
            longest_retry: Duration::from_secs(30),
        }
    }
}

/// Who we are, and whose peers.
#[derive(Clone, Debug)]
pub struct Place {
    /// This server, the same after a restart: the cache directory's id.
    pub server: String,
    /// What people call it.
    pub host: String,
    /// URL of the S3; `None`: AWS.
    pub endpoint: Option<String>,
    /// Bucket.
    pub bucket: String,
    /// Mounted prefix: empty, or ending in `/`.
    pub prefix: String,
}

/// The peers of this server.
pub struct Peers {
    settings: Settings,
    place: Place,
    source: Source,
    names: Names,
    outbox: Outbox,
    carried: Arc<Carried>,
    link: watch::Sender<Link>,
    /// Numbers our messages.
    numbers: AtomicU64,
    /// Number of our last message that came back.
    returned: watch::Sender<u64>,
    /// Number of the last message taken from the stream.
    last: AtomicU64,
    /// Whether there was a session before.
    was_there: AtomicBool,
    has_stream: AtomicBool,
    /// Sessions in a row that ended because the stream they had before could not be opened.
    refusals: AtomicU32,
    /// Whether somebody was warned that there is no stream.
    is_warned: AtomicBool,
    told: AtomicU64,
    heard: Mutex<HashMap<String, Heard>>,
}

/// What things are called in NATS.
struct Names {
    subject: String,
    /// Where servers say that they are there, which is not worth keeping.
    alive: String,
    stream: String,
}

#[derive(Clone, Debug)]
struct Heard {
    host: String,
    at: Tick,
}

/// How it goes with the peers.
#[derive(Clone, Debug, Serialize)]
pub struct PeersState {
    /// As of any source of events.
    #[serde(flatten)]
    pub source: SourceState,
    /// Whether the connection to NATS stands.
    pub connected: bool,
    /// Whether NATS keeps what a server misses that is away.
    pub stream: bool,
    /// Changes told.
    pub told: u64,
    /// Changes still to be told.
    pub waiting: usize,
    /// Other servers that were heard of lately.
    pub servers: Vec<PeerState>,
}

/// Another server.
#[derive(Clone, Debug, Serialize)]
pub struct PeerState {
    /// Its id.
    pub server: String,
    /// What people call it.
    pub host: String,
    /// How long ago it said something, in milliseconds.
    pub silent_ms: u64,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("settings", &self.settings).field("place", &self.place).finish_non_exhaustive()
    }
}

impl Peers {
    /// Puts it together; `run` starts it, and changes are kept from now on. `source.health` is to be of `Origin::Peer`.
    /// `carried` is given the bytes that ride along.
    pub fn new(settings: Settings, place: Place, source: Source, carried: Arc<Carried>) -> Arc<Peers> {
        let names = Names::of(&settings, &place);
        Arc::new(Peers {
            settings,
            place,
            source,
            names,
            outbox: Outbox::new(),
            carried,
            link: watch::Sender::new(Link::default()),
            // of an earlier run there may be some on their way
            numbers: AtomicU64::new(Uuid::new_v4().as_u64_pair().0),
            returned: watch::Sender::new(0),
            last: AtomicU64::new(0),
            was_there: AtomicBool::new(false),
            has_stream: AtomicBool::new(false),
            refusals: AtomicU32::new(0),
            is_warned: AtomicBool::new(false),
            told: AtomicU64::new(0),
            heard: Mutex::new(HashMap::new()),
        })
    }

    /// Tells the peers that everything below `prefix` (of the export) may be another: they ask S3 again.
    pub fn invalidate(&self, prefix: &Key) {
        self.push(prefix, Said::Changed, None);
    }

    /// How it goes.
    pub fn state(&self) -> PeersState {
        let now = self.source.clock.now();
        let lately = self.settings.pace.heartbeat * SILENT_BEATS;
        let heard = self.heard.lock();
        let mut servers: Vec<PeerState> = heard
            .iter()
            .filter(|(_, heard)| now.since(heard.at) < lately)
            .map(|(server, heard)| PeerState {
                server: server.clone(),
                host: heard.host.clone(),
                silent_ms: now.since(heard.at).as_millis() as u64,
            })
            .collect();
        drop(heard);
        servers.sort_by(|a, b| (&a.host, &a.server).cmp(&(&b.host, &b.server)));
        PeersState {
            source: self.source.health.state(),
            connected: self.link.borrow().connected,
            stream: self.has_stream.load(Ordering::Relaxed),
            told: self.told.load(Ordering::Relaxed),
            waiting: self.outbox.len(),
            servers,
        }
    }

    /// Talks to the peers until `stop`; then what is still to be told is told, if that is quick.
    /// # Errors
    /// A file that was given cannot be read. A NATS that is not there is none.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> Result<(), PeersError> {
        let Settings { servers, papers, pace, .. } = &self.settings;
        let name = format!("fasts3 {} {}", self.place.host, self.place.bucket);
        let client = connection::connect(servers, papers, name, self.link.clone(), self.source.health.clone()).await?;
        let mut link = self.link.subscribe();
        let mut retry = pace.retry;
        loop {
            let before = self.source.health.state().messages;
            let now = *link.borrow_and_update();
            tokio::select! {
                () = stop.cancelled() => break,
                _ = link.changed() => continue,
                ended = self.session(&client), if now.connected => match ended {
                    Ok(()) => continue,
                    Err(why) => failed(&why, &self.source.health),
                },
            }
            if self.source.health.state().messages > before {
                retry = pace.retry;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(retry) => {}
            }
            retry = (retry * 2).min(pace.longest_retry);
        }
        if self.link.borrow().connected {
            // half of what a supervisor gives a server at least
            let _ = tokio::time::timeout(Duration::from_secs(2), self.say_last(&client)).await;
        }
        Ok(())
    }

    /// Applies a message.
    async fn take(&self, payload: &Bytes) {
        let health = &self.source.health;
        let message = match message::decode(payload) {
            Ok(message) => message,
            Err(why) => {
                if health.nonsense() {
                    tracing::warn!(%why, subject = self.names.subject, "a message is refused; further ones are only counted");
                }
                return;
            }
        };
        let now = self.source.clock.now();
        if health.good(now) {
            tracing::info!("peers are heard again");
        }
        if message.from == self.place.server {
            // others, that are not waited for, have none
            if message.number != 0 {
                self.returned.send_replace(message.number);
            }
        } else {
            self.hear(&message, now);
            let at = message.at;
            if message.changes.is_empty() {
                self.source.is_there(at);
            } else {
                self.source.apply(self.events(message), Some(at)).await;
            }
        }
        health.done(1);
    }

    fn hear(&self, message: &Message, now: Tick) {
        let mut heard = self.heard.lock();
        let is_news = heard.insert(message.from.clone(), Heard { host: message.host.clone(), at: now }).is_none();
        if is_news {
            tracing::info!(host = message.host, server = message.from, "another server of this bucket");
        }
        if heard.len() > MAX_PEERS
            && let Some(oldest) = heard.iter().min_by_key(|(_, heard)| heard.at).map(|(server, _)| server.clone())
        {
            heard.remove(&oldest);
        }
    }

    fn events(&self, message: Message) -> Events {
        let mut events = Events::default();
        for Change { key, said, inline } in message.changes {
            match self.key(&key, &said) {
                Some(key) => {
                    // before the hint, which may be acted on at once
                    if let (Said::Written { etag: Some(etag), .. }, Some(bytes)) = (&said, inline) {
                        self.carried.put(key.clone(), etag.clone(), bytes);
                    }
                    let (at, origin) = (Some(message.at), Origin::Peer);
                    events.hints.push(Hint { key, said, sequencer: None, at, origin });
                }
                None => events.ignored += 1,
            }
        }
        events
    }

    /// The key here of one of the bucket; all that is mounted here may be below it.
    fn key(&self, full: &str, said: &Said) -> Option<Key> {
        let is_above = *said == Said::Changed && self.place.prefix.starts_with(full) && is_prefix(full);
        if is_above { Some(Key::root()) } else { self.source.scope.key(&self.place.bucket, full) }
    }

    /// Something was missed.
    async fn distrust(&self) {
        tracing::info!("words of peers were missed: S3 is asked again about everything");
        let hint = Hint { key: Key::root(), said: Said::Changed, sequencer: None, at: None, origin: Origin::Peer };
        self.source.apply(Events { hints: vec![hint], ..Events::default() }, None).await;
    }

    fn push(&self, key: &Key, said: Said, inline: Option<Bytes>) {
        self.outbox.push(Change { key: [&self.place.prefix, key.as_str()].concat(), said, inline });
    }
}

impl Announce for Peers {
    fn announce(&self, what: Announced) {
        match what {
            Announced::Written { key, etag, size, bytes } => {
                let inline = bytes.filter(|bytes| bytes.len() as u64 <= self.settings.inline_bytes);
                // the others would not believe it
                let inline = inline.filter(|bytes| !bytes.is_empty() && is_digest(&etag, bytes));
                self.push(&key, Said::Written { etag: Some(etag), size: Some(size) }, inline);
            }
            Announced::Removed { key } => self.push(&key, Said::Removed, None),
            Announced::Unsure { key } => self.push(&key, Said::Changed, None),
        }
    }
}

fn is_prefix(key: &str) -> bool {
    key.is_empty() || key.ends_with('/')
}

impl Names {
    /// Those of the same bucket have the same, whichever part of it they mount.
    fn of(settings: &Settings, place: &Place) -> Names {
        let s3 = match (&settings.group, &place.endpoint) {
            (Some(group), _) => format!("group {group}"),
            (None, Some(url)) => host_of(url),
            (None, None) => AWS.to_owned(),
        };
        let digest = Md5::digest(format!("{s3}\n{}", place.bucket));
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Names {
            subject: format!("fasts3.{hex}"),
            alive: format!("fasts3.{hex}.alive"),
            stream: format!("fasts3-{hex}"),
        }
    }
}

/// All of AWS is one: a bucket's name is given once.
const AWS: &str = "amazonaws.com";

fn host_of(url: &str) -> String {
    let url = url.to_ascii_lowercase();
    let host = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or(host);
    let is_aws = host.ends_with(".amazonaws.com") || host == AWS;
    if is_aws { AWS.to_owned() } else { host.to_owned() }
}

#[cfg(test)]
mod tests;
