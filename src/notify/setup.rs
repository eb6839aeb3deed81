//! What S3 needs so that its events reach a queue: the queue, its policy, the notification of the bucket.
//! Owns: the names and contents of these, and how they are added to what is there.
//! Invariant: what others configured stays: statements of the policy and notifications of the bucket are added, or replaced
//! where they are ours by name.

mod print;

pub use print::Form;

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_s3::types::{
    Event, FilterRule, FilterRuleName, NotificationConfiguration, NotificationConfigurationFilter, QueueConfiguration,
    S3KeyFilter,
};
use aws_sdk_sqs::types::QueueAttributeName as Attribute;
use serde_json::{Value, json};

use super::QueueUrl;
use super::sqs::{self, Timing};
use crate::store::{Connected, Failure};

/// What changes an object, in S3's words. Lifecycle rules remove without an `ObjectRemoved`.
pub const EVENTS: [&str; 3] = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*"];
/// A day: a server that was away longer asks S3 of everything anyway, as after every start.
const RETENTION_SECONDS: u32 = 86_400;
/// The most that SQS does: an idle poll is then three requests a minute.
const WAIT_SECONDS: u32 = 20;
/// A policy is known to all of AWS within seconds; until then S3 takes the queue for one that it may not use.
const PATIENCE: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];
/// Longest name of a queue.
const MAX_NAME: usize = 80;

/// What is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The bucket.
    pub bucket: String,
    /// The part of it that counts: empty, or ending in `/`.
    pub prefix: String,
    /// Name of the queue.
    pub queue: String,
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// The queue.
    pub url: QueueUrl,
    /// Its ARN.
    pub arn: String,
    /// Whether it was there before.
    pub was_there: bool,
}

/// Why it was not made; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A request was refused.
    #[error("cannot {what}: {message}{}", advice(message, permission))]
    Refused {
        /// What was tried.
        what: &'static str,
        /// What AWS said.
        message: String,
        /// The permission that it takes.
        permission: &'static str,
    },
    /// S3 sends each event to one place only.
    #[error(
        "bucket {bucket} already sends these events elsewhere, and S3 sends each to one place only: send them to an SNS \
         topic, or turn EventBridge on, and subscribe the queue {queue} to that; fasts3 reads all three forms"
    )]
    Overlap {
        /// The bucket.
        bucket: String,
        /// The queue.
        queue: String,
    },
    /// The service answered nonsense.
    #[error(
        "the answer about queue {0} makes no sense: is --endpoint-url a server with SQS? MinIO and Ceph have webhooks instead: --events webhook=ADDRESS:PORT"
    )]
    NoQueue(String),
}

fn advice(message: &str, permission: &str) -> String {
    match message.contains("AccessDenied") || message.contains("not authorized") {
        true => {
            format!("; these credentials need {permission}, or let somebody who has it run what --print cli prints")
        }
        false => String::new(),
    }
}

impl Plan {
    /// A queue of that name for the events below `prefix`.
    pub fn new(bucket: &str, prefix: &str, queue: &str) -> Plan {
        Plan { bucket: bucket.into(), prefix: prefix.into(), queue: queue.into() }
    }

    /// A name for the queue of this server: every server needs one of its own, because a message goes to one reader.
    pub fn default_queue(bucket: &str, prefix: &str, host: &str) -> String {
        let name = ["fasts3", bucket, prefix.trim_end_matches('/'), host].join("-");
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let mut name: String = name.chars().map(|c| if is_legal(c) { c } else { '-' }).collect();
        while name.contains("--") {
            name = name.replace("--", "-");
        }
        name.truncate(MAX_NAME);
        name.trim_end_matches('-').to_owned()
    }

    /// What our statement and our notification are called.
    fn id(&self) -> String {
        self.queue.clone()
    }

    fn attributes(&self) -> [(Attribute, String); 2] {
        [
            (Attribute::MessageRetentionPeriod, RETENTION_SECONDS.to_string()),
            (Attribute::ReceiveMessageWaitTimeSeconds, WAIT_SECONDS.to_string()),
        ]
    }

    /// Lets S3 send what happens in the bucket, and nobody else.
    fn statement(&self, arn: &Arn<'_>) -> Value {
        json!({
            "Sid": self.id(),
            "Effect": "Allow",
            "Principal": {"Service": "s3.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn.whole,
            "Condition": {
                "ArnEquals": {"aws:SourceArn": format!("arn:{}:s3:::{}", arn.partition, self.bucket)},
                "StringEquals": {"aws:SourceAccount": arn.account},
            },
        })
    }

    /// `policy` with our statement in it.
    fn policy(&self, arn: &Arn<'_>, policy: Option<&str>) -> Value {
        let mut policy = policy
            .and_then(|text| serde_json::from_str::<Value>(text).ok())
            .filter(Value::is_object)
            .unwrap_or_else(|| json!({"Version": "2012-10-17"}));
        let mut statements = match policy["Statement"].take() {
            Value::Array(statements) => statements,
            Value::Null => Vec::new(),
            one => vec![one],
        };
        statements.retain(|statement| statement["Sid"] != self.id().as_str());
        statements.push(self.statement(arn));
        policy["Statement"] = Value::Array(statements);
        policy
    }

    fn notification(&self, arn: &str) -> QueueConfiguration {
        let rule = FilterRule::builder().name(FilterRuleName::Prefix).value(&self.prefix).build();
        let key = S3KeyFilter::builder().filter_rules(rule).build();
        let filter = NotificationConfigurationFilter::builder().key(key).build();
        QueueConfiguration::builder()
            .id(self.id())
            .queue_arn(arn)
            .set_events(Some(EVENTS.into_iter().map(Event::from).collect()))
            .set_filter((!self.prefix.is_empty()).then_some(filter))
            .build()
            .expect("ARN and events are set")
    }
}

/// The parts of the name of a queue.
struct Arn<'a> {
    whole: &'a str,
    partition: &'a str,
    account: &'a str,
}

impl<'a> Arn<'a> {
    /// `arn:PARTITION:sqs:REGION:ACCOUNT:NAME`.
    fn new(whole: &'a str) -> Option<Arn<'a>> {
        match *whole.split(':').collect::<Vec<_>>() {
            ["arn", partition, "sqs", _, account, _] => Some(Arn { whole, partition, account }),
            _ => None,
        }
    }
}

/// A client of the SQS that is beside this S3, in the region of the bucket, which is where its events can go.
pub fn service(connected: &Connected) -> aws_sdk_sqs::Client {
    let region = connected.client.config().region().cloned();
    aws_sdk_sqs::Client::from_conf(sqs::builder(&connected.shared, Timing::default()).region(region).build())
}

/// Makes what is not there yet.
/// # Errors
/// When something is refused; what was made by then stays, and doing it again goes on from there.
pub async fn apply(plan: &Plan, s3: &aws_sdk_s3::Client, sqs: &aws_sdk_sqs::Client) -> Result<Made, SetupError> {
    let (url, was_there) = queue(plan, sqs).await?;
    let arn = allow(plan, sqs, &url).await?;
    notify(plan, s3, &arn).await?;
    Ok(Made { url, arn, was_there })
}

async fn queue(plan: &Plan, sqs: &aws_sdk_sqs::Client) -> Result<(QueueUrl, bool), SetupError> {
    let nonsense = || SetupError::NoQueue(plan.queue.clone());
    let parse = |url: Option<&str>| url.and_then(|url| url.parse().ok()).ok_or_else(nonsense);
    // creating one that has other attributes is an error
    if let Ok(found) = sqs.get_queue_url().queue_name(&plan.queue).send().await {
        return Ok((parse(found.queue_url())?, true));
    }
    let create = sqs.create_queue().queue_name(&plan.queue);
    let attributes = HashMap::from(plan.attributes());
    let made = create.set_attributes(Some(attributes)).send().await;
    let made = made.map_err(|e| refused(&Failure::new(&e), "create the queue", "sqs:CreateQueue"))?;
    Ok((parse(made.queue_url())?, false))
}

/// Lets S3 send to the queue, and gives the queue's ARN.
async fn allow(plan: &Plan, sqs: &aws_sdk_sqs::Client, url: &QueueUrl) -> Result<String, SetupError> {
    let ask = sqs.get_queue_attributes().queue_url(url.as_str());
    let ask = ask.attribute_names(Attribute::QueueArn).attribute_names(Attribute::Policy);
    let told = ask.send().await;
    let told = told.map_err(|e| refused(&Failure::new(&e), "look at the queue", "sqs:GetQueueAttributes"))?;
    let nonsense = || SetupError::NoQueue(plan.queue.clone());
    let attributes = told.attributes().ok_or_else(nonsense)?;
    let arn = attributes.get(&Attribute::QueueArn).ok_or_else(nonsense)?;
    let policy = attributes.get(&Attribute::Policy).map(String::as_str);
    let policy = plan.policy(&Arn::new(arn).ok_or_else(nonsense)?, policy);
    let set = sqs.set_queue_attributes().queue_url(url.as_str()).attributes(Attribute::Policy, policy.to_string());
    let set = set.send().await;
    set.map_err(|e| refused(&Failure::new(&e), "let S3 send to the queue", "sqs:SetQueueAttributes"))?;
    Ok(arn.clone())
}

/// Adds the notification to those of the bucket.
async fn notify(plan: &Plan, s3: &aws_sdk_s3::Client, arn: &str) -> Result<(), SetupError> {
    let there = s3.get_bucket_notification_configuration().bucket(&plan.bucket).send().await;
    let there =
        there.map_err(|e| refused(&Failure::new(&e), "read the bucket's notifications", "s3:GetBucketNotification"))?;
    let ours = plan.notification(arn);
    let mut queues = there.queue_configurations.unwrap_or_default();
    if queues.contains(&ours) {
        return Ok(());
    }
    queues.retain(|queue| queue.id() != ours.id());
    queues.push(ours);
    let all = NotificationConfiguration::builder()
        .set_queue_configurations(Some(queues))
        .set_topic_configurations(there.topic_configurations)
        .set_lambda_function_configurations(there.lambda_function_configurations)
        .set_event_bridge_configuration(there.event_bridge_configuration)
        .build();
    let mut patience = PATIENCE.into_iter();
    loop {
        let put = s3.put_bucket_notification_configuration().bucket(&plan.bucket);
        let Err(error) = put.notification_configuration(all.clone()).send().await else { return Ok(()) };
        let failure = Failure::new(&error);
        if failure.message.to_ascii_lowercase().contains("overlap") || failure.message.contains("ambiguously") {
            return Err(SetupError::Overlap { bucket: plan.bucket.clone(), queue: plan.queue.clone() });
        }
        match patience.next() {
            Some(pause) if failure.message.contains("validate the following destination") => {
                tokio::time::sleep(pause).await;
            }
            _ => return Err(refused(&failure, "add the notification to the bucket", "s3:PutBucketNotification")),
        }
    }
}

fn refused(failure: &Failure, what: &'static str, permission: &'static str) -> SetupError {
    SetupError::Refused { what, message: failure.message.clone(), permission }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ARN: &str = "arn:aws-cn:sqs:cn-north-1:123456789012:q";

    #[test]
    fn queues_are_named_for_bucket_and_host() {
        let name = |bucket, prefix, host| Plan::default_queue(bucket, prefix, host);
        assert_eq!(name("media", "", "web1"), "fasts3-media-web1");
        assert_eq!(name("my.media", "a b/c/", "web1"), "fasts3-my-media-a-b-c-web1");
        let long = name(&"b".repeat(63), &"p/".repeat(100), "web1");
        assert!(long.len() <= MAX_NAME && !long.ends_with('-'), "{long}");
    }

    #[test]
    fn statements_of_others_stay_and_ours_is_replaced() {
        let plan = Plan::new("media", "", "q");
        let arn = Arn::new(ARN).unwrap();
        let fresh = plan.policy(&arn, None);
        assert_eq!(fresh["Statement"].as_array().unwrap().len(), 1);
        let statement = &fresh["Statement"][0];
        assert_eq!(statement["Condition"]["ArnEquals"]["aws:SourceArn"], "arn:aws-cn:s3:::media");
        assert_eq!(statement["Condition"]["StringEquals"]["aws:SourceAccount"], "123456789012");
        let theirs = json!({"Version": "2008-10-17", "Id": "x", "Statement": {"Sid": "theirs"}}).to_string();
        let both = plan.policy(&arn, Some(&theirs));
        assert_eq!((&both["Version"], &both["Statement"][0]["Sid"]), (&json!("2008-10-17"), &json!("theirs")));
        assert_eq!(plan.policy(&arn, Some(&both.to_string())), both, "twice is once");
        assert_eq!(plan.policy(&arn, Some("no JSON")), fresh);
    }

    #[test]
    fn only_a_prefix_is_filtered() {
        assert_eq!(Plan::new("media", "", "q").notification(ARN).filter(), None);
        let filtered = Plan::new("media", "a/", "q").notification(ARN);
        let rule = &filtered.filter().unwrap().key().unwrap().filter_rules()[0];
        assert_eq!((rule.name(), rule.value()), (Some(&FilterRuleName::Prefix), Some("a/")));
    }

    #[test]
    fn refusals_say_which_permission_it_takes() {
        let error = |message: &str| {
            let failure = Failure { status: 403, code: String::new(), message: message.into(), region: None };
            refused(&failure, "create the queue", "sqs:CreateQueue").to_string()
        };
        assert!(error("AccessDenied: no").contains("need sqs:CreateQueue"));
        assert_eq!(error("other"), "cannot create the queue: other");
    }
}
