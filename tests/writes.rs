//! Changes through NFS, as an independent client sees them, before any of them is in S3.

#![allow(clippy::unwrap_used)]

mod support;

use fasts3::s3server::{Fault, Kind, generated};
use fasts3::types::Ino;
use nfs3_client::nfs3_types::nfs3::nfsstat3::*;
use nfs3_client::nfs3_types::nfs3::*;
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use support::changes::no_attributes;
use support::{Client, World, soon};

fn mode(mode: u32) -> sattr3 {
    sattr3 { mode: set_mode3::Some(mode), ..no_attributes() }
}

fn size(size: u64) -> sattr3 {
    sattr3 { size: set_size3::Some(size), ..no_attributes() }
}

fn mtime(seconds: u32) -> sattr3 {
    sattr3 { mtime: set_mtime::SET_TO_CLIENT_TIME(nfstime3 { seconds, nseconds: 0 }), ..no_attributes() }
}

/// A directory that everybody may write to.
async fn open_root(world: &World) -> nfs_fh3 {
    let mut root = world.client().await;
    let dir = root.root();
    root.setattr(&dir, mode(0o777)).await.unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_written_committed_and_read_back() {
    let world = World::new().await;
    let mut client = world.client().await;
    let root = client.root();

    let file = client.create_in(&root, b"new", createhow3::GUARDED(mode(0o640))).await.unwrap();
    assert_eq!((file.attr.mode, file.attr.size), (0o640, 0));
    let first = client.write_at(&file.handle, 0, b"hello, ", stable_how::UNSTABLE).await.unwrap();
    let second = client.write_at(&file.handle, 7, b"world", stable_how::UNSTABLE).await.unwrap();
    assert_eq!((second.count, second.committed), (5, stable_how::UNSTABLE));
    assert_eq!(second.file_wcc.before.unwrap().size, 7);
    assert_eq!(second.file_wcc.after.unwrap().size, 12);
    assert_eq!(client.commit(&file.handle).await.unwrap().verf, first.verf);

    let seen = client.lookup("new").await.unwrap().attr;
    assert_eq!((seen.size, seen.used, seen.fileid), (12, 12, file.attr.fileid));
    assert_eq!(client.list_handle(&root).await.unwrap()["new"].size, 12);
    assert_eq!(client.read("new").await.unwrap(), b"hello, world");
    assert_eq!(client.read_at(&file.handle, 5, 100).await.unwrap().0, b", world");
    assert_eq!(client.create_in(&root, b"new", createhow3::GUARDED(mode(0))).await.unwrap_err(), NFS3ERR_EXIST);
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_writes_say_what_they_did() {
    let world = World::new().await;
    let mut client = world.client().await;
    let root = client.root();
    let file = client.create_in(&root, b"new", createhow3::UNCHECKED(mode(0o600))).await.unwrap().handle;
    for stable in [stable_how::DATA_SYNC, stable_how::FILE_SYNC, stable_how::UNSTABLE] {
        assert_eq!(client.write_at(&file, 0, b"x", stable).await.unwrap().committed, stable);
    }
    let nothing = client.write_at(&file, 100, b"", stable_how::FILE_SYNC).await.unwrap();
    assert_eq!((nothing.count, nothing.file_wcc.after.unwrap().size), (0, 1));
    let far = client.write_at(&file, u64::MAX, b"x", stable_how::UNSTABLE).await;
    assert_eq!(far.unwrap_err(), NFS3ERR_FBIG);
    assert_eq!(client.write_at(&root, 0, b"x", stable_how::UNSTABLE).await.unwrap_err(), NFS3ERR_ISDIR);
}

/// A small write to a large object that is not here fetches nothing; a read beside it fetches what it needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_into_a_cold_large_object_lies_over_it() {
    const SIZE: u64 = 100 << 20;
    const AT: u64 = 50 << 20;
    let world = World::new().await;
    world.bucket.put_generated("big", SIZE, 7);
    let mut client = world.client().await;
    let file = client.lookup("big").await.unwrap().handle;
    world.quiet().await;
    world.s3.requests().reset();

    client.write_at(&file, AT, b"patch", stable_how::UNSTABLE).await.unwrap();
    assert_eq!(client.read_at(&file, AT, 5).await.unwrap().0, b"patch");
    client.commit(&file).await.unwrap();
    assert_eq!(world.s3.requests().count(Kind::Get), 0);
    assert_eq!(client.getattr(&file).await.unwrap().size, SIZE);

    let (bytes, eof, _) = client.read_at(&file, AT - 10, 20).await.unwrap();
    let mut wanted = generated(7, AT - 10..AT + 10).to_vec();
    wanted[10..15].copy_from_slice(b"patch");
    assert_eq!((bytes, eof), (wanted, false));
    assert_eq!(world.s3.requests().count(Kind::Get), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_fetches_nothing_and_what_was_cut_off_stays_off() {
    let world = World::new().await;
    world.put("file", "0123456789");
    let mut client = world.client().await;
    let file = client.lookup("file").await.unwrap().handle;
    world.quiet().await;
    world.s3.requests().reset();

    client.setattr(&file, size(4)).await.unwrap();
    assert_eq!(client.getattr(&file).await.unwrap().size, 4);
    client.setattr(&file, size(8)).await.unwrap();
    assert_eq!(world.s3.requests().count(Kind::Get), 0);
    assert_eq!(client.read_handle(&file).await.unwrap(), b"0123\0\0\0\0");

    client.write_at(&file, 6, b"xyz", stable_how::UNSTABLE).await.unwrap();
    client.setattr(&file, size(7)).await.unwrap();
    client.setattr(&file, size(9)).await.unwrap();
    assert_eq!(client.read_handle(&file).await.unwrap(), b"0123\0\0x\0\0");
    assert_eq!(client.setattr(&client.root(), size(0)).await.unwrap_err(), NFS3ERR_ISDIR);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_of_a_file_that_is_changed_here_outlives_its_object() {
    let mut world = World::with(&["--upload-delay=1h"]).await;
    let bytes = generated(7, 0..3000);
    let mut client = world.client().await;
    for key in ["read first", "cut first"] {
        world.put(key, &bytes);
    }
    world.age();
    client.list("").await.unwrap();
    world.quiet().await;
    for (key, is_read_first) in [("read first", true), ("cut first", false)] {
        world.s3.faults().inject((Kind::Get, key), 1, Fault::StallAfter(1000));
        let file = client.lookup(key).await.unwrap();
        for is_turn_to_read in [is_read_first, !is_read_first] {
            match is_turn_to_read {
                true => assert_eq!(client.read_at(&file.handle, 0, 500).await.unwrap().0, bytes[..500]),
                false => client.setattr(&file.handle, size(500)).await.unwrap(),
            }
        }
        world.bucket.delete(key);
        world.server().revalidator().refresh(Ino::ROOT).await.unwrap();
        assert!(client.read(key).await.unwrap() == bytes[..500], "{key}");
    }
    world.restart().await;
    let mut client = world.client().await;
    world.sync().await;
    for key in ["read first", "cut first"] {
        assert!(client.read(key).await.unwrap() == bytes[..500], "{key}");
        assert!(world.bucket.get(key).unwrap().bytes == bytes[..500], "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchecked_create_cuts_what_is_there() {
    let world = World::new().await;
    world.put("file", "from S3");
    let mut client = world.client().await;
    let root = client.root();
    let before = client.lookup("file").await.unwrap();

    let again = client.create_in(&root, b"file", createhow3::UNCHECKED(mode(0))).await.unwrap();
    assert_eq!((again.attr.fileid, again.attr.size, again.attr.mode), (before.attr.fileid, 7, before.attr.mode));
    let cut = client.create_in(&root, b"file", createhow3::UNCHECKED(size(0))).await.unwrap();
    assert_eq!((cut.attr.fileid, cut.attr.size), (before.attr.fileid, 0));
    assert_eq!(client.read("file").await.unwrap(), b"");
    let long = client.create_in(&root, b"zeros", createhow3::UNCHECKED(size(3))).await.unwrap();
    assert_eq!((long.attr.size, client.read("zeros").await.unwrap()), (3, b"\0\0\0".to_vec()));
    client.mkdir_in(&root, b"dir").await.unwrap();
    let dir = client.create_in(&root, b"dir", createhow3::UNCHECKED(size(0))).await;
    assert_eq!(dir.unwrap_err(), NFS3ERR_EXIST);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exclusive_create_that_is_sent_again_after_a_restart_succeeds() {
    let mut world = World::new().await;
    let mut client = world.client().await;
    let root = client.root();
    let how = || createhow3::EXCLUSIVE(createverf3([0xfe, 1, 2, 3, 4, 5, 6, 7]));
    let first = client.create_in(&root, b"lock", how()).await.unwrap();

    world.restart().await;
    let mut client = world.client().await;
    let again = client.create_in(&root, b"lock", how()).await.unwrap();
    assert_eq!(again.attr.fileid, first.attr.fileid);
    let other = createhow3::EXCLUSIVE(createverf3([0; 8]));
    assert_eq!(client.create_in(&root, b"lock", other).await.unwrap_err(), NFS3ERR_EXIST);
    client.setattr(&again.handle, mtime(1_000_000)).await.unwrap();
    assert_eq!(client.create_in(&root, b"lock", how()).await.unwrap_err(), NFS3ERR_EXIST);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_there_after_a_restart() {
    let mut world = World::new().await;
    world.put("old", "old bytes");
    let mut client = world.client().await;
    let root = client.root();
    let verifier = {
        let dir = client.mkdir_in(&root, b"dir").await.unwrap().handle;
        client.save_in(&dir, b"new", b"new bytes").await.unwrap();
        let old = client.lookup("old").await.unwrap().handle;
        client.write_at(&old, 0, b"OLD", stable_how::FILE_SYNC).await.unwrap();
        client.setattr(&old, mode(0o600)).await.unwrap();
        client.setattr(&old, mtime(1_000_000)).await.unwrap();
        client.rename_in((&dir, b"new"), (&root, b"moved")).await.unwrap();
        client.commit(&old).await.unwrap().verf
    };

    world.restart().await;
    let mut client = world.client().await;
    assert_eq!(client.list("").await.unwrap(), ["dir", "moved", "old"]);
    assert_eq!(client.read("moved").await.unwrap(), b"new bytes");
    assert_eq!(client.read("old").await.unwrap(), b"OLD bytes");
    let old = client.lookup("old").await.unwrap();
    assert_eq!((old.attr.mode, old.attr.mtime.seconds), (0o600, 1_000_000));
    assert_ne!(client.commit(&old.handle).await.unwrap().verf, verifier);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_removed_here_is_gone_though_s3_still_has_it() {
    let world = World::new().await;
    world.put("dir/file", "bytes");
    world.put("dir/other", "bytes");
    let _held = world.s3.faults().hold(Kind::Delete);
    let mut client = world.client().await;
    let dir = client.lookup("dir").await.unwrap().handle;
    let file = client.lookup("dir/file").await.unwrap().handle;

    client.remove_in(&dir, b"file").await.unwrap();
    assert_eq!(client.lookup("dir/file").await.unwrap_err(), NFS3ERR_NOENT);
    assert_eq!(client.list("dir").await.unwrap(), ["other"]);
    assert_eq!(client.getattr(&file).await.unwrap_err(), NFS3ERR_STALE);
    world.age();
    assert_eq!(client.list("dir").await.unwrap(), ["other"]);
    world.quiet().await;
    assert_eq!(client.lookup("dir/file").await.unwrap_err(), NFS3ERR_NOENT);
    assert_eq!(client.list("dir").await.unwrap(), ["other"]);
    assert!(world.bucket.get("dir/file").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_here_stays_though_s3_does_not_have_it() {
    let world = World::new().await;
    world.put("dir/old", "bytes");
    let mut client = world.client().await;
    client.list("dir").await.unwrap();
    client.save("dir/new", b"new").await.unwrap();
    for _ in 0..2 {
        world.age();
        assert_eq!(client.list("dir").await.unwrap(), ["new", "old"]);
        assert_eq!(client.read("dir/new").await.unwrap(), b"new");
        world.quiet().await;
    }
}

/// What a rename of `from` over `to` ends in, where `f` is a file, `e` an empty directory, `d` one with an entry.
#[tokio::test(flavor = "multi_thread")]
async fn renames_replace_only_their_like() {
    let world = World::new().await;
    world.put("d-s3/entry", "only S3 knows that this is not empty");
    let mut client = world.client().await;
    let root = client.root();
    for (nth, (from, to, wanted)) in [
        ("f", "f", Ok(())),
        ("f", "e", Err(NFS3ERR_ISDIR)),
        ("e", "f", Err(NFS3ERR_NOTDIR)),
        ("e", "e", Ok(())),
        ("e", "d", Err(NFS3ERR_NOTEMPTY)),
        ("d", "e", Ok(())),
    ]
    .into_iter()
    .enumerate()
    {
        let (from_name, to_name) = (format!("{nth}-from-{from}"), format!("{nth}-to-{to}"));
        for (kind, name) in [(from, &from_name), (to, &to_name)] {
            if kind == "f" {
                client.save(name, name.as_bytes()).await.unwrap();
                continue;
            }
            let dir = client.mkdir_in(&root, name.as_bytes()).await.unwrap().handle;
            if kind == "d" {
                client.save_in(&dir, b"entry", b"").await.unwrap();
            }
        }
        let id = client.lookup(&from_name).await.unwrap().attr.fileid;
        let renamed = client.rename_in((&root, from_name.as_bytes()), (&root, to_name.as_bytes())).await;
        assert_eq!(renamed, wanted, "{from_name} {to_name}");
        let now = client.lookup(if wanted.is_ok() { &to_name } else { &from_name }).await.unwrap();
        assert_eq!(now.attr.fileid, id);
        assert_eq!(client.lookup(&from_name).await.is_ok(), wanted.is_err());
    }
    client.mkdir_in(&root, b"empty").await.unwrap();
    client.lookup("d-s3").await.unwrap();
    assert_eq!(client.rename_in((&root, b"empty"), (&root, b"d-s3")).await, Err(NFS3ERR_NOTEMPTY));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_s3_alone_knows_is_removed_and_renamed_without_a_lookup() {
    let world = World::new().await;
    ["removed", "renamed", "dir/file", "empty/"].iter().for_each(|key| world.put(key, *key));
    let mut client = world.client().await;
    let root = client.root();
    assert_eq!(client.remove_in(&root, b"removed").await, Ok(()));
    assert_eq!(client.rename_in((&root, b"renamed"), (&root, b"new")).await, Ok(()));
    assert_eq!(client.rmdir_in(&root, b"dir").await, Err(NFS3ERR_NOTEMPTY));
    assert_eq!(client.rmdir_in(&root, b"empty").await, Ok(()));
    assert_eq!(client.remove_in(&root, b"nowhere").await, Err(NFS3ERR_NOENT));
    assert_eq!(client.rename_in((&root, b"nowhere"), (&root, b"else")).await, Err(NFS3ERR_NOENT));
    world.age();
    world.sync().await;
    assert_eq!(world.bucket.keys(), ["dir/file", "new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn renames_that_make_no_sense_are_refused() {
    let world = World::new().await;
    let mut client = world.client().await;
    let root = client.root();
    let dir = client.mkdir_in(&root, b"dir").await.unwrap().handle;
    let below = client.mkdir_in(&dir, b"below").await.unwrap().handle;
    client.save("file", b"file").await.unwrap();

    assert_eq!(client.rename_in((&root, b"dir"), (&below, b"loop")).await, Err(NFS3ERR_INVAL));
    assert_eq!(client.rename_in((&root, b"dir"), (&dir, b"loop")).await, Err(NFS3ERR_INVAL));
    assert_eq!(client.rename_in((&dir, b"."), (&root, b"x")).await, Err(NFS3ERR_INVAL));
    assert_eq!(client.rename_in((&root, b"file"), (&root, b"..")).await, Err(NFS3ERR_INVAL));
    assert_eq!(client.rename_in((&root, b"none"), (&root, b"x")).await, Err(NFS3ERR_NOENT));
    assert_eq!(client.rename_in((&root, b"file"), (&root, b"file")).await, Ok(()));
    let long = [b'x'; 250];
    assert_eq!(client.rename_in((&root, b"file"), (&root, &long)).await, Err(NFS3ERR_NAMETOOLONG));
    assert_eq!(client.list("").await.unwrap(), ["dir", "file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_moves_with_all_that_is_below_it_here_and_in_s3() {
    let world = World::new().await;
    world.put("a/deep/file", "from S3");
    let mut client = world.client().await;
    let root = client.root();
    let other = client.mkdir_in(&root, b"other").await.unwrap().handle;
    client.save("a/deep/new", b"from here").await.unwrap();

    client.rename_in((&root, b"a"), (&other, b"b")).await.unwrap();
    assert_eq!(client.list("other/b/deep").await.unwrap(), ["file", "new"]);
    assert_eq!(client.read("other/b/deep/file").await.unwrap(), b"from S3");
    assert_eq!(client.read("other/b/deep/new").await.unwrap(), b"from here");
    assert_eq!(client.lookup("a").await.unwrap_err(), NFS3ERR_NOENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_removed_only_when_s3_too_has_nothing_in_it() {
    let world = World::new().await;
    world.put("full/entry", "bytes");
    let mut client = world.client().await;
    let root = client.root();
    client.lookup("full").await.unwrap();
    assert_eq!(client.rmdir_in(&root, b"full").await, Err(NFS3ERR_NOTEMPTY));
    assert_eq!(client.remove_in(&root, b"full").await, Err(NFS3ERR_ISDIR));
    let full = client.lookup("full").await.unwrap().handle;
    client.remove_in(&full, b"entry").await.unwrap();
    assert_eq!(client.rmdir_in(&root, b"full").await, Ok(()));
    assert_eq!(client.lookup("full").await.unwrap_err(), NFS3ERR_NOENT);

    client.save("file", b"").await.unwrap();
    assert_eq!(client.rmdir_in(&root, b"file").await, Err(NFS3ERR_NOTDIR));
    assert_eq!(client.rmdir_in(&root, b".").await, Err(NFS3ERR_INVAL));
    assert_eq!(client.rmdir_in(&root, b"..").await, Err(NFS3ERR_EXIST));
    assert_eq!(client.remove_in(&root, b"..").await, Err(NFS3ERR_EXIST));
    assert_eq!(client.rmdir_in(&root, b"none").await, Err(NFS3ERR_NOENT));
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_owners_and_sticky_directories_hold_for_who_is_not_root() {
    let world = World::new().await;
    let root = open_root(&world).await;
    let (mut ann, mut bob) = (world.client_as(10, 100).await, world.client_as(11, 110).await);

    let file = ann.create_in(&root, b"anns", createhow3::GUARDED(mode(0o600))).await.unwrap();
    assert_eq!((file.attr.uid, file.attr.gid), (10, 100));
    ann.write_at(&file.handle, 0, b"x", stable_how::UNSTABLE).await.unwrap();
    let denied = bob.write_at(&file.handle, 0, b"x", stable_how::UNSTABLE).await;
    assert_eq!(denied.unwrap_err(), NFS3ERR_ACCES);
    assert_eq!(bob.read_at(&file.handle, 0, 1).await.unwrap_err(), NFS3ERR_ACCES);
    assert_eq!(bob.setattr(&file.handle, mode(0o666)).await.unwrap_err(), NFS3ERR_PERM);
    let cut = bob.create_in(&root, b"anns", createhow3::UNCHECKED(size(0))).await;
    assert_eq!(cut.unwrap_err(), NFS3ERR_ACCES);

    let dir = ann.mkdir_in(&root, b"closed").await.unwrap().handle;
    assert_eq!(bob.mkdir_in(&dir, b"x").await.unwrap_err(), NFS3ERR_ACCES);
    assert_eq!(bob.rename_in((&root, b"anns"), (&dir, b"x")).await, Err(NFS3ERR_ACCES));

    world.client().await.setattr(&root, mode(0o1777)).await.unwrap();
    assert_eq!(bob.remove_in(&root, b"anns").await, Err(NFS3ERR_PERM));
    bob.save_in(&root, b"bobs", b"").await.unwrap();
    assert_eq!(bob.rename_in((&root, b"bobs"), (&root, b"anns")).await, Err(NFS3ERR_PERM));
    assert_eq!(ann.remove_in(&root, b"anns").await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn squashed_root_is_nobody() {
    let world = World::with(&["--lazy", "--squash", "root", "--anon-uid", "77", "--dir-mode", "777"]).await;
    let mut client = world.client().await;
    let root = client.root();
    let made = client.create_in(&root, b"file", createhow3::GUARDED(mode(0o600))).await.unwrap();
    assert_eq!((made.attr.uid, made.attr.gid), (77, 65_534));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_server_refuses_every_change_and_grants_none() {
    let world = World::with(&["--lazy", "--read-only"]).await;
    world.put("file", "bytes");
    let mut client = world.client().await;
    let root = client.root();
    let file = client.lookup("file").await.unwrap().handle;

    let created = client.create_in(&root, b"new", createhow3::GUARDED(mode(0o600))).await;
    assert_eq!(created.unwrap_err(), NFS3ERR_ROFS);
    assert_eq!(client.mkdir_in(&root, b"new").await.unwrap_err(), NFS3ERR_ROFS);
    assert_eq!(client.remove_in(&root, b"file").await, Err(NFS3ERR_ROFS));
    assert_eq!(client.rmdir_in(&root, b"file").await, Err(NFS3ERR_ROFS));
    assert_eq!(client.rename_in((&root, b"file"), (&root, b"x")).await, Err(NFS3ERR_ROFS));
    assert_eq!(client.setattr(&file, mode(0o600)).await.unwrap_err(), NFS3ERR_ROFS);
    let written = client.write_at(&file, 0, b"x", stable_how::UNSTABLE).await;
    assert_eq!(written.unwrap_err(), NFS3ERR_ROFS);
    assert_eq!(access(&mut client, &file).await, ACCESS3_READ);
    assert_eq!(client.read("file").await.unwrap(), b"bytes");
}

async fn access(client: &mut Client, object: &nfs_fh3) -> u32 {
    let args = ACCESS3args { object: object.clone(), access: 0x3f };
    match soon(client.raw().access(&args)).await.unwrap() {
        Nfs3Result::Ok(ok) => ok.access,
        Nfs3Result::Err((status, _)) => panic!("{status:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn access_tells_what_may_be_changed() {
    let world = World::new().await;
    world.put("file", "bytes");
    let mut client = world.client().await;
    let root = client.root();
    let file = client.lookup("file").await.unwrap().handle;
    assert_eq!(access(&mut client, &file).await, ACCESS3_READ | ACCESS3_MODIFY | ACCESS3_EXTEND);
    let all = ACCESS3_READ | ACCESS3_LOOKUP | ACCESS3_MODIFY | ACCESS3_EXTEND | ACCESS3_DELETE;
    assert_eq!(access(&mut client, &root).await, all);
    assert_eq!(access(&mut world.client_as(9, 9).await, &root).await, ACCESS3_READ | ACCESS3_LOOKUP);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_special_files_are_made_and_kept() {
    let mut world = World::new().await;
    let root = open_root(&world).await;
    let mut user = world.client_as(10, 10).await;
    symlink(&mut user, &root, b"link", b"../target").await.unwrap();
    assert_eq!(symlink(&mut user, &root, b"link", b"x").await, Err(NFS3ERR_EXIST));
    assert_eq!(symlink(&mut user, &root, b"long", &[b'x'; 5000]).await, Err(NFS3ERR_NAMETOOLONG));
    assert_eq!(mknod(&mut user, &root, b"fifo", mknoddata3::NF3FIFO(mode(0o600))).await, Ok(()));
    let device = || {
        mknoddata3::NF3CHR(devicedata3 { dev_attributes: mode(0o600), spec: specdata3 { specdata1: 4, specdata2: 7 } })
    };
    assert_eq!(mknod(&mut user, &root, b"tty", device()).await, Err(NFS3ERR_PERM));
    assert_eq!(mknod(&mut world.client().await, &root, b"tty", device()).await, Ok(()));
    let linked = LINK3args {
        file: user.lookup("fifo").await.unwrap().handle,
        link: diropargs3 { dir: root.clone(), name: filename3(Opaque::borrowed(b"second")) },
    };
    let refused = soon(user.raw().link(&linked)).await.unwrap();
    assert!(matches!(refused, Nfs3Result::Err((NFS3ERR_NOTSUPP, _))), "{refused:?}");

    world.restart().await;
    let mut user = world.client_as(10, 10).await;
    let link = user.lookup("link").await.unwrap();
    assert_eq!((link.attr.size, link.attr.mode, link.attr.uid), (9, 0o777, 10));
    let target = soon(user.raw().readlink(&READLINK3args { symlink: link.handle })).await.unwrap();
    assert_eq!(target.unwrap().data.0.as_ref(), b"../target");
    assert!(matches!(user.lookup("fifo").await.unwrap().attr.type_, ftype3::NF3FIFO));
    let tty = user.lookup("tty").await.unwrap().attr;
    assert_eq!((tty.rdev.specdata1, tty.rdev.specdata2), (4, 7));
}

async fn symlink(client: &mut Client, dir: &nfs_fh3, name: &[u8], target: &[u8]) -> Result<(), nfsstat3> {
    let where_ = diropargs3 { dir: dir.clone(), name: filename3(Opaque::borrowed(name)) };
    let symlink =
        symlinkdata3 { symlink_attributes: no_attributes(), symlink_data: nfspath3(Opaque::borrowed(target)) };
    match soon(client.raw().symlink(&SYMLINK3args { where_, symlink })).await.unwrap() {
        Nfs3Result::Ok(_) => Ok(()),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

async fn mknod(client: &mut Client, dir: &nfs_fh3, name: &[u8], what: mknoddata3) -> Result<(), nfsstat3> {
    let where_ = diropargs3 { dir: dir.clone(), name: filename3(Opaque::borrowed(name)) };
    match soon(client.raw().mknod(&MKNOD3args { where_, what })).await.unwrap() {
        Nfs3Result::Ok(_) => Ok(()),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_of_a_file_being_written_are_those_set_last() {
    let world = World::new().await;
    let mut client = world.client().await;
    let root = client.root();
    let file = client.create_in(&root, b"file", createhow3::GUARDED(mode(0o600))).await.unwrap().handle;
    client.write_at(&file, 0, b"bytes", stable_how::UNSTABLE).await.unwrap();
    client.setattr(&file, mtime(1_000_000)).await.unwrap();
    let attr = client.getattr(&file).await.unwrap();
    assert_eq!((attr.size, attr.mtime.seconds), (5, 1_000_000));
    client.commit(&file).await.unwrap();
    assert_eq!(client.getattr(&file).await.unwrap().mtime.seconds, 1_000_000);

    let args =
        |ctime| SETATTR3args { object: file.clone(), new_attributes: mode(0o644), guard: sattrguard3::Some(ctime) };
    let ctime = client.getattr(&file).await.unwrap().ctime;
    let wrong = nfstime3 { seconds: 1, nseconds: 0 };
    let refused = soon(client.raw().setattr(&args(wrong))).await.unwrap();
    assert!(matches!(refused, Nfs3Result::Err((NFS3ERR_NOT_SYNC, _))), "{refused:?}");
    let Nfs3Result::Ok(ok) = soon(client.raw().setattr(&args(ctime))).await.unwrap() else { panic!("refused") };
    assert_ne!(ok.obj_wcc.after.unwrap().ctime, ctime);
}

/// Attributes before and after are those of the change: a client keeps what it has cached.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_tells_the_directory_before_and_after() {
    let world = World::new().await;
    let mut client = world.client().await;
    let root = client.root();
    let before = client.getattr(&root).await.unwrap();
    let where_ = diropargs3 { dir: root.clone(), name: filename3(Opaque::borrowed(b"dir")) };
    let made = soon(client.raw().mkdir(&MKDIR3args { where_, attributes: mode(0o755) })).await.unwrap();
    let Nfs3Result::Ok(made) = made else { panic!("{made:?}") };
    assert_eq!(made.dir_wcc.before.unwrap().ctime, before.ctime);
    let after = made.dir_wcc.after.unwrap();
    assert_ne!((after.mtime, after.ctime), (before.mtime, before.ctime));
    let now = client.getattr(&root).await.unwrap();
    assert_eq!((now.mtime, now.ctime), (after.mtime, after.ctime));
}

/// The first WRITE to a clean file gives it a place for bytes: many firsts at once give it one.
#[tokio::test(flavor = "multi_thread")]
async fn writers_of_one_file_lose_none_of_each_others_bytes() {
    const BLOCK: usize = 4096;
    const BLOCKS: usize = 64;
    let world = World::new().await;
    world.put("file", vec![b'-'; BLOCK * (BLOCKS + 1)]);
    let file = world.client().await.lookup("file").await.unwrap().handle;
    world.quiet().await;

    let mut writers = Vec::new();
    for nth in 0..4 {
        let (mut client, file) = (world.client().await, file.clone());
        writers.push(tokio::spawn(async move {
            for block in (nth..BLOCKS).step_by(4) {
                let data = vec![block as u8; BLOCK];
                client.write_at(&file, (block * BLOCK) as u64, &data, stable_how::UNSTABLE).await.unwrap();
                if block % 8 == nth {
                    client.commit(&file).await.unwrap();
                    client.setattr(&file, mode(0o600 + block as u32)).await.unwrap();
                }
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let mut wanted: Vec<u8> = (0..BLOCKS).flat_map(|block| vec![block as u8; BLOCK]).collect();
    wanted.extend([b'-'; BLOCK]);
    assert_eq!(world.client().await.read_handle(&file).await.unwrap(), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_go_on_while_s3_is_down() {
    let mut world = World::new().await;
    world.put("dir/file", "bytes");
    world.put("old", "bytes");
    let mut client = world.client().await;
    let root = client.root();
    client.list("").await.unwrap();
    client.list("dir").await.unwrap();
    world.quiet().await;
    world.s3.faults().set_down(true);
    world.age();

    client.save("dir/new", b"new").await.unwrap();
    let sub = client.mkdir_in(&root, b"sub").await.unwrap().handle;
    client.rename_in((&root, b"old"), (&sub, b"moved")).await.unwrap();
    client.rename_in((&root, b"dir"), (&sub, b"dir")).await.unwrap();
    let dir = client.lookup("sub/dir").await.unwrap().handle;
    client.remove_in(&dir, b"file").await.unwrap();
    client.mkdir_in(&root, b"gone").await.unwrap();
    client.rmdir_in(&root, b"gone").await.unwrap();

    world.restart().await;
    let mut client = world.client().await;
    assert_eq!(client.list("").await.unwrap(), ["sub"]);
    assert_eq!(client.list("sub").await.unwrap(), ["dir", "moved"]);
    assert_eq!(client.list("sub/dir").await.unwrap(), ["new"]);
    assert_eq!(client.read("sub/dir/new").await.unwrap(), b"new");
    world.s3.faults().set_down(false);
    assert_eq!(client.read("sub/moved").await.unwrap(), b"bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_waits_for_s3_where_that_is_asked_for() {
    // D5
    let world = World::with(&["--lazy", "--durability", "s3", "--deadline", "200ms"]).await;
    let mut client = world.client().await;
    let saved = client.save("kept", b"in S3 by now").await.unwrap();
    assert_eq!(world.bucket.get("kept").unwrap().bytes, "in S3 by now");

    world.s3.faults().set_down(true);
    client.write_at(&saved.handle, 0, b"IN", stable_how::UNSTABLE).await.unwrap();
    assert_eq!(client.commit(&saved.handle).await.unwrap_err(), NFS3ERR_JUKEBOX);
    assert_eq!(client.read("kept").await.unwrap(), b"IN S3 by now", "it is safe here");
}

#[tokio::test(flavor = "multi_thread")]
async fn chmod_of_a_file_that_was_only_listed_keeps_its_owner() {
    let world = World::new().await;
    let user =
        [("file-owner", "77"), ("file-group", "88"), ("file-mtime", "5000000000ns"), ("file-permissions", "0644")];
    world.bucket.put("f", b"bytes".to_vec(), &user);
    let mut client = world.client().await;
    let head = world.s3.faults().hold(Kind::Head);
    client.list("").await.unwrap();
    let file = client.lookup("f").await.unwrap().handle;

    let told = async {
        head.arrived().await;
        head.release();
    };
    let (set, ()) = soon(async { tokio::join!(client.setattr(&file, mode(0o600)), told) }).await;

    set.unwrap();
    world.sync().await;
    let user = world.bucket.get("f").unwrap().user;
    assert_eq!((user["file-permissions"].as_str(), user["file-owner"].as_str()), ("0100600", "77"));
    assert_eq!((user["file-group"].as_str(), user["file-mtime"].as_str()), ("88", "5000000000ns"));
}
