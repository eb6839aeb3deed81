//! What every store must do, whoever serves S3: `reading` and `odd_keys` are given an empty bucket (or
//! prefix) through `store`, and somebody else who writes to it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use fasts3::store::{Error, GetIf, Got, ListPage, ListRequest, ObjectMeta, Store};
use fasts3::types::{ETag, Key};
use futures::TryStreamExt;

/// Somebody who changes the bucket behind our back; keys are relative to what `store` is mounted on.
#[async_trait]
pub(crate) trait SomebodyElse: Send + Sync {
    async fn put(&self, key: &str, bytes: Bytes, user: &[(&str, &str)]) -> ETag;
    async fn delete(&self, key: &str);
}

/// Keys that S3 takes and that stores get wrong.
pub(crate) const ODD_KEYS: [&str; 17] = [
    "a b",
    "a+b",
    "a%2Fb",
    "a%b",
    "a&b=c?d#e",
    "a\\b'\"<>`|^{}~$@!*();,:[]",
    "/leading",
    "double//slash",
    "trailing/",
    "trailing//",
    "dots/../and/./more",
    "\u{fc}ml\u{e4}ut/\u{1f600}",
    "e\u{301}",
    "\u{fffd}\u{ffff}",
    "tab\tand\nnewline\r",
    "control\u{1}\u{7f}",
    "*",
];

/// What a server does not do as S3 does, each with what it does instead: the suite leaves out this and no more.
#[derive(Clone, Copy, Default)]
pub(crate) struct Shortfalls {
    /// Of `ODD_KEYS`.
    pub(crate) keys: &'static [(&'static str, &'static str)],
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// The metadata and all bytes of a GET.
pub(crate) async fn read(
    store: &dyn Store,
    text: &str,
    range: Option<(u64, u64)>,
) -> Result<(ObjectMeta, Bytes), Error> {
    match store.get(&key(text), range.map(|(start, end)| start..end), GetIf::Any).await? {
        Got::Body { meta, body } => Ok((meta, body.try_collect::<Vec<_>>().await?.concat().into())),
        Got::NotModified { .. } => panic!("nothing was asked for to be modified"),
    }
}

/// All pages, put together.
pub(crate) async fn list_all(store: &dyn Store, mut request: ListRequest) -> ListPage {
    let mut all = ListPage::default();
    loop {
        let page = store.list(&request).await.unwrap();
        all.objects.extend(page.objects);
        all.prefixes.extend(page.prefixes);
        request.continuation = page.next;
        if request.continuation.is_none() {
            return all;
        }
    }
}

pub(crate) fn names(page: &ListPage) -> Vec<&str> {
    page.objects.iter().map(|(key, _)| key.as_str()).collect()
}

fn shape(page: &ListPage) -> (Vec<&str>, Vec<&str>) {
    (names(page), page.prefixes.iter().map(Key::as_str).collect())
}

pub(crate) async fn reading(store: &dyn Store, somebody: &dyn SomebodyElse) {
    an_empty_place_has_nothing(store).await;
    metadata_and_ranges(store, somebody).await;
    conditions(store, somebody).await;
    listings(store, somebody).await;
}

async fn an_empty_place_has_nothing(store: &dyn Store) {
    assert!(matches!(store.head(&key("none")).await, Err(Error::NotFound { key }) if &*key == "none"));
    assert!(matches!(read(store, "none", None).await, Err(Error::NotFound { .. })));
    let page = store.list(&ListRequest::default()).await.unwrap();
    assert!(page.objects.is_empty() && page.prefixes.is_empty() && page.next.is_none());
}

async fn metadata_and_ranges(store: &dyn Store, somebody: &dyn SomebodyElse) {
    let etag = somebody.put("k", "0123456789".into(), &[("Mode", "0644")]).await;
    let head = store.head(&key("k")).await.unwrap();
    assert_eq!((&head.etag, head.size), (&etag, 10));
    assert_eq!(head.user, Some(BTreeMap::from([("mode".to_owned(), "0644".to_owned())])));
    for (range, want) in [(None, "0123456789"), (Some((2, 5)), "234"), (Some((8, 100)), "89")] {
        let (meta, bytes) = read(store, "k", range).await.unwrap();
        assert_eq!((meta, bytes), (head.clone(), want.into()), "{range:?}");
    }
    assert!(read(store, "k", Some((10, 11))).await.is_err(), "a range behind the end has no bytes");
    let listed = store.list(&ListRequest::default()).await.unwrap().objects.remove(0);
    assert_eq!((&*listed.0, &listed.1.etag, listed.1.size, listed.1.user), ("k", &etag, 10, None));
    somebody.put("empty", Bytes::new(), &[]).await;
    assert_eq!(read(store, "empty", None).await.unwrap().0.size, 0);
    somebody.delete("empty").await;
    somebody.delete("k").await;
    assert!(matches!(store.head(&key("k")).await, Err(Error::NotFound { .. })));
}

async fn conditions(store: &dyn Store, somebody: &dyn SomebodyElse) {
    let old = somebody.put("k", "old".into(), &[]).await;
    let get = async |condition| store.get(&key("k"), None, condition).await;
    assert!(matches!(get(GetIf::NoneMatch(old.clone())).await, Ok(Got::NotModified { .. })));
    assert!(matches!(get(GetIf::Match(old.clone())).await, Ok(Got::Body { .. })));
    let new = somebody.put("k", "new".into(), &[]).await;
    assert_ne!(old, new);
    assert!(matches!(get(GetIf::Match(old.clone())).await, Err(Error::PreconditionFailed { key }) if &*key == "k"));
    let Got::Body { meta, body } = get(GetIf::NoneMatch(old)).await.unwrap() else { panic!("it was modified") };
    assert_eq!((meta.etag, body.try_collect::<Vec<_>>().await.unwrap().concat()), (new, b"new".to_vec()));
    somebody.delete("k").await;
}

async fn listings(store: &dyn Store, somebody: &dyn SomebodyElse) {
    for name in ["a", "a/1", "a/2/x", "a0", "b/1"] {
        somebody.put(name, "x".into(), &[]).await;
    }
    let list = async |request: ListRequest| list_all(store, request).await;
    let of = |prefix: &str, delimited| ListRequest { prefix: prefix.into(), delimited, ..ListRequest::default() };
    assert_eq!(names(&list(of("", false)).await), ["a", "a/1", "a/2/x", "a0", "b/1"]);
    let folded = list(of("", true)).await;
    assert_eq!(shape(&folded), (vec!["a", "a0"], vec!["a/", "b/"]));
    let folded = list(of("a/", true)).await;
    assert_eq!(shape(&folded), (vec!["a/1"], vec!["a/2/"]));
    let by_one = list(ListRequest { max_keys: Some(1), ..of("", true) }).await;
    assert_eq!(shape(&by_one), (vec!["a", "a0"], vec!["a/", "b/"]));
    let after = ListRequest { start_after: Some(key("a/1")), ..of("", false) };
    assert_eq!(names(&list(after).await), ["a/2/x", "a0", "b/1"]);
    for name in ["a", "a/1", "a/2/x", "a0", "b/1"] {
        somebody.delete(name).await;
    }
}

/// Apart from `reading`, because some servers refuse or mistake some of these keys.
pub(crate) async fn odd_keys(store: &dyn Store, somebody: &dyn SomebodyElse, shortfalls: Shortfalls) {
    let mut sorted = ODD_KEYS.to_vec();
    for (key, instead) in shortfalls.keys {
        eprintln!("left out: {key:?}, which this server {instead}");
        sorted.remove(sorted.iter().position(|odd| odd == key).expect("only odd keys are left out"));
    }
    for name in &sorted {
        somebody.put(name, name.to_string().into(), &[]).await;
    }
    sorted.sort_unstable();
    assert_eq!(names(&list_all(store, ListRequest::default()).await), sorted);
    for &name in &sorted {
        assert!(store.head(&key(name)).await.is_ok(), "{name:?}");
        assert_eq!(read(store, name, None).await.unwrap().1, name, "{name:?}");
        let only = ListRequest { prefix: name.into(), ..ListRequest::default() };
        assert_eq!(names(&list_all(store, only).await)[0], name);
        let after = ListRequest { start_after: Some(key(name)), max_keys: Some(1), ..ListRequest::default() };
        let next = sorted.iter().copied().find(|other| *other > name);
        assert_eq!(names(&store.list(&after).await.unwrap()).first().copied(), next, "{name:?}");
    }
    for name in sorted {
        somebody.delete(name).await;
    }
}
