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
        todo!()
    }

    fn setattr_by(&self, _: &Caller, _: fileid3, _: sattr3, _: Option<nfstime3>) -> Answer<Result<Wcc, Refused>> {
        todo!()
    }

    fn write_by(&self, _: &Caller, _: fileid3, _: u64, _: &[u8], _: Stability) -> Answer<Result<Written, Refused>> {
        todo!()
    }

    fn commit_by(&self, _: &Caller, _: fileid3, _: u64, _: u32) -> Answer<Result<Wcc, Refused>> {
        todo!()
    }

    fn create_by(&self, _: &Caller, _: fileid3, _: &[u8], _: CreateMode) -> Answer<Result<Made, Refused>> {
        todo!()
    }

    fn mkdir_by(&self, _: &Caller, _: fileid3, _: &[u8], _: sattr3) -> Answer<Result<Made, Refused>> {
        todo!()
    }

    fn symlink_by(&self, _: &Caller, _: fileid3, _: &[u8], _: &[u8], _: sattr3) -> Answer<Result<Made, Refused>> {
        todo!()
    }

    fn mknod_by(&self, _: &Caller, _: fileid3, _: &[u8], _: SpecialKind, _: sattr3) -> Answer<Result<Made, Refused>> {
        todo!()
    }

    fn remove_by(&self, _: &Caller, _: fileid3, _: &[u8]) -> Answer<Result<Wcc, Refused>> {
        todo!()
    }

    fn rmdir_by(&self, _: &Caller, _: fileid3, _: &[u8]) -> Answer<Result<Wcc, Refused>> {
        todo!()
    }

    fn rename_by(&self, _: &Caller, _: RenameArgs<'_>) -> Answer<Result<(Wcc, Wcc), RenameRefused>> {
        todo!()
    }

    fn link_by(
        &self,
        _: &Caller,
        _: fileid3,
        _: fileid3,
        _: &[u8],
    ) -> Answer<Result<(Option<fattr3>, Wcc), (Option<fattr3>, Refused)>> {
        todo!()
    }
}

/// Whoever embeds the file system through nfsserve's trait, which has no caller, acts as the superuser.
fn embedder() -> Caller {
    let credentials = Credentials { uid: 0, gid: 0, gids: Default::default() };
    Caller { credentials, peer: ([127, 0, 0, 1], 0).into() }
}

async fn wait<T: Send + 'static, E: Into<Failure> + Send + 'static>(
    answer: Answer<Result<T, E>>,
) -> Result<T, nfsstat3> {
    answer.wait().await.map_err(|e| e.into().status)
}

const READ_ONLY: nfsstat3 = nfsstat3::NFS3ERR_ROFS;

#[async_trait]
impl NFSFileSystem for Fs {
    fn capabilities(&self) -> VFSCapabilities {
        VFSCapabilities::ReadOnly
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

    async fn setattr(&self, _id: fileid3, _setattr: sattr3) -> Result<fattr3, nfsstat3> {
        Err(READ_ONLY)
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

    async fn write(&self, _id: fileid3, _offset: u64, _data: &[u8]) -> Result<fattr3, nfsstat3> {
        Err(READ_ONLY)
    }

    async fn create(&self, _dir: fileid3, _name: &filename3, _attr: sattr3) -> Result<(fileid3, fattr3), nfsstat3> {
        Err(READ_ONLY)
    }

    async fn create_exclusive(&self, _dir: fileid3, _name: &filename3) -> Result<fileid3, nfsstat3> {
        Err(READ_ONLY)
    }

    async fn mkdir(&self, _dir: fileid3, _name: &filename3) -> Result<(fileid3, fattr3), nfsstat3> {
        Err(READ_ONLY)
    }

    async fn remove(&self, _dir: fileid3, _name: &filename3) -> Result<(), nfsstat3> {
        Err(READ_ONLY)
    }

    async fn rename(
        &self,
        _from_dir: fileid3,
        _from_name: &filename3,
        _to_dir: fileid3,
        _to_name: &filename3,
    ) -> Result<(), nfsstat3> {
        Err(READ_ONLY)
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
        _dir: fileid3,
        _name: &filename3,
        _target: &nfspath3,
        _attr: &sattr3,
    ) -> Result<(fileid3, fattr3), nfsstat3> {
        Err(READ_ONLY)
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
