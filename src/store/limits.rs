//! Bounds on what is asked of S3 at once: requests in flight and requests a second.
//! Invariants
//! - No more than `concurrency` requests are in flight, of which the background has at most three quarters,
//!   so that what a client waits for finds a free place.
//! - A GET is in flight until its body ends or is dropped.
//! - Nobody waits for the budget in here, where a place would be held meanwhile and clients may wait for the same: who
//!   asks takes a turn before (`budget`).
//! - A call has one place, though it may make a few requests in turn (`describe`, a listing of parts).

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::copy::{LARGEST_COPY_BYTES, copy_in_parts};
use super::{
    CopySource, Counters, Error, GetIf, Got, Headers, ListPage, ListRequest, ObjectMeta, Part, Put, PutIf, Store,
    Upload, WriteStore,
};
use crate::revalidate::Stores;
use crate::types::{ETag, Key, Time};

/// Puts `store` behind `concurrency` requests in flight and `rate` requests a second (`None`: as many as
/// it takes), shared by the two views. Bytes of bodies are counted on the way.
pub fn limited(
    store: Arc<dyn Store>,
    concurrency: NonZeroU32,
    rate: Option<NonZeroU32>,
    counters: Arc<Counters>,
) -> Stores {
    let budget = counters.budget().clone();
    let [foreground, background] = views([store.clone(), store], concurrency, rate, counters);
    Stores { foreground: Arc::new(foreground), background: Arc::new(background), budget }
}

/// The same of one store for each view, and a store to write to in the background, within the same limits.
pub fn limited_writing<S: WriteStore>(
    stores: [Arc<S>; 2],
    concurrency: NonZeroU32,
    rate: Option<NonZeroU32>,
    counters: Arc<Counters>,
) -> (Stores, Arc<dyn WriteStore>) {
    let budget = counters.budget().clone();
    let [foreground, background] = views(stores, concurrency, rate, counters);
    let background = Arc::new(background);
    (Stores { foreground: Arc::new(foreground), background: background.clone(), budget }, background)
}

/// The foreground and the background.
fn views<S: ?Sized>(
    [foreground, background]: [Arc<S>; 2],
    concurrency: NonZeroU32,
    rate: Option<NonZeroU32>,
    counters: Arc<Counters>,
) -> [Limited<S>; 2] {
    let places = concurrency.get() as usize;
    let shared = Arc::new(Shared {
        all: Arc::new(Semaphore::new(places)),
        background: Arc::new(Semaphore::new((places * 3 / 4).max(1))),
        rate: rate.map(|rate| RateLimiter::direct(Quota::per_second(rate))),
        counters,
    });
    [
        Limited { store: foreground, shared: shared.clone(), is_background: false },
        Limited { store: background, shared, is_background: true },
    ]
}

struct Shared {
    all: Arc<Semaphore>,
    background: Arc<Semaphore>,
    rate: Option<DefaultDirectRateLimiter>,
    counters: Arc<Counters>,
}

/// One view.
struct Limited<S: ?Sized> {
    store: Arc<S>,
    shared: Arc<Shared>,
    is_background: bool,
}

/// A place among the requests in flight.
struct Place {
    _all: Option<OwnedSemaphorePermit>,
    _background: Option<OwnedSemaphorePermit>,
}

impl<S: ?Sized> Limited<S> {
    /// Waits for a place. The background queues for its own places first, so that it never fills the
    /// queue that the foreground stands in. The semaphores are never closed.
    async fn enter(&self) -> Place {
        let background = match self.is_background {
            true => self.shared.background.clone().acquire_owned().await.ok(),
            false => None,
        };
        let all = self.shared.all.clone().acquire_owned().await.ok();
        if let Some(rate) = &self.shared.rate {
            rate.until_ready().await;
        }
        Place { _all: all, _background: background }
    }
}

#[async_trait]
impl<S: Store + ?Sized> Store for Limited<S> {
    async fn head(&self, key: &Key) -> Result<ObjectMeta, Error> {
        let _place = self.enter().await;
        self.store.head(key).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>, condition: GetIf) -> Result<Got, Error> {
        let place = self.enter().await;
        match self.store.get(key, range, condition).await? {
            Got::Body { meta, body } => Ok(Got::Body { meta, body: held(body, place, self.shared.counters.clone()) }),
            not_modified @ Got::NotModified { .. } => Ok(not_modified),
        }
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, Error> {
        let _place = self.enter().await;
        self.store.list(request).await
    }
}

#[async_trait]
impl<S: WriteStore> WriteStore for Limited<S> {
    async fn describe(&self, key: &Key) -> Result<(ObjectMeta, Headers), Error> {
        let _place = self.enter().await;
        self.store.describe(key).await
    }

    async fn put(&self, key: &Key, body: Bytes, headers: &Headers, condition: PutIf) -> Result<Put, Error> {
        let _place = self.enter().await;
        let len = body.len();
        let put = self.store.put(key, body, headers, condition).await?;
        self.shared.counters.taken(len);
        Ok(put)
    }

    async fn copy(
        &self,
        source: CopySource<'_>,
        to: &Key,
        headers: Option<&Headers>,
        condition: PutIf,
    ) -> Result<Put, Error> {
        // Cut up here, so that each part finds its own place.
        if source.size > LARGEST_COPY_BYTES {
            return copy_in_parts(self, source, to, headers, condition).await;
        }
        let _place = self.enter().await;
        self.store.copy(source, to, headers, condition).await
    }

    async fn delete(&self, key: &Key, etag: Option<&ETag>) -> Result<(), Error> {
        let _place = self.enter().await;
        self.store.delete(key, etag).await
    }

    async fn begin_upload(&self, key: &Key, headers: &Headers) -> Result<Upload, Error> {
        let _place = self.enter().await;
        self.store.begin_upload(key, headers).await
    }

    async fn put_part(&self, upload: &Upload, number: u16, body: Bytes) -> Result<Part, Error> {
        let _place = self.enter().await;
        let part = self.store.put_part(upload, number, body).await?;
        self.shared.counters.taken(usize::try_from(part.size).unwrap_or(usize::MAX));
        Ok(part)
    }

    async fn copy_part(
        &self,
        upload: &Upload,
        number: u16,
        source: CopySource<'_>,
        range: Range<u64>,
    ) -> Result<Part, Error> {
        let _place = self.enter().await;
        self.store.copy_part(upload, number, source, range).await
    }

    async fn complete_upload(&self, upload: &Upload, parts: &[Part], condition: PutIf) -> Result<Put, Error> {
        let _place = self.enter().await;
        self.store.complete_upload(upload, parts, condition).await
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<(), Error> {
        let _place = self.enter().await;
        self.store.abort_upload(upload).await
    }

    async fn parts(&self, upload: &Upload) -> Result<Vec<Part>, Error> {
        let _place = self.enter().await;
        self.store.parts(upload).await
    }

    async fn uploads(&self) -> Result<Vec<(Upload, Time)>, Error> {
        let _place = self.enter().await;
        self.store.uploads().await
    }
}

type Body = BoxStream<'static, Result<Bytes, Error>>;

/// `body`, which gives up `place` when it ends, fails or is dropped.
fn held(body: Body, place: Place, counters: Arc<Counters>) -> Body {
    let open = stream::unfold(Some((body, place, counters)), |open| async move {
        let (mut body, place, counters) = open?;
        match body.next().await? {
            Ok(chunk) => {
                counters.received(chunk.len());
                Some((Ok(chunk), Some((body, place, counters))))
            }
            Err(error) => Some((Err(error), None)),
        }
    });
    open.boxed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::FutureExt;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Answers HEAD never, and GET with a body of two chunks.
    #[derive(Default)]
    struct Slow {
        heads: AtomicUsize,
    }

    #[async_trait]
    impl Store for Slow {
        async fn head(&self, _: &Key) -> Result<ObjectMeta, Error> {
            self.heads.fetch_add(1, Ordering::SeqCst);
            std::future::pending().await
        }

        async fn get(&self, _: &Key, _: Option<Range<u64>>, _: GetIf) -> Result<Got, Error> {
            let meta =
                ObjectMeta { etag: ETag::new("e"), size: 2, last_modified: Time(0), user: None, content_type: None };
            let chunk = || Ok(bytes::Bytes::from_static(b"x"));
            Ok(Got::Body { meta, body: stream::iter([chunk(), chunk()]).boxed() })
        }

        async fn list(&self, _: &ListRequest) -> Result<ListPage, Error> {
            Ok(ListPage::default())
        }
    }

    fn stores(concurrency: u32, rate: Option<u32>) -> (Arc<Slow>, Stores, Arc<Counters>) {
        let (slow, counters) = (Arc::new(Slow::default()), Arc::new(Counters::default()));
        let rate = rate.and_then(NonZeroU32::new);
        let stores = limited(slow.clone(), NonZeroU32::new(concurrency).unwrap(), rate, counters.clone());
        (slow, stores, counters)
    }

    #[test]
    fn background_leaves_places_for_the_foreground() {
        let (slow, stores, _) = stores(4, None);
        let key = Key::new("k").unwrap();
        let mut behind: Vec<_> = (0..8).map(|_| stores.background.head(&key).boxed()).collect();
        for call in &mut behind {
            assert!(call.now_or_never().is_none());
        }
        assert_eq!(slow.heads.load(Ordering::SeqCst), 3);
        let mut front: Vec<_> = (0..2).map(|_| stores.foreground.head(&key).boxed()).collect();
        for call in &mut front {
            assert!(call.now_or_never().is_none());
        }
        assert_eq!(slow.heads.load(Ordering::SeqCst), 4, "one place was free, and only one");
    }

    #[test]
    fn the_rate_is_shared_by_both_views() {
        let (_, stores, _) = stores(8, Some(2));
        let list = |store: &Arc<dyn Store>| store.list(&ListRequest::default()).now_or_never().is_some();
        assert!(list(&stores.foreground) && list(&stores.background));
        assert!(!list(&stores.foreground) && !list(&stores.background), "a second has not passed");
    }

    #[test]
    fn a_call_that_is_dropped_gives_up_its_place() {
        let (slow, stores, _) = stores(1, None);
        let key = Key::new("k").unwrap();
        for _ in 0..3 {
            assert!(stores.background.head(&key).now_or_never().is_none());
        }
        assert_eq!(slow.heads.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_body_holds_its_place_until_it_ends() {
        let (_, stores, counters) = stores(1, None);
        let key = Key::new("k").unwrap();
        let got = stores.foreground.get(&key, None, GetIf::Any).now_or_never().unwrap().unwrap();
        let Got::Body { mut body, .. } = got else { panic!("no body") };
        let list = || stores.foreground.list(&ListRequest::default()).now_or_never();
        assert!(body.next().now_or_never().flatten().is_some());
        assert!(list().is_none());
        assert!(body.next().now_or_never().flatten().is_some());
        assert!(body.next().now_or_never().unwrap().is_none());
        assert!(list().is_some());
        assert_eq!(counters.snapshot().bytes_in, 2);
    }
}
