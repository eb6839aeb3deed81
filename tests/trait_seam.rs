//! nfsserve's own listener serves our file system: its trait is a real seam, and others can embed `Fs`.

#![allow(clippy::unwrap_used)]

mod support;

use nfs3_client::nfs3_types::nfs3::nfsstat3::*;
use nfs3_client::nfs3_types::nfs3::{GETATTR3args, Nfs3Result, createhow3, ftype3, stable_how};
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use nfsserve::tcp::{NFSTcp, NFSTcpListener};
use support::changes::no_attributes;
use support::{Client, World};

/// The crate's listener over the file system of `world`, and a client of it.
async fn embedded(world: &World) -> Client {
    let listener = NFSTcpListener::bind("127.0.0.1:0", world.server().fs().clone()).await.unwrap();
    let port = listener.get_listen_port();
    tokio::spawn(async move { listener.handle_forever().await });
    Client::connect(port, "/", 0, 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_crates_listener_serves_a_tree() {
    let world = World::new().await;
    let large = vec![7; 3 << 20];
    world.bucket.put("index.html", "<h1>hello</h1>", &[]);
    world.bucket.put("images/large.png", large.clone(), &[]);
    world.bucket.put("images/small.png", "png", &[]);
    let mut client = embedded(&world).await;

    assert_eq!(client.list("").await.unwrap(), ["images", "index.html"]);
    assert_eq!(client.list("images").await.unwrap(), ["large.png", "small.png"]);
    assert_eq!(client.read("index.html").await.unwrap(), b"<h1>hello</h1>");
    assert_eq!(client.read("images/large.png").await.unwrap(), large);
    let dir = client.lookup("images").await.unwrap();
    assert!(matches!(dir.attr.type_, ftype3::NF3DIR));
    assert_eq!(client.lookup("images/none").await.unwrap_err(), NFS3ERR_NOENT);
}

/// Handles are ours on both listeners: one mount may go on where the other began.
#[tokio::test(flavor = "multi_thread")]
async fn both_listeners_know_each_others_handles() {
    let world = World::new().await;
    world.bucket.put("file.txt", "hello", &[]);
    let (mut ours, mut theirs) = (world.client().await, embedded(&world).await);

    let file = ours.lookup("file.txt").await.unwrap();
    assert_eq!(theirs.lookup("file.txt").await.unwrap().handle, file.handle);
    assert_eq!(theirs.read_handle(&file.handle).await.unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_handle_is_refused() {
    let world = World::new().await;
    let mut client = embedded(&world).await;

    let mut forged = client.root().data.0.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let object = nfs3_client::nfs3_types::nfs3::nfs_fh3 { data: Opaque::owned(forged) };
    let refused = client.raw().getattr(&GETATTR3args { object }).await.unwrap();
    assert!(matches!(refused, Nfs3Result::Err((NFS3ERR_BADHANDLE | NFS3ERR_STALE, _))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_crates_listener_changes_a_tree() {
    let mut world = World::new().await;
    world.bucket.put("old", "old", &[]);
    let mut client = embedded(&world).await;
    let root = client.root();

    let dir = client.mkdir_in(&root, b"dir").await.unwrap().handle;
    let file = client.create_in(&dir, b"new", createhow3::UNCHECKED(no_attributes())).await.unwrap().handle;
    client.write_at(&file, 0, b"new bytes", stable_how::FILE_SYNC).await.unwrap();
    client.rename_in((&dir, b"new"), (&root, b"moved")).await.unwrap();
    client.lookup("old").await.unwrap();
    client.remove_in(&root, b"old").await.unwrap();
    client.rmdir_in(&root, b"dir").await.unwrap();
    assert_eq!(client.list("").await.unwrap(), ["moved"]);

    // its WRITE says FILE_SYNC, and means it
    drop(client);
    world.restart().await;
    assert_eq!(world.client().await.read("moved").await.unwrap(), b"new bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_file_system_refuses_changes_there_too() {
    let world = World::with(&["--lazy", "--read-only"]).await;
    let mut client = embedded(&world).await;
    let root = client.root();
    assert_eq!(client.mkdir_in(&root, b"new").await.unwrap_err(), NFS3ERR_ROFS);
}
