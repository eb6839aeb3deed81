//! What an object carries beside its bytes, as S3 wants it in a request and tells it in an answer.
//! Invariant: what was read by `of_head` and is sent back unchanged is kept by S3 unchanged.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{ObjectCannedAcl, ServerSideEncryption, StorageClass};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Headers;
use crate::config::NewObjects;

/// What S3 takes of user metadata, names and values together.
const MAX_USER_BYTES: usize = 2048;
/// Longest encoded word of RFC 2047.
const MAX_WORD_BYTES: usize = 75;
/// Everything but what RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// As `RESERVED`, for a path.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// The headers in the answer of a HEAD; tags are asked for apart.
pub(super) fn of_head(head: &HeadObjectOutput, user: BTreeMap<String, String>, new: &NewObjects) -> Headers {
    Headers {
        content_type: head.content_type.clone(),
        cache_control: head.cache_control.clone(),
        content_disposition: head.content_disposition.clone(),
        content_encoding: head.content_encoding.clone(),
        content_language: head.content_language.clone(),
        expires: head.expires_string.clone(),
        website_redirect: head.website_redirect_location.clone(),
        storage_class: own_class(head, new),
        user,
        tags: Vec::new(),
    }
}

/// The storage class that an object has. S3 does not tell STANDARD; where new objects get another class, it must be
/// asked for on a rewrite to be kept, and elsewhere it is better not said to servers that know no classes.
pub(super) fn own_class(head: &HeadObjectOutput, new: &NewObjects) -> Option<String> {
    let told = head.storage_class.as_ref().map(|class| class.as_str().to_owned());
    told.or_else(|| new.storage_class.as_ref().map(|_| StorageClass::Standard.as_str().to_owned()))
}

/// Headers in the form of a request.
pub(super) struct Fields<'a> {
    pub(super) headers: &'a Headers,
    pub(super) metadata: HashMap<String, String>,
    /// `None` = no tags.
    pub(super) tagging: Option<String>,
}

impl<'a> Fields<'a> {
    /// # Errors
    /// Why S3 would refuse them, and what to do.
    pub(super) fn new(headers: &'a Headers) -> Result<Fields<'a>, String> {
        Ok(Fields { headers, metadata: metadata(&headers.user)?, tagging: tagging(&headers.tags) })
    }
}

/// Where an object is kept: the part of a request that is not copied with the object.
pub(super) struct Placement {
    pub(super) class: Option<StorageClass>,
    pub(super) acl: Option<ObjectCannedAcl>,
    pub(super) sse: Option<ServerSideEncryption>,
    pub(super) kms_key: Option<String>,
}

impl Placement {
    /// `class`: the object's own, which wins over that of the settings.
    pub(super) fn new(class: Option<&str>, new: &NewObjects) -> Placement {
        let encryption = new.encryption.as_ref();
        Placement {
            class: class.or(new.storage_class.as_deref()).map(StorageClass::from),
            acl: new.acl.as_deref().map(ObjectCannedAcl::from),
            sse: encryption.map(|e| ServerSideEncryption::from(e.method.as_str())),
            kms_key: encryption.and_then(|e| e.kms_key.clone()),
        }
    }
}

/// `bucket/key` as `x-amz-copy-source` has it.
pub(super) fn copy_source(bucket: &str, key: &str) -> String {
    format!("{bucket}/{}", utf8_percent_encode(key, RESERVED_IN_PATH))
}

fn tagging(tags: &[(String, String)]) -> Option<String> {
    let encoded = |text| utf8_percent_encode(text, RESERVED).to_string();
    let pairs: Vec<_> = tags.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    (!pairs.is_empty()).then(|| pairs.join("&"))
}

/// User metadata as headers can carry it.
fn metadata(user: &BTreeMap<String, String>) -> Result<HashMap<String, String>, String> {
    let bytes: usize = user.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_USER_BYTES {
        return Err(format!(
            "its user metadata has {bytes} bytes and S3 takes {MAX_USER_BYTES}: shorten or remove some of it"
        ));
    }
    if let Some(name) = user.keys().find(|name| !is_token(name)) {
        return Err(format!("user metadata cannot be named {name:?}: letters, digits, dots and hyphens can"));
    }
    Ok(user.iter().map(|(name, value)| (name.clone(), mail_safe(value))).collect())
}

/// RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !name.is_empty() && name.chars().all(is_legal)
}

/// `value`, or its form of RFC 2047, which S3 stores decoded and tells encoded, when a header would not keep it.
fn mail_safe(value: &str) -> String {
    let is_kept = value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value;
    if is_kept {
        return value.to_owned();
    }
    // Of base64, 4 characters stand for 3 bytes.
    let room = (MAX_WORD_BYTES - "=?UTF-8?B??=".len()) / 4 * 3;
    let mut words = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let (word, tail) = rest.split_at(rest.floor_char_boundary(room));
        words.push(format!("=?UTF-8?B?{}?=", aws_smithy_types::base64::encode(word)));
        rest = tail;
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn user(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn plain_metadata_is_sent_as_it_is() {
        assert_eq!(metadata(&user("file-mtime", "1ns ~")).unwrap()["file-mtime"], "1ns ~");
        assert_eq!(metadata(&user("empty", "")).unwrap()["empty"], "");
    }

    #[test]
    fn other_metadata_is_sent_in_words_of_rfc_2047() {
        assert_eq!(mail_safe("\u{fc}"), "=?UTF-8?B?w7w=?=");
        assert_eq!(mail_safe(" x"), "=?UTF-8?B?IHg=?=");
        let long = mail_safe(&"\u{20ac}".repeat(40));
        assert!(long.split(' ').count() == 3 && long.split(' ').all(|word| word.len() <= MAX_WORD_BYTES), "{long}");
    }

    #[test]
    fn metadata_that_s3_refuses_is_told_before_it_is_sent() {
        assert!(metadata(&user("name", &"x".repeat(2044))).is_ok());
        assert!(metadata(&user("name", &"x".repeat(2045))).unwrap_err().contains("2049 bytes"));
        for name in ["", "a b", "\u{fc}", "a:b", "a\n"] {
            assert!(metadata(&user(name, "x")).unwrap_err().contains("cannot be named"), "{name:?}");
        }
    }

    #[test]
    fn tags_and_sources_of_copies_are_encoded() {
        let tags = [("a b".to_owned(), "1&2=+".to_owned()), ("c".to_owned(), String::new())];
        assert_eq!(tagging(&tags).unwrap(), "a%20b=1%262%3D%2B&c=");
        assert_eq!(tagging(&[]), None);
        assert_eq!(copy_source("b", "/a+b/%\u{fc}"), "b//a%2Bb/%25%C3%BC");
    }

    #[test]
    fn the_class_of_an_object_wins_over_that_of_the_settings() {
        let new = NewObjects { storage_class: Some("STANDARD_IA".into()), ..NewObjects::default() };
        let head = HeadObjectOutput::builder();
        assert_eq!(own_class(&head.clone().build(), &NewObjects::default()), None);
        assert_eq!(own_class(&head.clone().build(), &new).as_deref(), Some("STANDARD"));
        let told = head.storage_class(StorageClass::GlacierIr).build();
        assert_eq!(own_class(&told, &new).as_deref(), Some("GLACIER_IR"));
        assert_eq!(Placement::new(Some("STANDARD"), &new).class, Some(StorageClass::Standard));
        assert_eq!(Placement::new(None, &new).class, Some(StorageClass::StandardIa));
    }
}
