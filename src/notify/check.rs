//! Looks whether events come, and says what is wrong when they do not.
//! Invariants
//! - Nothing is changed but a probe object, which is removed again; messages of others are put back.
//! - What cannot be looked at is a doubt, not an error: the probe decides.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_s3::operation::get_bucket_notification_configuration::GetBucketNotificationConfigurationOutput as Notifications;
use aws_sdk_s3::types::{Event, FilterRuleName, QueueConfiguration};
use aws_sdk_sqs::types::QueueAttributeName as Attribute;
use serde::Serialize;
use serde_json::Value;

use super::records::{self, Message};
use super::sqs::explain;
use super::{Origin, QueueUrl, Scope};
use crate::store::Failure;
use crate::store::conditions::probe_key;
use crate::types::{Clock, Key, Tick};

/// More than a server that reads leaves waiting.
const MANY: u64 = 1_000;
/// How long one poll waits; short, so that the end is not missed by much.
const WAIT_SECONDS: i32 = 5;

/// How it stands with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It may or may not be.
    Doubt,
    /// It is wrong.
    Wrong,
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it stands.
    pub verdict: Verdict,
    /// What it is, and what to do about it.
    pub what: String,
}

impl Finding {
    fn good(what: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Good, what: what.into() }
    }

    fn doubt(what: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Doubt, what: what.into() }
    }

    /// Something that has to be done.
    pub fn wrong(what: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Wrong, what: what.into() }
    }
}

/// What is looked at, and with what.
pub struct Check<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The part of it that is served.
    pub prefix: &'a str,
    /// Client of the bucket.
    pub s3: &'a aws_sdk_s3::Client,
    /// Source of time.
    pub clock: Clock,
}

/// A queue that should have the events.
pub struct Queue<'a> {
    /// Its URL.
    pub url: &'a QueueUrl,
    /// Client of its service.
    pub sqs: &'a aws_sdk_sqs::Client,
}

impl Check<'_> {
    /// Looks at a queue, its policy, and the notifications of the bucket.
    pub async fn configuration(&self, queue: &Queue<'_>) -> Vec<Finding> {
        let ask = queue.sqs.get_queue_attributes().queue_url(queue.url.as_str());
        let attributes = match ask.attribute_names(Attribute::All).send().await {
            Ok(told) => told.attributes.unwrap_or_default(),
            Err(error) => {
                let failure = Failure::new(&error);
                return vec![match failure.code.contains("AccessDenied") {
                    true => {
                        Finding::doubt("the queue cannot be looked at: the credentials lack sqs:GetQueueAttributes")
                    }
                    false => Finding::wrong(format!("queue {}: {}", queue.url, explain(&failure))),
                }];
            }
        };
        let told = |name| attributes.get(&name).map(String::as_str);
        let mut findings = vec![Finding::good(format!("the queue is there: {}", queue.url))];
        let waiting = told(Attribute::ApproximateNumberOfMessages).and_then(|n| n.parse().ok()).unwrap_or(0);
        if waiting > MANY {
            findings.push(Finding::doubt(format!("{waiting} messages wait in the queue: does a server read it?")));
        }
        if told(Attribute::KmsMasterKeyId).is_some_and(|key| key.ends_with("alias/aws/sqs")) {
            findings.push(Finding::wrong(
                "the queue is encrypted with the account's own key for SQS, which S3 cannot use: encrypt it with SSE-SQS, \
                 or with a key of KMS whose policy lets s3.amazonaws.com use it",
            ));
        }
        findings.push(self.policy(told(Attribute::Policy)));
        if let Some(arn) = told(Attribute::QueueArn) {
            findings.extend(self.notifications(arn).await);
        }
        findings
    }

    /// Whether somebody who brings events may send to the queue.
    fn policy(&self, policy: Option<&str>) -> Finding {
        let policy: Value = policy.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let senders: BTreeSet<&str> = list(&policy["Statement"]).filter_map(|s| self.sender(s)).collect();
        match senders.is_empty() {
            false => Finding::good(format!("its policy lets it be sent to by {}", Vec::from_iter(senders).join(", "))),
            true => Finding::wrong(format!(
                "the policy of the queue does not let S3 send what happens in bucket {}: `fasts3 events setup` adds that",
                self.bucket
            )),
        }
    }

    /// Whom a statement lets send, if it is one of those who bring events of this bucket.
    fn sender<'s>(&self, statement: &'s Value) -> Option<&'s str> {
        let may_send = list(&statement["Action"]).filter_map(Value::as_str).any(|action| {
            matches!(action.to_ascii_lowercase().as_str(), "sqs:sendmessage" | "sqs:send*" | "sqs:*" | "*")
        });
        if statement["Effect"] != "Allow" || !may_send {
            return None;
        }
        let principal = &statement["Principal"];
        let services = list(&principal["Service"]).chain(list(&principal["AWS"])).chain([principal]);
        let sender = services.filter_map(Value::as_str).find(|service| {
            matches!(*service, "*" | "s3.amazonaws.com" | "sns.amazonaws.com" | "events.amazonaws.com")
        })?;
        let is_of_bucket = sender != "s3.amazonaws.com"
            || sources(&statement["Condition"]).is_none_or(|arns| {
                arns.iter().any(|arn| fits(arn.rsplit(':').next().unwrap_or_default(), self.bucket))
            });
        is_of_bucket.then_some(sender)
    }

    async fn notifications(&self, arn: &str) -> Vec<Finding> {
        let told = self.s3.get_bucket_notification_configuration().bucket(self.bucket).send().await;
        match told {
            Ok(told) => self.routes(&told, arn),
            Err(error) => {
                let failure = Failure::new(&error);
                let message = failure.message;
                vec![Finding::doubt(format!(
                    "the notifications of the bucket cannot be looked at ({message}); it takes s3:GetBucketNotification"
                ))]
            }
        }
    }

    /// Whether what the bucket sends comes to the queue.
    fn routes(&self, told: &Notifications, arn: &str) -> Vec<Finding> {
        let ours: Vec<_> = told.queue_configurations().iter().filter(|queue| queue.queue_arn() == arn).collect();
        if ours.is_empty() {
            return vec![self.detour(told)];
        }
        let (fitting, elsewhere): (Vec<_>, Vec<_>) = ours.into_iter().partition(|queue| self.covers(queue));
        if fitting.is_empty() {
            let prefixes: Vec<_> = elsewhere.iter().filter_map(|queue| rule(queue, &FilterRuleName::Prefix)).collect();
            return vec![Finding::wrong(format!(
                "the bucket sends to the queue what happens below {}, and s3://{}/{} is served: \
                 run `fasts3 events setup` for that",
                prefixes.join(" and "),
                self.bucket,
                self.prefix
            ))];
        }
        let mut findings = vec![Finding::good("the bucket sends its events to the queue")];
        if let Some(suffix) = fitting.iter().find_map(|queue| rule(queue, &FilterRuleName::Suffix)) {
            findings.push(Finding::doubt(format!("only of keys that end in {suffix:?}")));
        }
        let has = |wanted: &str| fitting.iter().any(|queue| queue.events().iter().any(|event| is_all(event, wanted)));
        for (wanted, what) in [("s3:ObjectCreated:*", "written"), ("s3:ObjectRemoved:*", "removed")] {
            if !has(wanted) {
                findings.push(Finding::wrong(format!(
                    "the bucket does not tell of every object that is {what}: add {wanted} to the notification"
                )));
            }
        }
        findings
    }

    /// What else may bring the events.
    fn detour(&self, told: &Notifications) -> Finding {
        if let Some(topic) = told.topic_configurations().first() {
            return Finding::doubt(format!(
                "the bucket sends events to SNS, not to the queue: the queue must be subscribed to {}",
                topic.topic_arn()
            ));
        }
        if told.event_bridge_configuration().is_some() {
            return Finding::doubt(
                "the bucket sends events to EventBridge, not to the queue: a rule there must have the queue as its target",
            );
        }
        Finding::wrong(format!("bucket {} sends no events to the queue: run `fasts3 events setup`", self.bucket))
    }

    /// Whether a notification is of all that is served.
    fn covers(&self, queue: &QueueConfiguration) -> bool {
        rule(queue, &FilterRuleName::Prefix).is_none_or(|prefix| self.prefix.starts_with(prefix))
    }

    /// Writes a probe object.
    /// # Errors
    /// What S3 said.
    pub async fn probe(&self) -> Result<Probe<'_>, Finding> {
        let key = probe_key();
        let raw = [self.prefix, key.as_str()].concat();
        let put = self.s3.put_object().bucket(self.bucket).key(&raw).body(Vec::new().into());
        match put.send().await {
            Ok(_) => Ok(Probe { check: self, key, raw, since: self.clock.now() }),
            Err(error) => Err(Finding::wrong(format!(
                "no probe object can be written ({}): that takes s3:PutObject on {}* below s3://{}/{}",
                Failure::new(&error).message,
                crate::store::conditions::PROBE_PREFIX,
                self.bucket,
                self.prefix
            ))),
        }
    }
}

/// A probe object in S3, whose event should come.
pub struct Probe<'a> {
    check: &'a Check<'a>,
    /// What a server calls it.
    pub key: Key,
    raw: String,
    since: Tick,
}

impl Probe<'_> {
    /// Waits until its event is in the queue, which nobody else should read meanwhile; `false` when it does not come.
    pub async fn comes(&self, queue: &Queue<'_>, patience: Duration) -> bool {
        let mut others = Vec::new();
        let wait = self.look_for(queue, &mut others, patience);
        let is_here = tokio::time::timeout(patience, wait).await.is_ok();
        for receipt in others {
            let back = queue.sqs.change_message_visibility().queue_url(queue.url.as_str()).receipt_handle(receipt);
            // else it is seen again by itself, later
            let _ = back.visibility_timeout(0).send().await;
        }
        is_here
    }

    async fn look_for(&self, queue: &Queue<'_>, others: &mut Vec<String>, patience: Duration) {
        let hidden = i32::try_from(patience.as_secs() + 10).unwrap_or(i32::MAX).min(43_200);
        let scope = Scope::new(self.check.bucket, self.check.prefix);
        loop {
            let ask = queue.sqs.receive_message().queue_url(queue.url.as_str()).max_number_of_messages(10);
            let Ok(told) = ask.wait_time_seconds(WAIT_SECONDS).visibility_timeout(hidden).send().await else {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            for message in told.messages.unwrap_or_default() {
                let read = records::read(message.body().unwrap_or_default(), &scope, Origin::Sqs);
                let is_ours = matches!(&read, Ok(Message::Events(events)) if events.probes.contains(&self.key));
                let Some(receipt) = message.receipt_handle else { continue };
                if is_ours {
                    let delete = queue.sqs.delete_message().queue_url(queue.url.as_str()).receipt_handle(receipt);
                    let _ = delete.send().await;
                    return;
                }
                others.push(receipt);
            }
        }
    }

    /// How long it has been there.
    pub fn age(&self) -> Duration {
        self.check.clock.now().since(self.since)
    }

    /// Removes it.
    pub async fn remove(self) -> Option<Finding> {
        let delete = self.check.s3.delete_object().bucket(self.check.bucket).key(&self.raw);
        let error = delete.send().await.err()?;
        let message = Failure::new(&error).message;
        Some(Finding::doubt(format!("s3://{}/{} is left over: {message}", self.check.bucket, self.raw)))
    }
}

/// The finding about a probe whose event came after that time, or did not within it.
pub fn verdict(came: bool, after: Duration, was_server_asked: bool) -> Finding {
    let (who, advice) = match was_server_asked {
        true => {
            (" to the running server", " Does that server have these --events, and read the same bucket and prefix?")
        }
        false => (
            "",
            " A server that reads the queue takes it away from this command: give its --cache, or stop it meanwhile.",
        ),
    };
    match came {
        true => Finding::good(format!("the event of a probe object came{who} after {:.1} s", after.as_secs_f64())),
        false => Finding::wrong(format!(
            "the event of a probe object did not come{who} in {} s. S3 takes a minute at times, and new notifications \
             some more: try again, with a longer --timeout.{advice}",
            after.as_secs()
        )),
    }
}

/// The members of a list, or the one that stands in its place.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    let (many, one) = match value {
        Value::Array(many) => (many.as_slice(), None),
        Value::Null => (&[][..], None),
        one => (&[][..], Some(one)),
    };
    many.iter().chain(one)
}

/// The ARNs that a condition wants the source to have; `None` when it does not matter.
fn sources(condition: &Value) -> Option<Vec<&str>> {
    let operators = condition.as_object()?.values().filter_map(Value::as_object);
    let (_, arns) = operators.flatten().find(|(name, _)| name.eq_ignore_ascii_case("aws:SourceArn"))?;
    Some(list(arns).filter_map(Value::as_str).collect())
}

/// Whether a name fits a pattern of a policy, as far as a `*` at its end.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, _)) => name.starts_with(start),
        None => pattern == name,
    }
}

fn rule<'a>(queue: &'a QueueConfiguration, name: &FilterRuleName) -> Option<&'a str> {
    let rules = queue.filter()?.key()?.filter_rules();
    let told = |rule: &&aws_sdk_s3::types::FilterRule| {
        rule.name().is_some_and(|told| told.as_str().eq_ignore_ascii_case(name.as_str()))
    };
    rules.iter().find(told)?.value().filter(|value| !value.is_empty())
}

fn is_all(event: &Event, wanted: &str) -> bool {
    event.as_str() == wanted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::notify::setup::EVENTS;
    use aws_sdk_s3::types::{
        EventBridgeConfiguration, FilterRule, NotificationConfigurationFilter, S3KeyFilter, TopicConfiguration,
    };

    const ARN: &str = "arn:aws:sqs:eu-west-1:123456789012:q";

    fn client() -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::Config::builder().behavior_version_latest();
        aws_sdk_s3::Client::from_conf(config.region(aws_sdk_s3::config::Region::new("eu-west-1")).build())
    }

    fn queue(events: &[&str], rules: &[(FilterRuleName, &str)]) -> QueueConfiguration {
        let rule =
            |(name, value): &(FilterRuleName, &str)| FilterRule::builder().name(name.clone()).value(*value).build();
        let key = S3KeyFilter::builder().set_filter_rules(Some(rules.iter().map(rule).collect())).build();
        let queue = QueueConfiguration::builder().queue_arn(ARN);
        let queue = queue.set_events(Some(events.iter().map(|event| Event::from(*event)).collect()));
        queue.filter(NotificationConfigurationFilter::builder().key(key).build()).build().unwrap()
    }

    /// The verdicts on what a bucket sends, when `a/b/` of it is served.
    fn routes(told: Notifications) -> Vec<(Verdict, String)> {
        let s3 = client();
        let check = Check { bucket: "media", prefix: "a/b/", s3: &s3, clock: Clock::manual() };
        check.routes(&told, ARN).into_iter().map(|finding| (finding.verdict, finding.what)).collect()
    }

    fn sends(queue: QueueConfiguration) -> Notifications {
        Notifications::builder().queue_configurations(queue).build()
    }

    #[test]
    fn notification_must_be_of_all_that_is_served() {
        for prefix in ["", "a/", "a/b/", "a/b"] {
            let verdicts = routes(sends(queue(&EVENTS, &[(FilterRuleName::Prefix, prefix)])));
            assert!(verdicts.iter().all(|(verdict, _)| *verdict == Verdict::Good), "{prefix}: {verdicts:?}");
        }
        let other = routes(sends(queue(&EVENTS, &[(FilterRuleName::Prefix, "a/b/c/")])));
        assert_eq!(other[0].0, Verdict::Wrong);
        assert!(other[0].1.contains("below a/b/c/") && other[0].1.contains("s3://media/a/b/"), "{other:?}");
        let half = routes(sends(queue(&["s3:ObjectCreated:*"], &[(FilterRuleName::Suffix, ".jpg")])));
        assert_eq!(half[1].0, Verdict::Doubt);
        assert!(half[2].0 == Verdict::Wrong && half[2].1.contains("add s3:ObjectRemoved:*"), "{half:?}");
    }

    #[test]
    fn detours_are_doubts_and_nothing_is_wrong() {
        let none = routes(Notifications::builder().build());
        assert!(none[0].0 == Verdict::Wrong && none[0].1.contains("events setup"), "{none:?}");
        let topic = TopicConfiguration::builder().topic_arn("arn:t").events(Event::from("s3:ObjectCreated:*"));
        let topic = routes(Notifications::builder().topic_configurations(topic.build().unwrap()).build());
        assert!(topic[0].0 == Verdict::Doubt && topic[0].1.contains("subscribed to arn:t"), "{topic:?}");
        let bridge = EventBridgeConfiguration::builder().build();
        let bridge = routes(Notifications::builder().event_bridge_configuration(bridge).build());
        assert!(bridge[0].0 == Verdict::Doubt && bridge[0].1.contains("EventBridge"), "{bridge:?}");
    }

    #[test]
    fn policy_must_let_somebody_send_who_brings_events_of_this_bucket() {
        let s3 = client();
        let check = Check { bucket: "media", prefix: "", s3: &s3, clock: Clock::manual() };
        let verdict = |statement: Value| check.policy(Some(&json!({ "Statement": statement }).to_string())).verdict;
        let from = |arn: &str| {
            json!([{"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sqs:SendMessage",
                "Condition": {"ArnLike": {"aws:SourceArn": arn}, "StringEquals": {"aws:SourceAccount": "1"}}}])
        };
        assert_eq!(verdict(from("arn:aws:s3:::media")), Verdict::Good);
        assert_eq!(verdict(from("arn:aws:s3:::med*")), Verdict::Good);
        assert_eq!(verdict(from("arn:aws:s3:::attic")), Verdict::Wrong);
        let anybody = json!({"Effect": "Allow", "Principal": "*", "Action": ["SQS:*"]});
        assert_eq!(verdict(anybody.clone()), Verdict::Good, "one in the place of a list");
        let mut denied = anybody;
        denied["Effect"] = json!("Deny");
        assert_eq!(verdict(denied), Verdict::Wrong);
        let sns =
            json!([{"Effect": "Allow", "Principal": {"Service": ["sns.amazonaws.com"]}, "Action": "sqs:SendMessage"}]);
        assert_eq!(verdict(sns), Verdict::Good);
        let reads = json!([{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sqs:ReceiveMessage"}]);
        assert_eq!(verdict(reads), Verdict::Wrong);
        assert_eq!(check.policy(None).verdict, Verdict::Wrong);
        assert_eq!(check.policy(Some("no JSON")).verdict, Verdict::Wrong);
    }
}
