//! What is known of a call beyond its payload.

use std::time::Duration;

use bellrope_shm::clock;

/// What every handler is told of its call, whatever kind of handler it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallContext {
    /// The server's number for the caller's connection.
    pub(crate) connection: u64,
    /// When the answer is due at the latest, on the server's clock.
    pub(crate) deadline_us: Option<u64>,
}

impl CallContext {
    /// Time that is left for the answer, if its caller set a deadline.
    pub(crate) fn time_left(self) -> Option<Duration> {
        self.deadline_us.map(|deadline| Duration::from_micros(deadline.saturating_sub(clock::monotonic_us())))
    }
}
