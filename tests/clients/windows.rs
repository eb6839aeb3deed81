//! Windows: Client for NFS, of Pro and Server.

use nfs3_client::nfs3_types::mount::{dirpath, exports, mountres3, mountstat3};
use nfs3_client::nfs3_types::portmap::mapping;
use nfs3_client::nfs3_types::xdr_codec::{Pack, Unpack, Void};

use super::*;
use crate::support::changes::no_attributes;
use crate::support::wire::{MOUNT, NFS, PORTMAP, Wire, pack, result};

const MNT: u32 = 1;
const UMNT: u32 = 3;
const EXPORT: u32 = 5;
const CREATE: u32 = 8;
const MKDIR: u32 = 9;
const SYMLINK: u32 = 10;
const REMOVE: u32 = 12;
const RMDIR: u32 = 13;
const RENAME: u32 = 14;

/// What Windows says of a user it knows no number for.
const ANONYMOUS: u32 = -2_i32 as u32;

/// The handle of a directory that is mounted, or the status.
async fn mnt(wire: &mut Wire, path: &[u8]) -> Result<Vec<u8>, u32> {
    match result(&wire.call(1, MOUNT, MNT, &dirpath(Opaque::borrowed(path))).await) {
        mountres3::Ok(ok) => Ok(ok.fhandle.0.to_vec()),
        mountres3::Err(status) => Err(status as u32),
    }
}

/// "mount.exe has no port option: portmap on 111 over TCP and UDP; an export with a *name*". The path it sends is the
/// one that was typed behind the host's name, its backslashes turned; other servers cut backslashes off its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_named_export_is_mounted_however_it_is_spelled() {
    let world = World::with(&["--lazy", "--export", "bucket"]).await;
    world.put("dir/file", "bytes");
    let addr = world.server().nfs_addr();
    let mut wire = Wire::new(addr).await;
    for program in [MOUNT, NFS] {
        let wanted = mapping { prog: program.0, vers: program.1, prot: 6, port: 0 };
        let port: u32 = result(&wire.call(1, PORTMAP, 3, &wanted).await);
        assert_eq!(port, u32::from(addr.port()));
        result::<Void>(&wire.call(2, program, 0, &Void).await);
    }
    let listed: exports<'_, '_> = result(&wire.call(3, MOUNT, EXPORT, &Void).await);
    let listed: Vec<_> = listed.into_inner().into_iter().map(|export| export.ex_dir.0.to_vec()).collect();
    assert_eq!(listed, [&b"/"[..], b"/bucket"]);

    let root = mnt(&mut wire, b"/").await.unwrap();
    for path in [&b"/bucket"[..], b"bucket", b"/bucket/", b"\\bucket", b"\\bucket\\", b"/bucket\\", b"\\", b""] {
        assert_eq!(mnt(&mut wire, path).await, Ok(root.clone()), "{}", String::from_utf8_lossy(path));
    }
    let dir = mnt(&mut wire, b"/bucket/dir").await.unwrap();
    assert_ne!(dir, root);
    assert_eq!(mnt(&mut wire, b"\\bucket\\dir").await, Ok(dir));
    assert_eq!(mnt(&mut wire, b"\\nothing").await, Err(mountstat3::MNT3ERR_NOENT as u32));
    result::<Void>(&wire.call(4, MOUNT, UMNT, &dirpath(Opaque::borrowed(b"/bucket"))).await);
}

/// A name may hold a backslash all the same: S3 and Unix have them.
#[tokio::test(flavor = "multi_thread")]
async fn a_backslash_within_a_path_is_part_of_a_name() {
    let world = World::new().await;
    world.put("a\\b/file", "bytes");
    let mut wire = Wire::new(world.server().nfs_addr()).await;
    assert!(mnt(&mut wire, b"/a\\b").await.is_ok());
    assert!(mnt(&mut wire, b"/a/b").await.is_err());
}

/// "tries READDIR before READDIRPLUS", so a cookie of one may come back in the other.
#[tokio::test(flavor = "multi_thread")]
async fn readdir_goes_before_readdirplus() {
    let world = World::new().await;
    let mut wanted: Vec<Vec<u8>> = (0..500).map(|i| format!("file {i:03} with a long name").into_bytes()).collect();
    wanted.iter().for_each(|name| world.put(std::str::from_utf8(name).unwrap(), b""));
    let mut client = world.client().await;
    let root = client.root();
    assert_eq!(readdir(&mut client, &root, 4096).await, wanted, "of a directory never listed");
    assert_eq!(readdir(&mut client, &root, 512).await, wanted, "again, in small replies");

    let first = READDIR3args { dir: root.clone(), cookie: 0, cookieverf: cookieverf3::default(), count: 4096 };
    let first = soon(client.raw().readdir(&first)).await.unwrap().unwrap();
    let entries = first.reply.entries.into_inner();
    let rest = READDIRPLUS3args {
        dir: root.clone(),
        cookie: entries.last().unwrap().cookie,
        cookieverf: first.cookieverf,
        dircount: 64 << 10,
        maxcount: 1 << 20,
    };
    let rest = soon(client.raw().readdirplus(&rest)).await.unwrap().unwrap().reply;
    assert!(rest.eof);
    let names = entries.iter().map(|entry| &entry.name);
    let mut seen: Vec<_> = rest.entries.0.iter().map(|entry| &entry.name).chain(names).map(|n| n.0.to_vec()).collect();
    seen.retain(|name| name != b"." && name != b"..");
    seen.sort();
    wanted.sort();
    assert_eq!(seen, wanted);
}

/// "anonymous uid from the registry, so squash or map": without an entry it is -2.
#[tokio::test(flavor = "multi_thread")]
async fn an_anonymous_user_is_somebody_and_can_be_squashed() {
    let mut world = shared_world(&[]).await;
    let mut client = world.client_as(ANONYMOUS, ANONYMOUS).await;
    let root = client.root();
    let made = client.save_in(&root, b"new", b"bytes").await.unwrap();
    assert_eq!((made.attr.uid, made.attr.gid), (ANONYMOUS, ANONYMOUS));
    world.put("private", "");
    world.bucket.put("private", &b"secret"[..], &[("file-permissions", "0100600"), ("file-owner", "1000")]);
    assert_eq!(client.read("private").await.unwrap_err(), nfsstat3::NFS3ERR_ACCES);
    // the number comes back from the metadata in S3
    world.sync().await;
    world.cache = tempfile::tempdir().unwrap();
    world.restart().await;
    let found = world.client_as(ANONYMOUS, ANONYMOUS).await.lookup("new").await.unwrap();
    assert_eq!((found.attr.uid, found.attr.gid), (ANONYMOUS, ANONYMOUS));

    let world = shared_world(&["--allow", "127.0.0.1=squash-all", "--anon-uid", "1000", "--anon-gid", "100"]).await;
    let mut client = world.client_as(ANONYMOUS, ANONYMOUS).await;
    let root = client.root();
    let made = client.save_in(&root, b"new", b"bytes").await.unwrap();
    assert_eq!((made.attr.uid, made.attr.gid), (1000, 100));
    world.bucket.put("private", &b"secret"[..], &[("file-permissions", "0100600"), ("file-owner", "1000")]);
    assert_eq!(client.read("private").await.unwrap(), b"secret");
}

/// "names not always UTF-8": they are bytes of the code page. In S3, whose keys are UTF-8, such a byte is escaped (N1).
#[tokio::test(flavor = "multi_thread")]
async fn names_in_a_code_page_are_kept_to_the_byte() {
    // "café" and "ÿ" in 1252; "日本" and "ソフト", whose first character ends in a backslash's byte, in 932
    let cases: [(&[u8], &str); 4] = [
        (b"caf\xe9.txt", "caf‛xE9.txt"),
        (b"\xff", "‛xFF"),
        (b"\x93\xfa\x96{", "‛x93‛xFA‛x96{"),
        (b"\x83\\\x83t\x83g", "‛x83\\‛x83t‛x83g"),
    ];
    let mut world = shared_world(&[]).await;
    let mut client = world.client().await;
    let root = client.root();
    for (name, _) in cases {
        client.save_in(&root, name, name).await.unwrap();
    }
    world.sync().await;
    for (name, key) in cases {
        assert_eq!(world.bucket.get(key).unwrap().bytes, name, "{key}");
    }
    let mut wanted: Vec<_> = cases.iter().map(|(name, _)| name.to_vec()).collect();
    wanted.sort();
    assert_eq!(readdir(&mut client, &root, 8192).await, wanted);

    // another server of the bucket sees the same names
    world.cache = tempfile::tempdir().unwrap();
    world.restart().await;
    let mut client = world.client().await;
    let root = client.root();
    assert_eq!(readdir(&mut client, &root, 8192).await, wanted);
    for (name, _) in cases {
        let found = client.lookup_in(&root, name).await.unwrap();
        assert_eq!(client.read_handle(&found.handle).await.unwrap(), name);
    }
    client.rename_in((&root, b"caf\xe9.txt"), (&root, b"th\xe9.txt")).await.unwrap();
    client.remove_in(&root, b"\xff").await.unwrap();
    world.sync().await;
    assert!(world.bucket.get("th‛xE9.txt").is_some());
    assert!(world.bucket.get("caf‛xE9.txt").is_none() && world.bucket.get("‛xFF").is_none());
}

/// A change, sent again.
struct Again {
    procedure: u32,
    args: Vec<u8>,
}

/// XDR that is packed already.
struct Packed<'a>(&'a [u8]);

impl Pack for Packed<'_> {
    fn packed_size(&self) -> usize {
        self.0.len()
    }

    fn pack(&self, out: &mut impl std::io::Write) -> nfs3_client::nfs3_types::xdr_codec::Result<usize> {
        out.write_all(self.0)?;
        Ok(self.0.len())
    }
}

/// "retransmits over TCP when answers are slow, so a real reply cache is needed": on the same connection, and on a new
/// one after it gave the old one up. The second answer is the first to the byte, and nothing happens twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_gets_the_same_answer_and_is_not_done_again() {
    let world = World::new().await;
    let mut client = world.client().await;
    let root = client.root();
    client.mkdir_in(&root, b"empty").await.unwrap();
    for name in [&b"doomed"[..], b"old"] {
        client.save_in(&root, name, b"bytes").await.unwrap();
    }
    let link = symlinkdata3 { symlink_attributes: no_attributes(), symlink_data: nfspath3(Opaque::borrowed(b"old")) };
    let changes = [
        (CREATE, pack(&CREATE3args { where_: place(&root, b"new"), how: createhow3::GUARDED(no_attributes()) })),
        (MKDIR, pack(&MKDIR3args { where_: place(&root, b"dir"), attributes: no_attributes() })),
        (SYMLINK, pack(&SYMLINK3args { where_: place(&root, b"link"), symlink: link })),
        (REMOVE, pack(&REMOVE3args { object: place(&root, b"doomed") })),
        (RENAME, pack(&RENAME3args { from: place(&root, b"old"), to: place(&root, b"renamed") })),
        (RMDIR, pack(&RMDIR3args { object: place(&root, b"empty") })),
    ]
    .map(|(procedure, args)| Again { procedure, args });

    let addr = world.server().nfs_addr();
    let mut first = Wire::new(addr).await;
    let mut answers = Vec::new();
    for (xid, change) in (100..).zip(&changes) {
        let answer = first.call(xid, NFS, change.procedure, &Packed(&change.args)).await;
        assert_eq!(status(&answer), 0, "procedure {}", change.procedure);
        let again = first.call(xid, NFS, change.procedure, &Packed(&change.args)).await;
        assert_eq!(again, answer, "procedure {}", change.procedure);
        answers.push(answer);
    }
    drop(first);
    // somebody takes the names that became free: what is sent again must not touch them
    for name in [&b"doomed"[..], b"old"] {
        client.save_in(&root, name, b"somebody else's").await.unwrap();
    }
    client.mkdir_in(&root, b"empty").await.unwrap();
    let mut second = Wire::new(addr).await;
    for ((xid, change), answer) in (100..).zip(&changes).zip(&answers) {
        let again = second.call(xid, NFS, change.procedure, &Packed(&change.args)).await;
        assert_eq!(&again, answer, "procedure {}", change.procedure);
    }
    for name in ["doomed", "old"] {
        assert_eq!(client.read(name).await.unwrap(), b"somebody else's");
    }
    assert_eq!(client.read("renamed").await.unwrap(), b"bytes");
    client.lookup("empty").await.unwrap();
    // under another xid it is another call
    let create = second.call(200, NFS, CREATE, &Packed(&changes[0].args)).await;
    assert_eq!(status(&create), nfsstat3::NFS3ERR_EXIST as u32);
}

/// The status of an answer of NFS.
fn status(answer: &[u8]) -> u32 {
    u32::unpack(&mut &answer[24..]).unwrap().0
}

/// "refuse at MNT, or it hammers": and when it does, it costs nothing but the answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_client_may_hammer() {
    let world = World::with(&["--lazy", "--secure-ports"]).await;
    world.s3.requests().reset();
    let mut wire = Wire::new(world.server().nfs_addr()).await;
    for xid in 0..2000 {
        wire.send(xid, MOUNT, MNT, &dirpath(Opaque::borrowed(b"/bucket"))).await;
    }
    for _ in 0..2000 {
        let refused: mountres3<'_> = result(&wire.receive().await.expect("an answer to each"));
        assert!(matches!(refused, mountres3::Err(mountstat3::MNT3ERR_ACCES)));
    }
    assert_eq!(world.s3.requests().total(), 0, "S3 is not asked for it");
}

/// "may use unprivileged source ports": the default takes them.
#[tokio::test(flavor = "multi_thread")]
async fn any_source_port_will_do() {
    let world = World::new().await;
    let mut wire = Wire::new(world.server().nfs_addr()).await;
    assert!(mnt(&mut wire, b"/").await.is_ok());
}
