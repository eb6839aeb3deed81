//! The store on aws-sdk-s3: one request of the SDK for each method of `Store`.
//! Owns: the client with its retries and timeouts (see `connect`), the mounted prefix.
//! Invariant: keys are told in `encoding-type=url`, because XML cannot tell all of them.

use std::ops::Range;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::list_objects_v2::builders::ListObjectsV2FluentBuilder;
use aws_sdk_s3::types::{EncodingType, RequestPayer};

use super::error::{Asked, Failure};
use super::prefix::Prefix;
use super::{Error, GetIf, Got, ListPage, ListRequest, ObjectMeta, Store, Timing, answer};
use crate::config::{NewObjects, S3Config};
use crate::types::{ETag, Key};

/// What S3 caps a page at.
const MAX_PAGE: u16 = 1000;

/// A bucket, or a prefix of one, on any server that speaks S3.
pub struct S3Store {
    pub(super) client: Client,
    pub(super) bucket: String,
    pub(super) prefix: Prefix,
    pub(super) payer: Option<RequestPayer>,
    pub(super) timing: Timing,
    pub(super) new_objects: NewObjects,
}

impl S3Store {
    pub(super) fn new(client: Client, config: &S3Config, timing: Timing) -> S3Store {
        S3Store {
            client,
            bucket: config.bucket.clone(),
            prefix: Prefix::new(&config.prefix),
            payer: config.requester_pays.then_some(RequestPayer::Requester),
            timing,
            new_objects: config.new_objects.clone(),
        }
    }

    pub(super) fn asked<'a>(&'a self, operation: &'static str, key: Option<&'a Key>) -> Asked<'a> {
        Asked { operation, bucket: &self.bucket, key }
    }

    /// The key in the bucket; an object that cannot be is not found.
    pub(super) fn full(&self, key: &Key) -> Result<String, Error> {
        self.prefix.full(key).ok_or_else(|| Error::NotFound { key: key.clone() })
    }

    fn listing(&self, request: &ListRequest) -> ListObjectsV2FluentBuilder {
        let after = request.start_after.as_ref().map(|key| self.prefix.text(key));
        self.client
            .list_objects_v2()
            .bucket(&self.bucket)
            .encoding_type(EncodingType::Url)
            .prefix(self.prefix.text(&request.prefix))
            .set_delimiter(request.delimited.then(|| "/".to_owned()))
            .set_start_after(after)
            .set_continuation_token(request.continuation.clone())
            .set_max_keys(request.max_keys.map(|n| i32::from(n.min(MAX_PAGE))))
            .set_request_payer(self.payer.clone())
    }

    /// Asks for one key of the prefix, to learn whether the bucket can be listed at all.
    pub(super) async fn probe(&self) -> Result<(), Failure> {
        let request = ListRequest { max_keys: Some(1), ..ListRequest::default() };
        self.listing(&request).send().await.map(drop).map_err(|error| Failure::new(&error))
    }
}

pub(super) fn map<E>(error: &SdkError<E, HttpResponse>, asked: &Asked<'_>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    Failure::new(error).into_error(asked)
}

pub(super) fn odd_answer(what: String, message: &str) -> Error {
    Error::Other { what, message: message.to_owned() }
}

#[async_trait]
impl Store for S3Store {
    async fn head(&self, key: &Key) -> Result<ObjectMeta, Error> {
        let request = self.client.head_object().bucket(&self.bucket).key(self.full(key)?);
        let answer = request.set_request_payer(self.payer.clone()).send().await;
        let head = answer.map_err(|error| map(&error, &self.asked("HEAD", Some(key))))?;
        answer::of_head(head).ok_or_else(|| odd_answer(format!("HEAD {key}"), "no ETag, length or time in the answer"))
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>, condition: GetIf) -> Result<Got, Error> {
        let (if_match, if_none_match) = match &condition {
            GetIf::Any => (None, None),
            GetIf::Match(etag) => (Some(etag), None),
            GetIf::NoneMatch(etag) => (None, Some(etag)),
        };
        let request = self.client.get_object().bucket(&self.bucket).key(self.full(key)?);
        let sent = request
            .set_range(range.as_ref().map(|r| format!("bytes={}-{}", r.start, r.end.saturating_sub(1))))
            .set_if_match(if_match.map(ETag::quoted))
            .set_if_none_match(if_none_match.map(ETag::quoted))
            .set_request_payer(self.payer.clone())
            .send()
            .await;
        let got = match sent {
            Ok(got) => got,
            Err(error) => {
                return match error.raw_response() {
                    Some(response) if response.status().as_u16() == 304 => Ok(answer::of_not_modified(response)),
                    _ => Err(map(&error, &self.asked("GET", Some(key)))),
                };
            }
        };
        let what = format!("GET {key}");
        let opened = answer::of_get(got, range.as_ref()).map_err(|reason| odd_answer(what.clone(), reason))?;
        let body = answer::checked(opened.body, opened.len, self.timing.stall, what);
        Ok(Got::Body { meta: opened.meta, body })
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, Error> {
        let answer = self.listing(request).send().await;
        let listed = answer.map_err(|error| map(&error, &self.asked("LIST", None)))?;
        let is_truncated = listed.is_truncated.unwrap_or_default();
        let objects = listed.contents.unwrap_or_default().into_iter().filter_map(|mut object| {
            let key = self.prefix.strip_encoded(&object.key.take()?)?;
            Some((key, answer::of_listed(object)?))
        });
        let folded = listed.common_prefixes.unwrap_or_default().into_iter();
        let prefixes = folded.filter_map(|common| self.prefix.strip_encoded(common.prefix()?));
        Ok(ListPage {
            objects: objects.collect(),
            prefixes: prefixes.collect(),
            next: listed.next_continuation_token.filter(|_| is_truncated),
        })
    }
}
