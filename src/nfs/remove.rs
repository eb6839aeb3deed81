//! REMOVE, RMDIR, RENAME, LINK: RFC 1813 sections 3.3.12 to 3.3.15. Refused with ROFS until the write side
//! is there.

use super::context::{Context, refusal};
use super::{decode, encode};
use crate::fs::ext::NfsExt;
use crate::rpc::xdr::{Malformed, Reader};
use crate::rpc::{Handled, Tail};

/// REMOVE.
pub(super) fn remove<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let object = decode::dir_op(&mut args)?;
    Ok(cx.refuse_change(object.dir, refusal(object.name)))
}

/// RMDIR, in all alike.
pub(super) fn rmdir<F: NfsExt>(cx: Context<'_, F>, args: Reader<'_>) -> Result<Handled, Malformed> {
    remove(cx, args)
}

/// RENAME. Its error body is the `wcc_data` of both directories.
pub(super) fn rename<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let from = decode::dir_op(&mut args)?;
    let to = decode::dir_op(&mut args)?;
    let status = decode::check_name(from.name).err().unwrap_or_else(|| refusal(to.name));
    let answer = cx.attributes(from.dir).zip(cx.attributes(to.dir));
    Ok(cx.finish(answer, move |_, (from, to), out| {
        encode::status(out, from.err().or(to.err()).unwrap_or(status));
        encode::wcc(out, from.as_ref().ok());
        encode::wcc(out, to.as_ref().ok());
        Tail::None
    }))
}

/// LINK. Its error body is the file's attributes and the `wcc_data` of the directory.
pub(super) fn link<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let file = decode::handle(&mut args)?;
    let place = decode::dir_op(&mut args)?;
    let status = refusal(place.name);
    let answer = cx.attributes(file).zip(cx.attributes(place.dir));
    Ok(cx.finish(answer, move |_, (file, dir), out| {
        encode::status(out, file.err().or(dir.err()).unwrap_or(status));
        encode::post_op_attr(out, file.as_ref().ok());
        encode::wcc(out, dir.as_ref().ok());
        Tail::None
    }))
}
