//! The operating system's part of the cache: room on the disk, the limit on open files. The one place of
//! `content` that is different on each OS.

use std::io;
use std::path::Path;

use super::Disk;

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

#[cfg(test)]
mod tests {
    use super::*;

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
