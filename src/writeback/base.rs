//! The version that a change was made of: its bytes, as far as an upload needs them, and what follows when S3 has another
//! one by now and they are not all here.
//! Invariant: an object has the bytes of one version, with what was written here over them. Where those cannot be had any
//! more, what others wrote keeps the name, whatever `--on-conflict` says; zeros stand for them in the copy beside it.

use std::io;

use super::conflict::record;
use super::plan;
use super::put::Body;
use super::trouble::Trouble;
use super::{OnConflict, Rooms, Stamps, Writeback};
use crate::content::{Below, Piece};
use crate::index::{Inode, Task};
use crate::store::ObjectMeta;

impl Writeback {
    /// What lies below a staging file, if it is needed for `range`, with what of it is needed.
    pub(super) async fn below(
        &self,
        task: &Task,
        body: &Body,
        range: std::ops::Range<u64>,
    ) -> Result<Option<Below>, Trouble> {
        let Some((staged, _)) = body.staged() else { return Ok(None) };
        let Rooms { index, content, revalidator, .. } = &self.rooms;
        let mut below = None;
        for piece in staged.pieces(range) {
            let Piece::Base(part) = piece else { continue };
            let node = index.node(task.node.ino)?.filter(|node| node.remote == task.node.remote);
            let node = node.ok_or(Trouble::Restless)?;
            below = content.below(&node, &part)?;
            if below.is_some() {
                continue;
            }
            let (node, object) = match revalidator.fetch(task.node.ino, part).await {
                Ok(found) => found,
                Err(error) => return Err(self.without_base(task, body, error).await?),
            };
            let etag = |node: &Inode| node.remote.as_ref().map(|remote| remote.etag.clone());
            // durable, and the inode's: S3 may lose it before it has what is laid over it
            if etag(&node) != etag(&task.node) || !content.save(&object).await? {
                return Err(Trouble::Restless);
            }
            below = Some(Below::Version(object));
        }
        Ok(below)
    }

    /// The version below is not to be had: perhaps because S3 has another one.
    async fn without_base(
        &self,
        task: &Task,
        body: &Body,
        error: crate::revalidate::WaitError,
    ) -> Result<Trouble, Trouble> {
        let Some(from) = plan::version(task) else { return Ok(error.into()) };
        let (meta, at) = self.look(&from.key).await?;
        if meta.as_ref().is_some_and(|meta| meta.etag == from.etag) {
            return Ok(error.into());
        }
        self.part_from_base(task, body, meta, at).await?;
        Ok(Trouble::Restless)
    }

    /// Whether all that counts of the version below is here.
    pub(super) fn has_base(&self, task: &Task, body: &Body) -> io::Result<bool> {
        let Some((staged, _)) = body.staged() else { return Ok(true) };
        let object = task.node.local.map(|local| self.rooms.content.try_get(local.object)).transpose()?.flatten();
        Ok(staged.pieces(0..u64::MAX).into_iter().all(|piece| match piece {
            Piece::Base(part) => object.as_ref().is_some_and(|object| object.has(part)),
            Piece::Here(_) | Piece::Zeros(_) => true,
        }))
    }

    /// S3 has `theirs`, or nothing, where it had the version that the change was made of. What is here of that one is all
    /// that is left of it: the change goes on as a file of its own.
    pub(super) async fn part_from_base(
        &self,
        task: &Task,
        body: &Body,
        theirs: Option<ObjectMeta>,
        at: Stamps,
    ) -> Result<(), Trouble> {
        let Rooms { index, content, .. } = &self.rooms;
        let Some(from) = plan::version(task) else { return Ok(()) };
        if let Some(theirs) = &theirs
            && self.take_up(task, &from.key, theirs, at).await?
        {
            return Ok(());
        }
        if let Some(object) = task.node.local.map(|local| content.try_get(local.object)).transpose()?.flatten() {
            content.save(&object).await?;
        }
        let rest = match self.has_base(task, body)? {
            true => "",
            false => "; not all of the version changed here was in the cache: zeros are in its place",
        };
        let ino = task.node.ino;
        let what = match theirs {
            None => {
                // a listing may have told it before
                let is_news = index.node(ino)?.is_some_and(|node| node.remote.is_some());
                index.rebase(ino, None, at.sent, at.answered).await?;
                if !is_news {
                    return Ok(());
                }
                "changed here, removed in S3: the version of here goes up again"
            }
            Some(theirs) if task.key.as_ref() == Some(&from.key) => {
                let what = match self.settings.on_conflict {
                    OnConflict::RemoteWins => {
                        "changed here and in S3: S3's version replaced the one of here, as --on-conflict says"
                    }
                    _ => "changed here and in S3: S3's version keeps the name, the one of here is beside it",
                };
                return self.give_way(task, &from.key, theirs, at, &format!("{what}{rest}")).await;
            }
            Some(theirs) => {
                index.rebase(ino, None, at.sent, at.answered).await?;
                index.not_ours(from.key.clone(), theirs, at.sent, at.answered).await?;
                "renamed and changed here, changed in S3 under its old name: both are there"
            }
        };
        self.note(record(&from.key, "", self.clock.wall(), &format!("{what}{rest}"))).await
    }
}
