//! The NFS client of the demo: the independent `nfs3_client` crate, which knows nothing of our server. It
//! keeps nothing: every call of it is a call of the server.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nfs3_client::nfs3_types::nfs3::*;
use nfs3_client::nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use nfs3_client::tokio::{TokioConnector, TokioIo};
use nfs3_client::{Nfs3Connection, Nfs3ConnectionBuilder};
use tokio::net::TcpStream;

/// What Linux asks for at a time, if the server has no other wish.
const READ_BYTES: u32 = 256 << 10;
const LIST_BYTES: u32 = 64 << 10;
/// Pause after NFS3ERR_JUKEBOX, "not yet, ask again".
const NOT_YET: Duration = Duration::from_millis(50);

pub(super) struct Walker {
    connection: Nfs3Connection<TokioIo<TcpStream>>,
}

impl Walker {
    pub(super) async fn mount(server: SocketAddr) -> anyhow::Result<Walker> {
        let root = auth_unix { stamp: 0, machinename: Opaque::borrowed(b"demo"), uid: 0, gid: 0, gids: vec![] };
        let mount = Nfs3ConnectionBuilder::new(TokioConnector, server.ip().to_string(), "/")
            .credential(opaque_auth::auth_unix(&root))
            .connect_from_privileged_port(false)
            .mount_port(server.port())
            .nfs3_port(server.port())
            .mount();
        Ok(Walker { connection: mount.await.context("the NFS client of the demo cannot mount")? })
    }

    /// The whole file.
    pub(super) async fn read(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        self.read_first(path, u64::MAX).await
    }

    /// The bytes of all these files together, one after another.
    pub(super) async fn read_all(&mut self, paths: &[String]) -> anyhow::Result<usize> {
        let mut bytes = 0;
        for path in paths {
            bytes += self.read(path).await?.len();
        }
        Ok(bytes)
    }

    /// The first bytes of a file, or all of a shorter one.
    pub(super) async fn read_first(&mut self, path: &str, limit: u64) -> anyhow::Result<Vec<u8>> {
        let file = self.lookup(path).await?;
        let mut all = Vec::new();
        while (all.len() as u64) < limit {
            let count = u32::try_from(limit - all.len() as u64).unwrap_or(READ_BYTES).min(READ_BYTES);
            let (bytes, eof) = self.read_at(&file, all.len() as u64, count).await?;
            all.extend_from_slice(&bytes);
            if eof {
                break;
            }
        }
        Ok(all)
    }

    /// Reads the whole file and keeps nothing of it; its length.
    pub(super) async fn drain(&mut self, path: &str) -> anyhow::Result<u64> {
        let file = self.lookup(path).await?;
        let mut offset = 0;
        loop {
            let (bytes, eof) = self.read_at(&file, offset, READ_BYTES).await?;
            offset += bytes.len() as u64;
            if eof {
                return Ok(offset);
            }
        }
    }

    /// How many names a directory has, `.` and `..` not among them.
    pub(super) async fn list(&mut self, path: &str) -> anyhow::Result<usize> {
        let dir = self.lookup(path).await?;
        let (mut names, mut cookie, mut cookieverf) = (0, 0, cookieverf3::default());
        loop {
            let args =
                READDIRPLUS3args { dir: dir.clone(), cookie, cookieverf, dircount: LIST_BYTES, maxcount: LIST_BYTES };
            let page = match self.connection.readdirplus(&args).await? {
                Nfs3Result::Ok(page) => page,
                Nfs3Result::Err((status, _)) => {
                    not_yet(status, "READDIRPLUS").await?;
                    continue;
                }
            };
            cookieverf = page.cookieverf;
            for entry in page.reply.entries.into_inner() {
                cookie = entry.cookie;
                names += usize::from(!matches!(entry.name.as_ref(), b"." | b".."));
            }
            if page.reply.eof {
                return Ok(names);
            }
        }
    }

    /// Makes a file in the root and writes it, on disk when this returns: as an editor's save does.
    pub(super) async fn save(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let how = createhow3::EXCLUSIVE(createverf3(*b"the demo"));
        let args = CREATE3args { where_: self.place(name), how };
        let file = done(self.connection.create(&args).await?, "CREATE")?.obj.unwrap();
        let (count, stable, data) = (u32::try_from(bytes.len())?, stable_how::UNSTABLE, Opaque::borrowed(bytes));
        let written = self.connection.write(&WRITE3args { file: file.clone(), offset: 0, count, stable, data }).await?;
        ensure!(done(written, "WRITE")?.count == count, "WRITE: not all was taken");
        done(self.connection.commit(&COMMIT3args { file, offset: 0, count: 0 }).await?, "COMMIT").map(drop)
    }

    /// Renames what is in the root.
    pub(super) async fn rename(&mut self, from: &str, to: &str) -> anyhow::Result<()> {
        let args = RENAME3args { from: self.place(from), to: self.place(to) };
        done(self.connection.rename(&args).await?, "RENAME").map(drop)
    }

    fn place<'a>(&self, name: &'a str) -> diropargs3<'a> {
        diropargs3 { dir: self.connection.root_nfs_fh3(), name: filename3(Opaque::borrowed(name.as_bytes())) }
    }

    async fn lookup(&mut self, path: &str) -> anyhow::Result<nfs_fh3> {
        let mut at = self.connection.root_nfs_fh3();
        for name in path.split('/') {
            let what = diropargs3 { dir: at.clone(), name: filename3(Opaque::borrowed(name.as_bytes())) };
            let args = LOOKUP3args { what };
            at = loop {
                match self.connection.lookup(&args).await? {
                    Nfs3Result::Ok(found) => break found.object,
                    Nfs3Result::Err((status, _)) => not_yet(status, path).await?,
                }
            };
        }
        Ok(at)
    }

    async fn read_at(&mut self, file: &nfs_fh3, offset: u64, count: u32) -> anyhow::Result<(Vec<u8>, bool)> {
        let args = READ3args { file: file.clone(), offset, count };
        loop {
            match self.connection.read(&args).await? {
                Nfs3Result::Ok(read) => return Ok((read.data.0.into_owned(), read.eof)),
                Nfs3Result::Err((status, _)) => not_yet(status, "READ").await?,
            }
        }
    }
}

fn done<T, E>(result: Nfs3Result<T, E>, what: &str) -> anyhow::Result<T> {
    match result {
        Nfs3Result::Ok(ok) => Ok(ok),
        Nfs3Result::Err((status, _)) => bail!("{what}: the server answers {status:?}"),
    }
}

async fn not_yet(status: nfsstat3, what: &str) -> anyhow::Result<()> {
    if !matches!(status, nfsstat3::NFS3ERR_JUKEBOX) {
        bail!("{what}: the server answers {status:?}");
    }
    tokio::time::sleep(NOT_YET).await;
    Ok(())
}
