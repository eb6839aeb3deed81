//! The command line, one file per command. Owns: flags, exit codes, what is printed.
//!
//! Exit codes: 0 done; 1 failed, with one line on stderr that says what and what to do; 2 wrong usage.
//! stdout carries what was asked for and nothing else; logs go to stderr.

pub mod allow;
mod background;
mod completions;
mod config;
pub mod conflicts;
pub mod demo;
pub mod events;
pub mod fsck;
mod helper;
pub mod invalidate;
pub mod mount;
mod output;
pub mod peers;
mod progress;
pub mod refresh;
pub mod serve;
mod signals;
pub mod status;
pub mod sync;
mod systemd;
pub mod umount;
pub mod values;
pub mod warm;
pub mod why;

use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

pub use config::ConfigError;
pub use serve::ServeArgs;

use crate::admin::client::Client;
use crate::mount::record;
use crate::server;

/// What is logged unless `--log` says otherwise: what needs somebody, and our own milestones. What the NATS client says of
/// each try to connect we say once.
const LOG: &str = "warn,fasts3=info,async_nats=off";
/// The same for the demo, whose S3 is taken down on purpose and whose screen is its output.
const DEMO_LOG: &str = "error";

/// An S3 bucket as a local file system, at local speed, with no FUSE.
///
/// fasts3 keeps a copy of the bucket in a local directory and serves it over NFSv3, the file system client that
/// every OS already has. Reads are answered from the copy at once; S3 is asked behind the answer whether it is
/// still fresh.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true, max_term_width = 100)]
#[command(after_help = "Start with `fasts3 demo`, which needs no S3 account. \
    Every flag has an environment variable; exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub struct Cli {
    /// What to log on stderr: a level (error, warn, info, debug, trace), or one for each module
    #[arg(long, global = true, env = "FASTS3_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a bucket over NFSv3
    Serve(Box<ServeArgs>),
    /// Serve a bucket and mount it here
    Mount(Box<mount::MountArgs>),
    /// Unmount what `mount` mounted
    Umount(umount::UmountArgs),
    /// Watch it work without an account: an S3 in this process, a sample bucket, a client
    Demo(demo::DemoArgs),
    /// Show what a running server has and does
    Status(status::StatusArgs),
    /// Explain one file: where its answer comes from and how fresh that is
    Why(why::WhyArgs),
    /// Ask S3 now whether a file, or everything below a directory, has changed
    Refresh(refresh::RefreshArgs),
    /// Distrust a key, or everything below a prefix, as if S3 had told of a change
    Invalidate(invalidate::InvalidateArgs),
    /// Fetch a file, or everything below a directory, into the cache
    Warm(warm::WarmArgs),
    /// Wait until S3 has every change made so far
    Sync(sync::SyncArgs),
    /// List the files that were changed here and in S3 at once
    Conflicts(conflicts::ConflictsArgs),
    /// Check index, cached files and, with --remote, S3 against each other
    Fsck(fsck::FsckArgs),
    /// Have S3 tell of its changes: make what that takes, and find out whether it works
    Events(events::EventsArgs),
    /// Print the completions of a shell
    Completions(completions::CompletionsArgs),
}

/// Which server a command talks to, and how it prints.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The cache directory of the server to talk to, as given to `serve` [default: that of PATH's mount, or of the only one]
    #[arg(long, env = "FASTS3_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,

    /// Print JSON instead of text
    #[arg(long, env = "FASTS3_JSON", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub json: bool,
}

impl ServerArgs {
    /// The cache directory that is meant when no path is given.
    fn cache(&self) -> anyhow::Result<PathBuf> {
        if let Some(cache) = &self.cache {
            return Ok(cache.clone());
        }
        match &record::all()[..] {
            [] => bail!("give --cache DIR of the server: nothing is mounted by `fasts3 mount`"),
            [one] => Ok(one.cache.clone()),
            many => {
                let caches: Vec<_> = many.iter().map(|record| record.cache.display().to_string()).collect();
                bail!("several buckets are mounted: give --cache DIR, one of {}", caches.join(", "))
            }
        }
    }

    fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.cache()?))
    }

    /// The server that has `path`, and the path from the root of its export.
    fn client_for(&self, path: &OsStr) -> anyhow::Result<(Client, OsString)> {
        if self.cache.is_none()
            && let Some((record, below)) = record::containing(Path::new(path))
        {
            return Ok((Client::new(&record.cache), below.into()));
        }
        Ok((self.client()?, path.to_owned()))
    }
}

/// Why a command ended badly.
#[derive(Debug)]
enum Failure {
    /// The flags make no sense together: 2.
    Usage(ConfigError),
    /// 1.
    Failed(anyhow::Error),
    /// This code, after somebody else has said why.
    Told(u8),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Usage(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Failed(error)
    }
}

/// The program: reads the command line, does what it says.
pub fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    if helper::is_called(&argv) {
        return helper::main(&argv);
    }
    match run(Cli::parse_from(&argv), &argv, false) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => complain(&error, 2),
        Err(Failure::Failed(error)) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(Failure::Failed(error)) => complain(&format!("{error:#}"), 1),
        Err(Failure::Told(code)) => ExitCode::from(code),
    }
}

fn complain(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("fasts3: {error}");
    ExitCode::from(code)
}

impl Command {
    fn log_filter(&self) -> &'static str {
        if matches!(self, Command::Demo(_)) { DEMO_LOG } else { LOG }
    }
}

/// Does what `cli` says, which was read from `argv`.
fn run(cli: Cli, argv: &[OsString], quiet: bool) -> Result<(), Failure> {
    start_logging(cli.log.as_deref().unwrap_or_else(|| cli.command.log_filter()))?;
    match cli.command {
        Command::Serve(args) => {
            let config = (*args).try_into()?;
            Ok(block_behind(serve::run(config))?)
        }
        Command::Mount(args) => mount(*args, argv, quiet),
        Command::Umount(args) => Ok(block_on(umount::run(args))?),
        Command::Demo(args) => Ok(block_behind(demo::run(args))?),
        Command::Status(args) => Ok(block_on(status::run(args))?),
        Command::Why(args) => Ok(block_on(why::run(args))?),
        Command::Refresh(args) => Ok(block_on(refresh::run(args))?),
        Command::Invalidate(args) => Ok(block_on(invalidate::run(args))?),
        Command::Warm(args) => Ok(block_on(warm::run(args))?),
        Command::Sync(args) => Ok(block_on(sync::run(args))?),
        Command::Conflicts(args) => Ok(block_on(conflicts::run(args))?),
        Command::Fsck(args) => Ok(block_on(fsck::run(args))?),
        Command::Events(args) => Ok(events::run(args)?),
        Command::Completions(args) => Ok(completions::run(args)?),
    }
}

fn mount(args: mount::MountArgs, argv: &[OsString], quiet: bool) -> Result<(), Failure> {
    let (background, detached) = (args.background, args.detached);
    let task = mount::prepare(args)?;
    match (background, detached) {
        (true, false) => background::run(argv, &task.config.cache, quiet),
        (_, false) => Ok(block_behind(mount::run(task))?),
        (_, true) => {
            background::detach();
            Ok(block_behind(mount::run(task))?)
        }
    }
}

fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    block_on_threads(|| (), command)
}

/// The same of a server, whose answers have threads of their own.
fn block_behind(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    block_on_threads(server::stand_back, command)
}

fn block_on_threads(start: fn(), command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.on_thread_start(start).enable_all().build().context("cannot start the runtime")?.block_on(command)
}

fn start_logging(filter: &str) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(filter).map_err(|e| ConfigError::Log(e.to_string()))?;
    let stderr =
        tracing_subscriber::fmt().with_writer(|| progress::AboveBar).with_ansi(std::io::stderr().is_terminal());
    // a second call, from tests in one process, keeps the first one's filter
    let _ = stderr.with_env_filter(filter).with_target(false).try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_an_environment_variable_and_a_help_text() {
        let cli = Cli::command();
        let below = cli.get_subcommands().flat_map(|command| std::iter::once(command).chain(command.get_subcommands()));
        for command in std::iter::once(&cli).chain(below) {
            for arg in command.get_arguments().filter(|arg| arg.get_long().is_some()) {
                let (id, flag) = (arg.get_id(), arg.get_long().expect("filtered"));
                if matches!(flag, "help" | "version") {
                    continue;
                }
                let variable = |name: &str| format!("FASTS3_{}", name.to_uppercase().replace('-', "_"));
                // a flag that is another one elsewhere has its command's name in front
                let envs = [variable(flag), variable(&format!("{}-{flag}", command.get_name()))];
                let env = arg.get_env().and_then(|env| env.to_str()).unwrap_or_default();
                assert!(envs.iter().any(|name| name == env), "{} {id}", command.get_name());
                assert!(arg.get_help().is_some(), "{} --{flag}", command.get_name());
            }
        }
    }

    #[test]
    fn unknown_commands_and_flags_are_wrong_usage() {
        for line in [&["fasts3", "melt"][..], &["fasts3"], &["fasts3", "status", "--colour"], &["fasts3", "why"]] {
            assert_eq!(Cli::try_parse_from(line).expect_err("no such thing").exit_code(), 2, "{line:?}");
        }
        assert_eq!(Cli::try_parse_from(["fasts3", "serve", "--help"]).expect_err("help ends it").exit_code(), 0);
    }

    #[test]
    fn default_log_filters_are_filters() {
        for filter in [LOG, DEMO_LOG] {
            assert!(EnvFilter::try_new(filter).is_ok());
        }
        assert!(EnvFilter::try_new("fasts3=loud").is_err());
    }
}
