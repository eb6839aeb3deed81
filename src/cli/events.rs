//! `fasts3 events setup` and `fasts3 events check`: have S3 send its events to a queue, and find out whether they come.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, Subcommand};
use serde_json::Value;

use super::config::{filled, host, is_endpoint};
use super::values::{self, BucketUrl};
use super::{ConfigError, Failure, block_on, output};
use crate::admin::client::Client;
use crate::config::{self, EventSource, NewObjects, S3Config};
use crate::notify::check::{self, Check, Finding, Probe, Queue, Verdict};
use crate::notify::setup::{self, Form, Plan};
use crate::notify::sqs;
use crate::store::{self, Connected};
use crate::types::Clock;

/// How often a running server is asked whether it has seen the probe.
const GLANCE: Duration = Duration::from_millis(200);

/// `fasts3 events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: EventsCommand,
}

/// The commands of `fasts3 events`.
#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// Make a queue and have the bucket send its events there, or print what that takes
    Setup(SetupArgs),
    /// Write a probe object, wait for its event, and say what is wrong if it does not come
    Check(CheckArgs),
}

/// Flags of `events setup`.
#[derive(Debug, Args)]
#[command(
    after_help = "It can be done again: what is there already stays, and notifications and policies of others are \
    not touched.\nEvery server needs a queue of its own, because a message goes to one reader. S3 sends an event to one \
    place only, so\nseveral servers of one bucket share an SNS topic, or EventBridge, to which each one's queue is subscribed."
)]
pub struct SetupArgs {
    /// The bucket, or the part of it below a prefix, as it is given to `serve`
    #[arg(env = "FASTS3_BUCKET", value_name = "s3://BUCKET[/PREFIX]")]
    pub bucket: BucketUrl,

    /// Name of the queue [default: fasts3-BUCKET-HOST]
    #[arg(long, env = "FASTS3_QUEUE", value_name = "NAME", value_parser = values::queue)]
    pub queue: Option<String>,

    /// What stands for this server in the name of the queue [default: the host's name]
    #[arg(long, env = "FASTS3_HOST", value_name = "NAME")]
    pub host: Option<String>,

    /// Make nothing and print it: as JSON of the AWS APIs, as a script for the AWS CLI, or for Terraform
    #[arg(long, env = "FASTS3_PRINT", value_name = "json|cli|terraform", value_enum)]
    pub print: Option<Form>,

    /// How to reach S3.
    #[command(flatten)]
    pub s3: S3Args,
}

/// Flags of `events check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The bucket, or the part of it below a prefix, as it is given to `serve`
    #[arg(env = "FASTS3_BUCKET", value_name = "s3://BUCKET[/PREFIX]")]
    pub bucket: BucketUrl,

    /// Where the events should come, as it is given to `serve`
    #[arg(long, env = "FASTS3_EVENTS", value_name = "sqs=URL|webhook=IP:PORT", value_delimiter = ',', required = true)]
    pub events: Vec<EventSource>,

    /// The cache directory of the server that takes the events, if it runs: it is asked whether it got the probe's
    #[arg(long, env = "FASTS3_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,

    /// How long to wait for the event
    #[arg(long, env = "FASTS3_TIMEOUT", value_name = "TIME", value_parser = values::duration, default_value = "1m")]
    pub timeout: Duration,

    /// Print JSON instead of text
    #[arg(long, env = "FASTS3_JSON", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub json: bool,

    /// How to reach S3.
    #[command(flatten)]
    pub s3: S3Args,
}

/// How to reach S3, as `serve` has it.
#[derive(Debug, Args)]
pub struct S3Args {
    /// URL of an S3 that is not Amazon's
    #[arg(long, env = "FASTS3_ENDPOINT_URL", value_name = "URL", help_heading = "S3")]
    pub endpoint_url: Option<String>,

    /// Region of the bucket [default: what the AWS environment or profile says]
    #[arg(long, env = "FASTS3_REGION", value_name = "REGION", help_heading = "S3")]
    pub region: Option<String>,

    /// Profile of the AWS configuration files to take credentials and region from
    #[arg(long, env = "FASTS3_PROFILE", value_name = "PROFILE", help_heading = "S3")]
    pub profile: Option<String>,
}

impl S3Args {
    fn config(&self, bucket: &BucketUrl) -> Result<S3Config, ConfigError> {
        if self.endpoint_url.as_deref().is_some_and(|url| !is_endpoint(url)) {
            return Err(ConfigError::EndpointUrl);
        }
        Ok(S3Config {
            bucket: bucket.bucket.clone(),
            prefix: bucket.prefix.clone(),
            endpoint_url: self.endpoint_url.clone(),
            region: filled("--region", self.region.clone())?,
            profile: filled("--profile", self.profile.clone())?,
            anonymous: false,
            requester_pays: false,
            concurrency: config::S3_CONCURRENCY.try_into().expect("it is not zero"),
            rate: None,
            new_objects: NewObjects::default(),
        })
    }
}

/// Does what the command says.
pub(super) fn run(args: EventsArgs) -> Result<(), Failure> {
    match args.command {
        EventsCommand::Setup(args) => {
            let config = args.s3.config(&args.bucket)?;
            Ok(block_on(set_up(args, config))?)
        }
        EventsCommand::Check(args) => {
            let config = args.s3.config(&args.bucket)?;
            Ok(block_on(look(args, config))?)
        }
    }
}

/// As `serve` connects; an S3 that is away is an error here.
async fn connect(config: &S3Config) -> anyhow::Result<Connected> {
    let connected = store::connect(config, Default::default()).await?;
    match connected.warning {
        Some(warning) => bail!("{}", warning.split(": serving").next().unwrap_or(&warning)),
        None => Ok(connected),
    }
}

async fn set_up(args: SetupArgs, config: S3Config) -> anyhow::Result<()> {
    let BucketUrl { bucket, prefix } = &args.bucket;
    let name = || Plan::default_queue(bucket, prefix, &args.host.clone().unwrap_or_else(host));
    let plan = Plan::new(bucket, prefix, &args.queue.clone().unwrap_or_else(name));
    if let Some(form) = args.print {
        return output::print(plan.print(form, config.region.as_deref()).trim_end());
    }
    let connected = connect(&config).await?;
    let made = setup::apply(&plan, &connected.client, &setup::service(&connected)).await?;
    let verb = if made.was_there { "was there" } else { "made" };
    output::print(&format!(
        "queue {} {verb}, and s3://{bucket}/{prefix} sends its events to it\n\
         check with:  fasts3 events check s3://{bucket}/{prefix} --events sqs={url}\n\
         serve with:  fasts3 serve s3://{bucket}/{prefix} --cache DIR --events sqs={url}",
        plan.queue,
        url = made.url,
    ))
}

/// What is looked at, and where it is told.
struct Look<'a> {
    args: &'a CheckArgs,
    connected: &'a Connected,
    findings: Vec<Finding>,
}

async fn look(args: CheckArgs, config: S3Config) -> anyhow::Result<()> {
    let connected = connect(&config).await?;
    let mut look = Look { args: &args, connected: &connected, findings: Vec::new() };
    for source in &args.events {
        look.at(source).await?;
    }
    if args.json {
        output::print_json(&look.findings)?;
    }
    match look.findings.iter().filter(|finding| finding.verdict == Verdict::Wrong).count() {
        0 => Ok(()),
        wrong => bail!("{} wrong with the events", output::count(wrong as u64, "thing")),
    }
}

impl Look<'_> {
    /// Prints as it goes: the wait for a probe may be long.
    fn tell(&mut self, finding: Finding) -> anyhow::Result<()> {
        if !self.args.json {
            let sign = match finding.verdict {
                Verdict::Good => "ok   ",
                Verdict::Doubt => "?    ",
                Verdict::Wrong => "WRONG",
            };
            output::print(&format!("{sign} {}", finding.what))?;
        }
        self.findings.push(finding);
        Ok(())
    }

    async fn at(&mut self, source: &EventSource) -> anyhow::Result<()> {
        let BucketUrl { bucket, prefix } = &self.args.bucket;
        let check = Check { bucket, prefix, s3: &self.connected.client, clock: Clock::system() };
        match source {
            EventSource::Sqs(url) => {
                let sqs = sqs::client(&self.connected.shared, url, sqs::Timing::default());
                let queue = Queue { url, sqs: &sqs };
                let findings = check.configuration(&queue).await;
                let is_there = findings.first().is_some_and(|first| first.verdict != Verdict::Wrong);
                for finding in findings {
                    self.tell(finding)?;
                }
                if is_there { self.probe(&check, source, Some(&queue)).await } else { Ok(()) }
            }
            EventSource::Webhook(_) => match self.server().await {
                Some(_) => self.probe(&check, source, None).await,
                None => self.tell(Finding::wrong(
                    "what comes to a webhook is known to its server alone: start it, and give its --cache",
                )),
            },
        }
    }

    /// The server of `--cache`, if it runs: then it takes the events, and is the one to ask.
    async fn server(&self) -> Option<Server> {
        let client = Client::new(self.args.cache.as_deref()?);
        let status = client.get("/status").await.ok()?;
        Some(Server { client, status })
    }

    async fn probe(
        &mut self,
        check: &Check<'_>,
        source: &EventSource,
        queue: Option<&Queue<'_>>,
    ) -> anyhow::Result<()> {
        let server = self.server().await;
        if server.as_ref().is_some_and(|server| state(&server.status, source).is_none()) {
            return self.tell(Finding::wrong(format!(
                "the running server does not listen to that: start it with --events {source}"
            )));
        }
        let probe = match check.probe().await {
            Ok(probe) => probe,
            Err(finding) => return self.tell(finding),
        };
        let patience = self.args.timeout;
        let came = match (&server, queue) {
            (Some(server), _) => tokio::time::timeout(patience, seen_by(&server.client, source, &probe)).await.is_ok(),
            (None, Some(queue)) => probe.comes(queue, patience).await,
            (None, None) => false,
        };
        let after = if came { probe.age() } else { patience };
        self.tell(check::verdict(came, after, server.is_some()))?;
        match probe.remove().await {
            Some(left) => self.tell(left),
            None => Ok(()),
        }
    }
}

/// A running server.
struct Server {
    client: Client,
    /// What it said when it was found.
    status: Value,
}

/// Waits until the server says that it got the probe's event, and from there.
async fn seen_by(server: &Client, source: &EventSource, probe: &Probe<'_>) {
    loop {
        let status = server.get("/status").await.unwrap_or_default();
        if state(&status, source).is_some_and(|state| state["probe"] == probe.key.as_str()) {
            return;
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// What a server says of one of its sources; `None` when it has no such.
fn state<'a>(status: &'a Value, source: &EventSource) -> Option<&'a Value> {
    let name = match source {
        EventSource::Sqs(url) => url.to_string(),
        EventSource::Webhook(address) => address.to_string(),
    };
    status["events"]["sources"].as_array()?.iter().find(|state| state["source"] == name.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn probe_counts_where_it_should_come() {
        let sources = json!([{"source": "http://h/1/q", "probe": "x"}, {"source": "127.0.0.1:1", "probe": null}]);
        let status = json!({"events": {"sources": sources}});
        let probe = |source: &str| state(&status, &source.parse().unwrap()).map(|state| state["probe"].clone());
        assert_eq!(probe("sqs=http://h/1/q"), Some(json!("x")));
        assert_eq!(probe("webhook=127.0.0.1:1"), Some(Value::Null));
        assert_eq!(probe("sqs=http://h/1/other"), None);
        assert_eq!(state(&Value::Null, &"webhook=127.0.0.1:1".parse().unwrap()), None);
    }
}
