//! Call and reply headers (RFC 5531 sections 8 and 9) and the credentials in them (appendix A).
//! Owns: which refusal a wrong header gets, and how replies are laid out in the output.
//! Invariant: a reply that `begin` started is either `finish`ed or `refuse`d, so its record mark is right.

use bytes::Bytes;
use smallvec::SmallVec;

use super::outgoing::Request;
use super::record::LAST_FRAGMENT;
use super::xdr::{Malformed, Reader, Write, padding};
use super::{Credentials, Outcome, Squash};

/// Longest credential and verifier body.
const MAX_AUTH_BODY: usize = 400;
/// Longest machine name in AUTH_SYS.
const MAX_MACHINE_NAME: usize = 255;
/// Most further groups in AUTH_SYS.
const MAX_GIDS: u32 = 16;
/// What AUTH_NONE is taken for: nobody, nogroup.
const NOBODY: u32 = 65534;
/// RPC version that is spoken.
const RPC_VERSION: u32 = 2;

/// Record mark, xid and the header of an accepted reply.
pub(super) const REPLY_HEADER: usize = 28;

const CALL: u32 = 0;
const REPLY: u32 = 1;
const MSG_ACCEPTED: u32 = 0;
const MSG_DENIED: u32 = 1;
const AUTH_NONE: u32 = 0;
const AUTH_SYS: u32 = 1;
/// Asks in a NULL call whether there is TLS (RFC 9289 section 4.1); a success without the verifier STARTTLS says no.
const AUTH_TLS: u32 = 7;
/// Its procedure 0 sets up a context, so it is no NULL that anyone may have answered.
const RPCSEC_GSS: u32 = 6;

/// Why a call was not answered with a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// RPC_MISMATCH.
    #[error("another version of RPC is spoken")]
    RpcMismatch,
    /// PROG_UNAVAIL.
    #[error("no such program")]
    ProgramUnavailable,
    /// PROG_MISMATCH.
    #[error("the program has versions {low} to {high} only")]
    ProgramMismatch {
        /// The lowest that is served.
        low: u32,
        /// The highest.
        high: u32,
    },
    /// PROC_UNAVAIL.
    #[error("no such procedure")]
    ProcedureUnavailable,
    /// GARBAGE_ARGS.
    #[error("the arguments are not understood")]
    GarbageArgs,
    /// SYSTEM_ERR.
    #[error("the server failed")]
    SystemError,
    /// AUTH_BADCRED, AUTH_REJECTEDCRED.
    #[error("the credentials are not accepted")]
    BadCredentials,
    /// AUTH_BADVERF, AUTH_REJECTEDVERF.
    #[error("the verifier is not accepted")]
    BadVerifier,
    /// AUTH_TOOWEAK, and all else that is wrong with who calls.
    #[error("not allowed to this caller")]
    AuthTooWeak,
}

/// Why a record is no call that can be handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoCall {
    /// It cannot be answered either: the connection ends.
    Garbage,
    Refused {
        xid: u32,
        refusal: Refusal,
    },
}

/// A call message, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) xid: u32,
    pub(super) program: u32,
    pub(super) version: u32,
    pub(super) procedure: u32,
    flavor: u32,
    credential: &'a [u8],
    pub(super) args: &'a [u8],
}

impl<'a> Message<'a> {
    pub(super) fn parse(record: &'a [u8]) -> Result<Message<'a>, NoCall> {
        let mut r = Reader::new(record);
        let garbage = |_| NoCall::Garbage;
        let xid = r.u32().map_err(garbage)?;
        if r.u32() != Ok(CALL) {
            return Err(NoCall::Garbage);
        }
        let refused = |refusal| NoCall::Refused { xid, refusal };
        if r.u32().map_err(garbage)? != RPC_VERSION {
            return Err(refused(Refusal::RpcMismatch));
        }
        let program = r.u32().map_err(garbage)?;
        let version = r.u32().map_err(garbage)?;
        let procedure = r.u32().map_err(garbage)?;
        let (flavor, credential) = auth(&mut r).map_err(|_| refused(Refusal::BadCredentials))?;
        auth(&mut r).map_err(|_| refused(Refusal::BadVerifier))?;
        Ok(Message { xid, program, version, procedure, flavor, credential, args: r.rest() })
    }

    /// Whether this is a ping, which is answered without asking who calls.
    pub(super) fn is_null(&self) -> bool {
        let is_ping = match self.flavor {
            RPCSEC_GSS => false,
            AUTH_TLS => self.credential.is_empty(),
            _ => true,
        };
        self.procedure == 0 && is_ping
    }

    /// Whether nothing is said about who calls.
    pub(super) fn is_anonymous(&self) -> bool {
        self.flavor == AUTH_NONE
    }
}

/// Flavor and body of a credential or verifier.
fn auth<'a>(r: &mut Reader<'a>) -> Result<(u32, &'a [u8]), Malformed> {
    Ok((r.u32()?, r.opaque(MAX_AUTH_BODY)?))
}

/// The caller of the last call: all calls of a user carry the same bytes, so they are compared and not parsed.
#[derive(Debug)]
pub(super) struct Caller {
    /// The AUTH_SYS body behind its stamp, which may change with each call.
    raw: Vec<u8>,
    /// What it says, squashed.
    parsed: Credentials,
    nobody: Credentials,
    squash: Squash,
}

impl Caller {
    /// Callers from one address, where `squash` holds.
    pub(super) fn new(squash: Squash) -> Caller {
        let nobody = squash.apply(Credentials { uid: NOBODY, gid: NOBODY, gids: SmallVec::new() });
        Caller { raw: Vec::new(), parsed: nobody.clone(), nobody, squash }
    }

    /// Who calls with `message`.
    pub(super) fn identify(&mut self, message: &Message<'_>) -> Result<&Credentials, Refusal> {
        match message.flavor {
            AUTH_NONE => Ok(&self.nobody),
            AUTH_SYS => self.auth_sys(message.credential).map_err(|_| Refusal::BadCredentials),
            // not a question, and no identity either
            AUTH_TLS => Err(Refusal::BadCredentials),
            _ => Err(Refusal::AuthTooWeak),
        }
    }

    fn auth_sys(&mut self, body: &[u8]) -> Result<&Credentials, Malformed> {
        let mut r = Reader::new(body);
        r.u32()?;
        // no legal body is empty, so nothing is taken for known before the first was parsed
        if self.raw.is_empty() || r.rest() != self.raw {
            let raw = r.rest();
            self.parsed = self.squash.apply(auth_sys(&mut r)?);
            self.raw.clear();
            self.raw.extend_from_slice(raw);
        }
        Ok(&self.parsed)
    }
}

/// AUTH_SYS behind the stamp.
fn auth_sys(r: &mut Reader<'_>) -> Result<Credentials, Malformed> {
    r.opaque(MAX_MACHINE_NAME)?;
    let (uid, gid, count) = (r.u32()?, r.u32()?, r.u32()?);
    if count > MAX_GIDS {
        return Err(Malformed);
    }
    let gids = (0..count).map(|_| r.u32()).collect::<Result<_, _>>()?;
    Ok(Credentials { uid, gid, gids })
}

/// A whole call with its record mark.
pub(super) fn call(xid: u32, request: &Request<'_>) -> Vec<u8> {
    let mut out = vec![0; 4];
    let Request { program, version, procedure, .. } = *request;
    [xid, CALL, RPC_VERSION, program, version, procedure].iter().for_each(|word| out.put_u32(*word));
    match request.credentials {
        None => [AUTH_NONE, 0].iter().for_each(|word| out.put_u32(*word)),
        Some(credentials) => {
            out.put_u32(AUTH_SYS);
            out.put_opaque(&auth_sys_body(credentials));
        }
    }
    [AUTH_NONE, 0].iter().for_each(|word| out.put_u32(*word));
    out.extend_from_slice(request.args);
    finish(&mut out, 0, 0);
    out
}

/// An AUTH_SYS body without a stamp; the machine's name is the program's, since nobody looks it up.
fn auth_sys_body(credentials: &Credentials) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u32(0);
    body.put_opaque(env!("CARGO_PKG_NAME").as_bytes());
    let gids = &credentials.gids[..credentials.gids.len().min(MAX_GIDS as usize)];
    [credentials.uid, credentials.gid, gids.len() as u32].iter().chain(gids).for_each(|word| body.put_u32(*word));
    body
}

/// Why a message has no result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoReply {
    /// It is no reply to that call.
    Stray,
    Refused(Refusal),
}

/// The result in the reply to call `xid`.
pub(super) fn result(reply: &[u8], xid: u32) -> Result<&[u8], NoReply> {
    let mut r = Reader::new(reply);
    if r.u32() != Ok(xid) || r.u32() != Ok(REPLY) {
        return Err(NoReply::Stray);
    }
    match accepted(&mut r) {
        Ok(None) => Ok(r.rest()),
        Ok(Some(refusal)) => Err(NoReply::Refused(refusal)),
        Err(Malformed) => Err(NoReply::Stray),
    }
}

/// Reads a reply's header behind its type: why the call was refused, if it was.
fn accepted(r: &mut Reader<'_>) -> Result<Option<Refusal>, Malformed> {
    match r.u32()? {
        MSG_ACCEPTED => _ = auth(r)?,
        MSG_DENIED => return denied(r).map(Some),
        _ => return Err(Malformed),
    }
    Ok(match r.u32()? {
        0 => None,
        1 => Some(Refusal::ProgramUnavailable),
        2 => Some(Refusal::ProgramMismatch { low: r.u32()?, high: r.u32()? }),
        3 => Some(Refusal::ProcedureUnavailable),
        4 => Some(Refusal::GarbageArgs),
        5 => Some(Refusal::SystemError),
        _ => return Err(Malformed),
    })
}

fn denied(r: &mut Reader<'_>) -> Result<Refusal, Malformed> {
    match (r.u32()?, r.u32()?) {
        (0, _low) => Ok(Refusal::RpcMismatch),
        (1, 1 | 2) => Ok(Refusal::BadCredentials),
        (1, 3 | 4) => Ok(Refusal::BadVerifier),
        (1, _) => Ok(Refusal::AuthTooWeak),
        _ => Err(Malformed),
    }
}

/// Starts an accepted, successful reply; returns where it starts. The result is to be appended.
pub(super) fn begin(out: &mut Vec<u8>, xid: u32) -> usize {
    let start = out.len();
    let mut header = [0; REPLY_HEADER];
    header[4..8].copy_from_slice(&xid.to_be_bytes());
    header[8..12].copy_from_slice(&REPLY.to_be_bytes());
    // MSG_ACCEPTED, an AUTH_NONE verifier without a body, and SUCCESS are all zeros
    out.extend_from_slice(&header);
    start
}

/// Sets the record mark of the reply at `start`, of which `elsewhere` bytes are not in `out`.
pub(super) fn finish(out: &mut [u8], start: usize, elsewhere: usize) {
    let len = u32::try_from(out.len() - start - 4 + elsewhere).expect("replies are far below 2 GiB");
    out[start..start + 4].copy_from_slice(&(len | LAST_FRAGMENT).to_be_bytes());
}

/// Puts a complete refusal in the place of the reply at `start`.
pub(super) fn refuse(out: &mut Vec<u8>, start: usize, xid: u32, refusal: &Refusal) {
    out.truncate(start);
    let mut put = |words: &[u32]| {
        out.extend_from_slice(&[0; 4]);
        [xid, REPLY].iter().chain(words).for_each(|w| out.put_u32(*w));
    };
    match refusal {
        Refusal::RpcMismatch => put(&[MSG_DENIED, 0, RPC_VERSION, RPC_VERSION]),
        Refusal::BadCredentials => put(&[MSG_DENIED, 1, 1]),
        Refusal::BadVerifier => put(&[MSG_DENIED, 1, 3]),
        Refusal::AuthTooWeak => put(&[MSG_DENIED, 1, 5]),
        Refusal::ProgramUnavailable => put(&[MSG_ACCEPTED, AUTH_NONE, 0, 1]),
        Refusal::ProgramMismatch { low, high } => put(&[MSG_ACCEPTED, AUTH_NONE, 0, 2, *low, *high]),
        Refusal::ProcedureUnavailable => put(&[MSG_ACCEPTED, AUTH_NONE, 0, 3]),
        Refusal::GarbageArgs => put(&[MSG_ACCEPTED, AUTH_NONE, 0, 4]),
        Refusal::SystemError => put(&[MSG_ACCEPTED, AUTH_NONE, 0, 5]),
    }
    finish(out, start, 0);
}

/// A whole reply by itself, its record mark included.
pub(super) fn whole(xid: u32, outcome: Outcome, body: &[u8], tail: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(REPLY_HEADER + body.len() + tail.len() + padding(tail.len()));
    let start = begin(&mut out, xid);
    match refusal(outcome) {
        None => {
            out.extend_from_slice(body);
            out.put_fixed(tail);
            finish(&mut out, start, 0);
        }
        Some(refusal) => refuse(&mut out, start, xid, &refusal),
    }
    out.into()
}

/// A whole refusal by itself, its record mark included.
pub(super) fn refused(xid: u32, refusal: &Refusal) -> Bytes {
    let mut out = Vec::new();
    refuse(&mut out, 0, xid, refusal);
    out.into()
}

/// What the caller is told for an outcome; `None` for its result.
pub(super) fn refusal(outcome: Outcome) -> Option<Refusal> {
    match outcome {
        Outcome::Success => None,
        Outcome::ProcedureUnavailable => Some(Refusal::ProcedureUnavailable),
        Outcome::GarbageArgs => Some(Refusal::GarbageArgs),
        Outcome::SystemError => Some(Refusal::SystemError),
        Outcome::AuthTooWeak => Some(Refusal::AuthTooWeak),
    }
}
