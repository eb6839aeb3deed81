//! The Linux kernel's own NFS client mounts `fasts3 serve` and sees what a user would see.
//!
//! The steps are in `scripts/vm/kernel-mount`, which runs in a small virtual machine (`scripts/vm/vmrun`);
//! here are the bucket, the real server program, and what the guest asks for while it runs: a change in S3,
//! a server killed and started again. The guest waits for each answer, so nothing here sleeps.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use fasts3::s3server::{ACCESS_KEY, Bucket, Options, S3Server, SECRET_KEY, generated};
use md5::{Digest, Md5};
use parking_lot::Mutex;

const VMRUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/vm/vmrun");
const GUEST_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/vm/kernel-mount");
const BUCKET: &str = "bucket";
const BIG_BYTES: u64 = 64 << 20;
const MANY: usize = 20_000;
/// The guest's steps take about a minute; this is for a machine that is busy.
const GUEST_TIMEOUT_SECONDS: &str = "600";

#[tokio::test(flavor = "multi_thread")]
async fn the_linux_kernel_mounts_reads_and_survives_a_restart_of_the_server() {
    if let Err(missing) = prepare_rig() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "the rig for the kernel mount is not here: {missing}");
        // Past libtest's capture: a test that did not run must not look like one that did.
        writeln!(io::stderr(), "kernel_mount SKIPPED, its rig is not here: {missing}").unwrap();
        return;
    }

    // given a bucket, and what the guest will compare with it
    let s3 = S3Server::start(Options { buckets: vec![BUCKET.into()], ..Options::default() }).unwrap();
    let bucket = s3.bucket(BUCKET);
    let expected = tempfile::tempdir().unwrap();
    fill(&bucket, expected.path());

    // when the guest mounts it
    let cache = tempfile::tempdir().unwrap();
    let server = Arc::new(Mutex::new(Serving::start(&s3.endpoint(), cache.path(), 0)));
    let control = TcpListener::bind("127.0.0.1:0").unwrap();
    let (nfs_port, control_port) = (server.lock().port.to_string(), control.local_addr().unwrap().port().to_string());
    // not joined: without a guest nobody ever connects to it
    thread::spawn({
        let server = server.clone();
        move || answer_guest(&control, &bucket, &server)
    });
    let guest = tokio::task::spawn_blocking({
        let expected = expected.path().to_owned();
        move || {
            Command::new(VMRUN)
                .args(["-t", GUEST_TIMEOUT_SECONDS, "-o"])
                .arg(&expected)
                .args([GUEST_SCRIPT, &nfs_port, &control_port])
                .output()
                .unwrap()
        }
    });

    // then every step of the script holds
    let guest = guest.await.unwrap();
    server.lock().kill();
    println!("{}{}", String::from_utf8_lossy(&guest.stdout), String::from_utf8_lossy(&guest.stderr));
    assert!(guest.status.success(), "the guest ended with {}", guest.status);
}

/// Says what is missing.
fn prepare_rig() -> Result<(), String> {
    let checked = Command::new(VMRUN).arg("--check").output().map_err(|e| format!("{VMRUN}: {e}"))?;
    if checked.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&checked.stderr).trim().to_owned()) }
}

/// `fasts3 serve`, the program.
struct Serving {
    child: Child,
    port: u16,
    endpoint: String,
    cache: PathBuf,
}

impl Serving {
    /// Returns once the server said that it is ready. Port 0 picks one.
    fn start(endpoint: &str, cache: &Path, port: u16) -> Serving {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fasts3"))
            .args(["serve", &format!("s3://{BUCKET}"), "--endpoint-url", endpoint, "--region", "us-east-1"])
            .args(["--listen", &format!("127.0.0.1:{port}"), "--admin", "off", "--cache"])
            .arg(cache)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let port = ready.strip_prefix("ready nfs=127.0.0.1:").and_then(|rest| rest.split(' ').next()?.parse().ok());
        let port = port.unwrap_or_else(|| panic!("not a ready line: {ready:?}"));
        Serving { child, port, endpoint: endpoint.to_owned(), cache: cache.to_owned() }
    }

    /// As a crash would.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn kill_and_start_again(&mut self) {
        self.kill();
        *self = Serving::start(&self.endpoint, &self.cache, self.port);
    }
}

/// Does what the guest asks for, a line each, and says `ok`; until the guest is gone.
fn answer_guest(control: &TcpListener, bucket: &Bucket, server: &Mutex<Serving>) {
    let (guest, _) = control.accept().unwrap();
    let mut answers = guest.try_clone().unwrap();
    for line in BufReader::new(guest).lines() {
        let line = line.unwrap();
        let mut words = line.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("put"), Some(key), Some(text)) => drop(bucket.put(key, text.to_owned(), &[])),
            (Some("delete"), Some(key), None) => assert!(bucket.delete(key), "{key} was not there"),
            (Some("restart"), None, None) => server.lock().kill_and_start_again(),
            _ => panic!("the guest asks for {line:?}"),
        }
        answers.write_all(b"ok\n").unwrap();
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
