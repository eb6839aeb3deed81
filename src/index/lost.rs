//! Bytes that were changed here and are lost: the disk does not have what it had promised. For `fsck` to repair.

use redb::ReadableTable;

use super::Index;
use super::change::Change;
use super::conflict::Conflict;
use super::journal;
use super::model::{IndexError, Pending, Remote};
use crate::types::ObjectId;

impl Index {
    /// Says that the bytes of `staged` are lost: its file goes back to the version that S3 has, and a conflict is noted.
    /// False: S3 has none of it, or the file is staged no more. Its attributes are in doubt after that, but for those
    /// that are pending themselves.
    pub async fn lose_staged(&self, staged: ObjectId) -> Result<bool, IndexError> {
        self.writer.run(1, move |change| lose_staged(change, staged)).await
    }
}

fn lose_staged(change: &mut Change<'_>, staged: ObjectId) -> Result<bool, IndexError> {
    let row = change.tables.staging.get(staged.0)?.and_then(|row| journal::decode_staged(row.value()));
    let before = row.map(|row| change.row(row.ino)).transpose()?.flatten();
    let Some(before) = before.filter(|before| before.inode.staged == Some(staged)) else { return Ok(false) };
    let Some(remote) = before.inode.remote.clone() else { return Ok(false) };
    let ino = before.inode.ino;
    let mut after = before.clone();
    let inode = &mut after.inode;
    (inode.staged, inode.size, inode.attributes_known) = (None, remote.size, false);
    if remote.last_modified != Remote::UNTOLD {
        inode.mtime = remote.last_modified;
    }
    inode.advance_ctime(change.now);
    change.remove_staged(staged)?;
    change.discard(staged)?;
    // what was staged may have been merged into the version below (`content::staging::promote`)
    if let Some(local) = inode.local.take() {
        change.discard(local.object)?;
    }
    change.replace(&before, after);
    if let Some(pending) = change.pending(ino)? {
        let number = change.number();
        change.put_pending(ino, &Pending { content: false, change: number, ..pending })?;
    }
    if let Some(freshness) = change.load_freshness(ino)? {
        freshness.expire();
    }
    let key = change.path_key(ino)?.map(|key| key.to_string()).unwrap_or_default();
    let what = "what was written here was lost from the disk: S3's version is in its place".into();
    change.record_conflict(&Conflict { key, kept_as: String::new(), at: change.now.0, what })?;
    Ok(true)
}
