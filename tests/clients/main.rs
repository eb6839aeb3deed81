//! What the clients of Windows and macOS do on the wire, replayed: each test quotes what is known of the client.
//! None of it was recorded from such a machine. Linux's own client is in `tests/kernel`, who is let in in `tests/access`.

#![allow(clippy::unwrap_used)]

mod macos;
mod names;
#[path = "../support/mod.rs"]
mod support;
mod windows;

use nfs3_client::nfs3_types::nfs3::*;
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use support::{Client, World, soon};

/// All names of a directory with READDIR, `.` and `..` left out, in replies of about `count` bytes.
async fn readdir(client: &mut Client, dir: &nfs_fh3, count: u32) -> Vec<Vec<u8>> {
    let (mut names, mut cookie, mut cookieverf) = (Vec::new(), 0, cookieverf3::default());
    loop {
        let args = READDIR3args { dir: dir.clone(), cookie, cookieverf, count };
        let page = soon(client.raw().readdir(&args)).await.unwrap().unwrap();
        cookieverf = page.cookieverf;
        for entry in page.reply.entries.into_inner() {
            cookie = entry.cookie;
            names.push(entry.name.0.to_vec());
        }
        if page.reply.eof {
            names.retain(|name| name != b"." && name != b"..");
            names.sort();
            return names;
        }
    }
}

fn place<'a>(dir: &nfs_fh3, name: &'a [u8]) -> diropargs3<'a> {
    diropargs3 { dir: dir.clone(), name: filename3(Opaque::borrowed(name)) }
}

/// A world whose bucket everybody may write to.
async fn shared_world(flags: &[&str]) -> World {
    World::with(&[&["--lazy", "--dir-mode", "777"], flags].concat()).await
}
