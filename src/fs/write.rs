//! WRITE and COMMIT (RFC 1813 sections 3.3.7 and 3.3.21). The first WRITE to a clean file gives it a staging file in a
//! transaction; every other one is a pwrite and memory. UNSTABLE data is durable with the next COMMIT (D1).

use bytes::Bytes;
use nfsserve::nfs::nfsstat3;

use super::attr::{settled, wcc_attr_of};
use super::change::Stop;
use super::ext::{Answer, Caller, Refused, Stability, Wcc, Written};
use super::statfs::MAX_FILE_BYTES;
use super::{ATTEMPTS, Fs, error, now, permission};
use crate::content::Live;
use crate::crash;
use crate::index::{Edit, Inode, Kind, NewAttributes, Node};
use crate::rpc::Credentials;
use crate::types::Ino;

/// Largest WRITE, in bytes.
pub(super) const WRITE_MAX: u32 = 1 << 20;

/// A WRITE, checked as far as it can be before its turn.
struct Write {
    id: u64,
    offset: u64,
    data: Bytes,
    stable: Stability,
    caller: Credentials,
}

/// What the transaction before the first WRITE did.
struct Prepared {
    /// Attributes before it.
    wcc: Wcc,
    /// The inode after it.
    inode: Inode,
}

impl Fs {
    /// WRITE.
    pub(super) fn write_of(
        &self,
        caller: &Caller,
        id: u64,
        offset: u64,
        data: &[u8],
        stable: Stability,
    ) -> Answer<Result<Written, Refused>> {
        now!(self.writable(caller, id));
        let node = now!(self.node(id));
        let caller = caller.credentials.clone();
        now!(may_write(&node, &caller).map_err(|status| Refused { status, wcc: self.unchanged(&node) }));
        let data = &data[..data.len().min(WRITE_MAX as usize)];
        if data.is_empty() {
            return Answer::Now(Ok(Written { count: 0, committed: stable, wcc: self.unchanged(&node) }));
        }
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > MAX_FILE_BYTES) {
            return Answer::Now(Err(self.refused(nfsstat3::NFS3ERR_FBIG, id)));
        }
        let write = Write { id, offset, data: Bytes::copy_from_slice(data), stable, caller };
        let fs = self.clone();
        Answer::Later(Box::pin(async move { fs.write(write).await }))
    }

    async fn write(self, write: Write) -> Result<Written, Refused> {
        let refused = |e| self.refused(error::of_io(e), write.id);
        let mut prepared = None;
        for _ in 0..ATTEMPTS {
            let node = self.node(write.id)?;
            if !is_prepared(&node, &write.caller) {
                prepared = Some(self.prepare(&write).await?);
                continue;
            }
            let Some(staged) = self.staged_of(&node).map_err(|status| self.refused(status, write.id))? else {
                continue;
            };
            let turn = match staged.try_write_turn() {
                Some(turn) => turn,
                None => match staged.write_turn().await {
                    Some(turn) => turn,
                    // uploaded meanwhile
                    None => continue,
                },
            };
            let at = (self.clock.now(), self.clock.wall());
            let written = self.content.write(&staged, turn, write.offset, write.data.clone(), at).await;
            let (before, after) = written.map_err(refused)?;
            crash::point("fs.after_write");
            if write.stable != Stability::Unstable {
                self.content.sync(&staged).await.map_err(refused)?;
            }
            let wcc = self.around_write(&node, prepared, (before, after));
            let count = u32::try_from(write.data.len()).expect("cut to WRITE_MAX");
            return Ok(Written { count, committed: write.stable, wcc });
        }
        Err(self.refused(nfsstat3::NFS3ERR_JUKEBOX, write.id))
    }

    /// Makes the file one that `write` can go to.
    async fn prepare(&self, write: &Write) -> Result<Prepared, Refused> {
        let staging = self.new_staging(write.id).await?;
        let caller = write.caller.clone();
        let work = move |_: &Fs, edit: &mut Edit<'_, '_>, inode: &Inode| {
            may_write(inode, &caller)?;
            let mut after = inode.clone();
            if inode.staged.is_none() {
                after = edit.stage(inode.ino, staging, inode.size, inode.size)?;
            }
            let mode = permission::mode_after_write(inode, &caller);
            if mode != inode.mode {
                after = edit.set(inode.ino, NewAttributes { mode: Some(mode), ..NewAttributes::default() })?;
            }
            Ok::<_, Stop>(after)
        };
        let (inode, wcc) = self.change(write.id, work).await?;
        Ok(Prepared { wcc, inode })
    }

    /// Attributes around a WRITE: with the transaction before it, unless another WRITE came between.
    fn around_write(&self, node: &Node, prepared: Option<Prepared>, (before, after): (Live, Live)) -> Wcc {
        let first = prepared.filter(|prepared| settled(&prepared.inode) == before).and_then(|first| first.wcc.before);
        let before = first.unwrap_or_else(|| wcc_attr_of(&self.attributes_as(node, Some(before))));
        Wcc { before: Some(before), after: Some(self.attributes_as(node, Some(after))) }
    }

    /// COMMIT, of the whole file whatever was asked for: one fdatasync is for all of it.
    pub(super) fn commit_of(&self, id: u64) -> Answer<Result<Wcc, Refused>> {
        let node = now!(self.node(id));
        let before = self.unchanged(&node);
        if node.kind != Kind::File {
            return Answer::Now(Err(Refused { status: nfsstat3::NFS3ERR_INVAL, wcc: before }));
        }
        // What this process wrote is open; what another one wrote and did not commit is gone, as the verifier tells.
        let open = self.content.staged_if_open(node.ino).filter(|staged| node.staged == Some(staged.id()));
        if open.is_none() && self.uploads.is_none() {
            return Answer::Now(Ok(before));
        }
        let fs = self.clone();
        Answer::Later(Box::pin(async move {
            if let Some(staged) = open {
                fs.content.sync(&staged).await.map_err(|e| fs.refused(error::of_io(e), id))?;
            }
            fs.uploaded(Ino(id)).await.map_err(|status| fs.refused(status, id))?;
            let after = fs.node(id).ok().map(|node| fs.attributes(&node));
            Ok(Wcc { before: before.before, after })
        }))
    }

    /// With `--durability s3`: waits until S3 has the file. JUKEBOX past the deadline, so that nothing hangs; IO when it cannot
    /// be uploaded, and the log says why.
    async fn uploaded(&self, ino: Ino) -> Result<(), nfsstat3> {
        let Some((writeback, deadline)) = &self.uploads else { return Ok(()) };
        match tokio::time::timeout(*deadline, writeback.synced(Some(ino))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_failures)) => Err(nfsstat3::NFS3ERR_IO),
            Err(_elapsed) => Err(nfsstat3::NFS3ERR_JUKEBOX),
        }
    }
}

/// That `caller` may write to `inode`.
/// # Errors
/// ISDIR, INVAL, ACCES.
fn may_write(inode: &Inode, caller: &Credentials) -> Result<(), nfsstat3> {
    match inode.kind {
        Kind::File if permission::may_write_data(inode, caller) => Ok(()),
        Kind::File => Err(nfsstat3::NFS3ERR_ACCES),
        Kind::Dir => Err(nfsstat3::NFS3ERR_ISDIR),
        Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {
            Err(nfsstat3::NFS3ERR_INVAL)
        }
    }
}

/// Whether it has a place for bytes, and no privileges that must go first.
fn is_prepared(inode: &Inode, caller: &Credentials) -> bool {
    inode.staged.is_some() && permission::mode_after_write(inode, caller) == inode.mode
}
