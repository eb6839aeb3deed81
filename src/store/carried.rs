//! Bytes that came with a hint of another server: what S3 says of the object is still asked, its bytes need not be sent.
//! Invariants
//! - They are used only where S3 says, after they came, that the object has their tag, and only where that tag is their
//!   digest: whoever forges a message can make nobody believe other bytes.
//! - Bounded; what came first goes first, and what was used goes at once.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use md5::{Digest, Md5};
use parking_lot::Mutex;

use super::{Error, GetIf, Got, ListPage, ListRequest, ObjectMeta, Store};
use crate::types::{ETag, Key};

/// 16 MiB: what comes in the second or two until it is asked for.
const MAX_BYTES: usize = 16 << 20;

/// What one costs beside its bytes.
const EACH_BYTES: usize = 256;

/// Bytes of versions that S3 may have.
#[derive(Default)]
pub struct Carried(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    versions: HashMap<Key, Version>,
    /// As they came, with their numbers; some are gone, or have come again.
    order: VecDeque<(u64, Key)>,
    number: u64,
    bytes: usize,
}

struct Version {
    number: u64,
    etag: ETag,
    bytes: Bytes,
}

impl Carried {
    /// Keeps the bytes of a version for a while, if its tag is their digest.
    pub fn put(&self, key: Key, etag: ETag, bytes: Bytes) {
        if !is_digest(&etag, &bytes) {
            return;
        }
        let mut kept = self.0.lock();
        kept.take(&key);
        kept.number += 1;
        let number = kept.number;
        kept.bytes += bytes.len() + EACH_BYTES;
        kept.order.push_back((number, key.clone()));
        kept.versions.insert(key, Version { number, etag, bytes });
        while kept.bytes > MAX_BYTES || kept.order.len() > MAX_BYTES / EACH_BYTES {
            let Some((number, oldest)) = kept.order.pop_front() else { break };
            if kept.versions.get(&oldest).is_some_and(|version| version.number == number) {
                kept.take(&oldest);
            }
        }
    }

    /// `store`, whose bodies are those kept here where it has the same version.
    pub fn before(self: &Arc<Carried>, store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Carrying { inner: store, carried: self.clone() })
    }

    fn take(&self, key: &Key) -> Option<Version> {
        self.0.lock().take(key)
    }
}

impl Kept {
    fn take(&mut self, key: &Key) -> Option<Version> {
        let version = self.versions.remove(key)?;
        self.bytes -= version.bytes.len() + EACH_BYTES;
        Some(version)
    }
}

/// Whether a tag is the digest of these bytes, as it is of what was sent in one piece and encrypted by no key of KMS.
pub fn is_digest(etag: &ETag, bytes: &[u8]) -> bool {
    let hex: String = Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    etag.as_str() == hex
}

struct Carrying {
    inner: Arc<dyn Store>,
    carried: Arc<Carried>,
}

impl Carrying {
    /// What is kept of `key`, confirmed by S3, as the answer to a GET.
    async fn answer(&self, key: &Key, range: Option<&Range<u64>>, condition: &GetIf) -> Result<Option<Got>, Error> {
        let Some(Version { etag, bytes, .. }) = self.carried.take(key) else { return Ok(None) };
        let is_wanted = match condition {
            GetIf::Any => true,
            GetIf::Match(wanted) => *wanted == etag,
            GetIf::NoneMatch(known) => *known != etag,
        };
        if !is_wanted {
            return Ok(None);
        }
        let range = range.map_or(0..bytes.len() as u64, |range| range.start..range.end.min(bytes.len() as u64));
        if range.start >= range.end {
            return Ok(None);
        }
        let meta: ObjectMeta = self.inner.head(key).await?;
        if meta.etag != etag || meta.size != bytes.len() as u64 {
            return Ok(None);
        }
        let body = bytes.slice(range.start as usize..range.end as usize);
        Ok(Some(Got::Body { meta, body: futures::stream::iter([Ok(body)]).boxed() }))
    }
}

#[async_trait]
impl Store for Carrying {
    async fn head(&self, key: &Key) -> Result<ObjectMeta, Error> {
        self.inner.head(key).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>, condition: GetIf) -> Result<Got, Error> {
        match self.answer(key, range.as_ref(), &condition).await? {
            Some(got) => Ok(got),
            None => self.inner.get(key, range, condition).await,
        }
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, Error> {
        self.inner.list(request).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::types::Time;

    /// An S3 that has one version of everything.
    struct One {
        etag: ETag,
        asked: Mutex<Vec<&'static str>>,
    }

    impl One {
        fn meta(&self) -> ObjectMeta {
            let user = Some([("by".to_owned(), "s3".to_owned())].into());
            ObjectMeta { etag: self.etag.clone(), size: 5, last_modified: Time(7), user, content_type: None }
        }
    }

    #[async_trait]
    impl Store for One {
        async fn head(&self, _: &Key) -> Result<ObjectMeta, Error> {
            self.asked.lock().push("head");
            Ok(self.meta())
        }

        async fn get(&self, _: &Key, _: Option<Range<u64>>, _: GetIf) -> Result<Got, Error> {
            self.asked.lock().push("get");
            Ok(Got::Body { meta: self.meta(), body: futures::stream::iter([Ok("of S3".into())]).boxed() })
        }

        async fn list(&self, _: &ListRequest) -> Result<ListPage, Error> {
            unreachable!("nobody lists")
        }
    }

    const HELLO: &str = "5d41402abc4b2a76b9719d911017c592";

    struct Rig {
        s3: Arc<One>,
        carried: Arc<Carried>,
        store: Arc<dyn Store>,
    }

    fn rig(etag: &str) -> Rig {
        let s3 = Arc::new(One { etag: ETag::new(etag), asked: Mutex::default() });
        let carried = Arc::new(Carried::default());
        Rig { store: carried.before(s3.clone()), s3, carried }
    }

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    impl Rig {
        async fn get(&self, range: Option<Range<u64>>, condition: GetIf) -> (String, Vec<&'static str>) {
            let Got::Body { meta, body } = self.store.get(&key("k"), range, condition).await.unwrap() else {
                panic!("it is modified")
            };
            assert_eq!(meta, self.s3.meta());
            let bytes: Vec<Bytes> = body.map(Result::unwrap).collect().await;
            (String::from_utf8(bytes.concat()).unwrap(), std::mem::take(&mut self.s3.asked.lock()))
        }

        fn carry(&self, bytes: &'static str) {
            self.carried.put(key("k"), ETag::new(HELLO), Bytes::from_static(bytes.as_bytes()));
        }
    }

    #[tokio::test]
    async fn bytes_are_used_once_s3_confirms_their_tag() {
        let rig = rig(HELLO);
        rig.carry("hello");
        let other = || GetIf::NoneMatch(ETag::new("older"));
        assert_eq!(rig.get(None, other()).await, ("hello".into(), vec!["head"]));
        assert_eq!(rig.get(None, other()).await, ("of S3".into(), vec!["get"]), "and once");
        rig.carry("hello");
        assert_eq!(rig.get(Some(1..100), GetIf::Any).await, ("ello".into(), vec!["head"]));
    }

    #[tokio::test]
    async fn bytes_of_another_version_are_not_used() {
        let rig = rig("newer");
        rig.carry("hello");
        assert_eq!(rig.get(None, GetIf::Any).await, ("of S3".into(), vec!["head", "get"]));
        rig.carry("hello");
        assert_eq!(rig.get(None, GetIf::Match(ETag::new("newer"))).await, ("of S3".into(), vec!["get"]));
        rig.carry("hello");
        assert_eq!(rig.get(None, GetIf::NoneMatch(ETag::new(HELLO))).await, ("of S3".into(), vec!["get"]));
    }

    #[tokio::test]
    async fn forged_bytes_are_not_used() {
        let rig = rig(HELLO);
        rig.carry("evil!");
        assert_eq!(rig.get(None, GetIf::Any).await, ("of S3".into(), vec!["get"]));
    }

    #[test]
    fn they_are_bounded() {
        let carried = Carried::default();
        let bytes = Bytes::from(vec![0; 1 << 20]);
        let etag = ETag::new(&Md5::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        for n in 0..100 {
            carried.put(key(&format!("k{}", n % 30)), etag.clone(), bytes.clone());
        }
        let kept = carried.0.lock();
        assert!(kept.bytes <= MAX_BYTES && kept.versions.len() == 15 && kept.order.len() <= 30);
        assert!(kept.versions.contains_key(&key("k9")) && !kept.versions.contains_key(&key("k10")));
    }
}
