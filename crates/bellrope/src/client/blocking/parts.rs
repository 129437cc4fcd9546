//! Large messages that a caller gives or takes part by part.
//!
//! They are streams of bytes: no side holds more of one than its credit and one part, and the parts of many calls mix on a
//! connection.

use std::io::{self, BufRead, ErrorKind, Read, Write};

use super::{
    super::{options::CallOptions, types::Target},
    Client,
    streams::{ChunkSink, ChunkStream, Upload},
};
use crate::{
    error::CallError,
    part::{PART, PartReader},
};

impl Client {
    /// Calls a message type whose reply is read part by part while it comes, however large it is: one that the server has as
    /// `unary_writer`, or as any other stream, of which this reads the bytes. Dropping the reader cancels the call.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// # let server = bellrope::Server::builder().unary_writer("zeros", |_, reply| {
    /// #     Ok(std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 3_000_000), reply).map(drop)?)
    /// # }).bind(&path)?;
    /// # let client = bellrope::Client::connect(&path)?;
    /// let mut reply = client.call_reader("zeros", b"")?;
    /// assert_eq!(std::io::copy(&mut reply, &mut std::io::sink())?, 3_000_000);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CallError`] if the call could not be sent. What happens later is told by the reader.
    pub fn call_reader<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        request: &[u8],
    ) -> Result<CallReader, CallError> {
        self.call_reader_with(message_type, request, &CallOptions::new())
    }

    /// As [`Self::call_reader`], with options, as [`Self::stream_with`]. [Example](Self::call_reader).
    ///
    /// # Errors
    /// As there.
    pub fn call_reader_with<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        request: &[u8],
        options: &CallOptions,
    ) -> Result<CallReader, CallError> {
        Ok(CallReader::new(self.stream_with(message_type, request, options)?))
    }

    /// Calls a message type whose request is written part by part, however large it is, and which answers once: one that the
    /// server has as `unary_reader`, or as any other client stream. `head` comes before the parts, and the handler has it
    /// as [`OwnedCall::payload`](crate::server::OwnedCall::payload): a name, for instance. Dropping the writer before
    /// [`finish`](CallWriter::finish) cancels the call.
    ///
    /// ```
    /// use std::io::Write as _;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("sum.sock");
    /// # let server = bellrope::Server::builder().unary_reader("size", |_, request| {
    /// #     Ok(std::io::copy(request, &mut std::io::sink())?.to_string().into_bytes())
    /// # }).bind(&path)?;
    /// # let client = bellrope::Client::connect(&path)?;
    /// let mut request = client.call_writer("size", b"of a file")?;
    /// std::io::copy(&mut std::io::Read::take(std::io::repeat(7), 3_000_000), &mut request)?;
    /// assert_eq!(request.finish()?, b"3000000");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CallError`] if the call could not be sent.
    pub fn call_writer<'a>(&self, message_type: impl Into<Target<'a>>, head: &[u8]) -> Result<CallWriter, CallError> {
        self.call_writer_with(message_type, head, &CallOptions::new())
    }

    /// As [`Self::call_writer`], with options, as [`Self::client_stream_with`]. [Example](Self::call_writer).
    ///
    /// # Errors
    /// As there.
    pub fn call_writer_with<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        head: &[u8],
        options: &CallOptions,
    ) -> Result<CallWriter, CallError> {
        let upload = self.client_stream_with(message_type, head, options)?;
        Ok(CallWriter { parts: Parts::of(upload.max_chunk()), upload })
    }

    /// Calls a message type whose request is written and whose reply is read part by part: one that the server has as
    /// `unary_filter`, or as any other duplex call. Each half may go to a thread of its own. Where one thread has both, it
    /// must read while it writes: a handler that has an answer for each part takes no more of them while none is read. Where both
    /// sides speak in turns, both have to flush what the other one waits for.
    /// Dropping either half cancels the call, the writer only before [`finish`](RequestWriter::finish).
    ///
    /// ```
    /// use std::io::{Read as _, Write as _};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// # let server = bellrope::Server::builder()
    /// #     .unary_filter("echo", |_, request, reply| Ok(std::io::copy(request, reply).map(drop)?)).bind(&path)?;
    /// # let client = bellrope::Client::connect(&path)?;
    /// let (mut request, mut reply) = client.call_both_ways("echo", b"")?;
    /// let writing = std::thread::spawn(move || {
    ///     request.write_all(b"ding dong")?;
    ///     request.finish()
    /// });
    /// let mut came = String::new();
    /// reply.read_to_string(&mut came)?;
    /// assert_eq!(came, "ding dong");
    /// writing.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CallError`] if the call could not be sent.
    pub fn call_both_ways<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        head: &[u8],
    ) -> Result<(RequestWriter, CallReader), CallError> {
        self.call_both_ways_with(message_type, head, &CallOptions::new())
    }

    /// As [`Self::call_both_ways`], with options, as [`Self::duplex_with`]. [Example](Self::call_both_ways).
    ///
    /// # Errors
    /// As there.
    pub fn call_both_ways_with<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        head: &[u8],
        options: &CallOptions,
    ) -> Result<(RequestWriter, CallReader), CallError> {
        let (sink, stream) = self.duplex_with(message_type, head, options)?;
        let writer = RequestWriter { parts: Parts::of(sink.max_chunk()), sink, finished: false };
        Ok((writer, CallReader::new(stream)))
    }
}

/// A reply as its caller reads it, while it comes: [`Client::call_reader`].
///
/// It ends where the handler ended it. A call that ends otherwise ends as an error of reading, whose
/// [inner error](io::Error::get_ref) is the [`CallError`]: half a reply is never taken for a whole one. No more of it is in
/// memory than `stream_window` and one part.
#[derive(Debug)]
pub struct CallReader {
    stream: ChunkStream,
    part: PartReader,
    /// Whether the call has ended as an error. Then there is no clean end to be read.
    failed: bool,
}

/// A request as its caller writes it: [`Client::call_writer`].
///
/// What is written is gathered to parts of 32 KiB; [`flush`](Write::flush) sends what there is. Writing waits while the server
/// is slow, at most the configuration's `call_timeout` and not beyond the call's own time-out. It fails as
/// [`ErrorKind::BrokenPipe`] once the call has ended: [`finish`](Self::finish) then says how.
#[derive(Debug)]
pub struct CallWriter {
    parts: Parts,
    upload: Upload,
}

/// A request as its caller writes it, while the reply is read: [`Client::call_both_ways`]. As [`CallWriter`], but the reader
/// says how the call ends.
#[derive(Debug)]
pub struct RequestWriter {
    parts: Parts,
    sink: ChunkSink,
    finished: bool,
}

impl CallReader {
    fn new(stream: ChunkStream) -> Self {
        Self { stream, part: PartReader::default(), failed: false }
    }

    /// The part that is being read, and how the next one is had.
    fn halves(&mut self) -> (&mut PartReader, impl FnMut() -> io::Result<Option<Vec<u8>>>) {
        let Self { stream, part, failed } = self;
        let next = || {
            if *failed {
                return Err(io::Error::new(ErrorKind::BrokenPipe, "the call has failed before"));
            }
            stream.next().transpose().map_err(|error| {
                *failed = true;
                as_io(error)
            })
        };
        (part, next)
    }
}

impl BufRead for CallReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let (part, next) = self.halves();
        part.fill(next)
    }

    fn consume(&mut self, amount: usize) {
        self.part.consume(amount);
    }
}

impl Read for CallReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (part, next) = self.halves();
        part.read(into, next)
    }
}

impl CallWriter {
    /// Ends the request and waits for the reply, as [`Upload::finish`]. [Example](Client::call_writer).
    ///
    /// # Errors
    /// [`CallError`] says how the call ended.
    pub fn finish(self) -> Result<Vec<u8>, CallError> {
        self.finish_with(&CallOptions::new())
    }

    /// As [`Self::finish`], with options, as [`Upload::finish_with`]. [Example](Client::call_writer).
    ///
    /// # Errors
    /// As there.
    pub fn finish_with(mut self, options: &CallOptions) -> Result<Vec<u8>, CallError> {
        // Where the call has ended, its answer says more.
        self.parts.rest(|part| self.upload.send(part))?;
        self.upload.finish_with(options)
    }
}

impl Write for CallWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.parts.write(bytes, |part| self.upload.send(part))
    }

    fn flush(&mut self) -> io::Result<()> {
        accepted(self.parts.rest(|part| self.upload.send(part)))
    }
}

impl RequestWriter {
    /// Ends the request: it is whole. [Example](Client::call_both_ways).
    ///
    /// # Errors
    /// As of writing: the last of it was not sent, and the call is cancelled unless it has ended.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.finished = true;
        Ok(())
    }
}

impl Write for RequestWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.parts.write(bytes, |part| self.sink.send(part))
    }

    fn flush(&mut self) -> io::Result<()> {
        accepted(self.parts.rest(|part| self.sink.send(part)))
    }
}

impl Drop for RequestWriter {
    fn drop(&mut self) {
        // The end that the sink sends would make a whole request of a half one.
        if !self.finished {
            self.sink.cancel();
        }
    }
}

/// What is written, until it makes a part.
#[derive(Debug)]
struct Parts {
    /// Fewer bytes than `size`.
    part: Vec<u8>,
    /// Bytes of a whole part.
    size: usize,
}

impl Parts {
    fn of(max_chunk: usize) -> Self {
        Self { part: Vec::new(), size: max_chunk.min(PART) }
    }

    /// Takes some of the bytes, and sends a part if that makes one. Where nothing waits, a part goes out from where it is.
    fn write(&mut self, bytes: &[u8], mut send: impl FnMut(&[u8]) -> Result<bool, CallError>) -> io::Result<usize> {
        let len = bytes.len().min(self.size - self.part.len());
        if len == self.size {
            accepted(send(&bytes[..len]))?;
            return Ok(len);
        }
        self.part.extend_from_slice(&bytes[..len]);
        if self.part.len() == self.size {
            accepted(self.rest(send))?;
        }
        Ok(len)
    }

    /// Sends what waits. Answers `false` if the call has ended.
    fn rest(&mut self, mut send: impl FnMut(&[u8]) -> Result<bool, CallError>) -> Result<bool, CallError> {
        if self.part.is_empty() {
            return Ok(true);
        }
        let sent = send(&self.part);
        self.part.clear();
        sent
    }
}

/// That a call has ended is no success of writing.
fn accepted(sent: Result<bool, CallError>) -> io::Result<()> {
    match sent {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::Error::new(ErrorKind::BrokenPipe, "the call has ended: no more of its request is wanted")),
        Err(error) => Err(as_io(error)),
    }
}

/// Not as [`ErrorKind::Interrupted`], whatever it is: readers and writers try again then.
fn as_io(error: CallError) -> io::Error {
    let kind = match &error {
        CallError::DeadlineExceeded => ErrorKind::TimedOut,
        CallError::NotExecuted | CallError::Unknown | CallError::Cancelled | CallError::Closed => {
            ErrorKind::ConnectionAborted
        }
        _ => ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
