//! When a server ends by itself: nobody has used it for as long as its settings say, or its socket is gone and so are its
//! connections. Only the acceptor looks, between two turns at its listener, so whoever it has let in is counted.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::server::{core::Core, path::WatchedPath};

/// How long a server waits for its first client, whatever the settings say: whoever started it may be slow.
const FIRST_CLIENT: Duration = Duration::from_secs(5);
/// Between two looks at the socket's path.
const LOOK: Duration = Duration::from_secs(1);

/// Why a server ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// Nobody has used it for as long as [`exit_when_idle`](crate::server::ServerConfig#structfield.exit_when_idle) says.
    Idle,
    /// Its socket was removed or replaced, so nobody could find it any more, and its last client has gone.
    SocketGone,
}

/// Called when a server ends by itself.
#[derive(Clone)]
pub(crate) struct OnEnding(pub(crate) Arc<dyn Fn(Ending) + Send + Sync>);

impl fmt::Debug for OnEnding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEnding")
    }
}

/// What the acceptor has seen of that so far.
#[derive(Debug)]
pub(crate) struct Retirement {
    /// `None` where somebody else looks after the socket.
    path: Option<WatchedPath>,
    on_ending: Option<OnEnding>,
    next_look: Instant,
    /// Whether the socket is gone.
    is_orphan: bool,
    /// Since when nobody uses the server.
    idle_since: Option<Instant>,
    /// Whether somebody has.
    was_used: bool,
    /// Work that came by other ways and had ended at the last look.
    ended_elsewhere: u64,
}

impl Retirement {
    pub(crate) fn new(path: Option<WatchedPath>, on_ending: Option<OnEnding>) -> Self {
        Self {
            path,
            on_ending,
            next_look: Instant::now() + LOOK,
            is_orphan: false,
            idle_since: None,
            was_used: false,
            ended_elsewhere: 0,
        }
    }

    /// Whether the server is to end now. `shaking_hands`: some clients are neither connected nor refused yet.
    pub(crate) fn look(&mut self, core: &Core, shaking_hands: bool, now: Instant) -> Option<Ending> {
        self.look_at_path(core, now);
        let (works_elsewhere, ended_elsewhere) = core.metrics.activity.state();
        let is_used = shaking_hands
            || works_elsewhere
            || ended_elsewhere != std::mem::replace(&mut self.ended_elsewhere, ended_elsewhere)
            || core.connection_limits.open() > 0;
        if is_used {
            self.was_used = true;
            self.idle_since = None;
        } else {
            self.idle_since.get_or_insert(now);
        }
        let due = self.due(core);
        core.metrics.ends_at(due);
        match self.idle_since {
            Some(_) if self.is_orphan => Some(Ending::SocketGone),
            Some(_) if due.is_some_and(|due| due <= now) => Some(Ending::Idle),
            _ => None,
        }
    }

    /// When the server is to end if nobody comes.
    pub(crate) fn due(&self, core: &Core) -> Option<Instant> {
        let limit = core.live.exit_when_idle();
        let limit = if self.was_used { limit } else { limit.max(FIRST_CLIENT) };
        let since = self.idle_since.filter(|_| !core.live.exit_when_idle().is_zero())?;
        since.checked_add(limit)
    }

    /// Says that the server ends.
    pub(crate) fn announce(&self, core: &Core, ending: Ending) {
        match ending {
            Ending::Idle => {
                let limit = core.live.exit_when_idle();
                tracing::info!("ending: no client was here for {limit:?} (exit_when_idle_ms)");
            }
            Ending::SocketGone => tracing::warn!("ending: the socket is gone, and so is the last client"),
        }
        self.on_ending.iter().for_each(|on_ending| (on_ending.0)(ending));
    }

    fn look_at_path(&mut self, core: &Core, now: Instant) {
        let Some(path) = self.path.as_ref().filter(|_| !self.is_orphan && self.next_look <= now) else { return };
        self.next_look = now + LOOK;
        if path.is_lost() {
            self.is_orphan = true;
            core.metrics.serving.store(false, Ordering::Release);
            path.give_up();
            tracing::warn!(
                path = %path.path.display(),
                "the socket was removed or replaced: no client can find this server any more, so it ends with its last client"
            );
        }
    }
}
