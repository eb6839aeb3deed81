//! The pieces that NFSv3 arguments are made of, borrowed from the call (RFC 1813 section 2.5 and 2.6).
//! Invariant: nothing is allocated; a length is checked against its bound and against what is there.
//!
//! Arguments that end early are GARBAGE_ARGS; bytes after their end are ignored, as other servers do.

use nfsserve::nfs::{nfsstat3, nfstime3, sattr3, set_atime, set_gid3, set_mode3, set_mtime, set_size3, set_uid3};

use crate::fs::ext::{CreateMode, MAX_HANDLE_BYTES, SpecialKind, Stability};
use crate::rpc::xdr::{Malformed, Reader};
use crate::types::name::MAX_NAME_BYTES;

/// `diropargs3`: a name in a directory, neither of them checked yet.
#[derive(Clone, Copy)]
pub(super) struct DirOp<'a> {
    /// Handle of the directory.
    pub(super) dir: &'a [u8],
    /// The name.
    pub(super) name: &'a [u8],
}

/// `nfs_fh3`, of at most 64 bytes.
pub(super) fn handle<'a>(args: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    args.opaque(MAX_HANDLE_BYTES)
}

/// `filename3` or `nfspath3`: the protocol sets no bound, so the record's end is it.
pub(super) fn string<'a>(args: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    args.opaque(usize::MAX)
}

/// `diropargs3`.
pub(super) fn dir_op<'a>(args: &mut Reader<'a>) -> Result<DirOp<'a>, Malformed> {
    Ok(DirOp { dir: handle(args)?, name: string(args)? })
}

/// Whether a directory entry can have this name at all; `.` and `..` can.
/// # Errors
/// NAMETOOLONG over 255 bytes; INVAL when empty or with a `/` or NUL in it.
pub(super) fn check_name(name: &[u8]) -> Result<(), nfsstat3> {
    if name.len() > MAX_NAME_BYTES {
        return Err(nfsstat3::NFS3ERR_NAMETOOLONG);
    }
    if name.is_empty() || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(nfsstat3::NFS3ERR_INVAL);
    }
    Ok(())
}

/// `nfstime3`.
pub(super) fn time(args: &mut Reader<'_>) -> Result<nfstime3, Malformed> {
    Ok(nfstime3 { seconds: args.u32()?, nseconds: args.u32()? })
}

/// `sattrguard3`: the ctime that the object must have.
pub(super) fn guard(args: &mut Reader<'_>) -> Result<Option<nfstime3>, Malformed> {
    if args.bool()? { Ok(Some(time(args)?)) } else { Ok(None) }
}

/// `sattr3`: the attributes to set.
pub(super) fn sattr(args: &mut Reader<'_>) -> Result<sattr3, Malformed> {
    Ok(sattr3 {
        mode: if args.bool()? { set_mode3::mode(args.u32()?) } else { set_mode3::Void },
        uid: if args.bool()? { set_uid3::uid(args.u32()?) } else { set_uid3::Void },
        gid: if args.bool()? { set_gid3::gid(args.u32()?) } else { set_gid3::Void },
        size: if args.bool()? { set_size3::size(args.u64()?) } else { set_size3::Void },
        atime: match args.u32()? {
            0 => set_atime::DONT_CHANGE,
            1 => set_atime::SET_TO_SERVER_TIME,
            2 => set_atime::SET_TO_CLIENT_TIME(time(args)?),
            _ => return Err(Malformed),
        },
        mtime: match args.u32()? {
            0 => set_mtime::DONT_CHANGE,
            1 => set_mtime::SET_TO_SERVER_TIME,
            2 => set_mtime::SET_TO_CLIENT_TIME(time(args)?),
            _ => return Err(Malformed),
        },
    })
}

/// `createhow3`.
pub(super) fn create_how(args: &mut Reader<'_>) -> Result<CreateMode, Malformed> {
    match args.u32()? {
        0 => Ok(CreateMode::Unchecked(sattr(args)?)),
        1 => Ok(CreateMode::Guarded(sattr(args)?)),
        2 => Ok(CreateMode::Exclusive(args.fixed()?)),
        _ => Err(Malformed),
    }
}

/// `mknoddata3`, its discriminant an `ftype3`; `None` for a type that MKNOD does not make (BADTYPE).
pub(super) fn special(args: &mut Reader<'_>) -> Result<Option<(SpecialKind, sattr3)>, Malformed> {
    match args.u32()? {
        3 => device(args, SpecialKind::BlockDevice).map(Some),
        4 => device(args, SpecialKind::CharDevice).map(Some),
        6 => Ok(Some((SpecialKind::Socket, sattr(args)?))),
        7 => Ok(Some((SpecialKind::Fifo, sattr(args)?))),
        1 | 2 | 5 => Ok(None),
        _ => Err(Malformed),
    }
}

/// `devicedata3`.
fn device(
    args: &mut Reader<'_>,
    kind: impl FnOnce(u32, u32) -> SpecialKind,
) -> Result<(SpecialKind, sattr3), Malformed> {
    let attributes = sattr(args)?;
    Ok((kind(args.u32()?, args.u32()?), attributes))
}

/// `stable_how`.
pub(super) fn stability(args: &mut Reader<'_>) -> Result<Stability, Malformed> {
    match args.u32()? {
        0 => Ok(Stability::Unstable),
        1 => Ok(Stability::DataSync),
        2 => Ok(Stability::FileSync),
        _ => Err(Malformed),
    }
}

/// An opaque verifier that is taken but not looked at.
pub(super) fn verifier(args: &mut Reader<'_>) -> Result<(), Malformed> {
    args.fixed::<8>().map(drop)
}
