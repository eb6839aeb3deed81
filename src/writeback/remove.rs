//! Objects that were removed or replaced here: they leave S3 too, unless they are somebody else's by now.

use super::conflict;
use super::queue::End;
use super::sync::count;
use super::trouble::Trouble;
use super::{Asked, OnConflict, Writeback};
use crate::crash;
use crate::index::{Node, Work};
use crate::store;
use crate::types::{Ino, Key, name};
use std::sync::Arc;

impl Writeback {
    /// Removes what is away at `key`, when nothing is in the way of that.
    pub(super) async fn take_away(&self, key: &Key, work: &Work) -> Result<End, Trouble> {
        let index = &self.rooms.index;
        let Some(away) = index.away(key)? else { return Ok(End::Done) };
        if let Some(ino) = away.ino {
            // its bytes are still some inode's, whose task it is
            let mut state = self.state.lock();
            state.queue.found(Work::Inode(ino), self.clock.now());
            self.poked.notify_one();
            return Ok(End::Done);
        }
        if let Some(first) = self.comes_before(key)? {
            return Ok(End::Blocked(Work::Inode(first)));
        }
        let _held = match self.hold(key, work) {
            Ok(held) => held,
            Err(holder) => return Ok(End::Blocked(holder)),
        };
        // once more: whoever had the key may have replaced the object
        let Some(away) = index.away(key)?.filter(|away| away.ino.is_none()) else { return Ok(End::Changed) };
        crash::point("writeback.before_delete");
        let Asked { answer, at } = self.ask(self.writes().await?.delete(key, Some(&away.etag))).await;
        match answer {
            Ok(()) => {
                crash::point("writeback.after_delete");
                count(&self.counters.deletes);
                index.removed(key.clone(), at.sent, at.answered).await?;
                Ok(End::Done)
            }
            Err(store::Error::PreconditionFailed { .. } | store::Error::NotFound { .. }) => self.not_ours(key).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Whose task must come before the DELETE: an object that goes to the same key replaces this one (S3 shows no gap),
    /// and a directory that would be gone with its last entry gets its marker.
    fn comes_before(&self, key: &Key) -> Result<Option<Ino>, Trouble> {
        let index = &self.rooms.index;
        let mut at: Option<Arc<Node>> = index.node(Ino::ROOT)?;
        let mut above = at.clone();
        for component in name::split(key) {
            let Some(dir) = at else { break };
            above = Some(dir.clone());
            at = index.child(dir.ino, &component.name(false))?.filter(|child| child.component == component);
            if at.is_none() {
                at = index.child(dir.ino, &component.name(true))?.filter(|child| child.component == component);
            }
        }
        if let Some(heir) = at
            && !self.is_excluded(&heir)
            && let Some(pending) = index.pending(heir.ino)?
            && (pending.content || pending.place)
        {
            return Ok(Some(heir.ino));
        }
        let Some(dir) = above else { return Ok(None) };
        let unmarked = dir.ino != Ino::ROOT && dir.remote.is_none();
        Ok(index.pending(dir.ino)?.filter(|pending| pending.content && unmarked).map(|_| dir.ino))
    }

    /// Somebody has written another version where one was to be removed, or has removed it.
    async fn not_ours(&self, key: &Key) -> Result<End, Trouble> {
        let index = &self.rooms.index;
        let (meta, at) = self.look(key).await?;
        let Some(meta) = meta else {
            index.removed(key.clone(), at.sent, at.answered).await?;
            return Ok(End::Done);
        };
        let is_ours = self.is_ours(key, &meta).await?;
        if is_ours || self.settings.on_conflict == OnConflict::LocalWins {
            let Asked { answer, at } = self.ask(self.writes().await?.delete(key, Some(&meta.etag))).await;
            answer?;
            index.removed(key.clone(), at.sent, at.answered).await?;
            if is_ours {
                // it landed before the file was removed here, and nobody told
                return Ok(End::Done);
            }
            let what = "removed here, changed in S3: S3's version was removed, as --on-conflict says";
            self.note(conflict::record(key, "", self.clock.wall(), what)).await?;
            return Ok(End::Done);
        }
        index.not_ours(key.clone(), meta, at.sent, at.answered).await?;
        let what = "removed here, changed in S3: S3's version stays";
        self.note(conflict::record(key, "", self.clock.wall(), what)).await?;
        Ok(End::Done)
    }
}
