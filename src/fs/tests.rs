//! What the unit tests of the file system share.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::index::{Inode, Kind, Node};
use crate::rpc::Credentials;
use crate::types::{Component, Ino, Time};

/// A node that is in no index.
pub(super) fn node(kind: Kind, mode: u32, uid: u32, gid: u32) -> Node {
    let inode = Inode {
        ino: Ino(99),
        parent: Ino::ROOT,
        component: Component::from_bytes(b"name").expect("a legal component"),
        kind,
        mode,
        uid,
        gid,
        rdev: (0, 0),
        size: 0,
        atime: Time(0),
        mtime: Time(0),
        ctime: Time(0),
        remote: None,
        attributes_known: true,
        local: None,
        listed: false,
        staged: None,
        origin: None,
    };
    Node { inode, freshness: Arc::default() }
}

/// A caller.
pub(super) fn who(uid: u32, gid: u32, gids: &[u32]) -> Credentials {
    Credentials { uid, gid, gids: SmallVec::from_slice(gids) }
}
