//! SETATTR (RFC 1813 section 3.3.2): all of it in one transaction, or nothing. A clean file that is cut gets an
//! empty staging file, over a version below that counts for less: nothing is fetched. One that is staged is
//! changed under its sole turn, after what runs ahead of the index was made durable, so that row and memory agree.

use std::ops::Range;

use nfsserve::nfs::{nfsstat3, nfstime3, sattr3, set_atime, set_gid3, set_mode3, set_mtime, set_size3, set_uid3};

use super::attr::nfs_time;
use super::change::{Stop, time_of};
use super::ext::{Answer, Caller, Refused, Wcc};
use super::statfs::MAX_FILE_BYTES;
use super::{ATTEMPTS, Fs, error, now, permission};
use crate::index::{Edit, Inode, Kind, NewAttributes, Node, StagedProgress, StagedRow};
use crate::rpc::Credentials;
use crate::types::{Ino, ObjectId, Time};

/// A SETATTR.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) set: sattr3,
    pub(super) guard: Option<nfstime3>,
    pub(super) caller: Credentials,
}

/// What it comes to, where it is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Plan {
    attributes: NewAttributes,
    size: Option<u64>,
}

impl Fs {
    /// SETATTR.
    pub(super) fn setattr_of(
        &self,
        caller: &Caller,
        id: u64,
        set: sattr3,
        guard: Option<nfstime3>,
    ) -> Answer<Result<Wcc, Refused>> {
        now!(self.writable(caller, id));
        let (fs, wanted) = (self.clone(), Wanted { set, guard, caller: caller.credentials.clone() });
        Answer::Later(Box::pin(async move { fs.set(id, wanted).await }))
    }

    /// The same, waited for.
    pub(super) async fn set(&self, id: u64, wanted: Wanted) -> Result<Wcc, Refused> {
        self.revalidator.describe(Ino(id)).await;
        for _ in 0..ATTEMPTS {
            let node = self.node(id)?;
            let done = match node.staged {
                None => self.set_clean(id, wanted.clone()).await?,
                Some(_) => self.set_staged(&node, wanted.clone()).await?,
            };
            if let Some(wcc) = done {
                return Ok(wcc);
            }
        }
        Err(self.refused(nfsstat3::NFS3ERR_JUKEBOX, id))
    }

    /// `None`: it has bytes staged meanwhile.
    async fn set_clean(&self, id: u64, wanted: Wanted) -> Result<Option<Wcc>, Refused> {
        let staging = match wanted.set.size {
            set_size3::size(_) => Some(self.new_staging(id).await?),
            set_size3::Void => None,
        };
        let work = move |_: &Fs, edit: &mut Edit<'_, '_>, inode: &Inode| {
            if inode.staged.is_some() {
                return Ok(false);
            }
            let plan = plan(inode, inode.ctime, &wanted, edit.now())?;
            set_in(edit, inode, plan, staging)?;
            Ok(true)
        };
        let (done, wcc) = self.change(id, work).await?;
        Ok(done.then_some(wcc))
    }

    /// `None`: these bytes are not staged any more.
    async fn set_staged(&self, node: &Node, wanted: Wanted) -> Result<Option<Wcc>, Refused> {
        let id = node.ino.0;
        let refused = |status| self.refused(status, id);
        let Some(staged) = self.staged_of(node).map_err(refused)? else { return Ok(None) };
        let Some(turn) = staged.sole_turn().await else { return Ok(None) };
        self.content.sync(&staged).await.map_err(|e| refused(error::of_io(e)))?;
        let overlay = Laid { id: staged.id(), base_len: staged.base_len(), written: staged.written() };
        let work = move |_: &Fs, edit: &mut Edit<'_, '_>, inode: &Inode| {
            if inode.staged != Some(overlay.id) {
                return Ok(None);
            }
            let plan = plan(inode, inode.ctime, &wanted, edit.now())?;
            let set = set_over(edit, inode, plan, overlay)?;
            Ok(Some((set, plan.size)))
        };
        let (Some((inode, size)), mut wcc) = self.change(id, work).await? else { return Ok(None) };
        if let Some(size) = size {
            staged.resize(&turn, size).map_err(|e| refused(error::of_io(e)))?;
        }
        staged.adopt(&inode);
        drop(turn);
        wcc.after = Some(self.attributes(&inode));
        Ok(Some(wcc))
    }

    /// A number for a staging file to be, of `id` or of a file in it. What was read of `id` stays, whatever S3 loses.
    pub(super) async fn new_staging(&self, id: u64) -> Result<ObjectId, Refused> {
        self.revalidator.keep(Ino(id)).await;
        self.content.new_staging().await.map_err(|e| self.refused(error::of_io(e), id))
    }
}

/// What a staging file has, all of it durable.
struct Laid {
    id: ObjectId,
    base_len: u64,
    written: Vec<Range<u64>>,
}

/// Does it to an inode that has no bytes staged.
fn set_in(edit: &mut Edit<'_, '_>, inode: &Inode, plan: Plan, staging: Option<ObjectId>) -> Result<(), Stop> {
    let Plan { mut attributes, size } = plan;
    match (size, staging) {
        (Some(size), Some(staging)) if size != inode.size => {
            drop(edit.stage(inode.ino, staging, size.min(inode.size), size)?);
        }
        // cut to the length that it has: nothing for S3 but a time
        (Some(_), _) => attributes.mtime = attributes.mtime.or(Some(edit.now())),
        (None, _) => {}
    }
    if attributes != NewAttributes::default() {
        edit.set(inode.ino, attributes)?;
    }
    Ok(())
}

/// Does it to an inode with staged bytes.
fn set_over(edit: &mut Edit<'_, '_>, inode: &Inode, plan: Plan, laid: Laid) -> Result<Inode, Stop> {
    let Plan { mut attributes, size } = plan;
    let now = edit.now();
    if let Some(size) = size {
        attributes.mtime = attributes.mtime.or(Some(now));
        if size != inode.size {
            let row = StagedRow {
                ino: inode.ino,
                base_len: laid.base_len.min(size),
                ranges: laid.written.into_iter().map(|r| r.start..r.end.min(size)).filter(|r| !r.is_empty()).collect(),
            };
            edit.record(StagedProgress { staged: laid.id, row, size, mtime: now, ctime: now })?;
        }
    }
    if attributes != NewAttributes::default() {
        return Ok(edit.set(inode.ino, attributes)?);
    }
    Ok(inode.clone())
}

/// What SETATTR comes to on `inode`, whose ctime may run ahead.
/// # Errors
/// NOT_SYNC, PERM, ACCES, INVAL, ISDIR, FBIG.
fn plan(inode: &Inode, ctime: Time, wanted: &Wanted, now: Time) -> Result<Plan, nfsstat3> {
    let Wanted { set, guard, caller } = wanted;
    let ctime = nfs_time(ctime);
    if guard.is_some_and(|guard| (guard.seconds, guard.nseconds) != (ctime.seconds, ctime.nseconds)) {
        return Err(nfsstat3::NFS3ERR_NOT_SYNC);
    }
    let size = size(inode, set.size, caller)?;
    let (uid, gid) = (owner(inode, set.uid, caller)?, group(inode, set.gid, caller)?);
    let atime = match set.atime {
        set_atime::DONT_CHANGE => None,
        set_atime::SET_TO_SERVER_TIME => Some(server_time(inode, caller, now)?),
        set_atime::SET_TO_CLIENT_TIME(time) => Some(client_time(inode, caller, time)?),
    };
    let mtime = match set.mtime {
        set_mtime::DONT_CHANGE => None,
        set_mtime::SET_TO_SERVER_TIME => Some(server_time(inode, caller, now)?),
        set_mtime::SET_TO_CLIENT_TIME(time) => Some(client_time(inode, caller, time)?),
    };
    let mut new = NewAttributes { mode: None, uid, gid, atime, mtime };
    new.mode = mode(inode, set.mode, &new, size.is_some(), caller)?;
    Ok(Plan { attributes: new, size })
}

/// The mode asked for, or what is left of the present one by a change of owner or length.
fn mode(
    inode: &Inode,
    asked: set_mode3,
    new: &NewAttributes,
    is_cut: bool,
    caller: &Credentials,
) -> Result<Option<u32>, nfsstat3> {
    let is_root = caller.uid == 0;
    let mut mode = match asked {
        set_mode3::mode(_) if !permission::owns(inode, caller) => return Err(nfsstat3::NFS3ERR_PERM),
        set_mode3::mode(mode) => mode & permission::MODE_BITS,
        set_mode3::Void if is_cut => permission::mode_after_write(inode, caller),
        set_mode3::Void => inode.mode,
    };
    let is_given_away = new.uid.is_some() || new.gid.is_some();
    if is_given_away && inode.kind != Kind::Dir {
        mode = permission::without_privileges(mode);
    }
    let is_asked = matches!(asked, set_mode3::mode(_));
    if is_asked && !is_root && !permission::is_in_group(caller, new.gid.unwrap_or(inode.gid)) {
        mode &= !permission::SETGID;
    }
    Ok((is_asked || mode != inode.mode).then_some(mode))
}

/// Only the superuser gives files away; an owner may say what is so already.
fn owner(inode: &Inode, asked: set_uid3, caller: &Credentials) -> Result<Option<u32>, nfsstat3> {
    match asked {
        set_uid3::Void => Ok(None),
        set_uid3::uid(uid) if caller.uid == 0 || (caller.uid == inode.uid && uid == inode.uid) => Ok(Some(uid)),
        set_uid3::uid(_) => Err(nfsstat3::NFS3ERR_PERM),
    }
}

/// An owner may choose among the groups he is in.
fn group(inode: &Inode, asked: set_gid3, caller: &Credentials) -> Result<Option<u32>, nfsstat3> {
    let may_have = |gid| gid == inode.gid || permission::is_in_group(caller, gid);
    match asked {
        set_gid3::Void => Ok(None),
        set_gid3::gid(gid) if caller.uid == 0 || (caller.uid == inode.uid && may_have(gid)) => Ok(Some(gid)),
        set_gid3::gid(_) => Err(nfsstat3::NFS3ERR_PERM),
    }
}

fn size(inode: &Inode, asked: set_size3, caller: &Credentials) -> Result<Option<u64>, nfsstat3> {
    let set_size3::size(size) = asked else { return Ok(None) };
    match inode.kind {
        Kind::File if !permission::may_write_data(inode, caller) => Err(nfsstat3::NFS3ERR_ACCES),
        Kind::File if size > MAX_FILE_BYTES => Err(nfsstat3::NFS3ERR_FBIG),
        Kind::File => Ok(Some(size)),
        Kind::Dir => Err(nfsstat3::NFS3ERR_ISDIR),
        Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {
            Err(nfsstat3::NFS3ERR_INVAL)
        }
    }
}

/// Who may write may say that it happened now.
fn server_time(inode: &Inode, caller: &Credentials, now: Time) -> Result<Time, nfsstat3> {
    let may = permission::owns(inode, caller) || permission::allows(inode, caller, permission::WRITE);
    if may { Ok(now) } else { Err(nfsstat3::NFS3ERR_ACCES) }
}

/// Only an owner may say any time.
fn client_time(inode: &Inode, caller: &Credentials, time: nfstime3) -> Result<Time, nfsstat3> {
    if !permission::owns(inode, caller) {
        return Err(nfsstat3::NFS3ERR_PERM);
    }
    if time.nseconds >= 1_000_000_000 {
        return Err(nfsstat3::NFS3ERR_INVAL);
    }
    Ok(time_of(time))
}

#[cfg(test)]
mod tests;
