//! What NFSv3 needs of a file system and nfsserve's `NFSFileSystem` cannot say: the caller's identity,
//! an answer that is ready at once, a read that is a range of a file, 64-bit cookies, attributes with
//! every failure. `nfs/` drives a file system through this trait and through nothing else.
//!
//! Rule: a method never blocks and never awaits. What is warm comes back as `Answer::Now`; what must
//! wait for S3 or for the disk comes back as `Answer::Later`, a future that owns all it needs.

use std::net::SocketAddr;

use futures::future::BoxFuture;
use nfsserve::nfs::{fattr3, fileid3, nfs_fh3, nfsstat3, nfstime3, sattr3, wcc_attr};
use nfsserve::vfs::NFSFileSystem;

use crate::rpc::{Credentials, Tail};

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Identity after squashing.
    pub credentials: Credentials,
    /// Address of the client.
    pub peer: SocketAddr,
    /// Whether changes from there are refused with ROFS.
    pub read_only: bool,
}

/// A result that is ready, or a future of it.
pub enum Answer<T> {
    /// Ready.
    Now(T),
    /// Not ready: S3 or a disk is waited for, up to a deadline.
    Later(BoxFuture<'static, T>),
}

impl<T: Send + 'static> Answer<T> {
    /// Does `f` to the result, as soon as it is there.
    pub fn map<U>(self, f: impl FnOnce(T) -> U + Send + 'static) -> Answer<U> {
        match self {
            Answer::Now(value) => Answer::Now(f(value)),
            Answer::Later(future) => Answer::Later(Box::pin(async move { f(future.await) })),
        }
    }

    /// This result with another one, both waited for at once.
    pub fn zip<U: Send + 'static>(self, other: Answer<U>) -> Answer<(T, U)> {
        match (self, other) {
            (Answer::Now(a), other) => other.map(move |b| (a, b)),
            (one, Answer::Now(b)) => one.map(move |a| (a, b)),
            (Answer::Later(a), Answer::Later(b)) => Answer::Later(Box::pin(futures::future::join(a, b))),
        }
    }

    /// The result, waited for.
    pub async fn wait(self) -> T {
        match self {
            Answer::Now(value) => value,
            Answer::Later(future) => future.await,
        }
    }
}

/// Longest file handle of NFSv3, in bytes (RFC 1813 section 2.4).
pub const MAX_HANDLE_BYTES: usize = 64;

/// A file handle, in place: the warm path makes and reads one per call and must not allocate for it.
#[derive(Clone, Copy)]
pub struct Handle {
    len: u8,
    bytes: [u8; MAX_HANDLE_BYTES],
}

impl Handle {
    /// Takes `handle` as it goes on the wire; `None` when it is over 64 bytes long.
    pub fn new(handle: &[u8]) -> Option<Handle> {
        let mut bytes = [0; MAX_HANDLE_BYTES];
        bytes.get_mut(..handle.len())?.copy_from_slice(handle);
        Some(Handle { len: u8::try_from(handle.len()).ok()?, bytes })
    }

    /// The bytes that go on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A failure with the post-operation attributes that RFC 1813 puts into the error's body.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// The error.
    pub status: nfsstat3,
    /// Attributes of the object (of the directory, for LOOKUP), where known.
    pub attr: Option<fattr3>,
}

impl From<nfsstat3> for Failure {
    fn from(status: nfsstat3) -> Failure {
        Failure { status, attr: None }
    }
}

/// Success of LOOKUP (RFC 1813 section 3.3.3).
#[derive(Clone, Copy, Debug)]
pub struct Looked {
    /// What was found.
    pub id: fileid3,
    /// Its attributes.
    pub attr: fattr3,
    /// The directory's attributes.
    pub dir_attr: Option<fattr3>,
}

/// Success of ACCESS (section 3.3.4).
#[derive(Clone, Copy, Debug)]
pub struct Accessed {
    /// The ACCESS3_* bits granted, a subset of those asked for.
    pub granted: u32,
    /// The object's attributes.
    pub attr: fattr3,
}

/// Success of READ (section 3.3.6).
#[derive(Debug)]
pub struct ReadOk {
    /// Attributes of the same version as the bytes.
    pub attr: fattr3,
    /// How many bytes `data` holds.
    pub count: u32,
    /// Whether the last byte of the file is among them.
    pub eof: bool,
    /// The bytes, of one version only.
    pub data: Tail,
}

/// One directory entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its fileid.
    pub id: fileid3,
    /// Its name, as it goes on the wire.
    pub name: Box<[u8]>,
    /// Pass it to continue after this entry. Stable over inserts, removals and restarts; above 2.
    pub cookie: u64,
    /// Its attributes, where READDIRPLUS asks for them.
    pub attr: Option<fattr3>,
}

/// Part of a directory. `.` and `..` are `nfs/`'s to add, with cookies 1 and 2.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Attributes of the directory.
    pub dir_attr: fattr3,
    /// The parent's fileid (the root's own for the root).
    pub parent: fileid3,
    /// Attributes of the parent, where `with_attrs` asked for them.
    pub parent_attr: Option<fattr3>,
    /// Entries after the cookie, in cookie order; empty only at the end.
    pub entries: Vec<Entry>,
    /// Whether the last of `entries` is the last of the directory.
    pub end: bool,
}

/// What READDIR and READDIRPLUS ask for (sections 3.3.16 and 3.3.17).
#[derive(Clone, Copy, Debug)]
pub struct ListArgs {
    /// The directory.
    pub dir: fileid3,
    /// Entries after this cookie; 0, 1 and 2 all mean "from the first".
    pub after: u64,
    /// At most about so many entries: what the reply could hold if names were short.
    pub max_entries: usize,
    /// Whether attributes are wanted.
    pub with_attrs: bool,
}

/// FSSTAT's numbers (section 3.3.18).
#[derive(Clone, Copy, Debug)]
pub struct FsStat {
    /// Attributes of the object asked about.
    pub attr: Option<fattr3>,
    /// Total bytes.
    pub total_bytes: u64,
    /// Free bytes.
    pub free_bytes: u64,
    /// Free bytes for the caller.
    pub available_bytes: u64,
    /// Total file slots.
    pub total_files: u64,
    /// Free file slots.
    pub free_files: u64,
}

/// FSINFO's limits (section 3.3.19), in bytes.
#[derive(Clone, Copy, Debug)]
pub struct FsInfo {
    /// Attributes of the object asked about.
    pub attr: Option<fattr3>,
    /// Largest READ answered.
    pub read_max: u32,
    /// Best READ size.
    pub read_preferred: u32,
    /// Largest WRITE taken.
    pub write_max: u32,
    /// Best WRITE size.
    pub write_preferred: u32,
    /// Best READDIR size.
    pub readdir_preferred: u32,
    /// Largest file.
    pub max_file_bytes: u64,
    /// FSF_* bits.
    pub properties: u32,
}

/// PATHCONF's values (section 3.3.20).
#[derive(Clone, Copy, Debug)]
pub struct PathConf {
    /// Attributes of the object asked about.
    pub attr: Option<fattr3>,
    /// Most hard links to one object.
    pub link_max: u32,
    /// Longest name, in bytes.
    pub name_max: u32,
}

/// Attributes of one object around a change: both as of the change itself (RFC 1813 section 2.6, wcc_data).
#[derive(Clone, Copy, Debug, Default)]
pub struct Wcc {
    /// Size, mtime and ctime before it, where known.
    pub before: Option<wcc_attr>,
    /// Attributes after it, where known.
    pub after: Option<fattr3>,
}

/// A change that was refused, with the attributes that RFC 1813 puts into the error's body.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// The error.
    pub status: nfsstat3,
    /// Of the object (of the directory, where names change).
    pub wcc: Wcc,
}

impl From<nfsstat3> for Refused {
    fn from(status: nfsstat3) -> Refused {
        Refused { status, wcc: Wcc::default() }
    }
}

/// How durable written data is (section 3.3.7, stable_how).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stability {
    /// In memory.
    Unstable = 0,
    /// On the disk, with what is needed to read it.
    DataSync = 1,
    /// On the disk, with all attributes.
    FileSync = 2,
}

/// Success of WRITE (section 3.3.7).
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Bytes taken, from the first.
    pub count: u32,
    /// How durable they are.
    pub committed: Stability,
    /// The file's attributes.
    pub wcc: Wcc,
}

/// How CREATE treats what is there (section 3.3.8, createhow3).
#[derive(Clone, Copy, Debug)]
pub enum CreateMode {
    /// Takes it; only a size given is set.
    Unchecked(sattr3),
    /// Refuses.
    Guarded(sattr3),
    /// Refuses, unless the same call with this verifier made it.
    Exclusive([u8; 8]),
}

/// What MKNOD makes (section 3.3.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialKind {
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device with major and minor number.
    CharDevice(u32, u32),
    /// A block device with major and minor number.
    BlockDevice(u32, u32),
}

/// Success of CREATE, MKDIR, SYMLINK and MKNOD.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// What was made, or found.
    pub id: fileid3,
    /// Its attributes.
    pub attr: fattr3,
    /// The directory's.
    pub dir: Wcc,
}

/// A RENAME that was refused.
#[derive(Clone, Copy, Debug)]
pub struct RenameRefused {
    /// The error.
    pub status: nfsstat3,
    /// The directory it was to leave.
    pub from: Wcc,
    /// The directory it was to enter.
    pub to: Wcc,
}

/// The two names of a RENAME.
#[derive(Clone, Copy, Debug)]
pub struct RenameArgs<'a> {
    /// The directory to leave.
    pub from: fileid3,
    /// The name there.
    pub from_name: &'a [u8],
    /// The directory to enter.
    pub to: fileid3,
    /// The name there.
    pub to_name: &'a [u8],
}

/// The rest of NFSv3, beside `NFSFileSystem`, whose `id_to_fh` and `fh_to_id` make the handles.
/// `nfs/` uses them as `handle_by` and `fileid_by`.
///
/// Names come off the wire and are checked here: `.` and `..` are refused by each procedure as RFC 1813 has it.
pub trait NfsExt: NFSFileSystem + Send + Sync + 'static {
    /// The handle of `id`: `id_to_fh` without its allocation.
    fn handle_by(&self, id: fileid3) -> Handle {
        Handle::new(&self.id_to_fh(id).data).expect("a handle is at most 64 bytes long")
    }
    /// The fileid in a handle off the wire: `fh_to_id` without its allocation. # Errors: BADHANDLE, STALE.
    fn fileid_by(&self, handle: &[u8]) -> Result<fileid3, nfsstat3> {
        self.fh_to_id(&nfs_fh3 { data: handle.to_vec() })
    }
    /// Largest READ answered, in bytes: `FsInfo::read_max` for every object. A larger one is cut to it.
    fn read_max(&self) -> u32 {
        1 << 20
    }

    /// GETATTR. # Errors: STALE, IO.
    fn getattr_by(&self, caller: &Caller, id: fileid3) -> Answer<Result<fattr3, nfsstat3>>;
    /// LOOKUP of a name other than `.` and `..`, which `nfs/` resolves through `parent`.
    /// # Errors: STALE, NOTDIR, ACCES, NOENT, NAMETOOLONG, INVAL, JUKEBOX, IO; `attr` is the directory's.
    fn lookup_by(&self, caller: &Caller, dir: fileid3, name: &[u8]) -> Answer<Result<Looked, Failure>>;
    /// LOOKUP of `..` (the root's parent is the root). # Errors: STALE, NOTDIR, ACCES.
    fn parent_by(&self, caller: &Caller, dir: fileid3) -> Answer<Result<Looked, Failure>>;
    /// ACCESS. # Errors: STALE, IO.
    fn access_by(&self, caller: &Caller, id: fileid3, wanted: u32) -> Answer<Result<Accessed, Failure>>;
    /// READLINK: the target and the link's attributes. # Errors: STALE, INVAL (no symlink), JUKEBOX, IO.
    fn readlink_by(&self, caller: &Caller, id: fileid3) -> Answer<Result<(Vec<u8>, fattr3), Failure>>;
    /// READ. # Errors: STALE, ISDIR, INVAL, ACCES, JUKEBOX, IO.
    fn read_by(&self, caller: &Caller, id: fileid3, offset: u64, count: u32) -> Answer<Result<ReadOk, Failure>>;
    /// READDIR and READDIRPLUS. # Errors: STALE, NOTDIR, ACCES, JUKEBOX, IO.
    fn list_by(&self, caller: &Caller, args: ListArgs) -> Answer<Result<Listing, Failure>>;
    /// FSSTAT. # Errors: STALE, IO.
    fn fsstat_by(&self, caller: &Caller, id: fileid3) -> Answer<Result<FsStat, Failure>>;
    /// FSINFO. # Errors: STALE, IO.
    fn fsinfo_by(&self, caller: &Caller, id: fileid3) -> Answer<Result<FsInfo, Failure>>;
    /// PATHCONF. # Errors: STALE, IO.
    fn pathconf_by(&self, caller: &Caller, id: fileid3) -> Answer<Result<PathConf, Failure>>;

    /// Whether the caller may lock `id`: a regular file that it may read or write, or owns; for writing only where something
    /// can be written. Never waits. # Errors: STALE, INVAL (no regular file), ACCES, ROFS, IO.
    fn lockable_by(&self, caller: &Caller, id: fileid3, exclusive: bool) -> Result<(), nfsstat3>;

    /// Tells whether data written UNSTABLE may be lost: another one after a restart or a failed fsync.
    fn write_verifier(&self) -> [u8; 8];
    /// SETATTR; `guard` is the ctime that the object must have. # Errors: NOT_SYNC, PERM, ACCES, ROFS, INVAL, ISDIR,
    /// FBIG, NOSPC, STALE, IO.
    fn setattr_by(
        &self,
        caller: &Caller,
        id: fileid3,
        set: sattr3,
        guard: Option<nfstime3>,
    ) -> Answer<Result<Wcc, Refused>>;
    /// WRITE of at most `FsInfo::write_max` bytes (more is cut). # Errors: ACCES, ROFS, INVAL, ISDIR, FBIG, NOSPC, STALE, IO.
    fn write_by(
        &self,
        caller: &Caller,
        id: fileid3,
        offset: u64,
        data: &[u8],
        stable: Stability,
    ) -> Answer<Result<Written, Refused>>;
    /// COMMIT; a `count` of 0 means to the end. # Errors: STALE, INVAL, IO, NOSPC.
    fn commit_by(&self, caller: &Caller, id: fileid3, offset: u64, count: u32) -> Answer<Result<Wcc, Refused>>;
    /// CREATE. # Errors: EXIST, ACCES, ROFS, NOTDIR, NAMETOOLONG, INVAL, NOSPC, STALE, JUKEBOX, IO.
    fn create_by(&self, caller: &Caller, dir: fileid3, name: &[u8], how: CreateMode) -> Answer<Result<Made, Refused>>;
    /// MKDIR. # Errors: as CREATE.
    fn mkdir_by(&self, caller: &Caller, dir: fileid3, name: &[u8], set: sattr3) -> Answer<Result<Made, Refused>>;
    /// SYMLINK. # Errors: as CREATE.
    fn symlink_by(
        &self,
        caller: &Caller,
        dir: fileid3,
        name: &[u8],
        target: &[u8],
        set: sattr3,
    ) -> Answer<Result<Made, Refused>>;
    /// MKNOD. # Errors: as CREATE, and PERM (a device, by another than the superuser).
    fn mknod_by(
        &self,
        caller: &Caller,
        dir: fileid3,
        name: &[u8],
        kind: SpecialKind,
        set: sattr3,
    ) -> Answer<Result<Made, Refused>>;
    /// REMOVE. # Errors: NOENT, ISDIR, ACCES, PERM, ROFS, NOTDIR, STALE, JUKEBOX, IO.
    fn remove_by(&self, caller: &Caller, dir: fileid3, name: &[u8]) -> Answer<Result<Wcc, Refused>>;
    /// RMDIR. # Errors: NOENT, NOTDIR, NOTEMPTY, EXIST, INVAL, ACCES, PERM, ROFS, STALE, JUKEBOX, IO.
    fn rmdir_by(&self, caller: &Caller, dir: fileid3, name: &[u8]) -> Answer<Result<Wcc, Refused>>;
    /// RENAME. # Errors: NOENT, EXIST, NOTDIR, ISDIR, NOTEMPTY, INVAL, ACCES, PERM, ROFS, NAMETOOLONG, STALE, JUKEBOX, IO.
    fn rename_by(&self, caller: &Caller, args: RenameArgs<'_>) -> Answer<Result<(Wcc, Wcc), RenameRefused>>;
    /// LINK: the file's attributes and the directory's. # Errors: STALE, ROFS, NOTSUPP.
    #[expect(clippy::type_complexity, reason = "said once, and always refused")]
    fn link_by(
        &self,
        caller: &Caller,
        id: fileid3,
        dir: fileid3,
        name: &[u8],
    ) -> Answer<Result<(Option<fattr3>, Wcc), (Option<fattr3>, Refused)>>;
}
