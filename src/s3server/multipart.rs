//! Multipart uploads.
//! Invariant: a part counts once it is whole; completing joins parts without copying, and is conditional
//! under the same lock as a PUT.

use bytes::Bytes;
use md5::{Digest, Md5};
use s3s::dto::*;
use s3s::{S3Error, S3Result, s3_error};

use super::blob::Blob;
use super::bucket::{digest_etag, md5_etag};
use super::data::{Described, Draft, Part as Piece, Refusal, Upload};
use super::operations::{Operations, ReadIf, described, fitting, form_encode, http_date, receive, strong, timestamp};
use super::request::Kind;
use crate::types::ETag as Tag;

/// Most parts and uploads in one page.
const MAX_PAGE: usize = 1000;
/// Least size of a part that is not the last.
const MIN_PART_BYTES: u64 = 5 << 20;
/// Part numbers that S3 takes.
const PART_NUMBERS: std::ops::RangeInclusive<i32> = 1..=10_000;

impl Operations {
    pub(super) fn create_upload(&self, input: CreateMultipartUploadInput) -> S3Result<CreateMultipartUploadOutput> {
        let upload_id = self.data.create_upload(&input.bucket, &input.key, fitting(described!(input))?)?;
        Ok(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload_id),
            ..CreateMultipartUploadOutput::default()
        })
    }

    pub(super) async fn put_part(&self, input: UploadPartInput) -> S3Result<UploadPartOutput> {
        let number = part_number(input.part_number)?;
        self.data.upload(&input.upload_id)?;
        let (blob, etag) = receive(input.body).await?;
        self.data.put_part(&input.upload_id, number, etag.clone(), blob)?;
        Ok(UploadPartOutput { e_tag: Some(strong(&etag)), ..UploadPartOutput::default() })
    }

    pub(super) fn copy_part(&self, input: UploadPartCopyInput) -> S3Result<UploadPartCopyOutput> {
        let number = part_number(input.part_number)?;
        let source_if = ReadIf {
            matches: input.copy_source_if_match,
            none_match: input.copy_source_if_none_match,
            modified_since: input.copy_source_if_modified_since,
            unmodified_since: input.copy_source_if_unmodified_since,
        };
        let source = self.copy_source(Kind::UploadPartCopy, &input.copy_source, source_if)?;
        let range = input.copy_source_range.as_deref().map(Range::parse).transpose();
        let range = range.map_err(|_| s3_error!(InvalidArgument, "bad x-amz-copy-source-range"))?;
        let blob = match range {
            Some(range) => source.blob.slice(range.check(source.blob.len())?),
            None => source.blob.clone(),
        };
        let etag = etag_of(&blob)?;
        let modified = self.data.put_part(&input.upload_id, number, etag.clone(), blob)?;
        let result = CopyPartResult {
            e_tag: Some(strong(&etag)),
            last_modified: Some(timestamp(modified)),
            ..CopyPartResult::default()
        };
        Ok(UploadPartCopyOutput { copy_part_result: Some(result), ..UploadPartCopyOutput::default() })
    }

    pub(super) fn complete_upload(
        &self,
        input: CompleteMultipartUploadInput,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        let condition = self.write_if(Kind::CompleteUpload, input.if_match, input.if_none_match)?;
        let upload = self.upload(&input.upload_id, &input.bucket, &input.key)?;
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let (blob, etag) = join(&upload, &named)?;
        let draft = Draft { etag, described: upload.described, blob };
        let version = self.data.put(&input.bucket, &input.key, draft, &condition)?;
        // Gone already when two completions raced; the object is there all the same.
        let _ = self.data.abort_upload(&input.upload_id);
        Ok(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(strong(&version.etag)),
            ..CompleteMultipartUploadOutput::default()
        })
    }

    fn upload(&self, id: &str, bucket: &str, key: &str) -> S3Result<Upload> {
        let upload = self.data.upload(id)?;
        if upload.bucket != bucket || upload.key != key {
            return Err(Refusal::NoSuchUpload.into());
        }
        Ok(upload)
    }

    pub(super) fn parts(&self, input: ListPartsInput) -> S3Result<ListPartsOutput> {
        let upload = self.upload(&input.upload_id, &input.bucket, &input.key)?;
        let after = input.part_number_marker.unwrap_or(0);
        let limit = page_limit(input.max_parts);
        let mut rest = upload.parts.range(after.saturating_add(1)..);
        let parts: Vec<Part> = rest.by_ref().take(limit).map(|(number, part)| listed_part(*number, part)).collect();
        let is_truncated = rest.next().is_some();
        Ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            next_part_number_marker: parts.last().and_then(|part| part.part_number),
            part_number_marker: Some(after),
            max_parts: i32::try_from(limit).ok(),
            is_truncated: Some(is_truncated),
            parts: Some(parts),
            ..ListPartsOutput::default()
        })
    }

    pub(super) fn uploads(&self, input: ListMultipartUploadsInput) -> S3Result<ListMultipartUploadsOutput> {
        self.data.with_keys(&input.bucket, |_| ())?;
        let is_encoded = input.encoding_type.as_ref().is_some_and(|e| e.as_str() == EncodingType::URL);
        let text = |text: &str| if is_encoded { form_encode(text) } else { text.to_owned() };
        let prefix = input.prefix.clone().unwrap_or_default();
        let marker = (input.key_marker.clone().unwrap_or_default(), input.upload_id_marker.clone());
        let is_after = |id: &str, key: &str| match &marker {
            (marked, _) if key > marked.as_str() => true,
            (marked, Some(marked_id)) => key == marked && id > marked_id.as_str(),
            _ => false,
        };
        let all = self.data.uploads(&input.bucket, &prefix);
        let mut rest = all.iter().filter(|(id, upload)| is_after(id, &upload.key));
        let limit = page_limit(input.max_uploads);
        let page: Vec<_> = rest.by_ref().take(limit).collect();
        let uploads = page.iter().map(|(id, upload)| MultipartUpload {
            key: Some(text(&upload.key)),
            upload_id: Some(id.clone()),
            initiated: Some(timestamp(upload.started)),
            ..MultipartUpload::default()
        });
        Ok(ListMultipartUploadsOutput {
            uploads: Some(uploads.collect()),
            next_key_marker: page.last().map(|(_, upload)| text(&upload.key)),
            next_upload_id_marker: page.last().map(|(id, _)| id.clone()),
            is_truncated: Some(rest.next().is_some()),
            bucket: Some(input.bucket),
            prefix: Some(text(&prefix)),
            encoding_type: input.encoding_type,
            ..ListMultipartUploadsOutput::default()
        })
    }
}

fn listed_part(number: i32, part: &Piece) -> Part {
    Part {
        part_number: Some(number),
        e_tag: Some(strong(&part.etag)),
        size: i64::try_from(part.blob.len()).ok(),
        last_modified: Some(timestamp(part.modified)),
        ..Part::default()
    }
}

fn part_number(number: i32) -> S3Result<i32> {
    if !PART_NUMBERS.contains(&number) {
        return Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"));
    }
    Ok(number)
}

fn page_limit(asked: Option<i32>) -> usize {
    asked.and_then(|n| usize::try_from(n).ok()).unwrap_or(MAX_PAGE).min(MAX_PAGE)
}

/// Joins the parts in the order the client names them; the tag is the MD5 of their MD5s and their number.
fn join(upload: &Upload, named: &[CompletedPart]) -> S3Result<(Blob, Tag)> {
    if named.is_empty() {
        return Err(s3_error!(MalformedXML, "You must specify at least one part"));
    }
    let (mut blob, mut md5, mut last) = (Blob::default(), Md5::new(), 0);
    for (at, name) in named.iter().enumerate() {
        let number = name.part_number.unwrap_or_default();
        if number <= last {
            return Err(Refusal::InvalidPartOrder.into());
        }
        last = number;
        let part = upload.parts.get(&number).ok_or(Refusal::InvalidPart)?;
        if name.e_tag.as_ref().is_some_and(|etag| etag.value() != part.etag.as_str()) {
            return Err(Refusal::InvalidPart.into());
        }
        if at + 1 < named.len() && part.blob.len() < MIN_PART_BYTES {
            return Err(s3_error!(EntityTooSmall));
        }
        md5.update(unhex(part.etag.as_str()));
        blob.append(&part.blob);
    }
    let etag = Tag::new(&format!("{}-{}", digest_etag(md5), named.len()));
    Ok((blob, etag))
}

fn unhex(etag: &str) -> Vec<u8> {
    let pairs = etag.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
    pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

fn etag_of(blob: &Blob) -> S3Result<Tag> {
    // Bytes that are computed need not be, to tell them from others.
    if let Some(name) = blob.as_generated() {
        return Ok(md5_etag([&Bytes::from(name)]));
    }
    let chunks = blob.clone().chunks().collect::<Result<Vec<Bytes>, _>>();
    Ok(md5_etag(&chunks.map_err(S3Error::internal_error)?))
}
