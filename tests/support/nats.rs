//! A real nats-server on a loopback port, which a test kills and starts again.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// Far above what it takes to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where nats-server is: what FASTS3_NATS_SERVER says, or what is installed. `None`: the test is skipped, but in CI.
pub fn program() -> Option<PathBuf> {
    let named = std::env::var_os("FASTS3_NATS_SERVER").filter(|named| !named.is_empty()).map(PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&paths).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = named.or_else(|| dirs.map(|dir| dir.join("nats-server")).find(|path| path.is_file()));
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no nats-server: scripts/test installs it");
        eprintln!("skipped: no nats-server (scripts/test installs it)");
    }
    found
}

/// A nats-server; it dies with this.
pub struct Nats {
    program: PathBuf,
    flags: Vec<String>,
    dir: TempDir,
    pub port: u16,
    running: Option<Child>,
}

impl Nats {
    /// Starts one with these flags; `None` when there is none to start.
    pub fn start(flags: &[&str]) -> Option<Nats> {
        let mut nats = Nats::stopped(flags)?;
        nats.run();
        Some(nats)
    }

    /// With a stream store.
    pub fn with_jetstream() -> Option<Nats> {
        let mut nats = Nats::stopped(&["-js"])?;
        let store = nats.dir.path().join("store");
        nats.flags.extend(["-sd".into(), path(&store)]);
        nats.run();
        Some(nats)
    }

    /// With this configuration.
    pub fn configured(text: &str) -> Option<Nats> {
        let mut nats = Nats::stopped(&[])?;
        let (file, store) = (nats.dir.path().join("nats.conf"), nats.dir.path().join("store"));
        std::fs::write(&file, text.replace("STORE", &path(&store))).unwrap();
        nats.flags.extend(["-c".into(), path(&file)]);
        nats.run();
        Some(nats)
    }

    /// One that does not run yet, but has its port.
    pub fn stopped(flags: &[&str]) -> Option<Nats> {
        let program = program()?;
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Some(Nats { program, flags, dir: TempDir::new().unwrap(), port, running: None })
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts it, on the same port as before.
    pub fn run(&mut self) {
        let mut server = Command::new(&self.program);
        server.args(["-a", "127.0.0.1", "-p", &self.port.to_string()]).args(&self.flags);
        let mut child = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        self.running = Some(child);
        let (ready, is_ready) = std::sync::mpsc::channel();
        // to its end, or it would block on a full pipe
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let _ = ready.send(line);
            }
        });
        let mut said = String::new();
        while !said.contains("Server is ready") {
            let line = is_ready.recv_timeout(PATIENCE);
            said.push_str(&line.unwrap_or_else(|_| panic!("nats-server does not start:\n{said}")));
            said.push('\n');
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
