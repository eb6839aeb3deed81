//! What requests cost: the price of each kind, exact sums, what the last hour came to.
//! The prices are AWS's list prices of us-east-1, whatever server is asked: another region is some percent off, and what
//! an S3 of one's own costs nobody knows. Only requests are counted: not the traffic, not what lies in the bucket.
//! Invariant: dollars are whole billionths, so that sums are exact in whatever order they are made.

use std::fmt;
use std::ops::{Add, AddAssign, Mul};
use std::str::FromStr;

use crate::types::Tick;

/// PUT, COPY, POST and LIST: $0.005 per 1,000 (aws.amazon.com/s3/pricing, S3 Standard, us-east-1, November 2026).
const WRITE_OR_LIST: Dollars = Dollars(5_000);
/// GET, HEAD and everything else: $0.0004 per 1,000 (same place).
const READ: Dollars = Dollars(400);
/// DELETE and the end of an upload that is given up: nothing (same place).
const FREE: Dollars = Dollars(0);
/// SQS, standard queues: $0.40 per million (aws.amazon.com/sqs/pricing, us-east-1, November 2026).
const QUEUE: Dollars = Dollars(400);

/// US dollars in billionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dollars(pub u64);

impl Dollars {
    /// For people and for JSON.
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl Add for Dollars {
    type Output = Dollars;
    fn add(self, other: Dollars) -> Dollars {
        Dollars(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Dollars {
    fn add_assign(&mut self, other: Dollars) {
        *self = *self + other;
    }
}

impl Mul<u64> for Dollars {
    type Output = Dollars;
    fn mul(self, times: u64) -> Dollars {
        Dollars(self.0.saturating_mul(times))
    }
}

impl std::iter::Sum for Dollars {
    fn sum<I: Iterator<Item = Dollars>>(all: I) -> Dollars {
        all.fold(Dollars(0), Add::add)
    }
}

/// At least two digits of cents: `$5.00`, `$0.0004`.
impl fmt::Display for Dollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000_000, format!("{:09}", self.0 % 1_000_000_000));
        let rest = rest.trim_end_matches('0');
        write!(f, "${whole}.{rest:0<2}")
    }
}

/// `5`, `0.5` or `$5`.
impl FromStr for Dollars {
    type Err = ();

    fn from_str(text: &str) -> Result<Dollars, ()> {
        let text = text.strip_prefix('$').unwrap_or(text);
        let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
        if (whole.is_empty() && rest.is_empty()) || !is_number(whole) || !is_number(rest) || rest.len() > 9 {
            return Err(());
        }
        let number = |digits: &str| if digits.is_empty() { Ok(0) } else { digits.parse::<u64>().map_err(|_| ()) };
        let billionths = number(whole)?.checked_mul(1_000_000_000).ok_or(())?;
        billionths.checked_add(number(&format!("{rest:0<9}"))?).map(Dollars).ok_or(())
    }
}

/// Kinds of request, as far as they are billed or shown apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// HEAD of an object or the bucket.
    Head,
    /// GET.
    Get,
    /// A page of a listing.
    List,
    /// PUT of a whole object.
    Put,
    /// Copies inside S3.
    Copy,
    /// The other steps of a multipart upload.
    Multipart,
    /// DELETE.
    Delete,
    /// The end of an upload that is given up.
    Abort,
    /// Anything else of S3's.
    Other,
    /// A request to SQS.
    Queue,
}

impl RequestKind {
    /// Each, at the place of its number.
    pub const ALL: [RequestKind; 10] = {
        use RequestKind::*;
        [Head, Get, List, Put, Copy, Multipart, Delete, Abort, Other, Queue]
    };

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            RequestKind::Head => "head",
            RequestKind::Get => "get",
            RequestKind::List => "list",
            RequestKind::Put => "put",
            RequestKind::Copy => "copy",
            RequestKind::Multipart => "multipart",
            RequestKind::Delete => "delete",
            RequestKind::Abort => "abort",
            RequestKind::Other => "other",
            RequestKind::Queue => "queue",
        }
    }

    /// What one costs.
    pub fn price(self) -> Dollars {
        match self {
            RequestKind::Head | RequestKind::Get | RequestKind::Other => READ,
            RequestKind::List | RequestKind::Put | RequestKind::Copy | RequestKind::Multipart => WRITE_OR_LIST,
            RequestKind::Delete | RequestKind::Abort => FREE,
            RequestKind::Queue => QUEUE,
        }
    }

    /// Of an operation of S3's SDK.
    pub(super) fn of(operation: &str) -> RequestKind {
        match operation {
            "HeadObject" | "HeadBucket" => RequestKind::Head,
            "GetObject" => RequestKind::Get,
            "ListObjectsV2" | "ListParts" | "ListMultipartUploads" | "ListBuckets" => RequestKind::List,
            "PutObject" => RequestKind::Put,
            "CopyObject" | "UploadPartCopy" => RequestKind::Copy,
            "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload" => RequestKind::Multipart,
            "DeleteObject" | "DeleteObjects" => RequestKind::Delete,
            "AbortMultipartUpload" => RequestKind::Abort,
            _ => RequestKind::Other,
        }
    }
}

/// Minutes in an hour.
const MINUTES: usize = 60;
/// One of them, in milliseconds.
const MINUTE_MS: u64 = 60_000;

/// What was spent in the last 60 minutes of the clock, the one under way included. In the first hour that is all so far:
/// nothing is extrapolated.
#[derive(Debug)]
pub(super) struct LastHour {
    /// For each minute of an hour which one it is, since the clock began, and what was spent in it.
    minutes: [(u64, Dollars); MINUTES],
}

impl Default for LastHour {
    fn default() -> LastHour {
        LastHour { minutes: [(0, Dollars(0)); MINUTES] }
    }
}

impl LastHour {
    /// `spent` at `now`.
    pub(super) fn add(&mut self, now: Tick, spent: Dollars) {
        let number = now.0 / MINUTE_MS;
        let minute = &mut self.minutes[(number % MINUTES as u64) as usize];
        // Callers may come late by a moment: what belongs to the minute before counts for the one that is there.
        if minute.0 < number {
            *minute = (number, Dollars(0));
        }
        minute.1 += spent;
    }

    /// All that is not older than an hour.
    pub(super) fn sum(&self, now: Tick) -> Dollars {
        let number = now.0 / MINUTE_MS;
        self.minutes.iter().filter(|(minute, _)| minute + MINUTES as u64 > number).map(|(_, spent)| *spent).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(n: u64) -> Tick {
        Tick(1 + n * MINUTE_MS)
    }

    #[test]
    fn prices_are_the_list_prices_per_thousand() {
        let thousand = |kind: RequestKind| (kind.price() * 1_000).to_string();
        for kind in [RequestKind::List, RequestKind::Put, RequestKind::Copy, RequestKind::Multipart] {
            assert_eq!(thousand(kind), "$0.005");
        }
        for kind in [RequestKind::Head, RequestKind::Get, RequestKind::Other, RequestKind::Queue] {
            assert_eq!(thousand(kind), "$0.0004");
        }
        assert_eq!((thousand(RequestKind::Delete), thousand(RequestKind::Abort)), ("$0.00".into(), "$0.00".into()));
        for (number, kind) in RequestKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

    #[test]
    fn dollars_are_read_and_shown_exactly() {
        for (text, shown) in [
            ("5", "$5.00"),
            ("$5", "$5.00"),
            ("0.5", "$0.50"),
            (".5", "$0.50"),
            ("$12.", "$12.00"),
            ("0.000000001", "$0.000000001"),
            ("18446744073.709551615", "$18446744073.709551615"),
        ] {
            assert_eq!(text.parse::<Dollars>().map(|dollars| dollars.to_string()), Ok(shown.into()), "{text}");
        }
        for nonsense in ["", "$", ".", "-1", "+1", "5$", "1e3", "1.2.3", "inf", "0.0000000001", "18446744074", "5 "] {
            assert!(nonsense.parse::<Dollars>().is_err(), "{nonsense}");
        }
    }

    #[test]
    fn hour_slides_over_the_minutes() {
        let mut hour = LastHour::default();
        hour.add(minute(0), Dollars(1));
        hour.add(minute(30), Dollars(2));
        assert_eq!(hour.sum(minute(59)), Dollars(1 + 2));
        assert_eq!(hour.sum(minute(60)), Dollars(2));
        hour.add(minute(60), Dollars(4));
        assert_eq!(hour.sum(minute(89)), Dollars(2 + 4));
        assert_eq!(hour.sum(minute(90)), Dollars(4));
        assert_eq!(hour.sum(minute(120)), Dollars(0));
    }

    #[test]
    fn hour_of_a_steady_spender_is_sixty_minutes_worth() {
        let mut hour = LastHour::default();
        for n in 0..1_000 {
            hour.add(minute(n), Dollars(7));
            assert_eq!(hour.sum(minute(n)), Dollars(7 * (n + 1).min(60)));
        }
        assert_eq!(hour.sum(minute(1_030)), Dollars(7 * 29));
    }
}
