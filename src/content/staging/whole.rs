//! Staging files that are written before there is an inode for them: the target of a link to be. The other order than
//! everywhere else, because what a link says must never be other than whole.
//! Invariant: until the inode is there, the ledger knows of the file, so the sweep at start leaves it.

use std::fs::OpenOptions;
use std::io::{self, Write};

use bytes::Bytes;
use tracing::warn;

use super::super::{Content, blocking};
use crate::types::ObjectId;

impl Content {
    /// Makes the staging file of an inode to be, with all of its bytes, durably.
    /// # Errors
    /// What the OS says; nothing is left of it then.
    pub async fn stage_whole(&self, id: ObjectId, bytes: Bytes) -> io::Result<()> {
        self.room_to_write(bytes.len() as u64).await?;
        let volume = self.volume.clone();
        let written = blocking(move || {
            volume.ledger.stage(id, bytes.len() as u64);
            let mut file = OpenOptions::new().write(true).create_new(true).open(volume.dir.path(id))?;
            let name = volume.dir.name_made();
            file.write_all(&bytes)?;
            volume.faults.before_sync()?;
            file.sync_data()?;
            volume.dir.settle_name(name)
        });
        written.await.inspect_err(|_| self.remove_staging(id))
    }

    /// Removes what `stage_whole` made, if the inode did not come to be.
    pub fn abandon_staged(&self, id: ObjectId) {
        match self.index.staged(id) {
            Ok(Some(_)) => {}
            Ok(None) => self.remove_staging(id),
            Err(error) => warn!(staged = id.0, %error, "cannot tell whether a staging file is needed"),
        }
    }
}
