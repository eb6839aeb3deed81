//! The operating system's part of the cache: room on the disk, the limit on open files, copies and holes inside of
//! files. The one place of `content` that is different on each OS.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::Path;

use super::Disk;
use crate::positioned::{read_at, read_exact_at, write_all_at};

/// 1 MiB: what is copied at a time.
const CHUNK_BYTES: u64 = 1 << 20;

/// Size and room of the file system that `path` is on.
#[cfg(unix)]
pub(super) fn space(path: &Path) -> io::Result<Disk> {
    let fs = rustix::fs::statvfs(path)?;
    let block = fs.f_frsize;
    Ok(Disk { total: fs.f_blocks.saturating_mul(block), available: fs.f_bavail.saturating_mul(block) })
}

/// Size and room of the file system that `path` is on.
#[cfg(windows)]
#[allow(unsafe_code)]
pub(super) fn space(path: &Path) -> io::Result<Disk> {
    use std::os::windows::ffi::OsStrExt;
    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetDiskFreeSpaceExW(dir: *const u16, available: *mut u64, total: *mut u64, free: *mut u64) -> i32;
    }
    let dir: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
    let (mut available, mut total) = (0u64, 0u64);
    // SAFETY: `dir` ends in NUL and outlives the call, the two results are valid for writes, and the
    // third may be null.
    let done = unsafe { GetDiskFreeSpaceExW(dir.as_ptr(), &mut available, &mut total, std::ptr::null_mut()) };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(Disk { total, available }) }
}

/// Size and room of the file system that `path` is on.
#[cfg(not(any(unix, windows)))]
pub(super) fn space(_path: &Path) -> io::Result<Disk> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Raises the soft limit on open files to the hard one; tells how many this process may have.
#[cfg(unix)]
pub(super) fn raise_open_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // macOS says "no limit" and refuses more than this
    const MOST: u64 = 10_240;
    let now = getrlimit(Resource::Nofile);
    let soft = now.current.unwrap_or(MOST);
    let wanted = if cfg!(target_os = "macos") { Some(now.maximum.map_or(MOST, |m| m.min(MOST))) } else { now.maximum };
    let raised = wanted.is_some_and(|w| w > soft)
        && setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: now.maximum }).is_ok();
    let limit = if raised { wanted.unwrap_or(soft) } else { soft };
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Windows has no such limit that matters here.
#[cfg(not(unix))]
pub(super) fn raise_open_files() -> usize {
    16_384
}

/// Gives the file `from` the second name `to`; where the file system has no links, a durable copy of it.
pub(super) fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {
            fs::copy(from, to)?;
            OpenOptions::new().write(true).open(to)?.sync_all()
        }
        other => other,
    }
}

/// Copies `range` of `from` to the same place in `to`; by reference, where the file system can.
/// # Errors
/// `UnexpectedEof` when `from` ends before.
pub(super) fn copy(from: &File, to: &File, range: Range<u64>) -> io::Result<()> {
    let mut at = copy_in_kernel(from, to, range.clone());
    while at < range.end {
        let mut chunk = vec![0; (range.end - at).min(CHUNK_BYTES) as usize];
        read_exact_at(from, &mut chunk, at)?;
        write_all_at(to, &chunk, at)?;
        at += chunk.len() as u64;
    }
    Ok(())
}

/// How far it came; an error shows again, and is told, when the rest is copied by hand.
#[cfg(target_os = "linux")]
fn copy_in_kernel(from: &File, to: &File, range: Range<u64>) -> u64 {
    let (mut here, mut there) = (range.start, range.start);
    while here < range.end {
        let left = usize::try_from(range.end - here).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut here), to, Some(&mut there), left) {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    there
}

#[cfg(not(target_os = "linux"))]
fn copy_in_kernel(_from: &File, _to: &File, range: Range<u64>) -> u64 {
    range.start
}

/// Makes `range` of `file` zeros, as far as the file goes; a hole, where the file system can.
pub(super) fn zero(file: &File, range: Range<u64>) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if range.is_empty() || fallocate(file, hole, range.start, range.end - range.start).is_ok() {
            return Ok(());
        }
    }
    let mut at = range.start;
    while at < range.end {
        let mut chunk = vec![0; (range.end - at).min(CHUNK_BYTES) as usize];
        let read = read_at(file, &mut chunk, at)?;
        // what is a hole already stays one
        if chunk.iter().any(|byte| *byte != 0) {
            chunk.fill(0);
            write_all_at(file, &chunk[..read], at)?;
        }
        if read < chunk.len() {
            break;
        }
        at += read as u64;
    }
    Ok(())
}

/// Has the kernel begin to write `range` of `file` to the disk, where it can be asked to. It makes nothing durable.
/// # Errors
/// What the disk says of it: the next sync need not say it again.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(super) fn begin_write_back(file: &File, range: Range<u64>) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let (Ok(offset), Ok(length)) = (range.start.try_into(), (range.end - range.start).try_into()) else {
        return Ok(());
    };
    // SAFETY: it takes no memory, and `file` is open for as long as it is borrowed.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // it was not begun: not by this kernel, not in this container, not on this file system, not now
            e if matches!(
                e.raw_os_error(),
                Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP | libc::EINTR)
            ) =>
            {
                Ok(())
            }
            e => Err(e),
        },
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn begin_write_back(_file: &File, _range: Range<u64>) -> io::Result<()> {
    Ok(())
}

/// Makes the names in `dir` durable, where the OS can.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_copied_to_their_place_and_no_further() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let bytes: Vec<u8> = (0..3 * CHUNK_BYTES).map(|n| n as u8).collect();
        write_all_at(&from, &bytes, 0).unwrap();
        let range = 100..2 * CHUNK_BYTES + 77;
        copy(&from, &to, range.clone()).unwrap();
        let mut copied = vec![1; range.end as usize];
        assert_eq!(to.metadata().unwrap().len(), range.end);
        read_exact_at(&to, &mut copied, 0).unwrap();
        assert!(copied[..100].iter().all(|b| *b == 0));
        assert_eq!(copied[100..], bytes[100..range.end as usize]);
        let short = copy(&from, &to, 0..3 * CHUNK_BYTES + 1).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn zeroed_range_is_zeros_and_the_rest_stays() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(&file, &[7; 10_000], 0).unwrap();
        zero(&file, 5..9_000).unwrap();
        zero(&file, 9_999..50_000).unwrap();
        let mut bytes = [1; 10_000];
        read_exact_at(&file, &mut bytes, 0).unwrap();
        assert!(bytes[5..9_000].iter().all(|b| *b == 0) && bytes[9_999] == 0);
        assert!(bytes[..5].iter().chain(&bytes[9_000..9_999]).all(|b| *b == 7));
        assert_eq!(file.metadata().unwrap().len(), 10_000);
    }

    #[test]
    fn write_back_leaves_bytes_and_size_alone_and_an_error_is_told() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(&file, &[7; 10_000], 0).unwrap();
        begin_write_back(&file, 0..1 << 40).unwrap();
        let mut bytes = [1; 10_000];
        read_exact_at(&file, &mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|b| *b == 7));
        assert_eq!(file.metadata().unwrap().len(), 10_000);
        #[cfg(target_os = "linux")]
        {
            let (read, _write) = io::pipe().unwrap();
            let pipe = File::from(std::os::fd::OwnedFd::from(read));
            assert_eq!(begin_write_back(&pipe, 0..1).unwrap_err().raw_os_error(), Some(libc::ESPIPE));
        }
    }

    #[test]
    fn disk_has_room_and_no_more_than_its_size() {
        let disk = space(&std::env::temp_dir()).unwrap();
        assert!(disk.total > 0);
        assert!(disk.available <= disk.total);
    }

    #[test]
    fn some_hundred_files_may_be_open() {
        assert!(raise_open_files() >= 256);
    }
}
