//! The mount that everybody types, `mount -t nfs HOST:/ /mnt`, against `fasts3 serve` on the ports that it expects.

use fasts3::s3server::{Options, S3Server};

use crate::capture::{self, Capture};
use crate::joined::{self, HOST, Machine};
use crate::rig::{BUCKET, Serving};

/// Every procedure that a whole session must have shown, or the capture proves nothing.
const SESSION: [&str; 17] = [
    "portmap 3", // GETPORT
    "mount 1",   // MNT
    "mount 3",   // UMNT
    "nfs 1",     // GETATTR
    "nfs 2",     // SETATTR
    "nfs 3",     // LOOKUP
    "nfs 4",     // ACCESS
    "nfs 6",     // READ
    "nfs 7",     // WRITE
    "nfs 8",     // CREATE
    "nfs 9",     // MKDIR
    "nfs 10",    // SYMLINK
    "nfs 12",    // REMOVE
    "nfs 13",    // RMDIR
    "nfs 14",    // RENAME
    "nfs 19",    // FSINFO
    "nfs 17",    // READDIRPLUS
];

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_without_options_works_and_outlives_its_server() {
    const TEST: &str = "plain::a_mount_without_options_works_and_outlives_its_server";
    if !capture::is_here(TEST) || !joined::enter(TEST) {
        return;
    }
    // given a bucket with a site, and a guest
    let s3 = S3Server::start(Options { buckets: vec![BUCKET.into()], ..Options::default() }).unwrap();
    s3.bucket(BUCKET).put("site/index.html", "hello", &[]);
    let (disks, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wire = Capture::start("plain", disks.path());
    let [guest] = Machine::boot([2], disks.path());

    // when its address is not allowed, then it hears so, and at once: its mount would try for minutes
    let strict = joined::serve(&s3.endpoint(), cache.path(), &["--allow", "192.0.2.0/24"]);
    let refused = guest.sh(&format!("timeout 10 mount -t nfs {HOST}:/ /mnt"));
    assert!(refused.as_ref().is_err_and(|said| said.contains("access denied")), "{refused:?}");
    drop(strict);

    // when it is, then what people do works
    let mut server = joined::serve(&s3.endpoint(), cache.path(), &["--allow", "10.11.0.0/24"]);
    guest.mount().unwrap();
    assert_eq!(guest.sh("cat /mnt/site/index.html"), Ok("hello".into()));
    assert!(guest.sh("ls -lR /mnt && df /mnt").is_ok_and(|listed| listed.contains("index.html")));
    guest.sh("cd /mnt && mkdir d && echo new >d/f && sync d/f && mv d/f d/g && ln -s g d/l && chmod 600 d/g").unwrap();
    assert_eq!(
        guest.sh("cd /mnt/d && cat l && stat -c %a g && rm g l && cd .. && rmdir d && ls"),
        Ok("new\n600\nsite".into())
    );
    copies_while_the_server_is_killed(&guest, &mut server);

    // then it is let go, and every packet was as it should be
    guest.sh("timeout 60 umount /mnt").unwrap();
    let session = wire.stop();
    session.is_well_formed();
    let calls = session.calls();
    for each in SESSION {
        assert!(calls.contains_key(each), "no {each} among {calls:?}");
    }
}

fn copies_while_the_server_is_killed(guest: &Machine, server: &mut Serving) {
    let make = "mkdir -p /tmp/tree/{a,b,c}/d && cd /tmp/tree && for d in a b/d c; do \
                head -c 3000000 /dev/urandom | (cd $d; split -a 3 -b 30001); done";
    guest.sh(make).unwrap();
    let mut copy = guest.process();
    copy.begins("sh cp -r /tmp/tree /mnt/tree");
    for files in [50, 150] {
        let copied = "sum(len(files) for _, _, files in os.walk('/mnt/tree'))";
        guest.process().does(&format!("until {copied} > {files}")).unwrap();
        server.kill_and_start_again();
    }
    assert_eq!(copy.answer(), Ok(String::new()));
    assert_eq!(guest.sh("echo 3 >/proc/sys/vm/drop_caches; diff -r /tmp/tree /mnt/tree"), Ok(String::new()));
}
