//! The frame of every change: one transaction that looks, allows, does and tells (D1). What a change needs to
//! know of directories and of new inodes is here, too, because several families share it.
//!
//! Work that refuses has changed nothing: everything is checked before the first change.

use nfsserve::nfs::{nfsstat3, nfstime3, sattr3, set_atime, set_gid3, set_mode3, set_mtime, set_uid3};

use super::attr::wcc_attr_of;
use super::ext::{Caller, Refused, Wcc};
use super::{Fs, error, permission};
use crate::crash;
use crate::index::{Edit, Found, IndexError, Inode, Kind, NewInode, Node};
use crate::revalidate::WaitError;
use crate::rpc::Credentials;
use crate::types::name::ComponentKind;
use crate::types::{Component, Ino, Name, Time};

/// Why the work of a transaction came to nothing.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client is told so.
    Refused(nfsstat3),
    /// The transaction fails.
    Failed(IndexError),
}

impl From<nfsstat3> for Stop {
    fn from(status: nfsstat3) -> Stop {
        Stop::Refused(status)
    }
}

impl From<IndexError> for Stop {
    fn from(failure: IndexError) -> Stop {
        Stop::Failed(failure)
    }
}

impl Fs {
    /// Runs `work` on the inode `id` in a transaction; returns after the commit, with the inode's attributes before
    /// and after. That changes are allowed at all (`writable`) is asked before.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        id: u64,
        work: impl FnOnce(&Fs, &mut Edit<'_, '_>, &Inode) -> Result<T, Stop> + Send + 'static,
    ) -> Result<(T, Wcc), Refused> {
        let fs = self.clone();
        let edited = self.index.edit(move |edit| fs.around(edit, Ino(id), work)).await;
        crash::point("fs.after_edit");
        edited.unwrap_or_else(|failure| Err(self.refused(error::of_index(failure), id)))
    }

    fn around<T>(
        &self,
        edit: &mut Edit<'_, '_>,
        ino: Ino,
        work: impl FnOnce(&Fs, &mut Edit<'_, '_>, &Inode) -> Result<T, Stop>,
    ) -> Result<Result<(T, Wcc), Refused>, IndexError> {
        let Some(inode) = edit.inode(ino)? else { return Ok(Err(nfsstat3::NFS3ERR_STALE.into())) };
        let mut wcc = self.unchanged(&inode);
        match work(self, edit, &inode) {
            Ok(done) => {
                wcc.after = edit.inode(ino)?.map(|inode| self.attributes(&inode));
                Ok(Ok((done, wcc)))
            }
            Err(Stop::Refused(status)) => Ok(Err(Refused { status, wcc })),
            Err(Stop::Failed(failure)) => Err(failure),
        }
    }

    /// That the caller may change anything at all: what each procedure asks first.
    /// # Errors
    /// ROFS.
    pub(super) fn writable(&self, caller: &Caller, id: u64) -> Result<(), Refused> {
        if self.is_read_only(caller) { Err(self.refused(nfsstat3::NFS3ERR_ROFS, id)) } else { Ok(()) }
    }

    /// Whether nothing may be changed by this caller.
    pub(super) fn is_read_only(&self, caller: &Caller) -> bool {
        self.settings.read_only || caller.read_only
    }

    /// A refusal that has changed nothing, with the attributes of `id`. STALE goes before.
    pub(super) fn refused(&self, status: nfsstat3, id: u64) -> Refused {
        match self.node(id) {
            Ok(node) => Refused { status, wcc: self.unchanged(&node) },
            Err(status) => status.into(),
        }
    }

    /// The attributes around nothing.
    pub(super) fn unchanged(&self, inode: &Inode) -> Wcc {
        let attr = self.attributes(inode);
        Wcc { before: Some(wcc_attr_of(&attr)), after: Some(attr) }
    }

    /// Brings the whole listing of `dir` here, because only so it shows whether it is empty, or what moves with it.
    /// One that has an entry here is not empty, whatever S3 says; `all`: that is not enough.
    /// # Errors
    /// JUKEBOX past the deadline; the listing goes on.
    pub(super) async fn list_first(&self, dir: &Node, all: bool) -> Result<(), nfsstat3> {
        if dir.kind != Kind::Dir || dir.listed {
            return Ok(());
        }
        let has_entries = || self.index.entries(dir.ino, 0, 1).map(|entries| !entries.is_empty());
        if !all && has_entries().map_err(error::of_index)? {
            return Ok(());
        }
        match self.revalidator.list(dir.ino).ended().await {
            // then it is no entry either: the transaction will see
            Err(WaitError::Gone) => Ok(()),
            listed => listed.map_err(error::of_wait),
        }
    }
}

/// A name that may be new; `dots` is what is said of `.` and `..`.
/// # Errors
/// `dots`, NAMETOOLONG, INVAL.
pub(super) fn new_name(name: &[u8], dots: nfsstat3) -> Result<Name, nfsstat3> {
    match name {
        b"." | b".." => Err(dots),
        _ => Name::new(name).map_err(error::of_name),
    }
}

/// What `name` stands for in `dir`, for `caller`.
/// # Errors
/// NOTDIR, ACCES.
pub(super) fn look_up(
    edit: &mut Edit<'_, '_>,
    dir: &Inode,
    name: &Name,
    caller: &Credentials,
) -> Result<Option<Found>, Stop> {
    if dir.kind != Kind::Dir {
        return Err(nfsstat3::NFS3ERR_NOTDIR.into());
    }
    if !permission::allows(dir, caller, permission::EXECUTE) {
        return Err(nfsstat3::NFS3ERR_ACCES.into());
    }
    Ok(edit.child(dir.ino, name)?)
}

/// The component of a new entry.
/// # Errors
/// NAMETOOLONG.
pub(super) fn component(edit: &mut Edit<'_, '_>, dir: Ino, name: &Name, kind: Kind) -> Result<Component, Stop> {
    edit.component(dir, name, kind)?.ok_or(nfsstat3::NFS3ERR_NAMETOOLONG.into())
}

/// Whether it is the first piece of names that are too long for one: not an entry of its own, but what others
/// have in common.
pub(super) fn is_piece(found: &Found) -> bool {
    found.component.kind() == ComponentKind::Chunk
}

/// That `dir` has no entries, and that all of them are known.
/// # Errors
/// NOTEMPTY; JUKEBOX, when it stopped being listed meanwhile.
pub(super) fn is_surely_empty(edit: &mut Edit<'_, '_>, dir: &Inode) -> Result<(), Stop> {
    if !edit.is_empty(dir.ino)? {
        return Err(nfsstat3::NFS3ERR_NOTEMPTY.into());
    }
    if !dir.listed {
        return Err(nfsstat3::NFS3ERR_JUKEBOX.into());
    }
    Ok(())
}

/// An inode to be made in `dir` by `caller`, with the attributes asked for: of those it may give, as Linux has it.
/// Without a mode it gets `mode`.
pub(super) fn newborn(
    dir: &Inode,
    kind: Kind,
    (set, mode): (&sattr3, u32),
    caller: &Credentials,
    now: Time,
) -> NewInode {
    let is_root = caller.uid == 0;
    let inherits = dir.mode & permission::SETGID != 0;
    let uid = match set.uid {
        set_uid3::uid(uid) if is_root => uid,
        _ => caller.uid,
    };
    let gid = match set.gid {
        set_gid3::gid(gid) if is_root => gid,
        _ if inherits => dir.gid,
        _ => caller.gid,
    };
    let mode = match set.mode {
        set_mode3::mode(mode) => mode & permission::MODE_BITS,
        set_mode3::Void => mode,
    };
    let mode = match kind {
        Kind::Dir if inherits => mode | permission::SETGID,
        // nobody makes a program that runs as a group which he is not in
        Kind::File if !is_root && mode & 0o010 != 0 && !permission::is_in_group(caller, gid) => {
            mode & !permission::SETGID
        }
        _ => mode,
    };
    let atime = match set.atime {
        set_atime::SET_TO_CLIENT_TIME(time) => time_of(time),
        set_atime::DONT_CHANGE | set_atime::SET_TO_SERVER_TIME => now,
    };
    let mtime = match set.mtime {
        set_mtime::SET_TO_CLIENT_TIME(time) => time_of(time),
        set_mtime::DONT_CHANGE | set_mtime::SET_TO_SERVER_TIME => now,
    };
    let size = if kind == Kind::Dir { DIR_SIZE } else { 0 };
    NewInode { kind, mode, uid, gid, rdev: (0, 0), atime, mtime, staged: None, size }
}

/// Size of every directory.
const DIR_SIZE: u64 = 4096;

/// A client's time.
pub(super) fn time_of(time: nfstime3) -> Time {
    Time::from_parts(i64::from(time.seconds), time.nseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tests::{node, who};

    fn with_mode(mode: u32) -> sattr3 {
        sattr3 { mode: set_mode3::mode(mode), ..sattr3::default() }
    }

    fn born(dir_mode: u32, kind: Kind, set: &sattr3, caller: &Credentials) -> (u32, u32, u32) {
        let new = newborn(&node(Kind::Dir, dir_mode, 1, 50), kind, (set, 0o644), caller, Time(9));
        assert_eq!((new.atime, new.mtime), (Time(9), Time(9)));
        (new.mode, new.uid, new.gid)
    }

    #[test]
    fn a_new_file_is_its_makers() {
        let user = who(10, 20, &[30]);
        assert_eq!(born(0o777, Kind::File, &with_mode(0o600), &user), (0o600, 10, 20));
        assert_eq!(born(0o777, Kind::File, &sattr3::default(), &user), (0o644, 10, 20), "the default");
    }

    #[test]
    fn only_the_superuser_gives_things_away_at_birth() {
        let set = sattr3 { uid: set_uid3::uid(7), gid: set_gid3::gid(8), ..with_mode(0o600) };
        assert_eq!(born(0o777, Kind::File, &set, &who(10, 20, &[])), (0o600, 10, 20));
        assert_eq!(born(0o777, Kind::File, &set, &who(0, 0, &[])), (0o600, 7, 8));
    }

    #[test]
    fn a_setgid_directory_gives_its_group_and_directories_the_bit() {
        let user = who(10, 20, &[]);
        assert_eq!(born(0o2777, Kind::File, &with_mode(0o640), &user), (0o640, 10, 50));
        assert_eq!(born(0o2777, Kind::Dir, &with_mode(0o750), &user), (0o2750, 10, 50));
        assert_eq!(born(0o777, Kind::Dir, &with_mode(0o750), &user), (0o750, 10, 20));
    }

    #[test]
    fn nobody_makes_a_program_of_a_group_that_he_is_not_in() {
        assert_eq!(born(0o2777, Kind::File, &with_mode(0o2755), &who(10, 20, &[])).0, 0o755);
        assert_eq!(born(0o2777, Kind::File, &with_mode(0o2755), &who(10, 20, &[50])).0, 0o2755);
        assert_eq!(born(0o2777, Kind::File, &with_mode(0o2755), &who(0, 0, &[])).0, 0o2755);
    }

    #[test]
    fn dots_are_refused_as_each_procedure_wants() {
        for dots in [&b"."[..], b".."] {
            assert!(matches!(new_name(dots, nfsstat3::NFS3ERR_EXIST), Err(nfsstat3::NFS3ERR_EXIST)));
        }
        assert!(matches!(new_name(&[b'x'; 256], nfsstat3::NFS3ERR_EXIST), Err(nfsstat3::NFS3ERR_NAMETOOLONG)));
        assert!(matches!(new_name(b"a/b", nfsstat3::NFS3ERR_EXIST), Err(nfsstat3::NFS3ERR_INVAL)));
    }
}
