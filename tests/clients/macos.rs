//! macOS: mount_nfs, Finder.

use super::*;
use crate::support::changes::no_attributes;

const ALL_ACCESS: u32 = 0x3f;
const READ: u32 = 0x01;
const LOOKUP: u32 = 0x02;
const MODIFY: u32 = 0x04;
const EXTEND: u32 = 0x08;
const DELETE: u32 = 0x10;
const EXECUTE: u32 = 0x20;

/// "`._*` and `.DS_Store` files appear": Finder makes, writes, renames and removes them beside every file it copies,
/// and S3 never hears of them.
#[tokio::test(flavor = "multi_thread")]
async fn finders_own_files_work_and_stay_here() {
    let mut world = World::new().await;
    let mut client = world.client().await;
    let root = client.root();
    let dir = client.mkdir_in(&root, b"Photos").await.unwrap().handle;
    client.save_in(&dir, b"a.jpg", b"jpeg").await.unwrap();
    client.save_in(&dir, b"._a.jpg", b"resource fork").await.unwrap();
    client.save_in(&dir, b".DS_Store", b"view").await.unwrap();
    client.save_in(&root, b"._Photos", b"folder icon").await.unwrap();
    world.sync().await;
    assert_eq!(world.bucket.keys(), ["Photos/a.jpg"]);

    // a file is moved with its companion, and the directory with both
    client.rename_in((&dir, b"a.jpg"), (&dir, b"b.jpg")).await.unwrap();
    client.rename_in((&dir, b"._a.jpg"), (&dir, b"._b.jpg")).await.unwrap();
    client.save_in(&dir, b".DS_Store", b"another view").await.unwrap();
    client.rename_in((&root, b"Photos"), (&root, b"Pictures")).await.unwrap();
    client.rename_in((&root, b"._Photos"), (&root, b"._Pictures")).await.unwrap();
    world.sync().await;
    assert_eq!(world.bucket.keys(), ["Pictures/b.jpg"]);

    // they are files like others here, also after a restart
    world.restart().await;
    let mut client = world.client().await;
    assert_eq!(client.read("Pictures/._b.jpg").await.unwrap(), b"resource fork");
    assert_eq!(client.read("Pictures/.DS_Store").await.unwrap(), b"another view");
    assert_eq!(client.list("Pictures").await.unwrap(), [".DS_Store", "._b.jpg", "b.jpg"]);
    world.age();
    client.list("Pictures").await.unwrap();
    world.quiet().await;
    assert_eq!(client.list("Pictures").await.unwrap(), [".DS_Store", "._b.jpg", "b.jpg"], "a listing takes none away");

    for name in [&b"b.jpg"[..], b"._b.jpg", b".DS_Store"] {
        client.remove_in(&dir, name).await.unwrap();
    }
    client.remove_in(&root, b"._Pictures").await.unwrap();
    client.rmdir_in(&root, b"Pictures").await.unwrap();
    world.sync().await;
    assert_eq!(world.bucket.keys(), [""; 0]);
}

/// Saving by way of a temporary file whose name stays here: the final name goes up, and a name that stays here takes
/// what was uploaded away again.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_decides_anew_whether_a_file_stays_here() {
    let world = World::new().await;
    let mut client = world.client().await;
    let root = client.root();
    client.save_in(&root, b"._draft", b"text").await.unwrap();
    world.sync().await;
    assert_eq!(world.bucket.keys(), [""; 0]);
    client.rename_in((&root, b"._draft"), (&root, b"letter")).await.unwrap();
    world.sync().await;
    assert_eq!(world.bucket.get("letter").unwrap().bytes, "text");
    client.rename_in((&root, b"letter"), (&root, b"._letter")).await.unwrap();
    world.sync().await;
    assert_eq!(world.bucket.keys(), [""; 0]);
    assert_eq!(client.read("._letter").await.unwrap(), b"text");
}

/// "It uses READDIR too."
#[tokio::test(flavor = "multi_thread")]
async fn readdir_is_complete() {
    let world = World::new().await;
    let wanted: Vec<Vec<u8>> = (0..300).map(|i| format!("{i:03}").into_bytes()).collect();
    wanted.iter().for_each(|name| world.put(std::str::from_utf8(name).unwrap(), b""));
    let mut client = world.client().await;
    let root = client.root();
    for count in [512, 8192, 32 << 10, 1 << 20] {
        assert_eq!(readdir(&mut client, &root, count).await, wanted, "{count}");
    }
}

/// "`df` and Finder show FSSTAT": a volume with room, whose used part is what is here.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_has_a_size_and_room() {
    const MIB: u64 = 1 << 20;
    let world = World::with(&["--lazy", "--cache-size", "100MiB"]).await;
    let mut client = world.client().await;
    let root = client.root();
    let before = fsstat(&mut client, &root).await;
    assert_eq!(before.tbytes, 100 * MIB);
    client.save_in(&root, b"film", &vec![7; 10 * MIB as usize]).await.unwrap();
    let after = fsstat(&mut client, &root).await;
    for stat in [&before, &after] {
        assert!(stat.abytes <= stat.fbytes && stat.fbytes <= stat.tbytes);
        assert!(stat.afiles <= stat.ffiles && stat.ffiles <= stat.tfiles);
        assert!(stat.fbytes > 0, "Finder refuses to copy to a full volume");
    }
    assert_eq!(after.tfiles - after.ffiles, before.tfiles - before.ffiles + 1, "one file more is used");
}

async fn fsstat(client: &mut Client, root: &nfs_fh3) -> FSSTAT3resok {
    soon(client.raw().fsstat(&FSSTAT3args { fsroot: root.clone() })).await.unwrap().unwrap()
}

/// open(O_CREAT | O_EXCL): CREATE EXCLUSIVE, again when the answer was lost, then SETATTR with what CREATE could not
/// say; another program's verifier finds the name taken.
#[tokio::test(flavor = "multi_thread")]
async fn an_exclusive_create_is_told_from_another_by_its_verifier() {
    let world = World::new().await;
    let mut client = world.client().await;
    let root = client.root();
    let exclusive = |verifier: u8| createhow3::EXCLUSIVE(createverf3([verifier; 8]));
    let made = client.create_in(&root, b"new", exclusive(1)).await.unwrap();
    let again = client.create_in(&root, b"new", exclusive(1)).await.unwrap();
    assert_eq!(again.handle, made.handle);
    assert_eq!(client.create_in(&root, b"new", exclusive(2)).await.unwrap_err(), nfsstat3::NFS3ERR_EXIST);

    let set = sattr3 {
        mode: set_mode3::Some(0o644),
        uid: set_uid3::Some(501),
        gid: set_gid3::Some(20),
        atime: set_atime::SET_TO_SERVER_TIME,
        mtime: set_mtime::SET_TO_SERVER_TIME,
        ..no_attributes()
    };
    client.setattr(&made.handle, set).await.unwrap();
    let attr = client.getattr(&made.handle).await.unwrap();
    assert_eq!((attr.mode & 0o7777, attr.uid, attr.gid, attr.size), (0o644, 501, 20, 0));
    let now = u32::try_from(world.clock.wall().seconds()).unwrap();
    assert_eq!((attr.atime.seconds, attr.mtime.seconds), (now, now), "no trace of the verifier is in the times");
    client.write_at(&made.handle, 0, b"text", stable_how::UNSTABLE).await.unwrap();
    client.commit(&made.handle).await.unwrap();
    world.sync().await;
    assert_eq!(world.bucket.get("new").unwrap().bytes, "text");
}

/// It asks for all bits of ACCESS and goes by what is granted, for directories as for files.
#[tokio::test(flavor = "multi_thread")]
async fn access_grants_what_the_mode_does() {
    let world = World::new().await;
    let owned = |mode| [("file-permissions", mode), ("file-owner", "501"), ("file-group", "20")];
    world.bucket.put("program", &b"#!"[..], &owned("0100750"));
    world.bucket.put("text", &b"text"[..], &owned("0100644"));
    for (uid, gid, program, text, root) in [
        (501, 20, READ | MODIFY | EXTEND | EXECUTE, READ | MODIFY | EXTEND, READ | LOOKUP),
        (502, 20, READ | EXECUTE, READ, READ | LOOKUP),
        (502, 21, 0, READ, READ | LOOKUP),
        (0, 0, READ | MODIFY | EXTEND | EXECUTE, READ | MODIFY | EXTEND, READ | LOOKUP | MODIFY | EXTEND | DELETE),
    ] {
        let mut client = world.client_as(uid, gid).await;
        for (path, wanted) in [("program", program), ("text", text), ("", root)] {
            let object = client.lookup(path).await.unwrap().handle;
            let granted = soon(client.raw().access(&ACCESS3args { object, access: ALL_ACCESS })).await.unwrap();
            assert_eq!(granted.unwrap().access, wanted, "{path:?} for {uid}:{gid}");
        }
    }
}

/// "It keeps handles across umount; STALE on WRITE drops data silently: handles must survive restarts."
#[tokio::test(flavor = "multi_thread")]
async fn handles_outlive_umount_and_the_server() {
    let mut world = World::mortal().await;
    world.put("dir/old", "old bytes");
    let mut client = world.client().await;
    let root = client.root();
    let dir = client.lookup("dir").await.unwrap().handle;
    let old = client.lookup("dir/old").await.unwrap().handle;
    let new = client.save_in(&dir, b"new", b"new ").await.unwrap().handle;
    soon(client.unmount()).await;

    for killed in [false, true] {
        // a crash in the middle of an upload is `tests/crash`'s
        world.sync().await;
        if killed {
            world.kill().await
        } else {
            world.stop().await
        };
        world.start().await;
        // no MNT before: the handles are those of the mount that was
        let mut client = world.client().await;
        assert_eq!(client.root(), root);
        assert_eq!(client.read_handle(&old).await.unwrap(), b"old bytes");
        assert_eq!(client.lookup_in(&dir, b"new").await.unwrap().handle, new);
        let end = client.getattr(&new).await.unwrap().size;
        let written = client.write_at(&new, end, b"more ", stable_how::FILE_SYNC).await.unwrap();
        assert_eq!(written.file_wcc.after.unwrap().size, end + 5);
    }
    world.sync().await;
    assert_eq!(world.bucket.get("dir/new").unwrap().bytes, "new more more ", "{:?}", world.bucket.keys());
}
