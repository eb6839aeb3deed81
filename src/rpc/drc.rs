//! Duplicate request cache: a call that changes something, sent again because its answer was lost with a
//! connection, gets that answer again and does not run twice.
//! Owns: the replies to calls that are not idempotent, by client address, xid, procedure and arguments.
//! Invariants: one short lock, never held across an await; only replies that are complete are kept or evicted,
//! so a call under way is never forgotten; idempotent calls never come here.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap, RandomState};
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::DrcLimits;
use super::message::Message;

/// 4 KiB of arguments are looked at: more than two names and two handles; the xid tells the rest apart.
const DIGESTED_ARGS: usize = 4096;

/// The replies of all connections of a server.
#[derive(Debug)]
pub(super) struct ReplyCache {
    limits: DrcLimits,
    hasher: RandomState,
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    by_address: HashMap<IpAddr, Client>,
    /// Counts `begin`s: what "unheard of for longest" is measured by.
    time: u64,
}

#[derive(Debug, Default)]
struct Client {
    heard: u64,
    calls: HashMap<CallId, State>,
    /// The calls that are answered, oldest first.
    answered: VecDeque<CallId>,
    bytes: usize,
}

/// One call of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct CallId {
    xid: u32,
    program: u32,
    version: u32,
    procedure: u32,
    args: u64,
}

#[derive(Debug)]
enum State {
    UnderWay { connection: u64, waiter: Option<oneshot::Sender<Bytes>> },
    Answered(Bytes),
}

/// What is known of a call that arrived.
#[derive(Debug)]
pub(super) enum Seen {
    /// Nothing: it is to be run, and its reply put into the slot.
    New(Slot),
    /// Its reply, to be sent again.
    Answered(Bytes),
    /// It came on another connection, which may be lost: here is its reply when it has one.
    UnderWay(oneshot::Receiver<Bytes>),
    /// It came on this connection, which will carry the one reply.
    Twice,
}

/// The duty to answer a call. Dropped without an answer, the call may run again.
#[derive(Debug)]
pub(super) struct Slot {
    cache: Arc<ReplyCache>,
    client: IpAddr,
    call: CallId,
}

impl ReplyCache {
    pub(super) fn new(limits: DrcLimits) -> ReplyCache {
        ReplyCache { limits, hasher: RandomState::new(), clients: Mutex::default() }
    }

    /// Looks a call up that came from `client` on `connection`, and enters it when it is new.
    pub(super) fn begin(self: &Arc<Self>, client: IpAddr, connection: u64, message: &Message<'_>) -> Seen {
        let call = self.identify(message);
        let mut clients = self.clients.lock();
        match clients.client(client, self.limits.clients).calls.entry(call) {
            Entry::Vacant(entry) => {
                entry.insert(State::UnderWay { connection, waiter: None });
                Seen::New(Slot { cache: self.clone(), client, call })
            }
            Entry::Occupied(mut entry) => match entry.get_mut() {
                State::Answered(reply) => Seen::Answered(reply.clone()),
                State::UnderWay { connection: first, .. } if *first == connection => Seen::Twice,
                State::UnderWay { waiter, .. } => {
                    // whoever waited before is on an older connection
                    let (sender, receiver) = oneshot::channel();
                    *waiter = Some(sender);
                    Seen::UnderWay(receiver)
                }
            },
        }
    }

    fn identify(&self, message: &Message<'_>) -> CallId {
        let mut hasher = self.hasher.build_hasher();
        message.args.len().hash(&mut hasher);
        hasher.write(&message.args[..message.args.len().min(DIGESTED_ARGS)]);
        let Message { xid, program, version, procedure, .. } = *message;
        CallId { xid, program, version, procedure, args: hasher.finish() }
    }
}

impl Slot {
    /// Keeps the complete reply, its record mark included, and hands it to a duplicate that waits.
    pub(super) fn answer(self, reply: Bytes) {
        let mut clients = self.cache.clients.lock();
        let Some(client) = clients.by_address.get_mut(&self.client) else { return };
        let before = client.calls.insert(self.call, State::Answered(reply.clone()));
        client.bytes += reply.len();
        client.answered.push_back(self.call);
        client.evict(&self.cache.limits);
        if let Some(State::UnderWay { waiter: Some(waiter), .. }) = before {
            // a waiter that is gone needs no reply
            let _ = waiter.send(reply);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut clients = self.cache.clients.lock();
        let Some(client) = clients.by_address.get_mut(&self.client) else { return };
        if matches!(client.calls.get(&self.call), Some(State::UnderWay { .. })) {
            client.calls.remove(&self.call);
        }
    }
}

impl Clients {
    /// The calls of `address`, for which the quietest other client may have to go.
    fn client(&mut self, address: IpAddr, most: usize) -> &mut Client {
        self.time += 1;
        if self.by_address.len() >= most && !self.by_address.contains_key(&address) {
            let idle = self.by_address.iter().filter(|(_, c)| c.calls.len() == c.answered.len());
            if let Some(quietest) = idle.min_by_key(|(_, c)| c.heard).map(|(a, _)| *a) {
                self.by_address.remove(&quietest);
            }
        }
        let client = self.by_address.entry(address).or_default();
        client.heard = self.time;
        client
    }
}

impl Client {
    fn evict(&mut self, limits: &DrcLimits) {
        while self.answered.len() > limits.entries || self.bytes > limits.bytes {
            let Some(oldest) = self.answered.pop_front() else { return };
            if let Some(State::Answered(reply)) = self.calls.remove(&oldest) {
                self.bytes -= reply.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv4Addr;

    use super::*;

    const RECORD: [u8; 40] = {
        let mut call = [0; 40];
        call[11] = 2;
        call
    };

    fn cache(clients: usize) -> Arc<ReplyCache> {
        Arc::new(ReplyCache::new(DrcLimits { clients, entries: 10, bytes: 1000 }))
    }

    fn begin(cache: &Arc<ReplyCache>, client: u8, connection: u64) -> Seen {
        cache.begin(Ipv4Addr::new(10, 0, 0, client).into(), connection, &Message::parse(&RECORD).unwrap())
    }

    fn answer(seen: Seen) {
        let Seen::New(slot) = seen else { panic!("{seen:?} is not new") };
        slot.answer(Bytes::from_static(b"reply"));
    }

    #[test]
    fn the_client_unheard_of_for_longest_is_forgotten_first() {
        let cache = cache(2);
        answer(begin(&cache, 1, 1));
        answer(begin(&cache, 2, 2));
        assert!(matches!(begin(&cache, 1, 1), Seen::Answered(_)));
        answer(begin(&cache, 3, 3));
        assert!(matches!(begin(&cache, 1, 1), Seen::Answered(_)));
        assert!(matches!(begin(&cache, 2, 2), Seen::New(_)));
    }

    #[test]
    fn a_client_with_a_call_under_way_is_not_forgotten() {
        let cache = cache(1);
        let first = begin(&cache, 1, 1);
        answer(begin(&cache, 2, 2));
        assert!(matches!(begin(&cache, 1, 1), Seen::Twice));
        answer(first);
        assert!(matches!(begin(&cache, 1, 9), Seen::Answered(_)));
    }

    #[test]
    fn only_the_newest_connection_that_waits_is_answered() {
        let cache = cache(1);
        let first = begin(&cache, 1, 1);
        let (Seen::UnderWay(mut second), Seen::UnderWay(mut third)) = (begin(&cache, 1, 2), begin(&cache, 1, 3)) else {
            panic!("both wait");
        };
        answer(first);
        assert!(second.try_recv().is_err());
        assert_eq!(third.try_recv().unwrap(), "reply");
    }

    #[test]
    fn a_slot_dropped_without_an_answer_leaves_nothing() {
        let cache = cache(1);
        drop(begin(&cache, 1, 1));
        assert!(matches!(begin(&cache, 1, 2), Seen::New(_)));
    }

    #[test]
    fn the_same_call_of_another_client_is_another_call() {
        let cache = cache(5);
        answer(begin(&cache, 1, 1));
        assert!(matches!(begin(&cache, 2, 1), Seen::New(_)));
    }
}
