//! READ and READLINK: RFC 1813 sections 3.3.6 and 3.3.5.
//! The bytes of a READ are the reply's tail: they are never copied here.

use super::context::Context;
use super::{decode, encode};
use crate::fs::ext::{NfsExt, ReadOk};
use crate::rpc::xdr::{Malformed, Reader, Write};
use crate::rpc::{Handled, Tail};

/// READ. More than FSINFO's rtmax is cut to it.
pub(super) fn read<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let file = decode::handle(&mut args)?;
    let offset = args.u64()?;
    let count = args.u32()?;
    let answer = cx.ask(file, |fs, caller, id| fs.read_by(caller, id, offset, count.min(fs.read_max())));
    Ok(cx.finish_ok(answer, |_, ReadOk { attr, count, eof, data }, out| {
        let len = tail_bytes(&data);
        debug_assert_eq!(count, len, "a file system says how many bytes it hands over");
        encode::post_op_attr(out, Some(&attr));
        out.put_u32(len);
        out.put_bool(eof);
        out.put_u32(len);
        data
    }))
}

/// How many bytes the tail will put after the length word: this, and not what the file system counts,
/// keeps the stream in step.
fn tail_bytes(tail: &Tail) -> u32 {
    match tail {
        Tail::None => 0,
        Tail::File(range) => range.len,
        Tail::Bytes(bytes) => u32::try_from(bytes.len()).expect("a READ is cut to read_max"),
    }
}

/// READLINK.
pub(super) fn readlink<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let link = decode::handle(&mut args)?;
    let answer = cx.ask(link, |fs, caller, id| fs.readlink_by(caller, id));
    Ok(cx.finish_ok(answer, |_, (target, attr), out| {
        encode::post_op_attr(out, Some(&attr));
        out.put_opaque(&target);
        Tail::None
    }))
}
