//! GETATTR, SETATTR, ACCESS: RFC 1813 sections 3.3.1, 3.3.2 and 3.3.4.

use super::context::Context;
use super::{decode, encode};
use crate::fs::ext::NfsExt;
use crate::rpc::xdr::{Malformed, Reader, Write};
use crate::rpc::{Handled, Tail};

/// GETATTR. Its errors have no body.
pub(super) fn getattr<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let object = decode::handle(&mut args)?;
    let answer = cx.attributes(object);
    Ok(cx.finish(answer, |_, result, out| {
        match result {
            Ok(attr) => {
                encode::ok(out);
                encode::fattr(out, &attr);
            }
            Err(status) => encode::status(out, status),
        }
        Tail::None
    }))
}

/// SETATTR.
pub(super) fn setattr<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let object = decode::handle(&mut args)?;
    let attributes = decode::sattr(&mut args)?;
    let guard = decode::guard(&mut args)?;
    let answer = cx.ask(object, |fs, caller, id| fs.setattr_by(caller, id, attributes, guard));
    Ok(cx.finish_change(answer, |_, wcc, out| encode::wcc(out, &wcc)))
}

/// ACCESS.
pub(super) fn access<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let object = decode::handle(&mut args)?;
    let wanted = args.u32()?;
    let answer = cx.ask(object, |fs, caller, id| fs.access_by(caller, id, wanted));
    Ok(cx.finish_ok(answer, |_, accessed, out| {
        encode::post_op_attr(out, Some(&accessed.attr));
        out.put_u32(accessed.granted);
        Tail::None
    }))
}
