//! Records of what `fasts3 mount` mounted: which server is behind a mount point, running or dead.
//! Owns: one small file a mount point, in `/run/fasts3` (root on Linux), `$XDG_RUNTIME_DIR/fasts3`, or the cache root.
//! Invariant: a record is there before its mount is, and goes after it. So no mount of ours is without one, and a record
//! without a mount means nothing: the mount table decides.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Entry, is_same_point, place};

/// The records of root on Linux, which everybody may read.
const SYSTEM: &str = "/run/fasts3";

/// A mount of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where.
    pub point: PathBuf,
    /// What, as the mount table has it.
    pub source: String,
    /// The server.
    pub server: SocketAddr,
    /// `s3://BUCKET[/PREFIX]`.
    pub bucket: String,
    /// The server's cache directory.
    pub cache: PathBuf,
}

impl Record {
    /// Writes the record, in one step.
    /// # Errors
    /// The directory of records cannot be written, or the mount point's name is not UTF-8.
    pub fn save(&self) -> io::Result<()> {
        self.save_in(&dir()?)
    }

    fn save_in(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer(&mut file, self)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        }
        file.persist(dir.join(file_name(&self.point))).map(drop).map_err(|e| e.error)
    }

    /// Removes the record, if it is still this one.
    pub fn forget(&self) {
        let Ok(dir) = dir() else { return };
        let path = dir.join(file_name(&self.point));
        if read(&path).as_ref() == Some(self) {
            let _ = fs::remove_file(path); // a record without a mount means nothing
        }
    }

    /// Whether `entry` of the mount table is the mount that this is about.
    pub fn is_of(&self, entry: &Entry) -> bool {
        let same_port = entry.port.is_none_or(|port| port == self.server.port());
        entry.is_nfs && entry.source == self.source && same_port && is_same_point(&entry.point, &self.point)
    }
}

/// The record of a mount point.
pub fn find(point: &Path) -> Option<Record> {
    dirs().iter().find_map(|dir| read(&dir.join(file_name(point)))).filter(|record| is_same_point(&record.point, point))
}

/// The record of the mount that `path` is in, and what of `path` is below its mount point.
pub fn containing(path: &Path) -> Option<(Record, PathBuf)> {
    let records = all();
    let spelled = std::path::absolute(path).ok()?;
    // what a link above the mount makes of it, without a look at the mount itself
    let above = || Some(spelled.parent()?.canonicalize().ok()?.join(spelled.file_name()?));
    in_one_of(&records, &spelled).or_else(|| in_one_of(&records, &above()?))
}

fn in_one_of(records: &[Record], path: &Path) -> Option<(Record, PathBuf)> {
    let within = records.iter().filter_map(|record| Some((record, path.strip_prefix(&record.point).ok()?)));
    let (record, below) = within.max_by_key(|(record, _)| record.point.as_os_str().len())?;
    Some((record.clone(), Path::new("/").join(below)))
}

/// All records.
pub fn all() -> Vec<Record> {
    let files = dirs().into_iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    files.filter(|file| file.path().extension().is_some_and(|e| e == "json")).filter_map(|f| read(&f.path())).collect()
}

fn read(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Where this user's records are.
fn dir() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") && place::is_root() {
        return Ok(SYSTEM.into());
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let dir = runtime.map(|dir| dir.join("fasts3")).or_else(|| Some(place::cache_root()?.join("mounts")));
    dir.ok_or_else(|| io::Error::other("neither XDG_RUNTIME_DIR nor HOME is set"))
}

/// Where records are looked for: this user's, and root's.
fn dirs() -> Vec<PathBuf> {
    let system = cfg!(target_os = "linux").then(|| PathBuf::from(SYSTEM));
    let mut dirs: Vec<PathBuf> = dir().into_iter().chain(system).collect();
    dirs.dedup();
    dirs
}

fn file_name(point: &Path) -> String {
    format!("{}.json", place::file_name(&point.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            point: "/mnt/a b".into(),
            source: "127.0.0.1:/media".into(),
            server: "127.0.0.1:4321".parse().unwrap(),
            bucket: "s3://media".into(),
            cache: "/var/cache/fasts3/media".into(),
        }
    }

    #[test]
    fn record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        record().save_in(dir.path()).unwrap();
        assert_eq!(read(&dir.path().join("%2Fmnt%2Fa%20b.json")), Some(record()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn path_belongs_to_the_innermost_mount() {
        let outer = Record { point: "/mnt".into(), ..record() };
        let records = [outer.clone(), record()];
        let found = |path: &str| in_one_of(&records, Path::new(path)).map(|(r, below)| (r.point, below));
        assert_eq!(found("/mnt/a b/c/d"), Some(("/mnt/a b".into(), "/c/d".into())));
        assert_eq!(found("/mnt/a b"), Some(("/mnt/a b".into(), "/".into())));
        assert_eq!(found("/mnt/a bc"), Some(("/mnt".into(), "/a bc".into())));
        assert_eq!(found("/home"), None);
    }

    #[test]
    fn other_mounts_are_not_ours() {
        let record = record();
        let ours = Entry {
            id: Some(1),
            source: record.source.clone(),
            point: record.point.clone(),
            port: Some(4321),
            is_nfs: true,
        };
        assert!(record.is_of(&ours) && record.is_of(&Entry { port: None, ..ours.clone() }));
        assert!(!record.is_of(&Entry { port: Some(2049), ..ours.clone() }), "another server's");
        assert!(!record.is_of(&Entry { source: "127.0.0.1:/".into(), ..ours.clone() }));
        assert!(!record.is_of(&Entry { is_nfs: false, ..ours.clone() }));
        assert!(!record.is_of(&Entry { point: "/mnt".into(), ..ours }));
    }
}
