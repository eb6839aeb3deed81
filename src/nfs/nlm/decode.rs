//! Arguments of NLM v4 (X/Open XNFS chapter 14; RFC 1813 appendix II), borrowed from the call.
//! Invariant: every length is checked against its bound and against what is there.

use std::net::IpAddr;

use super::Status;
use crate::locks::{Asked, LockHost, Range, Share};
use crate::rpc::xdr::{Malformed, Reader};

/// MAXNETOBJ_SZ: longest opaque of the protocol.
const MAX_OBJECT: usize = 1024;
/// LM_MAXSTRLEN: longest name of a client.
pub(super) const MAX_NAME: usize = 1024;

/// `netobj`.
pub(super) fn object<'a>(args: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    args.opaque(MAX_OBJECT)
}

/// `nlm4_lock`.
pub(super) struct Lock<'a> {
    caller: &'a [u8],
    pub(super) handle: &'a [u8],
    owner: &'a [u8],
    pub(super) svid: u32,
    offset: u64,
    len: u64,
}

impl<'a> Lock<'a> {
    fn read(args: &mut Reader<'a>) -> Result<Lock<'a>, Malformed> {
        Ok(Lock {
            caller: args.opaque(MAX_NAME)?,
            handle: object(args)?,
            owner: object(args)?,
            svid: args.u32()?,
            offset: args.u64()?,
            len: args.u64()?,
        })
    }

    /// Which bytes. # Errors: FBIG, when they have no number.
    pub(super) fn range(&self) -> Result<Range, Status> {
        Range::new(self.offset, self.len).ok_or(Status::TooBig)
    }

    /// The client that says so, calling from `address` to `server`.
    pub(super) fn host(&self, address: IpAddr, server: IpAddr) -> LockHost {
        LockHost { address, server, name: self.caller.into() }
    }

    /// What a waiter is told.
    pub(super) fn asked(&self, by_message: bool) -> Asked {
        let (handle, owner) = (self.handle.into(), self.owner.into());
        Asked { handle, owner, offset: self.offset, len: self.len, by_message }
    }
}

/// `nlm4_testargs`.
pub(super) struct TestArgs<'a> {
    pub(super) cookie: &'a [u8],
    pub(super) exclusive: bool,
    pub(super) lock: Lock<'a>,
}

impl<'a> TestArgs<'a> {
    pub(super) fn read(args: &mut Reader<'a>) -> Result<TestArgs<'a>, Malformed> {
        Ok(TestArgs { cookie: object(args)?, exclusive: args.bool()?, lock: Lock::read(args)? })
    }
}

/// `nlm4_lockargs`. The client's state number at their end is of no use: SM_NOTIFY tells of a reboot.
pub(super) struct LockArgs<'a> {
    pub(super) cookie: &'a [u8],
    pub(super) block: bool,
    pub(super) exclusive: bool,
    pub(super) lock: Lock<'a>,
    pub(super) reclaim: bool,
}

impl<'a> LockArgs<'a> {
    pub(super) fn read(args: &mut Reader<'a>) -> Result<LockArgs<'a>, Malformed> {
        let (cookie, block, exclusive) = (object(args)?, args.bool()?, args.bool()?);
        let (lock, reclaim, _state) = (Lock::read(args)?, args.bool()?, args.u32()?);
        Ok(LockArgs { cookie, block, exclusive, lock, reclaim })
    }
}

/// `nlm4_cancargs`. What was asked for with `block` is what can be cancelled.
pub(super) struct CancelArgs<'a> {
    pub(super) cookie: &'a [u8],
    pub(super) exclusive: bool,
    pub(super) lock: Lock<'a>,
}

impl<'a> CancelArgs<'a> {
    pub(super) fn read(args: &mut Reader<'a>) -> Result<CancelArgs<'a>, Malformed> {
        let (cookie, _block, exclusive) = (object(args)?, args.bool()?, args.bool()?);
        Ok(CancelArgs { cookie, exclusive, lock: Lock::read(args)? })
    }
}

/// `nlm4_unlockargs`.
pub(super) struct UnlockArgs<'a> {
    pub(super) cookie: &'a [u8],
    pub(super) lock: Lock<'a>,
}

impl<'a> UnlockArgs<'a> {
    pub(super) fn read(args: &mut Reader<'a>) -> Result<UnlockArgs<'a>, Malformed> {
        Ok(UnlockArgs { cookie: object(args)?, lock: Lock::read(args)? })
    }
}

/// `nlm4_shareargs`.
pub(super) struct ShareArgs<'a> {
    pub(super) cookie: &'a [u8],
    caller: &'a [u8],
    pub(super) handle: &'a [u8],
    pub(super) owner: &'a [u8],
    pub(super) share: Share,
    pub(super) reclaim: bool,
}

impl<'a> ShareArgs<'a> {
    pub(super) fn read(args: &mut Reader<'a>) -> Result<ShareArgs<'a>, Malformed> {
        let (cookie, caller, handle, owner) = (object(args)?, args.opaque(MAX_NAME)?, object(args)?, object(args)?);
        let (deny, access) = (mode(args)?, mode(args)?);
        Ok(ShareArgs { cookie, caller, handle, owner, share: Share { access, deny }, reclaim: args.bool()? })
    }

    /// The client that says so, calling from `address` to `server`.
    pub(super) fn host(&self, address: IpAddr, server: IpAddr) -> LockHost {
        LockHost { address, server, name: self.caller.into() }
    }
}

/// `fsh4_mode` and `fsh4_access`: none, read, write, both.
fn mode(args: &mut Reader<'_>) -> Result<u8, Malformed> {
    u8::try_from(args.u32()?).ok().filter(|bits| *bits <= 3).ok_or(Malformed)
}

/// `nlm4_res`.
pub(super) struct Reply<'a> {
    pub(super) cookie: &'a [u8],
    pub(super) status: u32,
}

impl<'a> Reply<'a> {
    pub(super) fn read(args: &mut Reader<'a>) -> Result<Reply<'a>, Malformed> {
        Ok(Reply { cookie: object(args)?, status: args.u32()? })
    }
}
