#![allow(clippy::unwrap_used)]

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// An event of S3's, as it comes out of a queue.
const PUT: &str = r#"{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"eu-central-1",
    "eventTime":"2026-11-20T09:15:30.123Z","eventName":"ObjectCreated:Put","userIdentity":{"principalId":"AWS:AROAEXAMPLE:me"},
    "requestParameters":{"sourceIPAddress":"192.0.2.7"},"responseElements":{"x-amz-request-id":"C3D13FE58DE4C810","x-amz-id-2":"FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JRWeUWerMUE5JgHvANOjpD"},
    "s3":{"s3SchemaVersion":"1.0","configurationId":"fasts3","bucket":{"name":"media","ownerIdentity":{"principalId":"A3NL1KOZZKExample"},"arn":"arn:aws:s3:::media"},
    "object":{"key":"a/red+flower%2B%C3%BC.jpg","size":1024,"eTag":"d41d8cd98f00b204e9800998ecf8427e","sequencer":"0055AED6DCD90281E5"}}}]}"#;

/// A removal, which has neither size nor tag.
const DELETE: &str = r#"{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventTime":"2026-11-20T09:15:31.000Z",
    "eventName":"ObjectRemoved:Delete","s3":{"bucket":{"name":"media"},"object":{"key":"a/b","sequencer":"0055AED6DCD90281E6"}}}]}"#;

const TEST: &str = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-11-20T09:10:00.000Z","Bucket":"media",
    "RequestId":"5582815E1AEA5ADF","HostId":"8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE"}"#;

const BRIDGED: &str = r#"{"version":"0","id":"17793124-05d4-b198-2fde-7ededc63b103","detail-type":"Object Created","source":"aws.s3",
    "account":"111122223333","time":"2026-11-20T09:15:30Z","region":"ca-central-1","resources":["arn:aws:s3:::media"],
    "detail":{"version":"0","bucket":{"name":"media"},"object":{"key":"a/red flower+.jpg","size":5,
    "etag":"b1946ac92492d2347c6235b4d2611184","version-id":"IYV3p45BT0ac8hjHg1houSdS1a.Mro8e","sequencer":"617f08299329d189"},
    "request-id":"N4N7GDK58NMKJ12R","requester":"123456789012","source-ip-address":"1.2.3.4","reason":"PutObject"}}"#;

/// MinIO says twice what it is about, and prefixes the name.
const MINIO: &str = r#"{"EventName":"s3:ObjectCreated:Put","Key":"media/a/my summer.jpg","Records":[{"eventVersion":"2.0","eventSource":"minio:s3",
    "awsRegion":"","eventTime":"2026-11-20T09:15:30.500Z","eventName":"s3:ObjectCreated:Put","userIdentity":{"principalId":"minioadmin"},
    "s3":{"s3SchemaVersion":"1.0","configurationId":"Config","bucket":{"name":"media","arn":"arn:aws:s3:::media"},
    "object":{"key":"a%2Fmy+summer.jpg","size":224662,"eTag":"5fc7298143efe1276d39a3466d4e255f-1","contentType":"image/jpeg",
    "userMetadata":{"content-type":"image/jpeg"},"versionId":"1","sequencer":"15CFEDF8D5304D1A"}},"source":{"host":"198.51.100.9","port":""}}]}"#;

/// Ceph writes keys as they are.
const CEPH: &str = r#"{"Records":[{"eventVersion":"2.2","eventSource":"ceph:s3","awsRegion":"default","eventTime":"2026-11-20T09:15:30.000000Z",
    "eventName":"ObjectCreated:Put","s3":{"s3SchemaVersion":"1.0","configurationId":"n1","bucket":{"name":"media","id":"3ed2d4.1"},
    "object":{"key":"a/100%+more","size":3,"eTag":"37b51d194a7513e45b56f6524f2d51f2","versionId":"","sequencer":"F7E6D75DC742D108","metadata":[]}},
    "eventId":"1605866130.4"}]}"#;

fn scope() -> Scope {
    Scope::new("media", "a/")
}

fn events(message: &str) -> Events {
    match read(message, &scope(), Origin::Sqs).unwrap() {
        Message::Events(events) => events,
        other => panic!("{other:?}"),
    }
}

/// The only hint.
fn hint(message: &str) -> Hint {
    let mut events = events(message);
    assert_eq!((events.hints.len(), events.ignored, events.unreadable), (1, 0, 0), "{message}");
    events.hints.remove(0)
}

fn written(etag: &str, size: u64) -> Said {
    Said::Written { etag: Some(ETag::new(etag)), size: Some(size) }
}

/// `body` as SNS wraps it.
fn in_sns(body: &str) -> String {
    json!({"Type": "Notification", "MessageId": "22b80b92", "TopicArn": "arn:aws:sns:us-east-1:123456789012:t",
        "Subject": "Amazon S3 Notification", "Message": body, "Timestamp": "2026-11-20T09:15:31.000Z",
        "SignatureVersion": "1", "Signature": "EXAMPLE", "SigningCertURL": "https://sns.us-east-1.amazonaws.com/c.pem",
        "UnsubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe"})
    .to_string()
}

/// One record of S3's with these fields.
fn record(name: &str, object: serde_json::Value) -> String {
    json!({"Records": [{"eventName": name, "s3": {"bucket": {"name": "media"}, "object": object}}]}).to_string()
}

#[test]
fn every_shape_says_the_same() {
    let at = Time::from(UNIX_EPOCH + Duration::from_millis(1_795_166_130_123));
    let expected = Hint {
        key: Key::new("red flower+ü.jpg").unwrap(),
        said: written("d41d8cd98f00b204e9800998ecf8427e", 1024),
        sequencer: Sequencer::new("55aed6dcd90281e5"),
        at: Some(at),
        origin: Origin::Sqs,
    };
    assert_eq!(hint(PUT), expected);
    assert_eq!(hint(&in_sns(PUT)), expected);
    let bridged = hint(BRIDGED);
    assert_eq!(bridged.key.as_str(), "red flower+.jpg");
    assert_eq!(bridged.said, written("b1946ac92492d2347c6235b4d2611184", 5));
    assert_eq!(bridged.sequencer, Sequencer::new("617f08299329d189"));
    assert!(bridged.at.is_some());
    assert_eq!(hint(&in_sns(BRIDGED)), bridged);
}

#[test]
fn servers_other_than_amazons_are_understood() {
    let minio = hint(MINIO);
    assert_eq!(minio.key.as_str(), "my summer.jpg");
    assert_eq!(minio.said, written("5fc7298143efe1276d39a3466d4e255f-1", 224_662));
    let ceph = hint(CEPH);
    assert_eq!(ceph.key.as_str(), "100%+more");
    assert_eq!(ceph.said, written("37b51d194a7513e45b56f6524f2d51f2", 3));
    assert!(ceph.sequencer.is_some() && ceph.at.is_some());
}

#[test]
fn removal_of_a_version_may_show_an_older_one() {
    assert_eq!(hint(DELETE).said, Said::Removed);
    let said = |name, version: &str| hint(&record(name, json!({"key": "a/b", "versionId": version}))).said;
    assert_eq!(said("ObjectRemoved:Delete", "v1"), Said::Changed);
    assert_eq!(said("ObjectRemoved:Delete", "null"), Said::Removed);
    assert_eq!(said("ObjectRemoved:DeleteMarkerCreated", "v1"), Said::Removed);
    assert_eq!(said("LifecycleExpiration:Delete", ""), Said::Removed);
    assert_eq!(said("s3:LifecycleExpiration:DeleteMarkerCreated", "v1"), Said::Removed);
    for (deletion, version, expected) in [
        ("Permanently Deleted", None, Said::Removed),
        ("Permanently Deleted", Some("v1"), Said::Changed),
        ("Delete Marker Created", Some("v1"), Said::Removed),
    ] {
        let message = json!({"source": "aws.s3", "detail-type": "Object Deleted", "detail": {"reason": "DeleteObject",
            "bucket": {"name": "media"}, "object": {"key": "a/b", "version-id": version}, "deletion-type": deletion}});
        assert_eq!(hint(&message.to_string()).said, expected, "{deletion} {version:?}");
    }
}

#[test]
fn other_events_make_s3_be_asked_unless_they_change_nothing() {
    let told = |name, key| events(&record(name, json!({"key": key}))).hints.pop().map(|hint| hint.said);
    assert_eq!(told("ObjectRestore:Completed", "a/b"), Some(Said::Changed));
    assert_eq!(told("Invented:Tomorrow", "a/b"), Some(Said::Changed));
    assert_eq!(
        told("ObjectRestore:Completed", "a/d/"),
        Some(Said::Written { etag: None, size: None }),
        "not all below"
    );
    for name in ["ObjectTagging:Put", "ObjectAcl:Put", "s3:ObjectAccessed:Get", "s3:ObjectAccessed:Head"] {
        assert_eq!(told(name, "a/b"), None, "{name}");
    }
    assert_eq!(events(&record("s3:BucketCreated:*", json!({"key": ""}))).ignored, 1);
}

#[test]
fn other_buckets_and_prefixes_and_probes_make_no_hints() {
    let elsewhere = events(&PUT.replace("\"media\"", "\"attic\""));
    assert_eq!((elsewhere.hints.len(), elsewhere.ignored), (0, 1));
    assert_eq!(events(&PUT.replace("a/red", "b/red")).ignored, 1);
    let probe = events(&record("ObjectCreated:Put", json!({"key": format!("a/{PROBE_PREFIX}7")})));
    assert_eq!(probe.probes, [Key::new(&format!("{PROBE_PREFIX}7")).unwrap()]);
    assert!(probe.hints.is_empty());
}

#[test]
fn tests_and_subscriptions_are_told_from_events() {
    assert_eq!(read(TEST, &scope(), Origin::Sqs).unwrap(), Message::Test);
    assert_eq!(read(&in_sns(TEST), &scope(), Origin::Sqs).unwrap(), Message::Test);
    let asked = json!({"Type": "SubscriptionConfirmation", "TopicArn": "arn:t", "Token": "x",
        "SubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription"});
    let Message::Subscription { topic, url } = read(&asked.to_string(), &scope(), Origin::Webhook).unwrap() else {
        panic!("a subscription");
    };
    assert_eq!((topic.as_str(), &url[..12]), ("arn:t", "https://sns."));
}

#[test]
fn nonsense_in_fields_that_only_help_is_passed_over() {
    let object = json!({"key": "a/b", "size": -1, "eTag": ["x"], "sequencer": "no hex", "versionId": {"a": 1}});
    let hint = hint(&record("ObjectCreated:Put", object));
    assert_eq!(hint.said, Said::Written { etag: None, size: None });
    assert_eq!((hint.sequencer, hint.at), (None, None));
    let long = record("ObjectCreated:Put", json!({"key": "a/b", "eTag": "e".repeat(300)}));
    assert_eq!(events(&long).hints[0].said, Said::Written { etag: None, size: None });
}

#[test]
fn one_record_that_is_none_does_not_spoil_the_others() {
    let good = json!({"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "media"}, "object": {"key": "a/b"}}});
    let mixed = json!({"Records": [good, {}, {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "media"}}}]});
    let events = events(&mixed.to_string());
    assert_eq!((events.hints.len(), events.unreadable), (1, 2));
}

#[test]
fn junk_is_refused() {
    let good = json!({"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "media"}, "object": {"key": "a/b"}}});
    let most = json!({"Records": vec![good.clone(); MAX_RECORDS]}).to_string();
    assert_eq!(events(&most).hints.len(), MAX_RECORDS);
    let many = json!({"Records": vec![good; MAX_RECORDS + 1]}).to_string();
    let deep = "[".repeat(100_000);
    let nested = in_sns(&in_sns(&in_sns(PUT)));
    let wrong_percent = record("ObjectCreated:Put", json!({"key": "a/%zz"}));
    let no_utf8 = record("ObjectCreated:Put", json!({"key": "a/%ff"}));
    let no_key = record("ObjectCreated:Put", json!({"key": ""}));
    let junk = [
        "",
        "null",
        "{}",
        "[]",
        "7",
        "Records",
        r#"{"Records":null}"#,
        r#"{"Records":[{}]}"#,
        r#"{"Records":[1]}"#,
        r#"{"Records":{"a":1}}"#,
        r#"{"Type":"Notification"}"#,
        r#"{"Type":"Notification","Message":"hello"}"#,
        r#"{"source":"aws.s3"}"#,
        r#"{"source":"aws.ec2","detail":{}}"#,
        r#"{"Records":[{"s3":[]}]}"#,
        &many,
        &deep,
        &nested,
        &wrong_percent,
        &no_utf8,
        &no_key,
    ];
    for message in junk {
        let answer = read(message, &scope(), Origin::Webhook);
        assert!(answer.is_err(), "{}: {answer:?}", &message[..message.len().min(80)]);
    }
    let padded = format!("{PUT}{}", " ".repeat(MAX_MESSAGE_BYTES));
    assert!(matches!(read(&padded, &scope(), Origin::Sqs), Err(Unreadable::TooLong)));
    assert_eq!(events(r#"{"Records":[]}"#), Events::default());
}

/// JSON of the keys and values that events are made of, in any order and depth.
fn json_like() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        "\\PC{0,12}".prop_map(|s| json!(s)),
        prop::sample::select(vec![
            "media",
            "a/b",
            "aws.s3",
            "Notification",
            "ObjectCreated:Put",
            PUT,
            BRIDGED,
            "%",
            "a/%2"
        ])
        .prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        let name = prop::sample::select(vec![
            "Records",
            "s3",
            "bucket",
            "object",
            "key",
            "name",
            "size",
            "eTag",
            "etag",
            "sequencer",
            "eventName",
            "eventTime",
            "Type",
            "Message",
            "source",
            "detail",
            "detail-type",
            "deletion-type",
            "versionId",
            "Event",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|list| json!(list)),
            prop::collection::vec((name, inner), 0..8).prop_map(|map| json!(
                map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<serde_json::Map<_, _>>()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_and_no_json_make_it_panic(text in "\\PC{0,200}", value in json_like()) {
        let _ = read(&text, &scope(), Origin::Webhook);
        if let Ok(Message::Events(events)) = read(&value.to_string(), &scope(), Origin::Webhook) {
            prop_assert!(events.hints.len() + events.probes.len() + events.ignored + events.unreadable <= MAX_RECORDS);
        }
    }

    #[test]
    fn a_real_message_with_bytes_changed_is_read_or_refused(
        which in 0_usize..5, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..8)
    ) {
        let mut text: Vec<char> = [PUT, DELETE, BRIDGED, MINIO, CEPH][which].chars().collect();
        for (at, to) in changes {
            let at = at.index(text.len());
            text[at] = to;
        }
        let _ = read(&text.into_iter().collect::<String>(), &scope(), Origin::Sqs);
    }

    /// Every key comes through every shape.
    #[test]
    fn keys_survive_the_encoding(key in "\\PC{1,40}") {
        let key = format!("a/{key}");
        let encoded: String = key.bytes().map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' => char::from(b).to_string(),
            b' ' => "+".to_owned(),
            b => format!("%{b:02X}"),
        }).collect();
        let direct = hint(&record("ObjectCreated:Put", json!({"key": encoded})));
        prop_assert_eq!(direct.key.as_str(), &key[2..]);
        let bridged = json!({"source": "aws.s3", "detail-type": "Object Created",
            "detail": {"bucket": {"name": "media"}, "object": {"key": key}}});
        prop_assert_eq!(hint(&bridged.to_string()).key, direct.key);
    }
}
