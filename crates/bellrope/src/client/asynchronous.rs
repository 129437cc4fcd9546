//! The async client.

mod driver;
mod streams;

use std::{
    future::poll_fn,
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bellrope_proto::{connection::Sending, handshake::Style};
use driver::{settle, watch_link};
use streams::Pending;
pub use streams::{AsyncChunkSink, AsyncStream, AsyncUpload};
use tokio::{runtime::Handle, sync::watch, time::timeout_at};

use super::{
    config::{ClientConfig, ConnectionState},
    link::left,
    mailboxes::Ticket,
    options::{CallOptions, Retry},
    shared::{Begun, SharedClient, State, settle_permit},
    types::MessageType,
};
use crate::error::{CallError, ConnectError};

/// A client for tokio. Clones share one connection, which is made anew, by itself, when the server was away and comes
/// back.
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
    shared: Arc<SharedClient>,
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
        let path = config.path.clone();
        let shared = SharedClient::new(config).map_err(|source| ConnectError::Io { path, source })?;
        let runtime = Handle::current();
        shared.lock().on_link =
            Some(Box::new(move |shared, socket, generation| watch_link(&runtime, shared, socket, generation)));
        let client = Self { shared };
        client.connect_once().await?;
        Ok(client)
    }

    /// The message types that the server offers: name and style. Empty while there is no connection.
    #[must_use]
    pub fn message_types(&self) -> Vec<(String, Style)> {
        self.shared.lock().message_types()
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        self.shared.lock().connection_state()
    }

    /// Tells of every change of the connection. Of several changes in a row only the last may be seen.
    #[must_use]
    pub fn state_changes(&self) -> watch::Receiver<ConnectionState> {
        self.shared.watch.subscribe()
    }

    /// Closes the connection for all clones. Calls under way, and all later ones, end as [`CallError::Closed`].
    pub fn close(&self) {
        self.shared.close();
    }

    /// Calls a message type by name and waits for the answer, at most as long as the configuration's `call_timeout`.
    /// Dropping the future cancels the call at the server.
    ///
    /// # Errors
    /// [`CallError`] says what happened, and whether it is safe to send the call again.
    pub async fn call(&self, name: &str, payload: &[u8]) -> Result<Vec<u8>, CallError> {
        self.call_with(name, payload, &CallOptions::new()).await
    }

    /// As [`Self::call`], but the answer replaces what is in `reply`, whose memory is used for the answer of a later
    /// call: then calls of up to 64 KiB allocate nothing. What is in `reply` after an error means nothing.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_into(&self, name: &str, payload: &[u8], reply: &mut Vec<u8>) -> Result<(), CallError> {
        let used = std::mem::replace(reply, self.call(name, payload).await?);
        self.shared.lock().free_list.keep_reply(used);
        Ok(())
    }

    /// As [`Self::call`], with a deadline of its own.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_within(&self, name: &str, payload: &[u8], timeout: Duration) -> Result<Vec<u8>, CallError> {
        self.call_with(name, payload, &CallOptions::new().timeout(timeout)).await
    }

    /// As [`Self::call`], with options.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_with(&self, name: &str, payload: &[u8], options: &CallOptions) -> Result<Vec<u8>, CallError> {
        let permit = self.shared.admit()?;
        let deadline = Instant::now() + options.timeout.unwrap_or(self.shared.config.call_timeout);
        let answer = async {
            loop {
                let mut pending = self.start(name, Style::Unary, payload, Some(deadline), options).await?;
                match pending.response().await {
                    Err(CallError::NotExecuted) if options.retry != Retry::Never => {}
                    Err(CallError::Unknown) if options.retry == Retry::Idempotent => {}
                    other => return other,
                }
            }
        };
        let outcome = timeout_at(deadline.into(), answer).await.unwrap_or(Err(CallError::DeadlineExceeded));
        settle_permit(permit, &outcome);
        outcome
    }

    /// Calls a message type that is answered with a stream. Dropping the stream cancels it at the server.
    ///
    /// # Errors
    /// [`CallError`] if the call could not be sent. What happens later is told by the stream.
    pub async fn stream(&self, name: &str, payload: &[u8]) -> Result<AsyncStream, CallError> {
        self.stream_with(name, payload, &CallOptions::new()).await
    }

    /// As [`Self::stream`], with options. A time-out is for the whole stream, and kept by the server.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub async fn stream_with(
        &self,
        name: &str,
        payload: &[u8],
        options: &CallOptions,
    ) -> Result<AsyncStream, CallError> {
        Ok(AsyncStream { pending: self.begin(name, Style::ServerStream, payload, options).await? })
    }

    /// Calls a message type that takes a stream of chunks and answers once.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub async fn client_stream(&self, name: &str, payload: &[u8]) -> Result<AsyncUpload, CallError> {
        let pending = self.begin(name, Style::ClientStream, payload, &CallOptions::new()).await?;
        Ok(AsyncUpload { sink: pending.sink(), pending })
    }

    /// Calls a message type that has streams both ways: what is returned first sends, what is returned second receives.
    /// Dropping the receiving half cancels the call at the server.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub async fn duplex(&self, name: &str, payload: &[u8]) -> Result<(AsyncChunkSink, AsyncStream), CallError> {
        let pending = self.begin(name, Style::Duplex, payload, &CallOptions::new()).await?;
        Ok((pending.sink(), AsyncStream { pending }))
    }

    /// Sends a call whose answer may take any time, but which is to be on its way within the configuration's
    /// `call_timeout`.
    async fn begin(
        &self,
        name: &str,
        style: Style,
        payload: &[u8],
        options: &CallOptions,
    ) -> Result<Pending, CallError> {
        let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
        let sent_by = deadline.unwrap_or_else(|| Instant::now() + self.shared.config.call_timeout);
        let start = self.start(name, style, payload, deadline, options);
        timeout_at(sent_by.into(), start).await.unwrap_or(Err(CallError::DeadlineExceeded))
    }

    async fn start(
        &self,
        name: &str,
        style: Style,
        payload: &[u8],
        deadline: Option<Instant>,
        options: &CallOptions,
    ) -> Result<Pending, CallError> {
        loop {
            if options.is_cancelled() {
                return Err(CallError::Cancelled);
            }
            self.await_link().await?;
            let begun = poll_fn(|context| self.poll_begin(context, name, style, payload, deadline)).await?;
            let Some((ticket, parts)) = begun else { continue };
            let registration = options.cancel.as_ref().map(|token| token.register(&self.shared, ticket));
            let pending = Pending::new(&self.shared, ticket, registration);
            if let Some((message_type, mut sending)) = parts {
                poll_fn(|context| {
                    self.poll_room(context, |state| {
                        state.push(ticket, &mut sending, message_type, payload, left(deadline))
                    })
                })
                .await?;
            }
            return Ok(pending);
        }
    }

    /// Sends a call as soon as there is room. `None`: the link is lost.
    #[expect(clippy::type_complexity, reason = "a call, and what is left to send of it")]
    fn poll_begin(
        &self,
        context: &Context<'_>,
        name: &str,
        style: Style,
        payload: &[u8],
        deadline: Option<Instant>,
    ) -> Poll<Result<Option<(Ticket, Option<(MessageType, Sending)>)>, CallError>> {
        let mut begun = None;
        let polled = self.poll_room(context, |state| {
            let Some(link) = &state.link else { return Ok(true) };
            let message_type = link.types.find_styled(name, style)?;
            begun = match state.begin(message_type, payload, left(deadline))? {
                Begun::NoRoom => return Ok(false),
                Begun::Whole(ticket) => Some((ticket, None)),
                Begun::Partly(ticket, sending) => Some((ticket, Some((message_type, sending)))),
            };
            Ok(true)
        });
        polled.map_ok(|()| begun)
    }

    /// Tries something that needs room in the request ring, until it succeeds.
    fn poll_room(
        &self,
        context: &Context<'_>,
        mut attempt: impl FnMut(&mut State) -> Result<bool, CallError>,
    ) -> Poll<Result<(), CallError>> {
        let mut state = self.shared.lock();
        match attempt(&mut state) {
            Ok(true) => return Poll::Ready(Ok(())),
            Ok(false) => state.room_waiters.push(context.waker().clone()),
            Err(error) => {
                settle(&self.shared, &mut state);
                return Poll::Ready(Err(error));
            }
        }
        settle(&self.shared, &mut state);
        Poll::Pending
    }

    /// Waits for the reconnector to find the server again.
    async fn await_link(&self) -> Result<(), CallError> {
        let found = poll_fn(|context| {
            let mut state = self.shared.lock();
            match state.connection_state() {
                ConnectionState::Connected => Poll::Ready(Ok(())),
                ConnectionState::Closed => Poll::Ready(Err(CallError::Closed)),
                ConnectionState::Reconnecting => {
                    state.link_waiters.push(context.waker().clone());
                    Poll::Pending
                }
            }
        });
        match tokio::time::timeout(self.shared.config.reconnect_timeout, found).await {
            Ok(found) => found,
            // Either this succeeds after all, or its error says why not.
            Err(_) => Ok(self.connect_once().await?),
        }
    }

    async fn connect_once(&self) -> Result<(), ConnectError> {
        let shared = Arc::clone(&self.shared);
        let connecting = tokio::task::spawn_blocking(move || shared.connect());
        connecting.await.expect("connecting does not panic")
    }
}
