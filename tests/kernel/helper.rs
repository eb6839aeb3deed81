//! `fasts3 mount`, `umount` and `mount.fasts3`: the program itself in the guest, as root, with S3 on the host.
//!
//! The steps are in `scripts/vm/kernel-helper`; here are the bucket, and the answers to what the guest asks of it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use fasts3::s3server::{ACCESS_KEY, Options, S3Server, SECRET_KEY};

use crate::rig::{self, BUCKET, VMRUN};

/// What `o:` of the volume in the compose file says: the same call is made in the guest.
fn docker_options() -> String {
    let compose = include_str!("../../scripts/docker/compose.yaml");
    let line = compose.lines().find_map(|line| line.trim().strip_prefix("o: ")).expect("a volume with options");
    line.trim_matches('"').to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_itself() {
    if !rig::is_here("the kernel mount, by fasts3 mount") {
        return;
    }
    // given a bucket, and who answers what the guest asks of it
    let s3 = S3Server::start(Options { buckets: vec![BUCKET.into()], ..Options::default() }).unwrap();
    let bucket = s3.bucket(BUCKET);
    bucket.put("hello.txt", "hello from S3", &[]);
    let control = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |address: std::net::SocketAddr| address.port().to_string();
    let s3_port = s3.endpoint().rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    let mut vm = Command::new(VMRUN);
    vm.args(["-t", "900"]).arg(Path::new(VMRUN).with_file_name("kernel-helper")).arg(env!("CARGO_BIN_EXE_fasts3"));
    vm.args([s3_port, port(control.local_addr().unwrap()), ACCESS_KEY.into(), SECRET_KEY.into(), docker_options()]);
    // not joined: without a guest nobody ever connects to it
    thread::spawn(move || {
        let (guest, _) = control.accept().unwrap();
        let mut answers = guest.try_clone().unwrap();
        for line in BufReader::new(guest).lines() {
            let line = line.unwrap();
            let key = line.strip_prefix("get ").unwrap_or_else(|| panic!("the guest asks for {line:?}"));
            let has = if bucket.get(key).is_some() { "has" } else { "has not" };
            writeln!(answers, "{has} {key}").unwrap();
        }
    });

    // when the program runs in the guest
    let ended = tokio::task::spawn_blocking(move || vm.output().unwrap()).await.unwrap();

    // then every step of the script holds
    println!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "a step failed in the guest");
}
