//! Whether a listener serves, drains or stops.

use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// Nothing new is taken; what is under way ends.
    Draining,
    /// As before, and each connection is polled.
    Polling,
    Stopped,
}

/// Returns when the phase is such a one.
pub(super) async fn until(phases: &mut watch::Receiver<Phase>, reached: impl Fn(Phase) -> bool) {
    // That nobody can change the phase any more is as good as a stop.
    let _ = phases.wait_for(|phase| reached(*phase)).await;
}
