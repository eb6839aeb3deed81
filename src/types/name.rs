//! Names as NFS clients see them, components as S3 has them, and the bijection between the two (N1).
//! Invariant: `Name` is legal (1 to 255 bytes, no `/`, no NUL, not `.` or `..`); a canonical path of
//! names and a key determine each other.

use super::Key;

/// Longest name a directory entry can have, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// A legal name of a directory entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// Why bytes are no legal name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, `.`, `..`, or with a `/` or NUL in it.
    #[error("a name must not be empty, `.` or `..`, nor contain `/` or NUL")]
    Illegal,
    /// Over 255 bytes.
    #[error("a name must not be longer than 255 bytes")]
    TooLong,
}

impl Name {
    /// Checks `bytes` once and for all.
    /// # Errors
    /// See [`NameError`].
    pub fn new(bytes: &[u8]) -> Result<Name, NameError> {
        todo!("types helper: {bytes:?}")
    }

    /// The bytes that go on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, without a copy.
    pub fn into_bytes(self) -> Box<[u8]> {
        self.0
    }

    /// The components this name can stand for, in the order in which a lookup should try them
    /// (a directory hides a file of the same name). Empty: an escape that no key has.
    pub fn candidates(&self) -> smallvec::SmallVec<[Component; 2]> {
        todo!("types helper")
    }
}

/// What a directory entry adds to its parent's prefix, as S3 has it.
///
/// Ordered as S3 orders keys: by the bytes of the component, a directory's ending in `/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Component(Box<[u8]>);

/// The three kinds of component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComponentKind {
    /// Last component of an object's key.
    File,
    /// Component followed by a `/`.
    Dir,
    /// First piece of a component too long for one name; shown as a directory.
    Chunk,
}

impl Component {
    /// Text of the component, without the slash of a directory.
    pub fn text(&self) -> &str {
        todo!("types helper")
    }
    /// What kind it is.
    pub fn kind(&self) -> ComponentKind {
        todo!("types helper")
    }
    /// The ordered form that the index stores: the text, then `/` for a directory, 0xFF for a chunk.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// From the form of `as_bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Option<Component> {
        todo!("types helper {bytes:?}")
    }
    /// The name shown to clients. `shadowed`: a directory of the same text stands beside this file.
    pub fn name(&self, shadowed: bool) -> Name {
        todo!("types helper {shadowed}")
    }
    /// What the component adds to its parent's prefix: `text`, `text/`, or (chunk) `text`.
    pub fn suffix(&self) -> &str {
        todo!("types helper")
    }
}

/// The path of components from the root to `key`. Inverse of joining their suffixes.
pub fn split(key: &Key) -> Vec<Component> {
    todo!("types helper {key:?}")
}
