//! What every store that is written to must do, whoever serves S3: `writing` is given an empty bucket (or prefix)
//! through `store`, which minds all conditions, itself or by `careful`.

use std::collections::BTreeMap;

use bytes::Bytes;
use fasts3::store::{CopySource, Error, Headers, ListRequest, Part, PutIf, Upload, WriteStore};
use fasts3::types::ETag;

use crate::conformance::{ODD_KEYS, key, list_all, names, read};

/// What a server lacks beside conditions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quirks {
    /// It knows no tags.
    pub(crate) no_tags: bool,
    /// Its listing of parts cannot be read.
    pub(crate) no_list_of_parts: bool,
    /// It fails on an upload that is gone, in place of saying so.
    pub(crate) fails_on_gone_uploads: bool,
    /// It makes no part of an object under 5 MiB, not even the last.
    pub(crate) no_small_copied_parts: bool,
    /// It mistakes these of the odd keys.
    pub(crate) mistaken_keys: &'static [&'static str],
}

/// Least size of a part that is not the last.
const PART: usize = 5 << 20;

pub(crate) async fn writing(store: &dyn WriteStore, quirks: Quirks) {
    puts(store).await;
    headers_come_back(store, quirks).await;
    copies(store, quirks).await;
    copies_under_conditions(store).await;
    deletes(store).await;
    uploads(store, quirks).await;
    uploads_under_conditions(store).await;
    uploads_that_are_gone(store, quirks).await;
    assert_eq!(names(&list_all(store, ListRequest::default()).await), [""; 0], "every test cleans up");
}

fn other() -> ETag {
    ETag::new("11111111111111111111111111111111")
}

async fn put(store: &dyn WriteStore, name: &str, text: &'static str, condition: PutIf) -> Result<ETag, Error> {
    store.put(&key(name), Bytes::from_static(text.as_bytes()), &Headers::default(), condition).await.map(|put| put.etag)
}

async fn gone(store: &dyn WriteStore, name: &str) {
    store.delete(&key(name), None).await.unwrap();
    assert!(matches!(store.head(&key(name)).await, Err(Error::NotFound { .. })));
}

async fn puts(store: &dyn WriteStore) {
    let failed =
        |outcome: Result<ETag, Error>| matches!(outcome, Err(Error::PreconditionFailed { key }) if &*key == "k");
    assert!(matches!(put(store, "k", "0", PutIf::Match(other())).await, Err(Error::NotFound { .. })));
    let first = put(store, "k", "1", PutIf::Absent).await.unwrap();
    assert_eq!(store.head(&key("k")).await.unwrap().etag, first);
    assert!(failed(put(store, "k", "2", PutIf::Absent).await));
    assert!(failed(put(store, "k", "2", PutIf::Match(other())).await));
    let second = put(store, "k", "2", PutIf::Match(first.clone())).await.unwrap();
    assert_ne!(first, second);
    assert!(failed(put(store, "k", "3", PutIf::Match(first)).await));
    assert_eq!(read(store, "k", None).await.unwrap().1, "2");
    put(store, "k", "", PutIf::Any).await.unwrap();
    assert_eq!(read(store, "k", None).await.unwrap().0.size, 0);
    gone(store, "k").await;
}

fn some_headers(quirks: Quirks) -> Headers {
    let text = |text: &str| Some(text.to_owned());
    let user = [("file-mtime", "1700000000123456789ns"), ("odd", "a=b; c, \"d\""), ("empty", "")];
    let mut headers = Headers {
        content_type: text("image/svg+xml; charset=utf-8"),
        cache_control: text("max-age=60, public"),
        content_disposition: text("attachment; filename=\"a b.svg\""),
        content_encoding: text("identity"),
        content_language: text("de"),
        expires: text("Wed, 21 Oct 2026 07:28:00 GMT"),
        website_redirect: text("/elsewhere"),
        storage_class: None,
        user: user.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        tags: vec![("a b".to_owned(), "1+2=3".to_owned()), ("team".to_owned(), String::new())],
    };
    if quirks.no_tags {
        headers.tags.clear();
    }
    headers
}

/// The headers of `name`, its tags in order.
async fn described(store: &dyn WriteStore, name: &str) -> Headers {
    let (meta, mut headers) = store.describe(&key(name)).await.unwrap();
    assert_eq!((&meta.user, &meta.content_type), (&Some(headers.user.clone()), &headers.content_type));
    headers.tags.sort();
    headers
}

async fn headers_come_back(store: &dyn WriteStore, quirks: Quirks) {
    let headers = some_headers(quirks);
    let etag = store.put(&key("k"), "x".into(), &headers, PutIf::Absent).await.unwrap().etag;
    assert_eq!(described(store, "k").await, headers);
    // Changed in place, as chmod does.
    let mut changed = headers.clone();
    changed.user.insert("file-permissions".into(), "0100600".into());
    changed.user.remove("odd");
    let source = CopySource { key: &key("k"), etag: &etag, size: 1 };
    let again = store.copy(source, &key("k"), Some(&changed), PutIf::Match(etag.clone())).await.unwrap();
    assert_eq!(described(store, "k").await, changed);
    assert_eq!(store.head(&key("k")).await.unwrap().etag, again.etag);
    assert_eq!(read(store, "k", None).await.unwrap().1, "x");
    // What no header holds is refused or kept, and never half of it.
    let foreign = Headers { user: BTreeMap::from([("name".into(), "\u{fc}ml\u{e4}ut".into())]), ..Headers::default() };
    store.put(&key("k"), "x".into(), &foreign, PutIf::Any).await.unwrap();
    let told = described(store, "k").await.user["name"].clone();
    assert!(["\u{fc}ml\u{e4}ut".to_owned(), "=?UTF-8?B?w7xtbMOkdXQ=?=".to_owned()].contains(&told), "{told}");
    gone(store, "k").await;
}

async fn copies(store: &dyn WriteStore, quirks: Quirks) {
    let headers = some_headers(quirks);
    let etag = store.put(&key("from"), "bytes".into(), &headers, PutIf::Any).await.unwrap().etag;
    let from = key("from");
    let source = CopySource { key: &from, etag: &etag, size: 5 };
    store.copy(source, &key("kept"), None, PutIf::Absent).await.unwrap();
    assert_eq!(read(store, "kept", None).await.unwrap().1, "bytes");
    assert_eq!(described(store, "kept").await, headers);
    let others = Headers { content_type: Some("text/plain".into()), tags: headers.tags.clone(), ..Headers::default() };
    store.copy(source, &key("replaced"), Some(&others), PutIf::Any).await.unwrap();
    assert_eq!(described(store, "replaced").await, others);
    for name in ["from", "kept", "replaced"] {
        gone(store, name).await;
    }
}

async fn copies_under_conditions(store: &dyn WriteStore) {
    let from = key("from");
    let etag = put(store, "from", "1", PutIf::Any).await.unwrap();
    let copy = async |etag: &ETag, headers: Option<&Headers>, condition| {
        let source = CopySource { key: &from, etag, size: 1 };
        store.copy(source, &key("to"), headers, condition).await.map(|put| put.etag)
    };
    let plain = Headers::default();
    for headers in [None, Some(&plain)] {
        let changed = |outcome| matches!(outcome, Err(Error::SourceChanged { key }) if &*key == "from");
        let failed = |outcome| matches!(outcome, Err(Error::PreconditionFailed { key }) if &*key == "to");
        assert!(changed(copy(&other(), headers, PutIf::Any).await));
        assert!(changed(copy(&other(), headers, PutIf::Absent).await));
        let not_there = copy(&etag, headers, PutIf::Match(other())).await;
        assert!(matches!(not_there, Err(Error::NotFound { key }) if &*key == "to"));
        let copied = copy(&etag, headers, PutIf::Absent).await.unwrap();
        assert!(failed(copy(&etag, headers, PutIf::Absent).await));
        assert!(failed(copy(&etag, headers, PutIf::Match(other())).await));
        assert!(copy(&etag, headers, PutIf::Match(copied)).await.is_ok());
        gone(store, "to").await;
        let gone_source = CopySource { key: &key("no source"), etag: &etag, size: 1 };
        let outcome = store.copy(gone_source, &key("to"), headers, PutIf::Any).await;
        assert!(matches!(outcome, Err(Error::SourceChanged { key }) if &*key == "no source"));
    }
    gone(store, "from").await;
}

async fn deletes(store: &dyn WriteStore) {
    let etag = put(store, "k", "1", PutIf::Any).await.unwrap();
    assert!(matches!(store.delete(&key("k"), Some(&other())).await, Err(Error::PreconditionFailed { .. })));
    assert!(store.head(&key("k")).await.is_ok());
    store.delete(&key("k"), Some(&etag)).await.unwrap();
    assert!(matches!(store.head(&key("k")).await, Err(Error::NotFound { .. })));
    store.delete(&key("k"), Some(&etag)).await.unwrap();
    store.delete(&key("k"), None).await.unwrap();
}

/// Bytes that differ from part to part.
fn filled(byte: u8, len: usize) -> Bytes {
    vec![byte; len].into()
}

async fn begin(store: &dyn WriteStore, name: &str) -> Upload {
    store.begin_upload(&key(name), &Headers::default()).await.unwrap()
}

async fn uploads(store: &dyn WriteStore, quirks: Quirks) {
    let headers = some_headers(quirks);
    let etag = store.put(&key("source"), filled(1, PART + 10), &Headers::default(), PutIf::Any).await.unwrap().etag;
    let upload = store.begin_upload(&key("big"), &headers).await.unwrap();
    let source = CopySource { key: &key("source"), etag: &etag, size: PART as u64 + 10 };
    let wrong = CopySource { etag: &other(), ..source };
    let range = 5..PART as u64 + 5;
    let changed = store.copy_part(&upload, 2, wrong, range.clone()).await;
    assert!(matches!(changed, Err(Error::SourceChanged { key }) if &*key == "source"));
    let second = store.copy_part(&upload, 2, source, range).await.unwrap();
    assert_eq!((second.number, second.size), (2, PART as u64));
    let first = store.put_part(&upload, 1, filled(2, PART)).await.unwrap();
    let third = store.put_part(&upload, 3, filled(3, 7)).await.unwrap();
    let parts = [first, second, third];
    if !quirks.no_list_of_parts {
        assert_eq!(store.parts(&upload).await.unwrap(), parts);
    }
    assert!(
        matches!(store.head(&key("big")).await, Err(Error::NotFound { .. })),
        "nothing is there before it is whole"
    );
    let all = store.uploads().await.unwrap();
    assert!(all.iter().any(|(listed, began)| *listed == upload && began.0 > 0), "{all:?}");
    let done = store.complete_upload(&upload, &parts, PutIf::Absent).await.unwrap();
    let (meta, bytes) = read(store, "big", None).await.unwrap();
    assert_eq!(meta.etag, done.etag);
    assert!(bytes == [filled(2, PART), filled(1, PART), filled(3, 7)].concat());
    assert_eq!(described(store, "big").await, headers);
    assert!(!store.uploads().await.unwrap().iter().any(|(listed, _)| *listed == upload));
    gone(store, "big").await;
    gone(store, "source").await;
    if !quirks.no_small_copied_parts {
        a_small_object_in_one_part(store).await;
    }
}

async fn a_small_object_in_one_part(store: &dyn WriteStore) {
    // A whole object in one part, which S3 does not call a range.
    let small = put(store, "source", "x", PutIf::Any).await.unwrap();
    let upload = begin(store, "small").await;
    let source = CopySource { key: &key("source"), etag: &small, size: 1 };
    let part = store.copy_part(&upload, 1, source, 0..1).await.unwrap();
    store.complete_upload(&upload, &[part], PutIf::Any).await.unwrap();
    assert_eq!(read(store, "small", None).await.unwrap().1, "x");
    gone(store, "small").await;
    gone(store, "source").await;
}

async fn uploads_under_conditions(store: &dyn WriteStore) {
    let early = begin(store, "k").await;
    let part = [store.put_part(&early, 1, "new".into()).await.unwrap()];
    let not_there = store.complete_upload(&early, &part, PutIf::Match(other())).await;
    assert!(matches!(not_there, Err(Error::NotFound { .. })));
    store.abort_upload(&early).await.unwrap();
    let etag = put(store, "k", "old", PutIf::Any).await.unwrap();
    let upload = begin(store, "k").await;
    let part = [store.put_part(&upload, 1, "new".into()).await.unwrap()];
    let complete = async |condition| store.complete_upload(&upload, &part, condition).await;
    assert!(matches!(complete(PutIf::Absent).await, Err(Error::PreconditionFailed { key }) if &*key == "k"));
    assert!(matches!(complete(PutIf::Match(other())).await, Err(Error::PreconditionFailed { .. })));
    assert_eq!(read(store, "k", None).await.unwrap().1, "old");
    complete(PutIf::Match(etag)).await.unwrap();
    assert_eq!(read(store, "k", None).await.unwrap().1, "new");
    gone(store, "k").await;
}

async fn uploads_that_are_gone(store: &dyn WriteStore, quirks: Quirks) {
    let upload = begin(store, "k").await;
    let part = store.put_part(&upload, 1, "x".into()).await.unwrap();
    let unknown = Part { number: 2, ..part.clone() };
    let is_gone = |error: Error| matches!(&error, Error::NoSuchUpload { key } if **key == *"k") || panic!("{error}");
    let odd = store.complete_upload(&upload, &[unknown], PutIf::Any).await;
    assert!(is_gone(odd.unwrap_err()), "a part that is not there makes an upload useless");
    store.abort_upload(&upload).await.unwrap();
    store.abort_upload(&upload).await.unwrap();
    let late = [
        store.put_part(&upload, 1, "x".into()).await.unwrap_err(),
        store.parts(&upload).await.unwrap_err(),
        store.complete_upload(&upload, &[part], PutIf::Any).await.unwrap_err(),
    ];
    assert!(quirks.fails_on_gone_uploads || late.into_iter().all(is_gone));
    assert!(matches!(store.head(&key("k")).await, Err(Error::NotFound { .. })));
}

/// Apart from `writing`, because some servers refuse or mistake some of these keys.
pub(crate) async fn writing_odd_keys(store: &dyn WriteStore, quirks: Quirks) {
    for name in ODD_KEYS.into_iter().filter(|name| !quirks.mistaken_keys.contains(name)) {
        let etag = put(store, name, "x", PutIf::Absent).await.unwrap();
        let (from, to) = (key(name), key(&format!("copy/{name}")));
        let source = CopySource { key: &from, etag: &etag, size: 1 };
        store.copy(source, &to, None, PutIf::Absent).await.unwrap_or_else(|error| panic!("{name:?}: {error}"));
        assert_eq!(read(store, &to, None).await.unwrap().1, "x", "{name:?}");
        // S3 tells the key in the answer, and no XML can hold these.
        if !name.contains(['\u{ffff}', '\u{1}']) {
            upload_in_one_part(store, name, source, quirks).await;
        }
        store.delete(&from, None).await.unwrap();
        store.delete(&to, None).await.unwrap();
    }
    assert_eq!(names(&list_all(store, ListRequest::default()).await), [""; 0]);
}

async fn upload_in_one_part(store: &dyn WriteStore, name: &str, source: CopySource<'_>, quirks: Quirks) {
    let upload = begin(store, name).await;
    let listed = store.uploads().await.unwrap();
    assert_eq!(listed.iter().map(|(upload, _)| upload).collect::<Vec<_>>(), [&upload], "{name:?}");
    let part = match quirks.no_small_copied_parts {
        true => store.put_part(&upload, 1, "x".into()).await.unwrap(),
        false => store.copy_part(&upload, 1, source, 0..1).await.unwrap(),
    };
    store.complete_upload(&upload, &[part], PutIf::Match(source.etag.clone())).await.unwrap();
}
