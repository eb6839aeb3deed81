//! NFSv3 (RFC 1813), one file per procedure family, and the programs a client needs beside it: MOUNT v3, the portmapper,
//! and for locks NLM v4 and NSM. Decodes arguments, asks a file system through `NfsExt`, and the lock room, encodes what
//! they say. Knows neither sockets nor S3, but that NLM and NSM call clients back.
//!
//! Authentication: AUTH_NONE is taken everywhere and is nobody (uid and gid 65534): it gets what "other"
//! may have. Linux sends it in NULL and MNT, RFC 2623 advises it for FSINFO and GETATTR of the root at
//! mount, and tools without privileges use it throughout; asked for AUTH_SYS, they would only claim a uid.

mod attr;
mod context;
mod create;
mod decode;
mod encode;
mod error;
mod fsinfo;
mod lookup;
pub mod mount;
pub mod nlm;
pub mod nsm;
pub mod portmap;
pub mod reach;
mod read;
mod readdir;
mod remove;
mod write;

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::fs::ext::{Caller, NfsExt};
use crate::rpc::xdr::Reader;
use crate::rpc::{Call, Credentials, Handled, Outcome, Program, Tail};
use context::Context;

/// Program number of NFS.
pub const PROGRAM: u32 = 100_003;
/// The one version that is served.
pub const VERSION: u32 = 3;

/// Names of the procedures by their number.
pub const PROCEDURES: [&str; 22] = [
    "null",
    "getattr",
    "setattr",
    "lookup",
    "access",
    "readlink",
    "read",
    "write",
    "create",
    "mkdir",
    "symlink",
    "mknod",
    "remove",
    "rmdir",
    "rename",
    "link",
    "readdir",
    "readdirplus",
    "fsstat",
    "fsinfo",
    "pathconf",
    "commit",
];

/// The NFS program over a file system.
pub struct Nfs3<F> {
    fs: Arc<F>,
}

impl<F: NfsExt> Nfs3<F> {
    /// Serves `fs`.
    pub fn new(fs: Arc<F>) -> Nfs3<F> {
        Nfs3 { fs }
    }
}

impl<F: NfsExt> Program for Nfs3<F> {
    fn number(&self) -> u32 {
        PROGRAM
    }

    fn versions(&self) -> RangeInclusive<u32> {
        VERSION..=VERSION
    }

    /// Those that change something are not. WRITE is not either: run again late, it would undo a newer one.
    fn is_idempotent(&self, _version: u32, procedure: u32) -> bool {
        !matches!(procedure, 2 | 7..=15)
    }

    fn allows_auth_none(&self, _version: u32, _procedure: u32) -> bool {
        true
    }

    fn call(&self, call: &Call<'_>, reply: &mut Vec<u8>) -> Handled {
        let cx = Context { fs: &self.fs, caller: caller(call), reply };
        let args = Reader::new(call.args);
        let handled = match call.procedure {
            0 => return Handled::Done(Outcome::Success, Tail::None),
            1 => attr::getattr(cx, args),
            2 => attr::setattr(cx, args),
            3 => lookup::lookup(cx, args),
            4 => attr::access(cx, args),
            5 => read::readlink(cx, args),
            6 => read::read(cx, args),
            7 => write::write(cx, args),
            8 => create::create(cx, args),
            9 => create::mkdir(cx, args),
            10 => create::symlink(cx, args),
            11 => create::mknod(cx, args),
            12 => remove::remove(cx, args),
            13 => remove::rmdir(cx, args),
            14 => remove::rename(cx, args),
            15 => remove::link(cx, args),
            16 => readdir::readdir(cx, args),
            17 => readdir::readdirplus(cx, args),
            18 => fsinfo::fsstat(cx, args),
            19 => fsinfo::fsinfo(cx, args),
            20 => fsinfo::pathconf(cx, args),
            21 => write::commit(cx, args),
            _ => return Handled::Done(Outcome::ProcedureUnavailable, Tail::None),
        };
        handled.unwrap_or(Handled::Done(Outcome::GarbageArgs, Tail::None))
    }
}

/// Who calls, as the file system is to see it.
fn caller(call: &Call<'_>) -> Caller {
    let Credentials { uid, gid, ref gids } = *call.credentials;
    let credentials = Credentials { uid, gid, gids: SmallVec::from_slice(gids) };
    Caller { credentials, peer: call.peer, read_only: call.grant.read_only }
}
