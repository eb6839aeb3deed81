//! The server program and the guest that mounts it.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use fasts3::s3server::{ACCESS_KEY, SECRET_KEY};
use parking_lot::Mutex;

pub const VMRUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/vm/vmrun");
pub const BUCKET: &str = "bucket";

/// Whether there is a rig. Where it must be there (CI), its absence fails the test; else it is told.
pub fn is_here(test: &str) -> bool {
    let checked = Command::new(VMRUN).arg("--check").output();
    let missing = match checked {
        Ok(checked) if checked.status.success() => return true,
        Ok(checked) => String::from_utf8_lossy(&checked.stderr).trim().to_owned(),
        Err(error) => format!("{VMRUN}: {error}"),
    };
    skip(test, &missing);
    false
}

/// Says that `test` is skipped; in CI it fails.
#[allow(clippy::explicit_write)] // libtest captures eprintln
pub fn skip(test: &str, missing: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: {missing}");
    // Past libtest's capture: a test that did not run must not look like one that did.
    writeln!(io::stderr(), "{test} SKIPPED: {missing}").unwrap();
}

/// What runs in the guest.
pub struct Guest<'a> {
    /// Name of the script in `scripts/vm`; its first two arguments are the ports.
    pub script: &'a str,
    /// Further arguments.
    pub args: Vec<OsString>,
    /// Its `/run/out`.
    pub out: &'a Path,
    /// Seconds it may take on a machine that is busy.
    pub timeout: u32,
}

/// Runs `guest` against `server`; `answer` does what it asks for, a line each. Whether all of its steps held.
pub async fn run(
    guest: Guest<'_>,
    server: &Arc<Mutex<Serving>>,
    mut answer: impl FnMut(&str, &Mutex<Serving>) + Send + 'static,
) -> bool {
    let control = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [server.lock().port, control.local_addr().unwrap().port()].map(|port| port.to_string());
    let mut vm = Command::new(VMRUN);
    vm.args(["-t", &guest.timeout.to_string(), "-o"]).arg(guest.out);
    vm.arg(Path::new(VMRUN).with_file_name(guest.script)).args(ports).args(guest.args);
    // not joined: without a guest nobody ever connects to it
    thread::spawn({
        let server = server.clone();
        move || {
            let (guest, _) = control.accept().unwrap();
            let mut answers = guest.try_clone().unwrap();
            for line in BufReader::new(guest).lines() {
                answer(&line.unwrap(), &server);
                answers.write_all(b"ok\n").unwrap();
            }
        }
    });
    let ended = tokio::task::spawn_blocking(move || vm.output().unwrap()).await.unwrap();
    println!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    ended.status.success()
}

/// `fasts3 serve`, the program.
pub struct Serving {
    child: Child,
    ip: IpAddr,
    pub port: u16,
    endpoint: String,
    cache: PathBuf,
    args: Vec<String>,
}

impl Serving {
    /// Returns once the server said that it is ready.
    pub fn start(endpoint: &str, cache: &Path, args: &[&str]) -> Serving {
        Serving::start_on((Ipv4Addr::LOCALHOST, 0).into(), endpoint, cache, args)
    }

    /// The same, listening on `listen`.
    pub fn start_on(listen: SocketAddr, endpoint: &str, cache: &Path, args: &[&str]) -> Serving {
        let args = args.iter().map(|arg| arg.to_string()).collect();
        Serving::spawn(listen, endpoint, cache, args)
    }

    fn spawn(listen: SocketAddr, endpoint: &str, cache: &Path, args: Vec<String>) -> Serving {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fasts3"))
            .args(["serve", &format!("s3://{BUCKET}"), "--endpoint-url", endpoint, "--region", "us-east-1"])
            .args(["--listen", &listen.to_string(), "--admin", "off", "--cache"])
            .arg(cache)
            .args(&args)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let bound =
            ready.strip_prefix("ready nfs=").and_then(|rest| rest.split(' ').next()?.parse::<SocketAddr>().ok());
        let bound = bound.unwrap_or_else(|| panic!("not a ready line: {ready:?}"));
        Serving {
            child,
            ip: bound.ip(),
            port: bound.port(),
            endpoint: endpoint.to_owned(),
            cache: cache.to_owned(),
            args,
        }
    }

    /// As a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn kill_and_start_again(&mut self) {
        self.kill();
        *self = Serving::spawn((self.ip, self.port).into(), &self.endpoint, &self.cache, self.args.clone());
    }

    /// `fasts3 sync`: returns when everything is in S3.
    pub fn sync(&self) {
        let synced =
            Command::new(env!("CARGO_BIN_EXE_fasts3")).arg("sync").arg("--cache").arg(&self.cache).output().unwrap();
        assert!(synced.status.success(), "{}", String::from_utf8_lossy(&synced.stderr));
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.kill();
    }
}
