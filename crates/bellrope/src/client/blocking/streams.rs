//! The streams of the blocking client.

use std::time::Instant;

use bellrope_proto::handshake::Style;

use super::{
    super::{
        mailboxes::{Arrival, Ticket},
        options::{Again, CallOptions, Registration, SAID_ALREADY, SENT_ONCE},
    },
    caller::Caller,
};
use crate::error::CallError;

/// The chunks of a stream, as they come. Ends after the last one, or after one error.
///
/// Dropping it before its end cancels the stream at the server.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// # let server = bellrope::Server::builder()
/// #     .duplex("double", |_, mut incoming, mut outgoing| async move {
/// #         while let Some(chunk) = incoming.next().await { outgoing.send([&chunk[..], &chunk[..]].concat()).await?; }
/// #         Ok(())
/// #     }).bind(&path)?;
/// let client = bellrope::Client::connect(&path)?;
/// let (mut sink, stream) = client.duplex("double", b"")?;
/// let sending = std::thread::spawn(move || {
///     for word in ["ding", "dong"] {
///         if !sink.send(word.as_bytes())? {
///             break; // the call has ended; the stream tells how
///         }
///     }
///     sink.finish(); // dropping it does the same
///     Ok::<_, bellrope::CallError>(())
/// });
/// let answers: Vec<_> = stream.collect::<Result<_, _>>()?;
/// assert_eq!(answers, [b"dingding", b"dongdong"]);
/// sending.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ChunkStream {
    caller: Caller,
    /// `None` once the stream has ended.
    ticket: Option<Ticket>,
    deadline: Option<Instant>,
    registration: Option<Registration>,
    /// There until the first chunk, if the caller allows another try.
    again: Option<Again>,
}

impl ChunkStream {
    pub(super) fn new(
        caller: Caller,
        ticket: Ticket,
        deadline: Option<Instant>,
        registration: Option<Registration>,
        again: Option<Again>,
    ) -> Self {
        Self { caller, ticket: Some(ticket), deadline, registration, again }
    }

    /// Calls anew after this error, if that is allowed. Otherwise, and if that fails, the stream ends with what is returned.
    fn start_again(&mut self, error: CallError) -> Result<(), CallError> {
        let Some(again) = self.again.as_ref().filter(|again| again.is_due(&error)) else { return Err(error) };
        let options = &again.options;
        let ticket =
            self.caller.start(again.target(), Style::ServerStream, again.payload(), again.deadline, options)?;
        self.registration = self.caller.register(ticket, options);
        self.ticket = Some(ticket);
        Ok(())
    }
}

impl Iterator for ChunkStream {
    type Item = Result<Vec<u8>, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let ticket = self.ticket?;
            let error = match self.caller.next_event(ticket, self.deadline) {
                Ok(Arrival::Chunk(chunk)) => {
                    self.again = None;
                    return Some(Ok(chunk));
                }
                Ok(Arrival::End) => {
                    self.ticket = None;
                    return None;
                }
                Ok(Arrival::Failed(error)) => error,
                Ok(Arrival::Response(_)) => unreachable!("the connection checks the style of every answer"),
                Err(error) => {
                    self.caller.abandon(ticket);
                    error
                }
            };
            self.ticket = None;
            if let Err(error) = self.start_again(error) {
                return Some(Err(error));
            }
        }
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
/// call goes on until its receiving half has ended: see the example of [`ChunkStream`].
#[derive(Debug)]
pub struct ChunkSink {
    caller: Caller,
    ticket: Ticket,
    /// That of the whole call.
    deadline: Option<Instant>,
}

impl ChunkSink {
    pub(super) fn new(caller: Caller, ticket: Ticket, deadline: Option<Instant>) -> Self {
        Self { caller, ticket, deadline }
    }

    /// Sends a chunk. Waits while the server is slow, at most the configuration's `call_timeout`, and not beyond the call's
    /// own time-out. Answers `false` if the call has ended, so that no more is wanted; the receiving half tells how.
    /// [Example](ChunkStream).
    ///
    /// # Errors
    /// [`CallError::ChunkTooLarge`] if the chunk is larger than a quarter of the ring;
    /// [`CallError::DeadlineExceeded`]; an error of the connection.
    pub fn send(&mut self, chunk: &[u8]) -> Result<bool, CallError> {
        self.caller.send_chunk(self.ticket, chunk, self.deadline)
    }

    /// Ends the stream. [Example](ChunkStream).
    pub fn finish(self) {}

    /// Bytes of the largest chunk.
    pub(super) fn max_chunk(&self) -> usize {
        self.caller.max_chunk()
    }

    /// Cancels the whole call, which its receiving half is told.
    pub(super) fn cancel(&self) {
        self.caller.shared().cancel(self.ticket);
    }
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
///
/// let mut upload = client.client_stream("total", b"")?;
/// upload.send(b"ding")?;
/// let soon = bellrope::client::CallOptions::new().timeout(std::time::Duration::from_secs(5));
/// assert_eq!(upload.finish_with(&soon)?, b"4");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Upload {
    sink: ChunkSink,
    /// Whether the answer was asked for.
    finished: bool,
    _registration: Option<Registration>,
}

impl Upload {
    pub(super) fn new(sink: ChunkSink, registration: Option<Registration>) -> Self {
        Self { sink, finished: false, _registration: registration }
    }

    /// Sends a chunk: see [`ChunkSink::send`]. After a `false`, [`finish`](Self::finish) has the answer. [Example](Self).
    ///
    /// # Errors
    /// As there.
    pub fn send(&mut self, chunk: &[u8]) -> Result<bool, CallError> {
        self.sink.send(chunk)
    }

    /// Bytes of the largest chunk.
    pub(super) fn max_chunk(&self) -> usize {
        self.sink.max_chunk()
    }

    /// Ends the stream and waits for the answer: until the call's own time-out, or without one at most the configuration's
    /// `call_timeout`. [Example](Self).
    ///
    /// # Errors
    /// [`CallError`] says how the call ended.
    pub fn finish(self) -> Result<Vec<u8>, CallError> {
        self.finish_with(&CallOptions::new())
    }

    /// As [`Self::finish`], with a time-out for the answer, or a cancel token. The call's own time-out holds, too.
    /// [Example](Self).
    ///
    /// # Errors
    /// As there; [`CallError::UnusableOption`] for a retry or metadata, which also ends the call.
    pub fn finish_with(mut self, options: &CallOptions) -> Result<Vec<u8>, CallError> {
        options.without_retry("finish", SENT_ONCE)?;
        options.without_metadata("finish", SAID_ALREADY)?;
        let ChunkSink { caller, ticket, deadline } = &self.sink;
        let deadline = match (*deadline, options.deadline()) {
            (Some(whole), Some(answer)) => whole.min(answer),
            (whole, answer) => whole.or(answer).unwrap_or_else(|| caller.patience()),
        };
        caller.end_upload(*ticket);
        self.finished = true;
        caller.response(*ticket, Some(deadline), options)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.finished {
            self.sink.caller.abandon(self.sink.ticket);
        }
    }
}
