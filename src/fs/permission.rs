//! Who may do what: mode bits against the caller's AUTH_SYS identity, and ACCESS (RFC 1813 section 3.3.4).
//! As a local file system does it, but for two rules every NFS server has, because a client checks at
//! open and the server at every call: an owner may always read, and what may be executed may be read.

use crate::index::{Kind, Node};
use crate::rpc::Credentials;

/// Permission to read.
pub(super) const READ: u32 = 4;
/// Permission to execute, or to look up in a directory.
pub(super) const EXECUTE: u32 = 1;

const ACCESS3_READ: u32 = 0x01;
const ACCESS3_LOOKUP: u32 = 0x02;
const ACCESS3_EXECUTE: u32 = 0x20;

/// Whether `caller` has all of `wanted` (`READ | EXECUTE`) on `node`.
pub(super) fn allows(node: &Node, caller: &Credentials, wanted: u32) -> bool {
    granted_bits(node, caller) & wanted == wanted
}

/// Whether `caller` may read the bytes of `node`.
pub(super) fn may_read_data(node: &Node, caller: &Credentials) -> bool {
    caller.uid == node.uid || granted_bits(node, caller) & (READ | EXECUTE) != 0
}

/// The ACCESS3_* bits of `wanted` that `caller` has on `node`. None of the changing ones: the export is
/// read-only.
pub(super) fn access(node: &Node, caller: &Credentials, wanted: u32) -> u32 {
    let bits = granted_bits(node, caller);
    let mut granted = 0;
    if bits & READ != 0 {
        granted |= ACCESS3_READ;
    }
    if bits & EXECUTE != 0 {
        granted |= if node.kind == Kind::Dir { ACCESS3_LOOKUP } else { ACCESS3_EXECUTE };
    }
    granted & wanted
}

/// The `rwx` triple that applies to `caller`.
fn granted_bits(node: &Node, caller: &Credentials) -> u32 {
    if caller.uid == 0 {
        // The superuser executes what anybody may execute.
        let may_execute = node.kind == Kind::Dir || node.mode & 0o111 != 0;
        return if may_execute { 7 } else { 6 };
    }
    if caller.uid == node.uid {
        return node.mode >> 6 & 7;
    }
    if caller.gid == node.gid || caller.gids.contains(&node.gid) {
        return node.mode >> 3 & 7;
    }
    node.mode & 7
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::*;
    use crate::fs::tests::node;

    fn who(uid: u32, gid: u32, gids: &[u32]) -> Credentials {
        Credentials { uid, gid, gids: SmallVec::from_slice(gids) }
    }

    #[test]
    fn exactly_one_triple_applies() {
        let file = node(Kind::File, 0o470, 10, 20);
        // The owner has r--, although the group has rwx: the first match decides.
        assert!(allows(&file, &who(10, 20, &[]), READ));
        assert!(!allows(&file, &who(10, 20, &[]), EXECUTE));
        assert!(allows(&file, &who(11, 20, &[]), READ | EXECUTE));
        assert!(allows(&file, &who(11, 99, &[1, 20]), READ | EXECUTE));
        assert!(!allows(&file, &who(11, 99, &[1]), READ));
    }

    #[test]
    fn the_superuser_executes_only_what_anybody_may() {
        let root = who(0, 0, &[]);
        assert!(!allows(&node(Kind::File, 0o600, 10, 20), &root, EXECUTE));
        assert!(allows(&node(Kind::File, 0o601, 10, 20), &root, EXECUTE));
        assert!(allows(&node(Kind::Dir, 0o000, 10, 20), &root, READ | EXECUTE));
    }

    #[test]
    fn access_tells_lookup_for_directories_and_execute_for_files() {
        let anyone = who(1, 1, &[]);
        assert_eq!(access(&node(Kind::Dir, 0o755, 0, 0), &anyone, 0x3f), ACCESS3_READ | ACCESS3_LOOKUP);
        assert_eq!(access(&node(Kind::File, 0o755, 0, 0), &anyone, 0x3f), ACCESS3_READ | ACCESS3_EXECUTE);
        assert_eq!(access(&node(Kind::File, 0o644, 0, 0), &anyone, 0x3f), ACCESS3_READ);
        assert_eq!(access(&node(Kind::File, 0o644, 0, 0), &anyone, ACCESS3_EXECUTE), 0);
    }

    #[test]
    fn nothing_that_changes_is_granted_on_a_read_only_export() {
        let owner = who(0, 0, &[]);
        assert_eq!(access(&node(Kind::Dir, 0o777, 0, 0), &owner, 0x04 | 0x08 | 0x10), 0);
    }

    #[test]
    fn an_owner_and_whoever_may_execute_may_read_the_bytes() {
        assert!(may_read_data(&node(Kind::File, 0o000, 10, 20), &who(10, 1, &[])));
        assert!(may_read_data(&node(Kind::File, 0o001, 10, 20), &who(11, 1, &[])));
        assert!(!may_read_data(&node(Kind::File, 0o660, 10, 20), &who(11, 1, &[])));
    }
}
