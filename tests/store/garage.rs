//! garage, an S3 in Rust, as a process of its own over a directory of its own. `scripts/test --soak` builds it
//! (that takes minutes) and names it in `FASTS3_GARAGE`; without it the tests say that they are skipped.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use aws_sdk_s3::config::{Credentials, Region};
use tempfile::TempDir;

/// The bucket that it is started with.
pub(crate) const BUCKET: &str = "bucket";
/// The region it says it is in.
const REGION: &str = "us-east-1";
/// Of the form that it asks for: "GK" and 24 hexadecimal digits, and 64 of them.
const ACCESS_KEY: &str = "GK0123456789abcdef01234567";
const SECRET_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A running garage; dropping it ends it.
pub(crate) struct Garage {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Garage {
    /// Starts a server with an empty bucket, and waits until it says that it serves.
    pub(crate) async fn start() -> Option<Garage> {
        let Some(program) = std::env::var_os("FASTS3_GARAGE") else {
            // Past the capture of libtest: a skipped test is seen.
            let _ =
                writeln!(std::io::stderr().lock(), "skipped: FASTS3_GARAGE is not set (scripts/test --soak sets it)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let (port, rpc_port) = free_ports();
        let settings = dir.path().join("garage.toml");
        std::fs::write(&settings, config(&dir, port, rpc_port)).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(settings).args(["server", "--single-node", "--default-bucket"]);
        command.env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY).env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY);
        command.env("GARAGE_DEFAULT_BUCKET", BUCKET).env("RUST_LOG", "info");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let garage = Garage { child, port, _dir: dir };
        tokio::task::spawn_blocking(move || {
            let ready = log.by_ref().map_while(Result::ok).any(|line| line.contains("S3 API server listening"));
            assert!(ready, "garage ended before it served");
            // What it logs from now on is read, so that it never waits for us.
            std::thread::spawn(move || log.for_each(drop));
        })
        .await
        .unwrap();
        Some(garage)
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test")
    }

    /// Somebody else's client of it.
    pub(crate) fn client(&self) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version_latest()
            .endpoint_url(self.endpoint())
            .region(Region::new(REGION))
            .force_path_style(true)
            .credentials_provider(self.credentials());
        aws_sdk_s3::Client::from_conf(config.build())
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two ports that nobody listened on a moment ago.
fn free_ports() -> (u16, u16) {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [one, two] = held.map(|listener| listener.local_addr().unwrap().port());
    (one, two)
}

/// One node, alone, whose files are in `dir`.
fn config(dir: &TempDir, port: u16, rpc_port: u16) -> String {
    let dir = dir.path().display();
    format!(
        r#"
metadata_dir = "{dir}/meta"
data_dir = "{dir}/data"
db_engine = "lmdb"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc_port}"
rpc_public_addr = "127.0.0.1:{rpc_port}"
rpc_secret = "{SECRET_KEY}"

[s3_api]
s3_region = "{REGION}"
api_bind_addr = "127.0.0.1:{port}"
"#
    )
}
