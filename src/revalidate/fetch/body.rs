//! From a GET to the file: one range of one version, its body written as it comes.
//! Invariant: bytes go into a file only from an answer that carries the file's own ETag and size.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::task::spawn_blocking;

use crate::content::Object;
use crate::store::{self, GetIf, Got, ObjectMeta, Store};
use crate::types::{Clock, ETag, Key, Tick};

/// 1 MiB a write: large enough that its trip to a blocking thread does not count.
const WRITE_BYTES: usize = 1 << 20;

/// Body of a GET.
pub type Body = BoxStream<'static, Result<Bytes, store::Error>>;

/// Where bytes come from: one version of one key.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) key: Key,
    pub(super) etag: ETag,
    pub(super) size: u64,
}

/// What S3 said, and when.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) meta: ObjectMeta,
    pub(super) sent: Tick,
    pub(super) answered: Tick,
}

/// Why a range is not here, or not all of it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// S3 did not answer or broke off: what came is kept, and it is worth asking again.
    Again(store::Error),
    /// S3 has another version, as told, or as has to be asked for.
    Changed(Option<Told>),
    /// S3 refused for good.
    Refused(store::Error),
    /// The disk failed or is full.
    Disk(io::Error),
}

impl From<store::Error> for Trouble {
    fn from(error: store::Error) -> Trouble {
        match error {
            store::Error::NotFound { .. }
            | store::Error::PreconditionFailed { .. }
            | store::Error::SourceChanged { .. }
            | store::Error::NoSuchUpload { .. } => Trouble::Changed(None),
            store::Error::Unavailable { .. } => Trouble::Again(error),
            store::Error::Denied { .. } | store::Error::NoSuchBucket { .. } | store::Error::Other { .. } => {
                Trouble::Refused(error)
            }
        }
    }
}

/// Brings `range` of `version` into `object` by one GET.
pub(super) async fn get_range(
    store: &dyn Store,
    clock: &Clock,
    version: &Version,
    object: &Arc<Object>,
    range: Range<u64>,
) -> Result<Told, Trouble> {
    let part = (range != (0..version.size)).then(|| range.clone());
    let sent = clock.now();
    match store.get(&version.key, part, GetIf::Match(version.etag.clone())).await? {
        Got::Body { meta, body } => {
            let told = Told { meta, sent, answered: clock.now() };
            // a store that does not know If-Match sends whatever it has
            if told.meta.etag != version.etag || told.meta.size != version.size {
                return Err(Trouble::Changed(Some(told)));
            }
            pour(object, range, body).await?;
            Ok(told)
        }
        Got::NotModified { .. } => Err(broken(&version.key, "304 to a request that did not ask for it")),
    }
}

/// Writes `body` into `object` from `range.start` on. What came before a break is kept.
///
/// Takes from the body what is there, then writes: so a slow body reaches its readers piece by piece,
/// and a fast one goes to the disk in large writes.
pub(super) async fn pour(object: &Arc<Object>, range: Range<u64>, mut body: Body) -> Result<(), Trouble> {
    let mut pen = Pen { object, at: range.start, end: range.end, buffer: Vec::new() };
    loop {
        let ready = if pen.buffer.is_empty() { Some(body.next().await) } else { body.next().now_or_never() };
        match ready {
            Some(Some(Ok(bytes))) => pen.take(&bytes).await?,
            Some(Some(Err(error))) => {
                pen.flush().await?;
                // whatever it is called, a broken body says nothing of the object
                return Err(Trouble::Again(error));
            }
            Some(None) => {
                pen.flush().await?;
                return pen.finished();
            }
            None => pen.flush().await?,
        }
    }
}

/// Writes at its place, in large pieces.
struct Pen<'a> {
    object: &'a Arc<Object>,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
}

impl Pen<'_> {
    async fn take(&mut self, bytes: &Bytes) -> Result<(), Trouble> {
        let room = self.end - self.at - self.buffer.len() as u64;
        if bytes.len() as u64 > room {
            return Err(Trouble::Again(unavailable("GET", "S3 sent more bytes than were asked for")));
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Trouble> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let (object, at, mut buffer) = (self.object.clone(), self.at, std::mem::take(&mut self.buffer));
        self.at += buffer.len() as u64;
        let write = spawn_blocking(move || {
            object.fill(at, &buffer)?;
            buffer.clear();
            Ok(buffer)
        });
        self.buffer = write.await.map_err(io::Error::other).and_then(|done| done).map_err(Trouble::Disk)?;
        Ok(())
    }

    fn finished(&self) -> Result<(), Trouble> {
        if self.at == self.end { Ok(()) } else { Err(Trouble::Again(unavailable("GET", "the body ended early"))) }
    }
}

fn broken(key: &Key, message: &str) -> Trouble {
    Trouble::Again(unavailable(&format!("GET {key}"), message))
}

fn unavailable(what: &str, message: &str) -> store::Error {
    store::Error::Unavailable { what: what.to_owned(), message: message.to_owned() }
}
