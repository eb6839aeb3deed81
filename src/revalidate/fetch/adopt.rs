//! Bodies that come with the answer to a lookup, so that open and read of a small file are one round trip to S3.
//! Invariant: only a body that holds all of the index's current version is taken in; its range is claimed before
//! the lookup is answered, so the READ behind it joins.

use std::sync::Arc;

use futures::StreamExt;
use tracing::debug;

use super::body::{Body, pour};
use super::transfer::Claim;
use super::{Fetcher, PIECE_BYTES};
use crate::content::Object;
use crate::store::ObjectMeta;
use crate::types::Ino;

impl Fetcher {
    /// Takes in the version `meta` of `ino`, whose first `asked` bytes are on their way.
    pub(in crate::revalidate) async fn adopt(self: &Arc<Self>, ino: Ino, meta: &ObjectMeta, asked: u64, body: Body) {
        let claimed = if meta.size <= asked { self.claim_whole(ino, meta).await } else { None };
        let Some((claim, object)) = claimed else {
            // read to its end all the same: that keeps its connection, which costs more than the bytes
            return self.spawn(body.for_each(async |_| ()));
        };
        let fetcher = self.clone();
        self.spawn(async move {
            if let Err(trouble) = pour(&object, claim.range.clone(), body).await {
                debug!(%ino, ?trouble, "the body that came with a lookup broke off");
            }
            // asks again for what is missing, if anything is
            fetcher.fetch_piece(&fetcher.foreground.store, claim, &object).await;
        });
    }

    /// The right to fetch all of the version `meta`, and its file; nothing when that is another's or makes no sense.
    async fn claim_whole(self: &Arc<Self>, ino: Ino, meta: &ObjectMeta) -> Option<(Claim, Arc<Object>)> {
        let (_, transfer) = self.join(ino).ok()?;
        if transfer.version.etag != meta.etag || transfer.version.size != meta.size {
            return None;
        }
        self.content.make_room(meta.size).await.ok()?;
        let object = self.file(&transfer).await.ok()?;
        let claim = transfer.claim(&object, 0..meta.size, PIECE_BYTES, 1).pop()?;
        (claim.range == (0..meta.size)).then_some((claim, object))
    }
}
