//! What servers say to each other: one line of JSON, and after it the bytes that ride along, end to end in the order of
//! the line.
//! Invariants
//! - Keys are those of the bucket, so that servers that mount different prefixes of it understand each other.
//! - What comes in is bounded and refused as a whole when any of it is wrong. Members that nobody knows are left out, so
//!   that a newer server may say more; what an older one would misunderstand needs another `VERSION`.
//!
//! ```json
//! {"v":1,"from":"6f1c..","host":"web1","n":7,"at":1790000000000,"changes":[
//!   {"key":"a/new.html","etag":"5d41..","size":5,"inline":5},{"key":"a/gone.html","gone":true},{"key":"a/below/"}]}
//! ```

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::notify::Said;
use crate::types::key::MAX_KEY_BYTES;
use crate::types::{ETag, Time};

/// Of the form of a message.
const VERSION: u32 = 1;
/// 1 MiB: what NATS takes by default, and so four times what is sent from here.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Changes taken from one message; what is sent from here has fewer.
pub(super) const MAX_CHANGES: usize = 10_000;
/// Longer than the tags of any S3.
const MAX_ETAG_BYTES: usize = 256;
/// Longer than a UUID, and than most names of hosts.
const MAX_NAME_BYTES: usize = 255;
/// What the line has beside its changes: more than it ever is.
const FRAME_BYTES: usize = 2 * 6 * MAX_NAME_BYTES + 128;

/// What a server tells the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Which server: its own words come back to it.
    pub(super) from: String,
    /// What people call it.
    pub(super) host: String,
    /// Its sender knows it again by it.
    pub(super) number: u64,
    /// When it was sent, by the sender's clock.
    pub(super) at: Time,
    /// None of them: only that it is there.
    pub(super) changes: Vec<Change>,
}

/// Something happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Its key in the bucket; may be empty, or longer by a prefix, only where `said` is of what is below.
    pub(super) key: String,
    /// What happened.
    pub(super) said: Said,
    /// All bytes of the version that was written.
    pub(super) inline: Option<Bytes>,
}

/// Who sends.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    /// Which server.
    pub(super) id: String,
    /// What people call it.
    pub(super) host: String,
    /// To know this message again.
    pub(super) number: u64,
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Of a later version of this program.
    #[error("its form is that of a newer fasts3 ({0}): update this server")]
    Newer(u32),
    /// More than is taken.
    #[error("it is too long")]
    TooLong,
    /// Not what a server sends.
    #[error("it is no message of a fasts3 server: {0}")]
    Nonsense(String),
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    v: u32,
    #[serde(borrow)]
    from: Cow<'a, str>,
    #[serde(borrow, default)]
    host: Cow<'a, str>,
    #[serde(default)]
    n: u64,
    /// Milliseconds since the Unix epoch.
    at: i64,
    #[serde(borrow, default)]
    changes: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    etag: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    gone: bool,
    /// How many of the bytes after the line are its.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inline: Option<usize>,
}

/// A message of as many of `changes` as fit into `limit` bytes, and how many those are: at least one, of which the bytes
/// stay behind if they must.
pub(super) fn encode<'c>(
    sender: &Sender,
    at: Time,
    changes: impl IntoIterator<Item = &'c Change>,
    limit: usize,
) -> (Bytes, usize) {
    let (mut entries, mut tail) = (Vec::new(), BytesMut::new());
    let mut taken = 0;
    for change in changes.into_iter().take(MAX_CHANGES) {
        let fits =
            |entry: &[u8], inline: usize| FRAME_BYTES + entries.len() + 1 + entry.len() + tail.len() + inline <= limit;
        let inline = change.inline.as_ref().filter(|bytes| fits(&entry(change, Some(bytes.len())), bytes.len()));
        let entry = entry(change, inline.map(Bytes::len));
        if taken > 0 && (!fits(&entry, 0) || (inline.is_none() && change.inline.is_some())) {
            break;
        }
        if taken > 0 {
            entries.push(b',');
        }
        entries.extend_from_slice(&entry);
        tail.put_slice(inline.map_or(&[], |bytes| bytes));
        taken += 1;
    }
    let at = at.0 / 1_000_000;
    let (from, host) = (short(&sender.id), short(&sender.host));
    let head = Line { v: VERSION, from, host, n: sender.number, at, changes: Vec::new() };
    let mut message = serde_json::to_vec(&head).expect("strings and numbers are JSON");
    let end = message.split_off(message.len() - "]}".len());
    message.extend_from_slice(&entries);
    message.extend_from_slice(&end);
    message.push(b'\n');
    message.extend_from_slice(&tail);
    (message.into(), taken)
}

fn entry(change: &Change, inline: Option<usize>) -> Vec<u8> {
    let key = Cow::Borrowed(change.key.as_str());
    let entry = match &change.said {
        Said::Written { etag, size } => {
            let etag = etag.as_ref().map(|etag| Cow::Borrowed(etag.as_str()));
            Entry { key, etag, size: *size, gone: false, inline }
        }
        Said::Removed => Entry { key, etag: None, size: None, gone: true, inline: None },
        Said::Changed => Entry { key, etag: None, size: None, gone: false, inline: None },
    };
    serde_json::to_vec(&entry).expect("strings and numbers are JSON")
}

fn short(name: &str) -> Cow<'_, str> {
    Cow::Borrowed(&name[..name.floor_char_boundary(MAX_NAME_BYTES)])
}

/// Reads a message.
pub(super) fn decode(payload: &Bytes) -> Result<Message, Refused> {
    if payload.len() > MAX_BYTES {
        return Err(Refused::TooLong);
    }
    let end = payload.iter().position(|byte| *byte == b'\n').unwrap_or(payload.len());
    let (line, mut tail) = (&payload[..end], payload.slice((end + 1).min(payload.len())..));
    let line: Line<'_> = match serde_json::from_slice(line) {
        Ok(line) => line,
        Err(error) => return Err(newer(line).unwrap_or_else(|| Refused::Nonsense(error.to_string()))),
    };
    if line.v != VERSION {
        return Err(Refused::Newer(line.v));
    }
    if line.changes.len() > MAX_CHANGES {
        return Err(Refused::TooLong);
    }
    let is_name = |name: &str| name.len() <= MAX_NAME_BYTES && !name.contains(char::is_control);
    if line.from.is_empty() || !is_name(&line.from) || !is_name(&line.host) {
        return Err(nonsense("names are 1 to 255 bytes"));
    }
    let changes = line.changes.into_iter().map(|entry| change(entry, &mut tail)).collect::<Result<_, _>>()?;
    if !tail.is_empty() {
        return Err(nonsense("there is more after its end"));
    }
    let at = Time(line.at.saturating_mul(1_000_000));
    Ok(Message { from: line.from.into(), host: line.host.into(), number: line.n, at, changes })
}

fn newer(line: &[u8]) -> Option<Refused> {
    serde_json::from_slice::<Version>(line).ok().filter(|line| line.v > VERSION).map(|line| Refused::Newer(line.v))
}

fn nonsense(what: &str) -> Refused {
    Refused::Nonsense(what.to_owned())
}

fn change(entry: Entry<'_>, tail: &mut Bytes) -> Result<Change, Refused> {
    if entry.key.len() > MAX_KEY_BYTES || entry.etag.as_ref().is_some_and(|etag| etag.len() > MAX_ETAG_BYTES) {
        return Err(nonsense("no key and no tag is that long"));
    }
    let inline = match entry.inline {
        Some(n) if n > tail.len() || entry.etag.is_none() || entry.size != Some(n as u64) => {
            return Err(nonsense("bytes are missing or of no version"));
        }
        Some(n) => Some(tail.split_to(n)),
        None => None,
    };
    let said = match entry {
        Entry { gone: true, etag: None, size: None, .. } => Said::Removed,
        Entry { gone: true, .. } => return Err(nonsense("a version that is gone has no tag")),
        Entry { etag: None, size: None, .. } => Said::Changed,
        Entry { etag, size, .. } => Said::Written { etag: etag.map(|etag| ETag::new(&etag)), size },
    };
    Ok(Change { key: entry.key.into(), said, inline })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn sender() -> Sender {
        Sender { id: "id-1".into(), host: "web \"1\"".into(), number: 7 }
    }

    fn written(key: &str, bytes: &[u8], rides: bool) -> Change {
        let said = Said::Written { etag: Some(ETag::new("5d41")), size: Some(bytes.len() as u64) };
        Change { key: key.into(), said, inline: rides.then(|| Bytes::copy_from_slice(bytes)) }
    }

    fn said(key: &str, said: Said) -> Change {
        Change { key: key.into(), said, inline: None }
    }

    const AT: Time = Time(1_790_000_000_123_000_000);

    #[test]
    fn what_is_sent_is_what_is_read() {
        let changes = vec![
            written("a/ü\n\"x\"", b"he\nllo", true),
            written("b", b"12345", false),
            written("empty", b"", true),
            said("c", Said::Removed),
            said("dir/", Said::Changed),
            said("", Said::Changed),
            written("d", b"world", true),
        ];
        let (message, taken) = encode(&sender(), AT, &changes, MAX_BYTES);
        assert_eq!(taken, changes.len());
        let read = decode(&message).unwrap();
        assert_eq!(read, Message { from: "id-1".into(), host: "web \"1\"".into(), number: 7, at: AT, changes });
        let (message, _) = encode(&sender(), AT, [], MAX_BYTES);
        assert_eq!(decode(&message).unwrap().changes, []);
    }

    #[test]
    fn what_does_not_fit_goes_into_the_next_message() {
        let changes: Vec<_> = (0..100).map(|n| written(&format!("k{n}"), &[n; 1_000], true)).collect();
        let (mut from, mut messages) = (0, 0);
        while from < changes.len() {
            let (message, taken) = encode(&sender(), AT, &changes[from..], 16 << 10);
            assert!(message.len() <= 16 << 10);
            assert_eq!(decode(&message).unwrap().changes, changes[from..from + taken]);
            from += taken;
            messages += 1;
        }
        assert!((7..=10).contains(&messages), "{messages}");
    }

    #[test]
    fn bytes_that_fit_into_no_message_stay_behind() {
        let big = written("big", &[1; 20_000], true);
        let (message, taken) = encode(&sender(), AT, [&big, &said("c", Said::Removed)], 16 << 10);
        let read = decode(&message).unwrap();
        assert_eq!((taken, read.changes[0].inline.is_none(), &read.changes[0].said), (2, true, &big.said));
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = |text: &str| decode(&Bytes::copy_from_slice(text.as_bytes())).unwrap_err();
        let with = |changes: &str| format!(r#"{{"v":1,"from":"x","at":1,"changes":[{changes}]}}"#);
        for text in [
            String::new(),
            "{}".into(),
            "[]".into(),
            r#"{"v":1,"from":"","at":1}"#.into(),
            r#"{"v":1,"from":"x\u0007","at":1}"#.into(),
            with(r#"{"key":1}"#),
            with(&format!(r#"{{"key":"{}"}}"#, "k".repeat(1_025))),
            with(&format!(r#"{{"key":"k","etag":"{}"}}"#, "e".repeat(257))),
            with(r#"{"key":"k","gone":true,"size":3}"#),
            with(r#"{"key":"k","size":-3}"#),
            with(r#"{"key":"k","etag":"e","size":3,"inline":3}"#) + "\nab",
            with(r#"{"key":"k","etag":"e","size":3,"inline":2}"#) + "\nab",
            with(r#"{"key":"k","inline":0}"#),
            with("") + "\nmore",
        ] {
            assert!(matches!(refused(&text), Refused::Nonsense(_)), "{text}");
        }
        assert_eq!(decode(&Bytes::from(vec![b' '; MAX_BYTES + 1])), Err(Refused::TooLong));
        assert_eq!(refused(&with(&[r#"{"key":""}"#; MAX_CHANGES + 1].join(","))), Refused::TooLong);
    }

    #[test]
    fn newer_servers_may_say_more_or_be_told_apart() {
        let decode = |text: &'static str| decode(&Bytes::from_static(text.as_bytes()));
        let more = r#"{"v":1,"why":"x","from":"x","at":1,"changes":[{"key":"k","gone":true,"by":[{}]}]}"#;
        assert_eq!(decode(more).unwrap().changes, [said("k", Said::Removed)]);
        assert_eq!(decode(r#"{"v":2,"from":"x","at":1}"#), Err(Refused::Newer(2)));
        assert_eq!(decode(r#"{"v":3,"packed":"..."}"#), Err(Refused::Newer(3)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes.into());
        }

        #[test]
        fn a_message_that_was_damaged_is_read_or_refused(at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
            let changes = [written("a/b", b"hello", true), said("c", Said::Removed)];
            let mut message = encode(&sender(), AT, &changes, MAX_BYTES).0.to_vec();
            let at = at.index(message.len());
            message[at] = byte;
            if cut {
                message.truncate(at);
            }
            if let Ok(read) = decode(&message.into()) {
                prop_assert!(read.changes.len() <= 2);
            }
        }
    }
}
