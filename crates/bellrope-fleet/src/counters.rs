//! What is counted of a fleet.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Counts since the start, for whoever shows them.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Calls of this server that were forwarded to the fleet.
    pub forwarded: Arc<AtomicU64>,
    /// Those of them that ended as `NotExecuted`.
    pub not_executed: Arc<AtomicU64>,
    /// Those of them that ended as `Unknown`.
    pub unknown: Arc<AtomicU64>,
    /// Calls of others that ran here.
    pub taken: Arc<AtomicU64>,
    /// Those of them that were signed, so that who asked was known.
    pub signed: Arc<AtomicU64>,
    /// Calls of others in somebody else's name, or sent a second time: they were dropped.
    pub forged: Arc<AtomicU64>,
    /// Calls of others that were refused before they ran.
    pub refused: Arc<AtomicU64>,
    /// Calls of others that were ended here because whoever had asked was gone.
    pub orphaned: Arc<AtomicU64>,
    /// Messages that were none of ours.
    pub foreign: Arc<AtomicU64>,
    /// Messages that were handed to NATS.
    pub sent: Arc<AtomicU64>,
    /// Connections to NATS that were made.
    pub links: Arc<AtomicU64>,
}

impl Counters {
    /// All of them, with the names and descriptions of their metrics.
    #[must_use]
    pub fn metrics(&self) -> [(&'static str, &'static str, Arc<AtomicU64>); 11] {
        [
            ("ipc_fleet_forwarded_total", "Calls that were forwarded to the fleet.", &self.forwarded),
            ("ipc_fleet_not_executed_total", "Forwarded calls that are proven not to have run.", &self.not_executed),
            ("ipc_fleet_unknown_total", "Forwarded calls that were lost and may have run.", &self.unknown),
            ("ipc_fleet_taken_total", "Calls from the fleet that ran here.", &self.taken),
            (
                "ipc_fleet_signed_total",
                "Calls from the fleet that ran here, and of which it is proven who asked.",
                &self.signed,
            ),
            (
                "ipc_fleet_forged_total",
                "Calls from the fleet in another's name or sent again, which were dropped.",
                &self.forged,
            ),
            ("ipc_fleet_refused_total", "Calls from the fleet that were refused before they ran.", &self.refused),
            ("ipc_fleet_orphaned_total", "Calls from the fleet whose caller was lost.", &self.orphaned),
            ("ipc_fleet_foreign_total", "Messages from NATS that could not be read.", &self.foreign),
            ("ipc_fleet_messages_total", "Messages that were handed to NATS.", &self.sent),
            ("ipc_fleet_links_total", "Connections to NATS that were made.", &self.links),
        ]
        .map(|(name, help, counter)| (name, help, Arc::clone(counter)))
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
