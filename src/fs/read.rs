//! READ and READLINK (RFC 1813 sections 3.3.6 and 3.3.5). Bytes that are here go out as a range of an
//! immutable file, so one reply holds bytes of one version only (F2); what is not here is fetched while
//! the caller waits for its own range (F5).

use std::ops::Range;
use std::sync::Arc;

use nfsserve::nfs::{fattr3, nfsstat3};

use super::ext::{Answer, Caller, Failure, ReadOk};
use super::{Fs, error, now, permission};
use crate::content::Object;
use crate::index::{Kind, Node};
use crate::positioned::read_exact_at;
use crate::rpc::{FileRange, Tail};

/// Largest READ, in bytes: what Linux and macOS ask for at most.
pub(super) const READ_MAX: u32 = 1 << 20;
/// Longest target of a symbolic link, in bytes (PATH_MAX of Linux).
const TARGET_MAX: u64 = 4096;

impl Fs {
    /// READ of `count` bytes at `offset`.
    pub(super) fn read_of(&self, caller: &Caller, id: u64, offset: u64, count: u32) -> Answer<Result<ReadOk, Failure>> {
        let node = now!(self.node(id));
        now!(self.readable(&node, caller));
        self.revalidator.touch(&node);
        if node.staged.is_some() { self.read_staged(node, offset, count) } else { self.read_clean(node, offset, count) }
    }

    /// READ of a file that is what S3 has.
    pub(super) fn read_clean(&self, node: Arc<Node>, offset: u64, count: u32) -> Answer<Result<ReadOk, Failure>> {
        let range = cut(&node, offset, count);
        if range.is_empty() {
            return Answer::Now(Ok(self.nothing(&node, offset)));
        }
        if let Some(object) = self.here(&node, &range) {
            return Answer::Now(Ok(self.bytes(&node, &object, range)));
        }
        let fs = self.clone();
        Answer::Later(Box::pin(async move { fs.fetch_and_read(node, offset, count).await }))
    }

    /// READLINK.
    pub(super) fn readlink_of(&self, _caller: &Caller, id: u64) -> Answer<Result<(Vec<u8>, fattr3), Failure>> {
        let node = now!(self.node(id));
        if node.kind != Kind::Symlink {
            return Answer::Now(Err(self.failure(nfsstat3::NFS3ERR_INVAL, &node)));
        }
        if node.size > TARGET_MAX {
            return Answer::Now(Err(self.failure(nfsstat3::NFS3ERR_IO, &node)));
        }
        self.revalidator.touch(&node);
        if node.staged.is_none() {
            return self.target_clean(node);
        }
        let fs = self.clone();
        Answer::Later(Box::pin(async move { fs.target_staged(node.ino.0).await }))
    }

    /// The target of a link that is what S3 has.
    pub(super) fn target_clean(&self, node: Arc<Node>) -> Answer<Result<(Vec<u8>, fattr3), Failure>> {
        let range = 0..node.size;
        if let Some(object) = self.here(&node, &range) {
            return Answer::Now(self.target(&node, &object));
        }
        let fs = self.clone();
        Answer::Later(Box::pin(async move {
            match fs.revalidator.fetch(node.ino, range).await {
                Ok((node, object)) => fs.target(&node, &object),
                Err(e) => Err(fs.failure(error::of_wait(e), &node)),
            }
        }))
    }

    fn readable(&self, node: &Node, caller: &Caller) -> Result<(), Failure> {
        match node.kind {
            Kind::File if permission::may_read_data(node, &caller.credentials) => Ok(()),
            Kind::File => Err(self.failure(nfsstat3::NFS3ERR_ACCES, node)),
            Kind::Dir => Err(self.failure(nfsstat3::NFS3ERR_ISDIR, node)),
            Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {
                Err(self.failure(nfsstat3::NFS3ERR_INVAL, node))
            }
        }
    }

    /// The object that has all of `range` of this version, if it is here.
    pub(super) fn here(&self, node: &Node, range: &Range<u64>) -> Option<Arc<Object>> {
        let object = self.content.get(node.local?.object)?;
        object.has(range.clone()).then_some(object)
    }

    /// The version can change while its bytes are fetched, and shrink: the range is cut anew for each.
    async fn fetch_and_read(self, node: Arc<Node>, offset: u64, count: u32) -> Result<ReadOk, Failure> {
        let range = cut(&node, offset, count);
        let (node, object) =
            self.revalidator.fetch(node.ino, range).await.map_err(|e| self.failure(error::of_wait(e), &node))?;
        let range = cut(&node, offset, count);
        if range.is_empty() {
            return Ok(self.nothing(&node, offset));
        }
        if !object.has(range.clone()) {
            // The new version is longer than the range that was fetched of it; the client asks again.
            return Err(self.failure(nfsstat3::NFS3ERR_JUKEBOX, &node));
        }
        Ok(self.bytes(&node, &object, range))
    }

    fn bytes(&self, node: &Node, object: &Object, range: Range<u64>) -> ReadOk {
        let len = u32::try_from(range.end - range.start).expect("cut to a READ's count, which is 32 bits");
        let file = FileRange { file: object.file().clone(), offset: range.start, len };
        ReadOk { attr: self.attributes(node), count: len, eof: range.end == node.size, data: Tail::File(file) }
    }

    fn nothing(&self, node: &Node, offset: u64) -> ReadOk {
        ReadOk { attr: self.attributes(node), count: 0, eof: offset >= node.size, data: Tail::None }
    }

    fn target(&self, node: &Node, object: &Object) -> Result<(Vec<u8>, fattr3), Failure> {
        let mut target = vec![0; usize::try_from(node.size).expect("checked against TARGET_MAX")];
        match read_exact_at(object.file(), &mut target, 0) {
            Ok(()) => Ok((target, self.attributes(node))),
            Err(e) => {
                tracing::error!(ino = %node.ino, error = %e, "cannot read the target of a link");
                Err(self.failure(nfsstat3::NFS3ERR_IO, node))
            }
        }
    }
}

/// What a READ of `count` bytes at `offset` can get of this version.
fn cut(node: &Node, offset: u64, count: u32) -> Range<u64> {
    let end = offset.saturating_add(u64::from(count.min(READ_MAX))).min(node.size);
    offset.min(end)..end
}
