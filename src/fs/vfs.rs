//! The two traits that others see `Fs` through. Only translation lives here.

use async_trait::async_trait;
use nfsserve::nfs::{
    cookieverf3, fattr3, fileid3, filename3, fsinfo3, nfs_fh3, nfspath3, nfsstat3, nfsstring, nfstime3, post_op_attr,
    sattr3,
};
use nfsserve::vfs::{DirEntry, NFSFileSystem, ReadDirResult, VFSCapabilities};

use super::Fs;
use super::ext::{
    Accessed, Answer, Caller, CreateMode, Failure, FsInfo, FsStat, Handle, ListArgs, Listing, Looked, Made, NfsExt,
    PathConf, ReadOk, Refused, RenameArgs, RenameRefused, SpecialKind, Stability, Wcc, Written,
};
use super::read::READ_MAX;
use super::write::WRITE_MAX;
use crate::positioned::read_exact_at;
use crate::rpc::{Credentials, Tail};
use crate::types::Ino;

impl NfsExt for Fs {
    fn handle_by(&self, id: fileid3) -> Handle {
        Handle::new(&self.handles.encode(id)).expect("24 bytes are no more than 64")
    }

    fn fileid_by(&self, handle: &[u8]) -> Result<fileid3, nfsstat3> {
        self.handles.decode(handle)
    }

    fn read_max(&self) -> u32 {
        READ_MAX
    }

    fn getattr_by(&self, _caller: &Caller, id: fileid3) -> Answer<Result<fattr3, nfsstat3>> {
        self.getattr_of(id)
    }

    fn lookup_by(&self, caller: &Caller, dir: fileid3, name: &[u8]) -> Answer<Result<Looked, Failure>> {
        self.lookup_of(caller, dir, name)
    }

    fn parent_by(&self, caller: &Caller, dir: fileid3) -> Answer<Result<Looked, Failure>> {
        self.parent_of(caller, dir)
    }

    fn access_by(&self, caller: &Caller, id: fileid3, wanted: u32) -> Answer<Result<Accessed, Failure>> {
        self.access_of(caller, id, wanted)
    }

    fn lockable_by(&self, caller: &Caller, id: fileid3, exclusive: bool) -> Result<(), nfsstat3> {
        self.lockable_of(caller, id, exclusive)
    }

    fn readlink_by(&self, caller: &Caller, id: fileid3) -> Answer<Result<(Vec<u8>, fattr3), Failure>> {
        self.readlink_of(caller, id)
    }

    fn read_by(&self, caller: &Caller, id: fileid3, offset: u64, count: u32) -> Answer<Result<ReadOk, Failure>> {
        self.read_of(caller, id, offset, count)
    }

    fn list_by(&self, caller: &Caller, args: ListArgs) -> Answer<Result<Listing, Failure>> {
        self.list_of(caller, args)
    }

    fn fsstat_by(&self, _caller: &Caller, id: fileid3) -> Answer<Result<FsStat, Failure>> {
        self.fsstat_of(id)
    }

    fn fsinfo_by(&self, _caller: &Caller, id: fileid3) -> Answer<Result<FsInfo, Failure>> {
        self.fsinfo_of(id)
    }

    fn pathconf_by(&self, _caller: &Caller, id: fileid3) -> Answer<Result<PathConf, Failure>> {
        self.pathconf_of(id)
    }

    fn write_verifier(&self) -> [u8; 8] {
        self.content.write_verifier()
    }

    fn setattr_by(
        &self,
        caller: &Caller,
        id: fileid3,
        set: sattr3,
        guard: Option<nfstime3>,
    ) -> Answer<Result<Wcc, Refused>> {
        self.setattr_of(caller, id, set, guard)
    }

    fn write_by(
        &self,
        caller: &Caller,
        id: fileid3,
        offset: u64,
        data: &[u8],
        stable: Stability,
    ) -> Answer<Result<Written, Refused>> {
        self.write_of(caller, id, offset, data, stable)
    }

    fn commit_by(&self, _caller: &Caller, id: fileid3, _offset: u64, _count: u32) -> Answer<Result<Wcc, Refused>> {
        self.commit_of(id)
    }

    fn create_by(&self, caller: &Caller, dir: fileid3, name: &[u8], how: CreateMode) -> Answer<Result<Made, Refused>> {
        self.create_of(caller, dir, name, how)
    }

    fn mkdir_by(&self, caller: &Caller, dir: fileid3, name: &[u8], set: sattr3) -> Answer<Result<Made, Refused>> {
        self.mkdir_of(caller, dir, name, set)
    }

    fn symlink_by(
        &self,
        caller: &Caller,
        dir: fileid3,
        name: &[u8],
        target: &[u8],
        set: sattr3,
    ) -> Answer<Result<Made, Refused>> {
        self.symlink_of(caller, dir, name, target, set)
    }

    fn mknod_by(
        &self,
        caller: &Caller,
        dir: fileid3,
        name: &[u8],
        kind: SpecialKind,
        set: sattr3,
    ) -> Answer<Result<Made, Refused>> {
        self.mknod_of(caller, dir, name, kind, set)
    }

    fn remove_by(&self, caller: &Caller, dir: fileid3, name: &[u8]) -> Answer<Result<Wcc, Refused>> {
        self.remove_of(caller, dir, name)
    }

    fn rmdir_by(&self, caller: &Caller, dir: fileid3, name: &[u8]) -> Answer<Result<Wcc, Refused>> {
        self.rmdir_of(caller, dir, name)
    }

    fn rename_by(&self, caller: &Caller, args: RenameArgs<'_>) -> Answer<Result<(Wcc, Wcc), RenameRefused>> {
        self.rename_of(caller, args)
    }

    fn link_by(
        &self,
        caller: &Caller,
        id: fileid3,
        dir: fileid3,
        _name: &[u8],
    ) -> Answer<Result<(Option<fattr3>, Wcc), (Option<fattr3>, Refused)>> {
        self.link_of(caller, id, dir)
    }
}

/// Whoever embeds the file system through nfsserve's trait, which has no caller, acts as the superuser.
fn embedder() -> Caller {
    let credentials = Credentials { uid: 0, gid: 0, gids: Default::default() };
    Caller { credentials, peer: ([127, 0, 0, 1], 0).into(), read_only: false }
}

async fn wait<T: Send + 'static, E: Refusal>(answer: Answer<Result<T, E>>) -> Result<T, nfsstat3> {
    answer.wait().await.map_err(|e| e.status())
}

/// What a failure comes to where nothing but a status can be said.
trait Refusal: Send + 'static {
    fn status(&self) -> nfsstat3;
}

impl Refusal for nfsstat3 {
    fn status(&self) -> nfsstat3 {
        *self
    }
}

impl Refusal for Failure {
    fn status(&self) -> nfsstat3 {
        self.status
    }
}

impl Refusal for Refused {
    fn status(&self) -> nfsstat3 {
        self.status
    }
}

impl Refusal for RenameRefused {
    fn status(&self) -> nfsstat3 {
        self.status
    }
}

/// The attributes after a change.
fn after(wcc: Wcc) -> Result<fattr3, nfsstat3> {
    wcc.after.ok_or(nfsstat3::NFS3ERR_STALE)
}

#[async_trait]
impl NFSFileSystem for Fs {
    fn capabilities(&self) -> VFSCapabilities {
        if self.settings.read_only { VFSCapabilities::ReadOnly } else { VFSCapabilities::ReadWrite }
    }

    fn root_dir(&self) -> fileid3 {
        Ino::ROOT.0
    }

    async fn lookup(&self, dirid: fileid3, filename: &filename3) -> Result<fileid3, nfsstat3> {
        match &filename.0[..] {
            b"." => Ok(dirid),
            b".." => Ok(wait(self.parent_of(&embedder(), dirid)).await?.id),
            name => Ok(wait(self.lookup_of(&embedder(), dirid, name)).await?.id),
        }
    }

    async fn getattr(&self, id: fileid3) -> Result<fattr3, nfsstat3> {
        wait(self.getattr_of(id)).await
    }

    async fn setattr(&self, id: fileid3, setattr: sattr3) -> Result<fattr3, nfsstat3> {
        after(wait(self.setattr_of(&embedder(), id, setattr, None)).await?)
    }

    async fn read(&self, id: fileid3, offset: u64, count: u32) -> Result<(Vec<u8>, bool), nfsstat3> {
        let read = wait(self.read_of(&embedder(), id, offset, count)).await?;
        let bytes = match read.data {
            Tail::None => Vec::new(),
            Tail::Bytes(bytes) => bytes.to_vec(),
            Tail::File(range) => tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; range.len as usize];
                read_exact_at(&range.file, &mut bytes, range.offset).map(|()| bytes)
            })
            .await
            .map_err(|_| nfsstat3::NFS3ERR_IO)?
            .map_err(|_| nfsstat3::NFS3ERR_IO)?,
        };
        Ok((bytes, read.eof))
    }

    /// Whoever cannot ask for a COMMIT gets what needs none.
    async fn write(&self, id: fileid3, offset: u64, data: &[u8]) -> Result<fattr3, nfsstat3> {
        let mut at = offset;
        for part in data.chunks(WRITE_MAX as usize) {
            wait(self.write_of(&embedder(), id, at, part, Stability::Unstable)).await?;
            at = at.saturating_add(part.len() as u64);
        }
        after(wait(self.commit_of(id)).await?)
    }

    async fn create(&self, dir: fileid3, name: &filename3, set: sattr3) -> Result<(fileid3, fattr3), nfsstat3> {
        let made = wait(self.create_of(&embedder(), dir, &name.0, CreateMode::Unchecked(set))).await?;
        Ok((made.id, made.attr))
    }

    /// The trait has no verifier, so a second call is refused like anybody's.
    async fn create_exclusive(&self, dir: fileid3, name: &filename3) -> Result<fileid3, nfsstat3> {
        let guarded = CreateMode::Guarded(sattr3::default());
        Ok(wait(self.create_of(&embedder(), dir, &name.0, guarded)).await?.id)
    }

    async fn mkdir(&self, dir: fileid3, name: &filename3) -> Result<(fileid3, fattr3), nfsstat3> {
        let made = wait(self.mkdir_of(&embedder(), dir, &name.0, sattr3::default())).await?;
        Ok((made.id, made.attr))
    }

    /// The trait has one method for both kinds, as nfsserve sends RMDIR here, too.
    async fn remove(&self, dir: fileid3, name: &filename3) -> Result<(), nfsstat3> {
        match wait(self.remove_of(&embedder(), dir, &name.0)).await {
            Err(nfsstat3::NFS3ERR_ISDIR) => wait(self.rmdir_of(&embedder(), dir, &name.0)).await.map(drop),
            other => other.map(drop),
        }
    }

    async fn rename(
        &self,
        from_dir: fileid3,
        from_name: &filename3,
        to_dir: fileid3,
        to_name: &filename3,
    ) -> Result<(), nfsstat3> {
        let args = RenameArgs { from: from_dir, from_name: &from_name.0, to: to_dir, to_name: &to_name.0 };
        wait(self.rename_of(&embedder(), args)).await.map(drop)
    }

    async fn readdir(
        &self,
        dirid: fileid3,
        start_after: fileid3,
        max_entries: usize,
    ) -> Result<ReadDirResult, nfsstat3> {
        let after = match start_after {
            0 => 0,
            id => self.index.cookie(Ino(id)).map_err(super::error::of_index)?.ok_or(nfsstat3::NFS3ERR_BAD_COOKIE)?,
        };
        let args = ListArgs { dir: dirid, after, max_entries, with_attrs: true };
        let listing = wait(self.list_of(&embedder(), args)).await?;
        let entries = listing.entries.into_iter().filter_map(|entry| {
            Some(DirEntry { fileid: entry.id, name: nfsstring(entry.name.into_vec()), attr: entry.attr? })
        });
        Ok(ReadDirResult { entries: entries.collect(), end: listing.end })
    }

    async fn symlink(
        &self,
        dir: fileid3,
        name: &filename3,
        target: &nfspath3,
        set: &sattr3,
    ) -> Result<(fileid3, fattr3), nfsstat3> {
        let made = wait(self.symlink_of(&embedder(), dir, &name.0, &target.0, *set)).await?;
        Ok((made.id, made.attr))
    }

    async fn readlink(&self, id: fileid3) -> Result<nfspath3, nfsstat3> {
        let (target, _) = wait(self.readlink_of(&embedder(), id)).await?;
        Ok(nfsstring(target))
    }

    async fn fsinfo(&self, root: fileid3) -> Result<fsinfo3, nfsstat3> {
        let info = wait(self.fsinfo_of(root)).await?;
        Ok(fsinfo3 {
            obj_attributes: info.attr.map_or(post_op_attr::Void, post_op_attr::attributes),
            rtmax: info.read_max,
            rtpref: info.read_preferred,
            rtmult: 4096,
            wtmax: info.write_max,
            wtpref: info.write_preferred,
            wtmult: 4096,
            dtpref: info.readdir_preferred,
            maxfilesize: info.max_file_bytes,
            time_delta: nfstime3 { seconds: 0, nseconds: 1 },
            properties: info.properties,
        })
    }

    fn id_to_fh(&self, id: fileid3) -> nfs_fh3 {
        nfs_fh3 { data: self.handles.encode(id).to_vec() }
    }

    fn fh_to_id(&self, handle: &nfs_fh3) -> Result<fileid3, nfsstat3> {
        self.handles.decode(&handle.data)
    }

    fn serverid(&self) -> cookieverf3 {
        // Handles and cookies mean the same after a restart, so the id is the file system's, not the boot's.
        self.handles.fsid().to_be_bytes()
    }
}
