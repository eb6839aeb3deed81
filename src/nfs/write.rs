//! WRITE and COMMIT: RFC 1813 sections 3.3.7 and 3.3.21. Refused with ROFS until the write side is there.

use nfsserve::nfs::nfsstat3;

use super::context::Context;
use super::decode;
use crate::fs::ext::NfsExt;
use crate::rpc::Handled;
use crate::rpc::xdr::{Malformed, Reader};

/// FILE_SYNC, the highest `stable_how`.
const FILE_SYNC: u32 = 2;

/// WRITE.
pub(super) fn write<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let file = decode::handle(&mut args)?;
    let _offset = args.u64()?;
    let count = args.u32()?;
    let stable = args.u32()?;
    let data = args.opaque(usize::MAX)?;
    if stable > FILE_SYNC || data.len() != count as usize {
        return Err(Malformed);
    }
    Ok(cx.refuse_change(file, nfsstat3::NFS3ERR_ROFS))
}

/// COMMIT.
pub(super) fn commit<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let file = decode::handle(&mut args)?;
    let _offset = args.u64()?;
    let _count = args.u32()?;
    Ok(cx.refuse_change(file, nfsstat3::NFS3ERR_ROFS))
}
