//! The two ends of a message that a handler takes or gives part by part, on a thread that may block.

use std::io::{self, BufRead, Read, Write};

use super::streams::{ChunkReceiver, ChunkSender};
use crate::{
    part::{PART, PartReader},
    server::calls::blocking_pool::CallerPatience,
};

/// A request as a handler reads it, while it comes: [`ServerBuilder::unary_reader`](crate::server::ServerBuilder::unary_reader).
///
/// It ends where the caller ended it. If the caller cancels, goes away, or lets its deadline pass before that, reading fails
/// as [`ConnectionAborted`](io::ErrorKind::ConnectionAborted), so half a request is never taken for a whole one. No more of it is
/// in memory than `stream_window` and one part.
///
/// While other calls wait for a thread, reading fails as [`TimedOut`](io::ErrorKind::TimedOut) if nothing comes for
/// `stall_timeout`; so it does if no other call had a thread for a second and the caller was waited for for longer than
/// `stall_timeout` in all, and a second more for each 16 MiB that came.
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
/// is slow, and fails as [`BrokenPipe`](io::ErrorKind::BrokenPipe) when it has cancelled or gone away. It fails as
/// [`TimedOut`](io::ErrorKind::TimedOut) where [reading a request](RequestReader) that comes as slowly would. After it has failed
/// nothing more is sent, so that nobody gets a reply with a hole. The rest is sent when the handler returns `Ok`.
#[derive(Debug)]
pub struct ReplyWriter {
    parts: ChunkSender,
    /// At most `size` bytes.
    part: Vec<u8>,
    /// Bytes of a whole part.
    size: usize,
    patience: CallerPatience,
    /// Why the reply goes no further.
    failed: Option<(io::ErrorKind, String)>,
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
    pub(crate) fn new(parts: ChunkSender, patience: CallerPatience) -> Self {
        let size = parts.max_chunk().min(PART);
        Self { parts, part: Vec::new(), size, patience, failed: None }
    }

    /// Fails if the reply has. A handler may go on after an error, but what would come next does not belong behind what was sent.
    fn check(&self) -> io::Result<()> {
        match &self.failed {
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            None => Ok(()),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        self.check()?;
        if self.part.is_empty() {
            return Ok(());
        }
        // The part goes to the worker as it is; the next one has memory of its own.
        let part = std::mem::take(&mut self.part);
        let sent = self.parts.blocking_send(part, &mut self.patience);
        sent.inspect_err(|error| self.failed = Some((error.kind(), error.to_string())))
    }
}

impl Write for ReplyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
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
