//! CREATE, MKDIR, SYMLINK, MKNOD: RFC 1813 sections 3.3.8 to 3.3.11. Refused with ROFS until the write
//! side is there.

use nfsserve::nfs::nfsstat3;

use super::context::{Context, refusal};
use super::decode::{self, CreateHow, NodeKind};
use crate::fs::ext::NfsExt;
use crate::rpc::Handled;
use crate::rpc::xdr::{Malformed, Reader};

/// CREATE.
pub(super) fn create<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let place = decode::dir_op(&mut args)?;
    match decode::create_how(&mut args)? {
        CreateHow::Unchecked(_attributes) | CreateHow::Guarded(_attributes) => {}
        CreateHow::Exclusive(_verifier) => {}
    }
    Ok(cx.refuse_change(place.dir, refusal(place.name)))
}

/// MKDIR.
pub(super) fn mkdir<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let place = decode::dir_op(&mut args)?;
    let _attributes = decode::sattr(&mut args)?;
    Ok(cx.refuse_change(place.dir, refusal(place.name)))
}

/// SYMLINK.
pub(super) fn symlink<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let place = decode::dir_op(&mut args)?;
    let _attributes = decode::sattr(&mut args)?;
    let _target = decode::string(&mut args)?;
    Ok(cx.refuse_change(place.dir, refusal(place.name)))
}

/// MKNOD. A type that it does not make is BADTYPE.
pub(super) fn mknod<F: NfsExt>(cx: Context<'_, F>, mut args: Reader<'_>) -> Result<Handled, Malformed> {
    let place = decode::dir_op(&mut args)?;
    let status = match decode::node_kind(&mut args)? {
        NodeKind::Device(_attributes, _device) => refusal(place.name),
        NodeKind::Special(_attributes) => refusal(place.name),
        NodeKind::Other => nfsstat3::NFS3ERR_BADTYPE,
    };
    Ok(cx.refuse_change(place.dir, status))
}
