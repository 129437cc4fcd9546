//! What a builder collects: settings, and handlers of every style.

use std::sync::Arc;

use bellrope_proto::metadata::TraceContext;

use super::{
    Call, CallInPlace, Ending, HandlerError, Reply, ServerBuilder, ServerConfig, accept::retirement::OnEnding,
    handler::registry::Handler,
};
#[cfg(feature = "tokio")]
use super::{ChunkReceiver, ChunkSender, OwnedCall};

impl ServerBuilder {
    /// Replaces the settings. [Example](ServerConfig).
    #[must_use]
    pub fn config(mut self, config: ServerConfig) -> Self {
        self.config = config;
        self
    }

    /// Registers a handler that runs on the worker and writes its reply straight into the response ring. It must not
    /// block: everybody on that worker waits for it.
    ///
    /// ```
    /// use std::io::Write as _;
    ///
    /// use bellrope::{Client, Server};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("count.sock");
    /// let server = Server::builder()
    ///     .unary("echo", |call, reply| {
    ///         reply.put(call.payload());
    ///         Ok(())
    ///     })
    ///     .unary("count", |call, reply| Ok(write!(reply, "{} bytes", call.payload().len())?))
    ///     .unary("list", |call, reply| {
    ///         serde_json::to_writer(reply, call.payload()).map_err(std::io::Error::from)?;
    ///         Ok(())
    ///     })
    ///     .bind(&path)?;
    /// let client = Client::connect(&path)?;
    /// assert_eq!(client.call("count", b"ding")?, b"4 bytes");
    /// assert_eq!(client.call("list", &[1, 2])?, b"[1,2]");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn unary<F>(mut self, name: &str, handler: F) -> Self
    where
        F: Fn(&Call<'_>, &mut Reply<'_>) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        self.registry.add(name, Handler::Unary(Box::new(handler)));
        self
    }

    /// Registers a handler that makes its reply out of the request, in the memory in which that came: one that
    /// transforms, filters or returns what it is given. It runs on the worker and must not block, as one of
    /// [`Self::unary`]. A large message is copied once less than by that, and takes half as much of the server's memory.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("shout.sock");
    /// let builder = bellrope::Server::builder().in_place("shout", |call| {
    ///     call.message().make_ascii_uppercase();
    ///     Ok(())
    /// });
    /// # let server = builder.bind(&path)?;
    /// # assert_eq!(bellrope::Client::connect(&path)?.call("shout", b"ding")?, b"DING");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn in_place<F>(mut self, name: &str, handler: F) -> Self
    where
        F: Fn(&mut CallInPlace<'_>) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        self.registry.add(name, Handler::InPlace(Box::new(handler)));
        self
    }

    /// Registers a handler that runs on tokio and answers once. It is dropped when its caller cancels or goes away.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// let server = bellrope::Server::builder()
    ///     .unary_async("later", |call| async move {
    ///         tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    ///         Ok(call.into_payload())
    ///     })
    ///     .bind(&path)?;
    /// # assert_eq!(bellrope::Client::connect(&path)?.call("later", b"ding")?, b"ding");
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn unary_async<F, A>(mut self, name: &str, handler: F) -> Self
    where
        F: Fn(OwnedCall) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Vec<u8>, HandlerError>> + Send + 'static,
    {
        self.registry.add(name, Handler::UnaryAsync(Box::new(move |call| Box::pin(handler(call)))));
        self
    }

    /// Has requests of a message type with an async handler count `weight` times in the buffer budget, 1 to 16, as far as
    /// one call may have as much. For handlers that hold more than the request itself: what they read out of it, what they
    /// send to somebody else for it.
    ///
    /// ```
    /// let server = bellrope::Server::builder()
    ///     .unary_async("reverse", |call| async move { Ok(call.payload().iter().rev().copied().collect()) })
    ///     .weight("reverse", 2);
    /// ```
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn weight(mut self, name: &str, weight: u32) -> Self {
        self.registry.weigh(name, weight);
        self
    }

    /// Registers a handler that runs on tokio and answers with a stream of chunks, at the pace of its reader. It is
    /// dropped when its caller cancels or goes away.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// let server = bellrope::Server::builder()
    ///     .server_stream("spell", |call, mut chunks| async move {
    ///         for letter in call.payload() {
    ///             chunks.send([*letter]).await?;
    ///         }
    ///         Ok(())
    ///     })
    ///     .bind(&path)?;
    /// # assert_eq!(bellrope::Client::connect(&path)?.stream("spell", b"dong")?.count(), 4);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn server_stream<F, A>(mut self, name: &str, handler: F) -> Self
    where
        F: Fn(OwnedCall, ChunkSender) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let handler = move |call, chunks| Box::pin(handler(call, chunks)) as _;
        self.registry.add(name, Handler::ServerStream(Box::new(handler)));
        self
    }

    /// Registers a handler that runs on tokio, takes a stream of chunks from its caller, and answers once. It may answer
    /// before the stream has ended. It is dropped when its caller cancels or goes away.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// let server = bellrope::Server::builder()
    ///     .client_stream("count", |_, mut chunks| async move {
    ///         let mut bytes = 0;
    ///         while let Some(chunk) = chunks.next().await {
    ///             bytes += chunk.len();
    ///         }
    ///         Ok(bytes.to_string().into_bytes())
    ///     })
    ///     .bind(&path)?;
    /// # let client = bellrope::Client::connect(&path)?;
    /// # let mut upload = client.client_stream("count", b"")?;
    /// # upload.send(b"ding")?;
    /// # assert_eq!(upload.finish()?, b"4");
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn client_stream<F, A>(mut self, name: &str, handler: F) -> Self
    where
        F: Fn(OwnedCall, ChunkReceiver) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Vec<u8>, HandlerError>> + Send + 'static,
    {
        let handler = move |call, chunks| Box::pin(handler(call, chunks)) as _;
        self.registry.add(name, Handler::ClientStream(Box::new(handler)));
        self
    }

    /// Registers a handler that runs on tokio and has a stream of chunks each way at once. It is dropped when its caller
    /// cancels or goes away.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// let server = bellrope::Server::builder()
    ///     .duplex("echo", |_, mut incoming, mut outgoing| async move {
    ///         while let Some(chunk) = incoming.next().await {
    ///             outgoing.send(chunk).await?;
    ///         }
    ///         Ok(())
    ///     })
    ///     .bind(&path)?;
    /// # let client = bellrope::Client::connect(&path)?;
    /// # let (mut sink, mut stream) = client.duplex("echo", b"")?;
    /// # sink.send(b"ding")?;
    /// # assert_eq!(stream.next().unwrap()?, b"ding");
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn duplex<F, A>(mut self, name: &str, handler: F) -> Self
    where
        F: Fn(OwnedCall, ChunkReceiver, ChunkSender) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let handler = move |call, incoming, outgoing| Box::pin(handler(call, incoming, outgoing)) as _;
        self.registry.add(name, Handler::Duplex(Box::new(handler)));
        self
    }

    /// Notes what the payloads of a registered type are, for a server that forwards it: the number of the codec, and the hash
    /// of the types, as [`AsyncClient::offers`](crate::AsyncClient::offers) has them. Clients of typed services compare them
    /// with their own.
    ///
    /// ```
    /// let server = bellrope::Server::builder()
    ///     .unary_async("Files.read", |call| async move { Ok(call.into_payload()) })
    ///     .payload_mark("Files.read", 2, 0x1234);
    /// ```
    #[cfg(feature = "service")]
    #[must_use]
    pub fn payload_mark(mut self, name: &str, codec: u8, hash: u64) -> Self {
        self.registry.mark(name, bellrope_proto::handshake::SchemaMark { codec, hash });
        self
    }

    /// Takes out the types whose name `unwanted` answers with `true`, as if they had never been registered: for a server that
    /// leaves them to somebody else. Those that are registered later stay.
    ///
    /// ```
    /// let server = bellrope::Server::builder().in_place("ai.chat", |_| Ok(())).without(|name| name.starts_with("ai."));
    /// ```
    #[must_use]
    pub fn without(mut self, unwanted: impl Fn(&str) -> bool) -> Self {
        #[cfg(feature = "service")]
        if let Some(schemas) = &self.schemas {
            schemas.forget(&unwanted);
        }
        self.registry.remove(unwanted);
        self
    }

    /// As [`without`](Self::without), but what answered these types is kept, for whoever adds others of their names to the
    /// running server: see [`Server::behind`](crate::Server::behind). Types that are answered on the worker stay as they are.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// use bellrope::{AsyncClient, Server};
    ///
    /// let server = Server::builder()
    ///     .unary_async("echo", |call| async move { Ok(call.into_payload()) })
    ///     .behind(|name| name == "echo")
    ///     .room_for_types(1)
    ///     .bind(&path)?;
    /// let echo = server.behind().remove(0);
    /// server.add_types(|types| {
    ///     types.unary_async("echo", move |call| {
    ///         let echo = echo.clone();
    ///         async move {
    ///             let mut answer = echo.answer(call, None, None).await?;
    ///             answer.extend_from_slice(b"!");
    ///             Ok(answer)
    ///         }
    ///     })
    /// })?;
    /// assert_eq!(AsyncClient::connect(&path).await?.call("echo", b"ding").await?, b"ding!");
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn behind(mut self, is_meant: impl Fn(&str) -> bool) -> Self {
        self.registry.put_behind(is_meant);
        self
    }

    /// What [`behind`](Self::behind) has taken out so far, for handlers that stand in front of it from the start.
    ///
    /// ```
    /// let builder = bellrope::Server::builder()
    ///     .unary_async("echo", |call| async move { Ok(call.into_payload()) })
    ///     .behind(|name| name == "echo");
    /// assert_eq!(builder.taken_behind()[0].name(), "echo");
    /// ```
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn taken_behind(&self) -> Vec<super::Behind> {
        self.registry.behind()
    }

    /// Registers the message types by which an operator watches a server and steers its breakers: those that the commands
    /// `top`, `health` and `breaker` ask. See [`status`](crate::status) for what they carry. Whoever may call this server may
    /// call them.
    ///
    /// ```
    /// use bellrope::{
    ///     Client, Server,
    ///     status::{STATS, Status},
    /// };
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// let server = Server::builder().in_place("echo", |_| Ok(())).operator().bind(&path)?;
    ///
    /// let client = Client::connect(&path)?;
    /// client.call("echo", b"ding")?;
    /// let status: Status = serde_json::from_slice(&client.call(STATS, b"")?)?;
    /// assert_eq!((status.health.status.as_str(), status.health.active_connections), ("healthy", 1));
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn operator(mut self) -> Self {
        self.operator.get_or_insert_default().register(&mut self.registry);
        #[cfg(feature = "service")]
        return crate::service::server::describe_operator(self);
        #[cfg(not(feature = "service"))]
        self
    }

    /// Has `adopt` called with the span of each call whose caller says which trace it belongs to
    /// ([`CallOptions::metadata`](crate::client::CallOptions::metadata)), before the span is entered and while somebody listens
    /// at `debug`: for whoever sends spans on, to make it a child of the caller's.
    ///
    /// ```
    /// # let builder = bellrope::Server::builder();
    /// let builder = builder.adopt_trace(|_span, trace| println!("a call of the trace {trace}"));
    /// ```
    #[must_use]
    pub fn adopt_trace(mut self, adopt: fn(&tracing::Span, TraceContext)) -> Self {
        self.adopt_trace = Some(adopt);
        self
    }

    /// Sets what knows the names of tokens that callers show ([`Metadata::token`]): see
    /// [`OwnedCall::token`](super::OwnedCall::token). It is asked on the threads of handlers, and must not wait. Without it no
    /// token has a name.
    ///
    /// [`Metadata::token`]: bellrope_proto::metadata::Metadata::token
    ///
    /// ```
    /// # use bellrope::Server;
    /// let builder = Server::builder().token_names(|shown| (shown == "brt_0123").then(|| "tool".to_owned()));
    /// ```
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn token_names(mut self, name: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        self.token_names = Some(super::handler::owned_call::TokenNames(Arc::new(name)));
        self
    }

    /// Has `tell` called when the server ends by itself: because nobody used it for as long as
    /// [`exit_when_idle`](ServerConfig#structfield.exit_when_idle) says, or because its socket was removed and its last client
    /// has gone. Its threads end then, and [`Server::wait`](super::Server::wait) returns. It is called by one of these threads, so it must not block.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use bellrope::{Server, server::ServerConfig};
    ///
    /// let builder = Server::builder()
    ///     .config(ServerConfig::new().exit_when_idle(Duration::from_secs(600)))
    ///     .on_ending(|ending| eprintln!("the server ends: {ending:?}"));
    /// ```
    #[must_use]
    pub fn on_ending(mut self, tell: impl Fn(Ending) + Send + Sync + 'static) -> Self {
        self.on_ending = Some(OnEnding(Arc::new(tell)));
        self
    }
}
