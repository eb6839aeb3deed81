//! ONC RPC v2 over TCP (RFC 5531): record marking, bounded XDR, AUTH_NONE and AUTH_SYS, the duplicate
//! request cache, limits and back-pressure, batching of replies. Knows no NFS.
//!
//! Data flow of one connection, one task, no locks: bytes -> records -> `Program::call` appends its
//! reply to the connection's output at once (`Handled::Done`), or hands back a future
//! (`Handled::Later`) that the same task polls beside the socket. Replies go out in batches.
//! Invariant: what a peer can make us hold is bounded by `Limits`; no byte it sends can panic us.

pub mod xdr;

use std::fs::File;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::BoxFuture;
use smallvec::SmallVec;

/// Who calls, as AUTH_SYS says (RFC 5531 appendix A); AUTH_NONE is nobody.
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
}
