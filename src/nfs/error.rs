//! The error table: what MOUNT says for what NFS says. No wildcard: a new status needs a decision here.

use nfsserve::nfs::nfsstat3;

/// `mountstat3` (RFC 1813 section 5.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum MountStatus {
    /// Mounted.
    Ok = 0,
    /// Not owner.
    Perm = 1,
    /// No such directory.
    NoEnt = 2,
    /// I/O error, or S3 did not answer in time.
    Io = 5,
    /// Permission denied.
    Access = 13,
    /// Not a directory.
    NotDir = 20,
    /// No legal path.
    Inval = 22,
    /// A component over 255 bytes.
    NameTooLong = 63,
    /// Not supported.
    NotSupported = 10004,
    /// A failure on this side.
    ServerFault = 10006,
}

impl From<nfsstat3> for MountStatus {
    fn from(status: nfsstat3) -> MountStatus {
        use nfsstat3::*;
        match status {
            NFS3_OK => MountStatus::Ok,
            NFS3ERR_PERM => MountStatus::Perm,
            NFS3ERR_NOENT | NFS3ERR_STALE => MountStatus::NoEnt,
            NFS3ERR_ACCES => MountStatus::Access,
            NFS3ERR_NOTDIR => MountStatus::NotDir,
            NFS3ERR_INVAL => MountStatus::Inval,
            NFS3ERR_NAMETOOLONG => MountStatus::NameTooLong,
            NFS3ERR_NOTSUPP => MountStatus::NotSupported,
            // MOUNT has no "ask again": a client that gets an I/O error tells its user, who does.
            NFS3ERR_IO | NFS3ERR_NXIO | NFS3ERR_NODEV | NFS3ERR_JUKEBOX => MountStatus::Io,
            NFS3ERR_EXIST | NFS3ERR_XDEV | NFS3ERR_ISDIR | NFS3ERR_FBIG | NFS3ERR_NOSPC | NFS3ERR_ROFS
            | NFS3ERR_MLINK | NFS3ERR_NOTEMPTY | NFS3ERR_DQUOT | NFS3ERR_REMOTE | NFS3ERR_BADHANDLE
            | NFS3ERR_NOT_SYNC | NFS3ERR_BAD_COOKIE | NFS3ERR_TOOSMALL | NFS3ERR_SERVERFAULT | NFS3ERR_BADTYPE => {
                MountStatus::ServerFault
            }
        }
    }
}
