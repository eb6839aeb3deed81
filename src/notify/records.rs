//! What S3 and its likes write into an event, read into hints: the `Records` of S3 itself, MinIO and Ceph, the same in
//! an envelope of SNS, and the form of EventBridge.
//! Invariants
//! - Whatever comes in, nothing panics, and memory stays within a small multiple of the bytes that came.
//! - Fields that only help (tag, size, time, sequencer) may be missing or nonsense; bucket, key and the name of the
//!   event must be there.
//! - What changes no byte, name or date of an object makes no hint. Above all not a read, of which MinIO can tell too:
//!   the check behind a hint is one.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Hint, Origin, Said, Scope, Sequencer};
use crate::store;
use crate::store::conditions::PROBE_PREFIX;
use crate::types::{ETag, Key, Time};

/// Longest message that is read, in bytes: what SQS and EventBridge carry at most.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Most records of one message: S3 sends one, those who gather them some dozens.
const MAX_RECORDS: usize = 1_000;
/// Longest tag that is believed: those of S3 have at most 38 characters, others may be inventive.
const MAX_ETAG_BYTES: usize = 256;
/// SNS around EventBridge around nothing more.
const MAX_ENVELOPES: usize = 2;

/// What a message turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Something happened to objects.
    Events(Events),
    /// S3 tries a new configuration out.
    Test,
    /// SNS asks whether its messages are wanted.
    Subscription {
        /// The topic.
        topic: String,
        /// What to open if they are.
        url: String,
    },
}

/// The events of a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// What they say of keys of ours.
    pub hints: Vec<Hint>,
    /// Keys of `fasts3 events check`, as they are called here.
    pub probes: Vec<Key>,
    /// Those of other buckets and prefixes, and of a kind that changes nothing here.
    pub ignored: usize,
    /// Records that are none.
    pub unreadable: usize,
}

/// Why a message is not understood.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is too long to be looked at.
    #[error("longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
    /// It is not JSON, or has another shape.
    #[error("not JSON of a shape that is known: {0}")]
    Json(#[from] serde_json::Error),
    /// It is JSON of somebody else's.
    #[error("no event of S3")]
    Foreign,
}

/// Reads a message, of which `scope` says what concerns this server.
/// # Errors
/// When nothing in it can be understood.
pub fn read(message: &str, scope: &Scope, origin: Origin) -> Result<Message, Unreadable> {
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(Unreadable::TooLong);
    }
    unwrap(message, &Reader { scope, origin }, MAX_ENVELOPES)
}

fn unwrap(message: &str, reader: &Reader<'_>, envelopes: usize) -> Result<Message, Unreadable> {
    let any: Any<'_> = serde_json::from_str(message)?;
    if let Some(Records(records)) = any.records {
        return reader.records(&records).map(Message::Events);
    }
    if any.source.text() == Some("aws.s3") {
        return Ok(Message::Events(reader.bridged(&any)?));
    }
    match (any.kind.text(), any.message.text()) {
        (Some("Notification"), Some(inner)) if envelopes > 0 => unwrap(inner, reader, envelopes - 1),
        (Some("SubscriptionConfirmation"), _) => Ok(Message::Subscription {
            topic: any.topic.text().unwrap_or_default().to_owned(),
            url: any.subscribe_url.text().unwrap_or_default().to_owned(),
        }),
        _ if any.event.text() == Some("s3:TestEvent") => Ok(Message::Test),
        _ => Err(Unreadable::Foreign),
    }
}

/// Makes hints of events.
struct Reader<'a> {
    scope: &'a Scope,
    origin: Origin,
}

/// One event, whoever wrote it.
struct Event<'a> {
    bucket: &'a str,
    key: &'a str,
    what: What,
    etag: Option<&'a str>,
    size: Option<u64>,
    sequencer: Option<&'a str>,
    at: Option<&'a str>,
    /// Of one version among several: those that remain decide what is seen.
    has_version: bool,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// An object was written.
    Created,
    /// An object, or a version of it, was removed.
    Deleted,
    /// A marker hides an object now.
    Hidden,
    /// Something else; S3 will say what.
    Other,
    /// Nothing that is shown here.
    Nothing,
}

impl Reader<'_> {
    fn records(&self, records: &[Record<'_>]) -> Result<Events, Unreadable> {
        let mut events = Events::default();
        for record in records {
            match record.event() {
                Some((event, key)) => self.add(&mut events, &Event { key: &key, ..event }),
                // of a bucket, MinIO has events without a key
                None if record.what() == Some(What::Nothing) => events.ignored += 1,
                None => events.unreadable += 1,
            }
        }
        match events.unreadable {
            0 => Ok(events),
            all if all == records.len() => Err(Unreadable::Foreign),
            _ => Ok(events),
        }
    }

    fn bridged(&self, any: &Any<'_>) -> Result<Events, Unreadable> {
        let mut events = Events::default();
        let event = any.bridged().ok_or(Unreadable::Foreign)?;
        self.add(&mut events, &event);
        Ok(events)
    }

    fn add(&self, events: &mut Events, event: &Event<'_>) {
        match self.scope.key(event.bucket, event.key) {
            Some(key) if key.starts_with(PROBE_PREFIX) => events.probes.push(key),
            Some(key) if event.what != What::Nothing => events.hints.push(self.hint(key, event)),
            _ => events.ignored += 1,
        }
    }

    fn hint(&self, key: Key, event: &Event<'_>) -> Hint {
        let etag = event.etag.filter(|etag| (1..=MAX_ETAG_BYTES).contains(&etag.len()));
        let said = match event.what {
            What::Created => Said::Written { etag: etag.map(ETag::new), size: event.size },
            What::Hidden => Said::Removed,
            What::Deleted if !event.has_version => Said::Removed,
            // `Changed` would mean all below it
            _ if key.is_prefix() => Said::Written { etag: None, size: None },
            _ => Said::Changed,
        };
        Hint {
            key,
            said,
            sequencer: event.sequencer.and_then(Sequencer::new),
            at: event.at.and_then(|at| humantime::parse_rfc3339(at).ok()).map(Time::from),
            origin: self.origin,
        }
    }
}

impl Record<'_> {
    fn what(&self) -> Option<What> {
        self.event_name.text().map(What::of_name)
    }

    /// The event, with the key beside it, which was encoded.
    fn event(&self) -> Option<(Event<'_>, Cow<'_, str>)> {
        let object = self.s3.object.as_ref()?;
        let key = object.key.text().filter(|key| !key.is_empty())?;
        let key = match self.event_source.text() {
            // alone among all writes keys as they are
            Some("ceph:s3") => Cow::Borrowed(key),
            _ => Cow::Owned(store::decode(key)?),
        };
        let event = Event {
            bucket: self.s3.bucket.as_ref()?.name.text()?,
            key: "",
            what: self.what()?,
            etag: object.etag.text(),
            size: object.size.number(),
            sequencer: object.sequencer.text(),
            at: self.event_time.text(),
            has_version: has_version(&object.version_id),
        };
        Some((event, key))
    }
}

/// What a bucket without versions calls a version, if anything, names none.
fn has_version(version: &Loose<'_>) -> bool {
    version.text().is_some_and(|version| !matches!(version, "" | "null"))
}

impl Any<'_> {
    fn bridged(&self) -> Option<Event<'_>> {
        let detail = self.detail.as_ref()?;
        let object = detail.object.as_ref()?;
        Some(Event {
            bucket: detail.bucket.as_ref()?.name.text()?,
            key: object.key.text().filter(|key| !key.is_empty())?,
            what: What::of_bridged(self.detail_type.text()?, detail.deletion_type.text()),
            etag: object.etag.text(),
            size: object.size.number(),
            sequencer: object.sequencer.text(),
            at: self.time.text(),
            has_version: has_version(&object.bridged_version_id),
        })
    }
}

impl What {
    /// Of a name as in `ObjectCreated:Put`, which some begin with `s3:`.
    fn of_name(name: &str) -> What {
        let name = name.strip_prefix("s3:").unwrap_or(name);
        let (family, member) = name.split_once(':').unwrap_or((name, ""));
        match (family, member) {
            ("ObjectCreated", _) | ("ObjectSynced", "Create") => What::Created,
            ("ObjectRemoved" | "LifecycleExpiration", "DeleteMarkerCreated") => What::Hidden,
            ("ObjectRemoved" | "LifecycleExpiration", _) => What::Deleted,
            ("ObjectAccessed" | "ObjectTagging" | "ObjectAcl" | "Replication" | "IntelligentTiering", _) => {
                What::Nothing
            }
            ("ObjectRetention" | "ObjectAnnotation" | "BucketCreated" | "BucketRemoved", _) => What::Nothing,
            _ => What::Other,
        }
    }

    fn of_bridged(detail_type: &str, deletion: Option<&str>) -> What {
        match (detail_type, deletion) {
            ("Object Created", _) => What::Created,
            ("Object Deleted", Some("Delete Marker Created")) => What::Hidden,
            ("Object Deleted", _) => What::Deleted,
            ("Object Tags Added" | "Object Tags Deleted" | "Object ACL Updated" | "Object Access Tier Changed", _) => {
                What::Nothing
            }
            _ => What::Other,
        }
    }
}

/// Every shape at once: which one it is shows in what is there.
#[derive(Deserialize)]
struct Any<'a> {
    #[serde(borrow, default, rename = "Records")]
    records: Option<Records<'a>>,
    #[serde(borrow, default, rename = "Type")]
    kind: Loose<'a>,
    #[serde(borrow, default, rename = "Message")]
    message: Loose<'a>,
    #[serde(borrow, default, rename = "TopicArn")]
    topic: Loose<'a>,
    #[serde(borrow, default, rename = "SubscribeURL")]
    subscribe_url: Loose<'a>,
    #[serde(borrow, default, rename = "Event")]
    event: Loose<'a>,
    #[serde(borrow, default)]
    source: Loose<'a>,
    #[serde(borrow, default, rename = "detail-type")]
    detail_type: Loose<'a>,
    #[serde(borrow, default)]
    time: Loose<'a>,
    #[serde(borrow, default)]
    detail: Option<Detail<'a>>,
}

/// One of `Records`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(borrow, default)]
    event_source: Loose<'a>,
    #[serde(borrow, default)]
    event_name: Loose<'a>,
    #[serde(borrow, default)]
    event_time: Loose<'a>,
    #[serde(borrow, default)]
    s3: Detail<'a>,
}

/// `s3` of a record, `detail` of EventBridge.
#[derive(Default, Deserialize)]
struct Detail<'a> {
    #[serde(borrow, default)]
    bucket: Option<Bucket<'a>>,
    #[serde(borrow, default)]
    object: Option<Object<'a>>,
    #[serde(borrow, default, rename = "deletion-type")]
    deletion_type: Loose<'a>,
}

#[derive(Deserialize)]
struct Bucket<'a> {
    #[serde(borrow, default)]
    name: Loose<'a>,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, default)]
    key: Loose<'a>,
    #[serde(borrow, default)]
    size: Loose<'a>,
    #[serde(borrow, default, alias = "eTag")]
    etag: Loose<'a>,
    #[serde(borrow, default)]
    sequencer: Loose<'a>,
    #[serde(borrow, default, rename = "versionId")]
    version_id: Loose<'a>,
    #[serde(borrow, default, rename = "version-id")]
    bridged_version_id: Loose<'a>,
}

/// At most `MAX_RECORDS` of them.
struct Records<'a>(Vec<Record<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Records<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Records<'a>, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Vec<Record<'de>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_RECORDS} records")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut records = Vec::new();
                while let Some(record) = list.next_element()? {
                    if records.len() == MAX_RECORDS {
                        return Err(serde::de::Error::invalid_length(MAX_RECORDS + 1, &self));
                    }
                    records.push(record);
                }
                Ok(records)
            }
        }
        deserializer.deserialize_seq(List).map(Records)
    }
}

/// A text, a number, or whatever else somebody wrote, which is passed over.
#[derive(Debug, Default)]
enum Loose<'a> {
    Text(Cow<'a, str>),
    Number(u64),
    #[default]
    Else,
}

impl Loose<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Loose::Text(text) => Some(text),
            _ => None,
        }
    }

    fn number(&self) -> Option<u64> {
        match self {
            Loose::Number(number) => Some(*number),
            Loose::Text(text) => text.parse().ok(),
            Loose::Else => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Loose<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Loose<'a>, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Loose<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Loose<'de>, E> {
        Ok(Loose::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Loose<'de>, E> {
        Ok(Loose::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Loose<'de>, E> {
        Ok(Loose::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Loose<'de>, E> {
        Ok(Loose::Else)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Loose<'de>, E> {
        Ok(Loose::Else)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Loose<'de>, E> {
        Ok(Loose::Else)
    }

    fn visit_unit<E>(self) -> Result<Loose<'de>, E> {
        Ok(Loose::Else)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Loose<'de>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Loose::Else)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Loose::Else)
    }
}

#[cfg(test)]
mod tests;
