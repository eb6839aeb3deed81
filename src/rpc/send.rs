//! What the operating systems do differently: sending with "more follows", files to sockets, and reading a
//! file only as far as it is in memory already. The portable halves are the meaning, Linux is the fast way.
//! Invariant: nothing here waits for a disk but `read_blocking`, where the OS can tell.

use std::io;

use bytes::Bytes;

use super::FileRange;
use crate::positioned::read_exact_at;

pub(super) use os::{is_resident, send, send_file};

pub(super) use crate::positioned::read_resident;

/// Reads a whole range, waiting for the disk: for the blocking pool.
/// # Errors
/// `UnexpectedEof`: the file is shorter than was promised.
pub(super) fn read_blocking(range: &FileRange) -> io::Result<Bytes> {
    let mut bytes = vec![0; range.len as usize];
    read_exact_at(&range.file, &mut bytes, range.offset)?;
    Ok(bytes.into())
}

#[cfg(target_os = "linux")]
mod os {
    use std::io;

    use rustix::net::SendFlags;
    use tokio::net::TcpStream;

    use super::*;

    /// The smallest page of any architecture; probing too finely is harmless.
    const PAGE: u64 = 4096;

    /// Sends from `buf`. `more`: do not push the last partial segment out, more follows at once.
    pub(in super::super) fn send(stream: &TcpStream, buf: &[u8], more: bool) -> io::Result<usize> {
        let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        Ok(rustix::net::send(stream, buf, flags)?)
    }

    /// Sends from the front of `range` and shortens it. Zero: the file ends before the range does.
    pub(in super::super) fn send_file(stream: &TcpStream, range: &mut FileRange) -> io::Result<usize> {
        let n = rustix::fs::sendfile(stream, &*range.file, Some(&mut range.offset), range.len as usize)?;
        range.len -= u32::try_from(n).expect("no more than was asked for");
        Ok(n)
    }

    /// Whether `send_file` will hardly wait for a disk. Its first and last page are tried: an object comes into
    /// memory, and is dropped, in whole runs, so a hole between two resident ends is rare, and then costs
    /// one wait and no wrong byte.
    pub(in super::super) fn is_resident(range: &FileRange) -> bool {
        let last = range.offset + u64::from(range.len.max(1)) - 1;
        let mut probe = [0];
        let mut try_at = |at| matches!(read_resident(&range.file, &mut probe, at), Ok(true));
        try_at(range.offset) && (last / PAGE == range.offset / PAGE || try_at(last))
    }
}

#[cfg(not(target_os = "linux"))]
mod os {
    use std::io;

    use tokio::net::TcpStream;

    use super::*;

    /// Sends from `buf`; `more` has no counterpart here.
    pub(in super::super) fn send(stream: &TcpStream, buf: &[u8], _more: bool) -> io::Result<usize> {
        use std::io::Write;
        (&*socket2::SockRef::from(stream)).write(buf)
    }

    /// Never called: no range is resident.
    pub(in super::super) fn send_file(_stream: &TcpStream, _range: &mut FileRange) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Large ranges are always read on the blocking pool.
    pub(in super::super) fn is_resident(_range: &FileRange) -> bool {
        false
    }
}
