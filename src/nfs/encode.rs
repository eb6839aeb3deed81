//! The pieces that NFSv3 results are made of, appended to a reply: `fattr3`, `post_op_attr`, `wcc_data`,
//! `post_op_fh3`, status words (RFC 1813 section 2.5 and 2.6).
//! Invariant: the `*_BYTES` constants are the exact sizes of what the functions append.

use nfsserve::nfs::{fattr3, nfsstat3};

use crate::fs::ext::{Failure, Handle, Refused, Wcc};
use crate::rpc::xdr::Write;

/// Size of an encoded `fattr3`.
pub(super) const FATTR_BYTES: usize = 21 * 4;
/// Size of a `post_op_attr` that holds attributes.
pub(super) const POST_OP_ATTR_BYTES: usize = 4 + FATTR_BYTES;

/// A status word.
pub(super) fn status(out: &mut Vec<u8>, status: nfsstat3) {
    out.put_u32(status as u32);
}

/// The status of success.
pub(super) fn ok(out: &mut Vec<u8>) {
    status(out, nfsstat3::NFS3_OK);
}

/// A status and the `post_op_attr` that is the body of most errors.
pub(super) fn failure(out: &mut Vec<u8>, failure: Failure) {
    status(out, failure.status);
    post_op_attr(out, failure.attr.as_ref());
}

/// `fattr3`, as 21 words that are swapped and appended at once: every reply has one or two of them.
pub(super) fn fattr(out: &mut Vec<u8>, a: &fattr3) {
    let [size_hi, size_lo] = halves(a.size);
    let [used_hi, used_lo] = halves(a.used);
    let [fsid_hi, fsid_lo] = halves(a.fsid);
    let [id_hi, id_lo] = halves(a.fileid);
    #[rustfmt::skip]
    let words: [u32; FATTR_BYTES / 4] = [
        a.ftype as u32, a.mode, a.nlink, a.uid, a.gid,
        size_hi, size_lo, used_hi, used_lo,
        a.rdev.specdata1, a.rdev.specdata2,
        fsid_hi, fsid_lo, id_hi, id_lo,
        a.atime.seconds, a.atime.nseconds, a.mtime.seconds, a.mtime.nseconds, a.ctime.seconds, a.ctime.nseconds,
    ];
    let mut bytes = [0; FATTR_BYTES];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(&bytes);
}

/// Both words of a hyper integer, the higher first.
fn halves(v: u64) -> [u32; 2] {
    [(v >> 32) as u32, v as u32]
}

/// `post_op_attr`: attributes, or that there are none.
pub(super) fn post_op_attr(out: &mut Vec<u8>, attr: Option<&fattr3>) {
    out.put_bool(attr.is_some());
    if let Some(attr) = attr {
        fattr(out, attr);
    }
}

/// `wcc_data`.
pub(super) fn wcc(out: &mut Vec<u8>, wcc: &Wcc) {
    out.put_bool(wcc.before.is_some());
    if let Some(before) = &wcc.before {
        out.put_u64(before.size);
        for time in [before.mtime, before.ctime] {
            out.put_u32(time.seconds);
            out.put_u32(time.nseconds);
        }
    }
    post_op_attr(out, wcc.after.as_ref());
}

/// A status and the `wcc_data` that is the body of most errors of changes.
pub(super) fn refused(out: &mut Vec<u8>, refused: &Refused) {
    status(out, refused.status);
    wcc(out, &refused.wcc);
}

/// `nfs_fh3`.
pub(super) fn handle(out: &mut Vec<u8>, handle: &Handle) {
    out.put_opaque(handle.as_bytes());
}

/// `post_op_fh3` that holds a handle.
pub(super) fn post_op_handle(out: &mut Vec<u8>, of: &Handle) {
    out.put_bool(true);
    handle(out, of);
}
