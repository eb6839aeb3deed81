//! Who may come in, from several addresses of this machine, as an independent client and the wire see it.

// other systems have but one loopback address, unless told otherwise
#![cfg(any(target_os = "linux", target_os = "windows"))]
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::process::Command;

use nfs3_client::nfs3_types::mount::{dirpath, mountres3, mountstat3};
use nfs3_client::nfs3_types::nfs3::nfsstat3::*;
use nfs3_client::nfs3_types::nfs3::*;
use nfs3_client::nfs3_types::portmap::mapping;
use nfs3_client::nfs3_types::xdr_codec::{Opaque, Void};
use support::changes::no_attributes;
use support::wire::{Bound, MOUNT, NFS, PORTMAP, TOO_WEAK, Wire, refusal, result};
use support::{Client, World, soon};

const MNT: u32 = 1;
/// All that ACCESS can grant.
const ALL_ACCESS: u32 = 0x3f;
const CHANGING_ACCESS: u32 = 0x04 | 0x08 | 0x10;

fn root_path() -> dirpath<'static> {
    dirpath(Opaque::borrowed(b"/"))
}

/// An IPv4 address of the server, whatever it listens on.
fn v4(world: &World) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], world.server().nfs_addr().port()))
}

/// What an independent client from this address may: mount, at least.
async fn client_from(world: &World, ip: &str) -> Client {
    Client::try_connect_from(Bound(ip.parse().unwrap()), v4(world), false).await.unwrap()
}

async fn granted(client: &mut Client, object: &nfs_fh3) -> u32 {
    let args = ACCESS3args { object: object.clone(), access: ALL_ACCESS };
    soon(client.raw().access(&args)).await.unwrap().unwrap().access
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_a_rule_is_refused_at_mnt_and_at_every_call() {
    let world = World::with(&["--lazy", "--allow", "127.0.0.1"]).await;
    world.put("secret", "bytes");
    let mut friend = world.client().await;
    let object = friend.root();

    let mut stranger = Wire::from("127.0.0.2", v4(&world)).await;
    let refused: mountres3<'_> = result(&stranger.call(1, MOUNT, MNT, &root_path()).await);
    assert!(matches!(refused, mountres3::Err(mountstat3::MNT3ERR_ACCES)), "{refused:?}");
    // DUMP, UMNT, UMNTALL, EXPORT
    for procedure in 2..=5 {
        let reply = stranger.call(2, MOUNT, procedure, &root_path()).await;
        assert_eq!(refusal(&reply), TOO_WEAK, "MOUNT {procedure}");
    }
    // it may well know a handle
    for procedure in 1..=21 {
        let reply = stranger.call(3, NFS, procedure, &GETATTR3args { object: object.clone() }).await;
        assert_eq!(refusal(&reply), TOO_WEAK, "NFS {procedure}");
    }
    let nfs = mapping { prog: 100_003, vers: 3, prot: 6, port: 0 };
    assert_eq!(refusal(&stranger.call(4, PORTMAP, 3, &nfs).await), TOO_WEAK);
    for program in [NFS, MOUNT, PORTMAP] {
        assert_eq!(refusal(&stranger.call(5, program, 0, &Void).await), [0; 4], "a ping is answered");
    }
    assert_eq!(friend.read("secret").await.unwrap(), b"bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machine_is_let_in_without_a_rule() {
    let world = World::new().await;
    world.put("file", "bytes");
    for ip in ["127.0.0.1", "127.9.8.7"] {
        assert_eq!(client_from(&world, ip).await.read("file").await.unwrap(), b"bytes", "{ip}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_says_ro_refuses_every_change_and_grants_none() {
    let world = World::with(&["--lazy", "--allow", "127.0.0.0/8=ro,127.0.0.3,127.0.0.4=rw"]).await;
    world.put("file", "bytes");
    let mut reader = client_from(&world, "127.0.0.2").await;
    let root = reader.root();
    let file = reader.lookup("file").await.unwrap().handle;

    let how = || createhow3::UNCHECKED(no_attributes());
    assert_eq!(reader.create_in(&root, b"new", how()).await.unwrap_err(), NFS3ERR_ROFS);
    let exclusive = createhow3::EXCLUSIVE(createverf3([7; 8]));
    assert_eq!(reader.create_in(&root, b"new", exclusive).await.unwrap_err(), NFS3ERR_ROFS);
    assert_eq!(reader.mkdir_in(&root, b"new").await.unwrap_err(), NFS3ERR_ROFS);
    assert_eq!(reader.symlink_in(&root, b"new", b"file").await.unwrap_err(), NFS3ERR_ROFS);
    let pipe = mknoddata3::NF3FIFO(no_attributes());
    let mknod = MKNOD3args { where_: diropargs3 { dir: root.clone(), name: b"new".as_slice().into() }, what: pipe };
    assert!(matches!(soon(reader.raw().mknod(&mknod)).await.unwrap(), Nfs3Result::Err((NFS3ERR_ROFS, _))));
    let link = LINK3args { file: file.clone(), link: diropargs3 { dir: root.clone(), name: b"new".as_slice().into() } };
    assert!(matches!(soon(reader.raw().link(&link)).await.unwrap(), Nfs3Result::Err((NFS3ERR_ROFS, _))));
    assert_eq!(reader.remove_in(&root, b"file").await, Err(NFS3ERR_ROFS));
    assert_eq!(reader.rmdir_in(&root, b"file").await, Err(NFS3ERR_ROFS));
    assert_eq!(reader.rename_in((&root, b"file"), (&root, b"x")).await, Err(NFS3ERR_ROFS));
    assert_eq!(reader.setattr(&file, no_attributes()).await, Err(NFS3ERR_ROFS));
    let written = reader.write_at(&file, 0, b"x", stable_how::FILE_SYNC).await;
    assert_eq!(written.unwrap_err(), NFS3ERR_ROFS);
    for object in [&root, &file] {
        assert_eq!(granted(&mut reader, object).await & CHANGING_ACCESS, 0);
    }
    assert_eq!(reader.read("file").await.unwrap(), b"bytes");

    // a longer prefix decides otherwise, for the same bucket at the same time
    for (ip, name) in [("127.0.0.3", "by-3"), ("127.0.0.4", "by-4")] {
        let mut writer = client_from(&world, ip).await;
        assert_eq!(granted(&mut writer, &root).await & CHANGING_ACCESS, CHANGING_ACCESS, "{ip}");
        writer.save(name, b"new").await.unwrap();
        assert_eq!(reader.read(name).await.unwrap(), b"new");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_holds_for_rules_that_say_rw() {
    let world = World::with(&["--lazy", "--read-only", "--allow", "127.0.0.1=rw"]).await;
    assert_eq!(world.client().await.save("new", b"").await.unwrap_err(), NFS3ERR_ROFS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_squashes_in_the_place_of_the_flag() {
    let rules = "127.0.0.1,127.0.0.2=squash-none,127.0.0.3=squash-all";
    let ids = ["--squash", "root", "--anon-uid", "77", "--anon-gid", "78", "--dir-mode", "777"];
    let world = World::with(&[&["--lazy", "--allow", rules], &ids[..]].concat()).await;
    for (ip, uid, owner) in [
        ("127.0.0.1", 0, (77, 78)),
        ("127.0.0.1", 5, (5, 5)),
        ("127.0.0.2", 0, (0, 0)),
        ("127.0.0.2", 5, (5, 5)),
        ("127.0.0.3", 0, (77, 78)),
        ("127.0.0.3", 5, (77, 78)),
    ] {
        let mut client = Client::try_connect_as(Bound(ip.parse().unwrap()), v4(&world), (uid, uid)).await.unwrap();
        let root = client.root();
        let name = format!("{ip}-{uid}");
        let how = createhow3::GUARDED(no_attributes());
        let made = client.create_in(&root, name.as_bytes(), how).await.unwrap().attr;
        assert_eq!((made.uid, made.gid), owner, "{name}");
    }
}

/// Windows "may use unprivileged source ports", so they are taken unless `--secure-ports` says otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn secure_ports_are_asked_for_only_on_demand() {
    let world = World::with(&["--lazy", "--secure-ports"]).await;
    let mut client = Wire::new(v4(&world)).await;
    let refused: mountres3<'_> = result(&client.call(1, MOUNT, MNT, &root_path()).await);
    assert!(matches!(refused, mountres3::Err(mountstat3::MNT3ERR_ACCES)));
    match Client::try_connect_from(Bound([127, 0, 0, 1].into()), v4(&world), true).await {
        Ok(mut client) => assert_eq!(client.list("/").await.unwrap(), [""; 0]),
        Err(error) => assert!(!is_superuser(), "only the superuser has such ports: {error}"),
    }
}

fn is_superuser() -> bool {
    #[cfg(unix)]
    return rustix::process::geteuid().is_root();
    #[cfg(not(unix))]
    return true;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv4_clients_of_a_dual_stack_listener_go_by_the_rules_for_ipv4() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let rules = "127.0.0.2=ro,::ffff:127.0.0.3";
    let world = World::with(&["--lazy", "--listen", "[::]:0", "--allow", rules]).await;
    let port = world.server().nfs_addr().port();
    assert_eq!(client_from(&world, "127.0.0.2").await.save("new", b"").await.unwrap_err(), NFS3ERR_ROFS);
    client_from(&world, "127.0.0.3").await.save("new", b"").await.unwrap();
    for (ip, to) in [("127.0.0.1", v4(&world)), ("::1", format!("[::1]:{port}").parse().unwrap())] {
        let refused: mountres3<'_> = result(&Wire::from(ip, to).await.call(1, MOUNT, MNT, &root_path()).await);
        assert!(matches!(refused, mountres3::Err(mountstat3::MNT3ERR_ACCES)), "{ip}");
    }
}

#[test]
fn a_listener_that_others_can_reach_does_not_start_without_a_rule() {
    let cache = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fasts3"));
    command.args(["serve", "s3://bucket", "--listen", "0.0.0.0:0", "--cache"]).arg(cache.path().join("new"));
    let said = command.env_remove("FASTS3_ALLOW").output().unwrap();
    let error = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(2), "{error}");
    assert!(error.contains("--allow 192.168.1.0/24") && error.lines().count() == 1, "{error}");
    assert!(!cache.path().join("new").exists(), "nothing was begun");
}
