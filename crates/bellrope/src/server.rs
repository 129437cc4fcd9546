//! The server: an acceptor that shakes hands, workers that own their connections, and handlers.
//!
//! The acceptor alone touches the listener and half-open handshakes; a connection is handed over to one worker and
//! stays with it. Workers share nothing on the data path. What async handlers produce comes back through the worker's
//! [inbox](inbox::Inbox).

mod acceptor;
mod body;
mod buffers;
mod claim;
mod config;
#[cfg(feature = "tokio")]
mod dispatch;
mod inbox;
#[cfg(test)]
mod instructions;
mod limits;
mod link;
mod pacing;
mod quiet;
mod seats;
mod service;
mod span;
mod worker;

use std::{
    io,
    os::unix::net::UnixListener,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bellrope_proto::{
    Budget,
    connection::{Reply, Terms},
};
use bellrope_shm::process;
#[cfg(feature = "tokio")]
pub(crate) use body::Body;
pub use config::ServerConfig;
#[cfg(feature = "tokio")]
pub(crate) use dispatch::Port;

#[cfg(feature = "tokio")]
use crate::handler::{ChunkReceiver, ChunkSender, OwnedCall};
use crate::{
    BindError, Breaker, Call, CallInPlace, HandlerError, KillPoint, Metrics,
    path::OwnedPath,
    registry::{Handler, Registry},
};

/// What all threads of a server share.
#[derive(Debug)]
struct Shared {
    registry: Registry,
    config: ServerConfig,
    terms: Terms,
    metrics: Arc<Metrics>,
    seats: Arc<seats::Seats>,
    limits: limits::Limits,
    /// One a message type, in the order of their numbers, from 1.
    breakers: Vec<Arc<Breaker>>,
    /// What all connections together may hold outside their rings.
    budget: Arc<Budget>,
    buffers: Arc<buffers::Buffers>,
    quiet: quiet::Quiet,
    pacing: pacing::Pacing,
    /// Set when nothing new is taken any more; what is under way goes on.
    draining: AtomicBool,
    /// Set when everything ends at once.
    stopping: AtomicBool,
    #[cfg(feature = "tokio")]
    runtime: Option<tokio::runtime::Handle>,
}

impl Shared {
    /// Charges a break of the protocol to the process that it came from.
    fn charge(&self, pid: i32) {
        if self.pacing.charge(pid, self.limits.pace(), Instant::now()) && self.may_log(pid) {
            tracing::warn!(
                pid,
                "this process broke the protocol over and over: its handshakes wait (violation_allowance, \
                 violation_pause_ms)"
            );
        }
    }

    /// Whether a line about this process may be logged. What is left out is counted, and told with the next line.
    fn may_log(&self, pid: i32) -> bool {
        match self.quiet.admits(pid, Instant::now()) {
            None => {
                self.metrics.log_lines_dropped.fetch_add(1, Ordering::Relaxed);
                false
            }
            Some(left_out) => {
                if left_out > 0 {
                    tracing::warn!(pid, left_out, "lines about this client were left out");
                }
                true
            }
        }
    }
}

/// Collects handlers and settings, then binds.
#[derive(Debug, Default)]
pub struct ServerBuilder {
    registry: Registry,
    config: ServerConfig,
}

impl ServerBuilder {
    /// Replaces the settings.
    #[must_use]
    pub fn config(mut self, config: ServerConfig) -> Self {
        self.config = config;
        self
    }

    /// Registers a handler that runs on the worker and writes its reply straight into the response ring. It must not
    /// block: everybody on that worker waits for it.
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

    /// Registers a handler that runs on tokio and answers with a stream of chunks, at the pace of its reader. It is
    /// dropped when its caller cancels or goes away.
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

    /// Takes the socket path and starts to serve there, on threads of its own.
    ///
    /// The path's directory is created with mode 0700 if it is missing, and refused if others can write to it. The
    /// soft limit on open descriptors is raised to the hard one.
    ///
    /// # Errors
    /// [`BindError`] says what is in the way and what to do.
    pub fn bind(self, path: impl AsRef<Path>) -> Result<Server, BindError> {
        self.check()?;
        let (owned_path, listener) = OwnedPath::bind(path.as_ref())?;
        self.start(listener, Some(owned_path))
    }

    /// Serves at a listener that somebody else has opened and will clean up: see
    /// [`inherited_listener`](crate::inherited_listener).
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn serve_at(self, listener: UnixListener) -> Result<Server, BindError> {
        self.start(listener, None)
    }

    /// Checks all that can be checked before anything is touched.
    fn check(&self) -> Result<(), BindError> {
        self.registry.check()?;
        self.config.check()
    }

    fn start(self, listener: UnixListener, owned_path: Option<OwnedPath>) -> Result<Server, BindError> {
        self.check()?;
        let Self { registry, config } = self;
        let terms = config.terms()?;
        let breakers = config.breakers(registry.names().len())?;
        let budget = Budget::new(config.buffer_budget_bytes);
        process::raise_descriptor_limit();
        let workers = config.worker_count();
        let metrics = Arc::new(Metrics::new(registry.names(), workers, config.max_connections.into()));
        metrics.settings.set(&config);
        let _ = metrics.budget.set(Arc::clone(&budget));
        registry.names().zip(&breakers).for_each(|(name, breaker)| metrics.watch_breaker(name, Arc::clone(breaker)));
        let _ = metrics.run_on_worker.set(registry.run_on_worker());
        #[cfg(feature = "tokio")]
        let runtime = if registry.needs_runtime() { Some(build_runtime()?) } else { None };
        let shared = Arc::new(Shared {
            seats: seats::Seats::new(&config),
            limits: limits::Limits::new(&config),
            budget,
            breakers,
            buffers: Arc::default(),
            quiet: quiet::Quiet::default(),
            pacing: pacing::Pacing::default(),
            registry,
            config,
            terms,
            metrics,
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            #[cfg(feature = "tokio")]
            runtime: runtime.as_ref().map(|runtime| runtime.handle().clone()),
        });

        let mut threads = Vec::with_capacity(workers + 1);
        let mut inboxes = Vec::with_capacity(workers);
        for index in 0..workers {
            let (inbox, worker) = worker::Worker::new(Arc::clone(&shared), index).map_err(starting)?;
            inboxes.push(inbox);
            threads.push(spawn(&format!("bellrope-work-{index}"), move || worker.run())?);
        }
        let (accept_inbox, acceptor) =
            acceptor::Acceptor::new(Arc::clone(&shared), listener, inboxes.clone()).map_err(starting)?;
        threads.push(spawn("bellrope-accept", move || acceptor.run())?);
        inboxes.push(accept_inbox);
        for (index, inbox) in inboxes.iter().cloned().enumerate() {
            shared.metrics.pulse().wake_with(index, move || inbox.wake());
        }
        Ok(Server {
            shared,
            inboxes,
            threads: Mutex::new(threads),
            _path: owned_path,
            #[cfg(feature = "tokio")]
            runtime: Mutex::new(runtime),
        })
    }
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    inboxes: Vec<Arc<inbox::Inbox>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The socket's path, unless somebody else looks after it.
    _path: Option<OwnedPath>,
    #[cfg(feature = "tokio")]
    runtime: Mutex<Option<tokio::runtime::Runtime>>,
}

impl Server {
    /// A builder with no handlers and default settings.
    #[must_use]
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// The server's counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// The runtime that async handlers run on, if there are any.
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn runtime(&self) -> Option<tokio::runtime::Handle> {
        self.shared.runtime.clone()
    }

    /// Stops accepting, closes every connection and returns when all threads have ended. What is under way ends at
    /// the callers as not executed or unknown.
    pub fn shutdown(&self) {
        self.shared.metrics.serving.store(false, Ordering::Release);
        self.shared.stopping.store(true, Ordering::Release);
        for inbox in &self.inboxes {
            inbox.wake();
        }
        KillPoint::Stopping.reached();
        self.wait();
        KillPoint::Stopped.reached();
        #[cfg(feature = "tokio")]
        if let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.shutdown_background();
        }
    }

    /// Takes nothing new, lets what is under way end, at most until `deadline` from now, and then shuts down. New
    /// connections and calls are refused as draining meanwhile. Answers whether everything ended by itself.
    pub fn drain(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        self.shared.metrics.serving.store(false, Ordering::Release);
        self.shared.draining.store(true, Ordering::Release);
        for inbox in &self.inboxes {
            inbox.wake();
        }
        let workers_ended = || {
            let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            // The last thread is the acceptor, which refuses newcomers to the end.
            threads.split_last().is_none_or(|(_, workers)| workers.iter().all(JoinHandle::is_finished))
        };
        while !workers_ended() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        let ended = workers_ended();
        self.shutdown();
        ended
    }

    /// Returns when the server has been shut down.
    pub fn wait(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the server panicked");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown();
    }
}

#[cfg(feature = "tokio")]
fn build_runtime() -> Result<tokio::runtime::Runtime, BindError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("bellrope-async")
        .enable_all()
        .build()
        .map_err(starting)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, BindError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(starting)
}

fn starting(source: io::Error) -> BindError {
    BindError::Io { what: "starting the server's threads".to_owned(), source }
}

/// How long a worker that has nothing to do sleeps at the most, so that nothing can be missed for ever.
const SWEEP: Duration = Duration::from_secs(1);
