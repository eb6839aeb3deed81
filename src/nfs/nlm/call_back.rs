//! Calls to the lock managers of clients: the results of their messages, and GRANTED, when a lock that somebody waited for
//! is to be had.
//!
//! A client that does not answer is called again, ever more slowly, up to `PATIENCE`: meanwhile the lock is kept for it,
//! and it gets it, too, if it asks again of itself, as clients behind a firewall do. Then the next one has its turn.
//! Invariant: a client that is slow or away delays nobody else but those who want the same bytes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::decode::Reply;
use super::{GRANTED, GRANTED_MSG, PROGRAM, Status, VERSION};
use crate::locks::{Locks, Offer};
pub(super) use crate::nfs::reach::Client;
use crate::nfs::reach::{Directory, Service};
use crate::rpc::outgoing::Transport;
use crate::rpc::xdr::{Reader, Write};
use crate::types::{Clock, Tick};

/// Twice as long as Linux's client waits before it asks again of itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// A client is called again after a second, then after twice as long each time,
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// up to 10 s.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Results of messages that wait to be sent. Beyond that they are lost, as datagrams may be: the client asks again.
const MESSAGES: usize = 256;
/// Connections to clients at once.
const CALLS: usize = 64;

/// A result of a message.
#[derive(Debug)]
struct Message {
    to: Client,
    procedure: u32,
    args: Vec<u8>,
}

/// Where results of messages go. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox(mpsc::Sender<Message>);

impl Outbox {
    /// Sends a result to a client, or loses it when too many wait.
    pub(super) fn send(&self, to: Client, procedure: u32, args: Vec<u8>) {
        if self.0.try_send(Message { to, procedure, args }).is_err() {
            debug!(address = %to.address, procedure, "too many results of lock messages wait, this one is lost");
        }
    }
}

/// What calls the clients; `run` must run.
#[derive(Debug)]
pub struct CallBack {
    messages: mpsc::Receiver<Message>,
    caller: Arc<Caller>,
}

#[derive(Debug)]
struct Caller {
    /// `None`: there are none to tell of.
    locks: Option<Arc<Locks>>,
    directory: Arc<Directory>,
    clock: Clock,
    calls: Semaphore,
}

impl CallBack {
    /// Tells clients of what `locks` offers them, where `directory` finds them.
    pub fn new(locks: Option<Arc<Locks>>, directory: Arc<Directory>, clock: Clock) -> (Outbox, CallBack) {
        let (outbox, messages) = mpsc::channel(MESSAGES);
        let caller = Caller { locks, directory, clock, calls: Semaphore::new(CALLS) };
        (Outbox(outbox), CallBack { messages, caller: Arc::new(caller) })
    }

    /// Runs until `stop`. Offers that are not taken then are forgotten with the locks: the clients still wait, and ask
    /// the next server.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut calls = JoinSet::new();
        let mut sends = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = calls.join_next() => {}
                Some(_) = sends.join_next() => {}
                offers = self.caller.offers() => {
                    for offer in offers {
                        calls.spawn(self.caller.clone().tell(offer));
                    }
                }
                Some(message) = self.messages.recv(), if sends.len() < CALLS => {
                    sends.spawn(self.caller.clone().deliver(message));
                }
            }
        }
    }
}

impl Caller {
    async fn offers(&self) -> Vec<Offer> {
        match &self.locks {
            Some(locks) => locks.offers().await,
            None => std::future::pending().await,
        }
    }

    async fn deliver(self: Arc<Self>, message: Message) {
        let Message { to, procedure, args } = message;
        if self.send(to, procedure, &args).await.is_none() {
            debug!(address = %to.address, procedure, "cannot send the result of a lock message");
        }
    }

    /// Tells a client until it is settled whether it takes the lock.
    async fn tell(self: Arc<Self>, offer: Offer) {
        let Some(locks) = &self.locks else { return };
        let gives_up = after(self.clock.now(), PATIENCE);
        let mut pause = FIRST_PAUSE;
        while locks.is_offered(offer.id) {
            match self.granted(&offer).await {
                Some(status) if status == Status::Granted as u32 => return locks.accept(offer.id),
                // its own lock manager has just been started, or nothing came of the call
                Some(status) if status == Status::Grace as u32 => {}
                None => {}
                Some(_) => return locks.refuse(offer.id),
            }
            if self.clock.now() >= gives_up {
                debug!(address = %offer.host.address, "a client does not answer that it may have a lock");
                return locks.refuse(offer.id);
            }
            self.clock.reached(after(self.clock.now(), pause).min(gives_up)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One attempt: what the client says; `None` when that is not known, or comes by a message.
    async fn granted(&self, offer: &Offer) -> Option<u32> {
        let to = Client { address: offer.host.address, server: offer.host.server };
        let args = granted_args(offer);
        if offer.asked.by_message {
            self.send(to, GRANTED_MSG, &args).await;
            return None;
        }
        let _permit = self.calls.acquire().await.ok()?;
        for transport in [Transport::Tcp, Transport::Udp] {
            if let Ok(result) = self.directory.call(to, lock_manager(transport), GRANTED, &args).await {
                return Reply::read(&mut Reader::new(&result)).ok().map(|reply| reply.status);
            }
        }
        None
    }

    /// Sends a message, over what the client has.
    async fn send(&self, to: Client, procedure: u32, args: &[u8]) -> Option<()> {
        let _permit = self.calls.acquire().await.ok()?;
        for transport in [Transport::Tcp, Transport::Udp] {
            if self.directory.send(to, lock_manager(transport), procedure, args).await.is_ok() {
                return Some(());
            }
        }
        None
    }
}

fn after(now: Tick, time: Duration) -> Tick {
    Tick(now.0 + time.as_millis() as u64)
}

fn lock_manager(transport: Transport) -> Service {
    Service { program: PROGRAM, version: VERSION, transport }
}

/// `nlm4_testargs`: the lock, word for word as it was asked for. The cookie is the offer's number.
fn granted_args(offer: &Offer) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_opaque(&offer.id.to_be_bytes());
    out.put_bool(offer.exclusive);
    out.put_opaque(&offer.host.name);
    out.put_opaque(&offer.asked.handle);
    out.put_opaque(&offer.asked.owner);
    out.put_u32(offer.svid);
    out.put_u64(offer.asked.offset);
    out.put_u64(offer.asked.len);
    out
}
