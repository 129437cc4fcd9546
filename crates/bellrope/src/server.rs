//! The server: an acceptor that shakes hands, workers that own their connections, and handlers.
//!
//! The acceptor alone touches the listener and half-open handshakes; a connection is handed over to one worker and
//! stays with it. Workers share nothing on the data path. What async handlers produce comes back through the worker's inbox.

mod accept;
#[cfg(feature = "tokio")]
mod blocking;
mod calls;
mod config;
mod core;
mod cpu_list;
mod error;
mod for_added;
mod handler;
mod inbox;
#[cfg(test)]
mod instructions;
mod limits;
mod log_limit;
mod message;
#[cfg(feature = "tokio")]
mod operator;
mod parked;
#[cfg(feature = "tokio")]
mod parts;
mod path;
mod registration;
mod running_types;
mod span;
mod start;
mod worker;

use std::{
    os::unix::net::UnixListener,
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub use bellrope_proto::{
    connection::Reply,
    metadata::{Metadata, TraceContext},
};
use bellrope_shm::process;

#[cfg(feature = "tokio")]
use self::calls::blocking_pool::BlockingPool;
#[cfg(feature = "tokio")]
use self::handler::owned_call::TokenNames;
#[cfg(feature = "tokio")]
pub use self::handler::{
    behind::Behind,
    owned_call::{Cancelled, ClaimedRoom, OwnedCall, RoomClaims, Vouched},
    parts::{ReplyWriter, RequestReader},
    streams::{CallerGone, ChunkReceiver, ChunkSender, SendError},
};
pub use self::{
    accept::retirement::Ending,
    config::ServerConfig,
    cpu_list::{CpuList, CpuListError},
    error::{BindError, HandlerError},
    handler::call::{Call, CallInPlace},
    path::inherited_listener,
};
use self::{
    accept::{
        acceptor::Acceptor,
        retirement::{OnEnding, Retirement},
    },
    core::{AdoptTrace, Core},
    for_added::ForAdded,
    handler::registry::Registry,
    inbox::Inbox,
    message::WorkerMessage,
    path::OwnedPath,
    start::{spawn, starting, try_accepting, try_memory, try_threads},
    worker::Worker,
};
pub use crate::spin::SpinPolicy;
use crate::{kill_points::KillPoint, status::Metrics};

/// Collects handlers and settings, then binds.
#[derive(Debug, Default)]
pub struct ServerBuilder {
    pub(crate) registry: Registry,
    config: ServerConfig,
    on_ending: Option<OnEnding>,
    adopt_trace: Option<AdoptTrace>,
    #[cfg(feature = "tokio")]
    token_names: Option<TokenNames>,
    #[cfg(feature = "tokio")]
    operator: Option<operator::Operator>,
    #[cfg(feature = "tokio")]
    blocking: BlockingPool,
    /// The schemas of the methods of services, if there are any.
    #[cfg(feature = "service")]
    pub(crate) schemas: Option<Arc<crate::service::KnownSchemas>>,
    /// What async handlers run on, if that is not to be the server's own.
    #[cfg(feature = "tokio")]
    runtime: Option<tokio::runtime::Handle>,
}

impl ServerBuilder {
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
    /// [`inherited_listener`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// use std::os::unix::net::UnixListener;
    ///
    /// use bellrope::{Client, Server};
    ///
    /// # let path = directory.path().join("echo.sock");
    /// let listener = UnixListener::bind(&path)?; // or bellrope::server::inherited_listener()
    /// let server = Server::builder().in_place("echo", |_| Ok(())).serve_at(listener)?;
    /// assert_eq!(Client::connect(&path)?.call("echo", b"ding")?, b"ding");
    /// # Ok(())
    /// # }
    /// ```
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
        let Self { registry, config, on_ending, adopt_trace, .. } = self;
        let retirement = Retirement::new(owned_path.as_ref().map(OwnedPath::watch), on_ending);
        process::raise_descriptor_limit();
        #[cfg(feature = "tokio")]
        let async_threads = match registry.needs_runtime() && self.runtime.is_none() {
            true => config.async_threads as usize,
            false => 0,
        };
        #[cfg(not(feature = "tokio"))]
        let async_threads = 0;
        // And one that accepts.
        try_threads(config.fixed()?.workers + 1 + async_threads)?;
        try_accepting()?;
        #[cfg(feature = "tokio")]
        let runtime = match async_threads {
            0 => None,
            threads => Some(start::build_runtime(threads)?),
        };
        let mut core = Core::new(
            registry,
            &config,
            #[cfg(feature = "tokio")]
            self.runtime.or_else(|| runtime.as_ref().map(|runtime| runtime.handle().clone())),
        )?;
        core.adopt_trace = adopt_trace;
        #[cfg(feature = "tokio")]
        {
            core.token_names = self.token_names;
        }
        let core = Arc::new(core);
        #[cfg(feature = "tokio")]
        self.blocking.open(config.blocking_threads as usize);
        let for_added = ForAdded {
            #[cfg(feature = "tokio")]
            blocking: self.blocking,
            #[cfg(feature = "service")]
            schemas: Mutex::new(self.schemas),
        };
        #[cfg(feature = "tokio")]
        if let Some(operator) = self.operator {
            operator.attach(Arc::clone(&core.metrics));
        }
        try_memory(core.fixed.terms.geometry.mapping_len(), core.fixed.stream_transport)?;
        // Whole from the start: if a thread cannot be started, dropping it ends those that run already.
        let mut server = Server {
            core,
            inboxes: Vec::new(),
            threads: Mutex::default(),
            for_added,
            _path: owned_path,
            #[cfg(feature = "tokio")]
            runtime: Mutex::new(runtime),
        };
        let cpus: Vec<_> = config.worker_cpus.iter().collect();
        for index in 0..server.core.fixed.workers {
            let (inbox, worker) = Worker::new(Arc::clone(&server.core), index).map_err(starting)?;
            server.inboxes.push(inbox);
            let cpu = (!cpus.is_empty()).then(|| cpus[index % cpus.len()]);
            server.spawn(&format!("bellrope-work-{index}"), move || {
                start::place(cpu);
                worker.run();
            })?;
        }
        let (accept_inbox, acceptor) =
            Acceptor::new(Arc::clone(&server.core), listener, server.inboxes.clone(), retirement).map_err(starting)?;
        server.inboxes.push(accept_inbox);
        server.spawn("bellrope-accept", move || acceptor.run())?;
        for (index, inbox) in server.inboxes.iter().cloned().enumerate() {
            server.core.metrics.liveness().wake_with(index, move || inbox.wake());
        }
        Ok(server)
    }
}

/// A running server. Dropping it stops it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// use std::{sync::{Arc, mpsc}, thread};
///
/// use bellrope::Server;
///
/// let server = Server::builder().unary_async("echo", |call| async move { Ok(call.into_payload()) }).bind(&path)?;
/// let server = Arc::new(server);
/// let waiting = thread::spawn({
///     let server = Arc::clone(&server);
///     move || server.wait() // until it is shut down
/// });
/// let (telling, told) = mpsc::channel();
/// let runtime = server.runtime().expect("it has an async handler");
/// runtime.spawn(async move { telling.send("beside the handlers") });
/// assert_eq!(told.recv()?, "beside the handlers");
/// server.shutdown();
/// waiting.join().unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    core: Arc<Core>,
    inboxes: Vec<Arc<Inbox<WorkerMessage>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    #[cfg_attr(not(any(feature = "tokio", feature = "service")), expect(dead_code, reason = "it is empty"))]
    pub(crate) for_added: ForAdded,
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

    /// Starts one more of its threads.
    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), BindError> {
        let thread = spawn(name, run)?;
        self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// The server's counters. [Example](Metrics).
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.core.metrics)
    }

    /// The runtime that async handlers run on, if there are any. [Example](Self).
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn runtime(&self) -> Option<tokio::runtime::Handle> {
        self.core.runtime.clone()
    }

    /// Stops accepting, closes every connection and returns when all threads have ended. What is under way ends at
    /// the callers as not executed or unknown. [Example](Self).
    pub fn shutdown(&self) {
        self.core.metrics.serving.store(false, Ordering::Release);
        self.core.stopping.store(true, Ordering::Release);
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
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// let server = bellrope::Server::builder().in_place("echo", |_| Ok(())).bind(&path)?;
    /// assert!(server.drain(std::time::Duration::from_secs(5)), "nothing was under way");
    /// # Ok(())
    /// # }
    /// ```
    pub fn drain(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        self.core.metrics.serving.store(false, Ordering::Release);
        self.core.draining.store(true, Ordering::Release);
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

    /// Changes the settings of the running server, and names those that hold from its next start on.
    ///
    /// What changes at once: `breaker`, of every message type; `max_connections`, `max_connections_per_uid` and
    /// `max_priority_connections`, by which nobody is closed who is connected; `max_half_open` and
    /// `handshake_timeout`, for handshakes that begin from now on; `violation_allowance` and `violation_pause`, with
    /// which 0 forgives all; `budget_wait`, `budget_grace` and `stall_timeout`. Everything else stays as it is.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// use bellrope::{Server, server::ServerConfig};
    ///
    /// let server = Server::builder().in_place("echo", |_| Ok(())).bind(&path)?;
    /// let waiting = server.reload(&ServerConfig::new().max_connections(50).workers(2))?;
    /// assert_eq!(waiting, ["workers"], "the limit holds at once");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`BindError::Setting`] of the first one that is out of its range; then nothing has changed.
    pub fn reload(&self, config: &ServerConfig) -> Result<Vec<String>, BindError> {
        self.core.reload(config)
    }

    /// Returns when the server has been shut down. [Example](Self).
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
