//! A staging file as it is at one moment, in a file of its own: for an upload that takes longer than the file is quiet.
//! Invariants
//! - It is one version. What is written while the copy is made is copied again; only the last of it, some MiB where the
//!   disk is faster than the writers, while nobody writes. A file system with reflinks copies nothing.
//! - No row speaks of it: its file goes with it, and the next start removes one that a crash has left.

use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use tracing::warn;

use super::super::disk;
use super::super::ranges::RangeSet;
use super::super::{Content, blocking};
use super::Staged;
use super::overlay::Overlay;
use crate::types::ObjectId;

/// What is left to copy when writers are held out.
const LAST_BYTES: u64 = 8 << 20;
/// Copies of what was written during the one before; then writers wait.
const PASSES: usize = 8;

/// See above.
pub struct Frozen {
    copy: Arc<Staged>,
    of: Arc<Staged>,
    version: u64,
}

impl Frozen {
    /// The bytes as they were.
    pub fn bytes(&self) -> &Arc<Staged> {
        &self.copy
    }

    /// The file that it was made of, and its version then.
    pub fn origin(&self) -> (&Arc<Staged>, u64) {
        (&self.of, self.version)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.copy.volume.ledger.unstage(self.copy.id);
        if let Err(error) = self.copy.volume.dir.unlink(self.copy.id) {
            warn!(staged = self.copy.id.0, %error, "cannot remove a copy; the next start will try again");
        }
    }
}

impl Content {
    /// Copies what was written to `staged`, as it is at one moment of the call.
    /// # Errors
    /// What the OS says; `StorageFull` when the disk has no room for another one.
    pub async fn freeze(&self, staged: &Arc<Staged>) -> io::Result<Frozen> {
        let bytes = staged.state.lock().overlay.written().bytes();
        self.room_to_write(bytes).await?;
        let id = self.new_staging().await?;
        // in the table before it is on the disk: so the sweep of orphans knows it
        self.ledger.stage(id, bytes);
        let staged = staged.clone();
        blocking(move || {
            let (copy, version) = staged.copy_to(id).inspect_err(|_| staged.volume.ledger.unstage(id))?;
            Ok(Frozen { copy, of: staged, version })
        })
        .await
    }
}

impl Staged {
    fn copy_to(&self, id: ObjectId) -> io::Result<(Arc<Staged>, u64)> {
        let path = self.volume.dir.path(id);
        let to = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let copied = self.copy_all(&to);
        self.state.lock().watched = None;
        let (overlay, version) = copied.inspect_err(|_| drop(self.volume.dir.unlink(id)))?;
        Ok((self.twin(id, overlay, to), version))
    }

    /// Copies until all is of one version; which one, and how it lies over the version below.
    fn copy_all(&self, to: &std::fs::File) -> io::Result<(Overlay, u64)> {
        let file = self.file()?;
        let mut left = {
            let mut state = self.state.lock();
            state.watched = Some(Default::default());
            state.overlay.written().as_slice().to_vec()
        };
        for _ in 0..PASSES {
            for range in left {
                match disk::copy(&file, to, range.clone()) {
                    // cut meanwhile: what of it comes back is written anew
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.state.lock().watch(range),
                    copied => copied?,
                }
            }
            left = self.state.lock().take_watched();
            if left.iter().map(|range| range.end - range.start).sum::<u64>() <= LAST_BYTES {
                break;
            }
        }
        let _gate = self.gate.write();
        let (overlay, version, last) = {
            let mut state = self.state.lock();
            (state.overlay.clone(), state.version, state.take_watched())
        };
        let mut last: RangeSet = left.into_iter().chain(last).collect();
        // of what was cut since there is nothing to copy
        let cut: Vec<Range<u64>> = last.as_slice().iter().flat_map(|r| overlay.written().missing(r.clone())).collect();
        cut.into_iter().for_each(|range| last.remove(range));
        last.as_slice().iter().try_for_each(|range| disk::copy(&file, to, range.clone()))?;
        Ok((overlay, version))
    }
}
