//! The Linux kernel's own NFS client mounts `fasts3 serve` read-only and sees what a user would see.
//!
//! The steps are in `scripts/vm/kernel-mount`; here are the bucket, and what the guest asks for while it runs: a change
//! in S3, a server killed and started again. The guest waits for each answer, so nothing here sleeps.

use std::path::Path;
use std::sync::Arc;

use fasts3::s3server::{Bucket, Options, S3Server, generated};
use md5::{Digest, Md5};
use parking_lot::Mutex;

use crate::rig::{self, BUCKET, Guest, Serving};

const BIG_BYTES: u64 = 64 << 20;
const MANY: usize = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_linux_kernel_mounts_reads_and_survives_a_restart_of_the_server() {
    if !rig::is_here("the kernel mount, reading") {
        return;
    }
    // given a bucket, and what the guest will compare with it
    let s3 = S3Server::start(Options { buckets: vec![BUCKET.into()], ..Options::default() }).unwrap();
    let bucket = s3.bucket(BUCKET);
    let expected = tempfile::tempdir().unwrap();
    fill(&bucket, expected.path());

    // when the guest mounts it
    let cache = tempfile::tempdir().unwrap();
    let server = Arc::new(Mutex::new(Serving::start(&s3.endpoint(), cache.path(), &["--read-only"])));
    let guest = Guest { script: "kernel-mount", args: vec![], out: expected.path(), timeout: 600 };
    let held = rig::run(guest, &server, move |line, server| answer(line, &bucket, server)).await;

    // then every step of the script holds
    assert!(held, "a step failed in the guest");
}

/// Does what the guest asks for.
fn answer(line: &str, bucket: &Bucket, server: &Mutex<Serving>) {
    let mut words = line.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some("put"), Some(key), Some(text)) => drop(bucket.put(key, text.to_owned(), &[])),
        (Some("delete"), Some(key), None) => assert!(bucket.delete(key), "{key} was not there"),
        (Some("restart"), None, None) => server.lock().kill_and_start_again(),
        _ => panic!("the guest asks for {line:?}"),
    }
}

/// Fills the bucket and writes what the guest should find into `expected` (see the guest's script).
fn fill(bucket: &Bucket, expected: &Path) {
    let mut sums = String::new();
    let mut tree = vec!["d site".to_owned(), "d site/empty".to_owned()];
    bucket.put("site/empty/", "", &[]);
    for (seed, (path, len)) in site().into_iter().enumerate() {
        let bytes = generated(seed as u64, 0..len);
        sums.push_str(&format!("{}  {path}\n", hex(Md5::digest(&bytes).as_slice())));
        bucket.put(&path, bytes, &[]);
        for (at, _) in path.match_indices('/') {
            tree.push(format!("d {}", &path[..at]));
        }
        tree.push(format!("f {path}"));
    }
    tree.sort();
    tree.dedup();

    let mut big = Md5::new();
    for start in (0..BIG_BYTES).step_by(1 << 20) {
        big.update(generated(7, start..start + (1 << 20)));
    }
    bucket.put_generated("big.bin", BIG_BYTES, 7);

    let names: Vec<String> = (0..MANY).map(|i| format!("f{i:05}")).collect();
    for name in &names {
        bucket.put(&format!("many/{name}"), name.clone(), &[]);
    }

    bucket.put("news.txt", "edition one", &[]);
    bucket.put("meta/link", "private.txt", &[("file-permissions", "0120777")]);
    let owned = [("file-permissions", "0100640"), ("file-owner", "1234"), ("file-group", "4321")];
    bucket.put("meta/private.txt", "private", &[&owned[..], &[("file-mtime", "1600000000000000000ns")]].concat());

    let write = |name: &str, text: String| std::fs::write(expected.join(name), text).unwrap();
    write("MD5SUMS", sums);
    write("TREE", tree.join("\n") + "\n");
    write("NAMES", names.join("\n") + "\n");
    write("BIG", hex(big.finalize().as_slice()) + "\n");
}

/// Paths and lengths of a small web site with names and lengths at the edges.
fn site() -> Vec<(String, u64)> {
    let deep: String = (0..20).map(|i| format!("level{i}/")).collect();
    let mut files: Vec<(String, u64)> = [
        ("index.html", 4711),
        ("zero", 0),
        ("one", 1),
        ("page", 4096),
        ("page-and-one", 4097),
        ("transfer", 1 << 20),
        ("transfer-and-one", (1 << 20) + 1),
        ("images/logo with spaces.png", 70_001),
        ("images/größe-日本.jpg", 12_345),
        ("a+b%20c&d=e", 99),
        ("video.mp4", 9_999_999),
    ]
    .map(|(path, len)| (format!("site/{path}"), len))
    .into();
    files.push((format!("site/{deep}leaf.txt"), 321));
    files.push((format!("site/{}", "n".repeat(200)), 200));
    files.extend((0..300).map(|i| (format!("site/docs/{}/{i}.html", i % 7), 1000 + i)));
    files
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
