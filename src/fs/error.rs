//! The table from what went wrong below to what an NFS client is told. No wildcard arm.

use std::io;

use nfsserve::nfs::nfsstat3;
use tracing::error;

use crate::index::IndexError;
use crate::revalidate::WaitError;
use crate::types::name::NameError;

/// What a client is told when the index fails.
pub(super) fn of_index(failure: IndexError) -> nfsstat3 {
    match &failure {
        // The client asks again, and finds the server that is started next.
        IndexError::Closed => nfsstat3::NFS3ERR_JUKEBOX,
        IndexError::Storage(redb) => match &**redb {
            redb::Error::Io(io) => of_os(io),
            _ => {
                error!(%failure, "index failed");
                nfsstat3::NFS3ERR_IO
            }
        },
        IndexError::Open(_) | IndexError::InUse => {
            error!(%failure, "index failed");
            nfsstat3::NFS3ERR_IO
        }
    }
}

/// What a client is told when `content` fails, which passes failures of the index through.
pub(super) fn of_io(failure: io::Error) -> nfsstat3 {
    match failure.get_ref().and_then(|inner| inner.downcast_ref::<IndexError>()) {
        Some(index) => of_index(index.clone()),
        None => of_os(&failure),
    }
}

fn of_os(failure: &io::Error) -> nfsstat3 {
    let status = match failure.kind() {
        io::ErrorKind::StorageFull => nfsstat3::NFS3ERR_NOSPC,
        io::ErrorKind::QuotaExceeded => nfsstat3::NFS3ERR_DQUOT,
        io::ErrorKind::FileTooLarge => nfsstat3::NFS3ERR_FBIG,
        // io::ErrorKind has kinds that are not for us to name
        _ => nfsstat3::NFS3ERR_IO,
    };
    error!(%failure, "the cache disk failed");
    status
}

/// What a client is told when its wait for S3 ended without what it asked for.
pub(super) fn of_wait(failure: WaitError) -> nfsstat3 {
    match failure {
        WaitError::Busy => nfsstat3::NFS3ERR_JUKEBOX,
        WaitError::Gone => nfsstat3::NFS3ERR_STALE,
        WaitError::NoSpace => nfsstat3::NFS3ERR_NOSPC,
        WaitError::Denied => nfsstat3::NFS3ERR_ACCES,
        WaitError::Failed => nfsstat3::NFS3ERR_IO,
    }
}

/// What a client is told about a name that cannot be.
pub(super) fn of_name(failure: NameError) -> nfsstat3 {
    match failure {
        NameError::Illegal => nfsstat3::NFS3ERR_INVAL,
        NameError::TooLong => nfsstat3::NFS3ERR_NAMETOOLONG,
    }
}
