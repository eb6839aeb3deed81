//! Mounts a running server with the NFS client of the operating system, and unmounts it.
//! Owns: what each system's client is told (`linux`, `macos`, `windows`), and the records of what was mounted.
//!
//! Building a command line and reading a mount table are pure functions, tested on every system; only the last step
//! belongs to one system, and `other` takes its place elsewhere.
//!
//! Invariants
//! - Nothing is unmounted that has no record of ours (`record`): other mounts are none of our business.
//! - Nothing here looks *at* a place where something may be mounted, because a mount whose server is dead never answers.
//!   The mount table is asked, and only the directory above is resolved.

pub mod linux;
pub mod macos;
pub mod options;
pub mod other;
pub mod place;
pub mod record;
pub mod windows;

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

#[cfg(target_os = "linux")]
pub use linux as os;
#[cfg(target_os = "macos")]
pub use macos as os;
#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
pub use other as os;
#[cfg(windows)]
pub use windows as os;

use options::Options;

/// What is to be mounted, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// `s3://BUCKET[/PREFIX]`, for people.
    pub bucket: String,
    /// Where the client reaches the server: NFS and MOUNT.
    pub server: SocketAddr,
    /// The path to ask MOUNT for: `/`, or `/NAME`.
    pub export: String,
    /// The mount point: a directory, or a drive letter.
    pub point: PathBuf,
    /// What the client is told besides.
    pub options: Options,
}

impl Plan {
    /// `127.0.0.1:/media`: what is mounted, as the mount table and `df` name it.
    pub fn source(&self) -> String {
        match self.server.ip() {
            IpAddr::V4(ip) => format!("{ip}:{}", self.export),
            IpAddr::V6(ip) => format!("[{ip}]:{}", self.export),
        }
    }
}

/// The address at which a client of this machine reaches a server that listens at `listen`.
pub fn reached_at(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// A line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The system's number of this very mount, where it has one: mounted again, it is another.
    pub id: Option<u64>,
    /// What is mounted.
    pub source: String,
    /// Where.
    pub point: PathBuf,
    /// The server's port, where the table tells it.
    pub port: Option<u16>,
    /// Whether it is NFS.
    pub is_nfs: bool,
}

/// What is mounted at `point`: the uppermost, where several are.
/// # Errors
/// The table cannot be read.
pub fn mounted_at(point: &Path) -> io::Result<Option<Entry>> {
    Ok(os::table()?.into_iter().rfind(|entry| is_same_point(&entry.point, point)))
}

/// Drive letters come in both cases.
fn is_same_point(a: &Path, b: &Path) -> bool {
    a == b || (cfg!(windows) && a.as_os_str().eq_ignore_ascii_case(b.as_os_str()))
}

/// Why nothing was mounted. Says what to do.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// This user may not mount.
    #[error("{0}")]
    NotPermitted(String),
    /// The system has no NFS client.
    #[error("this system has no NFS client: {0}")]
    NoClient(String),
    /// The client says no.
    #[error("cannot mount {} on {}: {why}", plan.source(), plan.point.display())]
    Refused {
        /// What was to be mounted.
        plan: Box<Plan>,
        /// What the system said.
        why: String,
    },
    /// Neither Linux, macOS nor Windows.
    #[error(
        "fasts3 does not know how to mount on {0}: use `fasts3 serve`, and this system's own NFS client with version 3, \
         TCP, port and mountport as `serve` prints them, and no locks"
    )]
    UnknownSystem(&'static str),
}

/// Why something is still mounted.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// Somebody has a file of it open, or is in it.
    #[error("{} is in use{}", point.display(), by(users))]
    Busy {
        /// The mount point.
        point: PathBuf,
        /// By whom, as far as that is known.
        users: Vec<String>,
    },
    /// The system says no.
    #[error("cannot unmount {}: {why}", point.display())]
    Refused {
        /// The mount point.
        point: PathBuf,
        /// What the system said.
        why: String,
    },
}

/// So many users of a mount point are named.
const MOST_NAMED: usize = 5;

fn by(users: &[String]) -> String {
    match users {
        [] => String::new(),
        users if users.len() > MOST_NAMED => {
            format!(" by {} and {} more", users[..MOST_NAMED].join(", "), users.len() - MOST_NAMED)
        }
        users => format!(" by {}", users.join(", ")),
    }
}

/// Changes of the mount table where the system does not tell them: a look now and then.
pub struct Looks(tokio::time::Interval);

/// Seldom enough to cost nothing, often enough for who waits for the server to end.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

impl Looks {
    /// Starts to look.
    pub fn new() -> io::Result<Looks> {
        Ok(Looks(tokio::time::interval(LOOK_INTERVAL)))
    }

    /// Waits until it is time for the next look.
    pub async fn next(&mut self) -> io::Result<()> {
        self.0.tick().await;
        Ok(())
    }
}

/// Runs a program of the system's to its end.
fn run(argv: &[OsString]) -> io::Result<Output> {
    let (program, args) = argv.split_first().expect("the callers name a program");
    Command::new(program).args(args).stdin(Stdio::null()).output()
}

fn argv<const N: usize>(words: [&dyn AsRef<OsStr>; N]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}

/// What a program said when it failed, in one line.
fn complaint(output: &Output) -> String {
    let said = [&output.stderr[..], &output.stdout[..]].map(|said| String::from_utf8_lossy(said).into_owned());
    let said = said.iter().map(|said| said.trim()).find(|said| !said.is_empty()).unwrap_or("it does not say why");
    said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
pub(crate) fn plan(point: &str, options: &str) -> Plan {
    Plan {
        bucket: "s3://media/films".into(),
        server: "127.0.0.1:4321".parse().expect("an address"),
        export: "/media".into(),
        point: point.into(),
        options: Options::parse([options]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_names_the_server_by_number() {
        let mut plan = plan("/mnt", "");
        assert_eq!(plan.source(), "127.0.0.1:/media");
        plan.server = "[::1]:2049".parse().expect("an address");
        assert_eq!(plan.source(), "[::1]:/media");
    }

    #[test]
    fn server_for_everybody_is_reached_over_the_loopback() {
        for (listen, reached) in [
            ("0.0.0.0:2049", "127.0.0.1:2049"),
            ("[::]:1", "[::1]:1"),
            ("10.1.2.3:7", "10.1.2.3:7"),
            ("127.0.0.1:0", "127.0.0.1:0"),
        ] {
            assert_eq!(reached_at(listen.parse().expect("an address")).to_string(), reached);
        }
    }

    #[test]
    fn busy_mount_names_some_of_its_users() {
        let busy = |n: usize| {
            let users = (1..=n).map(|i| format!("process {i} (sh)")).collect();
            UnmountError::Busy { point: "/mnt".into(), users }.to_string()
        };
        assert_eq!(busy(0), "/mnt is in use");
        assert_eq!(busy(2), "/mnt is in use by process 1 (sh), process 2 (sh)");
        assert!(busy(9).ends_with("process 5 (sh) and 4 more"));
    }
}
