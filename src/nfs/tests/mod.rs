//! Tests of the programs, called as the RPC layer calls them, over a file system in memory (`double`).
//! Arguments and expected replies are made by an independent XDR crate; replies are compared to the byte.
#![allow(clippy::unwrap_used)]

mod changes;
mod double;
mod hostile;
mod locks;
mod mount;
mod portmap;
mod readdir;
mod reading;

use std::sync::Arc;

use futures::FutureExt;
use nfs3_types::nfs3::{diropargs3, nfs_fh3};
use nfs3_types::xdr_codec::{Opaque, Pack, Unpack};

use self::double::Double;
use super::Nfs3;
use crate::rpc::xdr::padding;
use crate::rpc::{Call, Credentials, Grant, Handled, LateReply, Outcome, Program, Tail, Transport};

/// What was in the connection's output before the call.
const BEFORE: &[u8] = b"earlier replies";

fn user(uid: u32) -> Credentials {
    Credentials { uid, gid: uid, gids: [uid + 1].into_iter().collect() }
}

/// Calls `program` as `uid`: how it ended, and the result with its tail.
fn call_as(uid: u32, program: &dyn Program, procedure: u32, args: &[u8]) -> (Outcome, Vec<u8>) {
    let credentials = user(uid);
    let peer = "192.0.2.7:700".parse().unwrap();
    let version = *program.versions().end();
    let (local, transport) = ("192.0.2.1:2049".parse().unwrap(), Transport::Tcp);
    let call = Call { version, procedure, credentials: &credentials, peer, local, transport, grant: Grant::ALL, args };
    let mut reply = BEFORE.to_vec();
    let (outcome, tail) = match program.call(&call, &mut reply) {
        Handled::Done(outcome, tail) => (outcome, tail),
        Handled::Later(future) => {
            assert_eq!(reply, BEFORE, "a late reply leaves the connection's output alone");
            let LateReply { outcome, body, tail } = future.now_or_never().expect("the double never waits");
            reply.extend(body);
            (outcome, tail)
        }
    };
    let mut result = reply.strip_prefix(BEFORE).expect("earlier replies stay").to_vec();
    result.extend(with_padding(tail));
    (outcome, result)
}

/// What the RPC layer would send for `tail`.
fn with_padding(tail: Tail) -> Vec<u8> {
    let mut bytes = match tail {
        Tail::None => Vec::new(),
        Tail::Bytes(bytes) => bytes.to_vec(),
        Tail::File(range) => double::HELLO_BYTES[range.offset as usize..][..range.len as usize].to_vec(),
    };
    bytes.extend(&[0; 3][..padding(bytes.len())]);
    bytes
}

fn nfs(late: bool) -> Nfs3<Double> {
    Nfs3::new(Arc::new(Double::new(late)))
}

/// Calls NFS over the double, answering at once and later: both must say the same.
fn ask_as(uid: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
    let [now, later] = [false, true].map(|late| call_as(uid, &nfs(late), procedure, args));
    assert_eq!(now, later);
    assert_eq!(now.0, Outcome::Success);
    now.1
}

/// Calls NFS and compares the reply with `expected`.
#[track_caller]
fn expect(procedure: u32, args: &impl Pack, expected: &impl Pack) {
    assert_eq!(ask_as(1000, procedure, &pack(args)), pack(expected));
}

fn pack(value: &impl Pack) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.pack(&mut bytes).unwrap();
    bytes
}

/// Decodes all of `bytes`.
#[track_caller]
fn unpack<T: Unpack>(bytes: &[u8]) -> T {
    let (value, len) = T::unpack(&mut &bytes[..]).unwrap();
    assert_eq!(len, bytes.len(), "nothing follows the result");
    value
}

fn fh(id: u64) -> nfs_fh3 {
    nfs_fh3 { data: Opaque::owned(double::handle(id)) }
}

fn bad_fh() -> nfs_fh3 {
    nfs_fh3 { data: Opaque::owned(b"forged".to_vec()) }
}

fn dir_op(dir: u64, name: &[u8]) -> diropargs3<'_> {
    diropargs3 { dir: fh(dir), name: name.into() }
}
