//! Reads and writes at an offset, which Unix and Windows spell differently. They move no shared position,
//! so any number of tasks may use one open file. They block on the disk, but for `read_resident`.

use std::fs::File;
use std::io;

/// Fills `buf` from `file` at `offset` (bytes).
/// # Errors
/// `UnexpectedEof` when the file ends before.
pub fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    match read_at(file, buf, offset)? {
        n if n == buf.len() => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads at `offset` (bytes) as much as there is, at most what `buf` holds.
/// # Errors
/// What the OS says.
pub fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match read_some(file, &mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Writes all of `bytes` at `offset` (bytes).
/// # Errors
/// What the OS says; how much was written is then unknown.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match write_some(file, &bytes[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Fills `buf` without waiting for a disk; false when not all of it is in memory (or in the file).
/// # Errors
/// What the OS says.
#[cfg(target_os = "linux")]
pub fn read_resident(file: &File, buf: &mut [u8], offset: u64) -> io::Result<bool> {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    /// Set once a kernel or file system without RWF_NOWAIT was met: then what is in memory cannot be told, and
    /// everything is taken to be.
    static CANNOT_TELL: AtomicBool = AtomicBool::new(false);

    if CANNOT_TELL.load(Ordering::Relaxed) {
        return read_exact_at(file, buf, offset).map(|()| true);
    }
    let len = buf.len();
    match preadv2(file, &mut [io::IoSliceMut::new(buf)], offset, ReadWriteFlags::NOWAIT) {
        Ok(n) => Ok(n == len),
        Err(Errno::AGAIN | Errno::INTR) => Ok(false),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            CANNOT_TELL.store(true, Ordering::Relaxed);
            read_exact_at(file, buf, offset).map(|()| true)
        }
        Err(e) => Err(e.into()),
    }
}

/// Fills `buf`; what is in memory cannot be told, and a small read of a local disk is short.
/// # Errors
/// What the OS says.
#[cfg(not(target_os = "linux"))]
pub fn read_resident(file: &File, buf: &mut [u8], offset: u64) -> io::Result<bool> {
    read_exact_at(file, buf, offset).map(|()| true)
}

#[cfg(unix)]
use std::os::unix::fs::FileExt;

#[cfg(unix)]
fn read_some(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(buf, offset)
}

#[cfg(unix)]
fn write_some(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    file.write_at(bytes, offset)
}

#[cfg(windows)]
use std::os::windows::fs::FileExt;

#[cfg(windows)]
fn read_some(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    file.seek_read(buf, offset)
}

#[cfg(windows)]
fn write_some(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    file.seek_write(bytes, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_written_at_an_offset_are_read_there() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(&file, b"hello", 1000).unwrap();
        let mut all = [1; 1005];
        read_exact_at(&file, &mut all, 0).unwrap();
        assert_eq!(&all[1000..], b"hello");
        assert!(all[..1000].iter().all(|b| *b == 0), "a hole reads as zeros");
        assert_eq!(read_at(&file, &mut [0; 9], 1002).unwrap(), 3);
        let short = read_exact_at(&file, &mut [0; 9], 1002).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }
}
