//! What a server says of itself: counters, its settings, and whether its loops still turn.

mod counters;
mod liveness;
mod settings;
mod snapshot;

#[cfg(feature = "tokio")]
pub(crate) use counters::{LATENCY_BOUNDS_US, OUTCOMES, Readiness};
pub use counters::{MemoryUse, Metrics};
pub(crate) use counters::{Shard, UNKNOWN};
pub use settings::Reloads;
pub use snapshot::{Snapshot, TypeSnapshot};
