//! Who may do what: mode bits against the caller's AUTH_SYS identity, and ACCESS (RFC 1813 section 3.3.4).
//! As a local file system does it, but for two rules every NFS server has, because a client checks at
//! open and the server at every call: an owner may always read and write, and what may be executed may be read.

use nfsserve::nfs::nfsstat3;

use crate::index::{Inode, Kind};
use crate::rpc::Credentials;

/// Permission to read.
pub(super) const READ: u32 = 4;
/// Permission to write, or to change a directory's entries.
pub(super) const WRITE: u32 = 2;
/// Permission to execute, or to look up in a directory.
pub(super) const EXECUTE: u32 = 1;

/// Set user id, set group id, and "only owners may remove entries".
pub(super) const SETUID: u32 = 0o4000;
/// Set group id; of a directory: entries take its group.
pub(super) const SETGID: u32 = 0o2000;
/// Of a directory: only owners may remove entries.
pub(super) const STICKY: u32 = 0o1000;
/// What a mode has of permissions and these three.
pub(super) const MODE_BITS: u32 = 0o7777;

const ACCESS3_READ: u32 = 0x01;
const ACCESS3_LOOKUP: u32 = 0x02;
const ACCESS3_MODIFY: u32 = 0x04;
const ACCESS3_EXTEND: u32 = 0x08;
const ACCESS3_DELETE: u32 = 0x10;
const ACCESS3_EXECUTE: u32 = 0x20;

/// Whether `caller` has all of `wanted` (`READ | WRITE | EXECUTE`) on `inode`.
pub(super) fn allows(inode: &Inode, caller: &Credentials, wanted: u32) -> bool {
    granted_bits(inode, caller) & wanted == wanted
}

/// Whether `caller` may read the bytes of `inode`.
pub(super) fn may_read_data(inode: &Inode, caller: &Credentials) -> bool {
    caller.uid == inode.uid || granted_bits(inode, caller) & (READ | EXECUTE) != 0
}

/// Whether `caller` may write to `inode`, or cut it.
pub(super) fn may_write_data(inode: &Inode, caller: &Credentials) -> bool {
    caller.uid == inode.uid || allows(inode, caller, WRITE)
}

/// Whether `caller` may do what only owners may.
pub(super) fn owns(inode: &Inode, caller: &Credentials) -> bool {
    caller.uid == 0 || caller.uid == inode.uid
}

/// Whether `caller` is in `group`.
pub(super) fn is_in_group(caller: &Credentials, group: u32) -> bool {
    caller.gid == group || caller.gids.contains(&group)
}

/// That `caller` may add entries to `dir`, or take some away.
/// # Errors
/// ACCES.
pub(super) fn may_change_entries(dir: &Inode, caller: &Credentials) -> Result<(), nfsstat3> {
    if allows(dir, caller, WRITE | EXECUTE) { Ok(()) } else { Err(nfsstat3::NFS3ERR_ACCES) }
}

/// That `caller` may take `entry` away from `dir`: also what a sticky directory asks for.
/// # Errors
/// ACCES, PERM.
pub(super) fn may_take(dir: &Inode, entry: &Inode, caller: &Credentials) -> Result<(), nfsstat3> {
    may_change_entries(dir, caller)?;
    if dir.mode & STICKY != 0 && !owns(dir, caller) && !owns(entry, caller) {
        return Err(nfsstat3::NFS3ERR_PERM);
    }
    Ok(())
}

/// The mode of a file after its bytes were changed by `caller`: who is not the superuser leaves no program behind
/// that runs as another.
pub(super) fn mode_after_write(inode: &Inode, caller: &Credentials) -> u32 {
    if caller.uid == 0 { inode.mode } else { without_privileges(inode.mode) }
}

/// The mode without set user id, and without set group id where that is not a mark for locking.
pub(super) fn without_privileges(mode: u32) -> u32 {
    let is_program_of_group = mode & 0o010 != 0;
    mode & !(SETUID | if is_program_of_group { SETGID } else { 0 })
}

/// The ACCESS3_* bits of `wanted` that `caller` has on `inode`.
pub(super) fn access(inode: &Inode, caller: &Credentials, wanted: u32) -> u32 {
    let bits = granted_bits(inode, caller);
    let is_dir = inode.kind == Kind::Dir;
    let mut granted = 0;
    if bits & READ != 0 {
        granted |= ACCESS3_READ;
    }
    if bits & WRITE != 0 {
        granted |= ACCESS3_MODIFY | ACCESS3_EXTEND | if is_dir { ACCESS3_DELETE } else { 0 };
    }
    if bits & EXECUTE != 0 {
        granted |= if is_dir { ACCESS3_LOOKUP } else { ACCESS3_EXECUTE };
    }
    granted & wanted
}

/// The ACCESS3_* bits that a read-only export can grant.
pub(super) fn without_changes(granted: u32) -> u32 {
    granted & !(ACCESS3_MODIFY | ACCESS3_EXTEND | ACCESS3_DELETE)
}

/// The `rwx` triple that applies to `caller`.
fn granted_bits(inode: &Inode, caller: &Credentials) -> u32 {
    if caller.uid == 0 {
        // The superuser executes what anybody may execute.
        let may_execute = inode.kind == Kind::Dir || inode.mode & 0o111 != 0;
        return if may_execute { 7 } else { 6 };
    }
    if caller.uid == inode.uid {
        return inode.mode >> 6 & 7;
    }
    if is_in_group(caller, inode.gid) {
        return inode.mode >> 3 & 7;
    }
    inode.mode & 7
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tests::{node, who};

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
    fn access_to_change_goes_by_the_write_bit_and_entries_go_only_from_directories() {
        let changes = ACCESS3_MODIFY | ACCESS3_EXTEND | ACCESS3_DELETE;
        let (owner, other) = (who(10, 20, &[]), who(11, 21, &[]));
        assert_eq!(access(&node(Kind::File, 0o644, 10, 20), &owner, changes), ACCESS3_MODIFY | ACCESS3_EXTEND);
        assert_eq!(access(&node(Kind::Dir, 0o755, 10, 20), &owner, changes), changes);
        assert_eq!(access(&node(Kind::Dir, 0o755, 10, 20), &other, changes), 0);
        assert_eq!(access(&node(Kind::File, 0o444, 10, 20), &owner, changes), 0);
        assert_eq!(access(&node(Kind::Dir, 0o000, 10, 20), &who(0, 0, &[]), changes), changes);
    }

    #[test]
    fn nothing_that_changes_is_granted_on_a_read_only_export() {
        let granted = access(&node(Kind::Dir, 0o777, 0, 0), &who(0, 0, &[]), 0x3f);
        assert_eq!(without_changes(granted), ACCESS3_READ | ACCESS3_LOOKUP);
    }

    #[test]
    fn an_owner_may_write_what_was_opened_before_it_was_protected() {
        assert!(may_write_data(&node(Kind::File, 0o444, 10, 20), &who(10, 20, &[])));
        assert!(!may_write_data(&node(Kind::File, 0o644, 10, 20), &who(11, 20, &[])));
        assert!(may_write_data(&node(Kind::File, 0o664, 10, 20), &who(11, 20, &[])));
    }

    #[test]
    fn entries_change_only_with_write_and_search_permission() {
        let other = who(11, 21, &[]);
        for (mode, allowed) in [(0o757, true), (0o755, false), (0o756, false), (0o753, true)] {
            assert_eq!(may_change_entries(&node(Kind::Dir, mode, 10, 20), &other).is_ok(), allowed, "{mode:o}");
        }
    }

    #[test]
    fn sticky_directory_lets_only_owners_take_entries() {
        let dir = node(Kind::Dir, 0o1777, 10, 10);
        let file = node(Kind::File, 0o666, 11, 11);
        for (uid, allowed) in [(0, true), (10, true), (11, true), (12, false)] {
            let taken = may_take(&dir, &file, &who(uid, uid, &[]));
            assert_eq!(taken.is_ok(), allowed, "uid {uid}");
            assert!(allowed || matches!(taken, Err(nfsstat3::NFS3ERR_PERM)));
        }
        assert!(may_take(&node(Kind::Dir, 0o777, 10, 10), &file, &who(12, 12, &[])).is_ok());
    }

    #[test]
    fn a_write_takes_the_privileges_of_a_program_unless_the_superuser_writes() {
        let written = |mode, uid| mode_after_write(&node(Kind::File, mode, 10, 20), &who(uid, 20, &[]));
        assert_eq!(written(0o6755, 10), 0o755);
        assert_eq!(written(0o4644, 10), 0o644);
        assert_eq!(written(0o2644, 10), 0o2644, "a mark for mandatory locking");
        assert_eq!(written(0o6755, 0), 0o6755);
    }

    #[test]
    fn an_owner_and_whoever_may_execute_may_read_the_bytes() {
        assert!(may_read_data(&node(Kind::File, 0o000, 10, 20), &who(10, 1, &[])));
        assert!(may_read_data(&node(Kind::File, 0o001, 10, 20), &who(11, 1, &[])));
        assert!(!may_read_data(&node(Kind::File, 0o660, 10, 20), &who(11, 1, &[])));
    }
}
