//! `fasts3 demo`: the whole story on one screen, without an account and without root.
//! Owns: an S3 server in this process that takes its time to answer, a sample bucket, our server over it with
//! a cold cache, and the NFS client that walks it. Everything is gone when it ends.
//! Invariant: every figure on the screen was measured in this run, those of "S3 alone" with the requests that a
//! program without fasts3 would have to make.

mod alone;
mod sample;
mod screen;
mod walker;

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, Parser};

use self::alone::Alone;
use self::sample::{FILM, FILM_BYTES, Keys, MANY, PAGE};
use self::screen::{Row, Screen};
use self::walker::Walker;
use super::serve::ServeArgs;
use super::signals::Signals;
use super::{Cli, Command};
use crate::config::Config;
use crate::s3server::{Options, REGION, S3Server};
use crate::server::Server;

/// Of every answer of S3: what a bucket in the next region takes.
const S3_LATENCY: Duration = Duration::from_millis(100);
/// `--recheck` of the demo's server.
const RECHECK: Duration = Duration::from_secs(1);
const BUCKET: &str = "demo";
const FIRST_BYTES: u64 = 1 << 20;
/// A warm answer is measured so often; the median counts.
const ROUNDS: usize = 5;
/// A new version that takes longer than this to be seen is a failure of the demo.
const PATIENCE: Duration = Duration::from_secs(20);

/// Shows what fasts3 does, with an S3 server and a sample bucket inside this process.
///
/// Needs no AWS account and no root. Serves a sample bucket, reads it with an NFS client, changes it in S3, takes S3
/// down, writes meanwhile, and prints how long everything took beside what S3 alone takes. Then it stays up, so that you can
/// mount it and play with it, until Ctrl-C.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Exit after the table instead of staying up to be mounted
    #[arg(long, env = "FASTS3_ONCE", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub once: bool,
}

/// Runs the demo.
/// # Errors
/// The server cannot start, or it does not do what the table is about to claim.
pub(super) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let options = Options { anonymous: true, buckets: vec![BUCKET.to_owned()], ..Options::default() };
    let s3 = S3Server::start(options).context("the S3 server of the demo cannot start")?;
    let keys = sample::fill(&s3.bucket(BUCKET));
    s3.faults().set_latency(S3_LATENCY);
    let cache = tempfile::tempdir().context("no place for the cache")?;
    let server = Server::start(config(&s3, cache.path())?).await?;

    let told = Story::begin(&s3, &server, &keys).await?.tell().await;
    s3.faults().clear();
    if told.is_ok() && !args.once {
        Screen.how_to_play(server.nfs_addr().port(), &s3.endpoint(), BUCKET);
        Signals::new()?.stop().await;
    }
    server.stop().await;
    s3.stop().await;
    told
}

/// What `fasts3 serve --lazy` would run with: without the mirror a first read is really the first.
fn config(s3: &S3Server, cache: &Path) -> anyhow::Result<Config> {
    let cache = cache.to_str().context("the path of the temporary directory is not UTF-8")?;
    // Windows has no port option: its client finds the server on the portmapper's port.
    let listen = if cfg!(windows) { "127.0.0.1:111" } else { "127.0.0.1:0" };
    let line = format!(
        "fasts3 serve s3://{BUCKET} --lazy --no-sign-request --export {BUCKET} --admin off --recheck {RECHECK:?}"
    );
    let values = ["--region", REGION, "--endpoint-url", &s3.endpoint(), "--listen", listen, "--cache", cache];
    let cli = Cli::try_parse_from(line.split(' ').chain(values))?;
    let Command::Serve(args) = cli.command else { bail!("{line:?} is not `serve`") };
    // whatever the environment says of the user's own bucket
    Ok(Config::try_from(ServeArgs { profile: None, request_payer: false, stale_wait: None, ..*args })?)
}

/// The steps, and what they work with.
struct Story<'a> {
    s3: &'a S3Server,
    keys: &'a Keys,
    walker: Walker,
    alone: Alone,
    screen: Screen,
}

impl<'a> Story<'a> {
    async fn begin(s3: &'a S3Server, server: &Server, keys: &'a Keys) -> anyhow::Result<Story<'a>> {
        let walker = Walker::mount(server.nfs_addr()).await?;
        let alone = Alone::connect(&s3.endpoint(), BUCKET).await?;
        Ok(Story { s3, keys, walker, alone, screen: Screen })
    }

    async fn tell(&mut self) -> anyhow::Result<()> {
        self.screen.opening(self.keys.count, S3_LATENCY);
        let rows = self.read_everything().await?;
        self.change_a_page().await?;
        self.lose_s3(&rows).await?;
        self.write_meanwhile().await?;
        self.screen.conclusion(&rows);
        Ok(())
    }

    /// First time, again, and what S3 alone takes.
    async fn read_everything(&mut self) -> anyhow::Result<Vec<Row>> {
        self.screen.head();
        let mut rows = Vec::new();
        for step in Step::ALL {
            let first = self.ours(step).await?;
            let mut again = Vec::with_capacity(ROUNDS);
            for _ in 0..ROUNDS {
                again.push(self.ours(step).await?);
            }
            again.sort();
            let row = Row { step, first, again: again[ROUNDS / 2], alone: self.alone(step).await? };
            self.screen.row(&row);
            rows.push(row);
        }
        Ok(rows)
    }

    /// The one stale answer, and the fresh one (F2).
    async fn change_a_page(&mut self) -> anyhow::Result<()> {
        // What was checked less than `--recheck` ago is not asked about again.
        tokio::time::sleep(RECHECK + S3_LATENCY * 2).await;
        self.s3.bucket(BUCKET).put(PAGE, sample::page("second"), &[]);
        let changed = Instant::now();
        let (stale, page) = timed(self.walker.read(PAGE)).await?;
        ensure!(page == sample::page("first").as_bytes(), "the first read after the change is neither stale nor whole");

        let fresh = loop {
            let (took, page) = timed(self.walker.read(PAGE)).await?;
            if page == sample::page("second").as_bytes() {
                break took;
            }
            ensure!(changed.elapsed() < PATIENCE, "the new edition is still not here");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        self.screen.change(stale, changed.elapsed(), fresh);
        Ok(())
    }

    /// F1: what is here is served whether S3 answers or not.
    async fn lose_s3(&mut self, rows: &[Row]) -> anyhow::Result<()> {
        self.s3.faults().set_down(true);
        self.screen.outage();
        for row in rows {
            let took = self.ours(row.step).await?;
            let alone = self.alone(row.step).await.ok();
            self.screen.outage_row(row.step, took, alone);
        }
        Ok(())
    }

    /// D1: what is written is safe here, and goes up when S3 is back.
    async fn write_meanwhile(&mut self) -> anyhow::Result<()> {
        const LETTER: &str = "letter.txt";
        let text = b"Dear S3, wish you were here.\n";
        let (saved, ()) = timed(self.walker.save(LETTER, text)).await?;
        let (renamed, ()) = timed(self.walker.rename("many", "moved")).await?;
        ensure!(self.walker.list("moved").await? == MANY, "not all names moved");
        self.screen.changes_meanwhile(saved, renamed);

        self.s3.faults().set_down(false);
        let back = Instant::now();
        let bucket = self.s3.bucket(BUCKET);
        while bucket.get(LETTER).is_none_or(|letter| letter.bytes != text[..]) {
            ensure!(back.elapsed() < PATIENCE, "the letter is still not in S3");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.screen.uploaded(back.elapsed());
        Ok(())
    }

    /// One step through NFS. Checks that the answer is right before its time counts.
    async fn ours(&mut self, step: Step) -> anyhow::Result<Duration> {
        let walker = &mut self.walker;
        let (took, right) = match step {
            Step::Page => timed(walker.read(PAGE)).await.map(|(took, page)| (took, page.ends_with(b"</html>\n")))?,
            Step::Pictures => {
                let (took, bytes) = timed(walker.read_all(&self.keys.pictures)).await?;
                (took, bytes == self.keys.picture_bytes)
            }
            Step::List => timed(walker.list("many")).await.map(|(took, names)| (took, names == MANY))?,
            Step::FirstBytes => {
                let (took, bytes) = timed(walker.read_first(FILM, FIRST_BYTES)).await?;
                (took, bytes.len() as u64 == FIRST_BYTES && sample::is_film(0, &bytes))
            }
            Step::Film => {
                let (took, len) = timed(walker.drain(FILM)).await?;
                (took, len == FILM_BYTES)
            }
        };
        ensure!(right, "{}: the answer is wrong", step.name());
        Ok(took)
    }

    async fn alone(&self, step: Step) -> anyhow::Result<Duration> {
        let alone = &self.alone;
        let took = match step {
            Step::Page => timed(alone.get(PAGE, None)).await?.0,
            Step::Pictures => timed(alone.get_all(&self.keys.pictures)).await?.0,
            Step::List => timed(alone.list("many/")).await?.0,
            Step::FirstBytes => timed(alone.get(FILM, Some(FIRST_BYTES))).await?.0,
            Step::Film => timed(alone.get(FILM, None)).await?.0,
        };
        Ok(took)
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Page,
    Pictures,
    List,
    FirstBytes,
    Film,
}

impl Step {
    const ALL: [Step; 5] = [Step::Page, Step::Pictures, Step::List, Step::FirstBytes, Step::Film];

    fn name(self) -> String {
        match self {
            Step::Page => "open and read a page".to_owned(),
            Step::Pictures => format!("read {} pictures, one by one", sample::PICTURES),
            Step::List => format!("ls of {MANY} names"),
            Step::FirstBytes => format!("first MiB of a {} MiB film", FILM_BYTES >> 20),
            Step::Film => "the whole film".to_owned(),
        }
    }
}

async fn timed<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<(Duration, T)> {
    let start = Instant::now();
    let done = work.await?;
    Ok((start.elapsed(), done))
}
