//! `--background`: this program again, in a session of its own, until it says that it is mounted.
//! Its stdout is a pipe to us, read until the line that counts; its stderr is the log file in the cache directory, of
//! which we show what was added when it failed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use super::{Failure, output};

/// Name of the log in the cache directory.
pub(super) const LOG_NAME: &str = "fasts3.log";

/// Starts `argv` once more in the background; returns when it is mounted.
/// # Errors
/// `Told`: it failed with that code, and what it said was passed on.
pub(super) fn run(argv: &[OsString], cache: &Path, quiet: bool) -> Result<(), Failure> {
    std::fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let path = cache.join(LOG_NAME);
    let log = OpenOptions::new().create(true).append(true).open(&path);
    let log = log.with_context(|| format!("cannot write {}", path.display()))?;
    let said_before = log.metadata().context("cannot read the log")?.len();
    let mut child = spawn(argv, log).context("cannot start the process in the background")?;
    let stdout = child.stdout.take().expect("it is a pipe");
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read from the process in the background")?;
        if !quiet {
            output::print(&line)?;
        }
        if line.starts_with("mounted ") {
            if !quiet {
                eprintln!("fasts3: process {} in the background, log in {}", child.id(), path.display());
            }
            return Ok(());
        }
    }
    let status = child.wait().context("cannot wait for the process in the background")?;
    pass_on(&path, said_before).context("it failed, and its log cannot be read")?;
    Err(Failure::Told(status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0).unwrap_or(1)))
}

fn spawn(argv: &[OsString], log: File) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(argv.iter().skip(1)).env("FASTS3_DETACHED", "true");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    #[cfg(unix)]
    {
        // not by the name of the helper, if we were called by that
        std::os::unix::process::CommandExt::arg0(&mut command, "fasts3");
        // systemd gives its mounts no HOME, where the AWS profiles are
        if std::env::var_os("HOME").is_none() && rustix::process::geteuid().is_root() {
            command.env("HOME", "/root");
        }
    }
    #[cfg(windows)]
    {
        use std::os::windows::process::CommandExt;
        const DETACHED_PROCESS: u32 = 0x8;
        const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
        command.creation_flags(DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP);
    }
    command.spawn()
}

/// In the child: leaves the terminal and the current directory to others.
pub(super) fn detach() {
    #[cfg(unix)]
    {
        let _ = rustix::process::setsid(); // fails for who has a session of their own
        let _ = std::env::set_current_dir("/");
    }
}

/// Shows what the log has gained.
fn pass_on(log: &Path, after: u64) -> io::Result<()> {
    let mut log = File::open(log)?;
    log.seek(SeekFrom::Start(after))?;
    let mut said = Vec::new();
    log.take(64 << 10).read_to_end(&mut said)?;
    io::stderr().write_all(&said)
}
