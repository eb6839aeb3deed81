//! One connection, one task: read, answer, write, with no lock and no channel in between.
//!
//! Each turn reads what has come, answers the calls in it in a batch, polls the calls that wait, and writes
//! all replies at once. Reading pauses while the peer leaves too many replies unread or too many calls wait, so
//! what it can make us hold is bounded.
//! Invariants: a turn's work is bounded, so others get theirs; every reason to wait has this task's waker, or is
//! lifted by another part of the same turn.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::gate::canonical;
use super::message::{Caller, Message, NoCall, Refusal};
use super::outgoing::Transport;
use super::output::Sent;
use super::record::{BadRecord, Input, Place};
use super::replies::{Once, Replies};
use super::server::Shared;
use super::stats::Tally;
use super::watchdog::{TimedOut, Vitals, Watchdog};
use super::{Call, Credentials, Entry, Grant, Limits, Programs, Squash};

/// Calls that are answered before what they produced is sent.
const BATCH_CALLS: usize = 64;
/// Bytes of replies after which a batch is sent: about what stays in a core's cache.
const BATCH_BYTES: usize = 128 << 10;
/// Turns before the other tasks of the thread get theirs.
const TURNS: usize = 4;
/// 10 s: who is not let in has read so by then. Closing at once would only make it connect again.
const STRANGER_IDLE: Duration = Duration::from_secs(10);

/// Why a connection ended, other than by its peer's or our own will.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    #[error("not an RPC call")]
    Garbage,
    #[error(transparent)]
    BadRecord(#[from] BadRecord),
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    #[error("a file is shorter than the reply that was begun with it says")]
    ShortFile,
    #[error("a call panicked")]
    Panicked,
    #[error(transparent)]
    Io(io::Error),
}

impl Closed {
    /// Whether it happens to good servers all day: peers vanish, strangers talk nonsense.
    pub(super) fn is_routine(&self) -> bool {
        !matches!(self, Closed::ShortFile | Closed::Panicked)
    }
}

/// A connection from accept to close.
pub(super) struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    access: Access,
    shared: Arc<Shared>,
    input: Input,
    /// Whether all whole records of `input` are taken.
    drained: bool,
    replies: Replies,
    caller: Caller,
    tally: Tally,
    intake: Intake,
    watchdog: Watchdog,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What the peer may do, decided before its first byte. A TLS handshake (RFC 9289) would come between: a NULL call with
/// AUTH_TLS, now answered as one of a server without TLS, would be answered with STARTTLS, the bytes after it would go
/// through a TLS stream in the place of `stream`, and what the client's certificate says would narrow the grant.
enum Access {
    Granted(Grant),
    /// Nothing; it takes one of the few places for such peers.
    Denied(#[expect(dead_code, reason = "held until the connection ends")] OwnedSemaphorePermit),
}

/// Which further calls are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intake {
    Open,
    /// The peer sends no more: what has arrived is answered.
    Ended,
    /// The server stops: what has begun is answered.
    Stopped,
}

impl Connection {
    /// Takes a connection in, if there is room for one of such a peer.
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) -> Option<Connection> {
        let peer = canonical(peer);
        let access = match shared.programs.admit(peer) {
            Some(grant) => Access::Granted(grant),
            None => Access::Denied(shared.strangers.clone().try_acquire_owned().ok()?),
        };
        // a connection that has no address any more is closed at its first read
        let local = stream.local_addr().map_or(peer, canonical);
        Some(Connection {
            stream,
            peer,
            local,
            input: Input::new(shared.limits.max_record),
            drained: true,
            replies: Replies::new(),
            caller: Caller::new(access.squash()),
            tally: shared.stats.connect(peer.ip(), &shared.programs),
            intake: Intake::Open,
            watchdog: Watchdog::new(&access.limits(&shared.limits)),
            access,
            // a child has its own lock, so that connections do not meet at the parent's
            stop: Box::pin(shared.stop.child_token().cancelled_owned()),
            shared,
        })
    }

    /// Serves until either side is done.
    pub(super) async fn run(mut self) -> (SocketAddr, Result<(), Closed>) {
        let ended = poll_fn(|cx| self.poll(cx)).await;
        (self.peer, ended)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        if self.intake != Intake::Stopped && self.stop.as_mut().poll(cx).is_ready() {
            self.intake = Intake::Stopped;
        }
        if self.watchdog.poll_tick(cx) {
            self.tick()?;
        }
        for _ in 0..TURNS {
            let read = self.poll_fill(cx)?;
            let answered = self.answer_batch()?;
            let landed = self.replies.poll_later(cx, self.peer)?;
            let sent = self.poll_flush(cx)?;
            if !(read || answered || landed || sent) {
                return if self.is_done() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether nothing is left that could be answered or sent.
    fn is_done(&self) -> bool {
        self.intake != Intake::Open && self.replies.is_empty()
    }

    /// Whether another call may be begun.
    fn has_capacity(&self) -> bool {
        let limits = &self.shared.limits;
        self.replies.in_flight() < limits.calls_in_flight && self.replies.held() < limits.queued_bytes
    }

    /// Reads once.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        if self.intake != Intake::Open || !self.drained || !self.has_capacity() {
            return Ok(false);
        }
        let mut room = ReadBuf::new(self.input.room());
        // unlike try_read, poll_read takes a short read for the end, and saves the one that would fail
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, &mut room) else { return Ok(false) };
        read.map_err(Closed::Io)?;
        let n = room.filled().len();
        if n == 0 {
            self.intake = Intake::Ended;
        }
        self.input.filled(n);
        self.drained = n == 0;
        self.watchdog.note_progress();
        Ok(true)
    }

    /// Answers the calls that have arrived, up to a batch.
    fn answer_batch(&mut self) -> Result<bool, Closed> {
        let held = self.replies.held();
        let mut calls = 0;
        while !self.drained
            && calls < BATCH_CALLS
            && self.replies.held() < held + BATCH_BYTES
            && self.intake != Intake::Stopped
            && self.has_capacity()
        {
            match self.input.next()? {
                Some(record) => self.answer(&record)?,
                None => self.drained = true,
            }
            calls += 1;
        }
        Ok(calls > 0)
    }

    /// Answers one call.
    fn answer(&mut self, record: &Place) -> Result<(), Closed> {
        let message = match Message::parse(self.input.bytes(record)) {
            Ok(message) => message,
            Err(NoCall::Garbage) => return Err(Closed::Garbage),
            Err(NoCall::Refused { xid, refusal }) => {
                self.replies.refuse(xid, &refusal);
                return Ok(());
            }
        };
        let shared = &self.shared;
        let (entry, credentials) = match route(&message, &shared.programs, &mut self.caller, &self.tally) {
            Ok(Some(found)) => found,
            Ok(None) => {
                self.replies.acknowledge(message.xid);
                return Ok(());
            }
            Err(refusal) => {
                self.replies.refuse(message.xid, &refusal);
                return Ok(());
            }
        };
        let Access::Granted(grant) = self.access else {
            self.replies.turn_away(&*entry.program, &message);
            return Ok(());
        };
        let Message { xid, version, procedure, args, .. } = message;
        let call = Call {
            version,
            procedure,
            credentials,
            peer: self.peer,
            local: self.local,
            transport: Transport::Tcp,
            grant,
            args,
        };
        if entry.program.is_idempotent(version, procedure) {
            self.replies.run(&*entry.program, xid, &call);
        } else {
            let once = Once { cache: &shared.replies, tasks: &shared.tasks, connection: self.tally.id() };
            self.replies.run_once(&*entry.program, &message, &call, &once);
        }
        Ok(())
    }

    /// Sends until all is sent or the socket is full.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        let mut any = false;
        while !self.replies.output.is_empty() && self.stream.poll_write_ready(cx).map_err(Closed::Io)?.is_ready() {
            let (output, stream) = (&mut self.replies.output, &self.stream);
            let mut partly = false;
            let sent = stream.try_io(Interest::WRITABLE, || match output.send_some(stream)? {
                Sent::Whole => Ok(()),
                Sent::Partly => {
                    // the socket is full: saying so here saves the send that would only find out
                    partly = true;
                    Err(io::ErrorKind::WouldBlock.into())
                }
            });
            match sent {
                Ok(()) => any = true,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => any |= partly,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(Closed::ShortFile),
                Err(e) => return Err(Closed::Io(e)),
            }
        }
        if any {
            self.watchdog.note_progress();
        }
        Ok(any)
    }

    /// What is to be done now and then.
    fn tick(&mut self) -> Result<(), Closed> {
        let wants_more = self.intake == Intake::Open && self.drained && self.has_capacity();
        self.watchdog.judge(Vitals {
            busy: self.replies.in_flight() > 0,
            partial: wants_more && self.input.is_partial(),
            records: self.input.records(),
        })?;
        self.input.relax();
        self.replies.output.relax();
        Ok(())
    }
}

impl Access {
    fn squash(&self) -> Squash {
        match self {
            Access::Granted(grant) => grant.squash,
            Access::Denied(_) => Squash::None,
        }
    }

    fn limits<'a>(&self, limits: &'a Limits) -> Cow<'a, Limits> {
        match self {
            Access::Granted(_) => Cow::Borrowed(limits),
            Access::Denied(_) => {
                Cow::Owned(Limits { idle_timeout: limits.idle_timeout.min(STRANGER_IDLE), ..limits.clone() })
            }
        }
    }
}

/// Whose call it is, and who calls; nobody's and no one when it is a ping.
pub(super) fn route<'a>(
    message: &Message<'_>,
    programs: &'a Programs,
    caller: &'a mut Caller,
    tally: &Tally,
) -> Result<Option<(&'a Entry, &'a Credentials)>, Refusal> {
    let (place, entry) = programs.find(message.program).ok_or(Refusal::ProgramUnavailable)?;
    if !entry.versions.contains(&message.version) {
        return Err(Refusal::ProgramMismatch { low: *entry.versions.start(), high: *entry.versions.end() });
    }
    tally.count(place, message.procedure);
    if message.is_null() {
        return Ok(None);
    }
    let credentials = caller.identify(message)?;
    if message.is_anonymous() && !entry.program.allows_auth_none(message.version, message.procedure) {
        return Err(Refusal::AuthTooWeak);
    }
    Ok(Some((entry, credentials)))
}
