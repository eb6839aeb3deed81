//! Bytes of an object: a rope of immutable pieces in memory, in a file, or computed from their offset.
//! Slicing and joining copy nothing, so a multipart upload or a ranged copy costs no memory.
//! Invariant: a piece never changes; its file is unlinked only after the last blob that uses it is gone.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

/// Pieces of files and of computed bytes are handed out in chunks of this many bytes.
const CHUNK_BYTES: u64 = 256 * 1024;

/// Immutable bytes, cheap to clone and to cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Blob {
    pieces: Vec<Piece>,
    len: u64,
}

#[derive(Clone, Debug)]
struct Piece {
    source: Source,
    range: Range<u64>,
}

#[derive(Clone, Debug)]
enum Source {
    Memory(Bytes),
    File(Arc<DataFile>),
    /// Computed from the offset; see [`generated`].
    Seed(u64),
}

/// A file that goes away with its last user once it is doomed.
#[derive(Debug)]
pub(super) struct DataFile {
    path: PathBuf,
    doomed: AtomicBool,
}

impl DataFile {
    pub(super) fn new(path: PathBuf) -> Arc<DataFile> {
        Arc::new(DataFile { path, doomed: AtomicBool::new(false) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Unlinks the file when nobody uses it any more.
    pub(super) fn doom(&self) {
        self.doomed.store(true, Ordering::SeqCst);
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::SeqCst) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Blob {
    /// `len` bytes computed from `seed`: an object of any size that takes no memory.
    pub(super) fn generated(seed: u64, len: u64) -> Blob {
        Blob { pieces: vec![Piece { source: Source::Seed(seed), range: 0..len }], len }
    }

    /// The first `len` bytes of `file`.
    pub(super) fn file(file: Arc<DataFile>, len: u64) -> Blob {
        Blob { pieces: vec![Piece { source: Source::File(file), range: 0..len }], len }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Appends without copying.
    pub(super) fn push(&mut self, bytes: Bytes) {
        let len = bytes.len() as u64;
        self.pieces.push(Piece { source: Source::Memory(bytes), range: 0..len });
        self.len += len;
    }

    /// Appends all of `other` without copying.
    pub(super) fn append(&mut self, other: &Blob) {
        self.pieces.extend(other.pieces.iter().cloned());
        self.len += other.len;
    }

    /// The part of the blob in `range`, which must lie inside it.
    pub(super) fn slice(&self, range: Range<u64>) -> Blob {
        let mut cut = Blob::default();
        let mut start = 0;
        for piece in &self.pieces {
            let len = piece.range.end - piece.range.start;
            let (from, to) = (range.start.max(start), range.end.min(start + len));
            if from < to {
                let base = piece.range.start;
                cut.pieces.push(Piece { source: piece.source.clone(), range: base + from - start..base + to - start });
                cut.len += to - from;
            }
            start += len;
        }
        cut
    }

    /// The bytes in order, in chunks.
    pub(super) fn chunks(self) -> Chunks {
        Chunks { pieces: self.pieces.into_iter(), now: None }
    }

    /// The only piece, when it is in memory: the fast path of small objects.
    pub(super) fn as_single(&self) -> Option<Bytes> {
        let [Piece { source: Source::Memory(bytes), range }] = self.pieces.as_slice() else { return None };
        Some(bytes.slice(range.start as usize..range.end as usize))
    }

    /// Everything in one buffer.
    pub(super) fn to_bytes(&self) -> io::Result<Bytes> {
        if let Some(bytes) = self.as_single() {
            return Ok(bytes);
        }
        let mut all = Vec::with_capacity(self.len as usize);
        for chunk in self.clone().chunks() {
            all.extend_from_slice(&chunk?);
        }
        Ok(all.into())
    }

    /// Seed and range, when all bytes are computed from one seed.
    pub(super) fn as_generated(&self) -> Option<String> {
        match self.pieces.as_slice() {
            [Piece { source: Source::Seed(seed), range }] => Some(format!("{seed}:{range:?}")),
            _ => None,
        }
    }

    /// The file this blob is the whole of.
    pub(super) fn as_file(&self) -> Option<&Arc<DataFile>> {
        match self.pieces.as_slice() {
            [Piece { source: Source::File(file), .. }] => Some(file),
            _ => None,
        }
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Blob {
        let mut blob = Blob::default();
        blob.push(bytes);
        blob
    }
}

/// Iterator over the chunks of a blob.
pub(super) struct Chunks {
    pieces: std::vec::IntoIter<Piece>,
    now: Option<(Piece, Option<File>)>,
}

impl Iterator for Chunks {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some((piece, file)) = &mut self.now
                && !piece.range.is_empty()
            {
                return Some(piece.take_chunk(file));
            }
            self.now = Some((self.pieces.next()?, None));
        }
    }
}

impl Piece {
    fn take_chunk(&mut self, open: &mut Option<File>) -> io::Result<Bytes> {
        let (start, end) = (self.range.start, self.range.end);
        let cut = end.min(start + CHUNK_BYTES);
        match &self.source {
            Source::Memory(bytes) => {
                self.range.start = end;
                Ok(bytes.slice(start as usize..end as usize))
            }
            Source::Seed(seed) => {
                self.range.start = cut;
                Ok(generated(*seed, start..cut))
            }
            Source::File(data) => {
                let mut file = match open.take() {
                    Some(file) => file,
                    None => {
                        let mut file = File::open(&data.path)?;
                        file.seek(SeekFrom::Start(start))?;
                        file
                    }
                };
                let mut chunk = vec![0; (cut - start) as usize];
                file.read_exact(&mut chunk)?;
                *open = Some(file);
                self.range.start = cut;
                Ok(chunk.into())
            }
        }
    }
}

/// The bytes of a generated object at `range`: every 8 bytes are a hash of seed and offset, so that a
/// reader can check any range without having the rest.
pub fn generated(seed: u64, range: Range<u64>) -> Bytes {
    let mut bytes = Vec::with_capacity((range.end - range.start) as usize + 16);
    let first_word = range.start / 8;
    for word in first_word..range.end.div_ceil(8) {
        bytes.extend_from_slice(&mix(seed ^ word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
    }
    let skip = (range.start - first_word * 8) as usize;
    Bytes::from(bytes).slice(skip..skip + (range.end - range.start) as usize)
}

/// Finalizer of MurmurHash3: every input bit reaches every output bit.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn slice_of_a_rope_is_the_slice_of_its_bytes() {
        let mut rope = Blob::generated(7, 1000);
        rope.push(Bytes::from_static(b"hello"));
        rope.append(&Blob::from(Bytes::from_static(b"world")));
        let all = rope.to_bytes().unwrap();
        assert_eq!(all.len() as u64, rope.len());
        for range in [0..1010, 999..1001, 1000..1005, 3..3, 1003..1010, 1..999] {
            let want = all.slice(range.start as usize..range.end as usize);
            assert_eq!(rope.slice(range.clone()).to_bytes().unwrap(), want, "{range:?}");
        }
    }

    #[test]
    fn generated_bytes_do_not_depend_on_the_cut() {
        let whole = generated(42, 0..CHUNK_BYTES + 100);
        assert_eq!(generated(42, 13..77), whole.slice(13..77));
        assert_eq!(Blob::generated(42, CHUNK_BYTES + 100).to_bytes().unwrap(), whole);
        assert_ne!(generated(43, 13..77), whole.slice(13..77));
    }
}
