//! The async client. A driver task watches the socket of each connection; the ring is armed whenever the lock is free,
//! so nothing that comes in goes unnoticed.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bellrope_proto::{connection::Expect, handshake::Style};
use futures_core::Stream;
use tokio::{io::Interest, net::UnixStream};

use super::{
    ClientConfig,
    link::{Link, Rest},
    shared::{Event, Shared, State, Ticket},
};
use crate::{CallError, ConnectError};

/// Between two tries to find room in a full request ring.
const ROOM_PAUSE: Duration = Duration::from_micros(200);

/// A client for tokio. Clones share one connection, which is made anew when the server comes back.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// # let server = bellrope::Server::builder()
/// #     .server_stream("count", |_, mut chunks| async move {
/// #         for n in 0..3_u8 { chunks.send([n]).await?; }
/// #         Ok(())
/// #     }).bind(&path)?;
/// let client = bellrope::AsyncClient::connect(&path).await?;
/// let mut stream = client.stream("count", b"to three").await?;
/// while let Some(chunk) = stream.next().await {
///     println!("{:?}", chunk?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct AsyncClient {
    shared: Arc<Shared>,
}

impl AsyncClient {
    /// Connects to the server at `path` with default settings.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(path: impl Into<PathBuf>) -> Result<Self, ConnectError> {
        Self::with(ClientConfig::new(path)).await
    }

    /// Connects.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn with(config: ClientConfig) -> Result<Self, ConnectError> {
        let client = Self { shared: Arc::new(Shared::new(config)) };
        client.connect_until(Instant::now()).await?;
        Ok(client)
    }

    /// The message types that the server offers: name and style. Empty while there is no connection.
    #[must_use]
    pub fn message_types(&self) -> Vec<(String, Style)> {
        self.shared.lock().message_types()
    }

    /// Calls a message type by name and waits for the answer, at most as long as the configuration's `call_timeout`.
    /// Dropping the future cancels the call at the server.
    ///
    /// # Errors
    /// [`CallError`] says what happened, and whether it is safe to send the call again.
    pub async fn call(&self, name: &str, payload: &[u8]) -> Result<Vec<u8>, CallError> {
        self.call_within(name, payload, self.shared.config.call_timeout).await
    }

    /// As [`Self::call`], with a deadline of its own.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_within(&self, name: &str, payload: &[u8], timeout: Duration) -> Result<Vec<u8>, CallError> {
        let answer = async {
            let mut pending = self.start(name, Style::Unary, payload, Some(Instant::now() + timeout)).await?;
            match std::future::poll_fn(|context| pending.poll_event(context)).await {
                Event::Response(payload) => Ok(payload),
                Event::Failed(error) => Err(error),
                Event::Chunk(_) | Event::End => unreachable!("the connection checks the style of every answer"),
            }
        };
        tokio::time::timeout(timeout, answer).await.unwrap_or(Err(CallError::DeadlineExceeded))
    }

    /// Calls a message type that is answered with a stream. Dropping the stream cancels it at the server.
    ///
    /// # Errors
    /// [`CallError`] if the call could not be sent. What happens later is told by the stream.
    pub async fn stream(&self, name: &str, payload: &[u8]) -> Result<AsyncStream, CallError> {
        let pending = self.start(name, Style::ServerStream, payload, None);
        let pending = tokio::time::timeout(self.shared.config.call_timeout, pending).await;
        Ok(AsyncStream { pending: pending.unwrap_or(Err(CallError::DeadlineExceeded))? })
    }

    async fn start(
        &self,
        name: &str,
        style: Style,
        payload: &[u8],
        deadline: Option<Instant>,
    ) -> Result<Pending, CallError> {
        let expect = if style == Style::Unary { Expect::Response } else { Expect::Stream };
        loop {
            match self.try_start(name, style, expect, payload, deadline)? {
                Start::Begun(ticket) => {
                    return Ok(Pending { shared: Arc::clone(&self.shared), ticket: Some(ticket) });
                }
                Start::NoRoom => tokio::time::sleep(ROOM_PAUSE).await,
                Start::NoLink => self.connect_until(Instant::now() + self.shared.config.reconnect_timeout).await?,
            }
        }
    }

    fn try_start(
        &self,
        name: &str,
        style: Style,
        expect: Expect,
        payload: &[u8],
        deadline: Option<Instant>,
    ) -> Result<Start, CallError> {
        let mut state = self.shared.lock();
        let Some(link) = &state.link else { return Ok(Start::NoLink) };
        let message_type = link.types.find_styled(name, style)?;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match state.begin(message_type, expect, payload, left) {
            Ok(Some(ticket)) => Ok(Start::Begun(ticket)),
            Ok(None) => {
                settle(&mut state);
                Ok(Start::NoRoom)
            }
            Err(error) => {
                settle(&mut state);
                Err(error)
            }
        }
    }

    /// Connects, and sets a driver to watch the new socket.
    async fn connect_until(&self, deadline: Instant) -> Result<(), ConnectError> {
        let shared = Arc::clone(&self.shared);
        let connecting = tokio::task::spawn_blocking(move || shared.connect_until(deadline));
        let established = connecting.await.expect("connecting does not panic")?;
        let path = &self.shared.config.path;
        let mut state = self.shared.lock();
        if state.link.is_some() {
            return Ok(());
        }
        let link = Link::new(established, &self.shared.config);
        let socket = link.socket().try_clone().and_then(UnixStream::from_std);
        let socket = socket.map_err(|source| ConnectError::Io { path: path.clone(), source })?;
        state.install(link);
        settle(&mut state);
        let generation = state.generation;
        drop(state);
        tokio::spawn(drive(Arc::downgrade(&self.shared), socket, generation));
        Ok(())
    }
}

enum Start {
    Begun(Ticket),
    NoRoom,
    NoLink,
}

/// Takes what came and leaves the ring armed, so that the driver hears of what comes next.
fn settle(state: &mut State) {
    loop {
        state.pump();
        match state.arm(false) {
            Ok(Rest::Look | Rest::Check) if state.link.is_some() => {}
            Ok(_) => return,
            // The violation is noted in the link: this pump ends every call.
            Err(_) => return state.pump(),
        }
    }
}

/// Watches the socket of one connection until that is lost or nobody needs it any more.
async fn drive(shared: Weak<Shared>, socket: UnixStream, generation: u64) {
    while socket.readable().await.is_ok() {
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.lock();
        if state.generation != generation {
            return;
        }
        let Some(link) = &mut state.link else { return };
        // Having taken all rings, we report the socket as empty, so that the reactor waits for the next.
        let heard = socket.try_io(Interest::READABLE, || match link.woke(Duration::ZERO) {
            Ok(()) => Err(std::io::ErrorKind::WouldBlock.into()),
            Err(error) => Ok(error),
        });
        if let Ok(error) = heard {
            tracing::debug!(%error, "the connection is lost");
        }
        settle(&mut state);
        if state.link.is_none() {
            return;
        }
    }
}

/// A call under way. Dropping it cancels the call.
#[derive(Debug)]
struct Pending {
    shared: Arc<Shared>,
    /// `None` once the call has ended.
    ticket: Option<Ticket>,
}

impl Pending {
    fn poll_event(&mut self, context: &Context<'_>) -> Poll<Event> {
        let Some(ticket) = self.ticket else { return Poll::Ready(Event::End) };
        let mut state = self.shared.lock();
        let mut event = state.take_event(ticket);
        if event.is_none() {
            settle(&mut state);
            event = state.take_event(ticket);
        }
        match event {
            Some(event) => {
                if !matches!(event, Event::Chunk(_)) {
                    self.ticket = None;
                }
                Poll::Ready(event)
            }
            None => {
                state.wait_for(ticket, context.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.lock().abandon(ticket);
        }
    }
}

/// The chunks of a stream, as they come. Ends after the last one, or after one error.
///
/// Dropping it before its end cancels the stream at the server.
#[derive(Debug)]
pub struct AsyncStream {
    pending: Pending,
}

impl AsyncStream {
    /// The next chunk. `None` after the last one, or after an error.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, CallError>> {
        std::future::poll_fn(|context| self.poll_chunk(context)).await
    }

    fn poll_chunk(&mut self, context: &Context<'_>) -> Poll<Option<Result<Vec<u8>, CallError>>> {
        self.pending.poll_event(context).map(|event| match event {
            Event::Chunk(chunk) => Some(Ok(chunk)),
            Event::Failed(error) => Some(Err(error)),
            Event::End | Event::Response(_) => None,
        })
    }
}

impl Stream for AsyncStream {
    type Item = Result<Vec<u8>, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_chunk(context)
    }
}
