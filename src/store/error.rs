//! The one table from what the SDK says of a failed request to `store::Error`.
//! Invariant: only what another try may cure becomes `Unavailable`; no secret gets into a message.

use std::error::Error as StdError;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::Error;
use crate::types::Key;

/// Header by which S3 tells the region of a bucket to those who asked elsewhere.
pub(super) const BUCKET_REGION: &str = "x-amz-bucket-region";

/// What was asked, to put an error into words.
pub(super) struct Asked<'a> {
    pub(super) operation: &'static str,
    pub(super) bucket: &'a str,
    /// The key, relative to the export; `None` for a listing.
    pub(super) key: Option<&'a Key>,
}

/// The facts of a failed request.
#[derive(Debug)]
pub(crate) struct Failure {
    /// HTTP status; 0 when nobody answered.
    pub(crate) status: u16,
    /// Error code of S3; empty when it gave none, as after a HEAD.
    pub(crate) code: String,
    /// What S3 or the network said.
    pub(crate) message: String,
    /// Region of the bucket, when S3 told it.
    pub(crate) region: Option<String>,
}

impl Failure {
    pub(crate) fn new<E>(error: &SdkError<E, HttpResponse>) -> Failure
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let response = error.raw_response();
        let code = error.code().unwrap_or_default().to_owned();
        let message = match error {
            SdkError::ServiceError(service) => match service.err().message() {
                Some(message) => format!("{code}: {message}"),
                None if response.is_some_and(|r| r.status().is_success()) && code.is_empty() => {
                    format!("the answer cannot be read: {}", root_cause(service.err()))
                }
                None => code.clone(),
            },
            other => root_cause(other),
        };
        Failure {
            status: match error {
                // An answer that could not be read is no answer.
                SdkError::ServiceError(_) => response.map_or(0, |r| r.status().as_u16()),
                SdkError::ConstructionFailure(_) => 400,
                _ => 0,
            },
            region: response.and_then(|r| r.headers().get(BUCKET_REGION)).map(str::to_owned),
            code,
            message,
        }
    }

    /// The table.
    pub(super) fn into_error(self, asked: &Asked<'_>) -> Error {
        let what = match asked.key {
            Some(key) => format!("{} {key}", asked.operation),
            None => format!("{} {}", asked.operation, asked.bucket),
        };
        let message = self.words();
        match (self.status, self.code.as_str(), asked.key) {
            (404, "NoSuchBucket", _) => Error::NoSuchBucket { bucket: asked.bucket.to_owned() },
            // Without a part that was named, an upload is of no more use than one that is gone.
            (404, "NoSuchUpload", Some(key)) | (_, "InvalidPart", Some(key)) => {
                Error::NoSuchUpload { key: key.clone() }
            }
            (404, _, Some(key)) => Error::NotFound { key: key.clone() },
            (412, _, Some(key)) | (_, "PreconditionFailed", Some(key)) => {
                Error::PreconditionFailed { key: key.clone() }
            }
            (_, "ExpiredToken" | "ExpiredTokenException" | "InvalidToken", _) => Error::Denied { what, message },
            (401 | 403, _, _) => Error::Denied { what, message },
            // Another try does not teach a server what it does not know.
            (501, _, _) => Error::Other { what, message },
            // A copy or a completion may answer 200 and then fail.
            (0 | 408 | 429 | 500..=599, _, _)
            | (_, "RequestTimeout" | "SlowDown" | "InternalError" | "ServiceUnavailable", _) => {
                Error::Unavailable { what, message }
            }
            _ if self.is_conflict() => Error::Unavailable { what, message },
            _ => Error::Other { what, message },
        }
    }

    /// Whether two conditional writes met; another try finds out which was first.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self.code.as_str(), "ConditionalRequestConflict" | "OperationAborted")
    }

    /// One line for a person.
    fn words(&self) -> String {
        match advice(&self.code) {
            Some(advice) => format!("{}: {advice}", self.cause()),
            None => self.cause(),
        }
    }

    fn cause(&self) -> String {
        match (&self.region, self.message.is_empty()) {
            (Some(region), _) if self.is_elsewhere() => {
                format!("the bucket is in region {region}: use --region {region}")
            }
            (_, true) => format!("HTTP status {}", self.status),
            _ => self.message.clone(),
        }
    }

    /// Whether the bucket is in another region than the one asked.
    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self.status, 301 | 302 | 307 | 400) && self.region.is_some()
    }
}

/// What to do about an error that stays until somebody does it.
fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "EntityTooLarge" => "it is larger than this store takes; split it, or use --exclude to keep it local",
        "EntityTooSmall" => "this store wants larger parts",
        "KeyTooLongError" => "with its directories the name is too long for S3; shorten it",
        "MetadataTooLarge" => "shorten or remove some of its user metadata",
        "InvalidTag" => "S3 does not take its tags; change them",
        "InvalidStorageClass" => "this store does not know it; give another --storage-class",
        "AccessControlListNotSupported" => "the bucket has ACLs switched off; leave --acl out",
        "InvalidObjectState" => "the object is in an archive; restore it first",
        "QuotaExceeded" | "XMinioStorageFull" | "ServiceQuotaExceeded" => "the store is full; make room there",
        _ if code.starts_with("KMS.") => "check --sse-kms-key-id and who may use that key",
        _ => return None,
    })
}

/// The innermost cause, which says "connection refused" where the outermost says "dispatch failure".
fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn map(status: u16, code: &str, key: Option<&Key>) -> Error {
        let failure = Failure { status, code: code.into(), message: String::new(), region: None };
        failure.into_error(&Asked { operation: "GET", bucket: "b", key })
    }

    #[test]
    fn every_status_has_its_place_in_the_table() {
        let key = Key::new("k").unwrap();
        let some = Some(&key);
        assert!(matches!(map(404, "NoSuchKey", some), Error::NotFound { .. }));
        assert!(matches!(map(404, "", some), Error::NotFound { .. }));
        assert!(matches!(map(404, "NoSuchBucket", some), Error::NoSuchBucket { .. }));
        assert!(matches!(map(412, "PreconditionFailed", some), Error::PreconditionFailed { .. }));
        assert!(matches!(map(403, "AccessDenied", None), Error::Denied { .. }));
        assert!(matches!(map(400, "ExpiredToken", some), Error::Denied { .. }));
        for status in [0, 429, 500, 503] {
            assert!(matches!(map(status, "", some), Error::Unavailable { .. }), "{status}");
        }
        assert!(matches!(map(400, "RequestTimeout", some), Error::Unavailable { .. }));
        assert!(matches!(map(416, "InvalidRange", some), Error::Other { .. }));
        assert!(matches!(map(404, "NoSuchUpload", None), Error::Other { .. }));
        assert!(matches!(map(404, "NoSuchUpload", some), Error::NoSuchUpload { .. }));
        assert!(matches!(map(400, "InvalidPart", some), Error::NoSuchUpload { .. }));
        assert!(matches!(map(409, "ConditionalRequestConflict", some), Error::Unavailable { .. }));
        assert!(matches!(map(409, "BucketNotEmpty", some), Error::Other { .. }));
        assert!(matches!(map(200, "InternalError", some), Error::Unavailable { .. }));
        assert!(matches!(map(501, "NotImplemented", some), Error::Other { .. }));
    }

    #[test]
    fn what_stays_wrong_says_what_to_do() {
        let acl = map(400, "AccessControlListNotSupported", Some(&Key::new("k").unwrap()));
        assert!(acl.to_string().ends_with("leave --acl out"), "{acl}");
        let large = map(400, "EntityTooLarge", Some(&Key::new("k").unwrap()));
        assert!(matches!(large, Error::Other { .. }) && large.to_string().contains("larger than this store takes"));
    }

    #[test]
    fn a_redirect_says_which_region_to_use() {
        let failure =
            Failure { status: 301, code: String::new(), message: String::new(), region: Some("eu-west-1".into()) };
        let error = failure.into_error(&Asked { operation: "LIST", bucket: "b", key: None });
        assert_eq!(error.to_string(), "LIST b: the bucket is in region eu-west-1: use --region eu-west-1");
    }
}
