//! What a breaker shows of itself: its state, what it has done, and why a call was not admitted.

use std::time::Duration;

use super::caller::Caller;

/// What a breaker does with calls.
///
/// ```
/// use bellrope::breaker::BreakerState;
///
/// assert_eq!(BreakerState::ALL.map(BreakerState::name), ["closed", "open", "half_open"]);
/// ```
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
#[error("the circuit breaker is open{}{}", whose(*for_caller), advice(*retry_after))]
pub struct Rejected {
    /// Whether only this caller is refused, whose own calls failed.
    pub for_caller: bool,
    /// How long to wait before trying again. `None`: the breaker was opened by hand and stays so.
    pub retry_after: Option<Duration>,
}

/// A caller whose calls are not admitted, or are on probation, while those of others are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerSnapshot {
    /// Who.
    pub caller: Caller,
    /// Open or half-open.
    pub state: BreakerState,
    /// How long its calls are still refused. Zero while half-open.
    pub retry_after: Duration,
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
    /// Those of them that were refused to one caller, while others were admitted.
    pub caller_rejections: u64,
    /// The callers whose own breakers are open or half-open. At most 32.
    pub callers: Vec<CallerSnapshot>,
}

fn whose(for_caller: bool) -> &'static str {
    if for_caller { " for this caller alone, whose calls failed" } else { "" }
}

fn advice(retry_after: Option<Duration>) -> String {
    match retry_after {
        None => ", by hand".to_owned(),
        Some(left) => format!("; try again in {:.1} s", left.as_secs_f64()),
    }
}
