//! Who may set what, and what else changes by it.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::fs::tests::{node, who};

const NOW: Time = Time(1_000_000_000_000);

fn planned(inode: &Inode, set: sattr3, caller: Credentials) -> Result<Plan, nfsstat3> {
    plan(inode, inode.ctime, &Wanted { set, guard: None, caller }, NOW)
}

fn mode_of(inode: &Inode, set: sattr3, caller: Credentials) -> Option<u32> {
    planned(inode, set, caller).unwrap().attributes.mode
}

fn chmod(mode: u32) -> sattr3 {
    sattr3 { mode: set_mode3::mode(mode), ..sattr3::default() }
}

fn chown(uid: Option<u32>, gid: Option<u32>) -> sattr3 {
    sattr3 {
        uid: uid.map_or(set_uid3::Void, set_uid3::uid),
        gid: gid.map_or(set_gid3::Void, set_gid3::gid),
        ..sattr3::default()
    }
}

fn cut(size: u64) -> sattr3 {
    sattr3 { size: set_size3::size(size), ..sattr3::default() }
}

#[test]
fn mode_is_its_owners_to_change() {
    let file = node(Kind::File, 0o644, 10, 20);
    assert_eq!(mode_of(&file, chmod(0o100_600), who(10, 20, &[])), Some(0o600), "the type is not taken");
    assert_eq!(mode_of(&file, chmod(0o600), who(0, 0, &[])), Some(0o600));
    assert!(matches!(planned(&file, chmod(0o600), who(11, 20, &[])), Err(nfsstat3::NFS3ERR_PERM)));
}

#[test]
fn setgid_is_kept_only_for_who_is_in_the_group() {
    let file = node(Kind::File, 0o644, 10, 20);
    assert_eq!(mode_of(&file, chmod(0o2755), who(10, 1, &[])), Some(0o755));
    assert_eq!(mode_of(&file, chmod(0o2755), who(10, 1, &[20])), Some(0o2755));
    assert_eq!(mode_of(&file, chmod(0o2755), who(0, 0, &[])), Some(0o2755));
    assert_eq!(mode_of(&node(Kind::Dir, 0o755, 10, 20), chmod(0o2755), who(10, 1, &[])), Some(0o755));
}

#[test]
fn only_the_superuser_gives_away() {
    let file = node(Kind::File, 0o644, 10, 20);
    let owner = || who(10, 20, &[30]);
    for (uid, gid, allowed) in [
        (Some(11), None, false),
        (Some(10), None, true),
        (None, Some(30), true),
        (None, Some(20), true),
        (None, Some(31), false),
        (Some(10), Some(30), true),
    ] {
        assert_eq!(planned(&file, chown(uid, gid), owner()).is_ok(), allowed, "{uid:?} {gid:?}");
        assert!(planned(&file, chown(uid, gid), who(0, 0, &[])).is_ok());
        let other = planned(&file, chown(uid, gid), who(11, 20, &[30, 31]));
        assert!(matches!(other, Err(nfsstat3::NFS3ERR_PERM)));
    }
}

#[test]
fn a_change_of_owner_takes_privileges_from_files() {
    let program = node(Kind::File, 0o6755, 10, 20);
    assert_eq!(mode_of(&program, chown(None, Some(20)), who(10, 20, &[])), Some(0o755));
    assert_eq!(mode_of(&program, chown(Some(1), Some(1)), who(0, 0, &[])), Some(0o755));
    assert_eq!(mode_of(&node(Kind::File, 0o644, 10, 20), chown(None, Some(20)), who(10, 20, &[])), None);
    assert_eq!(mode_of(&node(Kind::Dir, 0o2755, 10, 20), chown(Some(1), None), who(0, 0, &[])), None);
}

#[test]
fn times_of_choice_are_the_owners_and_now_is_anybodys_who_may_write() {
    let file = node(Kind::File, 0o664, 10, 20);
    let chosen =
        sattr3 { mtime: set_mtime::SET_TO_CLIENT_TIME(nfstime3 { seconds: 5, nseconds: 6 }), ..sattr3::default() };
    let touched =
        sattr3 { atime: set_atime::SET_TO_SERVER_TIME, mtime: set_mtime::SET_TO_SERVER_TIME, ..sattr3::default() };
    let mtime = |set, caller| planned(&file, set, caller).map(|plan| plan.attributes.mtime);
    assert_eq!(mtime(chosen, who(10, 1, &[])).unwrap(), Some(Time::from_parts(5, 6)));
    assert!(matches!(mtime(chosen, who(11, 20, &[])), Err(nfsstat3::NFS3ERR_PERM)));
    assert_eq!(mtime(touched, who(11, 20, &[])).unwrap(), Some(NOW));
    assert!(matches!(mtime(touched, who(11, 21, &[])), Err(nfsstat3::NFS3ERR_ACCES)));
    let wrong = set_mtime::SET_TO_CLIENT_TIME(nfstime3 { seconds: 5, nseconds: 1_000_000_000 });
    let wrong = sattr3 { mtime: wrong, ..sattr3::default() };
    assert!(matches!(mtime(wrong, who(10, 1, &[])), Err(nfsstat3::NFS3ERR_INVAL)));
}

#[test]
fn length_is_for_files_and_for_who_may_write() {
    let file = node(Kind::File, 0o444, 10, 20);
    assert_eq!(planned(&file, cut(7), who(10, 20, &[])).unwrap().size, Some(7), "an owner opened it before");
    assert!(matches!(planned(&file, cut(7), who(11, 20, &[])), Err(nfsstat3::NFS3ERR_ACCES)));
    assert!(matches!(planned(&file, cut(MAX_FILE_BYTES + 1), who(10, 1, &[])), Err(nfsstat3::NFS3ERR_FBIG)));
    assert!(matches!(planned(&node(Kind::Dir, 0o777, 0, 0), cut(0), who(0, 0, &[])), Err(nfsstat3::NFS3ERR_ISDIR)));
    assert!(matches!(planned(&node(Kind::Fifo, 0o777, 0, 0), cut(0), who(0, 0, &[])), Err(nfsstat3::NFS3ERR_INVAL)));
}

#[test]
fn a_cut_takes_privileges_like_a_write() {
    let program = node(Kind::File, 0o4777, 10, 20);
    assert_eq!(mode_of(&program, cut(0), who(11, 21, &[])), Some(0o777));
    assert_eq!(mode_of(&program, cut(0), who(0, 0, &[])), None);
}

#[test]
fn guard_lets_only_the_expected_state_be_changed() {
    let file = node(Kind::File, 0o644, 10, 20);
    let guarded = |seconds| {
        let guard = Some(nfstime3 { seconds, nseconds: 0 });
        plan(&file, Time::from_parts(7, 0), &Wanted { set: chmod(0o600), guard, caller: who(10, 20, &[]) }, NOW)
    };
    assert!(guarded(7).is_ok());
    assert!(matches!(guarded(8), Err(nfsstat3::NFS3ERR_NOT_SYNC)));
}

#[test]
fn nothing_asked_is_nothing_changed() {
    let file = node(Kind::File, 0o6644, 10, 20);
    assert_eq!(planned(&file, sattr3::default(), who(11, 21, &[])).unwrap(), Plan::default());
}
