//! ONC RPC v2 over TCP and UDP (RFC 5531): record marking, bounded XDR, AUTH_NONE and AUTH_SYS, the duplicate
//! request cache, limits and back-pressure, batching of replies. Knows no NFS.
//!
//! Data flow of one connection, one task, no locks: bytes -> records -> `Program::call` appends its
//! reply to the connection's output at once (`Handled::Done`), or hands back a future
//! (`Handled::Later`) that the same task polls beside the socket. Replies go out in batches.
//! Invariant: what a peer can make us hold is bounded by `Limits`; no byte it sends can panic us.

mod connection;
mod datagram;
mod drc;
mod gate;
mod message;
pub mod outgoing;
mod output;
mod record;
mod replies;
mod send;
mod server;
mod stats;
#[cfg(test)]
mod tests;
mod watchdog;
pub mod xdr;

use std::fs::File;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use smallvec::SmallVec;

pub use datagram::{bind_datagrams, serve_datagrams};
pub use gate::{Gate, Grant, Squash};
pub use message::Refusal;
pub use outgoing::Transport;
pub use server::{bind, serve};
pub use stats::{CallCounts, Stats};

/// Who calls, as AUTH_SYS says (RFC 5531 appendix A) and squashing leaves it; AUTH_NONE is nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Further group ids, at most 16.
    pub gids: SmallVec<[u32; 16]>,
}

/// One call, borrowed from the connection's input buffer.
#[derive(Debug)]
pub struct Call<'a> {
    /// Version of the program, one of `Program::versions`.
    pub version: u32,
    /// Procedure number.
    pub procedure: u32,
    /// Who calls.
    pub credentials: &'a Credentials,
    /// From where.
    pub peer: SocketAddr,
    /// By which address of ours.
    pub local: SocketAddr,
    /// How.
    pub transport: Transport,
    /// What may be done from there.
    pub grant: Grant,
    /// The procedure's arguments, still XDR.
    pub args: &'a [u8],
}

/// Bytes of a file that end a reply, sent straight from the page cache where the OS can.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// An immutable file, kept open (and so alive) by this reference.
    pub file: Arc<File>,
    /// Where to begin, in bytes.
    pub offset: u64,
    /// How many bytes; the file has at least so many from `offset`.
    pub len: u32,
}

/// What ends a reply after its encoded part: the opaque data of a READ (RFC 1813 section 3.3.6), whose
/// length word the encoded part already holds. The RPC layer adds the XDR padding.
#[derive(Clone, Debug, Default)]
pub enum Tail {
    /// Nothing.
    #[default]
    None,
    /// A range of a file.
    File(FileRange),
    /// Bytes in memory.
    Bytes(bytes::Bytes),
}

/// How a call ended, besides its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// SUCCESS: the encoded result stands.
    Success,
    /// PROC_UNAVAIL: no such procedure in this version.
    ProcedureUnavailable,
    /// GARBAGE_ARGS: the arguments cannot be decoded.
    GarbageArgs,
    /// SYSTEM_ERR.
    SystemError,
    /// MSG_DENIED with AUTH_TOOWEAK.
    AuthTooWeak,
}

/// A result that was not ready at once.
#[derive(Debug)]
pub struct LateReply {
    /// How it ended.
    pub outcome: Outcome,
    /// The encoded result; empty unless `Success`.
    pub body: Vec<u8>,
    /// What follows `body`.
    pub tail: Tail,
}

/// How a program answers one call.
pub enum Handled {
    /// At once: the result is appended to `reply` (dropped again unless `Success`), then the tail.
    Done(Outcome, Tail),
    /// The result comes later; other calls of this connection go on meanwhile.
    Later(BoxFuture<'static, LateReply>),
}

/// One RPC program (NFS, MOUNT, portmap, NLM).
pub trait Program: Send + Sync + 'static {
    /// Program number.
    fn number(&self) -> u32;
    /// Versions that are answered; others get PROG_MISMATCH with this range.
    fn versions(&self) -> RangeInclusive<u32>;
    /// Whether a retransmitted call of this procedure may simply run again. Others go through the
    /// duplicate request cache.
    fn is_idempotent(&self, version: u32, procedure: u32) -> bool;
    /// Whether AUTH_NONE is enough (else AUTH_SYS is asked for with AUTH_TOOWEAK).
    fn allows_auth_none(&self, version: u32, procedure: u32) -> bool;
    /// Answers one call. Must not block on S3, on a lock held across an await, or on another client.
    fn call(&self, call: &Call<'_>, reply: &mut Vec<u8>) -> Handled;
    /// Answers a call from where nobody is let in, other than a ping: its result is appended to `reply` only with
    /// `Success`. RFC 5531 calls AUTH_TOOWEAK "rejected for security reasons"; Linux makes EACCES of it without a
    /// second try, which it has for the other refusals.
    fn turn_away(&self, _version: u32, _procedure: u32, _reply: &mut Vec<u8>) -> Outcome {
        Outcome::AuthTooWeak
    }
}

/// The programs that listeners answer, found by number, and the gate before them.
#[derive(Clone)]
pub struct Programs {
    entries: Arc<[Entry]>,
    gate: Arc<dyn Gate>,
}

/// A program and what of it every call needs.
struct Entry {
    number: u32,
    versions: RangeInclusive<u32>,
    program: Arc<dyn Program>,
}

impl Programs {
    /// Puts programs behind one listener, for everybody who can reach it. The first of two with the same number wins.
    pub fn new(programs: impl IntoIterator<Item = Arc<dyn Program>>) -> Programs {
        let entry =
            |program: Arc<dyn Program>| Entry { number: program.number(), versions: program.versions(), program };
        Programs { entries: programs.into_iter().map(entry).collect(), gate: Arc::new(gate::Open) }
    }

    /// The same, for those alone whom `gate` lets in.
    pub fn behind(self, gate: Arc<dyn Gate>) -> Programs {
        Programs { gate, ..self }
    }

    /// What the peer at this address may do; asked once a connection and once a datagram.
    fn admit(&self, peer: SocketAddr) -> Option<Grant> {
        self.gate.admit(peer)
    }

    /// The program of this number and its place in the list: there are a handful, so a scan is fastest.
    fn find(&self, number: u32) -> Option<(usize, &Entry)> {
        self.entries.iter().enumerate().find(|(_, e)| e.number == number)
    }
}

/// What a peer may make us hold, and how long it may take. `Default` has the reasons.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest record that is taken, in bytes, its record marks not counted.
    pub max_record: usize,
    /// Connections at once; more are closed as they come.
    pub max_connections: usize,
    /// Calls of one connection that wait for a `Handled::Later`, before no more are read from it.
    pub calls_in_flight: usize,
    /// Bytes of replies that one connection has not taken yet, before no more calls are read from it.
    pub queued_bytes: usize,
    /// A connection that neither sends nor takes a byte for so long, with no call under way, is closed.
    pub idle_timeout: Duration,
    /// A record that has begun must be complete within so long.
    pub partial_timeout: Duration,
    /// Duplicate request cache.
    pub drc: DrcLimits,
}

/// Bounds of the duplicate request cache.
#[derive(Clone, Debug)]
pub struct DrcLimits {
    /// Client addresses that are remembered; the one unheard of for longest goes first.
    pub clients: usize,
    /// Replies kept for one client address.
    pub entries: usize,
    /// Bytes of replies kept for one client address.
    pub bytes: usize,
}

/// 1 MiB, the largest WRITE that Linux, macOS and Windows send, and 16 KiB for the rest of such a call,
/// whose credential, verifier and handle have legal maxima of under 1 KiB together.
const MAX_RECORD: usize = (1 << 20) + (16 << 10);
/// 4,096 clients are more than one cache disk serves; each may cost a file descriptor and 64 KiB idle.
const MAX_CONNECTIONS: usize = 4096;
/// 256: a Linux client keeps at most 128 calls of one connection under way unless told otherwise.
const CALLS_IN_FLIGHT: usize = 256;
/// 4 MiB: four of the largest READ replies, so that a fast reader never waits for us. Of files it counts what
/// is still to be sent, which costs no memory.
const QUEUED_BYTES: usize = 4 << 20;
/// 30 minutes: a Linux client closes idle connections itself after 5; keepalive finds the dead ones sooner.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// 30 s: 1 MiB in that time needs 0.3 Mbit/s; the retransmission timers of clients start at 60 s.
const PARTIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Addresses: a client that is evicted while others come and go merely loses protection of old retransmissions.
const DRC_CLIENTS: usize = 1024;
/// 1,024 replies: what 8 connections of a client (`nconnect=8`) can have under way, and so might repeat.
const DRC_ENTRIES: usize = 1024;
/// 512 KiB: 1,024 replies of the usual 150 to 300 bytes with room to spare.
const DRC_BYTES: usize = 512 << 10;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_record: MAX_RECORD,
            max_connections: MAX_CONNECTIONS,
            calls_in_flight: CALLS_IN_FLIGHT,
            queued_bytes: QUEUED_BYTES,
            idle_timeout: IDLE_TIMEOUT,
            partial_timeout: PARTIAL_TIMEOUT,
            drc: DrcLimits { clients: DRC_CLIENTS, entries: DRC_ENTRIES, bytes: DRC_BYTES },
        }
    }
}
