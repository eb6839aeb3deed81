//! CREATE, MKDIR, SYMLINK, MKNOD: RFC 1813 sections 3.3.8 to 3.3.11.

use nfsserve::nfs::nfsstat3;

use super::context::Context;
use super::{decode, encode};
use crate::fs::ext::{Answer, Made, NfsExt, Refused};
use crate::rpc::Handled;
use crate::rpc::xdr::{Malformed, Reader};

/// CREATE.
pub(super) fn create<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let place = decode::dir_op(&mut args)?;
    let how = decode::create_how(&mut args)?;
    let answer = cx.ask_entry(place, |fs, caller, dir| fs.create_by(caller, dir, place.name, how));
    Ok(made(cx, answer))
}

/// MKDIR.
pub(super) fn mkdir<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let place = decode::dir_op(&mut args)?;
    let attributes = decode::sattr(&mut args)?;
    let answer = cx.ask_entry(place, |fs, caller, dir| fs.mkdir_by(caller, dir, place.name, attributes));
    Ok(made(cx, answer))
}

/// SYMLINK.
pub(super) fn symlink<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let place = decode::dir_op(&mut args)?;
    let attributes = decode::sattr(&mut args)?;
    let target = decode::string(&mut args)?;
    let answer = cx.ask_entry(place, |fs, caller, dir| fs.symlink_by(caller, dir, place.name, target, attributes));
    Ok(made(cx, answer))
}

/// MKNOD. A type that it does not make is BADTYPE.
pub(super) fn mknod<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let place = decode::dir_op(&mut args)?;
    let answer = match decode::special(&mut args)? {
        Some((kind, attributes)) => {
            cx.ask_entry(place, |fs, caller, dir| fs.mknod_by(caller, dir, place.name, kind, attributes))
        }
        None => cx.refusal(place.dir, nfsstat3::NFS3ERR_BADTYPE),
    };
    Ok(made(cx, answer))
}

/// Their common result: handle and attributes of what was made, and the directory's.
fn made<F: NfsExt>(cx: Context<'_, F>, answer: Answer<Result<Made, Refused>>) -> Handled {
    cx.finish_change(answer, |fs, made, out| {
        encode::post_op_handle(out, &fs.handle_by(made.id));
        encode::post_op_attr(out, Some(&made.attr));
        encode::wcc(out, &made.dir);
    })
}
