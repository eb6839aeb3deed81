//! A bucket as "somebody else" has it: read and changed past the server's own door.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest, Md5};

use super::blob::Blob;
use super::data::{Data, Described, Draft, Refusal, WriteIf};
use crate::types::{ETag, Time};

/// A bucket of a server in this process. Methods panic when its directory fails: there is nobody to tell.
#[derive(Clone)]
pub struct Bucket {
    data: Arc<Data>,
    name: String,
}

/// An object as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its entity tag.
    pub etag: ETag,
    /// When it was written.
    pub last_modified: Time,
    /// Content-Type, if it was given.
    pub content_type: Option<String>,
    /// User metadata.
    pub user: BTreeMap<String, String>,
    /// Everything else that it was told: header names of requests (`cache-control`, `x-amz-storage-class`,
    /// `x-amz-tagging`, ...) and their values.
    pub headers: BTreeMap<&'static str, String>,
    /// All its bytes.
    pub bytes: Bytes,
}

impl Bucket {
    pub(super) fn open(data: Arc<Data>, name: &str) -> Bucket {
        match data.create_bucket(name) {
            Ok(()) | Err(Refusal::BucketExists) => Bucket { data, name: name.to_owned() },
            Err(refusal) => panic!("bucket {name}: {refusal}"),
        }
    }

    /// Writes an object with user metadata.
    pub fn put(&self, key: &str, bytes: impl Into<Bytes>, user: &[(&str, &str)]) -> ETag {
        self.put_as(key, bytes, None, user)
    }

    /// Writes an object with a Content-Type and user metadata.
    pub fn put_as(
        &self,
        key: &str,
        bytes: impl Into<Bytes>,
        content_type: Option<&str>,
        user: &[(&str, &str)],
    ) -> ETag {
        let bytes = bytes.into();
        let user = user.iter().map(|(name, value)| (name.to_lowercase(), (*value).to_owned())).collect();
        let described = Described { content_type: content_type.map(str::to_owned), user, ..Described::default() };
        self.write(key, Draft { etag: md5_etag([&bytes]), described, blob: bytes.into() })
    }

    /// Writes an object of `len` bytes that takes no memory: its bytes are `generated(seed, ..)`.
    pub fn put_generated(&self, key: &str, len: u64, seed: u64) -> ETag {
        let etag = md5_etag([&Bytes::from(format!("{seed}:{len}"))]);
        let blob = Blob::generated(seed, len);
        self.write(key, Draft { etag: ETag::new(&format!("{etag}-1")), described: Described::default(), blob })
    }

    fn write(&self, key: &str, draft: Draft) -> ETag {
        match self.data.put(&self.name, key, draft, &WriteIf::Always) {
            Ok(version) => version.etag.clone(),
            Err(refusal) => panic!("{}/{key}: {refusal}", self.name),
        }
    }

    /// Replaces the tags of an object, in the form of a URL's query.
    pub fn retag(&self, key: &str, tagging: &str) {
        if let Err(refusal) = self.data.retag(&self.name, key, Some(tagging.to_owned())) {
            panic!("{}/{key}: {refusal}", self.name);
        }
    }

    /// How many multipart uploads are under way.
    pub fn uploads(&self) -> usize {
        self.data.uploads(&self.name, "").len()
    }

    /// Deletes an object; whether it was there.
    pub fn delete(&self, key: &str) -> bool {
        match self.data.delete(&self.name, key, &WriteIf::Always) {
            Ok(was_there) => was_there,
            Err(refusal) => panic!("{}/{key}: {refusal}", self.name),
        }
    }

    /// The object, with its bytes; `None` when it is not there.
    pub fn get(&self, key: &str) -> Option<Stored> {
        let version = self.data.get(&self.name, key).ok()?;
        Some(Stored {
            etag: version.etag.clone(),
            last_modified: version.modified,
            content_type: version.described.content_type.clone(),
            user: version.described.user.clone(),
            headers: version.described.headers(),
            bytes: version.blob.to_bytes().unwrap_or_else(|error| panic!("{}/{key}: {error}", self.name)),
        })
    }

    /// All keys in order.
    pub fn keys(&self) -> Vec<String> {
        let keys = self.data.with_keys(&self.name, |keys| keys.keys().map(|key| key.to_string()).collect());
        keys.unwrap_or_default()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.data.with_keys(&self.name, |keys| keys.len()).unwrap_or_default()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The entity tag of an object put in one piece: the MD5 of its bytes.
pub(super) fn md5_etag<'a>(chunks: impl IntoIterator<Item = &'a Bytes>) -> ETag {
    let mut md5 = Md5::new();
    for chunk in chunks {
        md5.update(chunk);
    }
    digest_etag(md5)
}

pub(super) fn digest_etag(md5: Md5) -> ETag {
    ETag::new(&md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}
