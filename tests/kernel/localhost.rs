//! `mount -t nfs localhost:/ DIR` as it is typed: the server and its client are one machine, which has no rpcbind.

use std::path::Path;
use std::process::Command;

use fasts3::s3server::{Options, S3Server};

use crate::rig::{self, BUCKET};

const VMRUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/vm/vmrun");

#[tokio::test(flavor = "multi_thread")]
async fn the_linux_kernel_mounts_localhost_with_no_options_and_no_rpcbind() {
    if !rig::is_here("the kernel mount of localhost") {
        return;
    }
    let s3 = S3Server::start(Options { buckets: vec![BUCKET.into()], anonymous: true, ..Options::default() }).unwrap();
    s3.bucket(BUCKET).put("dir/hello.txt", "hello\n", &[]);
    let port = s3.endpoint().rsplit(':').next().unwrap().trim_end_matches('/').to_owned();

    let mut guest = Command::new(VMRUN);
    guest.args(["-t", "300"]).arg(Path::new(VMRUN).with_file_name("kernel-localhost"));
    guest.args([env!("CARGO_BIN_EXE_fasts3"), BUCKET, &port]);
    let ended = tokio::task::spawn_blocking(move || guest.output().unwrap()).await.unwrap();
    println!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "a step failed in the guest");
}
