//! From a call's outcome to bytes for the socket: replies that are ready go to the output, those that are not
//! (the program's, a duplicate's, a file's that is not in memory) are futures polled beside the socket.
//! Invariant: a record mark is written only when every byte of its reply is there or is in an open file.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::task::spawn_blocking;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::connection::Closed;
use super::drc::{ReplyCache, Seen, Slot};
use super::message::{self, Message, REPLY_HEADER, Refusal};
use super::output::{Insert, Output};
use super::send::{is_resident, read_blocking, read_resident};
use super::xdr::{Write, padding};
use super::{Call, FileRange, Handled, LateReply, Outcome, Program, Tail};

/// Tails up to 32 KiB are copied behind their reply's header: cheaper than the system calls of sendfile.
const INLINE_TAIL: usize = 32 << 10;

/// The replies of one connection, ready and not.
pub(super) struct Replies {
    pub(super) output: Output,
    later: FuturesUnordered<BoxFuture<'static, (Landed, usize)>>,
    /// Bytes that calls which wait hold: of their arguments (a WRITE's data), or those that a read will bring.
    reserved: usize,
}

/// What is shared by the connections of a server for calls that must not run twice.
pub(super) struct Once<'a> {
    pub(super) cache: &'a Arc<ReplyCache>,
    pub(super) tasks: &'a TaskTracker,
    pub(super) connection: u64,
}

/// A call that ended after others.
enum Landed {
    Reply {
        xid: u32,
        late: LateReply,
    },
    /// The whole reply, or nothing, as another connection has it.
    Whole(Option<Bytes>),
    /// What was not in memory when its reply, of which this is the body, was encoded.
    Read {
        xid: u32,
        body: Vec<u8>,
        data: io::Result<Bytes>,
    },
    Panicked,
}

impl Replies {
    pub(super) fn new() -> Replies {
        Replies { output: Output::default(), later: FuturesUnordered::new(), reserved: 0 }
    }

    /// Calls that wait.
    pub(super) fn in_flight(&self) -> usize {
        self.later.len()
    }

    /// Bytes of replies that are held, or will be.
    pub(super) fn held(&self) -> usize {
        self.output.queued() + self.reserved
    }

    pub(super) fn is_empty(&self) -> bool {
        self.later.is_empty() && self.output.is_empty()
    }

    /// Answers with a success without a result.
    pub(super) fn acknowledge(&mut self, xid: u32) {
        let start = message::begin(&mut self.output.bytes, xid);
        message::finish(&mut self.output.bytes, start, 0);
    }

    /// Answers with a refusal.
    pub(super) fn refuse(&mut self, xid: u32, refusal: &Refusal) {
        let start = self.output.bytes.len();
        message::refuse(&mut self.output.bytes, start, xid, refusal);
    }

    /// Runs a call that may be run again.
    pub(super) fn run(&mut self, program: &dyn Program, xid: u32, call: &Call<'_>) {
        let start = message::begin(&mut self.output.bytes, xid);
        match program.call(call, &mut self.output.bytes) {
            Handled::Done(outcome, tail) => {
                self.conclude(start, xid, outcome, tail);
            }
            Handled::Later(reply) => {
                self.output.bytes.truncate(start);
                self.wait(call.args.len(), reply.map(move |late| Landed::Reply { xid, late }));
            }
        }
    }

    /// Answers a call from where nobody is let in.
    pub(super) fn turn_away(&mut self, program: &dyn Program, message: &Message<'_>) {
        let Message { xid, version, procedure, .. } = *message;
        let start = message::begin(&mut self.output.bytes, xid);
        let outcome = program.turn_away(version, procedure, &mut self.output.bytes);
        self.conclude(start, xid, outcome, Tail::None);
    }

    /// Runs a call that must not run twice, unless it already did. It ends even if the connection does not last:
    /// its client will ask again on another.
    pub(super) fn run_once(&mut self, program: &dyn Program, message: &Message<'_>, call: &Call<'_>, once: &Once<'_>) {
        match once.cache.begin(call.peer.ip(), once.connection, message) {
            Seen::New(slot) => self.run_first(program, message.xid, call, slot, once.tasks),
            Seen::Answered(reply) => self.output.bytes.extend_from_slice(&reply),
            Seen::UnderWay(reply) => self.wait(0, reply.map(|r| Landed::Whole(r.ok()))),
            Seen::Twice => {}
        }
    }

    fn run_first(&mut self, program: &dyn Program, xid: u32, call: &Call<'_>, slot: Slot, tasks: &TaskTracker) {
        let start = message::begin(&mut self.output.bytes, xid);
        match program.call(call, &mut self.output.bytes) {
            Handled::Done(outcome, tail) => {
                if self.conclude(start, xid, outcome, tail) {
                    slot.answer(Bytes::copy_from_slice(&self.output.bytes[start..]));
                }
            }
            Handled::Later(reply) => {
                self.output.bytes.truncate(start);
                let ended = tasks.spawn(end_once(xid, reply, slot));
                let landed = |ended: Result<Bytes, _>| ended.map_or(Landed::Panicked, |r| Landed::Whole(Some(r)));
                self.wait(call.args.len(), ended.map(landed));
            }
        }
    }

    /// Ends the reply at `start`, whose result is encoded. Whether all of it is in `output.bytes` then.
    fn conclude(&mut self, start: usize, xid: u32, outcome: Outcome, tail: Tail) -> bool {
        let out = &mut self.output;
        if let Some(refusal) = message::refusal(outcome) {
            message::refuse(&mut out.bytes, start, xid, &refusal);
            return true;
        }
        match tail {
            Tail::None => message::finish(&mut out.bytes, start, 0),
            Tail::Bytes(bytes) if bytes.len() <= INLINE_TAIL => {
                out.bytes.put_fixed(&bytes);
                message::finish(&mut out.bytes, start, 0);
            }
            Tail::Bytes(bytes) => return self.insert(start, bytes.len(), Insert::Bytes(bytes)),
            Tail::File(range) if range.len as usize <= INLINE_TAIL => return self.copy(start, xid, range),
            Tail::File(range) if is_resident(&range) => {
                return self.insert(start, range.len as usize, Insert::File(range));
            }
            Tail::File(range) => return self.fetch(start, xid, range),
        }
        true
    }

    /// Ends a reply with content that stays where it is.
    fn insert(&mut self, start: usize, len: usize, insert: Insert) -> bool {
        let out = &mut self.output;
        message::finish(&mut out.bytes, start, len + padding(len));
        out.insert(insert);
        out.bytes.extend_from_slice(&[0; 3][..padding(len)]);
        false
    }

    /// Ends a reply with bytes of a file that are copied if they are in memory.
    fn copy(&mut self, start: usize, xid: u32, range: FileRange) -> bool {
        let bytes = &mut self.output.bytes;
        let (at, len) = (bytes.len(), range.len as usize);
        bytes.resize(at + len + padding(len), 0);
        if len > 0 && !matches!(read_resident(&range.file, &mut bytes[at..at + len], range.offset), Ok(true)) {
            // an error shows again, and is told, when the read is repeated there
            bytes.truncate(at);
            return self.fetch(start, xid, range);
        }
        message::finish(bytes, start, 0);
        true
    }

    /// Takes a reply back until its file has been read on the blocking pool.
    fn fetch(&mut self, start: usize, xid: u32, range: FileRange) -> bool {
        let body = self.output.bytes.split_off(start + REPLY_HEADER);
        self.output.bytes.truncate(start);
        let len = range.len as usize;
        let read = spawn_blocking(move || read_blocking(&range));
        let landed = move |ended: Result<_, _>| match ended {
            Ok(data) => Landed::Read { xid, body, data },
            Err(_) => Landed::Panicked,
        };
        self.wait(len, read.map(landed));
        false
    }

    /// Leaves a reply to `landing`, which holds about `held` bytes until it is there.
    fn wait(&mut self, held: usize, landing: impl Future<Output = Landed> + Send + 'static) {
        self.reserved += held;
        self.later.push(landing.map(move |landed| (landed, held)).boxed());
    }

    /// Polls the calls that wait, and queues the replies of those that ended.
    pub(super) fn poll_later(&mut self, cx: &mut Context<'_>, peer: SocketAddr) -> Result<bool, Closed> {
        let mut any = false;
        while let Poll::Ready(Some((landed, held))) = self.later.poll_next_unpin(cx) {
            any = true;
            self.reserved -= held;
            match landed {
                Landed::Reply { xid, late } => self.encode(xid, late.outcome, &late.body, late.tail),
                Landed::Whole(reply) => self.output.bytes.extend_from_slice(&reply.unwrap_or_default()),
                Landed::Read { xid, body, data: Ok(data) } => {
                    self.encode(xid, Outcome::Success, &body, Tail::Bytes(data));
                }
                Landed::Read { xid, data: Err(error), .. } => {
                    warn!(%error, %peer, "cannot read the file of a reply");
                    self.refuse(xid, &Refusal::SystemError);
                }
                Landed::Panicked => return Err(Closed::Panicked),
            }
        }
        Ok(any)
    }

    fn encode(&mut self, xid: u32, outcome: Outcome, body: &[u8], tail: Tail) {
        let start = message::begin(&mut self.output.bytes, xid);
        self.output.bytes.extend_from_slice(body);
        self.conclude(start, xid, outcome, tail);
    }
}

/// Waits for the reply of a call that must not run twice, and keeps it.
async fn end_once(xid: u32, reply: BoxFuture<'static, LateReply>, slot: Slot) -> Bytes {
    let whole = complete(xid, reply.await).await;
    slot.answer(whole.clone());
    whole
}

/// The whole reply, its record mark included, with all of its tail.
pub(super) async fn complete(xid: u32, late: LateReply) -> Bytes {
    let tail = match late.tail {
        Tail::None => Ok(Bytes::new()),
        Tail::Bytes(bytes) => Ok(bytes),
        Tail::File(range) => spawn_blocking(move || read_blocking(&range)).await.unwrap_or_else(|e| Err(e.into())),
    };
    let outcome = if tail.is_ok() { late.outcome } else { Outcome::SystemError };
    message::whole(xid, outcome, &late.body, &tail.unwrap_or_default())
}
