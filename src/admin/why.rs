//! `fasts3 why PATH`: where the answer for one path comes from, how fresh that is, what the next read does, and what of
//! it S3 does not have yet.
//! Asks nobody: neither S3 nor the disk of the cache, so looking changes nothing.

use std::time::{Duration, UNIX_EPOCH};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::{Error, State, names, shown};
use crate::index::{Kind, Node, Presence};
use crate::types::{Clock, Key, Name, Tick, Time};

/// What is known of one path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Why {
    /// The path, absolute in the export.
    pub path: String,
    /// Whether it is known here.
    pub known: bool,
    /// Its key in the bucket, with the mounted prefix.
    pub key: Option<String>,
    /// `file`, `dir`, `symlink` ..
    pub kind: String,
    /// Its inode number.
    pub fileid: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The version that answers are given from.
    pub version: Option<Version>,
    /// How many of its bytes are on the cache disk.
    pub bytes_here: u64,
    /// Whether all are.
    pub complete: bool,
    /// For a directory: whether all its entries are known.
    pub listed: bool,
    /// Milliseconds since S3 was asked; `None` = not since the start.
    pub checked_ms_ago: Option<u64>,
    /// Whether S3 is being asked now.
    pub pending: bool,
    /// Answers given since S3 was last asked.
    pub served_since_check: u32,
    /// Milliseconds during which a read asks nothing.
    pub quiet_ms: u64,
    /// Where its version (for a directory: what is below it) is in the bucket now, with the mounted prefix: another key
    /// than `key` while a rename is on its way. `None`: S3 has nothing of it.
    pub remote_key: Option<String>,
    /// What of it S3 does not have yet.
    pub change: Option<Change>,
    /// All that for a person, a sentence a line.
    pub explanation: Vec<String>,
}

/// What was changed here and is not in S3 yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// Its bytes (of a directory: that it is there, or its attributes).
    pub content: bool,
    /// Mode, owner or times.
    pub attributes: bool,
    /// Its name or place.
    pub place: bool,
    /// Milliseconds since the oldest of that.
    pub age_ms: u64,
    /// Whether bytes of it are staged: on this disk, and nowhere else.
    pub staged: bool,
    /// How many, as of the last COMMIT.
    pub staged_bytes: u64,
}

/// A version in S3.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Version {
    /// Its entity tag.
    pub etag: String,
    /// Its Last-Modified, as RFC 3339 has it.
    pub last_modified: String,
}

/// Explains `path`.
pub(super) fn explain(state: &State, path: &[u8]) -> Result<Why, Error> {
    let mut node = state.root()?;
    for name in names(path)? {
        match state.child(&node, &name)? {
            Some(child) => node = child,
            None => return Ok(unknown(state, path, &node, &name)),
        }
    }
    let mut why = Why { path: shown(path), known: true, ..Why::default() };
    why.key = state.index.key(node.ino)?.map(|key| format!("{}{key}", state.config.s3.prefix));
    why.remote_key = remote_key(state, &node)?.map(|key| format!("{}{key}", state.config.s3.prefix));
    why.change = change(state, &node)?;
    why.bytes_here = bytes_here(state, &node)?;
    describe(&mut why, &node, &state.clock, state.revalidator.recheck(node.freshness.checked()));
    why.explanation = sentences(&why);
    Ok(why)
}

/// A name that the index does not have.
fn unknown(state: &State, path: &[u8], dir: &std::sync::Arc<Node>, name: &Name) -> Why {
    let next = match dir.kind {
        Kind::Dir if name.candidates().is_empty() => "No key of S3 can have this name.",
        Kind::Dir if state.revalidator.is_absent(dir, name) => "S3 was asked just now and does not have it either.",
        Kind::Dir => "The next lookup asks S3 for it and waits for the answer.",
        _ => "What is above it is not a directory.",
    };
    let explanation = vec![format!("{:?} is not known here.", name.to_string()), next.into()];
    Why { path: shown(path), explanation, ..Why::default() }
}

fn bytes_here(state: &State, node: &Node) -> Result<u64, Error> {
    let Some(local) = node.local else { return Ok(0) };
    if local.complete {
        return Ok(node.size);
    }
    Ok(match state.index.presence(local.object)?.map(|row| (row.size, row.presence)) {
        None => 0,
        Some((size, Presence::Complete)) => size,
        Some((_, Presence::Partial(ranges))) => ranges.iter().map(|range| range.end - range.start).sum(),
    })
}

/// Where S3 has it; a directory without a marker: where it has what is below.
fn remote_key(state: &State, node: &Node) -> Result<Option<Key>, Error> {
    Ok(match (node.kind, &node.remote) {
        (Kind::Dir, None) if state.index.entries(node.ino, 0, 1)?.is_empty() => None,
        (Kind::Dir, _) => state.index.remote_prefix(node.ino)?,
        _ => state.index.remote_key(node.ino)?,
    })
}

fn change(state: &State, node: &Node) -> Result<Option<Change>, Error> {
    let Some(pending) = state.index.pending(node.ino)? else { return Ok(None) };
    let row = node.staged.map(|staged| state.index.staged(staged)).transpose()?.flatten();
    let ranges = row.map(|row| row.ranges).unwrap_or_default();
    let age_ns = state.clock.wall().0.saturating_sub(pending.since.0).max(0);
    Ok(Some(Change {
        content: pending.content,
        attributes: pending.attributes,
        place: pending.place,
        age_ms: age_ns as u64 / 1_000_000,
        staged: node.staged.is_some(),
        staged_bytes: ranges.iter().map(|range| range.end - range.start).sum(),
    }))
}

/// Fills in what the node says.
fn describe(why: &mut Why, node: &Node, clock: &Clock, recheck: Duration) {
    let (now, checked) = (clock.now(), node.freshness.checked());
    let age = (checked != Tick::NEVER).then(|| now.since(checked));
    why.kind = kind(node.kind).into();
    why.fileid = node.ino.0;
    why.size = node.size;
    why.version = node
        .remote
        .as_ref()
        .map(|remote| Version { etag: remote.etag.as_str().into(), last_modified: rfc3339(remote.last_modified) });
    why.complete = node.local.is_some_and(|local| local.complete);
    why.listed = node.listed;
    why.checked_ms_ago = age.map(millis);
    why.pending = node.freshness.is_pending();
    why.served_since_check = node.freshness.served();
    why.quiet_ms = age.map_or(0, |age| millis(recheck.saturating_sub(age)));
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "dir",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharDevice => "character device",
        Kind::BlockDevice => "block device",
    }
}

/// The explanation of a path that is known.
fn sentences(why: &Why) -> Vec<String> {
    let key = why.key.as_deref().unwrap_or_default();
    let is_dir = why.kind == "dir";
    let is_new = why.change.as_ref().is_some_and(|change| change.content);
    let mut lines = vec![match &why.version {
        Some(v) => format!("{} of key {key:?}, version {} of {}.", why.kind, v.etag, v.last_modified),
        None if is_new && (!is_dir || why.remote_key.is_none()) => {
            format!("{}, new: it is only here, and goes to S3 as {key:?}.", why.kind)
        }
        None => format!("{} of prefix {key:?}, implied by the keys below it.", why.kind),
    }];
    lines.extend(why.change.as_ref().and_then(|change| changed(why, change)));
    lines.push(if is_dir { listing(why) } else { bytes(why) });
    if !is_dir && why.change.as_ref().is_some_and(|change| change.content || change.place) {
        lines.push("S3 is not asked about it until it has the change, which finds out if S3 was changed, too.".into());
        return lines;
    }
    lines.push(asked(why));
    lines.push(next(why));
    lines
}

/// What S3 does not have of something that it has.
fn changed(why: &Why, change: &Change) -> Option<String> {
    let kinds = [(change.content, "content"), (change.attributes, "attributes"), (change.place, "place")];
    let kinds: Vec<&str> = kinds.into_iter().filter(|(is_changed, _)| *is_changed).map(|(_, kind)| kind).collect();
    let age = time(change.age_ms);
    let place = match &why.remote_key {
        Some(remote) if change.place => format!(" S3 has it as {remote:?} until then."),
        _ => String::new(),
    };
    (!kinds.is_empty()).then(|| format!("Changed here {age} ago and not in S3 yet: {}.{place}", kinds.join(", ")))
}

fn listing(why: &Why) -> String {
    match why.listed {
        true => "All its entries are known here: listing it does not wait for S3.".into(),
        false => "It was never listed: the first listing waits for S3.".into(),
    }
}

fn bytes(why: &Why) -> String {
    let size = ByteSize(why.size).display().iec();
    if let Some(change) = why.change.as_ref().filter(|change| change.staged) {
        let staged = ByteSize(change.staged_bytes).display().iec();
        return match why.version {
            Some(_) => format!("{staged} of its {size} are staged over that version, on this disk alone."),
            None => format!("All its {size} are staged, on this disk alone."),
        };
    }
    match (why.complete, why.bytes_here) {
        (true, _) => format!("All its {size} are here: reading it does not wait for S3."),
        (false, 0) => format!("None of its {size} are here: a read waits until its own range has come from S3."),
        (false, here) => {
            let here = ByteSize(here).display().iec();
            format!("{here} of its {size} are here: a read of the rest waits until its own range has come from S3.")
        }
    }
}

fn asked(why: &Why) -> String {
    let served = match why.served_since_check {
        0 => "no answer was given since".into(),
        1 => "1 answer was given since".into(),
        n => format!("{n} answers were given since"),
    };
    match why.checked_ms_ago {
        None => "S3 has not been asked since the server started, or the copy is in doubt.".into(),
        Some(ms) => format!("S3 was last asked {} ago; {served}.", time(ms)),
    }
}

fn next(why: &Why) -> String {
    match (why.pending, why.quiet_ms) {
        (true, _) => "S3 is being asked now; until it answers, this copy is served.".into(),
        (false, 0) => "The next read is answered from this copy at once, and S3 is asked behind it.".into(),
        (false, ms) => format!("Reads in the next {} ask nothing; the first one after that asks S3.", time(ms)),
    }
}

fn time(ms: u64) -> String {
    // whole seconds are exact enough once there are some
    let ms = if ms >= 10_000 { ms - ms % 1000 } else { ms };
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The year 9999 is the last that the format has.
const LAST_SECOND: u64 = 253_402_300_799;

fn rfc3339(time: Time) -> String {
    match u64::try_from(time.seconds()) {
        Ok(seconds @ ..=LAST_SECOND) => {
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
        }
        _ => format!("{} s", time.seconds()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::index::{Freshness, Inode, Local, Remote};
    use crate::types::{ETag, Ino, Key, ObjectId, name};

    fn node(key: &str) -> Node {
        let component = name::split(&Key::new(key).expect("a key")).pop().expect("not the root");
        let modified = Time::from_parts(1_767_225_600, 0);
        let inode = Inode {
            ino: Ino(7),
            parent: Ino::ROOT,
            component,
            kind: if key.ends_with('/') { Kind::Dir } else { Kind::File },
            mode: 0o644,
            uid: 0,
            gid: 0,
            rdev: (0, 0),
            size: 4096,
            atime: modified,
            mtime: modified,
            ctime: modified,
            remote: (!key.ends_with('/')).then(|| Remote {
                etag: ETag::new("e1"),
                size: 4096,
                last_modified: modified,
            }),
            attributes_known: true,
            local: None,
            listed: false,
            staged: None,
            origin: None,
        };
        Node { inode, freshness: Arc::new(Freshness::default()) }
    }

    fn why(node: &Node, clock: &Clock) -> Why {
        let mut why = Why { key: Some("a".into()), known: true, ..Why::default() };
        describe(&mut why, node, clock, Duration::from_secs(1));
        why.explanation = sentences(&why);
        why
    }

    #[test]
    fn cold_file_waits_for_its_range() {
        let why = why(&node("a"), &Clock::manual());
        assert_eq!((why.checked_ms_ago, why.quiet_ms, why.complete), (None, 0, false));
        assert_eq!(
            why.explanation,
            [
                r#"file of key "a", version e1 of 2026-01-01T00:00:00Z."#,
                "None of its 4.0 KiB are here: a read waits until its own range has come from S3.",
                "S3 has not been asked since the server started, or the copy is in doubt.",
                "The next read is answered from this copy at once, and S3 is asked behind it.",
            ]
        );
    }

    #[test]
    fn warm_file_is_quiet_for_the_rest_of_recheck() {
        let (clock, mut node) = (Clock::manual(), node("a"));
        node.inode.local = Some(Local { object: ObjectId(1), complete: true });
        node.freshness.settle(clock.now(), clock.now());
        node.freshness.serve();
        clock.advance(Duration::from_millis(400));
        let why = why(&node, &clock);
        assert_eq!((why.checked_ms_ago, why.quiet_ms, why.served_since_check), (Some(400), 600, 1));
        assert_eq!(
            why.explanation[1..],
            [
                "All its 4.0 KiB are here: reading it does not wait for S3.",
                "S3 was last asked 400ms ago; 1 answer was given since.",
                "Reads in the next 600ms ask nothing; the first one after that asks S3.",
            ]
        );
    }

    #[test]
    fn file_being_checked_is_served_meanwhile() {
        let node = node("a");
        assert!(node.freshness.claim());
        let why = why(&node, &Clock::manual());
        assert!(why.pending && why.explanation[3].starts_with("S3 is being asked now"));
    }

    #[test]
    fn directory_tells_of_its_listing() {
        let mut dir = node("d/");
        assert!(why(&dir, &Clock::manual()).explanation[1].starts_with("It was never listed"));
        dir.inode.listed = true;
        let why = why(&dir, &Clock::manual());
        assert_eq!(why.explanation[0], r#"dir of prefix "a", implied by the keys below it."#);
        assert!(why.explanation[1].starts_with("All its entries are known"));
    }

    #[test]
    fn new_file_is_only_here() {
        let mut node = node("a");
        node.inode.remote = None;
        let change = Change { content: true, age_ms: 2_000, staged: true, staged_bytes: 4096, ..Change::default() };
        assert_eq!(
            lines(&node, None, change),
            [
                r#"file, new: it is only here, and goes to S3 as "a"."#,
                "Changed here 2s ago and not in S3 yet: content.",
                "All its 4.0 KiB are staged, on this disk alone.",
                "S3 is not asked about it until it has the change, which finds out if S3 was changed, too.",
            ]
        );
    }

    #[test]
    fn changed_file_says_what_is_pending_and_where_s3_has_it() {
        let change = Change { content: true, place: true, staged: true, staged_bytes: 1024, ..Change::default() };
        assert_eq!(
            lines(&node("a"), Some("old"), change)[1..3],
            [
                r#"Changed here 0s ago and not in S3 yet: content, place. S3 has it as "old" until then."#,
                "1.0 KiB of its 4.0 KiB are staged over that version, on this disk alone.",
            ]
        );
        let change = Change { attributes: true, ..Change::default() };
        let told = lines(&node("a"), Some("a"), change);
        assert_eq!(told[1], "Changed here 0s ago and not in S3 yet: attributes.");
        assert!(told.len() == 5 && told[4].starts_with("The next read"), "S3 is asked as ever: {told:?}");
    }

    #[test]
    fn new_directory_is_only_here() {
        let told = lines(&node("d/"), None, Change { content: true, ..Change::default() });
        assert_eq!(told[0], r#"dir, new: it is only here, and goes to S3 as "a"."#);
        assert!(told[2].starts_with("It was never listed"));
    }

    fn lines(node: &Node, remote_key: Option<&str>, change: Change) -> Vec<String> {
        let mut why = why(node, &Clock::manual());
        (why.remote_key, why.change) = (remote_key.map(String::from), Some(change));
        sentences(&why)
    }

    #[test]
    fn times_out_of_the_calendar_are_shown_all_the_same() {
        assert_eq!(rfc3339(Time(i64::MIN)), "-9223372037 s");
        assert_eq!(rfc3339(Time(i64::MAX)), "2262-04-11T23:47:16Z");
        assert_eq!((time(1234), time(61_234)), ("1s 234ms".into(), "1m 1s".into()));
    }
}
