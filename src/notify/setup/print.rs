//! The same for those who make things with tools of their own: JSON, a script for the AWS CLI, Terraform.

use serde_json::{Value, json};

use super::{Arn, EVENTS, Plan, RETENTION_SECONDS, WAIT_SECONDS};

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// Queue, policy and notification as the AWS APIs take them.
    Json,
    /// A shell script that calls the AWS CLI.
    Cli,
    /// Terraform.
    Terraform,
}

impl Plan {
    /// What is to be made, in the words of others. `region`: of the bucket, where it is known.
    pub fn print(&self, form: Form, region: Option<&str>) -> String {
        match form {
            Form::Json => self.json(region.unwrap_or("REGION")),
            Form::Cli => self.cli(region),
            Form::Terraform => self.terraform(),
        }
    }

    /// The document of the policy of a queue.
    fn policy_for(&self, queue: &Arn<'_>) -> Value {
        json!({ "Version": "2012-10-17", "Statement": [self.statement(queue)] })
    }

    fn notification_for(&self, queue: &str) -> Value {
        let mut ours = json!({"Id": self.id(), "QueueArn": queue, "Events": EVENTS});
        if !self.prefix.is_empty() {
            ours["Filter"] = json!({"Key": {"FilterRules": [{"Name": "prefix", "Value": self.prefix}]}});
        }
        json!({ "QueueConfigurations": [ours] })
    }

    fn json(&self, region: &str) -> String {
        let (partition, account) = (partition(region), "ACCOUNT_ID");
        let queue = format!("arn:{partition}:sqs:{region}:{account}:{}", self.queue);
        let attributes = json!({
            "MessageRetentionPeriod": RETENTION_SECONDS.to_string(),
            "ReceiveMessageWaitTimeSeconds": WAIT_SECONDS.to_string(),
        });
        let all = json!({
            "queue": {"QueueName": self.queue, "Attributes": attributes},
            "policy": self.policy_for(&Arn { whole: &queue, partition, account }),
            "notification": {"Bucket": self.bucket, "NotificationConfiguration": self.notification_for(&queue)},
        });
        format!("{all:#}")
    }

    fn cli(&self, region: Option<&str>) -> String {
        let region = region.map(|region| format!(" --region {region}")).unwrap_or_default();
        let policy = self.policy_for(&Arn { whole: ARN, partition: PARTITION, account: ACCOUNT }).to_string();
        let policy = in_here_document(&json!({ "Policy": policy }));
        let notification = in_here_document(&self.notification_for(ARN));
        let Plan { bucket, queue, .. } = self;
        format!(
            r#"#!/bin/sh
# Sends the events of bucket {bucket} to the SQS queue {queue}.
# The last command REPLACES all notifications of the bucket. Where it has others, add this one to what
#   aws s3api get-bucket-notification-configuration --bucket {bucket}
# prints, or let `fasts3 events setup` do so.
set -eu
url=$(aws sqs create-queue{region} --queue-name {queue} --query QueueUrl --output text \
  --attributes MessageRetentionPeriod={RETENTION_SECONDS},ReceiveMessageWaitTimeSeconds={WAIT_SECONDS})
arn=$(aws sqs get-queue-attributes{region} --queue-url "$url" --attribute-names QueueArn \
  --query Attributes.QueueArn --output text)
partition=$(echo "$arn" | cut -d: -f2) account=$(echo "$arn" | cut -d: -f5)
aws sqs set-queue-attributes{region} --queue-url "$url" --attributes "$(cat <<END
{policy}
END
)"
aws s3api put-bucket-notification-configuration{region} --bucket {bucket} --notification-configuration "$(cat <<END
{notification}
END
)"
printf '%s\n' "fasts3 serve s3://{bucket}/{prefix} --events sqs=$url ..."
"#,
            prefix = for_shell(&self.prefix).replace('"', "\\\""),
        )
    }

    fn terraform(&self) -> String {
        let Plan { bucket, queue, .. } = self;
        format!(
            r#"# Sends the events of bucket {bucket} to the SQS queue {queue}.
# A bucket has one aws_s3_bucket_notification: where there is one already, add the queue block to it.

data "aws_caller_identity" "fasts3" {{}}

data "aws_partition" "fasts3" {{}}

resource "aws_sqs_queue" "fasts3" {{
  name                      = {queue}
  message_retention_seconds = {RETENTION_SECONDS}
  receive_wait_time_seconds = {WAIT_SECONDS}
}}

resource "aws_sqs_queue_policy" "fasts3" {{
  queue_url = aws_sqs_queue.fasts3.id
  policy = jsonencode({{
    Version = "2012-10-17"
    Statement = [{{
      Sid       = {queue}
      Effect    = "Allow"
      Principal = {{ Service = "s3.amazonaws.com" }}
      Action    = "sqs:SendMessage"
      Resource  = aws_sqs_queue.fasts3.arn
      Condition = {{
        ArnEquals    = {{ "aws:SourceArn" = "arn:${{data.aws_partition.fasts3.partition}}:s3:::{bucket}" }}
        StringEquals = {{ "aws:SourceAccount" = data.aws_caller_identity.fasts3.account_id }}
      }}
    }}]
  }})
}}

resource "aws_s3_bucket_notification" "fasts3" {{
  bucket = {bucket_name}
  queue {{
    id            = {queue}
    queue_arn     = aws_sqs_queue.fasts3.arn
    events        = [{events}]
    filter_prefix = {prefix}
  }}
  depends_on = [aws_sqs_queue_policy.fasts3]
}}

output "fasts3_events" {{
  value = "sqs=${{aws_sqs_queue.fasts3.id}}"
}}
"#,
            queue = quoted(queue),
            bucket_name = quoted(bucket),
            events = EVENTS.map(quoted).join(", "),
            prefix = if self.prefix.is_empty() { "null".to_owned() } else { quoted(&self.prefix) },
        )
    }
}

/// What the shell fills in.
const ARN: &str = "@QUEUE_ARN@";
const PARTITION: &str = "@PARTITION@";
const ACCOUNT: &str = "@ACCOUNT_ID@";

/// `document` so that the shell changes nothing of it but these.
fn in_here_document(document: &Value) -> String {
    let filled = [(ARN, "$arn"), (PARTITION, "$partition"), (ACCOUNT, "$account")];
    filled.into_iter().fold(for_shell(&document.to_string()), |text, (place, variable)| text.replace(place, variable))
}

/// The part of AWS that a region is in: its ARNs begin with it.
fn partition(region: &str) -> &'static str {
    match region.split_once('-') {
        Some(("cn", _)) => "aws-cn",
        Some(("us", rest)) if rest.starts_with("gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// `text` so that the shell changes nothing of it; quotes are as they were.
fn for_shell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('$', "\\$").replace('`', "\\`")
}

/// A string of Terraform.
fn quoted(text: &str) -> String {
    json!(text).to_string().replace("${", "$${").replace("%{", "%%{")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plan() -> Plan {
        Plan::new("media", r#"odd $(x) `y` \"z"/"#, "fasts3-media")
    }

    #[test]
    fn json_is_what_the_apis_take() {
        let printed: Value = serde_json::from_str(&plan().print(Form::Json, Some("eu-west-1"))).unwrap();
        let arn = "arn:aws:sqs:eu-west-1:ACCOUNT_ID:fasts3-media";
        assert_eq!(printed["policy"]["Statement"][0]["Resource"], arn);
        let notification = &printed["notification"]["NotificationConfiguration"]["QueueConfigurations"][0];
        assert_eq!(
            (&notification["QueueArn"], &notification["Events"][1]),
            (&json!(arn), &json!("s3:ObjectRemoved:*"))
        );
        assert_eq!(notification["Filter"]["Key"]["FilterRules"][0]["Value"], plan().prefix);
    }

    #[test]
    fn names_of_queues_and_buckets_are_those_of_their_part_of_aws() {
        for (region, partition) in [("us-east-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")] {
            let printed: Value = serde_json::from_str(&plan().print(Form::Json, Some(region))).unwrap();
            let statement = &printed["policy"]["Statement"][0];
            assert_eq!(statement["Resource"], format!("arn:{partition}:sqs:{region}:ACCOUNT_ID:fasts3-media"));
            assert_eq!(statement["Condition"]["ArnEquals"]["aws:SourceArn"], format!("arn:{partition}:s3:::media"));
        }
    }

    #[test]
    fn terraform_quotes_what_it_would_take_for_its_own() {
        let printed = Plan::new("media", "${x}%{y}/", "q").print(Form::Terraform, None);
        assert!(printed.contains(r#"filter_prefix = "$${x}%%{y}/""#), "{printed}");
        assert!(Plan::new("media", "", "q").print(Form::Terraform, None).contains("filter_prefix = null\n"));
    }

    /// Runs the script with a shell, and in the place of `aws` one that shows what it was called with.
    #[cfg(unix)]
    #[test]
    fn script_gives_the_aws_cli_the_documents_whatever_the_prefix_is() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let aws = dir.path().join("aws");
        let shown = r#"#!/bin/sh
case "$*" in
*create-queue*) echo http://sqs/123456789012/q;;
*get-queue-attributes*) echo arn:aws-cn:sqs:cn-north-1:123456789012:q;;
*) for last; do :; done; printf '%s\n' "$last";;
esac
"#;
        std::fs::write(&aws, shown).unwrap();
        std::fs::set_permissions(&aws, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let script = plan().print(Form::Cli, Some("cn-north-1"));
        let ran = std::process::Command::new("sh").args(["-c", &script]).env("PATH", path).output().unwrap();
        let out = String::from_utf8(ran.stdout).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 3, "{out} {:?}", String::from_utf8_lossy(&ran.stderr));
        let attributes: Value = serde_json::from_str(lines[0]).unwrap();
        let policy: Value = serde_json::from_str(attributes["Policy"].as_str().unwrap()).unwrap();
        let arn = "arn:aws-cn:sqs:cn-north-1:123456789012:q";
        assert_eq!(policy, plan().policy_for(&Arn::new(arn).unwrap()));
        let notification: Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(notification, plan().notification_for(arn));
        let serve = format!("fasts3 serve s3://media/{} --events sqs=http://sqs/123456789012/q ...", plan().prefix);
        assert_eq!(lines[2], serve);
    }
}
