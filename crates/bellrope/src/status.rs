//! What a server reports: its counters, its settings, and whether its loops still turn.
//!
//! [`Status`] and [`Health`] are what an operator reads, as JSON; whoever asks a server needs no more than these.
//! `Metrics` and what comes of it are a server's own, with the feature `server`.

#[cfg(feature = "server")]
mod activity;
#[cfg(feature = "server")]
mod condition;
#[cfg(feature = "server")]
mod counters;
#[cfg(feature = "server")]
mod exhibit;
#[cfg(feature = "server")]
mod gauge;
#[cfg(feature = "server")]
mod held;
#[cfg(feature = "server")]
mod liveness;
mod operator;
#[cfg(feature = "server")]
mod outcomes;
#[cfg(feature = "server")]
mod overview;
mod panel;
mod report;
#[cfg(feature = "server")]
mod settings;
#[cfg(feature = "server")]
mod snapshot;
mod times;

#[cfg(feature = "server")]
pub use activity::{Activity, Working};
#[cfg(feature = "server")]
pub use condition::{Condition, LivenessProbe};
#[cfg(feature = "server")]
pub use counters::Metrics;
#[cfg(feature = "server")]
pub(crate) use counters::{Readiness, Shard};
#[cfg(feature = "server")]
pub use exhibit::{Exhibit, Family, SampleValue};
#[cfg(feature = "server")]
pub(crate) use gauge::Counted;
#[cfg(feature = "server")]
pub(crate) use held::LONGEST_HOLD;
pub use operator::{BREAKER, BreakerAction, BreakerRequest, Breakers, OPERATOR, OPERATOR_TYPES, STATS};
#[cfg(feature = "server")]
pub(crate) use outcomes::{LATENCY_BOUNDS, OUTCOMES, UNKNOWN};
pub use panel::{Panel, PanelFigure, PanelTable};
pub use report::{BreakerRow, Buffers, CallerRow, Counts, Health, MemoryUse, Reloads, Status, Transports, TypeRow};
#[cfg(feature = "server")]
pub use snapshot::{Snapshot, TypeSnapshot};
