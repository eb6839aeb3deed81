//! POSIX attributes in an object's user metadata (N2): what AWS's tools, s3fs, rclone and gsutil write is read,
//! and what AWS's tools write is written.
//!
//! | | AWS | s3fs, rclone | gsutil |
//! |---|---|---|---|
//! | type and mode | `file-permissions`, octal | `mode`, decimal (rclone: octal) | `goog-reserved-posix-mode`, octal |
//! | owner, group | `file-owner`, `file-group` | `uid`, `gid` | `goog-reserved-posix-uid`, `-gid` |
//! | times | `file-mtime`, `-atime`: `"<n>ns"`, or milliseconds | `mtime`, `atime`, `ctime`: seconds with a fraction | `goog-reserved-file-mtime`, `-atime`: seconds |
//!
//! None of these keeps the number of a device; GeeseFS and TigrisFS do, and so does this: `rdev`, decimal, as Linux has it.
//! The first of a row that can be read counts. A value that makes no sense is as good as none; it never
//! spoils the others. On writing, the other columns are brought up to date where they were, so that no two
//! contradict. `x_$folder$` objects of Hadoop and old s3fs stay what they are to S3: empty files.

use std::collections::BTreeMap;

use super::model::{Inode, Kind, SetHere};
use crate::types::Time;

/// What the metadata says; `None` where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) kind: Option<Kind>,
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) ctime: Option<Time>,
    pub(super) rdev: Option<(u32, u32)>,
}

/// Reads `user`, whose names are in lower case without `x-amz-meta-`.
pub(super) fn parse(user: &BTreeMap<String, String>) -> Attributes {
    let field = |name: &str| user.get(name).map(|value| value.trim());
    let octal = |name: &str| field(name).and_then(|v| st_mode(u32::from_str_radix(v, 8).ok()?));
    let id = |name: &str| field(name).and_then(|v| v.parse::<u32>().ok());
    let time = |name: &str| field(name).and_then(seconds);

    let mode = octal("file-permissions")
        .or_else(|| field("mode").and_then(decimal_or_octal_mode))
        .or_else(|| octal("goog-reserved-posix-mode"));
    Attributes {
        kind: mode.and_then(|(kind, _)| kind),
        mode: mode.map(|(_, bits)| bits),
        uid: id("file-owner").or_else(|| id("uid")).or_else(|| id("goog-reserved-posix-uid")),
        gid: id("file-group").or_else(|| id("gid")).or_else(|| id("goog-reserved-posix-gid")),
        mtime: field("file-mtime")
            .and_then(nanos_or_millis)
            .or_else(|| time("mtime"))
            .or_else(|| time("goog-reserved-file-mtime")),
        atime: field("file-atime")
            .and_then(nanos_or_millis)
            .or_else(|| time("atime"))
            .or_else(|| time("goog-reserved-file-atime")),
        ctime: time("ctime"),
        rdev: field("rdev").and_then(|value| value.parse().ok()).map(device),
    }
}

/// Writes the attributes of `inode` into `user`. What `user` tells and the index does not know yet is kept, unless it was
/// `set` here: an object that was only ever listed has the defaults here.
pub(crate) fn tell(user: &mut BTreeMap<String, String>, inode: &Inode, set: SetHere) {
    let told = if inode.attributes_known { Attributes::default() } else { parse(user) };
    // a directory is one by its key
    let kind = told.kind.filter(|_| inode.kind != Kind::Dir).unwrap_or(inode.kind);
    let mode = type_bits(kind) | told.mode.filter(|_| !set.mode).unwrap_or(inode.mode & 0o7777);
    let uid = told.uid.filter(|_| !set.uid).unwrap_or(inode.uid);
    let gid = told.gid.filter(|_| !set.gid).unwrap_or(inode.gid);
    let mtime = told.mtime.filter(|_| !set.mtime).unwrap_or(inode.mtime);
    let atime = told.atime.filter(|_| !set.atime).unwrap_or(inode.atime);

    let ours = [
        ("file-permissions", format!("{mode:07o}")),
        ("file-owner", uid.to_string()),
        ("file-group", gid.to_string()),
        ("file-mtime", format!("{}ns", mtime.0)),
        ("file-atime", format!("{}ns", atime.0)),
    ];
    user.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    if matches!(inode.kind, Kind::CharDevice | Kind::BlockDevice) {
        user.insert("rdev".to_owned(), device_number(inode.rdev).to_string());
    }
    let is_rclone = |value: &str| value.trim().parse::<u32>().is_ok_and(|mode| mode > 0o177_777);
    let others = [
        ("mode", if user.get("mode").is_some_and(|v| is_rclone(v)) { format!("{mode:o}") } else { mode.to_string() }),
        ("uid", uid.to_string()),
        ("gid", gid.to_string()),
        ("mtime", fraction(mtime)),
        ("atime", fraction(atime)),
        ("ctime", fraction(inode.ctime)),
        ("goog-reserved-posix-mode", format!("{:o}", mode & 0o7777)),
        ("goog-reserved-posix-uid", uid.to_string()),
        ("goog-reserved-posix-gid", gid.to_string()),
        ("goog-reserved-file-mtime", mtime.seconds().to_string()),
        ("goog-reserved-file-atime", atime.seconds().to_string()),
    ];
    for (name, value) in others {
        user.entry(name.to_owned()).and_modify(|old| *old = value);
    }
}

/// The type in a `st_mode`.
fn type_bits(kind: Kind) -> u32 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::CharDevice => 0o020_000,
        Kind::Dir => 0o040_000,
        Kind::BlockDevice => 0o060_000,
        Kind::File => 0o100_000,
        Kind::Symlink => 0o120_000,
        Kind::Socket => 0o140_000,
    }
}

/// The one number that Linux has for major and minor.
fn device_number((major, minor): (u32, u32)) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

/// The inverse of it.
fn device(number: u64) -> (u32, u32) {
    let major = (number >> 8 & 0xfff) | (number >> 32 & !0xfff);
    let minor = (number & 0xff) | (number >> 12 & 0xffff_ff00);
    (major as u32, minor as u32)
}

/// The inverse of `seconds`.
fn fraction(time: Time) -> String {
    let sign = if time.0 < 0 { "-" } else { "" };
    let nanos = time.0.unsigned_abs();
    format!("{sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// Splits a `st_mode`; `None` for a type that does not exist. Type 0 is "not said".
fn st_mode(mode: u32) -> Option<(Option<Kind>, u32)> {
    let kind = match mode & !0o7777 {
        0 => None,
        0o010_000 => Some(Kind::Fifo),
        0o020_000 => Some(Kind::CharDevice),
        0o040_000 => Some(Kind::Dir),
        0o060_000 => Some(Kind::BlockDevice),
        0o100_000 => Some(Kind::File),
        0o120_000 => Some(Kind::Symlink),
        0o140_000 => Some(Kind::Socket),
        _ => return None,
    };
    Some((kind, mode & 0o7777))
}

/// s3fs writes 33188 where rclone writes 100644; no decimal of rclone's fits into the 16 bits of a mode.
fn decimal_or_octal_mode(value: &str) -> Option<(Option<Kind>, u32)> {
    let decimal = value.parse::<u32>().ok()?;
    if decimal <= 0o177_777 { st_mode(decimal) } else { st_mode(u32::from_str_radix(value, 8).ok()?) }
}

/// `"<n>ns"` since the epoch, or milliseconds without the suffix.
fn nanos_or_millis(value: &str) -> Option<Time> {
    match value.strip_suffix("ns") {
        Some(nanos) => nanos.trim_end().parse().ok().map(Time),
        None => value.parse::<i64>().ok()?.checked_mul(1_000_000).map(Time),
    }
}

/// Seconds since the epoch with an optional decimal fraction, read digit by digit: a float would round it.
fn seconds(value: &str) -> Option<Time> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9).fold(0, |n, c| n * 10 + i64::from(c - b'0'));
    let whole_nanos = whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?;
    let signed = if whole.starts_with('-') { -nanos } else { nanos };
    whole_nanos.checked_add(signed).map(Time)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn attributes(fields: &[(&str, &str)]) -> Attributes {
        parse(&fields.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn aws_tools_metadata_is_read() {
        let got = attributes(&[
            ("file-permissions", "0100640"),
            ("file-owner", "1000"),
            ("file-group", "100"),
            ("file-mtime", "1700000000123456789ns"),
            ("file-atime", "1700000000123"),
        ]);
        assert_eq!((got.kind, got.mode), (Some(Kind::File), Some(0o640)));
        assert_eq!((got.uid, got.gid), (Some(1000), Some(100)));
        assert_eq!(got.mtime, Some(Time(1_700_000_000_123_456_789)));
        assert_eq!(got.atime, Some(Time(1_700_000_000_123_000_000)));
        assert_eq!(attributes(&[("file-permissions", "0755")]).kind, None);
    }

    #[test]
    fn s3fs_metadata_is_read() {
        let got =
            attributes(&[("mode", "41471"), ("uid", "5"), ("gid", "6"), ("mtime", "1700000000.5"), ("ctime", "1")]);
        assert_eq!((got.kind, got.mode), (Some(Kind::Symlink), Some(0o777)));
        assert_eq!((got.uid, got.gid), (Some(5), Some(6)));
        assert_eq!((got.mtime, got.ctime), (Some(Time(1_700_000_000_500_000_000)), Some(Time(1_000_000_000))));
    }

    #[test]
    fn rclone_metadata_is_read() {
        let got = attributes(&[("mtime", "1700000000.123456789"), ("mode", "100664")]);
        assert_eq!(got.mtime, Some(Time(1_700_000_000_123_456_789)));
        assert_eq!((got.kind, got.mode), (Some(Kind::File), Some(0o664)));
        assert_eq!(attributes(&[("mtime", "-1.25")]).mtime, Some(Time(-1_250_000_000)));
    }

    #[test]
    fn gsutil_metadata_is_read() {
        let got = attributes(&[("goog-reserved-posix-mode", "644"), ("goog-reserved-file-mtime", "7")]);
        assert_eq!((got.mode, got.mtime), (Some(0o644), Some(Time(7_000_000_000))));
    }

    #[test]
    fn device_numbers_are_kept() {
        for rdev in [(8, 1), (5, 255), (4_095, 256), (1, 0xf_ffff), (u32::MAX, u32::MAX), (4_096, 0)] {
            let mut user = BTreeMap::new();
            tell(&mut user, &Inode { kind: Kind::BlockDevice, rdev, ..inode() }, SetHere::NONE);
            assert_eq!(parse(&user).rdev, Some(rdev));
        }
        assert_eq!(device_number((8, 1)), 0x801);
        let mut user = BTreeMap::new();
        tell(&mut user, &inode(), SetHere::NONE);
        assert_eq!(user.get("rdev"), None, "a file has none");
    }

    fn inode() -> Inode {
        Inode {
            ino: crate::types::Ino(7),
            parent: crate::types::Ino::ROOT,
            component: crate::types::Component::from_bytes(b"f").unwrap(),
            kind: Kind::File,
            mode: 0o640,
            uid: 5,
            gid: 6,
            rdev: (0, 0),
            size: 3,
            atime: Time(2_000_000_001),
            mtime: Time(-1_500_000_000),
            ctime: Time(9),
            remote: None,
            attributes_known: true,
            local: None,
            listed: true,
            staged: None,
            origin: None,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for kind in [Kind::File, Kind::Dir, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::CharDevice] {
            let mut user = BTreeMap::from([("colour".to_owned(), "blue".to_owned())]);
            let inode = Inode { kind, ..inode() };
            tell(&mut user, &inode, SetHere::NONE);
            let got = parse(&user);
            assert_eq!((got.kind, got.mode, got.uid, got.gid), (Some(kind), Some(0o640), Some(5), Some(6)));
            assert_eq!((got.mtime, got.atime), (Some(inode.mtime), Some(inode.atime)));
            let length = if kind == Kind::CharDevice { 7 } else { 6 };
            assert_eq!((user.len(), user["colour"].as_str()), (length, "blue"));
        }
        let mut user = BTreeMap::new();
        tell(&mut user, &inode(), SetHere::NONE);
        assert_eq!(user["file-permissions"], "0100640");
        assert_eq!(user["file-mtime"], "-1500000000ns");
    }

    #[test]
    fn metadata_of_other_tools_is_brought_up_to_date_where_it_was() {
        let fields = [("mode", "33188"), ("uid", "0"), ("mtime", "1"), ("goog-reserved-posix-mode", "644")];
        let mut user: BTreeMap<_, _> = fields.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        tell(&mut user, &inode(), SetHere::NONE);
        for (name, value) in
            [("mode", "33184"), ("uid", "5"), ("mtime", "-1.500000000"), ("goog-reserved-posix-mode", "640")]
        {
            assert_eq!(user[name], value, "{name}");
        }
        assert!(!user.contains_key("gid"));
        user.retain(|name, _| !name.starts_with("file-"));
        let got = parse(&user);
        assert_eq!((got.mode, got.mtime), (Some(0o640), Some(Time(-1_500_000_000))));
        let mut rclone = BTreeMap::from([("mode".to_owned(), "100664".to_owned())]);
        tell(&mut rclone, &inode(), SetHere::NONE);
        assert_eq!(rclone["mode"], "100640");
    }

    #[test]
    fn what_was_never_asked_for_is_not_overwritten_with_defaults() {
        let fields = [("uid", "77"), ("file-mtime", "5ns")];
        let mut user: BTreeMap<_, _> = fields.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        tell(&mut user, &Inode { attributes_known: false, ..inode() }, SetHere::NONE);
        let got = parse(&user);
        assert_eq!((got.uid, got.gid, got.mode, got.mtime), (Some(77), Some(6), Some(0o640), Some(Time(5))));

        let mut user: BTreeMap<_, _> = fields.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let set = SetHere { uid: true, ..SetHere::NONE };
        tell(&mut user, &Inode { attributes_known: false, ..inode() }, set);
        assert_eq!((parse(&user).uid, parse(&user).mtime), (Some(5), Some(Time(5))), "what was set here is ours");
    }

    #[test]
    fn a_hostile_value_spoils_only_itself() {
        let got = attributes(&[
            ("file-permissions", "99999999999999999999"),
            ("mode", "-1"),
            ("file-owner", "root"),
            ("file-group", " 7 "),
            ("file-mtime", "9223372036854775807"),
            ("mtime", "1e9"),
            ("atime", "1.2.3"),
            ("ctime", "99999999999999999999.0"),
        ]);
        assert_eq!(got, Attributes { gid: Some(7), ..Attributes::default() });
        assert_eq!(attributes(&[("file-permissions", "0170644")]), Attributes::default());
    }
}
