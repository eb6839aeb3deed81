//! Names as NFS clients see them, components as S3 has them, and the bijection between the two (N1).
//!
//! A key is split at its slashes: `a/b` is the directory `a` and in it the file `b`; `a/` is the marker of the
//! directory `a`; `a//b` has a directory with an empty text between. Ordinary keys look as they are. What no name
//! can say is escaped, always with `‛` (U+201B, rare in real keys) in front:
//!
//! | in the key                                            | shown as          |
//! |-------------------------------------------------------|-------------------|
//! | an empty component                                    | `‛0`              |
//! | the components `.` and `..`                           | `‛.` and `‛..`    |
//! | NUL                                                   | `‛@`              |
//! | `‛` itself                                            | `‛‛`              |
//! | a file beside a directory of the same text            | text and `‛f`     |
//! | the first piece of a component too long for one name  | text and `‛~`     |
//! | `‛x80` to `‛xFF` (upper-case hex)                     | that single byte  |
//!
//! - Keys are UTF-8, names need not be. The last row carves the names that are not UTF-8 out of the key space:
//!   the byte 0xE9 in a name is `‛xE9` in the key. Where that byte and the ones before it would read as a
//!   character, the form is shown as ordinary text instead: `‛‛xE9`.
//! - A component is cut after the shortest prefix whose escaped form has `CUT_BYTES` (246) bytes or more, so that both
//!   suffixes always fit. The piece is a directory, and the rest of the component is in it: `‛0` for the rest of a
//!   directory's text that ends at the cut. Where to cut depends on the prefix alone, hence everything that begins with
//!   it is in that one directory, but for the file that is the prefix itself.
//!
//! Invariants
//! - `Name` is legal (1 to 255 bytes, no `/`, no NUL, not `.` or `..`), and a `Component` is what `split` could
//!   have made. Any path of components that ends in a file or a directory is therefore canonical: it is
//!   the only path of its key.
//! - Paths sort as their keys do, component by component.

use std::fmt;
use std::ops::Range;

use smallvec::SmallVec;

use super::Key;

/// Longest name a directory entry can have, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// What begins every escape.
const ESCAPE: char = '‛';
/// Ends the name of a file that stands beside a directory of the same text.
const SHADOWED: &str = "‛f";
/// Ends the name of a chunk.
const CHUNK: &str = "‛~";
/// Most bytes that one more character can add to an escaped form: `‛‛`.
const MAX_STEP: usize = 2 * ESCAPE.len_utf8();
/// A component is cut where its escaped form reaches this length: the last character may pass it by
/// `MAX_STEP - 1`, and then a suffix fits.
const CUT_BYTES: usize = MAX_NAME_BYTES - SHADOWED.len() - (MAX_STEP - 1);
/// Last byte of a chunk's ordered form; no text has it.
const CHUNK_BYTE: u8 = 0xFF;

/// A legal name of a directory entry.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
        match bytes {
            b"" | b"." | b".." => Err(NameError::Illegal),
            _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => Err(NameError::Illegal),
            _ if bytes.len() > MAX_NAME_BYTES => Err(NameError::TooLong),
            _ => Ok(Name(bytes.into())),
        }
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
    /// (a directory hides a file of the same name). Empty: an escape that no key has, or a text that is
    /// too long for one name.
    pub fn candidates(&self) -> SmallVec<[Component; 2]> {
        use ComponentKind::{Chunk, Dir, File};
        let (text, kinds): (_, &[_]) = match self.as_plain() {
            Some(text) => (text.into(), &[Dir, File]),
            None => match unescape(&self.0) {
                Some((text, Ending::None)) => (text, &[Dir, File]),
                Some((text, Ending::Shadowed)) => (text, &[File]),
                Some((text, Ending::Chunk)) => (text, &[Chunk]),
                None => return SmallVec::new(),
            },
        };
        kinds.iter().filter_map(|&kind| Component::new(&text, kind)).collect()
    }

    /// The text, when nothing in it is escaped.
    fn as_plain(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok().filter(|text| !text.contains(ESCAPE))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// What a directory entry adds to its parent's prefix, as S3 has it.
///
/// Ordered as S3 orders keys: by the bytes of the component, a directory's ending in `/`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
        let suffix = self.suffix();
        suffix.strip_suffix('/').unwrap_or(suffix)
    }

    /// What kind it is.
    pub fn kind(&self) -> ComponentKind {
        match self.0.last() {
            Some(b'/') => ComponentKind::Dir,
            Some(&CHUNK_BYTE) => ComponentKind::Chunk,
            _ => ComponentKind::File,
        }
    }

    /// The ordered form that the index stores: the text, then `/` for a directory, 0xFF for a chunk.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// From the form of `as_bytes`; `None` for bytes that no component has.
    pub fn from_bytes(bytes: &[u8]) -> Option<Component> {
        let (text, kind) = match bytes {
            [text @ .., b'/'] => (text, ComponentKind::Dir),
            [text @ .., CHUNK_BYTE] => (text, ComponentKind::Chunk),
            text => (text, ComponentKind::File),
        };
        let text = std::str::from_utf8(text).ok().filter(|text| !text.contains('/'))?;
        Component::new(text, kind)
    }

    /// The name shown to clients. `shadowed`: a directory of the same text stands beside this file.
    pub fn name(&self, shadowed: bool) -> Name {
        let mut name = escape(self.text());
        match self.kind() {
            ComponentKind::File if shadowed => name.extend_from_slice(SHADOWED.as_bytes()),
            ComponentKind::Chunk => name.extend_from_slice(CHUNK.as_bytes()),
            ComponentKind::File | ComponentKind::Dir => {}
        }
        debug_assert!(name.len() <= MAX_NAME_BYTES, "a component is cut before its name is too long");
        Name(name.into())
    }

    /// What the component adds to its parent's prefix: `text`, `text/`, or (chunk) `text`.
    pub fn suffix(&self) -> &str {
        let bytes = self.0.strip_suffix(&[CHUNK_BYTE]).unwrap_or(&self.0);
        std::str::from_utf8(bytes).expect("the text is UTF-8: checked when the component was made")
    }

    /// A component of `text`, which has no `/`; `None` where `split` would not make one.
    fn new(text: &str, kind: ComponentKind) -> Option<Component> {
        let cut = cut(text);
        let legal = match kind {
            ComponentKind::File => !text.is_empty() && cut.is_none_or(|at| at == text.len()),
            ComponentKind::Dir => cut.is_none(),
            ComponentKind::Chunk => cut == Some(text.len()),
        };
        legal.then(|| Component::of(text, kind))
    }

    /// The component, unchecked.
    fn of(text: &str, kind: ComponentKind) -> Component {
        let end: &[u8] = match kind {
            ComponentKind::File => b"",
            ComponentKind::Dir => b"/",
            ComponentKind::Chunk => &[CHUNK_BYTE],
        };
        Component([text.as_bytes(), end].concat().into())
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?})", self.kind(), self.text())
    }
}

/// The path of components from the root to `key`. Inverse of [`join`].
pub fn split(key: &Key) -> Vec<Component> {
    let mut path = Vec::new();
    let mut rest = key.as_str();
    while let Some((text, after)) = rest.split_once('/') {
        push(&mut path, text, ComponentKind::Dir);
        rest = after;
    }
    if !rest.is_empty() {
        push(&mut path, rest, ComponentKind::File);
    }
    path
}

/// The key of a path. `None`: longer than S3 allows, or it ends in a chunk, which is a directory that no key names.
pub fn join(path: &[Component]) -> Option<Key> {
    let ends_in_chunk = path.last().is_some_and(|last| last.kind() == ComponentKind::Chunk);
    let key: String = path.iter().map(Component::suffix).collect();
    Key::new(&key).filter(|_| !ends_in_chunk)
}

/// Appends the component of `text`, cut into chunks where it is too long.
fn push(path: &mut Vec<Component>, mut text: &str, kind: ComponentKind) {
    while let Some(at) = cut(text) {
        if at == text.len() && kind == ComponentKind::File {
            break;
        }
        path.push(Component::of(&text[..at], ComponentKind::Chunk));
        text = &text[at..];
    }
    path.push(Component::of(text, kind));
}

/// Length of the shortest prefix of `text` (whole characters) whose escaped form has `CUT_BYTES` or more.
fn cut(text: &str) -> Option<usize> {
    if text.len() < CUT_BYTES && !text.contains([ESCAPE, '\0']) {
        return None;
    }
    let mut escaper = Escaper::default();
    for (at, c) in text.char_indices() {
        escaper.push(c);
        if escaper.out.len() >= CUT_BYTES {
            return Some(at + c.len_utf8());
        }
    }
    None
}

/// The escaped form of a component's text, without a suffix.
fn escape(text: &str) -> Vec<u8> {
    match text {
        "" => "‛0".into(),
        "." => "‛.".into(),
        ".." => "‛..".into(),
        _ if !text.contains([ESCAPE, '\0']) => text.into(),
        _ => {
            let mut escaper = Escaper::default();
            text.chars().for_each(|c| escaper.push(c));
            escaper.out
        }
    }
}

/// Escapes a text character by character; `out` is the form of what was pushed so far.
#[derive(Default)]
struct Escaper {
    out: Vec<u8>,
    /// Where the last bytes that stand for themselves, in no character, begin and end in `out`.
    raw: Range<usize>,
    /// How many characters of `‛xHH` were pushed last.
    matched: usize,
    /// The value of the first hex digit.
    high: u8,
}

impl Escaper {
    fn push(&mut self, c: char) {
        let digit = c.to_digit(16).filter(|_| !c.is_ascii_lowercase()).map(|digit| digit as u8);
        self.matched = match (self.matched, c, digit) {
            (1, 'x', _) => 2,
            (2, _, Some(digit @ 8..)) => {
                self.high = digit;
                3
            }
            (3, _, Some(digit)) if self.push_byte(self.high << 4 | digit) => return,
            _ => usize::from(c == ESCAPE),
        };
        match c {
            ESCAPE => self.out.extend_from_slice("‛‛".as_bytes()),
            '\0' => self.out.extend_from_slice("‛@".as_bytes()),
            _ => self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }

    /// Ends `‛xHH`: puts the byte in place of what stands there for its beginning. Refused, and left as text, when
    /// the byte would end a character.
    fn push_byte(&mut self, byte: u8) -> bool {
        let at = self.out.len() - "‛‛xH".len();
        let begin = if self.raw.end == at { self.raw.start } else { at };
        let mut run = self.out[begin..at].to_vec();
        run.push(byte);
        if (2..=run.len().min(4)).any(|n| std::str::from_utf8(&run[run.len() - n..]).is_ok()) {
            return false;
        }
        self.out.truncate(at);
        self.out.push(byte);
        self.raw = begin..self.out.len();
        self.matched = 0;
        true
    }
}

/// What the end of an escaped name says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    None,
    Shadowed,
    Chunk,
}

/// The text and the ending that make this name, when there are any.
fn unescape(name: &[u8]) -> Option<(String, Ending)> {
    let (text, ending) = read_escapes(name)?;
    let suffix = match ending {
        Ending::None => "",
        Ending::Shadowed => SHADOWED,
        Ending::Chunk => CHUNK,
    };
    // the reader is lenient: whatever `escape` would write otherwise is no name
    let canonical = name.strip_suffix(suffix.as_bytes()).is_some_and(|stem| escape(&text) == stem);
    canonical.then_some((text, ending))
}

fn read_escapes(name: &[u8]) -> Option<(String, Ending)> {
    let (mut text, mut ending) = (String::new(), Ending::None);
    for chunk in name.utf8_chunks() {
        let mut chars = chunk.valid().chars();
        while let Some(c) = chars.next() {
            match if c == ESCAPE { (ESCAPE, chars.next()?) } else { (c, c) } {
                (ESCAPE, ESCAPE) => text.push(ESCAPE),
                (ESCAPE, '@') => text.push('\0'),
                (ESCAPE, '.') => text.push('.'),
                (ESCAPE, '0') => {}
                (ESCAPE, 'f') => ending = Ending::Shadowed,
                (ESCAPE, '~') => ending = Ending::Chunk,
                (ESCAPE, _) => return None,
                (c, _) => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("{ESCAPE}x{byte:02X}"));
        }
    }
    Some((text, ending))
}

#[cfg(test)]
mod tests;
