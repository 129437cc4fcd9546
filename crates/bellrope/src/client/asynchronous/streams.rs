//! The streams of the async client.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use futures_core::Stream;
use tokio::time::{Sleep, sleep_until, timeout_at};

use super::{
    super::{
        mailboxes::{Arrival, Ticket, Waiter},
        options::{CallOptions, SAID_ALREADY, SENT_ONCE},
        shared::{Sent, SharedClient},
    },
    driver::settle,
    pending::Pending,
    place::Place,
    restart::Restart,
};
use crate::error::CallError;

/// The chunks of a stream, as they come. Ends after the last one, or after one error.
///
/// Dropping it before its end cancels the stream at the server. See the example of [`AsyncClient`](super::AsyncClient).
#[derive(Debug)]
pub struct AsyncStream {
    pending: Pending,
    /// Ends when the stream has to be over.
    time_out: Option<Pin<Box<Sleep>>>,
    /// There until the first chunk, if the caller allows another try.
    restart: Option<Restart>,
}

impl AsyncStream {
    pub(super) fn new(pending: Pending, deadline: Option<Instant>, restart: Option<Restart>) -> Self {
        Self { pending, time_out: deadline.map(|deadline| Box::pin(sleep_until(deadline.into()))), restart }
    }

    /// The next chunk. `None` after the last one, or after an error. [Example](super::AsyncClient).
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, CallError>> {
        poll_fn(|context| self.poll_chunk(context)).await
    }

    /// Leaves the stream to whoever comes back for it. To its handler it is as if the connection had gone: what is kept for the
    /// caller stays, where dropping the stream says that nothing is wanted any more
    /// ([`Cancelled::is_withdrawn`](crate::server::Cancelled::is_withdrawn)). A server of an older version takes it for that, too.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// # let server = bellrope::Server::builder()
    /// #     .server_stream("count", |_, mut chunks| async move {
    /// #         for n in 0.. { chunks.send([n]).await?; }
    /// #         Ok(())
    /// #     })
    /// #     .bind(&path)?;
    /// let client = bellrope::AsyncClient::connect(&path).await?;
    /// let mut stream = client.stream("count", b"").await?;
    /// stream.next().await.unwrap()?;
    /// stream.leave();
    /// # Ok(())
    /// # }
    /// ```
    pub fn leave(mut self) {
        self.pending.leave();
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, CallError>>> {
        let polled = self.poll_untimed(context);
        if polled.is_pending() {
            if let Some(time_out) = &mut self.time_out {
                ready!(time_out.as_mut().poll(context));
                // The server may be one that has stopped, so this side keeps the time, too.
                self.pending.abandon();
                (self.time_out, self.restart) = (None, None);
                return Poll::Ready(Some(Err(CallError::DeadlineExceeded)));
            }
        }
        polled
    }

    fn poll_untimed(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, CallError>>> {
        loop {
            if let Some(restart) = &mut self.restart {
                if let Some(begun) = ready!(restart.poll(context)) {
                    match begun {
                        Ok(pending) => self.pending = pending,
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    }
                }
            }
            return Poll::Ready(match ready!(self.pending.poll_event(context)) {
                Arrival::Chunk(chunk) => {
                    self.restart = None;
                    Some(Ok(chunk))
                }
                Arrival::Failed(error) if self.restart.as_mut().is_some_and(|restart| restart.begin(&error)) => {
                    continue;
                }
                Arrival::Failed(error) => Some(Err(error)),
                Arrival::End | Arrival::Response(_) => None,
            });
        }
    }
}

impl Stream for AsyncStream {
    type Item = Result<Vec<u8>, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_chunk(context)
    }
}

/// The sending half of a call with streams both ways. Dropping it, or [`finish`](Self::finish), ends the stream; the
/// call goes on until its receiving half has ended. See the example of [`AsyncClient`](super::AsyncClient).
#[derive(Debug)]
pub struct AsyncChunkSink {
    shared: Arc<SharedClient>,
    ticket: Ticket,
    /// That of the whole call.
    deadline: Option<Instant>,
}

impl AsyncChunkSink {
    /// The sending half of a call.
    pub(super) fn of(call: &Pending, deadline: Option<Instant>) -> Self {
        let ticket = call.ticket.expect("a call that has just been sent has not ended");
        Self { shared: Arc::clone(&call.shared), ticket, deadline }
    }

    /// Sends a chunk. Waits while the server is slow, until the call's time-out if it has one. Answers `false` if the call
    /// has ended, so that no more is wanted; the receiving half tells how. [Example](super::AsyncClient).
    ///
    /// # Errors
    /// [`CallError::ChunkTooLarge`] if the chunk is larger than a quarter of the ring;
    /// [`CallError::DeadlineExceeded`]; an error of the connection.
    pub async fn send(&mut self, chunk: &[u8]) -> Result<bool, CallError> {
        let mut place = Place::for_room(&self.shared);
        let sent = poll_fn(|context| self.poll_send(context, &mut place, chunk));
        match self.deadline {
            None => sent.await,
            Some(deadline) => timeout_at(deadline.into(), sent).await.unwrap_or(Err(CallError::DeadlineExceeded)),
        }
    }

    /// Ends the stream. [Example](super::AsyncClient).
    pub fn finish(self) {}

    fn poll_send(&self, context: &Context<'_>, place: &mut Place<'_>, chunk: &[u8]) -> Poll<Result<bool, CallError>> {
        let (shared, ticket) = (&self.shared, self.ticket);
        let mut state = shared.lock();
        let waits = match state.send_chunk(ticket, chunk) {
            Ok(Sent::Done) => return Poll::Ready(Ok(true)),
            Ok(Sent::Ended) => return Poll::Ready(Ok(false)),
            Ok(Sent::NoCredit) => state.wait_for(ticket, Waiter::Writer, context.waker()),
            Ok(Sent::NoRoom) => {
                place.wait(&mut state, context);
                true
            }
            Err(error) => {
                settle(shared, &mut state);
                return Poll::Ready(Err(error));
            }
        };
        settle(shared, &mut state);
        if waits { Poll::Pending } else { Poll::Ready(Ok(false)) }
    }
}

impl Drop for AsyncChunkSink {
    fn drop(&mut self) {
        self.shared.lock().end_upload(self.ticket);
    }
}

/// A call that takes a stream of chunks and is answered once. Dropping it before [`finish`](Self::finish) has answered
/// cancels it. See the example of [`AsyncClient`](super::AsyncClient).
#[derive(Debug)]
pub struct AsyncUpload {
    // Dropped first: a cancelled call needs no end of its stream.
    pub(super) pending: Pending,
    pub(super) sink: AsyncChunkSink,
}

impl AsyncUpload {
    /// Sends a chunk: see [`AsyncChunkSink::send`]. After a `false`, [`finish`](Self::finish) has the answer.
    /// [Example](super::AsyncClient).
    ///
    /// # Errors
    /// As there.
    pub async fn send(&mut self, chunk: &[u8]) -> Result<bool, CallError> {
        self.sink.send(chunk).await
    }

    /// The two halves: what sends, and what waits for the answer, which may come before the stream has ended.
    /// [Example](AsyncAnswer).
    #[must_use]
    pub fn split(self) -> (AsyncChunkSink, AsyncAnswer) {
        let deadline = self.sink.deadline;
        (self.sink, AsyncAnswer { pending: self.pending, deadline })
    }

    /// Ends the stream and waits for the answer: until the call's own time-out, or without one at most the configuration's
    /// `call_timeout`. [Example](super::AsyncClient).
    ///
    /// # Errors
    /// [`CallError`] says how the call ended.
    pub async fn finish(self) -> Result<Vec<u8>, CallError> {
        self.finish_with(&CallOptions::new()).await
    }

    /// As [`Self::finish`], with a time-out for the answer, or a cancel token. The call's own time-out holds, too.
    /// [Example](super::AsyncClient).
    ///
    /// # Errors
    /// As there; [`CallError::UnusableOption`] for a retry or metadata, which also ends the call.
    pub async fn finish_with(mut self, options: &CallOptions) -> Result<Vec<u8>, CallError> {
        options.without_retry("finish", SENT_ONCE)?;
        options.without_metadata("finish", SAID_ALREADY)?;
        let deadline = match (self.sink.deadline, options.deadline()) {
            (Some(whole), Some(answer)) => whole.min(answer),
            (whole, answer) => whole.or(answer).unwrap_or_else(|| self.pending.patience()),
        };
        self.sink.shared.lock().end_upload(self.sink.ticket);
        self.pending.register(options);
        let answer = timeout_at(deadline.into(), self.pending.response()).await;
        answer.unwrap_or(Err(CallError::DeadlineExceeded))
    }
}

/// The answering half of an upload. Dropping it cancels the call, unless it has ended.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("first.sock");
/// # let server = bellrope::Server::builder()
/// #     .client_stream("first", |_, mut chunks| async move { Ok(chunks.next().await.unwrap_or_default()) })
/// #     .bind(&path)?;
/// let client = bellrope::AsyncClient::connect(&path).await?;
/// let (mut sink, answer) = client.client_stream("first", b"").await?.split();
/// sink.send(b"ding").await?;
/// assert_eq!(answer.wait().await?, b"ding"); // the sink is there still
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncAnswer {
    pending: Pending,
    /// That of the whole call.
    deadline: Option<Instant>,
}

impl AsyncAnswer {
    /// Waits for the answer, until the call's time-out if it has one. [Example](Self).
    ///
    /// # Errors
    /// [`CallError`] says how the call ended.
    pub async fn wait(mut self) -> Result<Vec<u8>, CallError> {
        let response = self.pending.response();
        match self.deadline {
            None => response.await,
            Some(deadline) => timeout_at(deadline.into(), response).await.unwrap_or(Err(CallError::DeadlineExceeded)),
        }
    }
}
