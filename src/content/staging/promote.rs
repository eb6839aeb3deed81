//! After an upload: staging file and base become one object file, the version that S3 has now.
//!
//! It always has a number of its own, so nothing that is still known under an old one changes its meaning. Its
//! bytes come together in the cheaper of two ways:
//! - In the staging file: the base's bytes are copied between those that were written, where they are nobody's. Then
//!   the file gets a second name under `objects/`. A file that was written as a whole copies nothing.
//! - In the base's file, by a second name of it: what was written is copied over it. For a complete base alone: nobody
//!   fills it any more. It is changed only where every reader looks into the staging file, before and after a crash,
//!   because the row of that is durable first; and it goes as soon as the result is settled. So the base of
//!   an inode must not be used without what is staged over it: who gives up a staging file gives up its base as well.
//!
//! A crash before `Index::settle` leaves an object without a row, swept at start, and everything else as it was
//! (a base that was shortened is torn: clean, and fetched again).

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::super::ranges::RangeSet;
use super::super::{Content, Object, blocking, disk};
use super::Staged;
use super::file::AT_ONCE_BYTES;
use super::overlay::Overlay;
use crate::crash;
use crate::index::{Inode, Local, ObjectRow, Presence};
use crate::types::ObjectId;

/// How the bytes come together.
struct Merge {
    staged: Arc<Staged>,
    overlay: Overlay,
    base: Option<Arc<Object>>,
    /// What is needed of the base, and here.
    wanted: Vec<Range<u64>>,
    into_base: bool,
}

impl Content {
    /// Makes the object file that holds all of a settled version: `staged` laid over `base`, merged in the cheaper
    /// direction (whole-file writes: the staging file itself, by a second name). `Index::settle` puts it in the place
    /// of both; until then both stay as they are, so a crash in between loses nothing. One that is not settled after all
    /// is to be abandoned.
    /// The caller holds the sole turn, and has seen that `version` is what it uploaded.
    /// # Errors
    /// What the OS or the index says; `StaleNetworkFileHandle` when the index does not know `staged` any more.
    pub async fn promote(&self, staged: &Arc<Staged>, base: Option<&Inode>) -> io::Result<(Local, ObjectRow)> {
        self.sync(staged).await?;
        let ino = self.owner(staged)?.ok_or(io::ErrorKind::StaleNetworkFileHandle)?;
        let local = base.and_then(|base| base.local);
        let below = local.map(|local| self.try_get(local.object)).transpose()?.flatten();
        // one that was not complete a moment ago may have a fill of it under way
        let is_still = local.is_some_and(|local| local.complete);
        let merge = Merge::plan(staged, below, is_still);
        let object = ObjectId(self.index.allocate().await.map_err(io::Error::other)?);
        let row = ObjectRow { ino, size: merge.overlay.size(), presence: merge.presence() };
        // in the table before it is on the disk: so the sweep of orphans knows it
        self.ledger.enter(object, merge.here().bytes(), self.clock.now());
        let (path, below) = (self.objects.path(object), local.map(|local| self.objects.path(local.object)));
        let merged = match merge.is_a_name_alone() {
            // less work than handing it to another thread
            true => merge.run(&path, None),
            false => blocking(move || merge.run(&path, below.as_deref())).await,
        };
        merged.inspect_err(|_| self.abandon(object))?;
        crash::point("content.after_promote");
        Ok((Local { object, complete: row.presence == Presence::Complete }, row))
    }
}

impl Merge {
    fn plan(staged: &Arc<Staged>, base: Option<Arc<Object>>, is_still: bool) -> Merge {
        let overlay = staged.state.lock().overlay.clone();
        let wanted = match &base {
            Some(base) => overlay.uncovered().into_iter().flat_map(|gap| here_of(base, gap)).collect::<RangeSet>(),
            None => RangeSet::new(),
        };
        let into_base = is_still
            && overlay.written().bytes() < wanted.bytes()
            && base.as_ref().is_some_and(|base| base.is_complete() && base.size() >= overlay.base_len());
        Merge { staged: staged.clone(), overlay, base, wanted: wanted.as_slice().to_vec(), into_base }
    }

    /// What the object will have.
    fn here(&self) -> RangeSet {
        let parts = [self.overlay.written().as_slice(), &self.overlay.holes(), &self.wanted];
        parts.into_iter().flatten().cloned().collect()
    }

    fn presence(&self) -> Presence {
        let here = self.here();
        if here.covers(&(0..self.overlay.size())) {
            return Presence::Complete;
        }
        Presence::Partial(here.as_slice().to_vec())
    }

    /// Whether nothing is to be copied, cut or filled in, only a second name made (of what is small, in case that needs a
    /// copy where there are no links).
    fn is_a_name_alone(&self) -> bool {
        let is_as_written = self.overlay.holes().is_empty() && !self.staged.state.lock().is_too_long;
        self.wanted.is_empty() && !self.into_base && is_as_written && self.overlay.size() <= AT_ONCE_BYTES
    }

    /// Makes the file. Blocks on the disk.
    fn run(&self, object: &std::path::Path, below: Option<&std::path::Path>) -> io::Result<()> {
        let staging = self.staged.file()?;
        // the base may have been evicted this moment: then it has no name any more, but still its bytes
        if let Some(below) = below.filter(|_| self.into_base)
            && disk::link_or_copy(below, object).is_ok()
        {
            let file = OpenOptions::new().read(true).write(true).open(object)?;
            copy_all(&staging, &file, self.overlay.written().as_slice())?;
            return self.finish(&file, true);
        }
        if let Some(base) = &self.base {
            copy_all(base.file(), &staging, &self.wanted)?;
        }
        self.finish(&staging, !self.wanted.is_empty())?;
        disk::link_or_copy(&self.staged.volume.dir.path(self.staged.id), object)
    }

    /// What a truncation or a crash has left in the file between the ranges written goes. The disk is only waited for when
    /// something `changed`: what was written is durable, and a sync costs a flush of the disk even so.
    fn finish(&self, file: &File, mut changed: bool) -> io::Result<()> {
        for hole in self.overlay.holes() {
            disk::zero(file, hole)?;
            changed = true;
        }
        if file.metadata()?.len() != self.overlay.size() {
            file.set_len(self.overlay.size())?;
            changed = true;
        }
        if changed { file.sync_data() } else { Ok(()) }
    }
}

/// What of `range` is in `base`.
pub(super) fn here_of(base: &Object, range: Range<u64>) -> Vec<Range<u64>> {
    let mut here = RangeSet::from(range.start..range.end.min(base.size()).max(range.start));
    base.missing(range).into_iter().for_each(|missing| here.remove(missing));
    here.as_slice().to_vec()
}

fn copy_all(from: &File, to: &File, ranges: &[Range<u64>]) -> io::Result<()> {
    ranges.iter().try_for_each(|range| disk::copy(from, to, range.clone()))
}
