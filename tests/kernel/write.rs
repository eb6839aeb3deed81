//! The Linux kernel's own NFS client writes through `fasts3 serve` as people and programs do: fsx, pjdfstest, sqlite,
//! git, a compiler, rsync, editors, a server killed in the middle. Then a plain S3 client compares the bucket.
//!
//! The steps are in `scripts/vm/kernel-write`; here are the server, and what the guest asks for while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_sdk_s3::Client;
use fasts3::s3server::{Options, S3Server};
use md5::{Digest, Md5};
use parking_lot::Mutex;

use crate::rig::{self, BUCKET, Guest, Serving};

/// Where `scripts/test` installed fsx and pjdfstest.
const SUITES: &str = "FASTS3_FS_SUITES";

#[tokio::test(flavor = "multi_thread")]
async fn the_linux_kernel_writes_and_s3_has_it_all() {
    const TEST: &str = "the kernel mount, writing";
    if !rig::is_here(TEST) {
        return;
    }
    let Some(suites) = std::env::var_os(SUITES).map(PathBuf::from) else {
        return rig::skip(TEST, "FASTS3_FS_SUITES does not say where fsx and pjdfstest are: run scripts/test");
    };
    // given an empty bucket
    let s3 = S3Server::start(Options { buckets: vec![BUCKET.into()], ..Options::default() }).unwrap();
    let out = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let expected_failures = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/vm/pjdfstest.toml");
    std::fs::copy(expected_failures, out.path().join("pjdfstest.toml")).unwrap();

    // when the guest writes to it
    let server = Arc::new(Mutex::new(Serving::start(&s3.endpoint(), cache.path(), &["--upload-delay", "200ms"])));
    let client = s3_client(&s3.endpoint()).await;
    let list = out.path().join("FILES");
    let runtime = tokio::runtime::Handle::current();
    let mut args = vec![suites.into_os_string()];
    args.extend(std::env::var("FASTS3_KERNEL_STEPS").iter().flat_map(|steps| steps.split(' ')).map(Into::into));
    let guest = Guest { script: "kernel-write", args, out: out.path(), timeout: 1500 };
    let held = rig::run(guest, &server, move |line, server| match line {
        "restart" => server.lock().kill_and_start_again(),
        "sync" => server.lock().sync(),
        "compare" => runtime.block_on(compare(&client, &list)),
        _ => panic!("the guest asks for {line:?}"),
    });

    // then every step of the script holds
    assert!(held.await, "a step failed in the guest");
}

async fn s3_client(endpoint: &str) -> Client {
    use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
    use fasts3::s3server::{ACCESS_KEY, SECRET_KEY};
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .force_path_style(true)
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"));
    Client::from_conf(config.build())
}

/// Compares the bucket with the guest's list: each line has a type as find(1) prints it, what is to be compared, and a path.
async fn compare(client: &Client, list: &Path) {
    let mut keys = keys(client).await;
    let list = std::fs::read_to_string(list).unwrap();
    assert!(list.lines().count() > 300, "the steps left much");
    for line in list.lines() {
        let (kind, rest) = line.split_once(' ').unwrap();
        let (expected, path) = rest.split_once(' ').unwrap();
        match kind {
            "d" if expected == "empty" => assert!(keys.remove(&format!("{path}/")), "{path}/ has no marker"),
            "d" => drop(keys.remove(&format!("{path}/"))),
            _ if path.contains("/.nfs") => assert!(!keys.contains(path), "{path} stays here"),
            _ => {
                assert!(keys.remove(path), "{path} is not in S3");
                let (bytes, metadata) = get(client, path).await;
                let mode = u32::from_str_radix(&metadata["file-permissions"], 8).unwrap();
                let type_bits = match kind {
                    "f" => 0o10,
                    "l" => 0o12,
                    "p" => 0o1,
                    _ => panic!("{line}"),
                };
                assert_eq!(mode >> 12, type_bits, "{line}");
                if expected != "-" {
                    let sum: String = Md5::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
                    assert_eq!(sum, expected, "{path}");
                }
            }
        }
    }
    assert_eq!(keys, BTreeSet::new(), "S3 has more than there is here");
}

async fn keys(client: &Client) -> BTreeSet<String> {
    let mut pages = client.list_objects_v2().bucket(BUCKET).into_paginator().send();
    let mut keys = BTreeSet::new();
    while let Some(page) = pages.next().await {
        keys.extend(page.unwrap().contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
    }
    keys
}

async fn get(client: &Client, key: &str) -> (Vec<u8>, BTreeMap<String, String>) {
    let got = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
    let metadata = got.metadata.unwrap_or_default().into_iter().collect();
    (got.body.collect().await.unwrap().to_vec(), metadata)
}
