//! The server as AWS's own client sees it.
#![allow(clippy::unwrap_used)]

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{
    CompletedMultipartUpload, CompletedPart, Delete, EncodingType, MetadataDirective, TaggingDirective,
};
use aws_sdk_s3::types::{ObjectIdentifier, builders::DeleteBuilder};

use super::*;
use bytes::Bytes;

fn start() -> S3Server {
    S3Server::start(Options { clock: Clock::manual(), ..Options::default() }).unwrap()
}

fn client(server: &S3Server) -> Client {
    client_as(server, SECRET_KEY)
}

fn client_as(server: &S3Server, secret: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(server.endpoint())
        .force_path_style(true)
        .region(aws_sdk_s3::config::Region::new(REGION))
        .credentials_provider(Credentials::new(ACCESS_KEY, secret, None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    Client::from_conf(config.build())
}

/// The error code of a failed call.
fn code<T, E: ProvideErrorMetadata, R>(result: Result<T, aws_sdk_s3::error::SdkError<E, R>>) -> String {
    let error = result.err().unwrap();
    error.code().map_or_else(|| "none".to_owned(), str::to_owned)
}

async fn read(client: &Client, key: &str, range: Option<&str>) -> Vec<u8> {
    let got = client.get_object().bucket("bucket").key(key).set_range(range.map(str::to_owned)).send().await.unwrap();
    got.body.collect().await.unwrap().to_vec()
}

#[tokio::test]
async fn an_object_comes_back_with_its_metadata() {
    let (server, body) = (start(), "hello".as_bytes().to_vec());
    let client = client(&server);
    let put = client.put_object().bucket("bucket").key("a b+c%/ü").content_type("text/x").metadata("Mode", "0644");
    let put = put.body(body.into()).send().await.unwrap();
    assert_eq!(put.e_tag().unwrap(), "\"5d41402abc4b2a76b9719d911017c592\"");
    let head = client.head_object().bucket("bucket").key("a b+c%/ü").send().await.unwrap();
    assert_eq!(head.content_type(), Some("text/x"));
    assert_eq!(head.metadata().unwrap()["mode"], "0644");
    assert_eq!(read(&client, "a b+c%/ü", Some("bytes=1-2")).await, b"el");
    assert_eq!(server.bucket("bucket").keys(), ["a b+c%/ü"]);
}

#[tokio::test]
async fn a_streamed_body_with_a_trailing_checksum_is_stored_whole() {
    let server = start();
    let client = client(&server);
    let body: Vec<u8> = generated(1, 0..300_000).to_vec();
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), &body).unwrap();
    let stream = aws_sdk_s3::primitives::ByteStream::from_path(path.path()).await.unwrap();
    let put = client.put_object().bucket("bucket").key("k").body(stream);
    put.checksum_algorithm(aws_sdk_s3::types::ChecksumAlgorithm::Crc32).send().await.unwrap();
    assert_eq!(server.bucket("bucket").get("k").unwrap().bytes, body);
}

#[tokio::test]
async fn conditions_on_get_hold() {
    let server = start();
    let client = client(&server);
    let etag = server.bucket("bucket").put("k", "1", &[]);
    let get = || client.get_object().bucket("bucket").key("k");
    assert!(get().if_match(etag.quoted()).send().await.is_ok());
    assert_eq!(code(get().if_match("\"other\"").send().await), "PreconditionFailed");
    let same = get().if_none_match(etag.quoted()).send().await.unwrap_err();
    assert_eq!(same.raw_response().unwrap().status().as_u16(), 304);
    assert!(get().if_none_match("\"other\"").send().await.is_ok());
    assert_eq!(code(get().range("bytes=1-").send().await), "InvalidRange");
    assert_eq!(code(client.get_object().bucket("bucket").key("x").send().await), "NoSuchKey");
    assert_eq!(code(client.get_object().bucket("none").key("x").send().await), "NoSuchBucket");
}

#[tokio::test]
async fn conditions_on_writes_hold() {
    let server = start();
    let (client, bucket) = (client(&server), server.bucket("bucket"));
    let put = || client.put_object().bucket("bucket").key("k").body(b"1".to_vec().into());
    assert_eq!(code(put().if_match("\"x\"").send().await), "NoSuchKey");
    let etag = put().if_none_match("*").send().await.unwrap().e_tag.unwrap();
    assert_eq!(code(put().if_none_match("*").send().await), "PreconditionFailed");
    assert_eq!(code(put().if_match("\"x\"").send().await), "PreconditionFailed");
    assert!(put().if_match(&etag).send().await.is_ok());
    let delete = || client.delete_object().bucket("bucket").key("k");
    assert_eq!(code(delete().if_match("\"x\"").send().await), "PreconditionFailed");
    assert!(bucket.get("k").is_some());
    assert!(delete().if_match(&etag).send().await.is_ok());
    assert!(bucket.get("k").is_none());
    assert!(delete().send().await.is_ok(), "deleting what is not there is no error");
}

#[tokio::test]
async fn a_copy_keeps_or_replaces_metadata_and_minds_its_conditions() {
    let server = start();
    let (client, bucket) = (client(&server), server.bucket("bucket"));
    let etag = bucket.put("from ü", "1", &[("mode", "1")]);
    let copy = |to: &str| client.copy_object().bucket("bucket").copy_source("bucket/from%20%C3%BC").key(to);
    copy("kept").send().await.unwrap();
    assert_eq!(bucket.get("kept").unwrap().user["mode"], "1");
    let replace = copy("replaced").metadata_directive(MetadataDirective::Replace).metadata("mode", "2");
    replace.send().await.unwrap();
    assert_eq!(bucket.get("replaced").unwrap().user["mode"], "2");
    assert_eq!(code(copy("x").copy_source_if_match("\"x\"").send().await), "PreconditionFailed");
    assert!(copy("x").copy_source_if_match(etag.quoted()).send().await.is_ok());
    assert_eq!(code(copy("x").if_none_match("*").send().await), "PreconditionFailed");
}

#[tokio::test]
async fn tags_come_back_and_follow_a_copy_unless_replaced() {
    let (server, body) = (start(), || b"1".to_vec().into());
    let (client, bucket) = (client(&server), server.bucket("bucket"));
    let put = client.put_object().bucket("bucket").key("k").tagging("a%20b=1%3D2&c=").body(body());
    put.send().await.unwrap();
    let count = async |key: &str| client.head_object().bucket("bucket").key(key).send().await.unwrap().tag_count;
    assert_eq!(count("k").await, Some(2));
    let tags = client.get_object_tagging().bucket("bucket").key("k").send().await.unwrap().tag_set;
    assert_eq!(tags.iter().map(|tag| (tag.key(), tag.value())).collect::<Vec<_>>(), [("a b", "1=2"), ("c", "")]);
    let copy = |to: &str| client.copy_object().bucket("bucket").copy_source("bucket/k").key(to);
    copy("kept").send().await.unwrap();
    copy("replaced").tagging_directive(TaggingDirective::Replace).tagging("d=4").send().await.unwrap();
    assert_eq!((count("kept").await, count("replaced").await), (Some(2), Some(1)));
    client.delete_object_tagging().bucket("bucket").key("k").send().await.unwrap();
    assert_eq!(count("k").await, None);
    assert_eq!(server.requests().count(Kind::PutTagging), 1);
    let before = bucket.get("kept").unwrap();
    bucket.retag("kept", "x=y");
    let after = bucket.get("kept").unwrap();
    assert_eq!((after.etag, after.last_modified), (before.etag, before.last_modified));
}

#[tokio::test]
async fn what_s3_refuses_is_refused() {
    let server = start();
    let (client, bucket) = (client(&server), server.bucket("bucket"));
    bucket.put("k", "1", &[]);
    bucket.put_generated("huge", (5 << 30) + 1, 1);
    let copy = |from: &str| client.copy_object().bucket("bucket").copy_source(format!("bucket/{from}"));
    assert_eq!(code(copy("k").key("k").send().await), "InvalidRequest");
    assert_eq!(code(copy("huge").key("x").send().await), "InvalidRequest");
    let put = client.put_object().bucket("bucket").key("x").metadata("n", "v".repeat(2048));
    assert_eq!(code(put.send().await), "MetadataTooLarge");
}

#[tokio::test]
async fn a_multipart_upload_appears_whole_and_under_its_condition() {
    let server = start();
    let (client, bucket) = (client(&server), server.bucket("bucket"));
    bucket.put_generated("source", 6 << 20, 5);
    let created = client.create_multipart_upload().bucket("bucket").key("k").metadata("mode", "1").send().await;
    let id = created.unwrap().upload_id.unwrap();
    let part = || client.upload_part().bucket("bucket").key("k").upload_id(&id);
    let copied = client.upload_part_copy().bucket("bucket").key("k").upload_id(&id).part_number(1);
    let copied = copied.copy_source("bucket/source").copy_source_range("bytes=1-5242880").send().await.unwrap();
    let second = part().part_number(2).body(b"end".to_vec().into()).send().await.unwrap();
    assert_eq!(bucket.keys(), ["source"]);
    let listed = client.list_parts().bucket("bucket").key("k").upload_id(&id).send().await.unwrap();
    assert_eq!(listed.parts().len(), 2);
    let named =
        |number, etag: Option<&str>| CompletedPart::builder().part_number(number).set_e_tag(etag.map(str::to_owned));
    let first_tag = copied.copy_part_result().unwrap().e_tag().map(str::to_owned);
    let parts = CompletedMultipartUpload::builder()
        .parts(named(1, first_tag.as_deref()).build())
        .parts(named(2, second.e_tag()).build());
    let complete = || client.complete_multipart_upload().bucket("bucket").key("k").upload_id(&id);
    let complete = || complete().multipart_upload(parts.clone().build());
    assert_eq!(code(complete().if_match("\"x\"").send().await), "NoSuchKey");
    let done = complete().if_none_match("*").send().await.unwrap();
    assert!(done.e_tag().unwrap().ends_with("-2\""));
    let stored = bucket.get("k").unwrap();
    assert_eq!(stored.bytes, [generated(5, 1..5_242_881), Bytes::from_static(b"end")].concat());
    assert_eq!(stored.user["mode"], "1");
    assert_eq!(code(part().part_number(3).body(b"".to_vec().into()).send().await), "NoSuchUpload");
}

#[tokio::test]
async fn listing_folds_pages_and_encodes() {
    let server = start();
    let (client, bucket) = (client(&server), server.bucket("bucket"));
    for key in ["a\u{1}b", "d/1", "d/2", "e + %"] {
        bucket.put(key, "", &[]);
    }
    let list = || client.list_objects_v2().bucket("bucket").delimiter("/").encoding_type(EncodingType::Url).max_keys(2);
    let first = list().send().await.unwrap();
    assert_eq!(first.contents()[0].key(), Some("a%01b"));
    assert_eq!(first.common_prefixes()[0].prefix(), Some("d/"));
    assert_eq!(first.is_truncated(), Some(true));
    let second = list().continuation_token(first.next_continuation_token().unwrap()).send().await.unwrap();
    assert_eq!(second.contents()[0].key(), Some("e+%2B+%25"));
    assert_eq!((second.is_truncated(), second.next_continuation_token()), (Some(false), None));
}

#[tokio::test]
async fn delete_objects_tells_each_outcome() {
    let server = start();
    let bucket = server.bucket("bucket");
    bucket.put("a", "", &[]);
    bucket.put("b", "", &[]);
    let object = |key: &str, etag: Option<&str>| {
        ObjectIdentifier::builder().key(key).set_e_tag(etag.map(str::to_owned)).build().unwrap()
    };
    let delete: DeleteBuilder = Delete::builder().objects(object("a", None)).objects(object("b", Some("\"x\"")));
    let request = client(&server).delete_objects().bucket("bucket").delete(delete.build().unwrap());
    let answer = request.send().await.unwrap();
    assert_eq!((answer.deleted().len(), answer.errors()[0].key()), (1, Some("b")));
    assert_eq!(bucket.keys(), ["b"]);
}

#[tokio::test]
async fn a_wrong_signature_is_refused() {
    let server = start();
    let listed = client_as(&server, "wrong").list_objects_v2().bucket("bucket").send().await;
    assert_eq!(code(listed), "SignatureDoesNotMatch");
}

#[tokio::test]
async fn a_directory_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { dir: Some(dir.path().to_owned()), clock: Clock::manual(), ..Options::default() };
    let server = S3Server::start(options()).unwrap();
    let bucket = server.bucket("bucket");
    bucket.put("k", "old", &[]);
    let etag = bucket.put("k", "new", &[("mode", "1")]);
    bucket.put("gone", "x", &[]);
    bucket.delete("gone");
    let before = bucket.get("k").unwrap();
    server.stop().await;
    drop(bucket);
    std::fs::write(dir.path().join("_data").join("0000000000000099.data"), "torn").unwrap();

    let server = S3Server::start(options()).unwrap();
    let bucket = server.bucket("bucket");
    assert_eq!(bucket.keys(), ["k"]);
    let after = bucket.get("k").unwrap();
    assert_eq!(
        (after.bytes, after.etag, after.user, after.last_modified),
        (before.bytes, etag, before.user, before.last_modified)
    );
    assert_eq!(read(&client(&server), "k", None).await, b"new");
    assert_eq!(std::fs::read_dir(dir.path().join("_data")).unwrap().count(), 1);
    bucket.put("l", "", &[]);
    assert!(bucket.get("l").unwrap().last_modified > before.last_modified);
}

#[tokio::test]
async fn a_gate_holds_a_request_until_it_is_released() {
    let server = start();
    server.bucket("bucket").put("k", "old", &[]);
    let client = client(&server);
    let (before, after) = (server.faults().hold(Kind::Get), server.faults().hold_answer((Kind::Get, "k")));
    let reader = tokio::spawn(async move { read(&client, "k", None).await });
    before.arrived().await;
    server.bucket("bucket").put("k", "new", &[]);
    assert_eq!(after.count(), 0);
    before.release();
    after.arrived().await;
    server.bucket("bucket").put("k", "newer", &[]);
    after.release();
    assert_eq!(reader.await.unwrap(), b"new");
    assert_eq!(server.requests().recent(), [(Kind::Get, "k".to_owned())]);
}

#[tokio::test]
async fn faults_do_what_they_say() {
    let server = start();
    let (client, bucket, faults) = (client(&server), server.bucket("bucket"), server.faults());
    bucket.put_generated("k", 1 << 20, 1);
    let get = || client.get_object().bucket("bucket").key("k").send();
    faults.inject((Kind::Get, "k"), 1, Fault::SlowDown);
    assert_eq!(code(get().await), "SlowDown");
    for fault in [Fault::ResetAfter(1000), Fault::ShortBody(1000)] {
        faults.inject(Kind::Get, 1, fault.clone());
        assert!(get().await.unwrap().body.collect().await.is_err(), "{fault:?}");
    }
    faults.inject(Kind::Put, 1, Fault::FailAfterApply);
    let put = client.put_object().bucket("bucket").key("new").body(b"1".to_vec().into()).send().await;
    assert!(put.is_err() && bucket.get("new").is_some());
    faults.inject(Kind::Delete, 1, Fault::ErrorAfterApply);
    let delete = || client.delete_object().bucket("bucket").key("new").if_match("\"other\"").send();
    assert_eq!(code(delete().await), "InternalError");
    assert!(bucket.get("new").is_some(), "applied, and so refused");
    faults.ignore_conditions(&[Kind::Delete]);
    assert!(delete().await.is_ok() && bucket.get("new").is_none());
    faults.ignore_conditions(&[]);
    faults.inject(On::writes(), 1, Fault::Conflict);
    assert_eq!(code(client.delete_object().bucket("bucket").key("new").send().await), "ConditionalRequestConflict");
    faults.inject(Kind::Put, 1, Fault::Close);
    let put = client.put_object().bucket("bucket").key("newer").body(b"1".to_vec().into()).send().await;
    assert!(put.is_err() && bucket.get("newer").is_none());
    faults.set_down(true);
    assert!(get().await.is_err());
    faults.clear();
    assert!(get().await.is_ok());
}

#[tokio::test]
async fn a_stale_list_shows_the_past() {
    let server = start();
    let (client, bucket) = (client(&server), server.bucket("bucket"));
    bucket.put("old", "", &[]);
    server.faults().set_stale_list(true);
    bucket.put("new", "", &[]);
    let count = async || client.list_objects_v2().bucket("bucket").send().await.unwrap().contents().len();
    assert_eq!(count().await, 1);
    server.faults().set_stale_list(false);
    assert_eq!(count().await, 2);
    server.requests().reached(Kind::List, 2).await;
}
