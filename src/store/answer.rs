//! From the SDK's answers to ours: metadata, and bodies that cannot end early unnoticed.
//! Invariant: a body hands out exactly the bytes that were asked for, or ends in an error.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat};
use aws_sdk_s3::types::Object;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::{Error, Got, ObjectMeta};
use crate::types::{ETag, Time};

/// The metadata in the answer of a HEAD; `None` when S3 left out what we need.
pub(super) fn of_head(head: HeadObjectOutput) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        etag: ETag::new(&head.e_tag?),
        size: u64::try_from(head.content_length?).ok()?,
        last_modified: time(head.last_modified?),
        user: Some(lower_cased(head.metadata)),
        content_type: head.content_type,
    })
}

/// The metadata of a listed object; `None` when S3 left out what we need.
pub(super) fn of_listed(object: Object) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        etag: ETag::new(&object.e_tag?),
        size: u64::try_from(object.size?).ok()?,
        last_modified: time(object.last_modified?),
        user: None,
        content_type: None,
    })
}

/// An answer of GET, taken apart.
pub(super) struct Opened {
    pub(super) meta: ObjectMeta,
    /// Bytes the body must have.
    pub(super) len: u64,
    pub(super) body: ByteStream,
}

/// Takes the answer of a GET of `range` apart; the reason, when it is not what was asked for.
pub(super) fn of_get(got: GetObjectOutput, range: Option<&Range<u64>>) -> Result<Opened, &'static str> {
    let length = got.content_length.and_then(|len| u64::try_from(len).ok()).ok_or("no Content-Length in the answer")?;
    let size = match (range, got.content_range.as_deref().map(parse_content_range)) {
        (None, _) => length,
        (Some(asked), Some(Some((told, size)))) => {
            let wanted = asked.start..asked.end.min(size);
            if told != wanted || length != wanted.end - wanted.start {
                return Err("the answer is of another range than the one asked for");
            }
            size
        }
        (Some(_), _) => return Err("S3 ignored the range asked for"),
    };
    let meta = ObjectMeta {
        etag: ETag::new(&got.e_tag.ok_or("no ETag in the answer")?),
        size,
        last_modified: time(got.last_modified.ok_or("no Last-Modified in the answer")?),
        user: Some(lower_cased(got.metadata)),
        content_type: got.content_type,
    };
    Ok(Opened { meta, len: length, body: got.body })
}

/// Reads `bytes A-B/SIZE`: the half-open range, and the size.
fn parse_content_range(header: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?, size.parse().ok()?))
}

/// `body` as a stream of exactly `len` bytes. What breaks off, stops for longer than `stall`, or brings
/// more or less ends in `Unavailable`. `what` names the request.
pub(super) fn checked(
    body: ByteStream,
    len: u64,
    stall: Duration,
    what: String,
) -> BoxStream<'static, Result<Bytes, Error>> {
    let broken = move |message: String| Error::Unavailable { what: what.clone(), message };
    stream::unfold(Some((body, len)), move |open| {
        let broken = broken.clone();
        async move {
            let (mut body, left) = open?;
            let message = match tokio::time::timeout(stall, body.next()).await {
                Ok(Some(Ok(chunk))) if chunk.len() as u64 <= left => {
                    let left = left - chunk.len() as u64;
                    return Some((Ok(chunk), Some((body, left))));
                }
                Ok(None) if left == 0 => return None,
                Ok(Some(Ok(_))) => format!("the body is longer than the {len} bytes declared"),
                Ok(Some(Err(error))) => format!("the body broke off {left} bytes before its end: {error}"),
                Ok(None) => format!("the body ended {left} bytes early"),
                Err(_) => format!("nothing came for {} s", stall.as_secs_f32()),
            };
            Some((Err(broken(message)), None))
        }
    })
    .boxed()
}

/// A 304.
pub(super) fn of_not_modified(response: &HttpResponse) -> Got {
    let told = response
        .headers()
        .get("last-modified")
        .and_then(|text| DateTime::from_str(text, DateTimeFormat::HttpDate).ok());
    Got::NotModified { last_modified: told.map(time) }
}

pub(super) fn time(time: DateTime) -> Time {
    Time::from_parts(time.secs(), time.subsec_nanos())
}

fn lower_cased(user: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    user.unwrap_or_default().into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::TryStreamExt;

    fn got(length: i64, range: Option<&str>) -> GetObjectOutput {
        GetObjectOutput::builder()
            .e_tag("\"e\"")
            .last_modified(DateTime::from_secs(1))
            .content_length(length)
            .set_content_range(range.map(str::to_owned))
            .build()
    }

    #[test]
    fn an_answer_of_another_range_is_refused() {
        let asked = Some(&(2..5));
        assert_eq!(of_get(got(3, Some("bytes 2-4/10")), asked).unwrap().meta.size, 10);
        assert_eq!(of_get(got(2, Some("bytes 2-3/4")), asked).unwrap().len, 2);
        for range in [None, Some("bytes 0-2/10"), Some("bytes 2-3/10"), Some("bytes 2-4/*"), Some("x")] {
            assert!(of_get(got(3, range), asked).is_err(), "{range:?}");
        }
        assert!(of_get(got(7, Some("bytes 2-4/10")), asked).is_err());
    }

    #[tokio::test]
    async fn a_body_of_another_length_is_an_error() {
        let read = |declared| {
            let body = ByteStream::from_static(b"12345");
            checked(body, declared, Duration::from_secs(1), "GET k".into()).try_collect::<Vec<_>>()
        };
        assert_eq!(read(5).await.unwrap().concat(), b"12345");
        for declared in [0, 4, 6] {
            assert!(matches!(read(declared).await, Err(Error::Unavailable { .. })), "{declared}");
        }
    }
}
