//! The replies that a connection has not taken yet, in order: encoded bytes, and between them ranges of
//! files and shared bytes that are never copied here.
//! Invariant: whatever `advance` reports as sent is dropped at once, so `queued` is what is held.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;

use super::FileRange;
use super::send::{send, send_file};

/// Sent bytes in front of unsent ones are dropped once they are so many.
const COMPACT: usize = 256 << 10;
/// Capacity that an empty queue keeps at rest.
const KEEP: usize = 128 << 10;

/// Output of one connection.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Encoded replies; programs append here.
    pub(super) bytes: Vec<u8>,
    /// How many of `bytes` are sent.
    sent: usize,
    /// What comes between the bytes, by place in `bytes`, in order.
    inserts: VecDeque<(usize, Insert)>,
    /// Bytes in `inserts`.
    inserted: usize,
}

/// Content that stays where it is.
#[derive(Debug)]
pub(super) enum Insert {
    File(FileRange),
    Bytes(Bytes),
}

impl Insert {
    fn len(&self) -> usize {
        match self {
            Insert::File(range) => range.len as usize,
            Insert::Bytes(bytes) => bytes.len(),
        }
    }
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len() && self.inserts.is_empty()
    }

    /// Bytes that are not sent yet.
    pub(super) fn queued(&self) -> usize {
        self.bytes.len() - self.sent + self.inserted
    }

    /// Puts `insert` behind all bytes so far.
    pub(super) fn insert(&mut self, insert: Insert) {
        self.inserted += insert.len();
        self.inserts.push_back((self.bytes.len(), insert));
    }

    /// Makes one system call's worth of progress.
    /// # Errors
    /// `WouldBlock`: the socket takes no more. `UnexpectedEof`: a file was shorter than promised, and its
    /// reply, half sent, cannot be repaired.
    pub(super) fn send_some(&mut self, stream: &TcpStream) -> io::Result<Sent> {
        let until = self.inserts.front().map_or(self.bytes.len(), |(at, _)| *at);
        if self.sent < until {
            let asked = until - self.sent;
            let n = send(stream, &self.bytes[self.sent..until], !self.inserts.is_empty())?;
            self.sent += n;
            self.compact();
            return Ok(if n < asked { Sent::Partly } else { Sent::Whole });
        }
        let Some((_, insert)) = self.inserts.front_mut() else { return Ok(Sent::Whole) };
        let asked = insert.len();
        let n = match insert {
            Insert::File(range) => send_file(stream, range)?,
            Insert::Bytes(bytes) => {
                let n = send(stream, bytes, false)?;
                bytes.advance(n);
                n
            }
        };
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.inserted -= n;
        if n == asked {
            self.inserts.pop_front();
            self.compact();
        }
        Ok(Sent::Whole)
    }

    /// Gives memory back that a burst took.
    pub(super) fn relax(&mut self) {
        if self.is_empty() && self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
    }

    fn compact(&mut self) {
        if self.is_empty() {
            self.bytes.clear();
            self.sent = 0;
        } else if self.sent >= COMPACT {
            self.bytes.drain(..self.sent);
            self.inserts.iter_mut().for_each(|(at, _)| *at -= self.sent);
            self.sent = 0;
        }
    }
}

/// How far one system call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All that it was given, or a file's part.
    Whole,
    /// Less: the socket is full, and says when it no longer is.
    Partly,
}
