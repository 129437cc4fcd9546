//! Connections lent to threads that need one of their own for a moment.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

#[cfg(feature = "service")]
use bellrope_proto::frame::Rejection;

use super::{config::ClientConfig, connection::Connection, deadline::from_now, reconnector::Reconnector};
#[cfg(feature = "service")]
use crate::error::CallError;
use crate::{error::ConnectError, settings::setters};

/// How a [`Pool`] keeps connections.
///
/// ```
/// use std::time::Duration;
///
/// use bellrope::client::{ClientConfig, PoolConfig};
///
/// let socket = "/run/user/1000/bellrope/bellrope.sock";
/// let config = PoolConfig::new(socket)
///     .client(ClientConfig::new(socket).priority(true))
///     .max_size(8)
///     .idle_timeout(Duration::from_secs(60));
/// assert!(config.client.priority);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolConfig {
    /// How each connection is made.
    pub client: ClientConfig,
    /// Connections lent and idle at once, at least 1. Default 64.
    pub max_size: usize,
    /// Idle connections kept. Default 16.
    pub max_idle: usize,
    /// How long an idle connection is kept. Default 300 s.
    pub idle_timeout: Duration,
    /// Most time [`Pool::acquire`] waits for one to come back when all are lent. Default 1 s.
    pub acquire_timeout: Duration,
}

impl PoolConfig {
    /// The defaults for the server at `path`.
    #[must_use]
    pub fn new(path: impl Into<std::path::PathBuf>) -> Self {
        Self {
            client: ClientConfig::new(path),
            max_size: 64,
            max_idle: 16,
            idle_timeout: Duration::from_secs(300),
            acquire_timeout: Duration::from_secs(1),
        }
    }
}

setters!(PoolConfig {
    client: ClientConfig,
    max_size: usize,
    max_idle: usize,
    idle_timeout: Duration,
    acquire_timeout: Duration,
});

/// Why a pool had no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// All connections are lent, and none came back in time.
    #[error("all {max_size} connections of the pool (max_size) are in use, and none came back within {waited:?}")]
    Exhausted {
        /// The limit.
        max_size: usize,
        /// How long was waited.
        waited: Duration,
    },
    /// A new one could not be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// A call without a connection was not sent.
#[cfg(feature = "service")]
impl From<PoolError> for CallError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Connect(error) => Self::Connect(error),
            exhausted @ PoolError::Exhausted { .. } => {
                Self::Rejected { reason: Rejection::Busy, retry_after: None, text: exhausted.to_string() }
            }
        }
    }
}

/// What a pool has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStats {
    /// Connections lent.
    pub acquired: u64,
    /// Those of them that had been used before.
    pub reused: u64,
    /// Connections made.
    pub created: u64,
    /// Connections closed because they had been idle for too long, or too many were idle.
    pub expired: u64,
    /// Connections found broken when they were to be lent, or given back in no state to be lent again.
    pub broken: u64,
}

/// A pool of exclusive connections. Clones are the same pool. Its lock is held for a few instructions, never across a
/// call, a connect or a wait.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// # let server = bellrope::Server::builder()
/// #     .unary("echo", |call, reply| { reply.put(call.payload()); Ok(()) }).bind(&path)?;
/// use std::time::Duration;
/// use bellrope::client::{CallOptions, Pool, PoolConfig};
///
/// let pool = Pool::new(PoolConfig::new(&path));
/// let mut connection = pool.acquire()?;
/// let echo = connection.message_type("echo")?; // good for every connection of the pool
/// let mut reply = Vec::new();
/// connection.call(echo, b"ding", &mut reply)?;
/// drop(connection);
/// assert_eq!(pool.idle(), 1);
///
/// let soon = CallOptions::new().timeout(Duration::from_secs(5));
/// pool.acquire()?.call_with(echo, b"dong", &mut reply, &soon)?;
/// assert_eq!(reply, b"dong");
/// let stats = pool.stats();
/// assert_eq!((stats.acquired, stats.reused, stats.created), (2, 1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: PoolConfig,
    state: Mutex<State>,
    /// Signalled when a place is free.
    returned: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The one that was used last comes last, and is lent first.
    idle: Vec<Idle>,
    /// Connections lent, or being made.
    lent: usize,
    stats: PoolStats,
    /// Whether the reconnector closes idle ones in time.
    tended: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    /// An empty pool. Connections are made when they are asked for. [Example](Self).
    #[must_use]
    pub fn new(config: PoolConfig) -> Self {
        Self { inner: Arc::new(Inner { config, state: Mutex::default(), returned: Condvar::new() }) }
    }

    /// Lends a connection whose server was there a moment ago. It comes back when it is dropped. [Example](Self).
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn acquire(&self) -> Result<Pooled, PoolError> {
        self.acquire_within(None)
    }

    /// As [`Self::acquire`], and no longer than that, if a call has a time-out.
    pub(crate) fn acquire_within(&self, most: Option<Duration>) -> Result<Pooled, PoolError> {
        let began = Instant::now();
        let config = &self.inner.config;
        let patience = most.map_or(config.acquire_timeout, |most| most.min(config.acquire_timeout));
        let mut state = self.inner.lock();
        loop {
            while let Some(mut idle) = state.idle.pop() {
                state.lent += 1;
                drop(state);
                // A system call, so without the lock.
                if idle.connection.is_healthy() && idle.since.elapsed() < config.idle_timeout {
                    let mut state = self.inner.lock();
                    state.stats.acquired += 1;
                    state.stats.reused += 1;
                    return Ok(self.lend(idle.connection));
                }
                drop(idle);
                state = self.inner.lock();
                state.lent -= 1;
                state.stats.broken += 1;
            }
            if state.lent < config.max_size {
                break;
            }
            let waited = began.elapsed();
            let Some(left) = patience.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Err(PoolError::Exhausted { max_size: config.max_size, waited });
            };
            state = self.inner.returned.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.lent += 1;
        drop(state);
        let made = Connection::with(&config.client);
        let mut state = self.inner.lock();
        match made {
            Ok(connection) => {
                state.stats.acquired += 1;
                state.stats.created += 1;
                Ok(self.lend(connection))
            }
            Err(error) => {
                state.lent -= 1;
                drop(state);
                self.inner.returned.notify_one();
                Err(error.into())
            }
        }
    }

    /// Connections that wait to be lent. [Example](Self).
    #[must_use]
    pub fn idle(&self) -> usize {
        self.inner.lock().idle.len()
    }

    /// What was done so far. [Example](Self).
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.inner.lock().stats
    }

    fn lend(&self, connection: Connection) -> Pooled {
        Pooled { connection: Some(connection), pool: Arc::clone(&self.inner) }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection back.
    fn give_back(self: &Arc<Self>, connection: Connection) {
        // Answers to calls that its user left behind are nothing for the next one.
        let usable = connection.in_flight() == 0 && !connection.is_broken();
        let mut state = self.lock();
        state.lent -= 1;
        let mut surplus = Some(connection);
        if !usable {
            state.stats.broken += 1;
        } else if state.idle.len() >= self.config.max_idle {
            state.stats.expired += 1;
        } else {
            let connection = surplus.take().expect("it has just been put there");
            state.idle.push(Idle { connection, since: Instant::now() });
            if !state.tended {
                state.tended = self.have_tended();
            }
        }
        drop(state);
        self.returned.notify_one();
        // Closing takes a system call, so it comes last, without the lock.
        drop(surplus);
    }

    /// Has idle connections closed in time. Answers whether somebody will.
    fn have_tended(self: &Arc<Self>) -> bool {
        let Ok(reconnector) = Reconnector::running() else { return false };
        let pool = Arc::downgrade(self);
        let tend = move || pool.upgrade()?.expire();
        reconnector.chore(from_now(self.config.idle_timeout), Box::new(tend));
        true
    }

    /// Closes what has been idle for too long. Answers when to look again.
    fn expire(&self) -> Option<Instant> {
        let mut state = self.lock();
        let now = Instant::now();
        // The one that has been idle for longest comes first.
        let late = state.idle.iter().take_while(|idle| now - idle.since >= self.config.idle_timeout).count();
        let expired: Vec<_> = state.idle.drain(..late).collect();
        state.stats.expired += expired.len() as u64;
        let next = state.idle.first().map(|idle| idle.since + self.config.idle_timeout);
        state.tended = next.is_some();
        drop(state);
        drop(expired);
        next
    }
}

/// A connection that goes back to its pool when it is dropped, unless it is broken or has calls under way.
#[derive(Debug)]
pub struct Pooled {
    /// There until it is dropped.
    connection: Option<Connection>,
    pool: Arc<Inner>,
}

impl Deref for Pooled {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("the connection is there until it is dropped")
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("the connection is there until it is dropped")
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.give_back(connection);
        }
    }
}
