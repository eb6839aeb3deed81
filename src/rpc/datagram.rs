//! RPC over UDP: one task a socket, which answers the same `Programs` one datagram at a time.
//! Owns: the calls that came by its socket and wait for their reply, and their duplicate request cache, apart from
//! that of the connections: who forges addresses must not push out what real clients rely on.
//! Invariants: what is no call gets no answer; a reply is short, since its receiver may not be who asked for it, and
//! a reply that is longer is SYSTEM_ERR, which sends a client to TCP; at most `CALLS_IN_FLIGHT` calls wait, more are
//! dropped and come again; no call, not even one that panics, ends the task.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::connection::route;
use super::drc::{ReplyCache, Seen};
use super::gate::canonical;
use super::message::{self, Caller, Message, NoCall};
use super::outgoing::Transport;
use super::replies::complete;
use super::stats::Tally;
use super::{Call, DrcLimits, Handled, LateReply, Outcome, Program, Programs, Squash, Stats};

/// Longest call: a path, a handle, a lock's owner and the credential are far below.
const MAX_CALL: usize = 8800;
/// Longest reply to another machine: what MNT and a portmapper's answers need, and one unfragmented packet. Sent to
/// whom a forger names, it would be ten times the call.
const MAX_REPLY: usize = 512;
/// Longest reply on this machine, where nobody forges: what RPC clients take.
const MAX_LOCAL_REPLY: usize = 8800;
/// 64: mounts that wait for S3; a client sends again what was dropped.
const CALLS_IN_FLIGHT: usize = 64;
/// Replies of the few calls that must not run twice: clients send again within a minute.
const DRC: DrcLimits = DrcLimits { clients: 256, entries: 64, bytes: 32 << 10 };
/// Pause after the OS failed to receive.
const BACKOFF: Duration = Duration::from_millis(10);

/// Takes datagrams at `addr`; an unspecified IPv6 address takes IPv4 too.
/// # Errors
/// The OS's: the address is in use, or is not ours.
pub fn bind_datagrams(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.ip().is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    UdpSocket::from_std(socket.into())
}

/// Answers calls to `programs` on `socket` until `stop` is cancelled; calls that have begun then end first.
pub async fn serve_datagrams(socket: UdpSocket, programs: Programs, stats: Arc<Stats>, stop: CancellationToken) {
    let replies = Arc::new(ReplyCache::new(DRC));
    let tally = stats.datagrams(&programs);
    let desk = Desk { programs, tally, replies };
    let mut calls = FuturesUnordered::new();
    let mut buffer = vec![0; MAX_CALL + 1];
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some((peer, reply)) = calls.next() => send(&socket, peer, reply),
            received = socket.recv_from(&mut buffer) => match received {
                Ok((len, peer)) if len <= MAX_CALL && calls.len() < CALLS_IN_FLIGHT => {
                    let datagram = Bytes::copy_from_slice(&buffer[..len]);
                    let local = local_addr(&socket, peer);
                    calls.push(desk.answer_safely(datagram, peer, local).map(move |reply| (peer, reply)));
                }
                Ok((len, peer)) => debug!(%peer, len, "a datagram is dropped"),
                Err(error) => {
                    // Windows says here that an earlier reply met nobody
                    debug!(%error, "cannot receive");
                    tokio::time::sleep(BACKOFF).await;
                }
            }
        }
    }
    while let Some((peer, reply)) = calls.next().await {
        send(&socket, peer, reply);
    }
}

/// Sends a reply, if there is one. It may be lost like any datagram: also when the socket is full.
fn send(socket: &UdpSocket, peer: SocketAddr, reply: Option<Bytes>) {
    let Some(reply) = reply else { return };
    if let Err(error) = socket.try_send_to(&reply, peer) {
        debug!(%error, %peer, "a reply is not sent");
    }
}

/// The address of ours that `peer` sees replies come from, which a wildcard socket does not tell.
fn local_addr(socket: &UdpSocket, peer: SocketAddr) -> SocketAddr {
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let bound = socket.local_addr().unwrap_or(any);
    if !bound.ip().is_unspecified() {
        return bound;
    }
    let any = match peer {
        SocketAddr::V4(_) => any,
        SocketAddr::V6(_) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    };
    let routed = std::net::UdpSocket::bind(any).and_then(|probe| probe.connect(peer).and_then(|()| probe.local_addr()));
    routed.map_or(bound, |local| canonical(SocketAddr::new(local.ip(), bound.port())))
}

/// What the calls of a socket share.
struct Desk {
    programs: Programs,
    tally: Tally,
    replies: Arc<ReplyCache>,
}

impl Desk {
    /// The reply to a datagram, none when that is no call or its program fails.
    async fn answer_safely(&self, datagram: Bytes, peer: SocketAddr, local: SocketAddr) -> Option<Bytes> {
        let answer = self.answer(&datagram, canonical(peer), local);
        let Ok(reply) = AssertUnwindSafe(answer).catch_unwind().await else {
            error!(%peer, "a call panicked, it gets no answer");
            return None;
        };
        reply
    }

    async fn answer(&self, datagram: &[u8], peer: SocketAddr, local: SocketAddr) -> Option<Bytes> {
        let message = match Message::parse(datagram) {
            Ok(message) => message,
            Err(NoCall::Garbage) => return None,
            Err(NoCall::Refused { xid, refusal }) => return Some(unmarked(message::refused(xid, &refusal))),
        };
        let Message { xid, version, procedure, args, .. } = message;
        let grant = self.programs.admit(peer);
        let mut caller = Caller::new(grant.map_or(Squash::None, |grant| grant.squash));
        let (program, call) = match route(&message, &self.programs, &mut caller, &self.tally) {
            Ok(None) => return Some(unmarked(message::whole(xid, Outcome::Success, &[], &[]))),
            Err(refusal) => return Some(unmarked(message::refused(xid, &refusal))),
            Ok(Some((entry, credentials))) => {
                let Some(grant) = grant else { return Some(turn_away(&*entry.program, &message)) };
                let transport = Transport::Udp;
                (&*entry.program, Call { version, procedure, credentials, peer, local, transport, grant, args })
            }
        };
        let slot = match program.is_idempotent(version, procedure) {
            true => None,
            false => match self.replies.begin(peer.ip(), self.tally.id(), &message) {
                Seen::New(slot) => Some(slot),
                Seen::Answered(reply) => return Some(unmarked(reply)),
                Seen::UnderWay(_) | Seen::Twice => return None,
            },
        };
        let whole = run(program, xid, &call).await;
        if let Some(slot) = slot {
            slot.answer(whole.clone());
        }
        Some(unmarked(whole))
    }
}

/// Answers a call from where nobody is let in.
fn turn_away(program: &dyn Program, message: &Message<'_>) -> Bytes {
    let mut body = Vec::new();
    let outcome = program.turn_away(message.version, message.procedure, &mut body);
    unmarked(message::whole(message.xid, outcome, &body, &[]))
}

/// Runs a call; its whole reply, record mark included, is no longer than its peer may be sent.
async fn run(program: &dyn Program, xid: u32, call: &Call<'_>) -> Bytes {
    let mut body = Vec::new();
    let late = match program.call(call, &mut body) {
        Handled::Done(outcome, tail) => LateReply { outcome, body, tail },
        Handled::Later(reply) => reply.await,
    };
    let whole = complete(xid, late).await;
    let most = if call.peer.ip().is_loopback() { MAX_LOCAL_REPLY } else { MAX_REPLY };
    if whole.len() - MARK > most { message::whole(xid, Outcome::SystemError, &[], &[]) } else { whole }
}

/// Length of a record mark, which datagrams have not.
const MARK: usize = 4;

fn unmarked(whole: Bytes) -> Bytes {
    whole.slice(MARK..)
}
