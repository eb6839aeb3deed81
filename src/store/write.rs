//! The writing half of the store on aws-sdk-s3: one request of the SDK for each method of `WriteStore`, but where an
//! answer leaves open what it means.
//! Invariants and limits
//! - No body is copied: a try, and each that follows, sends the same `Bytes`. Its SHA-256 is part of the signature
//!   that every server checks, so bytes that were damaged on the way are refused without a checksum of our own.
//! - The time a write may take grows with what it moves, so that a slow line is no dead one. A line that is dead is
//!   found by the SDK, which gives up an upload that stands still.
//! - Keys that XML cannot hold (control characters, U+FFFF) are for `put` and `copy`: S3 tells the key in the answers
//!   about uploads in parts, which then cannot be read.
//! - A request whose answer was lost is sent again, and its condition may then fail on what the first one wrote:
//!   whoever gets `PreconditionFailed` looks at what is there before calling it a conflict.

use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{
    CompletedMultipartUpload, CompletedPart, EncodingType, MetadataDirective, MultipartUpload, TaggingDirective,
};
use bytes::Bytes;

use super::copy::{LARGEST_COPY_BYTES, copy_in_parts};
use super::error::Failure;
use super::headers::{self, Fields, Placement};
use super::prefix::decode;
use super::s3::{map, odd_answer};
use super::{CopySource, Error, Headers, ObjectMeta, Part, Put, PutIf, S3Store, Store, Upload, WriteStore, answer};
use crate::types::{ETag, Key, Time};

/// 32 KiB/s: the slowest line on which 8 MiB parts arrive at all.
const SLOWEST_UPLOAD: u64 = 32 << 10;
/// 16 MiB/s: a fifth of what S3 copies at, inside itself.
const SLOWEST_COPY: u64 = 16 << 20;
/// S3 takes minutes to join thousands of parts.
const COMPLETION_OF_A_PART: Duration = Duration::from_millis(50);
/// Tries of a write that met another; with the pauses between them, some seconds.
const CONFLICT_TRIES: u32 = 6;
/// Pages of uploads that are read: 1,000 each.
const MAX_UPLOAD_PAGES: usize = 3;
/// Pages of parts that are read: 1,000 each, and an upload has no more than 10,000 parts.
const MAX_PART_PAGES: usize = 11;

/// Sets what all requests have that make an object: where it is kept, and who pays.
macro_rules! placed {
    ($request:expr, $class:expr, $store:expr) => {{
        let placement = Placement::new($class, &$store.new_objects);
        $request
            .set_storage_class(placement.class)
            .set_acl(placement.acl)
            .set_server_side_encryption(placement.sse)
            .set_ssekms_key_id(placement.kms_key)
            .set_request_payer($store.payer.clone())
    }};
}

/// Sets what an object carries. Expires goes past the SDK, which takes dates only.
macro_rules! described {
    ($request:expr, $fields:expr) => {
        $request
            .set_content_type($fields.headers.content_type.clone())
            .set_cache_control($fields.headers.cache_control.clone())
            .set_content_disposition($fields.headers.content_disposition.clone())
            .set_content_encoding($fields.headers.content_encoding.clone())
            .set_content_language($fields.headers.content_language.clone())
            .set_website_redirect_location($fields.headers.website_redirect.clone())
            .set_metadata(Some($fields.metadata.clone()))
            .set_tagging($fields.tagging.clone())
    };
}

/// The condition on the target of a write, as `If-Match` and `If-None-Match`.
struct Target(Option<String>, Option<String>);

impl Target {
    fn new(condition: &PutIf) -> Target {
        match condition {
            PutIf::Any => Target(None, None),
            PutIf::Absent => Target(None, Some("*".to_owned())),
            PutIf::Match(etag) => Target(Some(etag.quoted()), None),
        }
    }
}

impl S3Store {
    /// The key in the bucket of an object to be made.
    fn writable(&self, key: &Key) -> Result<String, Error> {
        self.prefix.full(key).ok_or_else(|| {
            let message = match key.is_empty() {
                true => "an object needs a name",
                false => "with the mounted prefix the key is over the 1,024 bytes that S3 takes: shorten the name",
            };
            odd_answer(format!("PUT {key}"), message)
        })
    }

    /// `source` as `x-amz-copy-source`; what can be no object is gone.
    fn copied(&self, source: CopySource<'_>) -> Result<String, Error> {
        let full = self.prefix.full(source.key).ok_or_else(|| Error::SourceChanged { key: source.key.clone() })?;
        Ok(headers::copy_source(&self.bucket, &full))
    }

    /// The client's timeouts, longer by `extra`.
    fn patient(&self, extra: Duration) -> aws_sdk_s3::config::Builder {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(self.timing.attempt + extra)
            .operation_timeout(self.timing.operation + extra * self.timing.attempts);
        aws_sdk_s3::Config::builder().timeout_config(timeouts.build())
    }

    /// Sends until it is no longer in conflict with another write.
    async fn settled<T, E, F>(&self, send: impl Fn() -> F) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
    {
        let mut pause = self.timing.backoff;
        for _ in 1..CONFLICT_TRIES {
            match send().await.map_err(|error| Failure::new(&error)) {
                Err(failure) if failure.is_conflict() => tokio::time::sleep(pause).await,
                settled => return settled,
            }
            pause *= 2;
        }
        send().await.map_err(|error| Failure::new(&error))
    }

    /// What a copy keeps of its source though S3 does not: storage class and redirect.
    async fn uncopied(&self, source: CopySource<'_>) -> Result<Headers, Error> {
        let changed = || Error::SourceChanged { key: source.key.clone() };
        let head = match self.head_all(source.key).await {
            Err(Error::NotFound { .. }) => return Err(changed()),
            other => other?,
        };
        if head.e_tag.as_deref().map(ETag::new).as_ref() != Some(source.etag) {
            return Err(changed());
        }
        Ok(Headers {
            storage_class: headers::own_class(&head, &self.new_objects),
            website_redirect: head.website_redirect_location,
            ..Headers::default()
        })
    }

    async fn head_all(&self, key: &Key) -> Result<aws_sdk_s3::operation::head_object::HeadObjectOutput, Error> {
        let request = self.client.head_object().bucket(&self.bucket).key(self.full(key)?);
        let answer = request.set_request_payer(self.payer.clone()).send().await;
        answer.map_err(|error| map(&error, &self.asked("HEAD", Some(key))))
    }

    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>, Error> {
        let request = self.client.get_object_tagging().bucket(&self.bucket).key(self.full(key)?);
        let answer = request.set_request_payer(self.payer.clone()).send().await;
        let tagging = answer.map_err(|error| map(&error, &self.asked("GET tags of", Some(key))))?;
        Ok(tagging.tag_set.into_iter().map(|tag| (tag.key, tag.value)).collect())
    }

    /// What the failure of a copy means. S3 answers 412 both for the condition on the source and for the one on the
    /// target, and 404 both for a source and for a target that is not there: the source's tag tells which it was.
    async fn why_not_copied(&self, failure: Failure, source: CopySource<'_>, to: &Key, condition: &PutIf) -> Error {
        let error = failure.into_error(&self.asked("COPY to", Some(to)));
        let changed = || Error::SourceChanged { key: source.key.clone() };
        match (&error, condition) {
            (Error::PreconditionFailed { .. } | Error::NotFound { .. }, PutIf::Any) => changed(),
            (Error::NotFound { .. }, PutIf::Absent) => changed(),
            (Error::PreconditionFailed { .. } | Error::NotFound { .. }, _) => match self.head(source.key).await {
                Ok(meta) if meta.etag == *source.etag => error,
                Ok(_) | Err(Error::NotFound { .. }) => changed(),
                Err(unknown) => unknown,
            },
            _ => error,
        }
    }

    fn listed(&self, upload: MultipartUpload) -> Option<(Upload, Time)> {
        let key = self.prefix.strip_encoded(&upload.key?)?;
        Some((Upload { key, id: upload.upload_id? }, answer::time(upload.initiated?)))
    }
}

/// Adds `Expires` to a request before it is signed. What no header can hold is left out.
fn expires(headers: &Headers) -> impl Fn(&mut HttpRequest) + Send + Sync + 'static {
    let expires = headers.expires.clone();
    move |request| {
        if let Some(expires) = &expires {
            let _ = request.headers_mut().try_insert("expires", expires.clone());
        }
    }
}

fn time_for(bytes: u64, bytes_per_second: u64) -> Duration {
    Duration::from_secs(bytes / bytes_per_second)
}

/// `etag` of an answer, which must have one.
fn told(etag: Option<String>, operation: &str, key: &Key) -> Result<ETag, Error> {
    let etag = etag.ok_or_else(|| odd_answer(format!("{operation} {key}"), "no ETag in the answer"))?;
    Ok(ETag::new(&etag))
}

fn legal<'a>(headers: &'a Headers, key: &Key) -> Result<Fields<'a>, Error> {
    Fields::new(headers).map_err(|message| odd_answer(format!("PUT {key}"), &message))
}

#[async_trait]
impl WriteStore for S3Store {
    async fn describe(&self, key: &Key) -> Result<(ObjectMeta, Headers), Error> {
        let head = self.head_all(key).await?;
        let tags = match head.tag_count {
            Some(1..) => self.tags(key).await?,
            _ => Vec::new(),
        };
        let mut headers = headers::of_head(&head, Default::default(), &self.new_objects);
        let meta = answer::of_head(head)
            .ok_or_else(|| odd_answer(format!("HEAD {key}"), "no ETag, length or time in the answer"))?;
        headers.user = meta.user.clone().unwrap_or_default();
        headers.tags = tags;
        Ok((meta, headers))
    }

    async fn put(&self, key: &Key, body: Bytes, headers: &Headers, condition: PutIf) -> Result<Put, Error> {
        let (full, fields) = (self.writable(key)?, legal(headers, key)?);
        let patience = time_for(body.len() as u64, SLOWEST_UPLOAD);
        let send = || {
            let Target(if_match, if_none_match) = Target::new(&condition);
            let request = self.client.put_object().bucket(&self.bucket).key(&full).body(body.clone().into());
            let request = request.set_if_match(if_match).set_if_none_match(if_none_match);
            let request = placed!(described!(request, fields), headers.storage_class.as_deref(), self);
            request.customize().mutate_request(expires(headers)).config_override(self.patient(patience)).send()
        };
        let put = self.settled(send).await.map_err(|failure| failure.into_error(&self.asked("PUT", Some(key))))?;
        Ok(Put { etag: told(put.e_tag, "PUT", key)? })
    }

    /// Tags are those of `headers`, or the source's where `headers` has none: who may not read tags must not lose them.
    async fn copy(
        &self,
        source: CopySource<'_>,
        to: &Key,
        headers: Option<&Headers>,
        condition: PutIf,
    ) -> Result<Put, Error> {
        if source.size > LARGEST_COPY_BYTES {
            return copy_in_parts(self, source, to, headers, condition).await;
        }
        let kept = match headers {
            Some(_) => Headers::default(),
            None => self.uncopied(source).await?,
        };
        let (from, full) = (self.copied(source)?, self.writable(to)?);
        let carried = headers.unwrap_or(&kept);
        let fields = legal(carried, to)?;
        let send = || {
            let Target(if_match, if_none_match) = Target::new(&condition);
            let request = self.client.copy_object().bucket(&self.bucket).key(&full);
            let request = request
                .copy_source(&from)
                .copy_source_if_match(source.etag.quoted())
                .set_if_match(if_match)
                .set_if_none_match(if_none_match);
            let request = match headers {
                Some(_) => described!(request, fields)
                    .metadata_directive(MetadataDirective::Replace)
                    .set_tagging_directive(fields.tagging.as_ref().map(|_| TaggingDirective::Replace)),
                None => request.set_website_redirect_location(kept.website_redirect.clone()),
            };
            let request = placed!(request, carried.storage_class.as_deref(), self);
            let patience = self.patient(time_for(source.size, SLOWEST_COPY));
            request.customize().mutate_request(expires(carried)).config_override(patience).send()
        };
        match self.settled(send).await {
            Ok(copied) => Ok(Put { etag: told(copied.copy_object_result.and_then(|r| r.e_tag), "COPY to", to)? }),
            Err(failure) => Err(self.why_not_copied(failure, source, to, &condition).await),
        }
    }

    async fn delete(&self, key: &Key, etag: Option<&ETag>) -> Result<(), Error> {
        // What can be no object is not there.
        let Some(full) = self.prefix.full(key) else { return Ok(()) };
        let send = || {
            let request = self.client.delete_object().bucket(&self.bucket).key(&full);
            request.set_if_match(etag.map(ETag::quoted)).set_request_payer(self.payer.clone()).send()
        };
        let deleted = self.settled(send).await.map_err(|failure| failure.into_error(&self.asked("DELETE", Some(key))));
        match deleted {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn begin_upload(&self, key: &Key, headers: &Headers) -> Result<Upload, Error> {
        let fields = legal(headers, key)?;
        let request = self.client.create_multipart_upload().bucket(&self.bucket).key(self.writable(key)?);
        let request = placed!(described!(request, fields), headers.storage_class.as_deref(), self);
        let begun = request.customize().mutate_request(expires(headers)).send().await;
        let begun = begun.map_err(|error| map(&error, &self.asked("BEGIN upload of", Some(key))))?;
        let id = begun.upload_id.ok_or_else(|| odd_answer(format!("BEGIN upload of {key}"), "no id in the answer"))?;
        Ok(Upload { key: key.clone(), id })
    }

    async fn put_part(&self, upload: &Upload, number: u16, body: Bytes) -> Result<Part, Error> {
        let size = body.len() as u64;
        let request = self.client.upload_part().bucket(&self.bucket).key(self.writable(&upload.key)?);
        let request = request.upload_id(&upload.id).part_number(number.into()).body(body.into());
        let request = request.set_request_payer(self.payer.clone()).customize();
        let sent = request.config_override(self.patient(time_for(size, SLOWEST_UPLOAD))).send().await;
        let part = sent.map_err(|error| map(&error, &self.asked("PUT part of", Some(&upload.key))))?;
        Ok(Part { number, etag: told(part.e_tag, "PUT part of", &upload.key)?, size })
    }

    async fn copy_part(
        &self,
        upload: &Upload,
        number: u16,
        source: CopySource<'_>,
        range: Range<u64>,
    ) -> Result<Part, Error> {
        let size = range.end.saturating_sub(range.start);
        // S3 refuses a range of an object under 5 MiB, though it be all of it.
        let is_part = range != (0..source.size);
        let request = self.client.upload_part_copy().bucket(&self.bucket).key(self.writable(&upload.key)?);
        let request = request
            .upload_id(&upload.id)
            .part_number(number.into())
            .copy_source(self.copied(source)?)
            .copy_source_if_match(source.etag.quoted())
            .set_copy_source_range(is_part.then(|| format!("bytes={}-{}", range.start, range.end.saturating_sub(1))))
            .set_request_payer(self.payer.clone());
        let sent = request.customize().config_override(self.patient(time_for(size, SLOWEST_COPY))).send().await;
        let copied = sent.map_err(|error| match map(&error, &self.asked("COPY part of", Some(&upload.key))) {
            // A part has no condition of its own: what was not found or not as it should be is the source.
            Error::NotFound { .. } | Error::PreconditionFailed { .. } => {
                Error::SourceChanged { key: source.key.clone() }
            }
            error => error,
        })?;
        let etag = told(copied.copy_part_result.and_then(|r| r.e_tag), "COPY part of", &upload.key)?;
        Ok(Part { number, etag, size })
    }

    async fn complete_upload(&self, upload: &Upload, parts: &[Part], condition: PutIf) -> Result<Put, Error> {
        let full = self.writable(&upload.key)?;
        let named = parts
            .iter()
            .map(|part| CompletedPart::builder().part_number(part.number.into()).e_tag(part.etag.quoted()).build());
        let named = CompletedMultipartUpload::builder().set_parts(Some(named.collect())).build();
        let patience = COMPLETION_OF_A_PART * u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let send = || {
            let Target(if_match, if_none_match) = Target::new(&condition);
            let request = self.client.complete_multipart_upload().bucket(&self.bucket).key(&full);
            let request = request.upload_id(&upload.id).multipart_upload(named.clone());
            let request = request.set_if_match(if_match).set_if_none_match(if_none_match);
            let request = request.set_request_payer(self.payer.clone()).customize();
            request.config_override(self.patient(patience)).send()
        };
        let asked = self.asked("COMPLETE upload of", Some(&upload.key));
        let completed = self.settled(send).await.map_err(|failure| failure.into_error(&asked))?;
        Ok(Put { etag: told(completed.e_tag, asked.operation, &upload.key)? })
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<(), Error> {
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(self.writable(&upload.key)?);
        let sent = request.upload_id(&upload.id).set_request_payer(self.payer.clone()).send().await;
        match sent.map_err(|error| map(&error, &self.asked("ABORT upload of", Some(&upload.key)))) {
            Ok(_) | Err(Error::NoSuchUpload { .. } | Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn parts(&self, upload: &Upload) -> Result<Vec<Part>, Error> {
        let full = self.writable(&upload.key)?;
        let (mut parts, mut after) = (Vec::new(), None);
        for _ in 0..MAX_PART_PAGES {
            let request = self.client.list_parts().bucket(&self.bucket).key(&full).upload_id(&upload.id);
            let sent = request.set_part_number_marker(after).set_request_payer(self.payer.clone()).send().await;
            let page = sent.map_err(|error| map(&error, &self.asked("LIST parts of", Some(&upload.key))))?;
            parts.extend(page.parts.unwrap_or_default().into_iter().filter_map(|part| {
                let number = u16::try_from(part.part_number?).ok()?;
                Some(Part { number, etag: ETag::new(&part.e_tag?), size: u64::try_from(part.size?).ok()? })
            }));
            after = page.next_part_number_marker.filter(|_| page.is_truncated == Some(true));
            if after.is_none() {
                break;
            }
        }
        Ok(parts)
    }

    async fn uploads(&self) -> Result<Vec<(Upload, Time)>, Error> {
        let (mut uploads, mut after_key, mut after_id) = (Vec::new(), None, None);
        for _ in 0..MAX_UPLOAD_PAGES {
            let request = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(self.prefix.text(""));
            let request = request.encoding_type(EncodingType::Url).set_key_marker(after_key);
            let sent = request.set_upload_id_marker(after_id).set_request_payer(self.payer.clone()).send().await;
            let page = sent.map_err(|error| map(&error, &self.asked("LIST uploads of", None)))?;
            uploads.extend(page.uploads.unwrap_or_default().into_iter().filter_map(|upload| self.listed(upload)));
            after_key = page.next_key_marker.as_deref().and_then(decode).filter(|_| page.is_truncated == Some(true));
            after_id = page.next_upload_id_marker;
            if after_key.is_none() {
                break;
            }
        }
        Ok(uploads)
    }
}
