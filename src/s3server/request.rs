//! Which operation an HTTP request asks for, told from its request line alone, so that faults and the log
//! see it before signatures and bodies are looked at.

use std::fmt;

use hyper::Method;
use hyper::http::request::Parts;

/// The operations of S3 that the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    ListBuckets,
    CreateBucket,
    HeadBucket,
    GetBucketLocation,
    List,
    Head,
    Get,
    Put,
    Copy,
    Delete,
    DeleteMany,
    CreateUpload,
    UploadPart,
    UploadPartCopy,
    CompleteUpload,
    AbortUpload,
    ListParts,
    ListUploads,
    GetTagging,
    PutTagging,
    Other,
}

impl Kind {
    /// Whether such a request changes the bucket or an upload.
    pub fn is_write(self) -> bool {
        use Kind::*;
        match self {
            CreateBucket | Put | Copy | Delete | DeleteMany | CreateUpload | UploadPart | UploadPartCopy
            | CompleteUpload | AbortUpload | PutTagging => true,
            ListBuckets | HeadBucket | GetBucketLocation | List | Head | Get | ListParts | ListUploads | GetTagging
            | Other => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The operation and its key (for a LIST: its prefix; for a bucket's operation: empty).
pub(super) fn classify(parts: &Parts) -> (Kind, String) {
    let path = parts.uri.path().strip_prefix('/').unwrap_or_default();
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let query = Query(parts.uri.query().unwrap_or_default());
    let is_copy = parts.headers.contains_key("x-amz-copy-source");
    if bucket.is_empty() {
        return (Kind::ListBuckets, String::new());
    }
    if key.is_empty() {
        return (bucket_kind(&parts.method, &query), decode(query.value("prefix").unwrap_or_default(), true));
    }
    (object_kind(&parts.method, &query, is_copy), decode(key, false))
}

fn bucket_kind(method: &Method, query: &Query<'_>) -> Kind {
    match *method {
        Method::PUT => Kind::CreateBucket,
        Method::HEAD => Kind::HeadBucket,
        Method::POST if query.has("delete") => Kind::DeleteMany,
        Method::GET if query.has("location") => Kind::GetBucketLocation,
        Method::GET if query.has("uploads") => Kind::ListUploads,
        Method::GET => Kind::List,
        _ => Kind::Other,
    }
}

fn object_kind(method: &Method, query: &Query<'_>, is_copy: bool) -> Kind {
    let in_upload = query.has("uploadId");
    match *method {
        Method::HEAD => Kind::Head,
        Method::GET if in_upload => Kind::ListParts,
        Method::GET if query.has("tagging") => Kind::GetTagging,
        Method::PUT | Method::DELETE if query.has("tagging") => Kind::PutTagging,
        Method::GET => Kind::Get,
        Method::PUT if in_upload && is_copy => Kind::UploadPartCopy,
        Method::PUT if in_upload => Kind::UploadPart,
        Method::PUT if is_copy => Kind::Copy,
        Method::PUT => Kind::Put,
        Method::POST if query.has("uploads") => Kind::CreateUpload,
        Method::POST if in_upload => Kind::CompleteUpload,
        Method::DELETE if in_upload => Kind::AbortUpload,
        Method::DELETE => Kind::Delete,
        _ => Kind::Other,
    }
}

struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn value(&self, name: &str) -> Option<&'a str> {
        let mut pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }
}

pub(super) fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) if plus_is_space => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(method: &str, uri: &str) -> (Kind, String) {
        classify(&hyper::Request::builder().method(method).uri(uri).body(()).unwrap().into_parts().0)
    }

    #[test]
    fn request_lines_tell_the_operation() {
        assert_eq!(of("GET", "/"), (Kind::ListBuckets, "".into()));
        assert_eq!(of("GET", "/b/?list-type=2&prefix=a%2Fb+c"), (Kind::List, "a/b c".into()));
        assert_eq!(of("GET", "/b/a/b%20c+d%2"), (Kind::Get, "a/b c+d%2".into()));
        assert_eq!(of("HEAD", "/b//"), (Kind::Head, "/".into()));
        assert_eq!(of("POST", "/b/k?uploads"), (Kind::CreateUpload, "k".into()));
        assert_eq!(of("GET", "/b/k?tagging"), (Kind::GetTagging, "k".into()));
        assert_eq!(of("PUT", "/b/k?partNumber=1&uploadId=u"), (Kind::UploadPart, "k".into()));
    }
}
