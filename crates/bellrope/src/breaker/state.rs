//! What a breaker shows of itself: its state, what it has done, and why a call was not admitted.

use std::time::Duration;

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Every call is admitted.
    #[default]
    Closed,
    /// No call is admitted, until the time is up.
    Open,
    /// A few calls are admitted as probes; how they end decides.
    HalfOpen,
}

impl BreakerState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// The changes of state there are. A closed breaker never goes half-open.
pub(super) const TRANSITIONS: [(BreakerState, BreakerState); 5] = [
    (BreakerState::Closed, BreakerState::Open),
    (BreakerState::Open, BreakerState::HalfOpen),
    (BreakerState::HalfOpen, BreakerState::Closed),
    (BreakerState::HalfOpen, BreakerState::Open),
    (BreakerState::Open, BreakerState::Closed),
];

/// The call was not admitted, and has not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the circuit breaker is open{}", advice(*retry_after))]
pub struct Rejected {
    /// How long to wait before trying again. `None`: the breaker was opened by hand and stays so.
    pub retry_after: Option<Duration>,
}

/// What a breaker has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerSnapshot {
    /// Its state.
    pub state: BreakerState,
    /// Whether it was put into this state by hand and stays there.
    pub forced: bool,
    /// Changes of state: from, to, how often.
    pub transitions: [(BreakerState, BreakerState, u64); TRANSITIONS.len()],
    /// Calls that were not admitted.
    pub rejections: u64,
}

fn advice(retry_after: Option<Duration>) -> String {
    match retry_after {
        None => ", by hand".to_owned(),
        Some(left) => format!("; try again in {:.1} s", left.as_secs_f64()),
    }
}
