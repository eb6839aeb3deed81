//! A tiny file system in memory, with every kind of object and every kind of refusal.
//!
//! ```text
//! / (1)   hello (2)   sub/ (3) deep/ (5) file (6)   link (4) -> sub/deep   locked/ (7)   disk (8)   slow (9)
//! ```
//! `locked` refuses everybody but uid 0; `slow` answers JUKEBOX; inode 99 has a handle and is gone.
//! Changes are ROFS for everybody but uid 0; for uid 0 nothing changes, but the answer is that of a success, and the
//! name of what was asked for, as Rust writes it, is in `asked`.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use nfs3_types::nfs3 as wire;
use nfsserve::nfs::*;
use nfsserve::vfs::{NFSFileSystem, ReadDirResult, VFSCapabilities};

use crate::fs::ext::{
    Accessed, Answer, Caller, CreateMode, Entry, Failure, FsInfo, FsStat, ListArgs, Listing, Looked, Made, NfsExt,
    PathConf, ReadOk, Refused, RenameArgs, RenameRefused, SpecialKind, Stability, Wcc, Written,
};
use crate::rpc::{FileRange, Tail};

pub(super) const ROOT: u64 = 1;
pub(super) const HELLO: u64 = 2;
pub(super) const SUB: u64 = 3;
pub(super) const LINK: u64 = 4;
pub(super) const DEEP: u64 = 5;
pub(super) const FILE: u64 = 6;
pub(super) const LOCKED: u64 = 7;
pub(super) const DISK: u64 = 8;
pub(super) const SLOW: u64 = 9;
pub(super) const GONE: u64 = 99;

pub(super) const HELLO_BYTES: &[u8] = b"hello, world!";
pub(super) const TARGET: &[u8] = b"sub/deep";
/// The write verifier.
pub(super) const VERIFIER: [u8; 8] = *b"verifier";
/// FSINFO's rtmax: short, so that tests see READ being cut.
pub(super) const READ_MAX: u32 = 8;

enum Kind {
    File,
    Link,
    Dir(Dir),
}

struct Dir {
    parent: u64,
    entries: Vec<(Box<[u8]>, u64)>,
}

/// The file system.
pub(super) struct Double {
    nodes: HashMap<u64, Kind>,
    disk: Arc<std::fs::File>,
    /// Answers come later, all of them.
    pub(super) late: bool,
    /// How many entries a listing gives, whatever was asked for.
    pub(super) batch: usize,
    /// Whether entries have attributes.
    pub(super) attrs: bool,
    /// The changes asked for.
    pub(super) asked: Mutex<Vec<String>>,
}

impl Double {
    pub(super) fn new(late: bool) -> Double {
        let dir = |parent, entries: &[(&[u8], u64)]| {
            let entries = entries.iter().map(|(name, id)| (Box::from(*name), *id)).collect();
            Kind::Dir(Dir { parent, entries })
        };
        let root: &[(&[u8], u64)] =
            &[(b"hello", 2), (b"sub", 3), (b"link", 4), (b"locked", 7), (b"disk", 8), (b"slow", 9)];
        let mut disk = tempfile::tempfile().unwrap();
        disk.write_all(HELLO_BYTES).unwrap();
        let nodes = HashMap::from([
            (ROOT, dir(ROOT, root)),
            (HELLO, Kind::File),
            (SUB, dir(ROOT, &[(b"deep", DEEP)])),
            (LINK, Kind::Link),
            (DEEP, dir(SUB, &[(b"file", FILE)])),
            (FILE, Kind::File),
            (LOCKED, dir(ROOT, &[(b"secret", 10)])),
            (DISK, Kind::File),
            (SLOW, Kind::File),
        ]);
        Double { nodes, disk: Arc::new(disk), late, batch: 100, attrs: true, asked: Mutex::default() }
    }

    /// One with these names in its root, and nothing else.
    pub(super) fn listing(names: &[Vec<u8>], batch: usize, attrs: bool) -> Double {
        let entries = names.iter().zip(1000..).map(|(name, id)| (Box::from(&name[..]), id)).collect();
        let nodes = HashMap::from([(ROOT, Kind::Dir(Dir { parent: ROOT, entries }))]);
        Double { nodes, batch, attrs, ..Double::new(false) }
    }

    fn answer<T: Send + 'static>(&self, value: T) -> Answer<T> {
        if self.late { Answer::Later(Box::pin(async move { value })) } else { Answer::Now(value) }
    }

    /// Notes `what`, and answers a change of `id`.
    fn change<T: Send + 'static>(
        &self,
        caller: &Caller,
        id: u64,
        what: String,
        done: impl FnOnce() -> T,
    ) -> Answer<Result<T, Refused>> {
        self.asked.lock().unwrap().push(what);
        let refused = |status| Refused { status, wcc: Wcc { before: None, after: Some(attr(id)) } };
        self.answer(match self.node(id) {
            Err(status) => Err(status.into()),
            Ok(_) if caller.credentials.uid != 0 => Err(refused(nfsstat3::NFS3ERR_ROFS)),
            Ok(_) => Ok(done()),
        })
    }

    /// Attributes after a change that was refused.
    fn after(&self, id: u64) -> Wcc {
        Wcc { before: None, after: self.node(id).ok().map(|_| attr(id)) }
    }

    fn make(&self, caller: &Caller, dir: u64, what: String) -> Answer<Result<Made, Refused>> {
        self.change(caller, dir, what, || Made { id: FILE, attr: attr(FILE), dir: wcc(dir) })
    }

    fn node(&self, id: u64) -> Result<&Kind, nfsstat3> {
        self.nodes.get(&id).ok_or(nfsstat3::NFS3ERR_STALE)
    }

    fn dir(&self, caller: &Caller, id: u64) -> Result<&Dir, Failure> {
        let Kind::Dir(dir) = self.node(id)? else {
            return Err(fails(id, nfsstat3::NFS3ERR_NOTDIR));
        };
        if id == LOCKED && caller.credentials.uid != 0 {
            return Err(fails(id, nfsstat3::NFS3ERR_ACCES));
        }
        Ok(dir)
    }

    fn read(&self, id: u64, offset: u64, count: u32) -> Result<ReadOk, Failure> {
        if !matches!(self.node(id)?, Kind::File) {
            return Err(fails(id, nfsstat3::NFS3ERR_ISDIR));
        }
        if id == SLOW {
            return Err(fails(id, nfsstat3::NFS3ERR_JUKEBOX));
        }
        let from = HELLO_BYTES.len().min(offset as usize);
        let to = HELLO_BYTES.len().min(from + count as usize);
        let len = (to - from) as u32;
        let data = match id {
            DISK => Tail::File(FileRange { file: Arc::clone(&self.disk), offset, len }),
            _ if len == 0 => Tail::None,
            _ => Tail::Bytes(HELLO_BYTES[from..to].into()),
        };
        Ok(ReadOk { attr: attr(id), count: len, eof: to == HELLO_BYTES.len(), data })
    }

    fn list(&self, caller: &Caller, args: ListArgs) -> Result<Listing, Failure> {
        let Dir { parent, entries: all } = self.dir(caller, args.dir)?;
        let with_attr = |id| (args.with_attrs && self.attrs).then(|| attr(id));
        let after: Vec<_> = all.iter().zip(1..).filter(|(_, nth)| cookie(*nth) > args.after.max(2)).collect();
        let entry = |((name, id), nth): &(&(Box<[u8]>, u64), u64)| Entry {
            id: *id,
            name: name.clone(),
            cookie: cookie(*nth),
            attr: with_attr(*id),
        };
        let entries: Vec<_> = after.iter().take(self.batch).map(entry).collect();
        let end = entries.len() == after.len();
        Ok(Listing { dir_attr: attr(args.dir), parent: *parent, parent_attr: with_attr(*parent), entries, end })
    }
}

/// Cookie of the `nth` entry: any number that grows.
fn cookie(nth: u64) -> u64 {
    2 + nth * nth
}

fn fails(id: u64, status: nfsstat3) -> Failure {
    Failure { status, attr: Some(attr(id)) }
}

fn kind_of(id: u64) -> ftype3 {
    match id {
        ROOT | SUB | DEEP | LOCKED => ftype3::NF3DIR,
        LINK => ftype3::NF3LNK,
        _ => ftype3::NF3REG,
    }
}

/// Attributes, no two fields alike.
pub(super) fn attr(id: u64) -> fattr3 {
    // of forged handles, too
    let n = id as u32 % 1000 * 100;
    let time = |add| nfstime3 { seconds: n + add, nseconds: n + add + 1 };
    fattr3 {
        ftype: kind_of(id),
        mode: n + 1,
        nlink: n + 2,
        uid: n + 3,
        gid: n + 4,
        size: id << 40 | 5,
        used: id << 40 | 6,
        rdev: specdata3 { specdata1: n + 7, specdata2: n + 8 },
        fsid: id << 40 | 9,
        fileid: id,
        atime: time(10),
        mtime: time(20),
        ctime: time(30),
    }
}

/// Attributes around a change that changed nothing.
fn wcc(id: u64) -> Wcc {
    let fattr3 { size, mtime, ctime, .. } = attr(id);
    Wcc { before: Some(wcc_attr { size, mtime, ctime }), after: Some(attr(id)) }
}

/// The same in the other crate's words.
pub(super) fn wire_wcc(id: u64) -> wire::wcc_data {
    let wire::fattr3 { size, mtime, ctime, .. } = wire_attr(id);
    let before = wire::pre_op_attr::Some(wire::wcc_attr { size, mtime, ctime });
    wire::wcc_data { before, after: wire::post_op_attr::Some(wire_attr(id)) }
}

/// Attributes in the other crate's words.
pub(super) fn wire_attr(id: u64) -> wire::fattr3 {
    let a = attr(id);
    let time = |t: nfstime3| wire::nfstime3 { seconds: t.seconds, nseconds: t.nseconds };
    wire::fattr3 {
        type_: match a.ftype {
            ftype3::NF3DIR => wire::ftype3::NF3DIR,
            ftype3::NF3LNK => wire::ftype3::NF3LNK,
            _ => wire::ftype3::NF3REG,
        },
        mode: a.mode,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        size: a.size,
        used: a.used,
        rdev: wire::specdata3 { specdata1: a.rdev.specdata1, specdata2: a.rdev.specdata2 },
        fsid: a.fsid,
        fileid: a.fileid,
        atime: time(a.atime),
        mtime: time(a.mtime),
        ctime: time(a.ctime),
    }
}

/// Handle of an inode.
pub(super) fn handle(id: u64) -> Vec<u8> {
    [b"handle of ", &id.to_be_bytes()[..]].concat()
}

impl NfsExt for Double {
    fn read_max(&self) -> u32 {
        READ_MAX
    }

    fn getattr_by(&self, _: &Caller, id: fileid3) -> Answer<Result<fattr3, nfsstat3>> {
        self.answer(self.node(id).map(|_| attr(id)))
    }

    fn lookup_by(&self, caller: &Caller, dir: fileid3, name: &[u8]) -> Answer<Result<Looked, Failure>> {
        assert!(!matches!(name, b"" | b"." | b".."), "those are not the file system's to resolve");
        let found = self.dir(caller, dir).and_then(|Dir { entries, .. }| {
            let entry = entries.iter().find(|(known, _)| **known == *name);
            let (_, id) = entry.ok_or(fails(dir, nfsstat3::NFS3ERR_NOENT))?;
            Ok(Looked { id: *id, attr: attr(*id), dir_attr: Some(attr(dir)) })
        });
        self.answer(found)
    }

    fn parent_by(&self, caller: &Caller, dir: fileid3) -> Answer<Result<Looked, Failure>> {
        self.answer(self.dir(caller, dir).map(|&Dir { parent, .. }| Looked {
            id: parent,
            attr: attr(parent),
            dir_attr: Some(attr(dir)),
        }))
    }

    fn access_by(&self, caller: &Caller, id: fileid3, wanted: u32) -> Answer<Result<Accessed, Failure>> {
        let allowed = if id == LOCKED && caller.credentials.uid != 0 { 0 } else { 0x23 };
        let accessed = self.node(id).map(|_| Accessed { granted: wanted & allowed, attr: attr(id) });
        self.answer(accessed.map_err(Failure::from))
    }

    fn lockable_by(&self, caller: &Caller, id: fileid3, exclusive: bool) -> Result<(), nfsstat3> {
        match self.node(id)? {
            Kind::File if exclusive && caller.credentials.uid != 0 => Err(nfsstat3::NFS3ERR_ROFS),
            Kind::File => Ok(()),
            _ => Err(nfsstat3::NFS3ERR_INVAL),
        }
    }

    fn readlink_by(&self, _: &Caller, id: fileid3) -> Answer<Result<(Vec<u8>, fattr3), Failure>> {
        self.answer(match self.node(id) {
            Ok(Kind::Link) => Ok((TARGET.to_vec(), attr(id))),
            Ok(_) => Err(fails(id, nfsstat3::NFS3ERR_INVAL)),
            Err(status) => Err(status.into()),
        })
    }

    fn read_by(&self, _: &Caller, id: fileid3, offset: u64, count: u32) -> Answer<Result<ReadOk, Failure>> {
        self.answer(Double::read(self, id, offset, count))
    }

    fn list_by(&self, caller: &Caller, args: ListArgs) -> Answer<Result<Listing, Failure>> {
        self.answer(self.list(caller, args))
    }

    fn fsstat_by(&self, _: &Caller, id: fileid3) -> Answer<Result<FsStat, Failure>> {
        let stat = self.node(id).map(|_| FsStat {
            attr: Some(attr(id)),
            total_bytes: 1 << 41,
            free_bytes: 1 << 40,
            available_bytes: 1 << 39,
            total_files: 1 << 38,
            free_files: 1 << 37,
        });
        self.answer(stat.map_err(Failure::from))
    }

    fn fsinfo_by(&self, _: &Caller, id: fileid3) -> Answer<Result<FsInfo, Failure>> {
        let info = self.node(id).map(|_| FsInfo {
            attr: Some(attr(id)),
            read_max: 1 << 20,
            read_preferred: 4,
            write_max: 3,
            write_preferred: 2,
            readdir_preferred: 5,
            max_file_bytes: 50 << 40,
            properties: FSF_SYMLINK | FSF_HOMOGENEOUS,
        });
        self.answer(info.map_err(Failure::from))
    }

    fn pathconf_by(&self, _: &Caller, id: fileid3) -> Answer<Result<PathConf, Failure>> {
        let conf = self.node(id).map(|_| PathConf { attr: Some(attr(id)), link_max: 1, name_max: 255 });
        self.answer(conf.map_err(Failure::from))
    }

    fn write_verifier(&self) -> [u8; 8] {
        VERIFIER
    }

    fn setattr_by(
        &self,
        caller: &Caller,
        id: fileid3,
        set: sattr3,
        guard: Option<nfstime3>,
    ) -> Answer<Result<Wcc, Refused>> {
        self.change(caller, id, format!("setattr {id} {set:?} {guard:?}"), || wcc(id))
    }

    fn write_by(
        &self,
        caller: &Caller,
        id: fileid3,
        offset: u64,
        data: &[u8],
        stable: Stability,
    ) -> Answer<Result<Written, Refused>> {
        let written = || Written { count: data.len() as u32, committed: stable, wcc: wcc(id) };
        self.change(caller, id, format!("write {id} {offset} {data:?} {stable:?}"), written)
    }

    fn commit_by(&self, caller: &Caller, id: fileid3, offset: u64, count: u32) -> Answer<Result<Wcc, Refused>> {
        self.change(caller, id, format!("commit {id} {offset} {count}"), || wcc(id))
    }

    fn create_by(&self, caller: &Caller, dir: fileid3, name: &[u8], how: CreateMode) -> Answer<Result<Made, Refused>> {
        self.make(caller, dir, format!("create {dir} {name:?} {how:?}"))
    }

    fn mkdir_by(&self, caller: &Caller, dir: fileid3, name: &[u8], set: sattr3) -> Answer<Result<Made, Refused>> {
        self.make(caller, dir, format!("mkdir {dir} {name:?} {set:?}"))
    }

    fn symlink_by(
        &self,
        caller: &Caller,
        dir: fileid3,
        name: &[u8],
        target: &[u8],
        set: sattr3,
    ) -> Answer<Result<Made, Refused>> {
        self.make(caller, dir, format!("symlink {dir} {name:?} {target:?} {set:?}"))
    }

    fn mknod_by(
        &self,
        caller: &Caller,
        dir: fileid3,
        name: &[u8],
        kind: SpecialKind,
        set: sattr3,
    ) -> Answer<Result<Made, Refused>> {
        self.make(caller, dir, format!("mknod {dir} {name:?} {kind:?} {set:?}"))
    }

    fn remove_by(&self, caller: &Caller, dir: fileid3, name: &[u8]) -> Answer<Result<Wcc, Refused>> {
        self.change(caller, dir, format!("remove {dir} {name:?}"), || wcc(dir))
    }

    fn rmdir_by(&self, caller: &Caller, dir: fileid3, name: &[u8]) -> Answer<Result<Wcc, Refused>> {
        self.change(caller, dir, format!("rmdir {dir} {name:?}"), || wcc(dir))
    }

    fn rename_by(&self, caller: &Caller, args: RenameArgs<'_>) -> Answer<Result<(Wcc, Wcc), RenameRefused>> {
        let RenameArgs { from, to, .. } = args;
        let [before, after] = [from, to].map(|id| self.after(id));
        let done = || (wcc(from), wcc(to));
        let stale = self.node(to).err();
        self.change(caller, from, format!("{args:?}"), done).map(move |result| match (result, stale) {
            (Ok(done), None) => Ok(done),
            (result, stale) => {
                let status = stale.or(result.err().map(|refused| refused.status));
                Err(RenameRefused { status: status.expect("one of them failed"), from: before, to: after })
            }
        })
    }

    fn link_by(
        &self,
        caller: &Caller,
        id: fileid3,
        dir: fileid3,
        name: &[u8],
    ) -> Answer<Result<(Option<fattr3>, Wcc), (Option<fattr3>, Refused)>> {
        let done = || (Some(attr(id)), wcc(dir));
        let (file, stale) = (self.node(id).ok().map(|_| attr(id)), self.node(id).err());
        let after = self.after(dir);
        self.change(caller, dir, format!("link {id} {dir} {name:?}"), done).map(move |result| match (result, stale) {
            (Ok(done), None) => Ok(done),
            (_, Some(status)) => Err((file, Refused { status, wcc: after })),
            (Err(refused), None) => Err((file, refused)),
        })
    }
}

/// Only the root and the handles are asked for; the rest must not be.
#[async_trait]
impl NFSFileSystem for Double {
    fn capabilities(&self) -> VFSCapabilities {
        VFSCapabilities::ReadOnly
    }
    fn root_dir(&self) -> fileid3 {
        ROOT
    }
    fn id_to_fh(&self, id: fileid3) -> nfs_fh3 {
        nfs_fh3 { data: handle(id) }
    }
    fn fh_to_id(&self, fh: &nfs_fh3) -> Result<fileid3, nfsstat3> {
        let id = fh.data.strip_prefix(b"handle of ").and_then(|id| id.try_into().ok());
        id.map(u64::from_be_bytes).ok_or(nfsstat3::NFS3ERR_BADHANDLE)
    }
    async fn lookup(&self, _: fileid3, _: &filename3) -> Result<fileid3, nfsstat3> {
        unreachable!()
    }
    async fn getattr(&self, _: fileid3) -> Result<fattr3, nfsstat3> {
        unreachable!()
    }
    async fn setattr(&self, _: fileid3, _: sattr3) -> Result<fattr3, nfsstat3> {
        unreachable!()
    }
    async fn read(&self, _: fileid3, _: u64, _: u32) -> Result<(Vec<u8>, bool), nfsstat3> {
        unreachable!()
    }
    async fn write(&self, _: fileid3, _: u64, _: &[u8]) -> Result<fattr3, nfsstat3> {
        unreachable!()
    }
    async fn create(&self, _: fileid3, _: &filename3, _: sattr3) -> Result<(fileid3, fattr3), nfsstat3> {
        unreachable!()
    }
    async fn create_exclusive(&self, _: fileid3, _: &filename3) -> Result<fileid3, nfsstat3> {
        unreachable!()
    }
    async fn mkdir(&self, _: fileid3, _: &filename3) -> Result<(fileid3, fattr3), nfsstat3> {
        unreachable!()
    }
    async fn remove(&self, _: fileid3, _: &filename3) -> Result<(), nfsstat3> {
        unreachable!()
    }
    async fn rename(&self, _: fileid3, _: &filename3, _: fileid3, _: &filename3) -> Result<(), nfsstat3> {
        unreachable!()
    }
    async fn readdir(&self, _: fileid3, _: fileid3, _: usize) -> Result<ReadDirResult, nfsstat3> {
        unreachable!()
    }
    async fn symlink(
        &self,
        _: fileid3,
        _: &filename3,
        _: &nfspath3,
        _: &sattr3,
    ) -> Result<(fileid3, fattr3), nfsstat3> {
        unreachable!()
    }
    async fn readlink(&self, _: fileid3) -> Result<nfspath3, nfsstat3> {
        unreachable!()
    }
}
