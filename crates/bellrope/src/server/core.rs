//! What all threads of a server share, and what is decided by that alone. It knows no thread and no socket.

#[cfg(feature = "tokio")]
use std::borrow::Cow;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bellrope_proto::{
    BufferBudget, Holder, Reservation, connection::Failure, frame::ErrorCode, metadata::TraceContext,
};
use bellrope_shm::{clock, socket::PeerCredentials};

use super::{
    accept::{connection_limits::ConnectionLimits, penalty::Penalties},
    calls::{
        body::Body,
        buffers::SpareBuffers,
        failures::{draining, no_room_for_reply},
        heap,
        holders::Holders,
    },
    config::{FixedSettings, ServerConfig, breaker_setting},
    handler::registry::Registry,
    limits::{LiveSettings, changed_to, differences},
    log_limit::{LeftOut, LogLimit},
};
#[cfg(feature = "tokio")]
use crate::server::{calls::claims::Claims, handler::owned_call::TokenNames};
use crate::{
    breaker::Breaker,
    server::error::BindError,
    status::{LONGEST_HOLD, Metrics},
};

/// How long a thread that has nothing to do sleeps at the most, so that nothing can be missed for ever.
pub(crate) const SWEEP: Duration = Duration::from_secs(1);

/// Replies up to here leave no holes in the heap that matter. In bytes.
const SMALL: u64 = 64 * 1024;

/// See [`ServerBuilder::adopt_trace`](super::ServerBuilder::adopt_trace).
pub(crate) type AdoptTrace = fn(&tracing::Span, TraceContext);

/// What all threads of a server share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) registry: Registry,
    /// What connections are told and what is set up at the start.
    pub(crate) fixed: FixedSettings,
    /// What may change while the server runs.
    pub(crate) live: LiveSettings,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connection_limits: Arc<ConnectionLimits>,
    /// One a message type, in the order of their numbers, from 1.
    pub(crate) breakers: Vec<Arc<Breaker>>,
    /// What all connections together may hold outside their rings.
    pub(crate) budget: Arc<BufferBudget>,
    /// Who holds how much of it.
    holders: Holders,
    /// One a worker: what the one of its connections holds that lets others wait for the budget and holds most.
    pub(crate) heaviest: Box<[AtomicU64]>,
    pub(crate) buffers: Arc<SpareBuffers>,
    log_limit: LogLimit,
    /// What makes a call's span a child of its caller's.
    pub(crate) adopt_trace: Option<AdoptTrace>,
    /// What knows the names of tokens.
    #[cfg(feature = "tokio")]
    pub(crate) token_names: Option<TokenNames>,
    pub(crate) penalties: Penalties,
    /// Set when nothing new is taken any more; what is under way goes on.
    pub(crate) draining: AtomicBool,
    /// Set when everything ends at once.
    pub(crate) stopping: AtomicBool,
    #[cfg(feature = "tokio")]
    pub(crate) runtime: Option<tokio::runtime::Handle>,
    /// The claims of handlers that wait for the budget.
    #[cfg(feature = "tokio")]
    pub(crate) claims: Arc<Claims>,
}

impl Core {
    /// What a server with these handlers and settings begins with.
    ///
    /// # Errors
    /// A setting out of its range.
    pub(crate) fn new(
        registry: Registry,
        config: &ServerConfig,
        #[cfg(feature = "tokio")] runtime: Option<tokio::runtime::Handle>,
    ) -> Result<Self, BindError> {
        let fixed = config.fixed()?;
        let breakers = config.breakers(registry.numbers())?;
        let budget = BufferBudget::new(config.buffer_budget_bytes);
        let metrics = Metrics::new(registry.names(), registry.room(), fixed.workers, config.max_connections.into());
        metrics.settings.set(config);
        let _ = metrics.budget.set(Arc::clone(&budget));
        registry.names().zip(&breakers).for_each(|(name, breaker)| metrics.watch_breaker(name, Arc::clone(breaker)));
        for (number, (name, runs_on_worker)) in (1..).zip(registry.names().zip(registry.run_on_worker())) {
            metrics.show_type(number, name, runs_on_worker);
        }
        Ok(Self {
            registry,
            fixed,
            live: LiveSettings::new(config),
            metrics: Arc::new(metrics),
            connection_limits: Arc::default(),
            breakers,
            holders: Holders::new(&budget),
            heaviest: (0..fixed.workers).map(|_| AtomicU64::new(0)).collect(),
            buffers: Arc::new(SpareBuffers::new(&budget)),
            budget,
            log_limit: LogLimit::default(),
            adopt_trace: None,
            #[cfg(feature = "tokio")]
            token_names: None,
            penalties: Penalties::default(),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            #[cfg(feature = "tokio")]
            runtime,
            #[cfg(feature = "tokio")]
            claims: Arc::default(),
        })
    }

    /// Changes the settings that may change, and names those of `config` that hold from the next start on.
    ///
    /// # Errors
    /// The first setting that is out of its range; then nothing has changed.
    pub(crate) fn reload(&self, config: &ServerConfig) -> Result<Vec<String>, BindError> {
        config.check()?;
        self.metrics.settings.change(|settings| {
            let Some(now) = settings else { return Ok(Vec::new()) };
            let next = changed_to(now, config);
            for breaker in &self.breakers {
                breaker.reconfigure(&next.breaker).map_err(breaker_setting)?;
            }
            self.live.change(&next);
            self.metrics.max_connections.store(next.max_connections.into(), Ordering::Relaxed);
            let waiting = differences(&next, config);
            *settings = Some(next);
            Ok(waiting)
        })
    }

    /// Charges a break of the protocol to the process that it came from.
    pub(crate) fn charge(&self, peer: PeerCredentials) {
        if self.penalties.charge(peer.pid, self.live.violations(), Instant::now()) && self.may_log(peer) {
            tracing::warn!(
                pid = peer.pid,
                "this process broke the protocol over and over: its handshakes wait (violation_allowance, \
                 violation_pause_ms)"
            );
        }
    }

    /// Whether a line about this process may be logged. What is left out is counted, and reported with the next line.
    pub(crate) fn may_log(&self, peer: PeerCredentials) -> bool {
        match self.log_limit.admits(peer, Instant::now()) {
            None => {
                self.metrics.log_lines_dropped.fetch_add(1, Ordering::Relaxed);
                false
            }
            Some(LeftOut { of_this, of_others }) => {
                if of_this > 0 {
                    let (pid, uid) = (peer.pid, peer.user_of_unnamed());
                    tracing::warn!(pid, uid, left_out = of_this, "lines about this client were left out");
                }
                if of_others > 0 {
                    tracing::warn!(left_out = of_others, "lines about other clients were left out");
                }
                true
            }
        }
    }

    /// The handler of a message type held a thread for so long. Counts it if that is too long, and has the log name it once a
    /// minute.
    #[cold]
    pub(crate) fn held_thread(&self, message_type: u16, held: Duration) {
        if held < LONGEST_HOLD || !self.metrics.held_threads.note(message_type, self.metrics.started.elapsed()) {
            return;
        }
        let added = self.registry.find_added(message_type);
        let advice = match self.registry.find(message_type).or(added.as_deref()) {
            Some(handler) if handler.runs_on_worker() => {
                "the worker's other connections waited meanwhile: register it as unary_blocking or unary_async, or make a \
                 service's method #[blocking] or async"
            }
            _ => {
                "other async handlers waited meanwhile: block in tokio's spawn_blocking, or register it as unary_blocking; a \
                 service's method may be a #[blocking] fn"
            }
        };
        let millis = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(
            message_type = &*self.registry.name(message_type),
            held_ms = millis,
            "a handler held its thread; {advice}"
        );
    }

    /// The breaker of a message type that is registered.
    #[inline]
    pub(crate) fn breaker(&self, message_type: u16) -> &Arc<Breaker> {
        &self.breakers[usize::from(message_type) - 1]
    }

    /// Whether a call is to be run, by what is known before its handler is asked.
    #[inline]
    pub(crate) fn may_run(&self, deadline_us: Option<u64>, size: usize) -> bool {
        !self.draining.load(Ordering::Relaxed)
            && size <= self.fixed.terms.max_message as usize
            && deadline_us.is_none_or(|deadline| clock::monotonic_us() < deadline)
    }

    /// The reason why [`Self::may_run`] answered no.
    #[cold]
    pub(crate) fn refusal(&self, size: usize) -> Failure {
        let limit = self.fixed.terms.max_message as usize;
        if self.draining.load(Ordering::Relaxed) {
            draining()
        } else if size > limit {
            Failure::too_large("request", size as u64, limit as u64)
        } else {
            Failure::new(ErrorCode::DeadlineExceeded, "the deadline passed before the call was taken")
        }
    }

    /// A new connection of this peer, as one who may hold some of the budget.
    pub(crate) fn holder_for(&self, peer: PeerCredentials) -> Arc<Holder> {
        self.holders.connection(peer)
    }

    /// Room in the budget for a request of this size that counts `weight` times, as far as one call may have it.
    pub(crate) fn room_for(&self, size: u64, weight: u64) -> u64 {
        let limit = self.budget.limit();
        size.max(size.saturating_mul(weight).min(limit - limit / 8))
    }

    /// A request waits for the budget. When the first of a connection does, every worker is to look whether one of its
    /// clients lets others wait.
    #[cold]
    pub(crate) fn waits_for_budget(&self, first: bool) {
        if first {
            self.metrics.liveness().ask();
        }
    }

    /// Makes a body that may wait of a reply, with the reservation of its call if that is enough. A small reply that
    /// will be its connection's only one needs none: rings of that size count as used anyway.
    pub(crate) fn keep(
        &self,
        reply: Vec<u8>,
        held: Option<Reservation>,
        alone: bool,
        holder: &Arc<Holder>,
    ) -> Result<Body, Failure> {
        let size = reply.len() as u64;
        // One that finds no room is freed at once, and leaves a hole as well.
        if size > SMALL {
            heap::granted(size, &self.budget);
        }
        let reservation = grown(held, size, holder);
        if reservation.is_none() && !(alone && reply.len() <= self.fixed.terms.max_record()) {
            return Err(no_room_for_reply(size, self.budget.limit()));
        }
        self.buffers.make_way();
        Ok(Body::new(reply, reservation, &self.buffers))
    }

    /// What is to be said of a failure, and room for its text, which may wait for its reader: that of its call if that is
    /// enough. One that will be its connection's only one needs none. Where there is no room, the text is left out.
    #[cfg(feature = "tokio")]
    pub(crate) fn keep_error(
        &self,
        failure: Failure,
        held: Option<Reservation>,
        alone: bool,
        holder: &Arc<Holder>,
    ) -> (Failure, Option<Reservation>) {
        use super::calls::failures::NO_ROOM_FOR_TEXT;

        let failure = failure.bounded();
        let size = match &failure.text {
            Cow::Owned(text) => text.len() as u64,
            Cow::Borrowed(_) => return (failure, None),
        };
        let room = grown(held, size, holder);
        if room.is_none() && !alone {
            return (Failure { text: NO_ROOM_FOR_TEXT.into(), ..failure }, None);
        }
        (failure, room)
    }
}

/// Room of this size for what a call says at its end: of what the call holds, and what that lacks.
fn grown(held: Option<Reservation>, size: u64, holder: &Arc<Holder>) -> Option<Reservation> {
    let lacking = size.saturating_sub(held.as_ref().map_or(0, Reservation::bytes));
    let more = if lacking > 0 || held.is_none() { Some(holder.reserve_more(lacking)?) } else { None };
    let mut room = held.into_iter().chain(more).reduce(Reservation::joined)?;
    room.shrink_to(size);
    Some(room)
}
