//! A small S3 server inside this process, for `fasts3 demo` and for the tests: conditional requests done
//! right, in memory or on a directory that survives a restart, with faults at the flip of a switch.
//! Owns: its listener on the loopback, its data, its clock of Last-Modified times.
//! Invariants
//! - A condition is checked and its write applied under one lock.
//! - It listens on 127.0.0.1 unless told otherwise, and checks signatures against `ACCESS_KEY` and `SECRET_KEY`.

mod blob;
mod bucket;
mod data;
mod disk;
mod faults;
mod listing;
mod multipart;
mod operations;
mod request;
mod serve;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::blob::generated;
pub use self::bucket::{Bucket, Stored};
pub use self::data::Change;
pub use self::faults::{Fault, Faults, Gate, On, Requests};
pub use self::request::Kind;
use crate::types::Clock;

/// The access key the server knows.
pub const ACCESS_KEY: &str = "fasts3-demo";
/// Its secret, which is none: the server is on the loopback and the data are samples.
pub const SECRET_KEY: &str = "fasts3-demo-secret";
/// The region to sign for; the server takes any.
pub const REGION: &str = "us-east-1";

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 picks one.
    pub listen: SocketAddr,
    /// Where to keep the data; `None` = in memory.
    pub dir: Option<PathBuf>,
    /// Source of Last-Modified times, which are distinct and grow even when it stands still.
    pub clock: Clock,
    /// Whether requests without a signature are taken too.
    pub anonymous: bool,
    /// Buckets to make, where they are not there yet.
    pub buckets: Vec<String>,
}

impl Default for Options {
    /// In memory, on a free port, with one bucket named `bucket`.
    fn default() -> Options {
        Options {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            dir: None,
            clock: Clock::system(),
            anonymous: false,
            buckets: vec!["bucket".to_owned()],
        }
    }
}

/// A running server. Dropping it stops it.
pub struct S3Server {
    addr: SocketAddr,
    data: Arc<data::Data>,
    faults: Faults,
    requests: Requests,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl S3Server {
    /// Starts a server on the current tokio runtime.
    /// # Errors
    /// The address is taken, or the directory cannot be read.
    pub fn start(options: Options) -> io::Result<S3Server> {
        let disk = options.dir.as_deref().map(disk::Disk::open).transpose()?;
        let data = Arc::new(data::Data::open(disk, options.clock)?);
        for bucket in &options.buckets {
            match data.create_bucket(bucket) {
                Ok(()) | Err(data::Refusal::BucketExists) => {}
                Err(refusal) => return Err(io::Error::other(refusal)),
            }
        }
        let listener = std::net::TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let addr = listener.local_addr()?;
        let faults = Faults::new(data.clone());
        let requests = Requests::new();
        let stop = CancellationToken::new();
        let mut service = S3ServiceBuilder::new(operations::Operations::new(data.clone()));
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        service.set_access(Access { anonymous: options.anonymous });
        let front = serve::Front { service: service.build(), faults: faults.clone(), requests: requests.clone() };
        let task = tokio::spawn(serve::run(listener, front, stop.clone()));
        Ok(S3Server { addr, data, faults, requests, stop, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What to give as `--endpoint-url`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The switches for trouble.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The log of requests.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// A bucket as somebody else sees and changes it, without a request; made if it is not there.
    pub fn bucket(&self, name: &str) -> Bucket {
        Bucket::open(self.data.clone(), name)
    }

    /// Has `witness` see every write and removal, whoever makes it, in the moment it takes effect. It must not ask the
    /// server anything.
    pub fn set_witness(&self, witness: impl Fn(Change<'_>) + Send + Sync + 'static) {
        self.data.set_witness(witness);
    }

    /// Closes all connections and waits until they are.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // A panic of the task was told by the panic hook already.
        let _ = (&mut self.task).await;
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Who may: everybody with a right signature, and nobody without one unless told so.
struct Access {
    anonymous: bool,
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> s3s::S3Result<()> {
        if self.anonymous || context.credentials().is_some() {
            return Ok(());
        }
        Err(s3s::s3_error!(AccessDenied, "Signature is required"))
    }
}
