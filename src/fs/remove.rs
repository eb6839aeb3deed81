//! REMOVE and RMDIR (RFC 1813 sections 3.3.12 and 3.3.13).

use std::sync::Arc;

use nfsserve::nfs::nfsstat3;

use super::change::{Stop, is_surely_empty, look_up, new_name};
use super::ext::{Answer, Caller, Refused, Wcc};
use super::{Fs, error, now, permission};
use crate::index::{Edit, Inode, Kind, Node};
use crate::rpc::Credentials;
use crate::types::Name;

impl Fs {
    /// REMOVE. Not of directories: no client asks for it.
    pub(super) fn remove_of(&self, caller: &Caller, dir: u64, name: &[u8]) -> Answer<Result<Wcc, Refused>> {
        let name = now!(new_name(name, dots(name)).map_err(|status| self.refused(status, dir)));
        now!(self.writable(caller, dir));
        let (fs, caller) = (self.clone(), caller.credentials.clone());
        Answer::Later(Box::pin(async move {
            fs.find_first(dir, &name).await.map_err(|status| fs.refused(status, dir))?;
            let ((), wcc) = fs.change(dir, move |_, edit, dir| remove(edit, dir, &name, &caller)).await?;
            Ok(wcc)
        }))
    }

    /// RMDIR.
    pub(super) fn rmdir_of(&self, caller: &Caller, dir: u64, name: &[u8]) -> Answer<Result<Wcc, Refused>> {
        let name = now!(new_name(name, dots(name)).map_err(|status| self.refused(status, dir)));
        now!(self.writable(caller, dir));
        let (fs, caller) = (self.clone(), caller.credentials.clone());
        Answer::Later(Box::pin(async move {
            fs.find_and_list_first(dir, &name, false).await.map_err(|status| fs.refused(status, dir))?;
            let ((), wcc) = fs.change(dir, move |_, edit, dir| rmdir(edit, dir, &name, &caller)).await?;
            Ok(wcc)
        }))
    }

    /// What is to be removed or moved. Where nobody has looked it up, S3 is asked, as by LOOKUP.
    pub(super) async fn find_first(&self, dir: u64, name: &Name) -> Result<Option<Arc<Node>>, nfsstat3> {
        let dir = self.node(dir)?;
        match self.index.child(dir.ino, name).map_err(error::of_index)? {
            None if dir.kind == Kind::Dir && !self.revalidator.is_absent(&dir, name) => {
                self.revalidator.look_up(dir.ino, name).await.map_err(error::of_wait)
            }
            child => Ok(child),
        }
    }

    /// The same, and with the listing of a directory; `all`: of all that is below it.
    pub(super) async fn find_and_list_first(&self, dir: u64, name: &Name, all: bool) -> Result<(), nfsstat3> {
        match self.find_first(dir, name).await? {
            Some(child) => self.list_first(&child, all).await,
            None => Ok(()),
        }
    }
}

/// What the RFC has RMDIR say of `.` and of `..`.
fn dots(name: &[u8]) -> nfsstat3 {
    if name == b"." { nfsstat3::NFS3ERR_INVAL } else { nfsstat3::NFS3ERR_EXIST }
}

fn remove(edit: &mut Edit<'_, '_>, dir: &Inode, name: &Name, caller: &Credentials) -> Result<(), Stop> {
    let found = look_up(edit, dir, name, caller)?.ok_or(nfsstat3::NFS3ERR_NOENT)?;
    permission::may_take(dir, &found.inode, caller)?;
    if found.inode.kind == Kind::Dir {
        return Err(nfsstat3::NFS3ERR_ISDIR.into());
    }
    Ok(edit.remove(dir.ino, &found)?)
}

fn rmdir(edit: &mut Edit<'_, '_>, dir: &Inode, name: &Name, caller: &Credentials) -> Result<(), Stop> {
    let found = look_up(edit, dir, name, caller)?.ok_or(nfsstat3::NFS3ERR_NOENT)?;
    permission::may_take(dir, &found.inode, caller)?;
    if found.inode.kind != Kind::Dir {
        return Err(nfsstat3::NFS3ERR_NOTDIR.into());
    }
    is_surely_empty(edit, &found.inode)?;
    Ok(edit.remove(dir.ino, &found)?)
}
