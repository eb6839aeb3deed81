//! Leaf vocabulary that every room shares: keys, names, versions, times, ids.
//! Owns: the meaning of a legal key and a legal name, and the bijection between them (`name`).
//! Invariant: a value of these types is always legal; parsing happens once, at the edge.

pub mod clock;
pub mod hint;
pub mod key;
pub mod name;

use std::fmt;
use std::sync::Arc;

pub use clock::{Clock, Tick, Time};
pub use hint::{Hint, Origin, Said, Sequencer};
pub use key::Key;
pub use name::{Component, Name};

/// Number of an inode, which is also the NFS fileid. Never zero, never re-used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory of the export.
    pub const ROOT: Ino = Ino(1);
}

impl fmt::Debug for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Number of one immutable file under `objects/`: the bytes of one version. Never re-used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub u64);

/// Opaque entity tag, without the surrounding quotes. Compared for equality only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag(Arc<str>);

impl ETag {
    /// Takes an entity tag with or without its quotes.
    pub fn new(etag: &str) -> ETag {
        let bare = etag.strip_prefix('"').and_then(|e| e.strip_suffix('"')).unwrap_or(etag);
        ETag(bare.into())
    }

    /// The tag without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag as an HTTP header value, with quotes.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
