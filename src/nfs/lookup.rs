//! LOOKUP: RFC 1813 section 3.3.3.
//! `.` and `..` are resolved here; the file system sees real names only.

use nfsserve::nfs::{fileid3, ftype3, nfsstat3};

use super::context::Context;
use super::{decode, encode};
use crate::fs::ext::{Accessed, Answer, Caller, Failure, Looked, NfsExt};
use crate::rpc::xdr::{Malformed, Reader};
use crate::rpc::{Handled, Tail};

/// ACCESS3_LOOKUP: may look up names in a directory.
const ACCESS_LOOKUP: u32 = 0x0002;

/// LOOKUP.
pub(super) fn lookup<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let what = decode::dir_op(&mut args)?;
    if let Err(status) = decode::check_name(what.name) {
        return Ok(cx.refuse(what.dir, status));
    }
    let answer = cx.ask(what.dir, |fs, caller, dir| look_up(fs, caller, dir, what.name));
    Ok(cx.finish_ok(answer, |fs, found, out| {
        encode::handle(out, &fs.handle_by(found.id));
        encode::post_op_attr(out, Some(&found.attr));
        encode::post_op_attr(out, found.dir_attr.as_ref());
        Tail::None
    }))
}

/// Looks up any name that `decode::check_name` allows.
pub(super) fn look_up<F: NfsExt>(
    fs: &F,
    caller: &Caller,
    dir: fileid3,
    name: &[u8],
) -> Answer<Result<Looked, Failure>> {
    match name {
        b"." => fs.access_by(caller, dir, ACCESS_LOOKUP).map(move |accessed| itself(dir, accessed?)),
        b".." => fs.parent_by(caller, dir),
        name => fs.lookup_by(caller, dir, name),
    }
}

/// What `.` is, once the caller's rights on `dir` are known: `dir`, if it is a directory to search.
fn itself(dir: fileid3, Accessed { granted, attr }: Accessed) -> Result<Looked, Failure> {
    let refused = |status| Err(Failure { status, attr: Some(attr) });
    if !matches!(attr.ftype, ftype3::NF3DIR) {
        return refused(nfsstat3::NFS3ERR_NOTDIR);
    }
    if granted & ACCESS_LOOKUP == 0 {
        return refused(nfsstat3::NFS3ERR_ACCES);
    }
    Ok(Looked { id: dir, attr, dir_attr: Some(attr) })
}
