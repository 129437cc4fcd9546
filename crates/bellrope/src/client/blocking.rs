//! The blocking client.

mod caller;
pub(super) mod parts;
mod streams;

use std::{path::PathBuf, sync::Arc, time::Duration};

#[cfg(feature = "service")]
use bellrope_proto::handshake::SchemaMark;
use bellrope_proto::handshake::Style;
use caller::Caller;
pub use streams::{ChunkSink, ChunkStream, Upload};

use super::{
    config::{ClientConfig, ConnectionState, Transport},
    options::{Again, CallOptions, SENT_ONCE},
    spawn::{Spawn, SpawnError},
    types::{MessageType, Target},
};
use crate::error::{CallError, ConnectError};

/// A client for any number of threads. Clones share one connection, which is made anew, by itself, when the server was
/// away and comes back.
///
/// Each form of call takes a name, or a [`MessageType`] that was looked up before, and has a `_with` form that takes
/// [`CallOptions`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// # let server = bellrope::Server::builder()
/// #     .unary("shout", |call, reply| { reply.put(&call.payload().to_ascii_uppercase()); Ok(()) })
/// #     .server_stream("spell", |call, mut chunks| async move {
/// #         for byte in call.payload() { chunks.send([*byte]).await?; }
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
/// use bellrope::{CallError, Client};
///
/// let client = Client::with(ClientConfig::new(&path))?; // or Client::connect(&path)
/// assert_eq!((client.state(), client.transport()), (ConnectionState::Connected, Some(Transport::Shm)));
/// assert!(client.message_types().contains(&("spell".to_owned(), Style::ServerStream)));
///
/// // One answer.
/// assert_eq!(client.call("shout", b"ding")?, b"DING");
/// assert_eq!(client.call_within("shout", b"ding", Duration::from_secs(5))?, b"DING");
/// let options = CallOptions::new().timeout(Duration::from_secs(5)).retry(Retry::NotExecuted);
/// let shout = client.message_type("shout")?;
/// assert_eq!(client.call_with(shout, b"ding", &options)?, b"DING");
/// let mut reply = Vec::new();
/// client.call_into(shout, b"ding", &mut reply)?;
/// client.call_into_with(shout, b"dong", &mut reply, &options)?;
/// assert_eq!(reply, b"DONG");
///
/// // Chunks from the server.
/// let letters: Vec<_> = client.stream("spell", b"ding")?.collect::<Result<_, _>>()?;
/// assert_eq!(letters.concat(), b"ding");
/// let mut letters = client.stream_with("spell", b"ding", &options)?;
/// assert_eq!(letters.next().unwrap()?, b"d");
/// drop(letters); // cancels it at the server
///
/// // Chunks from the client, then one answer.
/// let mut upload = client.client_stream("join", b"ding ")?;
/// assert!(upload.send(b"dong ")?);
/// assert_eq!(upload.finish()?, b"ding dong ");
/// let soon = CallOptions::new().timeout(Duration::from_secs(5));
/// assert_eq!(client.client_stream_with("join", b"ding", &soon)?.finish()?, b"ding");
///
/// // Both ways.
/// let (mut sink, mut stream) = client.duplex("double", b"")?;
/// sink.send(b"ding")?;
/// assert_eq!(stream.next().unwrap()?, b"dingding");
/// let (sink, mut stream) = client.duplex_with("double", b"", &soon)?;
/// sink.finish();
/// assert!(stream.next().is_none());
///
/// client.on_state_change(|state| println!("{state:?}"));
/// client.close();
/// assert!(matches!(client.call("shout", b""), Err(CallError::Closed)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    caller: Caller,
}

impl Client {
    /// Connects to the server at `path` with default settings. [Example](Self).
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(path: impl Into<PathBuf>) -> Result<Self, ConnectError> {
        Self::with(ClientConfig::new(path))
    }

    /// Connects. [Example](Self).
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn with(config: ClientConfig) -> Result<Self, ConnectError> {
        Ok(Self { caller: Caller::connect(config)? })
    }

    /// Connects, or starts the server first if there is none. Of any number of clients that do so at the same time one starts
    /// it, and all of them connect to it. A server that refuses the connection, or speaks another version, is left alone.
    ///
    /// [`Spawn`] says what a server has of its starter. The client is one like others: where its server ends later it waits
    /// for the next one, and starts none by itself.
    ///
    /// ```no_run
    /// use bellrope::Client;
    /// use bellrope::client::{ClientConfig, Spawn};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let path = bellrope::default_socket_path();
    /// let spawn = Spawn::program("bellrope").args(["serve", "--exit-when-idle", "10m", "--socket"]).arg(&path);
    /// let client = Client::connect_or_spawn(ClientConfig::new(&path), &spawn)?;
    /// println!("{}", String::from_utf8(client.call("echo", b"ding")?)?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SpawnError`] says how the program ended, and its last line.
    pub fn connect_or_spawn(config: ClientConfig, spawn: &Spawn) -> Result<Self, SpawnError> {
        Ok(Self { caller: Caller::connect_or_spawn(config, spawn)? })
    }

    /// The message types that the server offers: name and style. Empty while there is no connection. [Example](Self).
    #[must_use]
    pub fn message_types(&self) -> Vec<(String, Style)> {
        let shared = self.caller.shared();
        let mut state = shared.lock();
        shared.catch_up(&mut state);
        state.message_types()
    }

    /// Whether there is a connection now. [Example](Self).
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        self.caller.shared().lock().connection_state()
    }

    /// What carries its calls now: [`Transport::Shm`] or [`Transport::Stream`]. `None` while there is no connection.
    /// [Example](Self).
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        self.caller.shared().lock().transport()
    }

    /// Has `watcher` called whenever the connection is lost, made anew or closed. It runs on a thread that all clients of
    /// the process share, so it must not block. [Example](Self).
    pub fn on_state_change(&self, watcher: impl Fn(ConnectionState) + Send + Sync + 'static) {
        self.caller.shared().on_change(Arc::new(watcher));
    }

    /// Closes the connection for all clones. Calls under way, and all later ones, end as [`CallError::Closed`]. [Example](Self).
    pub fn close(&self) {
        self.caller.shared().close();
    }

    /// Looks a message type up by name, of whatever style, for calls that need not look at names. If there is no connection,
    /// waits for one as a call does. [Example](Self).
    ///
    /// # Errors
    /// [`CallError::UnknownMessageType`] with the nearest known names; an error of the connection.
    pub fn message_type(&self, name: &str) -> Result<MessageType, CallError> {
        self.caller.message_type(name)
    }

    /// The number of the codec that the payloads of a message type travel with, as the server says:
    /// [`Codec::NUMBER`](crate::service::Codec::NUMBER). `None` if it is of no service, so that they are bytes.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("counter.sock");
    /// use bellrope::service::{Codec, Postcard};
    ///
    /// #[bellrope::service(codec = "postcard")]
    /// trait Counter {
    ///     fn next(&self) -> u64;
    /// }
    /// # struct Host;
    /// # #[bellrope::service]
    /// # impl Counter for Host {
    /// #     fn next(&self) -> u64 {
    /// #         1
    /// #     }
    /// # }
    /// # let _server = bellrope::Server::builder().service(Host).unary("raw", |_, _| Ok(())).bind(&path)?;
    /// let client = bellrope::Client::connect(&path)?;
    /// assert_eq!(client.codec("Counter.next")?, Some(Postcard::NUMBER));
    /// assert_eq!(client.codec("raw")?, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CallError::UnknownMessageType`] with the nearest known names; an error of the connection.
    #[cfg(feature = "service")]
    pub fn codec(&self, name: &str) -> Result<Option<u8>, CallError> {
        self.marked_type(name).map(|(_, mark)| Some(mark.codec).filter(|codec| *codec != 0))
    }

    /// As [`Self::message_type`], with what its payloads are.
    #[cfg(feature = "service")]
    pub(crate) fn marked_type(&self, name: &str) -> Result<(MessageType, SchemaMark), CallError> {
        self.caller.in_table(|types| types.find_marked(name))
    }

    /// Calls a message type and waits for the answer, at most as long as the configuration's `call_timeout`.
    /// [Example](Self).
    ///
    /// # Errors
    /// [`CallError`] says what happened, and whether it is safe to send the call again.
    pub fn call<'a>(&self, message_type: impl Into<Target<'a>>, payload: &[u8]) -> Result<Vec<u8>, CallError> {
        self.call_with(message_type, payload, &CallOptions::new())
    }

    /// As [`Self::call`], with options. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_with<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        options: &CallOptions,
    ) -> Result<Vec<u8>, CallError> {
        self.caller.call(message_type.into(), payload, options)
    }

    /// As [`Self::call`], with a deadline of its own. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_within<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        self.call_with(message_type, payload, &CallOptions::new().timeout(timeout))
    }

    /// As [`Self::call`], but the answer replaces what is in `reply`, whose memory is used for the answer of a later
    /// call: then calls of up to 64 KiB allocate nothing. What is in `reply` after an error means nothing.
    /// [Example](Self).
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_into<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<(), CallError> {
        self.call_into_with(message_type, payload, reply, &CallOptions::new())
    }

    /// As [`Self::call_into`], with options. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_into_with<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        reply: &mut Vec<u8>,
        options: &CallOptions,
    ) -> Result<(), CallError> {
        let used = std::mem::replace(reply, self.call_with(message_type, payload, options)?);
        self.caller.shared().lock().free_list.keep_reply(used);
        Ok(())
    }

    /// Calls a message type that is answered with a stream. Dropping the stream cancels it at the server.
    /// [Example](Self).
    ///
    /// # Errors
    /// [`CallError`] if the call could not be sent. What happens later is told by the stream.
    pub fn stream<'a>(&self, message_type: impl Into<Target<'a>>, payload: &[u8]) -> Result<ChunkStream, CallError> {
        self.stream_with(message_type, payload, &CallOptions::new())
    }

    /// As [`Self::stream`], with options. A time-out is for the whole stream. With a [retry](CallOptions::retry), a stream
    /// whose server is lost before its first chunk begins anew with the next server, within its time-out, or without one
    /// within the configuration's `call_timeout`. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub fn stream_with<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        options: &CallOptions,
    ) -> Result<ChunkStream, CallError> {
        let (target, deadline) = (message_type.into(), options.deadline());
        let again = Again::allowed(target, payload, options, deadline, self.caller.shared().config.call_timeout);
        let ticket = self.caller.start(target, Style::ServerStream, payload, deadline, options)?;
        let registration = self.caller.register(ticket, options);
        Ok(ChunkStream::new(self.caller.clone(), ticket, deadline, registration, again))
    }

    /// Calls a message type that takes a stream of chunks and answers once. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub fn client_stream<'a>(&self, message_type: impl Into<Target<'a>>, payload: &[u8]) -> Result<Upload, CallError> {
        self.client_stream_with(message_type, payload, &CallOptions::new())
    }

    /// As [`Self::client_stream`], with options. A time-out is for the whole call, until its answer. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::stream`]; [`CallError::UnusableOption`] for a retry.
    pub fn client_stream_with<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        options: &CallOptions,
    ) -> Result<Upload, CallError> {
        options.without_retry("client_stream", SENT_ONCE)?;
        let deadline = options.deadline();
        let ticket = self.caller.start(message_type.into(), Style::ClientStream, payload, deadline, options)?;
        let registration = self.caller.register(ticket, options);
        Ok(Upload::new(ChunkSink::new(self.caller.clone(), ticket, deadline), registration))
    }

    /// Calls a message type that has streams both ways: what is returned first sends, what is returned second receives.
    /// Each may go to a thread of its own. Dropping the receiving half cancels the call at the server. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub fn duplex<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
    ) -> Result<(ChunkSink, ChunkStream), CallError> {
        self.duplex_with(message_type, payload, &CallOptions::new())
    }

    /// As [`Self::duplex`], with options. A time-out is for the whole call, a token ends both halves. [Example](Self).
    ///
    /// # Errors
    /// As [`Self::stream`]; [`CallError::UnusableOption`] for a retry.
    pub fn duplex_with<'a>(
        &self,
        message_type: impl Into<Target<'a>>,
        payload: &[u8],
        options: &CallOptions,
    ) -> Result<(ChunkSink, ChunkStream), CallError> {
        options.without_retry("duplex", SENT_ONCE)?;
        let deadline = options.deadline();
        let ticket = self.caller.start(message_type.into(), Style::Duplex, payload, deadline, options)?;
        let registration = self.caller.register(ticket, options);
        let sink = ChunkSink::new(self.caller.clone(), ticket, deadline);
        Ok((sink, ChunkStream::new(self.caller.clone(), ticket, deadline, registration, None)))
    }
}
