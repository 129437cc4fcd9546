//! The async client.

mod apart;
mod driver;
mod pending;
mod place;
mod restart;
mod sending;
mod streams;
mod table;

use std::{path::PathBuf, sync::Arc, time::Duration};

use apart::apart;
use bellrope_proto::handshake::Style;
use driver::{settle, watch_link};
use restart::Restart;

pub use streams::{AsyncAnswer, AsyncChunkSink, AsyncStream, AsyncUpload};
use tokio::{runtime::Handle, sync::watch, time::timeout_at};

use super::{
    config::{ClientConfig, ConnectionState, Transport},
    deadline::from_now,
    leave::settle_permit,
    options::{Again, CallOptions, SENT_ONCE},
    shared::SharedClient,
    spawn::{Spawn, SpawnError},
    types::{MessageType, Target},
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
/// #     .unary("shout", |call, reply| { reply.put(&call.payload().to_ascii_uppercase()); Ok(()) })
/// #     .server_stream("count", |_, mut chunks| async move {
/// #         for n in 0..3_u8 { chunks.send([n]).await?; }
/// #         Ok(())
/// #     })
/// #     .client_stream("join", |call, mut chunks| async move {
/// #         let mut joined = call.payload().to_vec();
/// #         while let Some(chunk) = chunks.next().await { joined.extend_from_slice(&chunk); }
/// #         Ok(joined)
/// #     })
/// #     .duplex("double", |_, mut incoming, mut outgoing| async move {
/// #         while let Some(chunk) = incoming.next().await { outgoing.send([&chunk[..], &chunk[..]].concat()).await?; }
/// #         Ok(())
/// #     })
/// #     .bind(&path)?;
/// use std::time::Duration;
/// use bellrope::client::{CallOptions, ClientConfig, ConnectionState, Retry, Style, Transport};
/// use bellrope::{AsyncClient, CallError};
///
/// let client = AsyncClient::with(ClientConfig::new(&path)).await?; // or AsyncClient::connect(&path)
/// assert_eq!((client.state(), client.transport()), (ConnectionState::Connected, Some(Transport::Shm)));
/// assert_eq!(*client.state_changes().borrow(), ConnectionState::Connected);
/// assert!(client.message_types().contains(&("count".to_owned(), Style::ServerStream)));
///
/// // One answer.
/// assert_eq!(client.call("shout", b"ding").await?, b"DING");
/// assert_eq!(client.call_within("shout", b"ding", Duration::from_secs(5)).await?, b"DING");
/// let options = CallOptions::new().timeout(Duration::from_secs(5)).retry(Retry::NotExecuted);
/// let shout = client.message_type("shout").await?;
/// assert_eq!(client.call_with(shout, b"ding", &options).await?, b"DING");
/// let mut reply = Vec::new();
/// client.call_into(shout, b"ding", &mut reply).await?;
/// client.call_into_with(shout, b"dong", &mut reply, &options).await?;
/// assert_eq!(reply, b"DONG");
///
/// // Chunks from the server. The stream is also a `futures_core::Stream`.
/// let mut stream = client.stream("count", b"").await?;
/// let mut counted = Vec::new();
/// while let Some(chunk) = stream.next().await {
///     counted.extend(chunk?);
/// }
/// assert_eq!(counted, [0, 1, 2]);
/// let mut stream = client.stream_with("count", b"", &options).await?;
/// assert_eq!(stream.next().await.unwrap()?, [0]);
/// drop(stream); // cancels it at the server
///
/// // Chunks from the client, then one answer.
/// let mut upload = client.client_stream("join", b"ding ").await?;
/// assert!(upload.send(b"dong ").await?);
/// assert_eq!(upload.finish().await?, b"ding dong ");
/// let soon = CallOptions::new().timeout(Duration::from_secs(5));
/// let upload = client.client_stream_with("join", b"ding", &soon).await?;
/// assert_eq!(upload.finish_with(&soon).await?, b"ding");
///
/// // Both ways.
/// let (mut sink, mut stream) = client.duplex("double", b"").await?;
/// assert!(sink.send(b"ding").await?);
/// assert_eq!(stream.next().await.unwrap()?, b"dingding");
/// let (sink, mut stream) = client.duplex_with("double", b"", &soon).await?;
/// sink.finish();
/// assert!(stream.next().await.is_none());
///
/// client.close();
/// assert!(matches!(client.call("shout", b"").await, Err(CallError::Closed)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct AsyncClient {
    shared: Arc<SharedClient>,
}

impl AsyncClient {
    /// Connects to the server at `path` with default settings. [Example](Self).
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(path: impl Into<PathBuf>) -> Result<Self, ConnectError> {
        Self::with(ClientConfig::new(path)).await
    }

    /// Connects. [Example](Self).
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn with(config: ClientConfig) -> Result<Self, ConnectError> {
        let client = Self::unconnected(config)?;
        client.connect_once().await?;
        Ok(client)
    }

    /// Connects, or starts the server if there is none: [`Client::connect_or_spawn`](crate::Client::connect_or_spawn).
    /// Dropping the future ends neither that server nor the search for it. [Example](crate::Client::connect_or_spawn).
    ///
    /// # Errors
    /// [`SpawnError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn connect_or_spawn(config: ClientConfig, spawn: &Spawn) -> Result<Self, SpawnError> {
        let client = Self::unconnected(config).map_err(SpawnError::Connect)?;
        let (shared, spawn) = (Arc::clone(&client.shared), spawn.clone());
        let connected = apart(move || shared.connect_or_spawn(&spawn)).await;
        let no_thread =
            |source| SpawnError::Connect(ConnectError::Io { path: client.shared.config.path.clone(), source });
        connected.map_err(no_thread)??;
        Ok(client)
    }

    fn unconnected(config: ClientConfig) -> Result<Self, ConnectError> {
        let shared = SharedClient::checked(config)?;
        let runtime = Handle::current();
        shared.lock().on_link =
            Some(Box::new(move |shared, socket, generation| watch_link(&runtime, shared, socket, generation)));
        Ok(Self { shared })
    }

    /// The message types that the server offers: name and style. Empty while there is no connection. [Example](Self).
    #[must_use]
    pub fn message_types(&self) -> Vec<(String, Style)> {
        let mut state = self.shared.lock();
        self.shared.catch_up(&mut state);
        settle(&self.shared, &mut state);
        state.message_types()
    }

    /// Whether there is a connection now. [Example](Self).
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        self.shared.lock().connection_state()
    }

    /// What carries its calls now: [`Transport::Shm`] or [`Transport::Stream`]. `None` while there is no connection.
    /// [Example](Self).
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        self.shared.lock().transport()
    }

    /// Tells of every change of the connection. Of several changes in a row only the last may be seen. Hold no `borrow` of it across
    /// calls, `close` or an `.await`: a change waits until it is given back. [Example](Self).
    #[must_use]
    pub fn state_changes(&self) -> watch::Receiver<ConnectionState> {
        self.shared.watch.subscribe()
    }

    /// Closes the connection for all clones. Calls under way, and all later ones, end as [`CallError::Closed`]. [Example](Self).
    pub fn close(&self) {
        self.shared.close();
    }

    /// Looks a message type up by name, of whatever style, for calls that need not look at names. If there is no connection,
    /// waits for one as a call does. [Example](Self).
    ///
    /// # Errors
    /// [`CallError::UnknownMessageType`] with the nearest known names; an error of the connection.
    pub async fn message_type(&self, name: &str) -> Result<MessageType, CallError> {
        loop {
            if let Some(found) = self.look_up(|types| types.find(name)) {
                return found;
            }
            self.await_link().await?;
        }
    }

    /// Calls a message type and waits for the answer, at most as long as the configuration's `call_timeout`. Dropping the
    /// future cancels the call at the server. [Example](Self).
    ///
    /// # Errors
    /// [`CallError`] says what happened, and whether it is safe to send the call again.
    pub async fn call<'a>(&self, message_type: impl Into<Target<'a>>, payload: &[u8]) -> Result<Vec<u8>, CallError> {
        self.call_with(message_type, payload, &CallOptions::new()).await
    }

    /// As [`Self::call`], with options. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_with<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        options: &CallOptions,
    ) -> Result<Vec<u8>, CallError> {
        let target = message_type.into();
        let permit = self.shared.admit()?;
        let deadline = from_now(options.timeout.unwrap_or(self.shared.config.call_timeout));
        let answer = async {
            loop {
                let mut pending = self.start(target, Style::Unary, payload, Some(deadline), options).await?;
                match pending.response().await {
                    Err(error) if options.retry.allows(&error) => {}
                    other => return other,
                }
            }
        };
        let outcome = timeout_at(deadline.into(), answer).await.unwrap_or(Err(CallError::DeadlineExceeded));
        settle_permit(permit, &outcome);
        outcome
    }

    /// As [`Self::call`], with a deadline of its own. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_within<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        self.call_with(message_type, payload, &CallOptions::new().timeout(timeout)).await
    }

    /// As [`Self::call`], but the answer replaces what is in `reply`, whose memory is used for the answer of a later
    /// call: then calls of up to 64 KiB allocate nothing. What is in `reply` after an error means nothing.
    /// [Example](Self).
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_into<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<(), CallError> {
        self.call_into_with(message_type, payload, reply, &CallOptions::new()).await
    }

    /// As [`Self::call_into`], with options. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_into_with<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        reply: &mut Vec<u8>,
        options: &CallOptions,
    ) -> Result<(), CallError> {
        let used = std::mem::replace(reply, self.call_with(message_type, payload, options).await?);
        self.shared.lock().free_list.keep_reply(used);
        Ok(())
    }

    /// Calls a message type that is answered with a stream. Dropping the stream cancels it at the server.
    /// [Example](Self).
    ///
    /// # Errors
    /// [`CallError`] if the call could not be sent. What happens later is told by the stream.
    pub async fn stream<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
    ) -> Result<AsyncStream, CallError> {
        self.stream_with(message_type, payload, &CallOptions::new()).await
    }

    /// As [`Self::stream`], with options. A time-out is for the whole stream. With a [retry](CallOptions::retry), a stream
    /// whose server is lost before its first chunk begins anew with the next server, within its time-out, or without one
    /// within the configuration's `call_timeout`. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub async fn stream_with<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        options: &CallOptions,
    ) -> Result<AsyncStream, CallError> {
        let (target, deadline) = (message_type.into(), options.deadline());
        let again = Again::allowed(target, payload, options, deadline, self.shared.config.call_timeout);
        let pending = self.begin(target, Style::ServerStream, payload, deadline, options).await?;
        let restart = again.map(|again| {
            let client = self.clone();
            Restart::new(again, move |again| {
                let client = client.clone();
                Box::pin(async move {
                    let (target, payload) = (again.target(), again.payload());
                    client.begin(target, Style::ServerStream, payload, again.deadline, &again.options).await
                })
            })
        });
        Ok(AsyncStream::new(pending, deadline, restart))
    }

    /// Calls a message type that takes a stream of chunks and answers once. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub async fn client_stream<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
    ) -> Result<AsyncUpload, CallError> {
        self.client_stream_with(message_type, payload, &CallOptions::new()).await
    }

    /// As [`Self::client_stream`], with options. A time-out is for the whole call, until its answer. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::stream`]; [`CallError::UnusableOption`] for a retry.
    pub async fn client_stream_with<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        options: &CallOptions,
    ) -> Result<AsyncUpload, CallError> {
        options.without_retry("client_stream", SENT_ONCE)?;
        let deadline = options.deadline();
        let pending = self.begin(message_type.into(), Style::ClientStream, payload, deadline, options).await?;
        Ok(AsyncUpload { sink: AsyncChunkSink::of(&pending, deadline), pending })
    }

    /// Calls a message type that has streams both ways: what is returned first sends, what is returned second receives.
    /// Dropping the receiving half cancels the call at the server. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub async fn duplex<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
    ) -> Result<(AsyncChunkSink, AsyncStream), CallError> {
        self.duplex_with(message_type, payload, &CallOptions::new()).await
    }

    /// As [`Self::duplex`], with options. A time-out is for the whole call, a token ends both halves. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::stream`]; [`CallError::UnusableOption`] for a retry.
    pub async fn duplex_with<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        options: &CallOptions,
    ) -> Result<(AsyncChunkSink, AsyncStream), CallError> {
        options.without_retry("duplex", SENT_ONCE)?;
        let deadline = options.deadline();
        let pending = self.begin(message_type.into(), Style::Duplex, payload, deadline, options).await?;
        Ok((AsyncChunkSink::of(&pending, deadline), AsyncStream::new(pending, deadline, None)))
    }
}
