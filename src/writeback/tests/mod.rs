//! The drain against the real index, the real staging files and an S3 in this process.
#![allow(clippy::unwrap_used)]

use crate::index::{Inode, Kind};
use crate::types::{Component, Ino, Time};

/// A file of nobody in particular.
pub(super) fn some_inode() -> Inode {
    Inode {
        ino: Ino(7),
        parent: Ino::ROOT,
        component: Component::from_bytes(b"f").unwrap(),
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        rdev: (0, 0),
        size: 3,
        atime: Time(0),
        mtime: Time(0),
        ctime: Time(0),
        remote: None,
        attributes_known: true,
        local: None,
        listed: true,
        staged: None,
        origin: None,
    }
}
