//! The two ends of an async handler's streams.

use std::{
    io::{self, ErrorKind},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
    thread::{self, Thread},
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

use super::port::Port;
use crate::server::calls::{blocking_pool::CallerPatience, body::Body};

/// Wakes a thread that waits for its caller.
struct Unparks(Thread);

impl Wake for Unparks {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Why a chunk was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The stream was cancelled by its reader, or the reader is gone. Nothing more can be sent.
    #[error("the reader of the stream is gone")]
    Closed,
    /// The chunk is larger than [`ChunkSender::max_chunk`]. The client says the same of chunks of its own.
    #[error("the chunk of {size} bytes exceeds the limit of {limit} bytes (a quarter of ring_bytes)")]
    ChunkTooLarge {
        /// Its size, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
}

impl From<SendError> for crate::server::error::HandlerError {
    fn from(error: SendError) -> Self {
        Self::new(error.to_string())
    }
}

/// Where a stream handler sends its chunks.
///
/// A chunk waits for the reader's credit and for room in the ring; about [`ChunkSender::AHEAD`] bytes wait for one
/// stream, then [`ChunkSender::send`] does. That is how a slow reader slows down its source and nobody else.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("count.sock");
/// let server = bellrope::Server::builder()
///     .server_stream("count", |_, mut chunks| async move {
///         chunks.send("one ").await?;
///         chunks.send_all(&["two ", "three "]).await?; // told to the worker together
///         for part in b"four".chunks(chunks.max_chunk()) {
///             chunks.send(part).await?;
///         }
///         Ok(())
///     })
///     .bind(&path)?;
/// let client = bellrope::Client::connect(&path)?;
/// let words = client.stream("count", b"")?.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(words.concat(), b"one two three four");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ChunkSender {
    pub(crate) port: Port,
    /// One for each byte that may wait.
    pub(crate) permits: Arc<Semaphore>,
}

impl ChunkSender {
    /// Bytes of one stream that may wait between its handler and the ring. A chunk of 64 bytes or less counts for 64; a
    /// larger one than this waits alone.
    pub const AHEAD: usize = 16 * 1024;
    const LEAST: usize = 64;

    /// Largest chunk, in bytes: a quarter of the ring. The same holds for those of the client.
    #[must_use]
    pub fn max_chunk(&self) -> usize {
        self.port.max_chunk
    }

    /// Sends a chunk, which arrives as one. Waits while the reader is slow. One without bytes is not sent.
    ///
    /// # Errors
    /// [`SendError::Closed`] if nobody reads any more; the handler should end. [`SendError::ChunkTooLarge`] if it is larger
    /// than [`Self::max_chunk`]: nothing of it was sent, and smaller ones may be.
    pub async fn send(&mut self, chunk: impl AsRef<[u8]>) -> Result<(), SendError> {
        let chunk = chunk.as_ref();
        if chunk.is_empty() {
            return Ok(());
        }
        let permit = self.permit(chunk.len()).await?;
        self.port.chunk(Body::with_permit(chunk.to_vec(), permit));
        Ok(())
    }

    /// Sends chunks that are all there, each as [`Self::send`] does, and has the worker told of many at once: as many as may wait
    /// together. That costs less than one after the other, where they are small.
    ///
    /// # Errors
    /// As there. The chunks before the one that is too large were sent, the others were not.
    pub async fn send_all(&mut self, chunks: &[impl AsRef<[u8]>]) -> Result<(), SendError> {
        let mut at = 0;
        while at < chunks.len() {
            let mut group = Vec::new();
            // As many as may wait now. Whoever has to wait waits with the next one alone.
            while let Some(chunk) = chunks.get(at).map(AsRef::as_ref) {
                match self.permit_at_once(chunk.len()) {
                    Some(_) if chunk.is_empty() => {}
                    Some(permit) => group.push(Body::with_permit(chunk.to_vec(), permit)),
                    None => break,
                }
                at += 1;
            }
            if !group.is_empty() {
                self.port.chunks(group);
            } else if let Some(chunk) = chunks.get(at) {
                self.send(chunk.as_ref()).await?;
                at += 1;
            }
        }
        Ok(())
    }

    /// As [`Self::send`], without a copy of its own, for a thread that may block. That its reader was waited for for too long
    /// shows here.
    pub(crate) fn blocking_send(&mut self, chunk: Vec<u8>, patience: &mut CallerPatience) -> io::Result<()> {
        let (waker, began) = (Waker::from(Arc::new(Unparks(thread::current()))), Instant::now());
        let mut permit = pin!(self.permit(chunk.len()));
        let permit = loop {
            if let Poll::Ready(permit) = permit.as_mut().poll(&mut Context::from_waker(&waker)) {
                break permit.map_err(|error| io::Error::new(ErrorKind::BrokenPipe, error))?;
            }
            let Some(left) = patience.left(began.elapsed()) else {
                return Err(patience.is_over("too little of the reply was read"));
            };
            thread::park_timeout(left);
        };
        patience.waited(began.elapsed(), chunk.len());
        self.port.chunk(Body::with_permit(chunk, permit));
        Ok(())
    }

    /// What a chunk of this size counts for while it waits.
    fn cost(size: usize) -> usize {
        size.clamp(Self::LEAST, Self::AHEAD)
    }

    /// A permit for a chunk of this size that may wait for the ring now. `None`: it may not, or is none.
    fn permit_at_once(&self, size: usize) -> Option<OwnedSemaphorePermit> {
        let may_be = size <= self.port.max_chunk;
        let cost = may_be.then(|| Self::cost(size) as u32)?;
        Arc::clone(&self.permits).try_acquire_many_owned(cost).ok()
    }

    /// Waits until a chunk of this size may wait for the ring.
    async fn permit(&self, size: usize) -> Result<OwnedSemaphorePermit, SendError> {
        let limit = self.port.max_chunk;
        if size > limit {
            return Err(SendError::ChunkTooLarge { size, limit });
        }
        let cost = Self::cost(size);
        match Arc::clone(&self.permits).try_acquire_many_owned(cost as u32) {
            Ok(permit) => return Ok(permit),
            Err(TryAcquireError::Closed) => return Err(SendError::Closed),
            Err(TryAcquireError::NoPermits) => {}
        }
        // Until half of what waits has gone: a handler that is woken for each chunk costs more than the chunk.
        let awaited = cost.max(Self::AHEAD / 2);
        let permit = Arc::clone(&self.permits).acquire_many_owned(awaited as u32).await;
        let mut permit = permit.map_err(|_| SendError::Closed)?;
        drop(permit.split(awaited - cost));
        Ok(permit)
    }
}

/// Where a handler receives the chunks of a stream from its caller.
///
/// The caller may be ahead by its credit, `stream_window` bytes and one chunk; taking chunks here gives credit back.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// let server = bellrope::Server::builder()
///     .client_stream("join", |_, mut chunks| async move {
///         let mut whole = Vec::new();
///         while let Some(chunk) = chunks.next().await {
///             whole.extend(chunk);
///         }
///         Ok(whole)
///     })
///     .bind(&path)?;
/// # let client = bellrope::Client::connect(&path)?;
/// # assert_eq!(client.client_stream("join", b"")?.finish()?, b"");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ChunkReceiver {
    pub(crate) port: Port,
    pub(crate) chunks: mpsc::UnboundedReceiver<FromCaller>,
    /// Whether the caller has ended the stream.
    ended: bool,
    /// Sizes of the chunks taken that the caller has not been told of.
    taken: Vec<usize>,
}

/// What comes in for a handler. That nothing more can come is no end: the caller may be gone.
#[derive(Debug)]
pub(crate) enum FromCaller {
    Chunk(Vec<u8>),
    End,
}

/// The call ended before its request was whole: the caller cancelled, went away or let its deadline pass, or the handler has
/// answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the call is over: its request ends here, and is not whole")]
#[non_exhaustive]
pub struct CallerGone;

impl ChunkReceiver {
    /// Chunks taken before the caller is told, so that a message to the worker is worth its cost.
    const TOLD_AT_ONCE: usize = 32;

    pub(crate) fn new(port: Port, chunks: mpsc::UnboundedReceiver<FromCaller>) -> Self {
        Self { port, chunks, ended: false, taken: Vec::new() }
    }

    /// The next chunk. `None` when the caller has ended the stream, so that all of it is there. When it cancels or goes
    /// away instead, the handler is dropped, and until then this waits: a task of your own, which outlives the handler,
    /// asks [`Self::try_next`].
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Self::next`], for a task of your own: it ends with the call.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// let server = bellrope::Server::builder()
    ///     .client_stream("count", |_, mut chunks| async move {
    ///         let task = tokio::spawn(async move {
    ///             let mut bytes = 0;
    ///             while let Some(chunk) = chunks.try_next().await? {
    ///                 bytes += chunk.len();
    ///             }
    ///             Ok::<_, bellrope::server::CallerGone>(bytes)
    ///         });
    ///         // An answer that comes before the end of the request ends the task, too.
    ///         let bytes = task.await.expect("it does not panic");
    ///         let bytes = bytes.map_err(|gone| bellrope::HandlerError::failure(gone.to_string()))?;
    ///         Ok(bytes.to_string().into_bytes())
    ///     })
    ///     .bind(&path)?;
    /// # let client = bellrope::Client::connect(&path)?;
    /// # let mut upload = client.client_stream("count", b"")?;
    /// # upload.send(b"abc")?;
    /// # assert_eq!(upload.finish()?, b"3");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The call ended before its request was whole.
    pub async fn try_next(&mut self) -> Result<Option<Vec<u8>>, CallerGone> {
        std::future::poll_fn(|context| self.poll_or_gone(context)).await
    }

    /// As [`Self::next`], for whatever is polled itself.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        match ready!(self.poll_or_gone(context)) {
            Ok(chunk) => Poll::Ready(chunk),
            // The handler is about to be dropped. To let it go on would show it half a stream as a whole one.
            Err(CallerGone) => Poll::Pending,
        }
    }

    /// As [`Self::poll_next`], for whatever may outlive the handler. That the call is over shows here.
    pub(crate) fn poll_or_gone(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Vec<u8>>, CallerGone>> {
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let received = match self.chunks.try_recv() {
            Ok(received) => Some(received),
            Err(_) => {
                self.tell();
                ready!(self.chunks.poll_recv(context))
            }
        };
        Poll::Ready(self.received(received))
    }

    /// As [`Self::next`], for a thread that may block. That the caller is gone shows here, and that it was waited for for too long.
    pub(crate) fn blocking_next(&mut self, patience: &mut CallerPatience) -> io::Result<Option<Vec<u8>>> {
        let (waker, began) = (Waker::from(Arc::new(Unparks(thread::current()))), Instant::now());
        loop {
            if let Poll::Ready(came) = self.poll_or_gone(&mut Context::from_waker(&waker)) {
                let came = came.map_err(|gone| io::Error::new(ErrorKind::ConnectionAborted, gone))?;
                patience.waited(began.elapsed(), came.as_ref().map_or(0, Vec::len));
                return Ok(came);
            }
            let Some(left) = patience.left(began.elapsed()) else {
                return Err(patience.is_over("too little of the request came"));
            };
            thread::park_timeout(left);
        }
    }

    fn received(&mut self, received: Option<FromCaller>) -> Result<Option<Vec<u8>>, CallerGone> {
        match received {
            Some(FromCaller::Chunk(chunk)) => {
                self.take(&chunk);
                Ok(Some(chunk))
            }
            Some(FromCaller::End) => {
                self.ended = true;
                Ok(None)
            }
            None => Err(CallerGone),
        }
    }

    /// Notes a chunk as taken.
    fn take(&mut self, chunk: &[u8]) {
        self.taken.push(chunk.len());
        if self.taken.len() >= Self::TOLD_AT_ONCE {
            self.tell();
        }
    }

    fn tell(&mut self) {
        if !self.taken.is_empty() {
            self.port.consumed(std::mem::take(&mut self.taken));
        }
    }
}
