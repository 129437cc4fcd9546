//! What a server says of itself: counters, its settings, and whether its loops still turn.

mod condition;
mod counters;
mod liveness;
mod overview;
mod settings;
mod snapshot;

pub use condition::{Condition, LivenessProbe};
pub(crate) use counters::{LATENCY_BOUNDS_US, OUTCOMES, Readiness, Shard, UNKNOWN};
pub use counters::{MemoryUse, Metrics};
pub use overview::{Health, Status};
pub use settings::Reloads;
pub use snapshot::{Snapshot, TypeSnapshot};
