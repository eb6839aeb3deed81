//! FSSTAT, FSINFO, PATHCONF: RFC 1813 sections 3.3.18 to 3.3.20.

use super::context::Context;
use super::{decode, encode};
use crate::fs::ext::NfsExt;
use crate::rpc::xdr::{Malformed, Reader, Write};
use crate::rpc::{Handled, Tail};

/// rtmult and wtmult: the page size of the clients, which is what they round a transfer to.
const TRANSFER_MULTIPLE_BYTES: u32 = 4096;

/// FSSTAT. `invarsec` is 0: the numbers change whenever the cache does.
pub(super) fn fsstat<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let root = decode::handle(&mut args)?;
    let answer = cx.ask(root, |fs, caller, id| fs.fsstat_by(caller, id));
    Ok(cx.finish_ok(answer, |_, stat, out| {
        encode::post_op_attr(out, stat.attr.as_ref());
        out.put_u64(stat.total_bytes);
        out.put_u64(stat.free_bytes);
        out.put_u64(stat.available_bytes);
        out.put_u64(stat.total_files);
        out.put_u64(stat.free_files);
        out.put_u64(stat.free_files);
        out.put_u32(0);
        Tail::None
    }))
}

/// FSINFO. Times are kept to the nanosecond.
pub(super) fn fsinfo<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let root = decode::handle(&mut args)?;
    let answer = cx.ask(root, |fs, caller, id| fs.fsinfo_by(caller, id));
    Ok(cx.finish_ok(answer, |fs, info, out| {
        let read_max = info.read_max.min(fs.read_max());
        encode::post_op_attr(out, info.attr.as_ref());
        out.put_u32(read_max);
        out.put_u32(info.read_preferred.min(read_max));
        out.put_u32(TRANSFER_MULTIPLE_BYTES);
        out.put_u32(info.write_max);
        out.put_u32(info.write_preferred);
        out.put_u32(TRANSFER_MULTIPLE_BYTES);
        out.put_u32(info.readdir_preferred);
        out.put_u64(info.max_file_bytes);
        let (delta_s, delta_ns) = (0, 1);
        out.put_u32(delta_s);
        out.put_u32(delta_ns);
        out.put_u32(info.properties);
        Tail::None
    }))
}

/// PATHCONF. Long names are refused, not cut; only root gives files away; names are bytes, and so
/// case-sensitive and kept as they are.
pub(super) fn pathconf<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let object = decode::handle(&mut args)?;
    let answer = cx.ask(object, |fs, caller, id| fs.pathconf_by(caller, id));
    Ok(cx.finish_ok(answer, |_, conf, out| {
        let (no_trunc, chown_restricted, case_insensitive, case_preserving) = (true, true, false, true);
        encode::post_op_attr(out, conf.attr.as_ref());
        out.put_u32(conf.link_max);
        out.put_u32(conf.name_max);
        out.put_bool(no_trunc);
        out.put_bool(chown_restricted);
        out.put_bool(case_insensitive);
        out.put_bool(case_preserving);
        Tail::None
    }))
}
