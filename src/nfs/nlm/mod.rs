//! NLM v4 (X/Open XNFS chapter 14; RFC 1813 appendix II): byte-range locks and shares of NFSv3 clients. Decodes a call,
//! asks the lock room, encodes what it says; `call_back` calls the clients. Where the standard is silent, as Linux's
//! lockd does it.
//!
//! Each procedure has two forms: a call with a result, and a message, whose result is a call of ours back to the
//! client. Both run the same code. A message is answered by an empty RPC reply, too, as Linux and BSD do.
//!
//! Whoever may open a file may lock it: the file must be there, a regular one, and the caller's to read or to write.
//! Without a lock room (`--no-locks`) everything is answered at once, by DENIED_NOLOCKS: an unanswered lock call
//! would hang a process for ever.

mod call_back;
mod decode;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::BoxFuture;
use nfsserve::nfs::nfsstat3;

pub use call_back::{CallBack, Outbox};
use decode::{CancelArgs, LockArgs, MAX_NAME, Reply, ShareArgs, TestArgs, UnlockArgs};

use super::caller;
use crate::fs::ext::NfsExt;
use crate::locks::{Ask, Grace, Holder, LockHost, Locked, Locks, NoRoom, Range};
use crate::rpc::xdr::{Malformed, Reader, Write};
use crate::rpc::{Call, Handled, LateReply, Outcome, Program, Tail};

/// Program number of NLM.
pub const PROGRAM: u32 = 100_021;
/// The version for NFSv3, the only one that is served.
pub const VERSION: u32 = 4;

/// Names of the procedures by their number.
pub const PROCEDURES: [&str; 24] = [
    "null",
    "test",
    "lock",
    "cancel",
    "unlock",
    "granted",
    "test_msg",
    "lock_msg",
    "cancel_msg",
    "unlock_msg",
    "granted_msg",
    "test_res",
    "lock_res",
    "cancel_res",
    "unlock_res",
    "granted_res",
    "16",
    "17",
    "18",
    "19",
    "share",
    "unshare",
    "nm_lock",
    "free_all",
];

const GRANTED: u32 = 5;
const GRANTED_MSG: u32 = 10;
/// How far behind a message's number is that of its result.
const RESULT: u32 = 5;

/// `nlm4_stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Status {
    /// Done.
    Granted = 0,
    /// Somebody else has it.
    Denied = 1,
    /// Too many locks, or none are served.
    NoLocks = 2,
    /// The caller waits, and is called back.
    Blocked = 3,
    /// After a restart: only reclaims, or too late for one.
    Grace = 4,
    /// The caller would wait for itself.
    Deadlock = 5,
    /// A lock for writing where nothing can be written.
    ReadOnly = 6,
    /// The handle is none of ours, or its file is gone.
    Stale = 7,
    /// The range has no 64-bit numbers.
    TooBig = 8,
    /// Anything else.
    Failed = 9,
}

impl From<Locked> for Status {
    fn from(locked: Locked) -> Status {
        match locked {
            Locked::Granted => Status::Granted,
            Locked::Denied => Status::Denied,
            Locked::Blocked => Status::Blocked,
            Locked::Deadlock => Status::Deadlock,
            Locked::NoRoom => Status::NoLocks,
            Locked::Grace => Status::Grace,
            // asked for again when it is noted, so nobody is told
            Locked::Unnoted => Status::NoLocks,
        }
    }
}

impl From<Grace> for Status {
    fn from(_: Grace) -> Status {
        Status::Grace
    }
}

impl From<NoRoom> for Status {
    fn from(_: NoRoom) -> Status {
        Status::NoLocks
    }
}

/// Why a file cannot be locked, in NLM's words.
fn refusal(status: nfsstat3) -> Status {
    match status {
        nfsstat3::NFS3ERR_STALE | nfsstat3::NFS3ERR_BADHANDLE => Status::Stale,
        nfsstat3::NFS3ERR_ROFS => Status::ReadOnly,
        // NFS has many more; a client can do nothing about any of them
        _ => Status::Failed,
    }
}

/// The result of a procedure, XDR.
enum Answer {
    Now(Vec<u8>),
    /// When the client is noted.
    Later(BoxFuture<'static, Vec<u8>>),
}

/// The NLM program over a file system.
pub struct Nlm4<F> {
    fs: Arc<F>,
    /// `None`: no locks are given.
    locks: Option<Arc<Locks>>,
    outbox: Outbox,
}

impl<F: NfsExt> Nlm4<F> {
    /// Serves locks on the files of `fs`; what is to be sent to clients goes to `outbox`.
    pub fn new(fs: Arc<F>, locks: Option<Arc<Locks>>, outbox: Outbox) -> Nlm4<F> {
        Nlm4 { fs, locks, outbox }
    }

    /// Answers one call.
    fn handle(&self, call: &Call<'_>, reply: &mut Vec<u8>) -> Result<Handled, Malformed> {
        let mut args = Reader::new(call.args);
        match call.procedure {
            0 => {}
            1..=5 | 20..=22 => match self.answer(call, call.procedure, false)? {
                Answer::Now(result) => reply.extend(result),
                Answer::Later(result) => return Ok(later(result)),
            },
            6..=10 => return self.message(call),
            // results of calls that we do not make
            11..=14 => _ = Reply::read(&mut args)?,
            15 => self.granted_res(call, &Reply::read(&mut args)?),
            23 => self.free_all(call, args.opaque(MAX_NAME)?, args.u32()?),
            _ => return Ok(Handled::Done(Outcome::ProcedureUnavailable, Tail::None)),
        }
        Ok(Handled::Done(Outcome::Success, Tail::None))
    }

    /// A message: its result goes to the client by a message, too.
    fn message(&self, call: &Call<'_>) -> Result<Handled, Malformed> {
        let (outbox, procedure) = (self.outbox.clone(), call.procedure + RESULT);
        let to = call_back::Client { address: address(call.peer), server: address(call.local) };
        match self.answer(call, call.procedure - RESULT, true)? {
            Answer::Now(result) => outbox.send(to, procedure, result),
            Answer::Later(result) => {
                let sent = async move {
                    outbox.send(to, procedure, result.await);
                    Vec::new()
                };
                return Ok(later(Box::pin(sent)));
            }
        }
        Ok(Handled::Done(Outcome::Success, Tail::None))
    }

    /// The result of `procedure`, in the form that is a call.
    fn answer(&self, call: &Call<'_>, procedure: u32, by_message: bool) -> Result<Answer, Malformed> {
        let mut args = Reader::new(call.args);
        Ok(match procedure {
            1 => {
                let args = TestArgs::read(&mut args)?;
                Answer::Now(test_result(args.cookie, self.test(call, &args)))
            }
            2 | 22 => self.lock(call, &LockArgs::read(&mut args)?, by_message),
            3 => {
                let args = CancelArgs::read(&mut args)?;
                Answer::Now(result(args.cookie, self.cancel(call, &args)))
            }
            4 => {
                let args = UnlockArgs::read(&mut args)?;
                Answer::Now(result(args.cookie, self.unlock(call, &args)))
            }
            // we wait for no lock of another server
            GRANTED => Answer::Now(result(TestArgs::read(&mut args)?.cookie, Err(Status::Denied))),
            20 => self.share(call, &ShareArgs::read(&mut args)?),
            _ => {
                let args = ShareArgs::read(&mut args)?;
                Answer::Now(share_result(args.cookie, self.unshare(call, &args)))
            }
        })
    }

    /// The lock room. # Errors: NOLOCKS where there is none.
    fn locks(&self) -> Result<&Arc<Locks>, Status> {
        self.locks.as_ref().ok_or(Status::NoLocks)
    }

    /// The number of a file that is let go of: it may be gone.
    fn file(&self, handle: &[u8]) -> Result<u64, Status> {
        self.fs.fileid_by(handle).map_err(refusal)
    }

    /// The number of a file that the caller may lock.
    fn lockable(&self, call: &Call<'_>, handle: &[u8], exclusive: bool) -> Result<u64, Status> {
        let file = self.file(handle)?;
        self.fs.lockable_by(&caller(call), file, exclusive).map_err(refusal)?;
        Ok(file)
    }

    fn test(&self, call: &Call<'_>, args: &TestArgs<'_>) -> Result<Option<Holder>, Status> {
        let (locks, range) = (self.locks()?, args.lock.range()?);
        // what cannot be had cannot be in anybody's way either, but a client may ask
        let file = self.lockable(call, args.lock.handle, false)?;
        let host = args.lock.host(address(call.peer), address(call.local));
        Ok(locks.test(&host, file, args.lock.svid, range, args.exclusive)?)
    }

    fn lock(&self, call: &Call<'_>, args: &LockArgs<'_>, by_message: bool) -> Answer {
        let asked = || -> Result<(&Arc<Locks>, Ask), Status> {
            let (locks, range) = (self.locks()?, args.lock.range()?);
            let file = self.lockable(call, args.lock.handle, args.exclusive)?;
            let block = args.block.then(|| args.lock.asked(by_message));
            Ok((locks, Ask { file, svid: args.lock.svid, range, exclusive: args.exclusive, block }))
        };
        let (locks, ask) = match asked() {
            Ok(asked) => asked,
            Err(status) => return Answer::Now(result(args.cookie, Err(status))),
        };
        let host = args.lock.host(address(call.peer), address(call.local));
        let reclaim = args.reclaim;
        once_noted(locks, host, args.cookie, result, move |locks, host| locks.lock(host, &ask, reclaim))
    }

    fn cancel(&self, call: &Call<'_>, args: &CancelArgs<'_>) -> Result<(), Status> {
        let (locks, lock) = (self.locks()?, &args.lock);
        let (range, file) = (lock.range()?, self.file(lock.handle)?);
        let host = lock.host(address(call.peer), address(call.local));
        Ok(locks.cancel(&host, file, lock.svid, range, args.exclusive)?)
    }

    fn unlock(&self, call: &Call<'_>, args: &UnlockArgs<'_>) -> Result<(), Status> {
        let (locks, lock) = (self.locks()?, &args.lock);
        let (range, file): (Range, u64) = (lock.range()?, self.file(lock.handle)?);
        let host = lock.host(address(call.peer), address(call.local));
        Ok(locks.unlock(&host, file, lock.svid, range)??)
    }

    fn share(&self, call: &Call<'_>, args: &ShareArgs<'_>) -> Answer {
        let asked = || -> Result<_, Status> { Ok((self.locks()?, self.lockable(call, args.handle, false)?)) };
        let (locks, file) = match asked() {
            Ok(asked) => asked,
            Err(status) => return Answer::Now(share_result(args.cookie, Err(status))),
        };
        let host = args.host(address(call.peer), address(call.local));
        let (owner, share, reclaim) = (Box::<[u8]>::from(args.owner), args.share, args.reclaim);
        let shared = move |locks: &Locks, host: &LockHost| locks.share(host, file, &owner, share, reclaim);
        once_noted(locks, host, args.cookie, share_result, shared)
    }

    fn unshare(&self, call: &Call<'_>, args: &ShareArgs<'_>) -> Result<(), Status> {
        let (locks, file) = (self.locks()?, self.file(args.handle)?);
        let host = args.host(address(call.peer), address(call.local));
        Ok(locks.unshare(&host, file, args.owner)?)
    }

    /// A client answers a GRANTED_MSG.
    fn granted_res(&self, call: &Call<'_>, reply: &Reply<'_>) {
        let (Some(locks), Ok(id)) = (&self.locks, reply.cookie.try_into().map(u64::from_be_bytes)) else { return };
        match reply.status {
            // it has just been restarted itself, and is told again
            s if s == Status::Grace as u32 => {}
            s => locks.answered(id, address(call.peer), s == Status::Granted as u32),
        }
    }

    /// A client that does not speak NSM has started anew.
    fn free_all(&self, call: &Call<'_>, name: &[u8], _state: u32) {
        if let Some(locks) = &self.locks {
            locks.rebooted(name, address(call.peer));
        }
    }
}

/// Runs `ask`; for a client that is not noted yet, when it is.
fn once_noted(
    locks: &Arc<Locks>,
    host: LockHost,
    cookie: &[u8],
    encode: fn(&[u8], Result<(), Status>) -> Vec<u8>,
    ask: impl Fn(&Locks, &LockHost) -> Locked + Send + 'static,
) -> Answer {
    match ask(locks, &host) {
        Locked::Unnoted => {}
        locked => return Answer::Now(encode(cookie, granted(locked))),
    }
    let (locks, cookie) = (Arc::clone(locks), Box::<[u8]>::from(cookie));
    Answer::Later(Box::pin(async move {
        loop {
            if let Err(no_room) = locks.note(&host).await {
                return encode(&cookie, Err(no_room.into()));
            }
            match ask(&locks, &host) {
                // it was without locks for so long that it was just forgotten
                Locked::Unnoted => {}
                locked => return encode(&cookie, granted(locked)),
            }
        }
    }))
}

fn granted(locked: Locked) -> Result<(), Status> {
    match locked {
        Locked::Granted => Ok(()),
        other => Err(other.into()),
    }
}

/// The address of a peer, whichever kind of socket it came in by.
fn address(socket: std::net::SocketAddr) -> IpAddr {
    socket.ip().to_canonical()
}

fn later(result: BoxFuture<'static, Vec<u8>>) -> Handled {
    Handled::Later(Box::pin(
        async move { LateReply { outcome: Outcome::Success, body: result.await, tail: Tail::None } },
    ))
}

/// `nlm4_res`.
fn result(cookie: &[u8], done: Result<(), Status>) -> Vec<u8> {
    let mut out = Vec::with_capacity(cookie.len() + 8);
    out.put_opaque(cookie);
    out.put_u32(done.err().unwrap_or(Status::Granted) as u32);
    out
}

/// `nlm4_testres`. The holder's own words for itself are left out, as they are of no use to anybody else.
fn test_result(cookie: &[u8], found: Result<Option<Holder>, Status>) -> Vec<u8> {
    let Ok(Some(holder)) = found else { return result(cookie, found.map(drop)) };
    let mut out = result(cookie, Err(Status::Denied));
    out.put_bool(holder.exclusive);
    out.put_u32(holder.svid);
    out.put_opaque(b"");
    out.put_u64(holder.range.offset());
    out.put_u64(holder.range.len_or_zero());
    out
}

/// `nlm4_shareres`, whose sequence nobody looks at.
fn share_result(cookie: &[u8], done: Result<(), Status>) -> Vec<u8> {
    let mut out = result(cookie, done);
    out.put_u32(0);
    out
}

impl<F: NfsExt> Program for Nlm4<F> {
    fn number(&self) -> u32 {
        PROGRAM
    }

    fn versions(&self) -> RangeInclusive<u32> {
        VERSION..=VERSION
    }

    /// A LOCK that comes again late would bring a lock back that nobody lets go of.
    fn is_idempotent(&self, _version: u32, procedure: u32) -> bool {
        matches!(procedure, 0 | 1 | 5 | 6 | 10..=19)
    }

    fn allows_auth_none(&self, _version: u32, _procedure: u32) -> bool {
        true
    }

    fn call(&self, call: &Call<'_>, reply: &mut Vec<u8>) -> Handled {
        self.handle(call, reply).unwrap_or(Handled::Done(Outcome::GarbageArgs, Tail::None))
    }
}
