//! What is known of a client's tree: what was answered is certain, the one call without an answer may have been done or not.

use std::collections::BTreeMap;

use fasts3::s3server::Bucket;
use nfs3_client::nfs3_types::nfs3::stable_how;

use super::calls::top;

/// A tree as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    /// With everything that was answered.
    pub(super) sure: State,
    /// What was not answered.
    pub(super) doubt: Option<Op>,
}

impl Tree {
    /// Whether S3 has this and nothing else.
    pub(super) fn is_in(&self, bucket: &Bucket, n: usize) -> Result<(), String> {
        let prefix = format!("{}/", top(n));
        let keys: Vec<String> = bucket.keys().into_iter().filter(|key| key.starts_with(&prefix)).collect();
        for key in keys.iter().filter(|key| !key.ends_with('/')) {
            if !self.sure.0.contains_key(&key[prefix.len()..]) {
                return Err(format!("S3 has {key}, which nobody made"));
            }
        }
        for (path, entry) in &self.sure.0 {
            let key = format!("{prefix}{path}");
            match entry {
                Entry::Dir => {
                    let dir = format!("{}/", key.trim_end_matches('/'));
                    if !keys.iter().any(|key| key.starts_with(&dir)) {
                        return Err(format!("S3 lacks the directory {dir}"));
                    }
                }
                Entry::File { mode, versions } => {
                    let Some(stored) = bucket.get(&key) else { return Err(format!("S3 lacks {key}")) };
                    let told = stored.user.get("file-permissions");
                    if told != Some(&format!("{:07o}", 0o100_000 | mode)) {
                        return Err(format!("S3 has {told:?} as the mode of {key}, not {mode:o}"));
                    }
                    if !versions.iter().any(|version| stored.bytes[..] == version[..]) {
                        return Err(format!("S3 has other bytes of {key}"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Entries by their paths below the top of a client's tree; the top itself has the empty path.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State(pub(super) BTreeMap<String, Entry>);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    Dir,
    File {
        mode: u32,
        /// The bytes that are committed, and those after each WRITE since: each byte is of one of them.
        versions: Vec<Vec<u8>>,
    },
}

#[derive(Clone)]
pub(super) enum Op {
    Create(String, u32),
    Mkdir(String),
    Write(String, u64, Vec<u8>, stable_how),
    Commit(String),
    Rename(String, String),
    Remove(String),
    Rmdir(String),
    Chmod(String, u32),
    Resize(String, u64),
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Op::Create(path, mode) => write!(f, "create {path} {mode:o}"),
            Op::Mkdir(path) => write!(f, "mkdir {path:?}"),
            Op::Write(path, offset, data, stable) => {
                write!(f, "write {path} {offset}..{} {stable:?}", *offset as usize + data.len())
            }
            Op::Commit(path) => write!(f, "commit {path}"),
            Op::Rename(from, to) => write!(f, "rename {from} {to}"),
            Op::Remove(path) => write!(f, "remove {path}"),
            Op::Rmdir(path) => write!(f, "rmdir {path}"),
            Op::Chmod(path, mode) => write!(f, "chmod {path} {mode:o}"),
            Op::Resize(path, size) => write!(f, "resize {path} {size}"),
        }
    }
}

impl State {
    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(path, mode) => {
                self.0.insert(path.clone(), Entry::File { mode: *mode, versions: vec![Vec::new()] });
            }
            Op::Mkdir(path) => drop(self.0.insert(path.clone(), Entry::Dir)),
            Op::Remove(path) | Op::Rmdir(path) => drop(self.0.remove(path)),
            Op::Rename(from, to) => self.rename(from, to),
            Op::Write(path, offset, data, stable) => {
                let versions = self.versions(path);
                let mut next = versions.last().unwrap().clone();
                let end = *offset as usize + data.len();
                next.resize(next.len().max(end), 0);
                next[*offset as usize..end].copy_from_slice(data);
                versions.push(next);
                if *stable != stable_how::UNSTABLE {
                    self.commit(path);
                }
            }
            Op::Commit(path) => self.commit(path),
            Op::Chmod(path, to) => {
                if let Some(Entry::File { mode, .. }) = self.0.get_mut(path) {
                    *mode = *to;
                }
            }
            Op::Resize(path, size) => self.versions(path).iter_mut().for_each(|bytes| bytes.resize(*size as usize, 0)),
        }
    }

    /// As far as it had come: of a WRITE that was not answered, each byte may be there or not.
    pub(super) fn apply_partly(&mut self, op: &Op) {
        match op {
            Op::Write(path, offset, data, _) => {
                self.apply(&Op::Write(path.clone(), *offset, data.clone(), stable_how::UNSTABLE));
            }
            op => self.apply(op),
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let below = format!("{from}/");
        let moved: Vec<String> = self.0.keys().filter(|p| *p == from || p.starts_with(&below)).cloned().collect();
        for path in moved {
            let entry = self.0.remove(&path).unwrap();
            self.0.insert(format!("{to}{}", &path[from.len()..]), entry);
        }
    }

    fn versions(&mut self, path: &str) -> &mut Vec<Vec<u8>> {
        match self.0.get_mut(path) {
            Some(Entry::File { versions, .. }) => versions,
            other => panic!("{path} is no file: {other:?}"),
        }
    }

    fn commit(&mut self, path: &str) {
        let versions = self.versions(path);
        versions.drain(..versions.len() - 1);
    }

    /// Whether `found` is one of the states that this may have become.
    pub(super) fn fits(&self, found: &State) -> Result<(), String> {
        if let Some(path) = self.0.keys().find(|path| !found.0.contains_key(*path)) {
            return Err(format!("{path:?} is gone"));
        }
        for (path, entry) in &found.0 {
            match (self.0.get(path), entry) {
                (Some(Entry::Dir), Entry::Dir) => {}
                (Some(Entry::File { mode, versions }), Entry::File { mode: found_mode, versions: found }) => {
                    if mode != found_mode {
                        return Err(format!("{path:?} has mode {found_mode:o}, not {mode:o}"));
                    }
                    is_mixed_of(versions, &found[0]).map_err(|e| format!("{path:?}: {e}"))?;
                }
                (other, _) => return Err(format!("{path:?} is there, instead of {}", kind(other))),
            }
        }
        Ok(())
    }
}

fn kind(entry: Option<&Entry>) -> &'static str {
    match entry {
        None => "nothing",
        Some(Entry::Dir) => "a directory",
        Some(Entry::File { .. }) => "a file",
    }
}

/// Whether each byte, and the length, is of one of `versions`.
fn is_mixed_of(versions: &[Vec<u8>], found: &[u8]) -> Result<(), String> {
    if !versions.iter().any(|version| version.len() == found.len()) {
        let lengths: Vec<usize> = versions.iter().map(Vec::len).collect();
        return Err(format!("{} bytes, not {lengths:?}", found.len()));
    }
    // what was not written is zeros
    let is_known = |at: usize| versions.iter().any(|version| version.get(at).copied().unwrap_or(0) == found[at]);
    match (0..found.len()).find(|at| !is_known(*at)) {
        None => Ok(()),
        Some(at) => Err(format!("byte {at} of {} is of no version", found.len())),
    }
}
