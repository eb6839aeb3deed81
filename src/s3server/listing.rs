//! Pages of ListObjectsV2 over the ordered keys of a bucket.
//! Invariant: the cost of a page is its own length (times a tree seek), not the size of the bucket: what
//! lies under a common prefix is skipped by seeking behind it.

use std::ops::Bound;
use std::sync::Arc;

use super::data::{Keys, Version};

/// Most keys and prefixes in one page, as S3 has it.
pub(super) const MAX_KEYS: usize = 1000;

/// What to list.
pub(super) struct Query<'a> {
    pub(super) prefix: &'a str,
    /// Empty: nothing is folded.
    pub(super) delimiter: &'a str,
    pub(super) after: After,
    pub(super) max_keys: usize,
}

/// Where a page begins.
pub(super) enum After {
    Start,
    /// After this text, be it a key or a common prefix.
    Key(String),
    /// After everything that begins with this.
    Prefix(String),
}

/// One page.
#[derive(Default)]
pub(super) struct Page {
    pub(super) objects: Vec<(Arc<str>, Arc<Version>)>,
    pub(super) prefixes: Vec<String>,
    /// Continuation token of the next page.
    pub(super) next: Option<String>,
}

impl After {
    /// Reads a token that `Page::next` gave; `None` when it is none of ours.
    pub(super) fn from_token(token: &str) -> Option<After> {
        match token.split_at_checked(1)? {
            ("k", hex) => Some(After::Key(unhex(hex)?)),
            ("p", hex) => Some(After::Prefix(unhex(hex)?)),
            _ => None,
        }
    }

    fn token(&self) -> Option<String> {
        match self {
            After::Start => None,
            After::Key(key) => Some(format!("k{}", hex(key.as_bytes()))),
            After::Prefix(prefix) => Some(format!("p{}", hex(prefix.as_bytes()))),
        }
    }

    fn bound(&self) -> Bound<String> {
        match self {
            After::Start => Bound::Unbounded,
            After::Key(key) => Bound::Excluded(key.clone()),
            After::Prefix(prefix) => successor(prefix).map_or(Bound::Excluded(prefix.clone()), Bound::Included),
        }
    }
}

/// Takes one page of `keys`.
pub(super) fn page(keys: &Keys, query: &Query<'_>) -> Page {
    let mut page = Page::default();
    let mut from = later(query.after.bound(), query.prefix);
    let mut last = After::Start;
    let mut left = query.max_keys;
    if left == 0 {
        return page;
    }
    'seek: loop {
        let bounds: (Bound<&str>, Bound<&str>) = (from.as_ref().map(String::as_str), Bound::Unbounded);
        for (key, version) in keys.range::<str, _>(bounds) {
            let Some(rest) = key.strip_prefix(query.prefix) else { return page };
            let folded = (!query.delimiter.is_empty()).then(|| rest.find(query.delimiter)).flatten();
            let common = folded.map(|at| &key[..query.prefix.len() + at + query.delimiter.len()]);
            let hidden = common.is_some_and(|c| matches!(&query.after, After::Key(k) if c <= k.as_str()));
            if !hidden && left == 0 {
                page.next = last.token();
                return page;
            }
            let Some(common) = common else {
                page.objects.push((key.clone(), version.clone()));
                last = After::Key(key.to_string());
                left -= 1;
                continue;
            };
            let skip = After::Prefix(common.to_owned());
            from = skip.bound();
            if !hidden {
                page.prefixes.push(common.to_owned());
                last = skip;
                left -= 1;
            }
            continue 'seek;
        }
        return page;
    }
}

/// `bound`, or the start of `prefix` when that is later.
fn later(bound: Bound<String>, prefix: &str) -> Bound<String> {
    match bound {
        Bound::Included(text) | Bound::Excluded(text) if text.as_str() < prefix => Bound::Included(prefix.to_owned()),
        Bound::Unbounded => Bound::Included(prefix.to_owned()),
        bound => bound,
    }
}

/// The least text after everything that begins with `prefix`; `None` when there is none.
fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        let next = match last {
            char::MAX => continue,
            '\u{d7ff}' => '\u{e000}', // the surrogates in between are no characters
            other => char::from_u32(other as u32 + 1)?,
        };
        text.push(next);
        return Some(text);
    }
    None
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<String> {
    let digits = text.as_bytes();
    let pairs = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    String::from_utf8(pairs.collect::<Option<Vec<u8>>>()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::blob::Blob;
    use super::super::data::Described;
    use super::*;
    use crate::types::{ETag, Time};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn keys<'a>(names: impl IntoIterator<Item = &'a str>) -> Keys {
        let version = || Version {
            etag: ETag::new("e"),
            modified: Time(0),
            described: Described::default(),
            blob: Blob::default(),
        };
        names.into_iter().map(|name| (name.into(), Arc::new(version()))).collect()
    }

    /// All pages, put together: objects and prefixes.
    fn list_all(keys: &Keys, prefix: &str, delimiter: &str, max_keys: usize) -> (Vec<String>, Vec<String>) {
        let (mut objects, mut prefixes, mut after) = (vec![], vec![], After::Start);
        loop {
            let page = page(keys, &Query { prefix, delimiter, after, max_keys });
            assert!(page.objects.len() + page.prefixes.len() <= max_keys);
            objects.extend(page.objects.iter().map(|(key, _)| key.to_string()));
            prefixes.extend(page.prefixes);
            let Some(next) = page.next else { return (objects, prefixes) };
            after = After::from_token(&next).unwrap();
        }
    }

    #[test]
    fn folds_what_follows_the_delimiter() {
        let keys = keys(["a", "a/1", "a/2", "a0", "b/c/d", "b/e"]);
        assert_eq!(list_all(&keys, "", "/", 2), (vec!["a".into(), "a0".into()], vec!["a/".into(), "b/".into()]));
        assert_eq!(list_all(&keys, "b/", "/", 2), (vec!["b/e".into()], vec!["b/c/".into()]));
    }

    #[test]
    fn a_page_that_ends_the_bucket_has_no_next() {
        let keys = keys(["a", "b"]);
        let query = Query { prefix: "", delimiter: "", after: After::Start, max_keys: 2 };
        assert!(page(&keys, &query).next.is_none());
    }

    proptest! {
        #[test]
        fn pages_put_together_are_the_whole_listing(
            names in prop::collection::btree_set("[ab/\u{d7ff}\u{10ffff}]{1,5}", 0..30),
            prefix in "[ab/\u{10ffff}]{0,2}", delimiter in "(/|a|)", max_keys in 1_usize..4,
        ) {
            let keys = keys(names.iter().map(String::as_str));
            let (mut objects, mut folded) = (vec![], BTreeSet::new());
            for rest in names.iter().filter_map(|name| name.strip_prefix(prefix.as_str())) {
                match rest.find(&delimiter).filter(|_| !delimiter.is_empty()) {
                    Some(at) => drop(folded.insert(format!("{prefix}{}", &rest[..at + delimiter.len()]))),
                    None => objects.push(format!("{prefix}{rest}")),
                }
            }
            prop_assert_eq!(list_all(&keys, &prefix, &delimiter, max_keys), (objects, folded.into_iter().collect()));
        }
    }
}
