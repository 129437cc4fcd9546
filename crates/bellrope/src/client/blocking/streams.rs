//! The streams of the blocking client.

use std::time::Instant;

use super::{
    super::{
        mailboxes::{Event, Ticket},
        options::{CallOptions, Registration},
    },
    caller::Caller,
};
use crate::error::CallError;

/// The chunks of a stream, as they come. Ends after the last one, or after one error.
///
/// Dropping it before its end cancels the stream at the server.
#[derive(Debug)]
pub struct ChunkStream {
    caller: Caller,
    /// `None` once the stream has ended.
    ticket: Option<Ticket>,
    deadline: Option<Instant>,
    _registration: Option<Registration>,
}

impl ChunkStream {
    pub(super) fn new(
        caller: Caller,
        ticket: Ticket,
        deadline: Option<Instant>,
        registration: Option<Registration>,
    ) -> Self {
        Self { caller, ticket: Some(ticket), deadline, _registration: registration }
    }
}

impl Iterator for ChunkStream {
    type Item = Result<Vec<u8>, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        let ticket = self.ticket?;
        match self.caller.next_event(ticket, self.deadline) {
            Ok(Event::Chunk(chunk)) => return Some(Ok(chunk)),
            Ok(Event::End) => self.ticket = None,
            Ok(Event::Failed(error)) => {
                self.ticket = None;
                return Some(Err(error));
            }
            Ok(Event::Response(_)) => unreachable!("the connection checks the style of every answer"),
            Err(error) => {
                self.caller.abandon(ticket);
                self.ticket = None;
                return Some(Err(error));
            }
        }
        None
    }
}

impl Drop for ChunkStream {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.caller.abandon(ticket);
        }
    }
}

/// The sending half of a call with streams both ways. Dropping it, or [`finish`](Self::finish), ends the stream; the
/// call goes on until its receiving half has ended.
#[derive(Debug)]
pub struct ChunkSink {
    caller: Caller,
    ticket: Ticket,
}

impl ChunkSink {
    pub(super) fn new(caller: Caller, ticket: Ticket) -> Self {
        Self { caller, ticket }
    }

    /// Sends a chunk. Waits while the server is slow, at most the configuration's `call_timeout`. Answers `false` if the
    /// call has ended, so that no more is wanted; the receiving half tells how.
    ///
    /// # Errors
    /// [`CallError::MessageTooLarge`] if the chunk is larger than a quarter of the ring;
    /// [`CallError::DeadlineExceeded`]; an error of the connection.
    pub fn send(&mut self, chunk: &[u8]) -> Result<bool, CallError> {
        self.caller.send_chunk(self.ticket, chunk)
    }

    /// Ends the stream.
    pub fn finish(self) {}
}

impl Drop for ChunkSink {
    fn drop(&mut self) {
        self.caller.end_upload(self.ticket);
    }
}

/// A call that takes a stream of chunks and is answered once. Dropping it before [`finish`](Self::finish) cancels it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// # let server = bellrope::Server::builder()
/// #     .client_stream("total", |_, mut chunks| async move {
/// #         let mut total = 0;
/// #         while let Some(chunk) = chunks.next().await { total += chunk.len(); }
/// #         Ok(total.to_string().into_bytes())
/// #     }).bind(&path)?;
/// let client = bellrope::Client::connect(&path)?;
/// let mut upload = client.client_stream("total", b"")?;
/// for line in ["ding", "dong"] {
///     upload.send(line.as_bytes())?;
/// }
/// assert_eq!(upload.finish()?, b"8");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Upload {
    sink: ChunkSink,
    /// Whether the answer was asked for.
    finished: bool,
}

impl Upload {
    pub(super) fn new(sink: ChunkSink) -> Self {
        Self { sink, finished: false }
    }

    /// Sends a chunk: see [`ChunkSink::send`]. After a `false`, [`finish`](Self::finish) has the answer.
    ///
    /// # Errors
    /// As there.
    pub fn send(&mut self, chunk: &[u8]) -> Result<bool, CallError> {
        self.sink.send(chunk)
    }

    /// Ends the stream and waits for the answer, at most the configuration's `call_timeout`.
    ///
    /// # Errors
    /// [`CallError`] says how the call ended.
    pub fn finish(self) -> Result<Vec<u8>, CallError> {
        self.finish_with(&CallOptions::new())
    }

    /// As [`Self::finish`], with a time-out or cancel token of its own.
    ///
    /// # Errors
    /// As there.
    pub fn finish_with(mut self, options: &CallOptions) -> Result<Vec<u8>, CallError> {
        let (caller, ticket) = (&self.sink.caller, self.sink.ticket);
        caller.end_upload(ticket);
        self.finished = true;
        caller.response(ticket, Some(caller.deadline(options)), options)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.finished {
            self.sink.caller.abandon(self.sink.ticket);
        }
    }
}
