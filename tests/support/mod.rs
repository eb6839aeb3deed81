//! What the integration tests share: a world of one bucket in an S3 server of this process, one fasts3
//! server over it with a clock that the test steps, and an independent NFS client.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod changes;
pub mod nats;
pub mod wire;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use fasts3::cli::ServeArgs;
use fasts3::config::Config;
use fasts3::s3server::{Bucket, Options, S3Server};
use fasts3::server::{Server, Surroundings};
use fasts3::store::{Connecting, Timing};
use fasts3::types::Clock;
use nfs3_client::net::Connector;
use nfs3_client::nfs3_types::nfs3::*;
use nfs3_client::nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use nfs3_client::tokio::{TokioConnector, TokioIo};
use nfs3_client::{ConnectError, Nfs3Connection, Nfs3ConnectionBuilder};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::runtime::{Handle, Runtime};

pub const BUCKET: &str = "bucket";
/// `--recheck` of every test server.
pub const RECHECK: Duration = Duration::from_secs(1);
/// Far above anything a healthy run takes: a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Parser)]
struct ServeOnly {
    #[command(flatten)]
    args: ServeArgs,
}

pub struct World {
    pub s3: S3Server,
    pub bucket: Bucket,
    pub cache: TempDir,
    pub clock: Clock,
    /// Port of the clients' portmappers; by itself one where nobody is.
    pub client_portmapper: u16,
    flags: Vec<String>,
    server: Option<Server>,
    /// What the server runs on, if it can be killed.
    runtime: Option<Runtime>,
    /// Where calls are answered, if the server is not to have threads of its own for them.
    pub answers: Option<Handle>,
}

impl World {
    /// A lazy server (no mirror) over an empty bucket.
    pub async fn new() -> World {
        World::with(&["--lazy"]).await
    }

    /// A server with these further flags over an empty bucket.
    pub async fn with(flags: &[&str]) -> World {
        let mut world = World::stopped(flags).await;
        world.start().await;
        world
    }

    /// A lazy server on a runtime of its own, so that it can be killed.
    pub async fn mortal() -> World {
        let mut world = World::stopped(&["--lazy"]).await;
        world.runtime = Some(runtime());
        world.start().await;
        world
    }

    /// The same with these flags, for clients whose portmappers listen there.
    pub async fn mortal_with(flags: &[&str], client_portmapper: u16) -> World {
        let mut world = World::stopped(flags).await;
        world.client_portmapper = client_portmapper;
        world.runtime = Some(runtime());
        world.start().await;
        world
    }

    /// Everything but the server, which `start` starts.
    pub async fn stopped(flags: &[&str]) -> World {
        let clock = Clock::manual();
        let s3 = S3Server::start(Options { clock: clock.clone(), anonymous: true, ..Options::default() }).unwrap();
        let bucket = s3.bucket(BUCKET);
        World {
            s3,
            bucket,
            cache: tempfile::tempdir().unwrap(),
            clock,
            client_portmapper: 1,
            flags: flags.iter().map(|f| f.to_string()).collect(),
            server: None,
            runtime: None,
            answers: None,
        }
    }

    pub fn config(&self) -> Config {
        let flags = self.flags.iter().map(String::as_str);
        config(&self.s3.endpoint(), &self.cache, flags.chain(["--no-sign-request"]))
    }

    pub async fn start(&mut self) {
        let around = Surroundings {
            clock: self.clock.clone(),
            connecting: Connecting { credentials: None, timing: impatient() },
            client_portmapper: self.client_portmapper,
            answers: self.runtime.as_ref().map(Runtime::handle).or(self.answers.as_ref()).cloned(),
        };
        let starting = Server::start_in(self.config(), around);
        self.server = Some(match &self.runtime {
            Some(runtime) => runtime.spawn(starting).await.unwrap().unwrap(),
            None => starting.await.unwrap(),
        });
    }

    /// Ends a mortal server in the middle of whatever it does.
    pub async fn kill(&mut self) {
        let runtime = self.runtime.replace(runtime()).unwrap();
        let server = self.server.take();
        let killed = tokio::task::spawn_blocking(move || {
            runtime.shutdown_timeout(PATIENCE);
            drop(server);
        });
        killed.await.unwrap();
    }

    /// Somebody else writes an object.
    pub fn put(&self, key: &str, bytes: impl AsRef<[u8]>) {
        self.bucket.put(key, bytes.as_ref().to_vec(), &[]);
    }

    pub async fn stop(&mut self) {
        self.server.take().unwrap().stop().await;
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    /// The same with other flags.
    pub async fn restart_with(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|f| f.to_string()).collect();
        self.restart().await;
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// Waits until no check, listing or fetch is queued or under way.
    pub async fn quiet(&self) {
        soon(self.server().revalidator().quiet()).await;
    }

    /// Lets what was checked become due again.
    pub fn age(&self) {
        self.clock.advance(RECHECK);
    }

    /// Waits until S3 has every change made so far.
    pub async fn sync(&self) {
        soon(self.server().writeback().synced(None)).await.unwrap();
    }

    pub async fn client(&self) -> Client {
        self.client_as(0, 0).await
    }

    pub async fn client_as(&self, uid: u32, gid: u32) -> Client {
        Client::connect(self.server().nfs_addr().port(), "/", uid, gid).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A server of the bucket there, with this cache and these further flags.
pub fn config<'a>(endpoint: &'a str, cache: &'a TempDir, flags: impl IntoIterator<Item = &'a str>) -> Config {
    let cache = cache.path().to_str().unwrap();
    let mut args = vec!["serve", "s3://bucket", "--cache", cache, "--endpoint-url", endpoint, "--region", "us-east-1"];
    args.extend(["--admin", "off", "--uid", "0", "--gid", "0"]);
    args.extend(flags);
    // unlike the default, a fixed size leaves room also where the disk is nearly full
    for default in [["--listen", "127.0.0.1:0"], ["--cache-size", "8GiB"], ["--recheck", "1s"]] {
        if !args.contains(&default[0]) {
            args.extend(default);
        }
    }
    Config::try_from(ServeOnly::parse_from(args).args).unwrap()
}

/// A store that gives up at once, because the S3 of a test is down for good or not at all.
fn impatient() -> Timing {
    Timing { attempts: 1, backoff: Duration::from_millis(1), ..Timing::default() }
}

/// Fails instead of waiting for ever.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("this should have happened by now")
}

/// The independent NFS client.
pub struct Client(Nfs3Connection<TokioIo<TcpStream>>);

#[derive(Clone, Debug)]
pub struct Found {
    pub handle: nfs_fh3,
    pub attr: fattr3,
}

impl Client {
    pub async fn connect(port: u16, export: &str, uid: u32, gid: u32) -> Client {
        Client::try_connect(port, export, uid, gid).await.unwrap()
    }

    pub async fn try_connect(port: u16, export: &str, uid: u32, gid: u32) -> Result<Client, ConnectError> {
        Client::mount(TokioConnector, SocketAddr::from(([127, 0, 0, 1], port)), export, (uid, gid), false).await
    }

    /// From another address, perhaps from a port below 1024.
    pub async fn try_connect_from(from: wire::Bound, to: SocketAddr, privileged: bool) -> Result<Client, ConnectError> {
        Client::mount(from, to, "/", (0, 0), privileged).await
    }

    /// From another address, as this user and group.
    pub async fn try_connect_as(from: wire::Bound, to: SocketAddr, ids: (u32, u32)) -> Result<Client, ConnectError> {
        Client::mount(from, to, "/", ids, false).await
    }

    async fn mount(
        connector: impl Connector<Connection = TokioIo<TcpStream>> + 'static,
        to: SocketAddr,
        export: &str,
        (uid, gid): (u32, u32),
        privileged: bool,
    ) -> Result<Client, ConnectError> {
        let auth = auth_unix { stamp: 1, machinename: Opaque::borrowed(b"test"), uid, gid, gids: vec![] };
        let mount = Nfs3ConnectionBuilder::new(connector, to.ip().to_string(), export)
            .mount_port(to.port())
            .nfs3_port(to.port())
            .connect_from_privileged_port(privileged)
            .credential(opaque_auth::auth_unix(&auth))
            .mount();
        Ok(Client(soon(mount).await?))
    }

    /// UMNT: the server forgets the mount, and the client its connections.
    pub async fn unmount(self) {
        soon(self.0.unmount()).await.unwrap();
    }

    pub fn raw(&mut self) -> &mut Nfs3Connection<TokioIo<TcpStream>> {
        &mut self.0
    }

    pub fn root(&self) -> nfs_fh3 {
        self.0.root_nfs_fh3()
    }

    pub async fn lookup_in(&mut self, dir: &nfs_fh3, name: &[u8]) -> Result<Found, nfsstat3> {
        let what = diropargs3 { dir: dir.clone(), name: filename3(Opaque::borrowed(name)) };
        match soon(self.0.lookup(&LOOKUP3args { what })).await.unwrap() {
            Nfs3Result::Ok(ok) => Ok(Found { handle: ok.object, attr: ok.obj_attributes.unwrap() }),
            Nfs3Result::Err((status, _)) => Err(status),
        }
    }

    /// Looks up a path of names separated by `/`, from the root.
    pub async fn lookup(&mut self, path: &str) -> Result<Found, nfsstat3> {
        let root = self.root();
        let mut at = Found { attr: self.getattr(&root).await?, handle: root };
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = self.lookup_in(&at.handle, name.as_bytes()).await?;
        }
        Ok(at)
    }

    pub async fn getattr(&mut self, object: &nfs_fh3) -> Result<fattr3, nfsstat3> {
        match soon(self.0.getattr(&GETATTR3args { object: object.clone() })).await.unwrap() {
            Nfs3Result::Ok(ok) => Ok(ok.obj_attributes),
            Nfs3Result::Err((status, _)) => Err(status),
        }
    }

    /// One READ: the bytes, whether they reach the end, and the attributes that came with them.
    pub async fn read_at(
        &mut self,
        file: &nfs_fh3,
        offset: u64,
        count: u32,
    ) -> Result<(Vec<u8>, bool, fattr3), nfsstat3> {
        let args = READ3args { file: file.clone(), offset, count };
        match soon(self.0.read(&args)).await.unwrap() {
            Nfs3Result::Ok(ok) => {
                assert_eq!(ok.count as usize, ok.data.0.len());
                Ok((ok.data.0.into_owned(), ok.eof, ok.file_attributes.unwrap()))
            }
            Nfs3Result::Err((status, _)) => Err(status),
        }
    }

    /// The whole file, READ by READ.
    pub async fn read_handle(&mut self, file: &nfs_fh3) -> Result<Vec<u8>, nfsstat3> {
        let mut all = Vec::new();
        loop {
            let (bytes, eof, _) = self.read_at(file, all.len() as u64, 128 << 10).await?;
            all.extend(bytes);
            if eof {
                return Ok(all);
            }
        }
    }

    pub async fn read(&mut self, path: &str) -> Result<Vec<u8>, nfsstat3> {
        let found = self.lookup(path).await?;
        self.read_handle(&found.handle).await
    }

    /// All names of a directory with READDIRPLUS, `.` and `..` left out.
    pub async fn list_handle(&mut self, dir: &nfs_fh3) -> Result<BTreeMap<String, fattr3>, nfsstat3> {
        let mut names = BTreeMap::new();
        let (mut cookie, mut cookieverf) = (0, cookieverf3::default());
        loop {
            let args = READDIRPLUS3args { dir: dir.clone(), cookie, cookieverf, dircount: 8 << 10, maxcount: 32 << 10 };
            let ok = match soon(self.0.readdirplus(&args)).await.unwrap() {
                Nfs3Result::Ok(ok) => ok,
                Nfs3Result::Err((status, _)) => return Err(status),
            };
            cookieverf = ok.cookieverf;
            for entry in ok.reply.entries.into_inner() {
                cookie = entry.cookie;
                let name = String::from_utf8_lossy(&entry.name.0.0).into_owned();
                if name != "." && name != ".." {
                    names.insert(name, entry.name_attributes.unwrap());
                }
            }
            if ok.reply.eof {
                return Ok(names);
            }
        }
    }

    /// The names of the first READDIRPLUS reply.
    pub async fn first_page(&mut self, dir: &nfs_fh3) -> Result<Vec<String>, nfsstat3> {
        let cookieverf = cookieverf3::default();
        let args = READDIRPLUS3args { dir: dir.clone(), cookie: 0, cookieverf, dircount: 8 << 10, maxcount: 32 << 10 };
        match soon(self.0.readdirplus(&args)).await.unwrap() {
            Nfs3Result::Ok(ok) => {
                let names = ok
                    .reply
                    .entries
                    .into_inner()
                    .into_iter()
                    .map(|e| String::from_utf8_lossy(&e.name.0.0).into_owned());
                Ok(names.filter(|n| n != "." && n != "..").collect())
            }
            Nfs3Result::Err((status, _)) => Err(status),
        }
    }

    pub async fn list(&mut self, path: &str) -> Result<Vec<String>, nfsstat3> {
        let dir = self.lookup(path).await?;
        Ok(self.list_handle(&dir.handle).await?.into_keys().collect())
    }
}
