//! The values that flags take: how each is written, and what is wrong with one that is not.
//! Every error is one sentence that shows the right form; clap puts the flag's name before it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::PossibleValuesParser;

use crate::config::EventSource;
use crate::store::Dollars;
use crate::types::key::MAX_KEY_BYTES;

/// A bucket and the part of it to serve: `s3://BUCKET[/PREFIX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketUrl {
    /// The bucket.
    pub bucket: String,
    /// Empty, or ending in `/`.
    pub prefix: String,
}

impl FromStr for BucketUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<BucketUrl, String> {
        let Some(path) = url.strip_prefix("s3://") else {
            return Err(match url.contains("://") {
                true => {
                    "a bucket is written s3://BUCKET or s3://BUCKET/PREFIX (the server's URL goes to --endpoint-url)"
                }
                false => "a bucket begins with s3://, as in s3://BUCKET or s3://BUCKET/PREFIX",
            }
            .into());
        };
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        if bucket.starts_with("arn:") {
            return Err("give an access point by its alias, not by its ARN".into());
        }
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !(3..=255).contains(&bucket.len()) || !bucket.chars().all(is_legal) {
            return Err(format!("{bucket:?} is no bucket name: 3 or more letters, digits, dots and hyphens"));
        }
        if prefix.len() >= MAX_KEY_BYTES {
            return Err(format!("the prefix is longer than a key can be ({MAX_KEY_BYTES} bytes)"));
        }
        let slash = if prefix.is_empty() || prefix.ends_with('/') { "" } else { "/" };
        Ok(BucketUrl { bucket: bucket.into(), prefix: format!("{prefix}{slash}") })
    }
}

/// `--admin`: where the pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// `off`: nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminAddress::Off => f.write_str("off"),
            AdminAddress::At(address) => address.fmt(f),
        }
    }
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<AdminAddress, String> {
        match text {
            "off" => Ok(AdminAddress::Off),
            _ => address(text).map(AdminAddress::At).map_err(|e| format!("{e}; or off")),
        }
    }
}

impl FromStr for EventSource {
    type Err = String;

    fn from_str(text: &str) -> Result<EventSource, String> {
        match text.split_once('=') {
            Some(("sqs", url)) => url.parse().map(EventSource::Sqs),
            Some(("webhook", at)) => address(at).map(EventSource::Webhook),
            _ => Err("events come from sqs=URL or webhook=IP:PORT, as in \
                      sqs=https://sqs.eu-west-1.amazonaws.com/123456789012/NAME or webhook=127.0.0.1:9050"
                .into()),
        }
    }
}

impl fmt::Display for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventSource::Sqs(url) => write!(f, "sqs={url}"),
            EventSource::Webhook(address) => write!(f, "webhook={address}"),
        }
    }
}

/// A name of an SQS queue.
pub fn queue(text: &str) -> Result<String, String> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match (1..=80).contains(&text.len()) && text.chars().all(is_legal) {
        true => Ok(text.into()),
        false => Err("the name of a queue has 1 to 80 letters, digits, hyphens and underscores".into()),
    }
}

/// An address to listen on. Names but `localhost` are refused: they may mean several addresses.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    Err(match text.parse() {
        Ok(IpAddr::V4(ip)) => format!("the port is missing, as in {ip}:2049"),
        Ok(IpAddr::V6(ip)) => format!("the port is missing, as in [{ip}]:2049"),
        Err(_) => "an address is IP:PORT, as in 127.0.0.1:2049, [::1]:2049 or, for everybody, 0.0.0.0:2049".into(),
    })
}

/// A length of time with its unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "a time has a unit, as in 500ms, 2s, 5m or 1h 30m".into())
}

/// A length of time, or `off`, which is none.
pub fn duration_or_off(text: &str) -> Result<Duration, String> {
    match text {
        "off" | "0" => Ok(Duration::ZERO),
        _ => duration(text).map_err(|e| format!("{e}; or off")),
    }
}

/// A number of bytes.
pub fn bytes(text: &str) -> Result<u64, String> {
    let size: Result<ByteSize, _> = text.parse();
    size.map(|size| size.as_u64())
        .map_err(|_| "a size is a number of bytes or has a unit, as in 512MiB or 50GiB".into())
}

/// An amount for a day.
pub fn dollars(text: &str) -> Result<Dollars, String> {
    let dollars: Dollars = text.parse().map_err(|()| "a budget is US dollars a day, as in 5, 0.50 or $5".to_owned())?;
    match (LEAST_BUDGET..=MOST_BUDGET).contains(&dollars) {
        true => Ok(dollars),
        false => Err("a budget is from a cent to a million dollars a day; leave it out for no limit".into()),
    }
}

/// A cent: a thousand HEADs an hour. With less, next to nothing would ever be checked.
const LEAST_BUDGET: Dollars = Dollars(10_000_000);
/// A million: who means more means no limit.
const MOST_BUDGET: Dollars = Dollars(1_000_000_000_000_000);

/// Permission bits, in octal.
pub fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777 && !digits.starts_with('+'));
    mode.ok_or_else(|| "permissions are octal, as in 0644 or 755".into())
}

/// A storage class. Any name but those of archives, because servers other than AWS's have classes of their own.
pub fn storage_class(text: &str) -> Result<String, String> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if text.is_empty() || !text.chars().all(is_legal) {
        return Err("a storage class is a word as in STANDARD_IA or INTELLIGENT_TIERING".into());
    }
    let upper = text.to_ascii_uppercase();
    if matches!(upper.as_str(), "GLACIER" | "DEEP_ARCHIVE") {
        return Err(format!("objects of {upper} cannot be read until they are restored; GLACIER_IR can"));
    }
    Ok(if AWS_CLASSES.contains(&upper.as_str()) { upper } else { text.into() })
}

/// Classes that are recognised in small letters too.
const AWS_CLASSES: [&str; 7] = [
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "REDUCED_REDUNDANCY",
    "EXPRESS_ONEZONE",
];

/// The canned ACLs of objects.
pub fn acl() -> PossibleValuesParser {
    PossibleValuesParser::new([
        "private",
        "public-read",
        "public-read-write",
        "authenticated-read",
        "aws-exec-read",
        "bucket-owner-read",
        "bucket-owner-full-control",
    ])
}

/// The ways S3 encrypts with keys that it can get at.
pub fn sse() -> PossibleValuesParser {
    PossibleValuesParser::new(["AES256", "aws:kms", "aws:kms:dsse"])
}

/// The name of an export, with or without a slash in front.
pub fn export(text: &str) -> Result<String, String> {
    let name = text.strip_prefix('/').unwrap_or(text);
    if name.is_empty() || name.len() > 255 || name.contains(|c: char| c == '/' || c.is_control()) {
        return Err("an export is one name without slashes, as in media".into());
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(url: &str) -> Result<(String, String), String> {
        url.parse().map(|BucketUrl { bucket, prefix }| (bucket, prefix))
    }

    #[test]
    fn bucket_urls_have_a_bucket_and_perhaps_a_prefix() {
        for (url, name, prefix) in [
            ("s3://media", "media", ""),
            ("s3://media/", "media", ""),
            ("s3://media/a/b", "media", "a/b/"),
            ("s3://media/a/b/", "media", "a/b/"),
            ("s3://media//", "media", "/"),
            ("s3://my.old_bucket-1/é x", "my.old_bucket-1", "é x/"),
        ] {
            assert_eq!(bucket(url), Ok((name.into(), prefix.into())), "{url}");
        }
    }

    #[test]
    fn wrong_bucket_urls_say_what_is_right() {
        let long = format!("s3://media/{}", "x".repeat(1024));
        for (url, hint) in [
            ("media", "s3://BUCKET"),
            ("https://media.s3.amazonaws.com", "--endpoint-url"),
            ("s3://", "no bucket name"),
            ("s3:///a", "no bucket name"),
            ("s3://ab", "no bucket name"),
            ("s3://me dia/", "no bucket name"),
            ("s3://media?x=1", "no bucket name"),
            ("s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/media", "alias"),
            (&long, "1024"),
        ] {
            let error = bucket(url).expect_err(url);
            assert!(error.contains(hint), "{url}: {error}");
        }
    }

    #[test]
    fn addresses_are_ip_and_port() {
        for good in ["127.0.0.1:0", "[::1]:2049", "0.0.0.0:2049", "[::]:65535"] {
            assert_eq!(address(good).map(|a| a.to_string()), Ok(good.into()));
        }
        assert_eq!(address("localhost:7").map(|a| a.to_string()), Ok("127.0.0.1:7".into()));
        for (bad, hint) in [
            ("127.0.0.1", "127.0.0.1:2049"),
            ("::1", "[::1]:2049"),
            ("example.org:2049", "IP:PORT"),
            ("127.0.0.1:65536", "IP:PORT"),
            (":2049", "IP:PORT"),
            ("", "IP:PORT"),
        ] {
            assert!(address(bad).expect_err(bad).contains(hint), "{bad}");
        }
        assert_eq!("off".parse(), Ok(AdminAddress::Off));
        assert!("on".parse::<AdminAddress>().expect_err("no address").ends_with("or off"));
    }

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(duration("1s 500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(
            (duration_or_off("15m"), duration_or_off("off")),
            (Ok(Duration::from_secs(900)), Ok(Duration::ZERO))
        );
        assert!(duration_or_off("0").is_ok() && duration_or_off("on").expect_err("no time").ends_with("or off"));
        assert!(duration("5").is_err() && duration("").is_err() && duration("-1s").is_err());
        assert_eq!((bytes("4096"), bytes("50GiB"), bytes("1kB")), (Ok(4096), Ok(50 << 30), Ok(1000)));
        assert!(bytes("lots").is_err() && bytes("").is_err() && bytes("-1").is_err());
    }

    #[test]
    fn budgets_are_dollars() {
        for (text, billionths) in
            [("5", 5_000_000_000), ("$5", 5_000_000_000), ("0.50", 500_000_000), ("0.01", 10_000_000)]
        {
            assert_eq!(dollars(text), Ok(Dollars(billionths)), "{text}");
        }
        for bad in ["", "$", "0", "-5", "five", "5 USD", "5,5", "1e9", "inf", "NaN"] {
            assert!(dollars(bad).is_err_and(|e| e.contains("dollars a day")), "{bad}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!((mode("0644"), mode("755"), mode("0o1777")), (Ok(0o644), Ok(0o755), Ok(0o1777)));
        for bad in ["", "rw-r--r--", "0888", "17777", "+644", "-1"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn storage_classes_are_words_and_no_archives() {
        for (text, class) in [("standard_ia", "STANDARD_IA"), ("GLACIER_IR", "GLACIER_IR"), ("Cold-1", "Cold-1")] {
            assert_eq!(storage_class(text), Ok(class.into()));
        }
        assert!(storage_class("Glacier").expect_err("an archive").contains("GLACIER_IR"));
        assert!(storage_class("").is_err() && storage_class("a b").is_err());
    }

    #[test]
    fn exports_are_one_name() {
        assert_eq!((export("media"), export("/media")), (Ok("media".into()), Ok("media".into())));
        for bad in ["", "/", "a/b", "a\n", &"x".repeat(256)] {
            assert!(export(bad).is_err(), "{bad}");
        }
    }
}
