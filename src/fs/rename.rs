//! RENAME and LINK (RFC 1813 sections 3.3.14 and 3.3.15).

use std::sync::Arc;

use nfsserve::nfs::{fattr3, nfsstat3};

use super::change::{Stop, component, is_piece, is_surely_empty, look_up, new_name};
use super::ext::{Answer, Caller, Refused, RenameArgs, RenameRefused, Wcc};
use super::{Fs, error, now, permission};
use crate::crash;
use crate::index::{Edit, Found, IndexError, Inode, Kind, Node};
use crate::rpc::Credentials;
use crate::types::{Ino, Name};

/// A RENAME, its names checked.
struct Move {
    from: u64,
    from_name: Name,
    to: u64,
    to_name: Name,
    caller: Credentials,
}

impl Fs {
    /// RENAME. A whole directory is as quick as a file: what is below it stays where it is, here and in S3. A target
    /// that is not here is taken to be free, as in CREATE.
    pub(super) fn rename_of(&self, caller: &Caller, args: RenameArgs<'_>) -> Answer<Result<(Wcc, Wcc), RenameRefused>> {
        let RenameArgs { from, from_name, to, to_name } = args;
        let refused = |status| self.rename_refused(status, from, to);
        let from_name = now!(new_name(from_name, nfsstat3::NFS3ERR_INVAL).map_err(refused));
        let to_name = now!(new_name(to_name, nfsstat3::NFS3ERR_INVAL).map_err(refused));
        if self.is_read_only(caller) {
            return Answer::Now(Err(refused(nfsstat3::NFS3ERR_ROFS)));
        }
        let fs = self.clone();
        let wanted = Move { from, from_name, to, to_name, caller: caller.credentials.clone() };
        Answer::Later(Box::pin(async move { fs.rename(wanted).await }))
    }

    async fn rename(self, wanted: Move) -> Result<(Wcc, Wcc), RenameRefused> {
        let (from, to) = (wanted.from, wanted.to);
        let refused = |status| self.rename_refused(status, from, to);
        self.find_and_list_first(from, &wanted.from_name, true).await.map_err(refused)?;
        if let Some(replaced) = self.index.child(Ino(to), &wanted.to_name).map_err(error::of_index).map_err(refused)? {
            self.list_first(&replaced, false).await.map_err(refused)?;
        }
        let fs = self.clone();
        let edited = self.index.edit(move |edit| fs.rename_in(edit, &wanted)).await;
        crash::point("fs.after_edit");
        edited.unwrap_or_else(|failure| Err(refused(error::of_index(failure))))
    }

    fn rename_in(
        &self,
        edit: &mut Edit<'_, '_>,
        wanted: &Move,
    ) -> Result<Result<(Wcc, Wcc), RenameRefused>, IndexError> {
        let (from, to) = (edit.inode(Ino(wanted.from))?, edit.inode(Ino(wanted.to))?);
        let before = |dir: &Option<Inode>| dir.as_ref().map(|dir| self.unchanged(dir)).unwrap_or_default();
        let (mut from_wcc, mut to_wcc) = (before(&from), before(&to));
        let renamed = match from.zip(to) {
            Some((from, to)) => rename(edit, &from, &to, wanted),
            None => Err(nfsstat3::NFS3ERR_STALE.into()),
        };
        match renamed {
            Ok(()) => {
                from_wcc.after = edit.inode(Ino(wanted.from))?.map(|dir| self.attributes(&dir));
                to_wcc.after = edit.inode(Ino(wanted.to))?.map(|dir| self.attributes(&dir));
                Ok(Ok((from_wcc, to_wcc)))
            }
            Err(Stop::Refused(status)) => Ok(Err(RenameRefused { status, from: from_wcc, to: to_wcc })),
            Err(Stop::Failed(failure)) => Err(failure),
        }
    }

    fn rename_refused(&self, status: nfsstat3, from: u64, to: u64) -> RenameRefused {
        let (from, to) = (self.node(from), self.node(to));
        let wcc = |dir: &Result<Arc<Node>, _>| dir.as_ref().map(|dir| self.unchanged(dir)).unwrap_or_default();
        let (from_wcc, to_wcc) = (wcc(&from), wcc(&to));
        let status = from.err().or(to.err()).unwrap_or(status);
        RenameRefused { status, from: from_wcc, to: to_wcc }
    }

    /// LINK. An object has one key, and so a file one name.
    #[expect(clippy::type_complexity, reason = "the trait's")]
    pub(super) fn link_of(
        &self,
        caller: &Caller,
        id: u64,
        dir: u64,
    ) -> Answer<Result<(Option<fattr3>, Wcc), (Option<fattr3>, Refused)>> {
        let attr = match self.node(id) {
            Ok(node) => self.attributes(&node),
            Err(status) => return Answer::Now(Err((None, self.refused(status, dir)))),
        };
        let refused = self.writable(caller, dir).err().unwrap_or_else(|| self.refused(nfsstat3::NFS3ERR_NOTSUPP, dir));
        Answer::Now(Err((Some(attr), refused)))
    }
}

fn rename(edit: &mut Edit<'_, '_>, from: &Inode, to: &Inode, wanted: &Move) -> Result<(), Stop> {
    let Move { from_name, to_name, caller, .. } = wanted;
    let found = look_up(edit, from, from_name, caller)?;
    let replaced = look_up(edit, to, to_name, caller)?;
    let found = found.ok_or(nfsstat3::NFS3ERR_NOENT)?;
    if replaced.as_ref().is_some_and(|replaced| replaced.inode.ino == found.inode.ino) {
        return Ok(());
    }
    permission::may_take(from, &found.inode, caller)?;
    may_enter(edit, from, &found, to, caller)?;
    if let Some(replaced) = &replaced {
        permission::may_take(to, &replaced.inode, caller)?;
        may_replace(edit, &found.inode, replaced)?;
    }
    let component = component(edit, to.ino, to_name, found.inode.kind)?;
    Ok(edit.rename(from.ino, &found, to.ino, component, replaced.as_ref())?)
}

fn may_enter(
    edit: &mut Edit<'_, '_>,
    from: &Inode,
    found: &Found,
    to: &Inode,
    caller: &Credentials,
) -> Result<(), Stop> {
    permission::may_change_entries(to, caller)?;
    if found.inode.kind != Kind::Dir {
        return Ok(());
    }
    if is_piece(found) {
        return Err(nfsstat3::NFS3ERR_NOTSUPP.into());
    }
    if edit.is_above(found.inode.ino, to.ino)? {
        return Err(nfsstat3::NFS3ERR_INVAL.into());
    }
    // its `..` becomes another one
    if from.ino != to.ino && !permission::allows(&found.inode, caller, permission::WRITE) {
        return Err(nfsstat3::NFS3ERR_ACCES.into());
    }
    if !found.inode.listed {
        return Err(nfsstat3::NFS3ERR_JUKEBOX.into());
    }
    Ok(())
}

fn may_replace(edit: &mut Edit<'_, '_>, moved: &Inode, replaced: &Found) -> Result<(), Stop> {
    match (moved.kind == Kind::Dir, replaced.inode.kind == Kind::Dir) {
        (false, false) => Ok(()),
        (true, false) => Err(nfsstat3::NFS3ERR_NOTDIR.into()),
        (false, true) => Err(nfsstat3::NFS3ERR_ISDIR.into()),
        (true, true) if is_piece(replaced) => Err(nfsstat3::NFS3ERR_NOTSUPP.into()),
        (true, true) => is_surely_empty(edit, &replaced.inode),
    }
}
