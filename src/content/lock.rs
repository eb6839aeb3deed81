//! One server a cache directory: an exclusive lock on the file `lock`, which the kernel lets go when
//! the process ends, however it ends.
//! Owns: the file `lock`, which holds the holder's process id for whoever is turned away.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use super::dir::DirError;

/// The lock; held while this value lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of cache directory `dir`, without waiting.
    /// # Errors
    /// `InUse` when another process has it.
    pub(super) fn acquire(dir: &Path) -> Result<Lock, DirError> {
        let path = dir.join("lock");
        let failed = |source| DirError::Io { path: path.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DirError::InUse { dir: dir.to_path_buf(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        write_pid(&mut file).map_err(failed)?;
        Ok(Lock { _file: file })
    }
}

/// Who holds it, as far as the file tells (Windows lets nobody read a locked file).
fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    match file.take(20).read_to_string(&mut pid) {
        Ok(_) if pid.trim().parse::<u32>().is_ok() => format!("process {}", pid.trim()),
        _ => "another process".to_owned(),
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_server_is_turned_away_and_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::acquire(dir.path()).unwrap();

        let refused = Lock::acquire(dir.path()).unwrap_err();

        assert!(matches!(refused, DirError::InUse { .. }));
        let line = refused.to_string();
        assert!(!line.contains('\n'));
        if cfg!(unix) {
            assert!(line.contains(&format!("process {}", std::process::id())), "{line}");
        }
        drop(first);
        Lock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn shorter_pid_leaves_nothing_of_the_last_holder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lock"), "4294967295123\n").unwrap();
        drop(Lock::acquire(dir.path()).unwrap());
        let text = std::fs::read_to_string(dir.path().join("lock")).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }
}
