//! The two ends of a message that a handler takes or gives part by part, on a thread that may block.

use std::io::{self, BufRead, ErrorKind, Read, Write};

use tokio::runtime::Handle;

use super::streams::{ChunkReceiver, ChunkSender, SendError};
use crate::{
    part::{PART, PartReader},
    server::calls::blocking_pool::CallerPatience,
};

/// A request as a handler reads it, while it comes: [`ServerBuilder::unary_reader`](crate::server::ServerBuilder::unary_reader).
///
/// It ends where the caller ended it. If the caller cancels, goes away, or lets its deadline pass before that, reading fails
/// as [`ErrorKind::ConnectionAborted`], so half a request is never taken for a whole one. It fails as [`ErrorKind::TimedOut`] if
/// nothing comes for `stall_timeout` while other calls wait for a thread. No more of it is in memory than
/// `stream_window` and one part.
#[derive(Debug)]
pub struct RequestReader {
    parts: ChunkReceiver,
    part: PartReader,
    patience: CallerPatience,
}

/// A reply as a handler writes it, while it leaves: [`ServerBuilder::unary_writer`](crate::server::ServerBuilder::unary_writer).
///
/// What is written is gathered to parts of 32 KiB; [`flush`](Write::flush) sends what there is, which a handler has to do whose
/// caller waits for it before it goes on. Writing waits while the caller
/// is slow, and fails as [`ErrorKind::BrokenPipe`] when it has cancelled or gone away. The rest is sent when the handler
/// returns `Ok`.
#[derive(Debug)]
pub struct ReplyWriter {
    parts: ChunkSender,
    /// At most `size` bytes.
    part: Vec<u8>,
    /// Bytes of a whole part.
    size: usize,
}

impl RequestReader {
    pub(crate) fn new(parts: ChunkReceiver, patience: CallerPatience) -> Self {
        Self { parts, part: PartReader::default(), patience }
    }

    /// The part that is being read, and how the next one is had.
    fn halves(&mut self) -> (&mut PartReader, impl FnMut() -> io::Result<Option<Vec<u8>>>) {
        let Self { parts, part, patience } = self;
        (part, || parts.blocking_next(patience))
    }
}

impl BufRead for RequestReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let (part, next) = self.halves();
        part.fill(next)
    }

    fn consume(&mut self, amount: usize) {
        self.part.consume(amount);
    }
}

impl Read for RequestReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (part, next) = self.halves();
        part.read(into, next)
    }
}

impl ReplyWriter {
    pub(crate) fn new(parts: ChunkSender) -> Self {
        let size = parts.max_chunk().min(PART);
        Self { parts, part: Vec::new(), size }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        // The part goes to the worker as it is; the next one has memory of its own.
        let part = std::mem::take(&mut self.part);
        let sent = Handle::current().block_on(self.parts.send_owned(part));
        sent.map_err(|error: SendError| io::Error::new(ErrorKind::BrokenPipe, error))
    }
}

impl Write for ReplyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.size - self.part.len());
        self.part.extend_from_slice(&bytes[..len]);
        if self.part.len() == self.size {
            self.send()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
