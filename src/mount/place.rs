//! Places: where the cache of a bucket is unless somebody says otherwise, and which directory a mount point means.
//! Invariant: two different buckets, prefixes or S3 servers never have the same default cache.

use std::hash::Hasher;
use std::io;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use siphasher::sip::SipHasher13;

use super::{Entry, windows};

/// Where the caches of this user are: `~/.cache/fasts3` and what corresponds to it; `/var/cache/fasts3` of root on Linux.
pub fn cache_root() -> Option<PathBuf> {
    cache_root_of(std::env::consts::OS, is_root(), |name| std::env::var_os(name).map(PathBuf::from))
}

fn cache_root_of(os: &str, is_root: bool, env: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let env = |name| env(name).filter(|path| !path.as_os_str().is_empty());
    let root = match os {
        "windows" => env("LOCALAPPDATA"),
        "macos" => env("XDG_CACHE_HOME").or_else(|| Some(env("HOME")?.join("Library/Caches"))),
        _ => env("XDG_CACHE_HOME").or_else(|| match is_root {
            true => Some("/var/cache".into()),
            false => Some(env("HOME")?.join(".cache")),
        }),
    };
    Some(root?.join("fasts3"))
}

/// Whether this process is the superuser's.
pub(super) fn is_root() -> bool {
    #[cfg(unix)]
    return rustix::process::geteuid().is_root();
    #[cfg(not(unix))]
    false
}

/// The default cache of a bucket, in `cache_root`.
pub fn cache_name(bucket: &str, prefix: &str, endpoint: Option<&str>) -> String {
    let prefix = prefix.trim_end_matches('/');
    let slash = if prefix.is_empty() { "" } else { "/" };
    let at = endpoint.map(|url| format!("@{}", url.trim_end_matches('/'))).unwrap_or_default();
    file_name(&format!("{bucket}{slash}{prefix}{at}"))
}

/// All that may stand in a file name on every system.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'@');
/// Leaves room for an extension in the 255 bytes of a name.
const LONGEST_NAME: usize = 200;

/// A file name for `text`: readable where it is short, and different for different texts.
pub(super) fn file_name(text: &str) -> String {
    let name = percent_encode(text.as_bytes(), PLAIN).to_string();
    if name.len() <= LONGEST_NAME {
        return name;
    }
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    // "%~" is no escape, so that no short name looks like it
    format!("{}%~{:016x}", &name[..LONGEST_NAME], hasher.finish())
}

/// Symlinks followed from a mount point: as many as the kernel would.
const MOST_LINKS: usize = 40;

/// The absolute path that `point` means, without a look at what may be mounted there.
/// # Errors
/// The directory that `point` is in is not there, or cannot be searched.
pub fn resolve(point: &Path, table: &[Entry]) -> io::Result<PathBuf> {
    if cfg!(windows) {
        return Ok(drive(point));
    }
    let mut point: PathBuf = std::path::absolute(point)?.components().collect();
    for _ in 0..MOST_LINKS {
        let (Some(dir), Some(name)) = (point.parent(), point.file_name()) else { return point.canonicalize() };
        let place = dir.canonicalize()?.join(name);
        if table.iter().any(|entry| entry.point == place) {
            return Ok(place);
        }
        match place.read_link() {
            Ok(target) => point = place.parent().unwrap_or(&place).join(target),
            Err(_) => return Ok(place),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

/// `x:` as `X:`.
fn drive(point: &Path) -> PathBuf {
    if windows::is_drive(point) { point.as_os_str().to_ascii_uppercase().into() } else { point.into() }
}

/// Why nothing can be mounted at a place.
#[derive(Debug, thiserror::Error)]
pub enum PointError {
    /// It is not there.
    #[error("the mount point {0} does not exist: make it with mkdir")]
    Missing(String),
    /// It is a file.
    #[error("the mount point {0} is not a directory")]
    NoDirectory(String),
    /// Windows mounts on drives.
    #[error("the mount point {0} is not a drive letter, as in X:")]
    NoDrive(String),
    /// The OS refused.
    #[error("cannot use the mount point {0}: {1}")]
    Io(String, #[source] io::Error),
}

/// Checks a place where nothing is mounted. Whether it is empty: what is in it is hidden while something is mounted there.
pub fn check(point: &Path) -> Result<bool, PointError> {
    let shown = || point.display().to_string();
    if cfg!(windows) {
        return if windows::is_drive(point) { Ok(true) } else { Err(PointError::NoDrive(shown())) };
    }
    match point.read_dir() {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => PointError::Missing(shown()),
            io::ErrorKind::NotADirectory => PointError::NoDirectory(shown()),
            // who may not list it may still mount on it
            io::ErrorKind::PermissionDenied if point.is_dir() => return Ok(true),
            _ => PointError::Io(shown(), error),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_has_its_own_place_for_caches() {
        let env = |name: &str| match name {
            "HOME" => Some("/home/me".into()),
            "LOCALAPPDATA" => Some("/local".into()),
            "XDG_CACHE_HOME" => Some("".into()),
            _ => None,
        };
        let root = |os, is_root| cache_root_of(os, is_root, env).unwrap();
        assert_eq!(root("linux", false), Path::new("/home/me/.cache/fasts3"));
        assert_eq!(root("linux", true), Path::new("/var/cache/fasts3"));
        assert_eq!(root("macos", false), Path::new("/home/me/Library/Caches/fasts3"));
        assert_eq!(root("windows", false), Path::new("/local/fasts3"));
        let xdg = |name: &str| (name == "XDG_CACHE_HOME").then(|| "/xdg".into());
        assert_eq!(cache_root_of("linux", true, xdg).unwrap(), Path::new("/xdg/fasts3"));
        assert_eq!(cache_root_of("linux", false, |_| None), None);
    }

    #[test]
    fn caches_are_named_for_what_they_hold_and_never_shared() {
        assert_eq!(cache_name("media", "", None), "media");
        assert_eq!(cache_name("media", "a b/c/", None), "media%2Fa%20b%2Fc");
        assert_eq!(cache_name("media", "", Some("http://minio:9000/")), "media@http%3A%2F%2Fminio%3A9000");
        let (long, longer) = ("x/".repeat(300), format!("{}y/", "x/".repeat(300)));
        let names = [cache_name("media", &long, None), cache_name("media", &longer, None)];
        assert!(names[0] != names[1] && names.iter().all(|name| name.len() < 255), "{names:?}");
    }

    #[cfg(unix)]
    #[test]
    fn mount_point_is_resolved_without_a_look_at_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a/b", root.join("link")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        for path in ["a/b", "a/./b/", "a/b/../b", "link"] {
            assert_eq!(resolve(&root.join(path), &[]).unwrap(), root.join("a/b"), "{path}");
        }
        assert_eq!(resolve(&root.join("a/new"), &[]).unwrap(), root.join("a/new"), "missing is for `check`");
        assert!(resolve(&root.join("no/b"), &[]).is_err() && resolve(&root.join("loop"), &[]).is_err());
        // something mounted on a link's name: what is below the mount is not asked
        let table = [Entry { id: None, source: "x:/".into(), point: root.join("link"), port: None, is_nfs: true }];
        assert_eq!(resolve(&root.join("link"), &table).unwrap(), root.join("link"));
        assert!(resolve(Path::new("src"), &[]).unwrap().is_absolute());
    }

    #[cfg(unix)]
    #[test]
    fn mount_point_must_be_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check(dir.path()).unwrap());
        std::fs::write(dir.path().join("file"), "x").unwrap();
        assert!(!check(dir.path()).unwrap(), "not empty");
        let said = |name: &str| check(&dir.path().join(name)).unwrap_err().to_string();
        assert!(said("file").contains("not a directory") && said("none").contains("mkdir"));
    }
}
