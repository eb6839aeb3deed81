//! Who this cache directory is: the file system's uuid and the key that file handles are signed with.
//! Made once, at first use of the directory, and never changed: handles of before a restart stay good.
//! Owns: the file `identity`, three lines of text, mode 0600.
//! Invariant: the file is either absent or whole; it is made under another name, fsynced and renamed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use uuid::Uuid;

use super::dir::DirError;
use super::disk::sync_dir;

/// Version of the layout of the cache directory that this program writes.
pub const FORMAT: u32 = 1;

const TITLE: &str = "fasts3 cache directory, format ";

/// Who this cache directory is.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Names the file system; part of every handle.
    pub uuid: [u8; 16],
    /// Secret that handles are signed with.
    pub handle_key: [u8; 16],
}

impl Identity {
    /// Reads the identity of cache directory `dir`, or makes it.
    /// # Errors
    /// `Newer` when a newer program made the directory, `Damaged` when the file cannot be understood.
    pub fn load_or_create(dir: &Path) -> Result<Identity, DirError> {
        let path = dir.join("identity");
        let failed = |source| DirError::Io { path: path.clone(), source };
        match fs::read_to_string(&path) {
            Ok(text) => parse(&text, &path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let identity = Identity { uuid: *Uuid::new_v4().as_bytes(), handle_key: random_key() };
                write_new(dir, &path, &identity).map_err(failed)?;
                Ok(identity)
            }
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(DirError::Damaged { path }),
            Err(e) => Err(failed(e)),
        }
    }
}

impl std::fmt::Debug for Identity {
    /// The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", Uuid::from_bytes(self.uuid))
    }
}

/// 128 random bits: a v4 uuid has 122, so bytes 6 and 8, which carry its version, come from a second one.
fn random_key() -> [u8; 16] {
    let (mut key, spare) = (*Uuid::new_v4().as_bytes(), *Uuid::new_v4().as_bytes());
    (key[6], key[8]) = (spare[0], spare[1]);
    key
}

fn parse(text: &str, path: &Path) -> Result<Identity, DirError> {
    let damaged = || DirError::Damaged { path: path.to_path_buf() };
    let mut lines = text.lines();
    let format = lines.next().and_then(|l| l.strip_prefix(TITLE)).ok_or_else(damaged)?;
    let format: u32 = format.parse().map_err(|_| damaged())?;
    if format > FORMAT {
        return Err(DirError::Newer { path: path.to_path_buf(), found: format });
    }
    let mut field = |name: &str| {
        let value = lines.next().and_then(|l| l.strip_prefix(name)).ok_or_else(damaged)?;
        Uuid::try_parse(value.trim()).map(Uuid::into_bytes).map_err(|_| damaged())
    };
    Ok(Identity { uuid: field("uuid ")?, handle_key: field("key ")? })
}

fn write_new(dir: &Path, path: &Path, identity: &Identity) -> io::Result<()> {
    let draft = dir.join("identity.new");
    let uuid = Uuid::from_bytes(identity.uuid).simple();
    let key = Uuid::from_bytes(identity.handle_key).simple();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft)?;
    write!(file, "{TITLE}{FORMAT}\nuuid {uuid}\nkey {key}\n")?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_the_same_over_restarts_and_differs_between_directories() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Identity::load_or_create(a.path()).unwrap();
        assert_eq!(Identity::load_or_create(a.path()).unwrap(), first);
        let other = Identity::load_or_create(b.path()).unwrap();
        assert_ne!(other.uuid, first.uuid);
        assert_ne!(other.handle_key, first.handle_key);
    }

    #[test]
    fn newer_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        let text = format!("{TITLE}{}\nsomething new\n", FORMAT + 1);
        std::fs::write(&path, &text).unwrap();

        let refused = Identity::load_or_create(dir.path()).unwrap_err();

        assert!(matches!(refused, DirError::Newer { found, .. } if found == FORMAT + 1));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn damaged_file_is_an_error_and_not_a_new_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        Identity::load_or_create(dir.path()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for text in [&whole[..whole.len() / 2], b"", b"\xff\xfe", b"fasts3 cache directory, format x\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Identity::load_or_create(dir.path()), Err(DirError::Damaged { .. })), "{text:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path()).unwrap();
        let mode = std::fs::metadata(dir.path().join("identity")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
