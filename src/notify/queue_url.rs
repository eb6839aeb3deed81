//! The URL of an SQS queue, which says where its service is, in which region, and whose the queue is.
//! Invariant: what exists has `http` or `https`, a host, an account and a name, and no user or password.

use std::fmt;
use std::str::FromStr;

/// URL of a queue, as AWS prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueUrl {
    url: String,
    /// Length of scheme, host and port.
    endpoint: usize,
}

impl QueueUrl {
    /// The whole of it.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Where the service is: scheme, host and port.
    pub fn endpoint(&self) -> &str {
        &self.url[..self.endpoint]
    }

    /// The name of the queue.
    pub fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or_default()
    }

    /// The region that the host's name tells; `None` where it is not AWS's.
    pub fn region(&self) -> Option<&str> {
        let host = self.endpoint().split("://").nth(1)?;
        let is_aws = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"].iter().any(|end| host.ends_with(end));
        let labels: Vec<&str> = host.split('.').collect();
        match labels.as_slice() {
            _ if !is_aws => None,
            ["queue", "amazonaws", "com"] => Some("us-east-1"),
            [region, "queue", ..] | ["sqs" | "sqs-fips", region, ..] | [_, "sqs", region, "vpce", ..] => Some(region),
            _ => None,
        }
    }
}

impl FromStr for QueueUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<QueueUrl, String> {
        const FORM: &str = "a queue is named by its URL, as in https://sqs.eu-west-1.amazonaws.com/123456789012/NAME";
        if url.starts_with("arn:") {
            return Err(format!("{FORM}, not by its ARN"));
        }
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).ok_or(FORM)?;
        let (host, path) = rest.split_once('/').ok_or(FORM)?;
        let (_, name) = path.rsplit_once('/').ok_or(FORM)?;
        if host.is_empty() || name.is_empty() || url.contains(|c: char| c.is_whitespace() || matches!(c, '?' | '#')) {
            return Err(FORM.into());
        }
        if host.contains('@') {
            return Err("the URL of a queue holds no user name or password".into());
        }
        if name.ends_with(".fifo") {
            return Err("S3 sends no events to FIFO queues: give a standard one".into());
        }
        Ok(QueueUrl { url: url.to_owned(), endpoint: url.len() - path.len() - 1 })
    }
}

impl fmt::Display for QueueUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn url_tells_endpoint_region_and_name() {
        for (url, endpoint, region) in [
            ("https://sqs.eu-west-1.amazonaws.com/1/q", "https://sqs.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("https://eu-west-1.queue.amazonaws.com/1/q", "https://eu-west-1.queue.amazonaws.com", Some("eu-west-1")),
            ("https://queue.amazonaws.com/1/q", "https://queue.amazonaws.com", Some("us-east-1")),
            (
                "https://sqs.cn-north-1.amazonaws.com.cn/1/q",
                "https://sqs.cn-north-1.amazonaws.com.cn",
                Some("cn-north-1"),
            ),
            (
                "https://sqs-fips.us-east-1.amazonaws.com/1/q",
                "https://sqs-fips.us-east-1.amazonaws.com",
                Some("us-east-1"),
            ),
            ("https://sqs.us-east-1.api.aws/1/q", "https://sqs.us-east-1.api.aws", Some("us-east-1")),
            (
                "https://vpce-1-2.sqs.us-west-2.vpce.amazonaws.com/1/q",
                "https://vpce-1-2.sqs.us-west-2.vpce.amazonaws.com",
                Some("us-west-2"),
            ),
            ("http://127.0.0.1:5000/123456789012/q", "http://127.0.0.1:5000", None),
            ("http://sqs.eu-west-1.example.com/1/q", "http://sqs.eu-west-1.example.com", None),
            ("http://minio:9324/queue/1/q", "http://minio:9324", None),
        ] {
            let queue: QueueUrl = url.parse().unwrap();
            assert_eq!((queue.endpoint(), queue.region(), queue.name()), (endpoint, region, "q"), "{url}");
            assert_eq!(queue.to_string(), url);
        }
    }

    #[test]
    fn what_is_no_url_of_a_queue_is_refused_with_the_right_form() {
        for wrong in [
            "",
            "q",
            "sqs.eu-west-1.amazonaws.com/1/q",
            "https://",
            "https:///1/q",
            "https://host",
            "https://host/q",
            "https://host/1/",
            "ftp://host/1/q",
            "https://host/1/q?x",
            "https://host/1/a b",
            "arn:aws:sqs:eu-west-1:1:q",
        ] {
            let error = wrong.parse::<QueueUrl>().unwrap_err();
            assert!(error.contains("as in https://sqs."), "{wrong}: {error}");
        }
        assert!("https://me:secret@host/1/q".parse::<QueueUrl>().unwrap_err().contains("password"));
        assert!("https://host/1/q.fifo".parse::<QueueUrl>().unwrap_err().contains("FIFO"));
    }
}
