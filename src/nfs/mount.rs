//! MOUNT v3 (RFC 1813 section 5): turns a path into the handle of a directory.
//! Owns: the list of who mounted what, kept for DUMP alone; nothing depends on it.
//! Invariant: the list holds at most `MAX_MOUNTS`; the oldest goes first.
//!
//! `/` is the export. Where it also has a name (Windows cannot mount `/`), `/NAME` is the same directory,
//! and hides a directory of that name, which is then `/NAME/NAME`. Anything below either can be mounted,
//! if the caller may walk there. Symlinks are not followed. A path that begins or ends with a backslash is one of
//! Windows, whose backslashes are slashes.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use nfsserve::nfs::{fattr3, fileid3, ftype3, nfsstat3};
use parking_lot::Mutex;

use super::error::MountStatus;
use super::{caller, decode, encode, lookup};
use crate::fs::ext::{Caller, Failure, NfsExt};
use crate::rpc::xdr::{Malformed, Reader, Write};
use crate::rpc::{Call, Handled, LateReply, Outcome, Program, Tail};

/// Program number of MOUNT.
pub const PROGRAM: u32 = 100_005;
/// The one version that is served.
pub const VERSION: u32 = 3;

/// The procedure that mounts.
const MNT: u32 = 1;

/// MNTPATHLEN: longest path, in bytes.
const MAX_PATH_BYTES: usize = 1024;
/// Mounts remembered for DUMP: more than anybody reads, and at most 1 MiB.
const MAX_MOUNTS: usize = 1024;
/// AUTH_SYS. AUTH_NONE is taken as well but not offered: clients read it as "credentials are ignored here".
const AUTH_SYS: u32 = 1;

/// The MOUNT program over a file system.
pub struct Mount3<F> {
    fs: Arc<F>,
    export: Option<String>,
    mounts: Arc<Mutex<VecDeque<Mount>>>,
}

/// Who mounted what.
#[derive(PartialEq, Eq)]
struct Mount {
    client: IpAddr,
    path: Vec<u8>,
}

impl<F: NfsExt> Mount3<F> {
    /// Exports `fs` as `/`, and as `/export` where that is given (a name without slashes).
    pub fn new(fs: Arc<F>, export: Option<String>) -> Mount3<F> {
        Mount3 { fs, export, mounts: Arc::default() }
    }

    /// Answers one call.
    fn answer(&self, call: &Call<'_>, reply: &mut Vec<u8>) -> Result<Handled, Malformed> {
        let mut args = Reader::new(call.args);
        let client = client(call.peer);
        match call.procedure {
            0 => {}
            MNT => return Ok(self.mount(caller(call), args.opaque(MAX_PATH_BYTES)?)),
            2 => self.dump(reply),
            3 => {
                let gone = Mount { client, path: canonical(args.opaque(MAX_PATH_BYTES)?) };
                self.mounts.lock().retain(|mount| *mount != gone);
            }
            4 => self.mounts.lock().retain(|mount| mount.client != client),
            5 => self.exports(reply),
            _ => return Ok(Handled::Done(Outcome::ProcedureUnavailable, Tail::None)),
        }
        Ok(Handled::Done(Outcome::Success, Tail::None))
    }

    /// MNT. Always later: mounting is rare, and walking may have to wait for S3 at any step.
    fn mount(&self, caller: Caller, path: &[u8]) -> Handled {
        let mount = Mount { client: client(caller.peer), path: canonical(path) };
        let below_export = self.below_export(path);
        let (fs, mounts) = (Arc::clone(&self.fs), Arc::clone(&self.mounts));
        Handled::Later(Box::pin(async move {
            let found = walk(&*fs, &caller, &below_export).await;
            if found.is_ok() {
                remember(&mut mounts.lock(), mount);
            }
            LateReply { outcome: Outcome::Success, body: mounted(&*fs, found), tail: Tail::None }
        }))
    }

    /// The part of `path` that is to be walked: without the export's name, where it begins with that.
    fn below_export(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let mut names = components(path).peekable();
        if let Some(export) = &self.export {
            names.next_if(|name| *name == export.as_bytes());
        }
        names.map(<[u8]>::to_vec).collect()
    }

    /// DUMP.
    fn dump(&self, reply: &mut Vec<u8>) {
        for mount in self.mounts.lock().iter() {
            reply.put_bool(true);
            reply.put_opaque(mount.client.to_string().as_bytes());
            reply.put_opaque(&mount.path);
        }
        reply.put_bool(false);
    }

    /// EXPORT: open to whoever may ask, which an empty list of groups says.
    fn exports(&self, reply: &mut Vec<u8>) {
        for name in [Some(""), self.export.as_deref()].into_iter().flatten() {
            reply.put_bool(true);
            reply.put_opaque(format!("/{name}").as_bytes());
            reply.put_bool(false);
        }
        reply.put_bool(false);
    }
}

/// The client at `peer`, whichever kind of socket it came in by.
fn client(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}

/// Components of a path, however many slashes are between them.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_of_windows = path.starts_with(b"\\") || path.ends_with(b"\\");
    path.split(move |byte| *byte == b'/' || is_of_windows && *byte == b'\\').filter(|name| !name.is_empty())
}

/// The one spelling of a path: one slash before each component, `/` alone for none.
fn canonical(path: &[u8]) -> Vec<u8> {
    let spelled: Vec<u8> = components(path).flat_map(|name| [b"/", name].concat()).collect();
    if spelled.is_empty() { b"/".to_vec() } else { spelled }
}

/// Adds a mount to the list, once.
fn remember(mounts: &mut VecDeque<Mount>, mount: Mount) {
    if mounts.contains(&mount) {
        return;
    }
    if mounts.len() == MAX_MOUNTS {
        mounts.pop_front();
    }
    mounts.push_back(mount);
}

/// Walks from the root along `names` as `caller`.
/// # Errors
/// What LOOKUP says; NOTDIR when the end is no directory.
async fn walk<F: NfsExt>(fs: &F, caller: &Caller, names: &[Vec<u8>]) -> Result<fileid3, nfsstat3> {
    let mut dir = fs.root_dir();
    let mut attr = fs.getattr_by(caller, dir).wait().await?;
    for name in names {
        decode::check_name(name)?;
        let found = lookup::look_up(fs, caller, dir, name).wait().await;
        let found = found.map_err(|Failure { status, .. }| status)?;
        (dir, attr) = (found.id, found.attr);
    }
    if is_directory(&attr) { Ok(dir) } else { Err(nfsstat3::NFS3ERR_NOTDIR) }
}

/// Whether these are a directory's attributes.
fn is_directory(attr: &fattr3) -> bool {
    matches!(attr.ftype, ftype3::NF3DIR)
}

/// `mountres3`.
fn mounted<F: NfsExt>(fs: &F, found: Result<fileid3, nfsstat3>) -> Vec<u8> {
    let mut body = Vec::new();
    match found {
        Ok(dir) => {
            body.put_u32(MountStatus::Ok as u32);
            encode::handle(&mut body, &fs.handle_by(dir));
            body.put_u32(1);
            body.put_u32(AUTH_SYS);
        }
        Err(status) => body.put_u32(MountStatus::from(status) as u32),
    }
    body
}

impl<F: NfsExt> Program for Mount3<F> {
    fn number(&self) -> u32 {
        PROGRAM
    }

    fn versions(&self) -> RangeInclusive<u32> {
        VERSION..=VERSION
    }

    fn is_idempotent(&self, _version: u32, _procedure: u32) -> bool {
        true
    }

    fn allows_auth_none(&self, _version: u32, _procedure: u32) -> bool {
        true
    }

    /// MNT says so in its own words, which every client shows as "access denied by server".
    fn turn_away(&self, _version: u32, procedure: u32, reply: &mut Vec<u8>) -> Outcome {
        if procedure != MNT {
            return Outcome::AuthTooWeak;
        }
        reply.put_u32(MountStatus::Access as u32);
        Outcome::Success
    }

    fn call(&self, call: &Call<'_>, reply: &mut Vec<u8>) -> Handled {
        self.answer(call, reply).unwrap_or(Handled::Done(Outcome::GarbageArgs, Tail::None))
    }
}
