//! From what the journal says of one inode to what is to be asked of S3. Pure: the table of all cases, and
//! nothing that waits.

use crate::index::{Kind, SetHere, Task};
use crate::types::{ETag, Ino, Key};

/// What is to be done for one inode, next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// S3 needs nothing of it.
    Nothing,
    /// It stays here, and S3 has nothing of it.
    Leave,
    /// It stays here from now on; what S3 has of it is to be removed.
    Localise,
    /// S3 can have no key like its path.
    TooLong,
    /// The version of this one is still at its key: it must leave first.
    WaitFor(Ino),
    /// Its bytes go to `key`.
    Put { key: Key, over: Over },
    /// The version that S3 has goes to `key` with the attributes of here.
    Copy { from: Version, key: Key, over: Over },
    /// Its entries get rows of their own, unless it is in its place again.
    Expand,
}

/// What S3 is expected to have where something is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing.
    Nothing,
    /// The version that the local change was made of.
    Own(ETag),
    /// The version of something that was removed here, or replaced.
    Replaced(ETag),
}

/// A version that S3 has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) key: Key,
    pub(super) etag: ETag,
    pub(super) size: u64,
}

/// What is to be done for `task`; `excluded`: its name says that it stays here.
pub(super) fn plan(task: &Task, excluded: bool) -> Action {
    let is_dir = task.node.kind == Kind::Dir;
    if excluded && !is_dir {
        return if task.node.remote.is_some() { Action::Localise } else { Action::Leave };
    }
    let Some(key) = task.key.clone() else { return Action::TooLong };
    if is_dir { plan_dir(task, key) } else { plan_file(task, key) }
}

fn plan_dir(task: &Task, key: Key) -> Action {
    if task.pending.place {
        return Action::Expand;
    }
    // an empty directory without a marker, or one with a mode of its own, would not be there for others (N3); nor
    // would what was set of one that may have a marker with something else
    let is_in_doubt = task.is_in_doubt || !task.node.attributes_known && task.pending.set != SetHere::NONE;
    let needs_marker = !(task.has_entries && task.has_default_attributes) || is_in_doubt;
    if key.is_empty() || (task.node.remote.is_none() && !needs_marker) {
        return Action::Nothing;
    }
    match over(task, &key) {
        Ok(over) => Action::Put { key, over },
        Err(other) => Action::WaitFor(other),
    }
}

fn plan_file(task: &Task, key: Key) -> Action {
    let over = match over(task, &key) {
        Ok(over) => over,
        Err(other) => return Action::WaitFor(other),
    };
    match version(task) {
        Some(from) if !task.pending.content => match from.key == key && !task.pending.attributes {
            // while the place of its directory is pending, nothing more is to be done for it alone
            true => in_the_way(task).map_or(Action::Nothing, Action::WaitFor),
            false => Action::Copy { from, key, over },
        },
        _ => Action::Put { key, over },
    }
}

/// The version of it that S3 has.
pub(super) fn version(task: &Task) -> Option<Version> {
    let (remote, key) = task.node.remote.as_ref().zip(task.remote_key.clone())?;
    Some(Version { key, etag: remote.etag.clone(), size: remote.size })
}

/// What S3 should have at `key`, or whose version must leave it first.
fn over(task: &Task, key: &Key) -> Result<Over, Ino> {
    if let Some(own) = version(task).filter(|own| own.key == *key) {
        return Ok(Over::Own(own.etag));
    }
    match (in_the_way(task), &task.in_the_way) {
        (Some(other), _) => Err(other),
        (None, Some(away)) => Ok(Over::Replaced(away.etag.clone())),
        (None, None) => Ok(Over::Nothing),
    }
}

/// Who must move before anything of `task` is written.
fn in_the_way(task: &Task) -> Option<Ino> {
    task.in_the_way.as_ref().and_then(|away| away.ino).filter(|other| *other != task.node.ino)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::index::{Away, Inode, Node, Pending, Remote};
    use crate::types::{Component, Time};

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn etag(text: &str) -> ETag {
        ETag::new(text)
    }

    /// A task: what is pending (`c`, `a`, `p`), where its version `"e"` is, if there is one.
    fn task(kind: Kind, pending: &str, path: &str, remote_key: Option<&str>) -> Task {
        let inode = Inode {
            ino: Ino(7),
            parent: Ino::ROOT,
            component: Component::from_bytes(b"f").unwrap(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            rdev: (0, 0),
            size: 3,
            atime: Time(0),
            mtime: Time(0),
            ctime: Time(0),
            remote: remote_key.map(|_| Remote { etag: etag("e"), size: 3, last_modified: Time(0) }),
            attributes_known: true,
            local: None,
            listed: true,
            staged: None,
            origin: None,
        };
        let has = |c| pending.contains(c);
        Task {
            node: Arc::new(Node { inode, freshness: Arc::default() }),
            pending: Pending {
                content: has('c'),
                attributes: has('a'),
                set: if has('s') { SetHere::ALL } else { SetHere::NONE },
                place: has('p'),
                since: Time(0),
                change: 1,
            },
            key: Some(key(path)),
            remote_key: remote_key.map(key),
            in_the_way: None,
            has_entries: true,
            has_default_attributes: true,
            is_in_doubt: false,
        }
    }

    fn blocked(mut task: Task, ino: Option<u64>) -> Task {
        task.in_the_way = Some(Away { etag: etag("old"), size: 1, ino: ino.map(Ino) });
        task
    }

    fn put(path: &str, over: Over) -> Action {
        Action::Put { key: key(path), over }
    }

    fn copy(from: &str, path: &str, over: Over) -> Action {
        Action::Copy { from: Version { key: key(from), etag: etag("e"), size: 3 }, key: key(path), over }
    }

    #[test]
    fn table_of_files() {
        let own = Over::Own(etag("e"));
        let replaced = Over::Replaced(etag("old"));
        let table = [
            ("a new file", task(Kind::File, "c", "f", None), put("f", Over::Nothing)),
            ("a changed file", task(Kind::File, "ca", "f", Some("f")), put("f", own.clone())),
            ("chmod", task(Kind::File, "a", "f", Some("f")), copy("f", "f", own.clone())),
            ("a move", task(Kind::File, "p", "f", Some("g")), copy("g", "f", Over::Nothing)),
            (
                "a move of a directory above",
                task(Kind::File, "a", "d/f", Some("o/f")),
                copy("o/f", "d/f", Over::Nothing),
            ),
            ("changed and moved", task(Kind::File, "cp", "f", Some("g")), put("f", Over::Nothing)),
            ("moved back meanwhile", task(Kind::File, "p", "f", Some("f")), Action::Nothing),
            (
                "moved back before its directory",
                blocked(task(Kind::File, "p", "d/f", Some("d/f")), Some(9)),
                Action::WaitFor(Ino(9)),
            ),
            ("renamed over", blocked(task(Kind::File, "c", "f", None), None), put("f", replaced.clone())),
            ("moved over", blocked(task(Kind::File, "p", "f", Some("g")), None), copy("g", "f", replaced)),
            ("blocked", blocked(task(Kind::File, "c", "f", None), Some(9)), Action::WaitFor(Ino(9))),
            ("blocked move", blocked(task(Kind::File, "p", "f", Some("g")), Some(9)), Action::WaitFor(Ino(9))),
            ("in its own way", blocked(task(Kind::File, "c", "f", Some("f")), Some(7)), put("f", own)),
            ("a link", task(Kind::Symlink, "c", "l", None), put("l", Over::Nothing)),
        ];
        for (what, task, wanted) in table {
            assert_eq!(plan(&task, false), wanted, "{what}");
        }
    }

    #[test]
    fn table_of_directories() {
        let empty = |mut task: Task| {
            task.has_entries = false;
            task
        };
        let own_mode = |mut task: Task| {
            task.has_default_attributes = false;
            task
        };
        let in_doubt = |task: Task| {
            let inode = Inode { attributes_known: false, ..task.node.inode.clone() };
            Task { node: Arc::new(Node { inode, freshness: Arc::default() }), ..task }
        };
        let table = [
            ("mkdir", empty(task(Kind::Dir, "c", "d/", None)), put("d/", Over::Nothing)),
            ("mkdir, filled since", task(Kind::Dir, "c", "d/", None), Action::Nothing),
            ("mkdir -m 700, filled", own_mode(task(Kind::Dir, "c", "d/", None)), put("d/", Over::Nothing)),
            ("chmod of an implied one", own_mode(task(Kind::Dir, "a", "d/", None)), put("d/", Over::Nothing)),
            ("chmod of what may have a marker", in_doubt(task(Kind::Dir, "cs", "d/", None)), put("d/", Over::Nothing)),
            ("implied, nothing set", in_doubt(task(Kind::Dir, "c", "d/", None)), Action::Nothing),
            ("chmod of a marker", task(Kind::Dir, "a", "d/", Some("d/")), put("d/", Over::Own(etag("e")))),
            ("renamed", task(Kind::Dir, "p", "d/", None), Action::Expand),
            ("renamed and changed", task(Kind::Dir, "cap", "d/", Some("old/")), Action::Expand),
            ("in its place again, which the index finds", task(Kind::Dir, "p", "d/", Some("d/")), Action::Expand),
            ("the root", own_mode(task(Kind::Dir, "a", "", None)), Action::Nothing),
            ("over a removed one", blocked(empty(task(Kind::Dir, "c", "d/", None)), None), {
                put("d/", Over::Replaced(etag("old")))
            }),
        ];
        for (what, task, wanted) in table {
            assert_eq!(plan(&task, false), wanted, "{what}");
        }
    }

    #[test]
    fn excluded_names_stay_here() {
        assert_eq!(plan(&task(Kind::File, "c", "f", None), true), Action::Leave);
        assert_eq!(plan(&task(Kind::File, "p", "f", Some("g")), true), Action::Localise);
        assert_eq!(plan(&task(Kind::Dir, "c", "d/", None), true), Action::Nothing);
        let mut long = task(Kind::File, "c", "f", None);
        long.key = None;
        assert_eq!(plan(&long, true), Action::Leave);
        assert_eq!(plan(&long, false), Action::TooLong);
    }
}
