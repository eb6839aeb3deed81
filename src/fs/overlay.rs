//! Bytes of files that S3 does not have yet: what was written lies in the staging file, over the version below, which
//! may be here, partly here, or not. What is all in the staging file goes out as a range of it; what is not is
//! put together in memory, after the part of the version below that it needs was fetched.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use nfsserve::nfs::{fattr3, nfsstat3};

use super::ext::{Answer, Failure, ReadOk};
use super::read::READ_MAX;
use super::{ATTEMPTS, Fs, error};
use crate::content::{Below, Piece, Staged};
use crate::index::Node;
use crate::rpc::Tail;

impl Fs {
    /// The staging file of `node`, if it has one; `None` also when its upload ended meanwhile: look at the inode again.
    pub(super) fn staged_of(&self, node: &Node) -> Result<Option<Arc<Staged>>, nfsstat3> {
        if node.staged.is_none() {
            return Ok(None);
        }
        match self.content.staged(node) {
            Ok(staged) => Ok(Some(staged)),
            Err(e) if self.node(node.ino.0)?.staged == node.staged => Err(error::of_io(e)),
            Err(_) => Ok(None),
        }
    }

    /// READ of a file with staged bytes.
    pub(super) fn read_staged(&self, node: Arc<Node>, offset: u64, count: u32) -> Answer<Result<ReadOk, Failure>> {
        if let Ok(Some(staged)) = self.staged_of(&node)
            && let Some(read) = self.read_in_place(&node, &staged, offset, count)
        {
            return Answer::Now(Ok(read));
        }
        let fs = self.clone();
        Answer::Later(Box::pin(async move { fs.read_laid_over(node.ino.0, offset, count).await }))
    }

    /// What lies in the staging file in one piece, or beyond the end.
    fn read_in_place(&self, node: &Node, staged: &Staged, offset: u64, count: u32) -> Option<ReadOk> {
        let mut pieces = staged.pieces(range(offset, count));
        let data = match (pieces.pop(), pieces.is_empty()) {
            (None, _) => Tail::None,
            (Some(Piece::Here(file)), true) => Tail::File(file),
            _ => return None,
        };
        let live = staged.live();
        let count = if let Tail::File(file) = &data { file.len } else { 0 };
        let eof = offset.saturating_add(u64::from(count)) >= live.size;
        Some(ReadOk { attr: self.attributes_as(node, Some(live)), count, eof, data })
    }

    async fn read_laid_over(self, id: u64, offset: u64, count: u32) -> Result<ReadOk, Failure> {
        for _ in 0..ATTEMPTS {
            let node = self.node(id)?;
            if node.staged.is_none() {
                return self.read_clean(node, offset, count).wait().await;
            }
            let fail = |status| self.failure(status, &node);
            let Some(staged) = self.staged_of(&node).map_err(fail)? else { continue };
            if let Some(read) = self.read_in_place(&node, &staged, offset, count) {
                return Ok(read);
            }
            let Some(bytes) = self.laid_over(&node, &staged, range(offset, count)).await.map_err(fail)? else {
                continue;
            };
            let live = staged.live();
            let count = u32::try_from(bytes.len()).expect("cut to READ_MAX");
            let eof = offset.saturating_add(u64::from(count)) >= live.size;
            let attr = self.attributes_as(&node, Some(live));
            return Ok(ReadOk { attr, count, eof, data: Tail::Bytes(bytes) });
        }
        Err(self.failed(nfsstat3::NFS3ERR_JUKEBOX, id))
    }

    /// The target of a link that is not in S3 yet.
    pub(super) async fn target_staged(self, id: u64) -> Result<(Vec<u8>, fattr3), Failure> {
        for _ in 0..ATTEMPTS {
            let node = self.node(id)?;
            let fail = |status| self.failure(status, &node);
            if node.staged.is_none() {
                return self.target_clean(node).wait().await;
            }
            let Some(staged) = self.staged_of(&node).map_err(fail)? else { continue };
            if let Some(bytes) = self.laid_over(&node, &staged, 0..node.size).await.map_err(fail)? {
                return Ok((bytes.to_vec(), self.attributes(&node)));
            }
        }
        Err(self.failed(nfsstat3::NFS3ERR_JUKEBOX, id))
    }

    /// `range` in one buffer; `None` when the version below was another one meanwhile.
    async fn laid_over(&self, node: &Node, staged: &Arc<Staged>, range: Range<u64>) -> Result<Option<Bytes>, nfsstat3> {
        let below = self.below(node, &staged.pieces(range.clone())).await?;
        let staged = staged.clone();
        let read = tokio::task::spawn_blocking(move || staged.read(range, below.as_ref())).await;
        match read.map_err(io::Error::other).flatten() {
            Ok((bytes, _)) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(error::of_io(e)),
        }
    }

    /// What `pieces` need of the version below, fetched if it must be.
    async fn below(&self, node: &Node, pieces: &[Piece]) -> Result<Option<Below>, nfsstat3> {
        let needed = pieces.iter().filter_map(|piece| match piece {
            Piece::Base(range) => Some(range.clone()),
            Piece::Here(_) | Piece::Zeros(_) => None,
        });
        let Some(needed) = needed.reduce(|all, next| all.start..next.end) else { return Ok(None) };
        if let Some(below) = self.content.below(node, &needed).map_err(error::of_io)? {
            return Ok(Some(below));
        }
        let fetched = self.revalidator.fetch(node.ino, needed).await;
        fetched.map(|(_, object)| Some(Below::Version(object))).map_err(error::of_wait)
    }

    /// A failure with the attributes of `id`, where they are known.
    fn failed(&self, status: nfsstat3, id: u64) -> Failure {
        match self.node(id) {
            Ok(node) => self.failure(status, &node),
            Err(status) => status.into(),
        }
    }
}

/// What a READ asks for.
fn range(offset: u64, count: u32) -> Range<u64> {
    offset..offset.saturating_add(u64::from(count.min(READ_MAX)))
}
