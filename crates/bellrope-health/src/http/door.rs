//! Who comes in: the places, and what is reported of those who get none.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bellrope::rate::{Rate, Throttle};
use tokio::sync::Semaphore;

use super::{
    config::{ListenerConfig, ListenerEvent},
    places::{NoPlace, Place, PlaceLimits, Places},
    refusal,
};

/// A flood of connections makes one line of each kind in the log this often, not one a connection.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Lines about connections that were refused: so many at once, and then one in so long.
const REFUSALS: Rate = Rate { burst: 20, period: Duration::from_secs(1) };

/// Who comes in: the places, and what is reported of those who get none.
pub(super) struct Door {
    pub(super) config: ListenerConfig,
    local_addr: SocketAddr,
    places: Arc<Places>,
    /// Connections that were refused, put out, or found no place.
    dropped: Arc<AtomicU64>,
    /// Refusals that are under way.
    pub(super) refusals: Arc<Semaphore>,
    /// When it was last reported that there is no place, and that somebody gave way.
    told: [Option<Instant>; 2],
    /// Lines about those that may not come at all.
    refused: Throttle,
}

/// What becomes of a newcomer.
pub(super) enum Newcomer {
    Comes(Place),
    /// There is no place for it now, and when there may be one.
    NoPlace(NoPlace),
    /// It may not come at all.
    Stranger,
}

impl Door {
    pub(super) fn new(config: ListenerConfig, local_addr: SocketAddr, dropped: Arc<AtomicU64>) -> Self {
        let limits = PlaceLimits {
            all: config.max_connections,
            of_address: config.max_of_address,
            answers_give_way: config.answers_give_way,
        };
        Self {
            config,
            local_addr,
            places: Places::new(limits),
            dropped,
            refusals: Arc::new(Semaphore::new(refusal::AT_ONCE)),
            told: [None; 2],
            refused: Throttle::new(),
        }
    }

    /// Decides about a newcomer. Whoever may not come takes no place and nobody's. `may_wait`: whether it may wait for a place that
    /// may be free soon.
    pub(super) fn receive(&mut self, from: SocketAddr, to: Option<SocketAddr>, may_wait: bool) -> Newcomer {
        let (config, limit) = (self.config, self.config.max_connections);
        if let Err(reason) = (config.admit)(from, to.unwrap_or(self.local_addr)) {
            self.dropped.fetch_add(1, Relaxed);
            if let Some(left_out) = self.refused.admits(REFUSALS, Instant::now()) {
                config.report(&ListenerEvent::Refused { from, reason: &reason, left_out });
            }
            return Newcomer::Stranger;
        }
        let (event, newcomer) = match self.places.take(from.ip()) {
            Ok((place, false)) => return Newcomer::Comes(place),
            Ok((place, true)) => (ListenerEvent::Displaced { limit, from }, Newcomer::Comes(place)),
            Err(none) if may_wait && none.maybe_at.is_some() => return Newcomer::NoPlace(none),
            Err(none) => (ListenerEvent::Full { limit }, Newcomer::NoPlace(none)),
        };
        self.dropped.fetch_add(1, Relaxed);
        let told = &mut self.told[usize::from(matches!(newcomer, Newcomer::NoPlace(_)))];
        if told.is_none_or(|at| at.elapsed() > WARN_EVERY) {
            *told = Some(Instant::now());
            config.report(&event);
        }
        newcomer
    }
}
