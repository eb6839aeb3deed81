//! The row of an inode: a fixed head, what the flags say follows, and the component at the end.
//!
//! About 70 bytes for a plain object: what equals its usual value (a size that is the object's, a time
//! that is another one's, an MD5 in hex) is a flag. Mode, owner and group are stored only when the object's
//! metadata gave them, so changed `--uid --gid --file-mode --dir-mode` show after a restart.

use super::model::{Defaults, Inode, Kind, Local, Remote};
use super::tables::be_u64;
use crate::types::{Component, ETag, Ino, Key, ObjectId, Time};

/// An inode, and which of its attributes the object's metadata gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) inode: Inode,
    pub(super) given: Given,
}

/// Which attributes are not the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) mode: bool,
    pub(super) uid: bool,
    pub(super) gid: bool,
}

/// First byte of every row, so that a later format can tell its rows from these.
const VERSION: u8 = 1;

/// Size of a directory: what most file systems show for a small one.
const DIR_SIZE: u64 = 4096;

const MODE: u16 = 1;
const UID: u16 = 1 << 1;
const GID: u16 = 1 << 2;
const RDEV: u16 = 1 << 3;
const REMOTE: u16 = 1 << 4;
const ETAG_IS_MD5: u16 = 1 << 5;
const LOCAL: u16 = 1 << 6;
const COMPLETE: u16 = 1 << 7;
const KNOWN: u16 = 1 << 8;
const LISTED: u16 = 1 << 9;
const OTHER_SIZE: u16 = 1 << 10;
const OTHER_ATIME: u16 = 1 << 11;
const OTHER_MODIFIED: u16 = 1 << 12;
const STAGED: u16 = 1 << 13;
const ORIGIN: u16 = 1 << 14;

impl Row {
    /// A directory without a marker, its times at `now`.
    pub(super) fn directory(ino: Ino, parent: Ino, component: Component, defaults: &Defaults, now: Time) -> Row {
        let inode = Inode {
            ino,
            parent,
            component,
            kind: Kind::Dir,
            mode: defaults.dir_mode,
            uid: defaults.uid,
            gid: defaults.gid,
            rdev: (0, 0),
            size: DIR_SIZE,
            atime: now,
            mtime: now,
            ctime: now,
            remote: None,
            attributes_known: false,
            local: None,
            listed: false,
            staged: None,
            origin: None,
        };
        Row { inode, given: Given::default() }
    }

    /// The bytes to store.
    pub(super) fn encode(&self) -> Vec<u8> {
        let inode = &self.inode;
        let md5 = inode.remote.as_ref().and_then(|r| unhex(r.etag.as_str()));
        let flags = self.flags(md5.is_some());
        let mut out = Vec::with_capacity(96);
        out.extend_from_slice(&[VERSION, inode.kind as u8]);
        out.extend_from_slice(&flags.to_be_bytes());
        for number in [inode.parent.0, inode.size, inode.mtime.0 as u64, inode.ctime.0 as u64] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        let small =
            [(MODE, inode.mode), (UID, inode.uid), (GID, inode.gid), (RDEV, inode.rdev.0), (RDEV, inode.rdev.1)];
        for (_, value) in small.iter().filter(|(flag, _)| flags & flag != 0) {
            out.extend_from_slice(&value.to_be_bytes());
        }
        let large = [
            (OTHER_ATIME, inode.atime.0 as u64),
            (LOCAL, inode.local.map_or(0, |l| l.object.0)),
            (STAGED, inode.staged.map_or(0, |staged| staged.0)),
        ];
        for (_, value) in large.iter().filter(|(flag, _)| flags & flag != 0) {
            out.extend_from_slice(&value.to_be_bytes());
        }
        if let Some(remote) = &inode.remote {
            let numbers = [(OTHER_SIZE, remote.size), (OTHER_MODIFIED, remote.last_modified.0 as u64)];
            for (_, value) in numbers.iter().filter(|(flag, _)| flags & flag != 0) {
                out.extend_from_slice(&value.to_be_bytes());
            }
            match md5 {
                Some(md5) => out.extend_from_slice(&md5),
                None => put_text(&mut out, remote.etag.as_str()),
            }
        }
        if let Some(origin) = &inode.origin {
            put_text(&mut out, origin);
        }
        out.extend_from_slice(inode.component.as_bytes());
        out
    }

    fn flags(&self, md5: bool) -> u16 {
        let Row { inode, given } = self;
        let remote = inode.remote.as_ref();
        let set = [
            (MODE, given.mode),
            (UID, given.uid),
            (GID, given.gid),
            (RDEV, inode.rdev != (0, 0)),
            (REMOTE, remote.is_some()),
            (ETAG_IS_MD5, md5),
            (LOCAL, inode.local.is_some()),
            (COMPLETE, inode.local.is_some_and(|l| l.complete)),
            (KNOWN, inode.attributes_known),
            (LISTED, inode.listed),
            (OTHER_SIZE, remote.is_some_and(|r| r.size != inode.size)),
            (OTHER_ATIME, inode.atime != inode.mtime),
            (OTHER_MODIFIED, remote.is_some_and(|r| r.last_modified != inode.mtime)),
            (STAGED, inode.staged.is_some()),
            (ORIGIN, inode.origin.is_some()),
        ];
        set.iter().filter(|(_, on)| *on).fold(0, |flags, (flag, _)| flags | flag)
    }

    /// Reads what `encode` wrote; `None` when it is something else.
    pub(super) fn decode(ino: Ino, bytes: &[u8], defaults: &Defaults) -> Option<Row> {
        let mut rest = Reader(bytes);
        let [version, kind] = rest.take::<2>()?;
        if version != VERSION {
            return None;
        }
        let kind = kind_of(kind)?;
        let flags = u16::from_be_bytes(rest.take()?);
        let has = |flag: u16| flags & flag != 0;
        let (parent, size) = (Ino(rest.number()?), rest.number()?);
        let (mtime, ctime) = (rest.time()?, rest.time()?);
        let default_mode = if kind == Kind::Dir { defaults.dir_mode } else { defaults.file_mode };
        let mode = rest.small(has(MODE), default_mode)?;
        let uid = rest.small(has(UID), defaults.uid)?;
        let gid = rest.small(has(GID), defaults.gid)?;
        let rdev = (rest.small(has(RDEV), 0)?, rest.small(has(RDEV), 0)?);
        let atime = if has(OTHER_ATIME) { rest.time()? } else { mtime };
        let object = if has(LOCAL) { Some(ObjectId(rest.number()?)) } else { None };
        let staged = if has(STAGED) { Some(ObjectId(rest.number()?)) } else { None };
        let remote = if has(REMOTE) { Some(rest.remote(flags, size, mtime)?) } else { None };
        let origin = if has(ORIGIN) { Some(Key::new(rest.text()?)?) } else { None };
        let inode = Inode {
            ino,
            parent,
            component: Component::from_bytes(rest.0).or_else(|| (ino == Ino::ROOT).then(root_component))?,
            kind,
            mode,
            uid,
            gid,
            rdev,
            size,
            atime,
            mtime,
            ctime,
            remote,
            attributes_known: has(KNOWN),
            local: object.map(|object| Local { object, complete: has(COMPLETE) }),
            listed: has(LISTED),
            staged,
            origin,
        };
        Some(Row { inode, given: Given { mode: has(MODE), uid: has(UID), gid: has(GID) } })
    }
}

/// What is left of a row.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn number(&mut self) -> Option<u64> {
        self.take::<8>().map(|bytes| be_u64(&bytes))
    }

    fn time(&mut self) -> Option<Time> {
        self.number().map(|n| Time(n as i64))
    }

    fn small(&mut self, stored: bool, default: u32) -> Option<u32> {
        if stored { self.take().map(u32::from_be_bytes) } else { Some(default) }
    }

    fn remote(&mut self, flags: u16, size: u64, mtime: Time) -> Option<Remote> {
        let size = if flags & OTHER_SIZE != 0 { self.number()? } else { size };
        let last_modified = if flags & OTHER_MODIFIED != 0 { self.time()? } else { mtime };
        if flags & ETAG_IS_MD5 != 0 {
            let etag = hex(&self.take::<16>()?);
            return Some(Remote { etag: ETag::new(&etag), size, last_modified });
        }
        Some(Remote { etag: ETag::new(self.text()?), size, last_modified })
    }

    fn text(&mut self) -> Option<&str> {
        let length = usize::try_from(u32::from_be_bytes(self.take()?)).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The root adds nothing to any prefix; this stands in its row and is never shown.
pub(super) fn root_component() -> Component {
    Component::from_bytes(b"/").expect("the component of an empty directory name is legal")
}

fn kind_of(number: u8) -> Option<Kind> {
    use Kind::*;
    [File, Dir, Symlink, Fifo, Socket, CharDevice, BlockDevice].into_iter().find(|kind| *kind as u8 == number)
}

/// The 16 bytes of an MD5 in lower-case hex, as most ETags are.
fn unhex(text: &str) -> Option<[u8; 16]> {
    let digits: &[u8; 32] = text.as_bytes().try_into().ok()?;
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut out = [0; 16];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

fn hex(bytes: &[u8; 16]) -> String {
    let digit = |n: u8| char::from(if n < 10 { b'0' + n } else { b'a' + n - 10 });
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
