//! What needs no NATS; `tests/peers.rs` has the rest.
#![allow(clippy::unwrap_used)]

use super::*;

fn names(endpoint: Option<&str>, group: Option<&str>, bucket: &str) -> String {
    let settings = Settings {
        servers: "nats://one".parse().unwrap(),
        papers: Papers::default(),
        group: group.map(str::to_owned),
        inline_bytes: 0,
        pace: Pace::default(),
    };
    let place = Place {
        server: "x".into(),
        host: "x".into(),
        endpoint: endpoint.map(str::to_owned),
        bucket: bucket.into(),
        prefix: String::new(),
    };
    Names::of(&settings, &place).subject
}

#[test]
fn one_bucket_is_one_subject_however_it_is_written() {
    let aws = names(None, None, "media");
    assert_eq!(aws, names(Some("https://s3.eu-west-1.amazonaws.com"), None, "media"));
    assert_eq!(aws, names(Some("https://S3.amazonaws.com/"), None, "media"));
    let minio = names(Some("http://minio:9000"), None, "media");
    assert_eq!(minio, names(Some("HTTP://MinIO:9000/"), None, "media"));
    let others = [names(None, None, "media2"), minio, names(Some("http://notamazonaws.com"), None, "media")];
    assert!(others.iter().all(|other| *other != aws));
}

#[test]
fn a_group_stands_for_the_url() {
    let one = names(Some("http://10.0.0.5:9000"), Some("office"), "media");
    assert_eq!(one, names(Some("http://minio:9000"), Some("office"), "media"));
    assert_ne!(one, names(Some("http://minio:9000"), Some("other"), "media"));
    assert_ne!(one, names(Some("http://office"), None, "media"));
}
