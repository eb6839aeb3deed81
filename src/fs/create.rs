//! CREATE, MKDIR, SYMLINK and MKNOD (RFC 1813 sections 3.3.8 to 3.3.11).
//!
//! A name that is not here is taken to be free, without a question to S3: clients look a name up before they
//! make it, so it was asked for a moment ago. If somebody makes it in S3 meanwhile, the upload finds the
//! conflict, and neither is lost (D4).

use bytes::Bytes;
use nfsserve::nfs::{fattr3, nfsstat3, sattr3, set_size3};

use super::change::{Stop, component, look_up, new_name, newborn};
use super::ext::{Answer, Caller, CreateMode, Made, Refused, SpecialKind};
use super::setattr::Wanted;
use super::statfs::MAX_FILE_BYTES;
use super::{Fs, error, now, permission};
use crate::index::{Edit, Inode, Kind, NewInode};
use crate::rpc::Credentials;
use crate::types::{Ino, Name, ObjectId, Time};

/// Longest target of a new symbolic link, in bytes: PATH_MAX of Linux, which counts the NUL.
const NEW_TARGET_MAX: usize = 4095;

/// A call that makes something.
#[derive(Clone)]
struct Making {
    dir: u64,
    name: Name,
    kind: Kind,
    set: sattr3,
    caller: Credentials,
}

/// What CREATE came to in its transaction.
enum Created {
    /// It is made, or was made by this same call, or is taken as it is.
    Is(Ino, fattr3),
    /// It was there and has to be cut to this size.
    IsToBeCut(Ino, u64),
}

impl Fs {
    /// CREATE. The file has a number for a staging file from the start: its first WRITE needs no transaction.
    pub(super) fn create_of(
        &self,
        caller: &Caller,
        dir: u64,
        name: &[u8],
        how: CreateMode,
    ) -> Answer<Result<Made, Refused>> {
        let set = match how {
            CreateMode::Unchecked(set) | CreateMode::Guarded(set) => set,
            CreateMode::Exclusive(_) => sattr3::default(),
        };
        if matches!(set.size, set_size3::size(size) if size > MAX_FILE_BYTES) {
            return Answer::Now(Err(self.refused(nfsstat3::NFS3ERR_FBIG, dir)));
        }
        let making = now!(self.making(caller, (dir, name), Kind::File, set));
        let fs = self.clone();
        Answer::Later(Box::pin(async move { fs.create(making, how).await }))
    }

    async fn create(self, making: Making, how: CreateMode) -> Result<Made, Refused> {
        let staging = self.new_staging(making.dir).await?;
        let caller = making.caller.clone();
        let (created, dir) = self
            .change(making.dir, move |fs, edit, dir| {
                if let Some(found) = look_up(edit, dir, &making.name, &making.caller)? {
                    return Ok(match take(&found.inode, how, &making.caller)? {
                        Some(size) => Created::IsToBeCut(found.inode.ino, size),
                        None => Created::Is(found.inode.ino, fs.attributes(&found.inode)),
                    });
                }
                let new = new_file(dir, &making, (how, fs.index.defaults().file_mode, edit.now()), staging);
                make(fs, edit, dir, &making, new).map(|(ino, attr)| Created::Is(ino, attr))
            })
            .await?;
        match created {
            Created::Is(Ino(id), attr) => Ok(Made { id, attr, dir }),
            Created::IsToBeCut(Ino(id), size) => {
                let set = sattr3 { size: set_size3::size(size), ..sattr3::default() };
                let cut = self.set(id, Wanted { set, guard: None, caller }).await;
                let cut = cut.map_err(|refused| Refused { status: refused.status, wcc: dir })?;
                let attr = cut.after.ok_or(Refused { status: nfsstat3::NFS3ERR_STALE, wcc: dir })?;
                Ok(Made { id, attr, dir })
            }
        }
    }

    /// MKDIR.
    pub(super) fn mkdir_of(
        &self,
        caller: &Caller,
        dir: u64,
        name: &[u8],
        set: sattr3,
    ) -> Answer<Result<Made, Refused>> {
        self.make_of(caller, (dir, name), Kind::Dir, (set, self.index.defaults().dir_mode), (0, 0))
    }

    /// MKNOD. Devices are for the superuser to make.
    pub(super) fn mknod_of(
        &self,
        caller: &Caller,
        dir: u64,
        name: &[u8],
        kind: SpecialKind,
        set: sattr3,
    ) -> Answer<Result<Made, Refused>> {
        let (kind, rdev) = match kind {
            SpecialKind::Fifo => (Kind::Fifo, (0, 0)),
            SpecialKind::Socket => (Kind::Socket, (0, 0)),
            SpecialKind::CharDevice(major, minor) => (Kind::CharDevice, (major, minor)),
            SpecialKind::BlockDevice(major, minor) => (Kind::BlockDevice, (major, minor)),
        };
        if matches!(kind, Kind::CharDevice | Kind::BlockDevice) && caller.credentials.uid != 0 {
            return Answer::Now(Err(self.refused(nfsstat3::NFS3ERR_PERM, dir)));
        }
        self.make_of(caller, (dir, name), kind, (set, self.index.defaults().file_mode), rdev)
    }

    /// Makes what has no bytes.
    fn make_of(
        &self,
        caller: &Caller,
        (dir, name): (u64, &[u8]),
        kind: Kind,
        (set, mode): (sattr3, u32),
        rdev: (u32, u32),
    ) -> Answer<Result<Made, Refused>> {
        let making = now!(self.making(caller, (dir, name), kind, set));
        let fs = self.clone();
        Answer::Later(Box::pin(async move {
            let work = move |fs: &Fs, edit: &mut Edit<'_, '_>, dir: &Inode| {
                is_free(edit, dir, &making)?;
                let new = newborn(dir, kind, (&set, mode), &making.caller, edit.now());
                make(fs, edit, dir, &making, NewInode { rdev, ..new })
            };
            let ((Ino(id), attr), dir) = fs.change(dir, work).await?;
            Ok(Made { id, attr, dir })
        }))
    }

    /// SYMLINK. The target is on the disk before the transaction that makes the link.
    pub(super) fn symlink_of(
        &self,
        caller: &Caller,
        dir: u64,
        name: &[u8],
        target: &[u8],
        set: sattr3,
    ) -> Answer<Result<Made, Refused>> {
        let wrong = match target {
            _ if target.len() > NEW_TARGET_MAX => Some(nfsstat3::NFS3ERR_NAMETOOLONG),
            _ if target.is_empty() || target.contains(&0) => Some(nfsstat3::NFS3ERR_INVAL),
            _ => None,
        };
        if let Some(status) = wrong {
            return Answer::Now(Err(self.refused(status, dir)));
        }
        let making = now!(self.making(caller, (dir, name), Kind::Symlink, set));
        let (fs, target) = (self.clone(), Bytes::copy_from_slice(target));
        Answer::Later(Box::pin(async move { fs.symlink(making, target).await }))
    }

    async fn symlink(self, making: Making, target: Bytes) -> Result<Made, Refused> {
        let dir = making.dir;
        // who may not make it need not wait for the disk
        let check = making.clone();
        self.change(dir, move |_, edit, dir| is_free(edit, dir, &check)).await?;
        let size = target.len() as u64;
        let staging = self.content.stage_bytes(target).await.map_err(|e| self.refused(error::of_io(e), dir))?;
        let work = move |fs: &Fs, edit: &mut Edit<'_, '_>, dir: &Inode| {
            is_free(edit, dir, &making)?;
            let new = newborn(dir, Kind::Symlink, (&making.set, 0o777), &making.caller, edit.now());
            make(fs, edit, dir, &making, NewInode { staged: Some(staging), size, ..new })
        };
        let made = self.change(dir, work).await;
        // a server that stops may have made the link and not said so
        if made.is_err() && matches!(self.index.staged(staging), Ok(None)) {
            self.content.abandon(staging);
        }
        let ((Ino(id), attr), dir) = made?;
        Ok(Made { id, attr, dir })
    }

    /// What all of them check first.
    fn making(&self, caller: &Caller, (dir, name): (u64, &[u8]), kind: Kind, set: sattr3) -> Result<Making, Refused> {
        self.writable(caller, dir)?;
        let name = new_name(name, nfsstat3::NFS3ERR_EXIST).map_err(|status| self.refused(status, dir))?;
        Ok(Making { dir, name, kind, set, caller: caller.credentials.clone() })
    }
}

/// That the name is free, and the caller may give it.
fn is_free(edit: &mut Edit<'_, '_>, dir: &Inode, making: &Making) -> Result<(), Stop> {
    if look_up(edit, dir, &making.name, &making.caller)?.is_some() {
        return Err(nfsstat3::NFS3ERR_EXIST.into());
    }
    Ok(permission::may_change_entries(dir, &making.caller)?)
}

/// Makes it under a name that is free.
fn make(fs: &Fs, edit: &mut Edit<'_, '_>, dir: &Inode, making: &Making, new: NewInode) -> Result<(Ino, fattr3), Stop> {
    permission::may_change_entries(dir, &making.caller)?;
    let component = component(edit, dir.ino, &making.name, making.kind)?;
    let ino = edit.create(dir.ino, component, new)?;
    let inode = edit.inode(ino)?.ok_or(nfsstat3::NFS3ERR_STALE)?;
    Ok((ino, fs.attributes(&inode)))
}

fn new_file(dir: &Inode, making: &Making, (how, mode, now): (CreateMode, u32, Time), staging: ObjectId) -> NewInode {
    let default_mode = match how {
        // its attributes follow by SETATTR; until then it is nobody's to open
        CreateMode::Exclusive(_) => 0,
        CreateMode::Unchecked(_) | CreateMode::Guarded(_) => mode,
    };
    let mut new = newborn(dir, Kind::File, (&making.set, default_mode), &making.caller, now);
    if let CreateMode::Exclusive(verifier) = how {
        (new.atime, new.mtime) = verifier_times(verifier);
    }
    if let set_size3::size(size) = making.set.size {
        new.size = size;
    }
    NewInode { staged: Some(staging), ..new }
}

/// What CREATE does with what is there: nothing, or (the size) cut it.
/// # Errors
/// EXIST, ACCES.
fn take(found: &Inode, how: CreateMode, caller: &Credentials) -> Result<Option<u64>, nfsstat3> {
    let size = match how {
        CreateMode::Unchecked(set) if found.kind == Kind::File => set.size,
        CreateMode::Exclusive(verifier)
            if found.kind == Kind::File && (found.atime, found.mtime) == verifier_times(verifier) =>
        {
            set_size3::Void
        }
        CreateMode::Unchecked(_) | CreateMode::Guarded(_) | CreateMode::Exclusive(_) => {
            return Err(nfsstat3::NFS3ERR_EXIST);
        }
    };
    match size {
        set_size3::Void => Ok(None),
        // not as its owner with the file open before: this is the open
        set_size3::size(_) if !permission::allows(found, caller, permission::WRITE) => Err(nfsstat3::NFS3ERR_ACCES),
        set_size3::size(size) => Ok(Some(size)),
    }
}

/// Where the verifier of an exclusive CREATE is kept, until SETATTR sets the times: so a replay finds it
/// after a restart, too.
fn verifier_times(verifier: [u8; 8]) -> (Time, Time) {
    let [a, b, c, d, e, f, g, h] = verifier;
    let seconds = |word: [u8; 4]| Time::from_parts(i64::from(u32::from_be_bytes(word)), 0);
    (seconds([a, b, c, d]), seconds([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tests::{node, who};

    #[test]
    fn an_exclusive_create_is_known_again_by_its_verifier() {
        let verifier = [0xff, 1, 2, 3, 4, 5, 6, 7];
        let mut file = node(Kind::File, 0, 10, 20).inode;
        (file.atime, file.mtime) = verifier_times(verifier);
        let again = |how| take(&file, how, &who(10, 20, &[]));
        assert!(matches!(again(CreateMode::Exclusive(verifier)), Ok(None)));
        assert!(matches!(again(CreateMode::Exclusive([0; 8])), Err(nfsstat3::NFS3ERR_EXIST)));
        assert!(matches!(again(CreateMode::Guarded(sattr3::default())), Err(nfsstat3::NFS3ERR_EXIST)));
    }

    #[test]
    fn an_unchecked_create_takes_a_file_and_sets_only_its_size() {
        let file = node(Kind::File, 0o644, 10, 20);
        let cut = sattr3 { size: set_size3::size(0), ..sattr3::default() };
        let taken = |node: &Inode, set, uid| take(node, CreateMode::Unchecked(set), &who(uid, 1, &[]));
        assert!(matches!(taken(&file, sattr3::default(), 11), Ok(None)));
        assert!(matches!(taken(&file, cut, 10), Ok(Some(0))));
        assert!(matches!(taken(&file, cut, 11), Err(nfsstat3::NFS3ERR_ACCES)));
        assert!(matches!(taken(&node(Kind::Dir, 0o777, 10, 20), cut, 10), Err(nfsstat3::NFS3ERR_EXIST)));
        assert!(matches!(taken(&node(Kind::Fifo, 0o777, 10, 20), cut, 10), Err(nfsstat3::NFS3ERR_EXIST)));
    }
}
