//! WRITE and COMMIT: RFC 1813 sections 3.3.7 and 3.3.21. Both tell the write verifier, by which a client knows
//! that what it wrote UNSTABLE before is lost and must be sent again.

use super::context::Context;
use super::{decode, encode};
use crate::fs::ext::NfsExt;
use crate::rpc::Handled;
use crate::rpc::xdr::{Malformed, Reader, Write};

/// WRITE. `count` and the length of the data say the same twice: where they differ, the call is malformed.
pub(super) fn write<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let file = decode::handle(&mut args)?;
    let offset = args.u64()?;
    let count = args.u32()?;
    let stable = decode::stability(&mut args)?;
    let data = args.opaque(usize::MAX)?;
    if data.len() != count as usize {
        return Err(Malformed);
    }
    let answer = cx.ask(file, |fs, caller, id| fs.write_by(caller, id, offset, data, stable));
    Ok(cx.finish_change(answer, |fs, written, out| {
        encode::wcc(out, &written.wcc);
        out.put_u32(written.count);
        out.put_u32(written.committed as u32);
        out.put_fixed(&fs.write_verifier());
    }))
}

/// COMMIT.
pub(super) fn commit<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let file = decode::handle(&mut args)?;
    let offset = args.u64()?;
    let count = args.u32()?;
    let answer = cx.ask(file, |fs, caller, id| fs.commit_by(caller, id, offset, count));
    Ok(cx.finish_change(answer, |fs, wcc, out| {
        encode::wcc(out, &wcc);
        out.put_fixed(&fs.write_verifier());
    }))
}
