//! The operations of S3 on objects and buckets, as the `s3s` crate calls them.
//! Owns nothing: reads and writes `Data`, whose lock makes conditions right.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{StreamExt, stream};
use hyper::StatusCode;
use hyper::header::{ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, LAST_MODIFIED};
use md5::{Digest, Md5};
use s3s::dto::*;
use s3s::{Body, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::blob::Blob;
use super::bucket::digest_etag;
use super::data::{Data, Described, Draft, Refusal, Version, WriteIf};
use super::listing::{self, After, MAX_KEYS, Page, Query};
use super::request::{Kind, decode};
use crate::types::{ETag as EntityTag, Time};

/// What S3 takes of user metadata, names and values together.
const MAX_USER_BYTES: usize = 2048;
/// What one CopyObject takes.
const MAX_COPY_BYTES: u64 = 5 << 30;

/// The implementation of `s3s::S3`.
pub(super) struct Operations {
    pub(super) data: Arc<Data>,
}

impl Operations {
    pub(super) fn new(data: Arc<Data>) -> Operations {
        Operations { data }
    }

    /// The condition on a write, from its two headers.
    pub(super) fn write_if(
        &self,
        kind: Kind,
        matches: Option<ETagCondition>,
        none_match: Option<ETagCondition>,
    ) -> S3Result<WriteIf> {
        match self.data.minds(kind) {
            true => write_if(matches, none_match),
            false => Ok(WriteIf::Always),
        }
    }

    /// The source of a copy, if the conditions on it hold.
    pub(super) fn copy_source(&self, kind: Kind, source: &CopySource, conditions: ReadIf) -> S3Result<Arc<Version>> {
        let CopySource::Bucket { bucket, key, version_id: None } = source else {
            return Err(s3_error!(NotImplemented, "only plain objects can be copied"));
        };
        let version = self.data.get(bucket, key)?;
        match conditions.check(&version).filter(|_| self.data.minds(kind)) {
            Some(S3Unmet::NotModified | S3Unmet::PreconditionFailed) => Err(s3_error!(PreconditionFailed)),
            None => Ok(version),
        }
    }
}

impl From<Refusal> for S3Error {
    fn from(refusal: Refusal) -> S3Error {
        match refusal {
            Refusal::NoSuchBucket => s3_error!(NoSuchBucket),
            Refusal::NoSuchKey => s3_error!(NoSuchKey),
            Refusal::NoSuchUpload => s3_error!(NoSuchUpload),
            Refusal::PreconditionFailed => {
                s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
            }
            Refusal::BucketExists => s3_error!(BucketAlreadyOwnedByYou),
            Refusal::InvalidPart => s3_error!(InvalidPart),
            Refusal::InvalidPartOrder => s3_error!(InvalidPartOrder),
            Refusal::Io(error) => S3Error::internal_error(error),
        }
    }
}

/// Conditions on reading a version.
#[derive(Default)]
pub(super) struct ReadIf {
    pub(super) matches: Option<ETagCondition>,
    pub(super) none_match: Option<ETagCondition>,
    pub(super) modified_since: Option<Timestamp>,
    pub(super) unmodified_since: Option<Timestamp>,
}

/// Which condition did not hold.
pub(super) enum S3Unmet {
    NotModified,
    PreconditionFailed,
}

impl ReadIf {
    /// RFC 9110 section 13.2.2: a tag outweighs a time.
    fn check(&self, version: &Version) -> Option<S3Unmet> {
        let is = |condition: &ETagCondition| condition.as_etag().is_none_or(|e| e.value() == version.etag.as_str());
        let modified_after = |time: &Timestamp| version.modified.seconds() > seconds(time);
        let fits = match (&self.matches, &self.unmodified_since) {
            (Some(condition), _) => is(condition),
            (None, Some(time)) => !modified_after(time),
            (None, None) => true,
        };
        if !fits {
            return Some(S3Unmet::PreconditionFailed);
        }
        let is_new = match (&self.none_match, &self.modified_since) {
            (Some(condition), _) => !is(condition),
            (None, Some(time)) => modified_after(time),
            (None, None) => true,
        };
        (!is_new).then_some(S3Unmet::NotModified)
    }

    fn demand(&self, version: &Version) -> S3Result<()> {
        match self.check(version) {
            None => Ok(()),
            Some(S3Unmet::PreconditionFailed) => Err(Refusal::PreconditionFailed.into()),
            Some(S3Unmet::NotModified) => {
                let mut error = s3_error!(NotModified);
                let told = Timestamp::from(
                    SystemTime::UNIX_EPOCH + Duration::from_secs(version.modified.seconds().max(0) as u64),
                );
                let modified = http_date(&told).into_bytes();
                let headers = [(ETAG, version.etag.quoted().into_bytes()), (LAST_MODIFIED, modified)];
                let headers =
                    headers.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::from_bytes(&value).ok()?)));
                error.set_headers(HeaderMap::from_iter(headers));
                Err(error)
            }
        }
    }
}

fn write_if(matches: Option<ETagCondition>, none_match: Option<ETagCondition>) -> S3Result<WriteIf> {
    match (matches, none_match) {
        (None, None) => Ok(WriteIf::Always),
        (Some(ETagCondition::Any), None) => Ok(WriteIf::Present),
        (Some(ETagCondition::ETag(etag)), None) => Ok(WriteIf::Match(EntityTag::new(etag.value()))),
        (None, Some(ETagCondition::Any)) => Ok(WriteIf::Absent),
        _ => Err(s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented")),
    }
}

/// A condition on the destination of a copy, which `s3s` does not read.
fn destination_if(headers: &HeaderMap, name: HeaderName) -> S3Result<Option<ETagCondition>> {
    let value = headers.get(name).map(|value| ETagCondition::parse_http_header(value.as_bytes()));
    value.transpose().map_err(|_| s3_error!(InvalidArgument))
}

fn seconds(time: &Timestamp) -> i64 {
    let mut text = Vec::new();
    let formatted = time.format(TimestampFormat::EpochSeconds, &mut text);
    formatted.ok().and_then(|()| String::from_utf8(text).ok()?.parse::<f64>().ok()).map_or(0, |s| s.floor() as i64)
}

pub(super) fn timestamp(time: Time) -> Timestamp {
    let since_epoch = std::time::Duration::from_nanos(u64::try_from(time.0).unwrap_or_default());
    (std::time::SystemTime::UNIX_EPOCH + since_epoch).into()
}

pub(super) fn strong(etag: &EntityTag) -> ETag {
    ETag::Strong(etag.as_str().to_owned())
}

/// Takes a whole body; the blob, and the tag of its bytes.
pub(super) async fn receive(body: Option<StreamingBlob>) -> S3Result<(Blob, EntityTag)> {
    let (mut blob, mut md5) = (Blob::default(), Md5::new());
    let Some(mut body) = body else { return Ok((blob, digest_etag(md5))) };
    while let Some(chunk) = body.next().await {
        let chunk: Bytes = chunk.map_err(|error| S3Error::with_source(S3ErrorCode::IncompleteBody, error))?;
        md5.update(&chunk);
        blob.push(chunk);
    }
    // Small objects are kept in one piece, which is what GET is fastest with.
    if blob.len() < 1 << 20 {
        blob = blob.to_bytes().map_err(S3Error::internal_error)?.into();
    }
    Ok((blob, digest_etag(md5)))
}

fn send(blob: Blob) -> StreamingBlob {
    match blob.as_single() {
        Some(bytes) => Body::from(bytes).into(),
        None => StreamingBlob::wrap(stream::iter(blob.chunks())),
    }
}

fn signed(len: u64) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

fn storage_class<T: From<String>>(described: &Described) -> Option<T> {
    described.storage_class.clone().map(T::from)
}

/// As S3 encodes keys with `encoding-type=url`: like a form, but "/" stays.
pub(super) fn form_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => encoded.push(byte as char),
            b' ' => encoded.push('+'),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

fn list_query(input: &ListObjectsV2Input) -> S3Result<Query<'_>> {
    let after = match (&input.continuation_token, &input.start_after) {
        (Some(token), _) => After::from_token(token).ok_or_else(|| s3_error!(InvalidArgument, "bad token"))?,
        (None, Some(key)) => After::Key(key.clone()),
        (None, None) => After::Start,
    };
    let max_keys = input.max_keys.unwrap_or(MAX_KEYS as i32);
    Ok(Query {
        prefix: input.prefix.as_deref().unwrap_or_default(),
        delimiter: input.delimiter.as_deref().unwrap_or_default(),
        after,
        max_keys: usize::try_from(max_keys).map_err(|_| s3_error!(InvalidArgument))?.min(MAX_KEYS),
    })
}

fn list_answer(input: ListObjectsV2Input, page: Page, max_keys: usize) -> ListObjectsV2Output {
    let is_encoded = input.encoding_type.as_ref().is_some_and(|e| e.as_str() == EncodingType::URL);
    let text = |text: &str| if is_encoded { form_encode(text) } else { text.to_owned() };
    let count = page.objects.len() + page.prefixes.len();
    let objects = page.objects.iter().map(|(key, version)| Object {
        key: Some(text(key)),
        e_tag: Some(strong(&version.etag)),
        size: Some(signed(version.blob.len())),
        last_modified: Some(timestamp(version.modified)),
        storage_class: storage_class(&version.described).or(Some(ObjectStorageClass::from_static("STANDARD"))),
        ..Object::default()
    });
    let prefixes = page.prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(text(prefix)) });
    ListObjectsV2Output {
        contents: Some(objects.collect()),
        common_prefixes: Some(prefixes.collect()),
        name: Some(input.bucket),
        prefix: Some(text(input.prefix.as_deref().unwrap_or_default())),
        delimiter: input.delimiter.as_deref().map(text),
        start_after: input.start_after.as_deref().map(text),
        encoding_type: input.encoding_type,
        continuation_token: input.continuation_token,
        max_keys: i32::try_from(max_keys).ok(),
        key_count: i32::try_from(count).ok(),
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next,
        ..ListObjectsV2Output::default()
    }
}

fn head_of(version: &Version) -> HeadObjectOutput {
    let described = &version.described;
    HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_length: Some(signed(version.blob.len())),
        e_tag: Some(strong(&version.etag)),
        last_modified: Some(timestamp(version.modified)),
        content_type: Some(described.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned())),
        cache_control: described.cache_control.clone(),
        content_disposition: described.content_disposition.clone(),
        content_encoding: described.content_encoding.clone(),
        content_language: described.content_language.clone(),
        expires: described.expires.as_deref().and_then(|e| Timestamp::parse(TimestampFormat::HttpDate, e).ok()),
        website_redirect_location: described.website_redirect.clone(),
        server_side_encryption: described.sse.clone().map(ServerSideEncryption::from),
        ssekms_key_id: described.kms_key.clone(),
        storage_class: storage_class(described),
        metadata: Some(described.user.clone().into_iter().collect()),
        ..HeadObjectOutput::default()
    }
}

/// Reads what a writer says of an object out of any of the inputs that have these fields.
macro_rules! described {
    ($input:expr) => {
        Described {
            content_type: $input.content_type,
            cache_control: $input.cache_control,
            content_disposition: $input.content_disposition,
            content_encoding: $input.content_encoding,
            content_language: $input.content_language,
            expires: $input.expires.as_ref().map(http_date),
            website_redirect: $input.website_redirect_location,
            storage_class: $input.storage_class.map(|class| class.as_str().to_owned()),
            acl: $input.acl.map(|acl| acl.as_str().to_owned()),
            sse: $input.server_side_encryption.map(|sse| sse.as_str().to_owned()),
            kms_key: $input.ssekms_key_id,
            tagging: $input.tagging,
            user: $input.metadata.unwrap_or_default().into_iter().map(|(n, v)| (n.to_lowercase(), v)).collect(),
        }
    };
}
pub(super) use described;

/// Refuses what S3 has no room for.
pub(super) fn fitting(described: Described) -> S3Result<Described> {
    let bytes: usize = described.user.iter().map(|(name, value)| name.len() + value.len()).sum();
    match bytes <= MAX_USER_BYTES {
        true => Ok(described),
        false => Err(s3_error!(MetadataTooLarge, "Your metadata headers exceed the maximum allowed metadata size")),
    }
}

/// The pairs of `x-amz-tagging`.
fn tags(tagging: &str) -> impl Iterator<Item = (String, String)> {
    let pairs = tagging.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(n, v)| (decode(n, true), decode(v, true)))
}

/// How many tags there are; `None` without any, as S3 tells it.
fn tag_count(version: &Version) -> Option<i32> {
    let count = tags(version.described.tagging.as_deref()?).count();
    i32::try_from(count).ok().filter(|count| *count > 0)
}

pub(super) fn http_date(time: &Timestamp) -> String {
    let mut text = Vec::new();
    // Writing to memory cannot fail, and a date is text.
    let _ = time.format(TimestampFormat::HttpDate, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// Refuses what S3 does not copy in one request.
fn check_copy(input: &CopyObjectInput, source: &Version, is_replaced: bool) -> S3Result<()> {
    if source.blob.len() > MAX_COPY_BYTES {
        return Err(s3_error!(InvalidRequest, "The specified copy source is larger than the maximum allowable size"));
    }
    let is_moved = input.storage_class.is_some()
        || input.website_redirect_location.is_some()
        || input.server_side_encryption.is_some();
    let CopySource::Bucket { bucket, key, .. } = &input.copy_source else { return Ok(()) };
    if **bucket == *input.bucket && **key == *input.key && !is_replaced && !is_moved {
        return Err(s3_error!(InvalidRequest, "This copy request is illegal because it changes nothing"));
    }
    Ok(())
}

#[async_trait::async_trait]
impl S3 for Operations {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.data.create_bucket(&req.input.bucket)?;
        let location = Some(format!("/{}", req.input.bucket));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.data.with_keys(&req.input.bucket, |_| ())?;
        let bucket_region = Some(super::REGION.to_owned());
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..HeadBucketOutput::default() }))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.data.with_keys(&req.input.bucket, |_| ())?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let named = |name| Bucket { name: Some(name), creation_date: Some(timestamp(Time(0))), ..Bucket::default() };
        let buckets = Some(self.data.buckets().into_iter().map(named).collect());
        Ok(S3Response::new(ListBucketsOutput { buckets, ..ListBucketsOutput::default() }))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let query = list_query(&req.input)?;
        let page = self.data.with_listing(&req.input.bucket, |keys| listing::page(keys, &query))?;
        let max_keys = query.max_keys;
        Ok(S3Response::new(list_answer(req.input, page, max_keys)))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let version = self.data.get(&input.bucket, &input.key)?;
        let conditions = ReadIf {
            matches: input.if_match,
            none_match: input.if_none_match,
            modified_since: input.if_modified_since,
            unmodified_since: input.if_unmodified_since,
        };
        conditions.demand(&version)?;
        let mut response = S3Response::new(head_of(&version));
        // `s3s` tells it after a GET only.
        if let Some(count) = tag_count(&version) {
            response.headers.insert("x-amz-tagging-count", count.into());
        }
        Ok(response)
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let version = self.data.get(&input.bucket, &input.key)?;
        let conditions = ReadIf {
            matches: input.if_match,
            none_match: input.if_none_match,
            modified_since: input.if_modified_since,
            unmodified_since: input.if_unmodified_since,
        };
        conditions.demand(&version)?;
        let size = version.blob.len();
        let range = input.range.map(|range| range.check(size)).transpose()?;
        let head = head_of(&version);
        let body = range.clone().map_or_else(|| version.blob.clone(), |range| version.blob.slice(range));
        let output = GetObjectOutput {
            content_length: Some(signed(body.len())),
            content_range: range.as_ref().map(|r| format!("bytes {}-{}/{size}", r.start, r.end - 1)),
            body: Some(send(body)),
            accept_ranges: head.accept_ranges,
            e_tag: head.e_tag,
            last_modified: head.last_modified,
            content_type: head.content_type,
            cache_control: head.cache_control,
            content_disposition: head.content_disposition,
            content_encoding: head.content_encoding,
            content_language: head.content_language,
            expires: head.expires,
            website_redirect_location: head.website_redirect_location,
            server_side_encryption: head.server_side_encryption,
            ssekms_key_id: head.ssekms_key_id,
            tag_count: tag_count(&version),
            storage_class: head.storage_class,
            metadata: head.metadata,
            ..GetObjectOutput::default()
        };
        let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        Ok(S3Response::with_status(output, status))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let mut input = req.input;
        let condition = self.write_if(Kind::Put, input.if_match.take(), input.if_none_match.take())?;
        let (blob, etag) = receive(input.body.take()).await?;
        let draft = Draft { etag, described: fitting(described!(input))?, blob };
        let version = self.data.put(&input.bucket, &input.key, draft, &condition)?;
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(strong(&version.etag)), ..PutObjectOutput::default() }))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let if_match = destination_if(&req.headers, IF_MATCH)?;
        let if_none_match = destination_if(&req.headers, IF_NONE_MATCH)?;
        let condition = self.write_if(Kind::Copy, if_match, if_none_match)?;
        let mut input = req.input;
        let source_if = ReadIf {
            matches: input.copy_source_if_match.take(),
            none_match: input.copy_source_if_none_match.take(),
            modified_since: input.copy_source_if_modified_since.take(),
            unmodified_since: input.copy_source_if_unmodified_since.take(),
        };
        let source = self.copy_source(Kind::Copy, &input.copy_source, source_if)?;
        let is_replaced = input.metadata_directive.as_ref().is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
        let is_retagged = input.tagging_directive.as_ref().is_some_and(|d| d.as_str() == TaggingDirective::REPLACE);
        check_copy(&input, &source, is_replaced)?;
        let given = described!(input);
        let described = Described {
            tagging: if is_retagged { given.tagging.clone() } else { source.described.tagging.clone() },
            ..if is_replaced { fitting(given)? } else { source.described.moved(given) }
        };
        // A copy of an upload in parts is one piece, but its bytes are not hashed again for a tag.
        let draft = Draft { etag: source.etag.clone(), described, blob: source.blob.clone() };
        let version = self.data.put(&input.bucket, &input.key, draft, &condition)?;
        let result = CopyObjectResult {
            e_tag: Some(strong(&version.etag)),
            last_modified: Some(timestamp(version.modified)),
            ..CopyObjectResult::default()
        };
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let condition = self.write_if(Kind::Delete, req.input.if_match, None)?;
        self.data.delete(&req.input.bucket, &req.input.key, &condition)?;
        Ok(S3Response::with_status(DeleteObjectOutput::default(), StatusCode::NO_CONTENT))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = req.input;
        self.data.with_keys(&input.bucket, |_| ())?;
        let (mut deleted, mut errors) = (vec![], vec![]);
        for object in input.delete.objects {
            let condition = self.write_if(Kind::DeleteMany, object.e_tag.map(ETagCondition::ETag), None)?;
            match self.data.delete(&input.bucket, &object.key, &condition) {
                Ok(_) => deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() }),
                Err(refusal) => {
                    let error = S3Error::from(refusal);
                    errors.push(Error {
                        key: Some(object.key),
                        code: Some(error.code().as_str().to_owned()),
                        message: error.message().map(str::to_owned),
                        ..Error::default()
                    });
                }
            }
        }
        let quiet = input.delete.quiet.unwrap_or_default();
        let output = DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
            errors: (!errors.is_empty()).then_some(errors),
            ..DeleteObjectsOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.create_upload(req.input).map(S3Response::new)
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.put_part(req.input).await.map(S3Response::new)
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        self.copy_part(req.input).map(S3Response::new)
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.complete_upload(req.input).map(S3Response::new)
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.data.abort_upload(&req.input.upload_id)?;
        Ok(S3Response::with_status(AbortMultipartUploadOutput::default(), StatusCode::NO_CONTENT))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.parts(req.input).map(S3Response::new)
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.uploads(req.input).map(S3Response::new)
    }

    async fn get_object_tagging(
        &self,
        req: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let version = self.data.get(&req.input.bucket, &req.input.key)?;
        let tagging = version.described.tagging.as_deref().unwrap_or_default();
        let tag_set = tags(tagging).map(|(key, value)| Tag { key: Some(key), value: Some(value) }).collect();
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set, ..GetObjectTaggingOutput::default() }))
    }

    async fn put_object_tagging(
        &self,
        req: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        let input = req.input;
        let text = |text: Option<String>| form_encode(&text.unwrap_or_default());
        let pairs = input.tagging.tag_set.into_iter().map(|tag| format!("{}={}", text(tag.key), text(tag.value)));
        let tagging = pairs.collect::<Vec<_>>().join("&");
        self.data.retag(&input.bucket, &input.key, Some(tagging))?;
        Ok(S3Response::new(PutObjectTaggingOutput::default()))
    }

    async fn delete_object_tagging(
        &self,
        req: S3Request<DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
        self.data.retag(&req.input.bucket, &req.input.key, None)?;
        Ok(S3Response::with_status(DeleteObjectTaggingOutput::default(), StatusCode::NO_CONTENT))
    }
}
