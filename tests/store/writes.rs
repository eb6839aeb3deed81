//! Writing to an S3 with switches for trouble, and to moto.

use std::sync::Arc;

use fasts3::config::{Encryption, NewObjects};
use fasts3::s3server::On;
use fasts3::store::conditions::probe;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::writing::{Quirks, writing, writing_odd_keys};

async fn open_with(config: &S3Config, timing: Timing) -> (Connected, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    let connecting = Connecting { timing, ..with_secret(SECRET_KEY) };
    (connect_with(config, counters.clone(), connecting).await.unwrap(), counters)
}

async fn given() -> (S3Server, Bucket, Arc<dyn WriteStore>) {
    let server = server();
    let (connected, _) = open_with(&settings(&server), QUICK).await;
    let bucket = server.bucket("bucket");
    server.requests().reset();
    (server, bucket, connected.writes)
}

fn plain() -> Headers {
    Headers::default()
}

#[tokio::test]
async fn the_writing_store_of_a_bucket_conforms() {
    let (_server, bucket, store) = given().await;
    writing(&*store, Quirks::default()).await;
    writing_odd_keys(&*store, Quirks::default()).await;
    assert_eq!((bucket.len(), bucket.uploads()), (0, 0));
}

#[tokio::test]
async fn the_writing_store_of_a_prefix_conforms_and_touches_nothing_else() {
    let server = server();
    let bucket = server.bucket("bucket");
    let (whole, _) = open_with(&settings(&server), QUICK).await;
    bucket.put("p +\u{fc}", "outside", &[]);
    whole.writes.begin_upload(&key("outside"), &plain()).await.unwrap();
    let (mounted, _) = open_with(&S3Config { prefix: "p +\u{fc}/".into(), ..settings(&server) }, QUICK).await;
    writing(&*mounted.writes, Quirks::default()).await;
    writing_odd_keys(&*mounted.writes, Quirks::default()).await;
    assert_eq!((bucket.keys(), bucket.uploads()), (vec!["p +\u{fc}".to_owned()], 1));
}

/// What the server honours when it ignores conditions on requests of `kinds`.
fn without(kinds: &[Kind]) -> Conditions {
    let minds = |kind| !kinds.contains(&kind);
    Conditions {
        put_absent: minds(Kind::Put),
        put_match: minds(Kind::Put),
        delete_match: minds(Kind::Delete),
        complete: minds(Kind::CompleteUpload),
        copy_source: minds(Kind::Copy),
        copy_target: minds(Kind::Copy),
    }
}

#[tokio::test]
async fn what_is_not_honoured_is_found_out_and_asked_for_before_writing() {
    let (server, bucket, store) = given().await;
    let all = [Kind::Put, Kind::Delete, Kind::CompleteUpload, Kind::Copy, Kind::UploadPartCopy];
    let ignored: [&[Kind]; 6] = [&[], &all[..1], &all[1..2], &all[2..3], &all[3..], &all];
    for kinds in ignored {
        server.faults().ignore_conditions(kinds);
        let found = probe(&*store, &key(".fasts3-probe")).await.unwrap();
        assert_eq!(found, without(kinds), "{kinds:?}");
        assert_eq!((bucket.len(), bucket.uploads()), (0, 0), "the probe cleans up");
        writing(&*careful(store.clone(), found), Quirks::default()).await;
    }
    assert!(Arc::ptr_eq(&careful(store.clone(), Conditions::all()), &store));
}

#[tokio::test]
async fn a_probe_that_cannot_write_says_so_and_leaves_nothing() {
    let (server, bucket, store) = given().await;
    server.faults().inject(Kind::Put, 1, Fault::Denied);
    assert!(matches!(probe(&*store, &key("p")).await, Err(Error::Denied { .. })));
    server.faults().inject(Kind::UploadPart, 1, Fault::Denied);
    assert!(matches!(probe(&*store, &key("p")).await, Err(Error::Denied { .. })));
    assert_eq!((bucket.len(), bucket.uploads()), (0, 0));
}

/// moto ignores some conditions, and calls its listing of parts by a name that is not S3's.
#[tokio::test]
async fn the_writing_store_of_moto_conforms() {
    let Some(moto) = Moto::start().await else { return };
    let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test");
    moto.client(credentials.clone()).create_bucket().bucket("bucket").send().await.unwrap();
    let honoured = Conditions { complete: false, copy_source: false, copy_target: false, ..Conditions::all() };
    let quirks = Quirks { no_list_of_parts: true, fails_on_gone_uploads: true, ..Quirks::default() };
    writes_conform(&moto.endpoint(), credentials, honoured, quirks).await;
}

/// garage ignores conditions on all it writes; an object whose key begins with a slash it takes for another.
#[tokio::test]
async fn the_writing_store_of_garage_conforms() {
    let Some(garage) = Garage::start().await else { return };
    let honoured = Conditions { copy_source: true, ..Conditions::none() };
    let mistaken_keys = &["/leading"];
    let quirks = Quirks { no_tags: true, no_small_copied_parts: true, mistaken_keys, ..Quirks::default() };
    writes_conform(&garage.endpoint(), garage.credentials(), honoured, quirks).await;
}

/// A server that is a process of its own, with an empty bucket, and honours what is said.
async fn writes_conform(endpoint: &str, credentials: Credentials, honoured: Conditions, quirks: Quirks) {
    let config = S3Config { endpoint_url: Some(endpoint.to_owned()), ..settings(&server()) };
    // The pauses of a server written in Python are no stalls.
    let timing = Timing { stall: Duration::from_secs(5), ..QUICK };
    let connecting = Connecting { credentials: Some(credentials), timing };
    let connected = connect_with(&config, Arc::default(), connecting).await.unwrap();
    let found = probe(&*connected.writes, &key(".fasts3-probe")).await.unwrap();
    assert_eq!(found, honoured);
    writing(&*careful(connected.writes, found), quirks).await;
}

#[tokio::test]
async fn a_put_that_landed_but_timed_out_leaves_the_object_for_the_caller_to_recognise() {
    let (server, bucket, store) = given().await;
    for fault in [Fault::FailAfterApply, Fault::ErrorAfterApply] {
        server.faults().inject(Kind::Put, 1, fault.clone());
        assert!(store.put(&key("k"), "1".into(), &plain(), PutIf::Any).await.is_ok());
        bucket.delete("k");
        server.faults().inject(Kind::Put, 1, fault.clone());
        let second_try = store.put(&key("k"), "1".into(), &plain(), PutIf::Absent).await;
        assert!(matches!(second_try, Err(Error::PreconditionFailed { .. })), "{fault:?}: {second_try:?}");
        assert_eq!(bucket.get("k").unwrap().bytes, "1");
        bucket.delete("k");
        server.faults().inject(Kind::Put, 3, fault.clone());
        let unknown = store.put(&key("k"), "1".into(), &plain(), PutIf::Any).await;
        assert!(matches!(unknown, Err(Error::Unavailable { .. })), "{fault:?}: {unknown:?}");
        assert_eq!(bucket.get("k").unwrap().bytes, "1");
        bucket.delete("k");
    }
}

#[tokio::test]
async fn other_writes_that_landed_but_timed_out_are_done() {
    let (server, bucket, store) = given().await;
    let etag = bucket.put("k", "1", &[]);
    for kind in [Kind::Copy, Kind::Delete, Kind::CompleteUpload] {
        server.faults().inject(kind, 1, Fault::FailAfterApply);
    }
    let from = key("k");
    let source = CopySource { key: &from, etag: &etag, size: 1 };
    store.copy(source, &key("copy"), None, PutIf::Any).await.unwrap();
    store.delete(&from, Some(&etag)).await.unwrap();
    assert_eq!(bucket.keys(), ["copy"]);
    let upload = store.begin_upload(&key("big"), &plain()).await.unwrap();
    let part = store.put_part(&upload, 1, "x".into()).await.unwrap();
    let second_try = store.complete_upload(&upload, &[part], PutIf::Any).await;
    assert!(matches!(second_try, Err(Error::NoSuchUpload { .. })), "{second_try:?}");
    assert_eq!(bucket.get("big").unwrap().bytes, "x");
}

#[tokio::test]
async fn a_conflict_is_tried_again_and_in_the_end_told() {
    let (server, bucket, store) = given().await;
    server.faults().inject(On::writes(), 2, Fault::Conflict);
    assert!(store.put(&key("k"), "1".into(), &plain(), PutIf::Absent).await.is_ok());
    assert_eq!(server.requests().count(Kind::Put), 3);
    server.faults().inject_always(Kind::Delete, Fault::Conflict);
    let etag = bucket.get("k").unwrap().etag;
    assert!(matches!(store.delete(&key("k"), Some(&etag)).await, Err(Error::Unavailable { .. })));
    assert_eq!(server.requests().count(Kind::Delete), 6);
}

#[tokio::test]
async fn writes_that_were_slowed_down_are_tried_again() {
    let (server, bucket, store) = given().await;
    server.faults().inject(On::writes(), 2, Fault::SlowDown);
    assert!(store.head(&key("k")).await.is_err(), "reads are not slowed down");
    store.put(&key("k"), "1".into(), &plain(), PutIf::Absent).await.unwrap();
    assert_eq!((server.requests().count(Kind::Put), bucket.len()), (3, 1));
    server.faults().inject_always(On::writes(), Fault::SlowDown);
    let refused = store.put(&key("k"), "2".into(), &plain(), PutIf::Any).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })));
}

/// A line to an S3 that takes one piece of an upload every `pause`, or none without one.
#[derive(Clone, Copy)]
struct Line {
    pause: Option<Duration>,
    bytes: usize,
}

impl Line {
    async fn endpoint(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(self.answer(socket));
            }
        });
        endpoint
    }

    /// Takes a request whose body has `bytes` bytes, and is pleased with it.
    async fn answer(self, mut socket: TcpStream) {
        let Some(pause) = self.pause else { return std::future::pending().await };
        let (mut piece, mut got) = (vec![0; 1 << 20], 0);
        while got < self.bytes {
            tokio::time::sleep(pause).await;
            match socket.read(&mut piece).await {
                Ok(1..) if got == 0 && piece.starts_with(b"GET") => return,
                Ok(len @ 1..) => got += len,
                _ => return,
            }
        }
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\netag: \"e\"\r\ncontent-length: 0\r\n\r\n").await;
    }
}

#[tokio::test]
async fn an_upload_may_take_long_as_long_as_it_moves() {
    let (slow, dead) = (Some(Duration::from_millis(150)), None);
    let (slow, dead) = futures::join!(send_over(slow), send_over(dead));
    for sent in slow {
        assert_eq!(sent.unwrap(), ETag::new("e"));
    }
    for sent in dead {
        assert!(matches!(&sent, Err(Error::Unavailable { .. })), "{sent:?}");
    }
}

/// A PUT and a part, of 16 pieces each.
async fn send_over(pause: Option<Duration>) -> [Result<ETag, Error>; 2] {
    let bytes = 16 << 20;
    let config = S3Config { endpoint_url: Some(Line { pause, bytes }.endpoint().await), ..settings(&server()) };
    let second = Duration::from_secs(1);
    let timing = Timing { connect: second, attempt: second, operation: second, attempts: 1, ..QUICK };
    let (connected, _) = open_with(&config, timing).await;
    let upload = Upload { key: key("k"), id: "id".into() };
    let (body, plain) = (Bytes::from(vec![0; bytes]), plain());
    let (put, part) = futures::join!(
        connected.writes.put(&upload.key, body.clone(), &plain, PutIf::Any),
        connected.writes.put_part(&upload, 1, body),
    );
    [put.map(|put| put.etag), part.map(|part| part.etag)]
}

#[tokio::test]
async fn an_object_over_5_gib_is_copied_in_parts_with_its_headers() {
    let (server, bucket, store) = given().await;
    let size = 6 << 30;
    let etag = bucket.put_generated("from", size, 9);
    bucket.retag("from", "a=1");
    let (from, to) = (key("from"), key("to"));
    let source = CopySource { key: &from, etag: &etag, size };
    store.copy(source, &to, None, PutIf::Absent).await.unwrap();
    assert_eq!(server.requests().count(Kind::UploadPartCopy), 12);
    let (meta, headers) = store.describe(&to).await.unwrap();
    assert_eq!((meta.size, headers.tags), (size, vec![("a".to_owned(), "1".to_owned())]));
    let (start, end) = (size - 10, size);
    assert_eq!(read(&*store, "to", Some((start, end))).await.unwrap().1, generated(9, start..end));
    assert!(matches!(store.copy(source, &to, None, PutIf::Absent).await, Err(Error::PreconditionFailed { .. })));
    let gone = CopySource { etag: &ETag::new("other"), ..source };
    assert!(matches!(store.copy(gone, &to, None, PutIf::Any).await, Err(Error::SourceChanged { .. })));
    let replaced = store.copy(gone, &to, Some(&plain()), PutIf::Any).await;
    assert!(matches!(replaced, Err(Error::SourceChanged { .. })), "{replaced:?}");
    assert_eq!(bucket.uploads(), 0, "what failed is given up");
}

#[tokio::test]
async fn parts_and_uploads_of_many_pages_are_all_told() {
    let (server, _bucket, store) = given().await;
    let begin = |n: usize| {
        let store = store.clone();
        async move { store.begin_upload(&key(&format!("k +{n:04}")), &Headers::default()).await }
    };
    let begun: Vec<Upload> = stream::iter(0..1001).map(begin).buffered(8).try_collect().await.unwrap();
    let all: Vec<Upload> = store.uploads().await.unwrap().into_iter().map(|(upload, _)| upload).collect();
    assert_eq!(all, begun);
    let put = |number: u16| {
        let (store, upload) = (store.clone(), begun[0].clone());
        async move { store.put_part(&upload, number, "x".into()).await }
    };
    let sent: Vec<Part> = stream::iter(1..=1001).map(put).buffered(8).try_collect().await.unwrap();
    assert_eq!(store.parts(&begun[0]).await.unwrap(), sent);
    assert_eq!((server.requests().count(Kind::ListUploads), server.requests().count(Kind::ListParts)), (2, 2));
}

#[tokio::test]
async fn writes_leave_a_place_for_the_foreground() {
    let server = server();
    let config = S3Config { concurrency: NonZeroU32::new(4).unwrap(), ..settings(&server) };
    let (connected, _) = open_with(&config, QUICK).await;
    server.bucket("bucket").put("k", "x", &[]);
    let gate = server.faults().hold(Kind::Put);
    let writes: Vec<_> = (0..8)
        .map(|n| {
            let store = connected.writes.clone();
            tokio::spawn(
                async move { store.put(&key(&format!("{n}")), "x".into(), &plain(), PutIf::Absent).await.is_ok() },
            )
        })
        .collect();
    gate.arrived_count(3).await;
    assert!(connected.stores.foreground.head(&key("k")).await.is_ok());
    assert_eq!(gate.count(), 3);
    gate.release();
    for write in writes {
        assert!(write.await.unwrap());
    }
}

#[tokio::test]
async fn writes_are_counted_with_their_bytes_and_cost() {
    let server = server();
    let (connected, counters) = open_with(&settings(&server), QUICK).await;
    let store = connected.writes;
    let etag = store.put(&key("k"), "12345".into(), &plain(), PutIf::Any).await.unwrap().etag;
    let upload = store.begin_upload(&key("big"), &plain()).await.unwrap();
    let part = store.put_part(&upload, 1, "67".into()).await.unwrap();
    store.complete_upload(&upload, &[part], PutIf::Any).await.unwrap();
    let source = CopySource { key: &key("k"), etag: &etag, size: 5 };
    store.copy(source, &key("copy"), Some(&plain()), PutIf::Any).await.unwrap();
    store.delete(&key("k"), None).await.unwrap();
    let counts = counters.snapshot();
    let want = [("copy", 1), ("delete", 1), ("list", 1), ("multipart", 3), ("put", 1)];
    assert_eq!((counts.by_kind, counts.bytes_out), (want.into(), 7));
    assert_eq!(counts.cost, RequestKind::Put.price() * 6);
}

#[tokio::test]
async fn what_s3_would_refuse_is_told_without_asking() {
    let (server, _bucket, store) = given().await;
    let large = Headers { user: [("k".to_owned(), "x".repeat(2048))].into(), ..plain() };
    let error = store.put(&key("k"), "".into(), &large, PutIf::Any).await.unwrap_err();
    assert!(matches!(error, Error::Other { .. }) && error.to_string().contains("user metadata has 2049 bytes"));
    let nameless = store.put(&Key::root(), "".into(), &plain(), PutIf::Any).await.unwrap_err();
    assert!(matches!(nameless, Error::Other { .. }), "{nameless}");
    assert!(store.delete(&Key::root(), None).await.is_ok(), "what cannot be is not there");
    assert_eq!(server.requests().total(), 0);
}

#[tokio::test]
async fn new_objects_are_made_as_the_settings_say_and_old_ones_keep_their_class() {
    let server = server();
    let encryption = Encryption { method: "aws:kms".into(), kms_key: Some("alias/media".into()) };
    let new_objects = NewObjects {
        storage_class: Some("STANDARD_IA".into()),
        acl: Some("public-read".into()),
        encryption: Some(encryption),
    };
    let (connected, _) = open_with(&S3Config { new_objects, ..settings(&server) }, QUICK).await;
    let (store, bucket) = (connected.writes, server.bucket("bucket"));
    let of = |name: &str, class: &str| {
        let headers = bucket.get(name).unwrap().headers;
        assert_eq!(headers.get("x-amz-storage-class").map(String::as_str), Some(class), "{name}");
        assert_eq!(headers["x-amz-acl"], "public-read");
        assert_eq!(headers["x-amz-server-side-encryption"], "aws:kms");
        assert_eq!(headers["x-amz-server-side-encryption-aws-kms-key-id"], "alias/media");
    };
    let etag = store.put(&key("new"), "x".into(), &plain(), PutIf::Any).await.unwrap().etag;
    of("new", "STANDARD_IA");
    let upload = store.begin_upload(&key("big"), &plain()).await.unwrap();
    let part = store.put_part(&upload, 1, "x".into()).await.unwrap();
    store.complete_upload(&upload, &[part], PutIf::Any).await.unwrap();
    of("big", "STANDARD_IA");
    bucket.put("old", "x", &[]);
    let (meta, headers) = store.describe(&key("old")).await.unwrap();
    let source = CopySource { key: &key("old"), etag: &meta.etag, size: 1 };
    store.copy(source, &key("old"), Some(&headers), PutIf::Any).await.unwrap();
    of("old", "STANDARD");
    store.copy(source, &key("renamed"), None, PutIf::Any).await.unwrap();
    of("renamed", "STANDARD");
    let source = CopySource { key: &key("new"), etag: &etag, size: 1 };
    store.copy(source, &key("newer"), None, PutIf::Any).await.unwrap();
    of("newer", "STANDARD_IA");
}

#[tokio::test]
async fn a_copy_without_tags_of_its_own_keeps_those_of_the_source() {
    let (_server, bucket, store) = given().await;
    let etag = bucket.put("k", "x", &[]);
    bucket.retag("k", "a=1");
    let source = CopySource { key: &key("k"), etag: &etag, size: 1 };
    store.copy(source, &key("k"), Some(&plain()), PutIf::Any).await.unwrap();
    assert_eq!(bucket.get("k").unwrap().headers["x-amz-tagging"], "a=1");
}

#[tokio::test]
async fn what_a_probe_leaves_for_a_moment_is_not_listed() {
    let (_server, bucket, store) = given().await;
    bucket.put(&fasts3::store::conditions::probe_key(), "", &[]);
    bucket.put(".fasts3", "", &[]);
    let listed = store.list(&ListRequest::default()).await.unwrap();
    assert_eq!(listed.objects.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), [".fasts3"]);
}
