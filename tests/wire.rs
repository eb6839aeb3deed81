//! NFSv3, MOUNT and portmap as an independent client sees them.

#![allow(clippy::unwrap_used)]

mod support;

use nfs3_client::nfs3_types::nfs3::nfsstat3::*;
use nfs3_client::nfs3_types::nfs3::*;
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use nfs3_client::tokio::TokioIo;
use nfs3_client::{MountClient, PortmapperClient};
use support::{Client, World, soon};
use tokio::net::TcpStream;

async fn tcp(world: &World) -> TokioIo<TcpStream> {
    TokioIo::new(TcpStream::connect(world.server().nfs_addr()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn portmap_and_mount_answer_on_the_nfs_port() {
    let world = World::with(&["--lazy", "--export", "photos"]).await;
    let port = world.server().nfs_addr().port();
    let mut portmap = PortmapperClient::new(tcp(&world).await);
    const TCP: u32 = 6;
    assert_eq!(soon(portmap.getport(100_003, 3, TCP)).await.unwrap(), port);
    assert_eq!(soon(portmap.getport(100_005, 3, TCP)).await.unwrap(), port);
    assert_eq!(soon(portmap.getport(100_021, 4, TCP)).await.unwrap(), port);
    assert_eq!(soon(portmap.getport(100_024, 1, TCP)).await.unwrap(), port);
    assert!(soon(portmap.getport(100_227, 3, TCP)).await.is_err(), "no NFSACL");

    let mut mount = MountClient::new(tcp(&world).await);
    let exports = soon(mount.export()).await.unwrap();
    let names: Vec<_> =
        exports.into_inner().into_iter().map(|e| String::from_utf8_lossy(&e.ex_dir.0.0).into_owned()).collect();
    assert_eq!(names, ["/", "/photos"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_export_and_a_subdirectory_can_be_mounted() {
    let world = World::with(&["--lazy", "--export", "photos"]).await;
    world.put("2026/may/a.jpg", b"jpeg");
    let port = world.server().nfs_addr().port();
    for (export, path) in [
        ("/", "2026/may/a.jpg"),
        ("/photos", "2026/may/a.jpg"),
        ("photos", "2026/may/a.jpg"),
        ("/2026", "may/a.jpg"),
        ("/photos/2026/may", "a.jpg"),
        ("/2026/may/", "a.jpg"),
    ] {
        let mut client = Client::connect(port, export, 0, 0).await;
        assert_eq!(client.read(path).await.unwrap(), b"jpeg", "{export}");
    }
    assert!(Client::try_connect(port, "/nothing", 0, 0).await.is_err());
    assert!(Client::try_connect(port, "/2026/may/a.jpg", 0, 0).await.is_err(), "a file is no export");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mutation_of_a_read_only_export_is_refused_with_the_attributes_of_what_it_touched() {
    let world = World::with(&["--lazy", "--read-only"]).await;
    world.put("file.txt", b"hello");
    let mut client = world.client().await;
    let file = client.lookup("file.txt").await.unwrap().handle;
    let root = client.root();
    let name = |n: &'static [u8]| diropargs3 { dir: root.clone(), name: filename3(Opaque::borrowed(n)) };
    let nfs = client.raw();

    let write = WRITE3args {
        file: file.clone(),
        offset: 0,
        count: 1,
        stable: stable_how::FILE_SYNC,
        data: Opaque::borrowed(b"x"),
    };
    let Nfs3Result::Err((NFS3ERR_ROFS, fail)) = nfs.write(&write).await.unwrap() else { panic!("WRITE") };
    assert_eq!(fail.file_wcc.after.unwrap().size, 5);

    let setattr = SETATTR3args { object: file, new_attributes: sattr3::default(), guard: Nfs3Option::None };
    let Nfs3Result::Err((NFS3ERR_ROFS, fail)) = nfs.setattr(&setattr).await.unwrap() else { panic!("SETATTR") };
    assert!(fail.obj_wcc.after.is_some());

    let create = CREATE3args { where_: name(b"new"), how: createhow3::UNCHECKED(sattr3::default()) };
    let Nfs3Result::Err((NFS3ERR_ROFS, fail)) = nfs.create(&create).await.unwrap() else { panic!("CREATE") };
    assert!(fail.dir_wcc.after.is_some());

    let mkdir = MKDIR3args { where_: name(b"new"), attributes: sattr3::default() };
    assert!(matches!(nfs.mkdir(&mkdir).await.unwrap(), Nfs3Result::Err((NFS3ERR_ROFS, _))));
    let remove = REMOVE3args { object: name(b"file.txt") };
    assert!(matches!(nfs.remove(&remove).await.unwrap(), Nfs3Result::Err((NFS3ERR_ROFS, _))));
    let rmdir = RMDIR3args { object: name(b"file.txt") };
    assert!(matches!(nfs.rmdir(&rmdir).await.unwrap(), Nfs3Result::Err((NFS3ERR_ROFS, _))));
    let rename = RENAME3args { from: name(b"file.txt"), to: name(b"other") };
    assert!(matches!(nfs.rename(&rename).await.unwrap(), Nfs3Result::Err((NFS3ERR_ROFS, _))));
    assert_eq!(client.read("file.txt").await.unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_handles_are_bad_and_gone_ones_are_stale() {
    let world = World::new().await;
    world.put("file.txt", b"hello");
    let mut client = world.client().await;
    let file = client.lookup("file.txt").await.unwrap().handle;
    let bytes = file.data.0.to_vec();
    for len in 0..bytes.len() {
        let short = nfs_fh3 { data: Opaque::owned(bytes[..len].to_vec()) };
        assert_eq!(client.getattr(&short).await.unwrap_err(), NFS3ERR_BADHANDLE);
    }
    let mut forged = bytes;
    forged[15] ^= 1;
    assert_eq!(client.getattr(&nfs_fh3 { data: Opaque::owned(forged) }).await.unwrap_err(), NFS3ERR_BADHANDLE);

    world.bucket.delete("file.txt");
    world.age();
    client.getattr(&file).await.unwrap();
    world.quiet().await;
    assert_eq!(client.getattr(&file).await.unwrap_err(), NFS3ERR_STALE);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_get_the_error_that_says_so() {
    let world = World::new().await;
    world.put("dir/file.txt", b"hello");
    let mut client = world.client().await;
    let root = client.root();
    for (name, status) in [
        (&b""[..], NFS3ERR_INVAL),
        (b"a/b", NFS3ERR_INVAL),
        (b"a\0b", NFS3ERR_INVAL),
        (&[b'n'; 256], NFS3ERR_NAMETOOLONG),
        (&[b'n'; 255], NFS3ERR_NOENT),
        (b"\xff\xfe", NFS3ERR_NOENT),
        (b"absent", NFS3ERR_NOENT),
    ] {
        assert_eq!(client.lookup_in(&root, name).await.unwrap_err(), status, "{name:?}");
    }
    let dir = client.lookup("dir").await.unwrap();
    let file = client.lookup("dir/file.txt").await.unwrap();
    assert_eq!(client.lookup_in(&dir.handle, b"..").await.unwrap().handle, root);
    assert_eq!(client.lookup_in(&dir.handle, b".").await.unwrap().handle, dir.handle);
    assert_eq!(client.lookup_in(&root, b"..").await.unwrap().handle, root);
    assert_eq!(client.lookup_in(&file.handle, b"x").await.unwrap_err(), NFS3ERR_NOTDIR);
    assert_eq!(client.read_at(&dir.handle, 0, 10).await.unwrap_err(), NFS3ERR_ISDIR);
    assert_eq!(client.list_handle(&file.handle).await.unwrap_err(), NFS3ERR_NOTDIR);
}

/// N2: mode, uid, gid, mtime and symlinks live in the user metadata that AWS's own tools write; s3fs's is read too.
#[tokio::test(flavor = "multi_thread")]
async fn attributes_and_links_come_from_user_metadata() {
    let world = World::new().await;
    let aws = [
        ("file-permissions", "0100640"),
        ("file-owner", "1000"),
        ("file-group", "100"),
        ("file-mtime", "1500000000123456789ns"),
    ];
    world.bucket.put("aws", &b"data"[..], &aws);
    let s3fs = [("mode", "33152"), ("uid", "7"), ("gid", "8"), ("mtime", "1400000000.5")];
    world.bucket.put("s3fs", &b"data"[..], &s3fs);
    world.bucket.put("link", &b"dir/target"[..], &[("file-permissions", "0120777")]);
    let mut client = world.client().await;

    let attr = client.lookup("aws").await.unwrap().attr;
    assert_eq!((attr.mode & 0o7777, attr.uid, attr.gid), (0o640, 1000, 100));
    assert_eq!((attr.mtime.seconds, attr.mtime.nseconds), (1_500_000_000, 123_456_789));
    let attr = client.lookup("s3fs").await.unwrap().attr;
    assert_eq!((attr.mode & 0o7777, attr.uid, attr.gid), (0o600, 7, 8));
    assert_eq!((attr.mtime.seconds, attr.mtime.nseconds), (1_400_000_000, 500_000_000));

    let link = client.lookup("link").await.unwrap();
    assert!(matches!(link.attr.type_, ftype3::NF3LNK));
    let Nfs3Result::Ok(target) = client.raw().readlink(&READLINK3args { symlink: link.handle }).await.unwrap() else {
        panic!("READLINK")
    };
    assert_eq!(&target.data.0[..], b"dir/target");
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_bits_decide_by_the_callers_identity() {
    let world = World::new().await;
    let private = [("file-permissions", "0100600"), ("file-owner", "1000"), ("file-group", "100")];
    world.bucket.put("private", &b"secret"[..], &private);
    assert_eq!(world.client_as(1000, 1).await.read("private").await.unwrap(), b"secret");
    assert_eq!(world.client_as(0, 0).await.read("private").await.unwrap(), b"secret");
    assert_eq!(world.client_as(1001, 100).await.read("private").await.unwrap_err(), NFS3ERR_ACCES);
}

/// Cookies survive a restart: a listing that a restart interrupts goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn handles_and_cookies_survive_a_restart() {
    let mut world = World::new().await;
    for i in 0..500 {
        world.put(&format!("dir/f{i:03}"), format!("{i}").as_bytes());
    }
    let mut client = world.client().await;
    let dir = client.lookup("dir").await.unwrap();
    let names = client.list_handle(&dir.handle).await.unwrap();
    assert_eq!(names.len(), 500);
    let file = client.lookup("dir/f007").await.unwrap();
    let args =
        |cookie| READDIR3args { dir: dir.handle.clone(), cookie, cookieverf: cookieverf3::default(), count: 2000 };
    let first = client.raw().readdir(&args(0)).await.unwrap().unwrap().reply.entries.into_inner();
    let cookie = first.last().unwrap().cookie;

    world.restart().await;
    let mut client = world.client().await;
    assert_eq!(client.getattr(&file.handle).await.unwrap().fileid, file.attr.fileid);
    assert_eq!(client.read_handle(&file.handle).await.unwrap(), b"7");
    let mut rest = Vec::new();
    let mut cookie = cookie;
    loop {
        let page = client.raw().readdir(&args(cookie)).await.unwrap().unwrap().reply;
        rest.extend(page.entries.into_inner());
        cookie = rest.last().unwrap().cookie;
        if page.eof {
            break;
        }
    }
    let mut seen: Vec<_> =
        first.iter().chain(&rest).map(|e| String::from_utf8_lossy(&e.name.0.0).into_owned()).collect();
    seen.retain(|n| n != "." && n != "..");
    seen.sort();
    assert_eq!(seen, names.into_keys().collect::<Vec<_>>());
}

/// Cookies survive inserts and removals in the middle of a listing.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_is_complete_while_the_directory_changes() {
    let world = World::new().await;
    for i in 0..300 {
        world.put(&format!("f{i:03}"), b"x");
    }
    let mut client = world.client().await;
    let root = client.root();
    client.list_handle(&root).await.unwrap();
    world.quiet().await;
    let (mut cookie, mut seen, mut round) = (0, Vec::new(), 0);
    loop {
        let args = READDIR3args { dir: root.clone(), cookie, cookieverf: cookieverf3::default(), count: 1000 };
        let page = client.raw().readdir(&args).await.unwrap().unwrap().reply;
        for entry in page.entries.into_inner() {
            cookie = entry.cookie;
            seen.push(String::from_utf8_lossy(&entry.name.0.0).into_owned());
        }
        if page.eof {
            break;
        }
        world.bucket.delete(&format!("f{:03}", 299 - round));
        world.put(&format!("aaa{round}"), b"new");
        world.age();
        client.getattr(&root).await.unwrap();
        world.quiet().await;
        round += 1;
    }
    // Whatever was there all the time is listed exactly once.
    for i in 0..300 - round {
        let name = format!("f{i:03}");
        assert_eq!(seen.iter().filter(|n| **n == name).count(), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_told_are_the_real_ones() {
    let world = World::with(&["--lazy", "--cache-size", "100MiB"]).await;
    let mut client = world.client().await;
    let root = client.root();
    let stat = client.raw().fsstat(&FSSTAT3args { fsroot: root.clone() }).await.unwrap().unwrap();
    assert_eq!(stat.tbytes, 100 << 20);
    assert!(stat.fbytes <= stat.tbytes && stat.abytes == stat.fbytes);
    let info = client.raw().fsinfo(&FSINFO3args { fsroot: root.clone() }).await.unwrap().unwrap();
    assert_eq!((info.rtmax, info.maxfilesize), (1 << 20, 50_000_000_000_000));
    let conf = client.raw().pathconf(&PATHCONF3args { object: root }).await.unwrap().unwrap();
    assert_eq!((conf.name_max, conf.linkmax, conf.case_insensitive), (255, 1, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_at_and_beyond_the_end_says_so() {
    let world = World::new().await;
    world.put("file.txt", b"hello");
    world.put("empty", b"");
    let mut client = world.client().await;
    let file = client.lookup("file.txt").await.unwrap().handle;
    for _ in 0..2 {
        for (offset, count, bytes, eof) in [
            (0, 5, &b"hello"[..], true),
            (0, 4, b"hell", false),
            (3, 9, b"lo", true),
            (5, 1, b"", true),
            (u64::MAX, 9, b"", true),
            (1, 0, b"", false),
        ] {
            let got = client.read_at(&file, offset, count).await.unwrap();
            assert_eq!((&got.0[..], got.1), (bytes, eof), "{count} at {offset}");
        }
    }
    assert_eq!(client.read("empty").await.unwrap(), b"");
}

/// Checks, uploads and the like may have as much to do as they like: here they do not get to run at all.
#[test]
fn calls_are_answered_whatever_goes_on_behind_them() {
    let s3 = tokio::runtime::Runtime::new().unwrap();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (behind, clients) = (runtime(), runtime());
    let mut world = s3.block_on(World::stopped(&["--lazy"]));
    behind.block_on(async {
        world.start().await;
        world.put("file.txt", "hello");
        assert_eq!(world.client().await.read("file.txt").await.unwrap(), b"hello");
        world.quiet().await;
        world.age();
    });
    clients.block_on(async {
        let mut client = soon(world.client()).await;
        assert_eq!(soon(client.read("file.txt")).await.unwrap(), b"hello");
        // a client waits for these as well
        world.put("d/new.txt", "new");
        assert_eq!(soon(client.list("")).await.unwrap(), ["d", "file.txt"]);
        assert_eq!(soon(client.read("d/new.txt")).await.unwrap(), b"new");
        let file = client.lookup("file.txt").await.unwrap().handle;
        soon(client.write_at(&file, 0, b"HELLO", stable_how::FILE_SYNC)).await.unwrap();
        assert_eq!(soon(client.read("file.txt")).await.unwrap(), b"HELLO");
    });
    behind.block_on(async { world.sync().await });
    assert_eq!(world.bucket.get("file.txt").unwrap().bytes, "HELLO");
}

/// Cold disk pages stall neither others nor what is warm. The one thread that may wait for disks is held.
#[cfg(target_os = "linux")]
#[test]
fn attributes_are_answered_while_a_read_waits_for_the_disk() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let mut world = World::stopped(&["--lazy"]).await;
        // What is for temporary files may be memory, and never cold.
        world.cache = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        world.answers = Some(tokio::runtime::Handle::current());
        world.start().await;
        let content: Vec<u8> = (0..1 << 20_u32).flat_map(u32::to_be_bytes).collect();
        world.put("large", &content);
        let (mut reader, mut other) = (world.client().await, world.client().await);
        let file = reader.lookup("large").await.unwrap().handle;
        assert!(reader.read_handle(&file).await.unwrap() == content);
        world.quiet().await;
        let cold = forget_pages(&world.cache.path().join("objects"));

        let (disk, held) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || held.recv());
        let handle = file.clone();
        let reading = tokio::spawn(async move { reader.read_at(&handle, 2 << 20, 128 << 10).await });
        for _ in 0..100 {
            assert_eq!(other.getattr(&file).await.unwrap().size, 4 << 20);
        }
        assert!(!reading.is_finished() || !cold, "the READ waits for the disk");
        drop(disk);
        let (bytes, eof, _) = soon(reading).await.unwrap().unwrap();
        assert!(!eof && bytes == content[2 << 20..][..128 << 10]);
    });
}

/// Drops all files in `dir` and below from the page cache. Whether the file system says that they are not there.
#[cfg(target_os = "linux")]
fn forget_pages(dir: &std::path::Path) -> bool {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    let mut cold = true;
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            cold &= forget_pages(&entry.path());
            continue;
        }
        let file = std::fs::File::open(entry.path()).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut byte = [0];
        let probed = preadv2(&file, &mut [std::io::IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT);
        cold &= probed == Err(Errno::AGAIN);
    }
    cold
}
