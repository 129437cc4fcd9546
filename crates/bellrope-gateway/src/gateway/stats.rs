//! What an operator wants to know of each provider.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bellrope::breaker::BreakerState;
use serde::{Serialize, Serializer};

use crate::error::ProviderError;
use crate::message::Chunk;

const CODES: [&str; ProviderError::CODES.len()] = ProviderError::CODES;

/// Upper bounds of the histogram of times to the first piece; a last, open bucket follows.
pub const FIRST_PIECE_BOUNDS: [Duration; 12] = {
    const MILLIS: [u64; 12] = [10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000];
    let (mut bounds, mut at) = ([Duration::ZERO; 12], 0);
    while at < MILLIS.len() {
        bounds[at] = Duration::from_millis(MILLIS[at]);
        at += 1;
    }
    bounds
};

/// The counters of all providers, as of [`Gateway::snapshot`](crate::Gateway::snapshot).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GatewaySnapshot {
    /// Every provider, in the order of their names.
    pub providers: Vec<ProviderSnapshot>,
}

/// The counters of one provider since the gateway was set up. No text in it comes from anywhere but the configuration
/// and this program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProviderSnapshot {
    /// The provider's name.
    pub provider: String,
    /// What its breaker does with requests.
    pub breaker: BreakerState,
    /// Requests it was asked. Those of `done`, `cancelled`, `in_flight` and `failed` add up to it.
    pub requests: u64,
    /// Requests it is at work on.
    pub in_flight: u64,
    /// Answers that came whole.
    pub done: u64,
    /// Answers that nobody waited for any longer.
    pub cancelled: u64,
    /// Requests that failed, by [code](crate::ProviderError::code); all codes, also those that never came.
    pub failed: Vec<(&'static str, u64)>,
    /// Requests that its breaker refused. It was not asked.
    pub suspended: u64,
    /// Requests that its rate limit refused. It was not asked.
    pub limited: u64,
    /// Requests that went on to a fallback after this provider failed or was not asked.
    pub passed_on: u64,
    /// Pieces of answers.
    pub pieces: u64,
    /// Tokens read, as the provider counts.
    pub input_tokens: u64,
    /// Tokens written, as the provider counts.
    pub output_tokens: u64,
    /// How long it took to the first piece of an answer; of an answer that was asked for as a whole, to its end.
    pub first_piece: FirstPiece,
}

/// A histogram of times to the first piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirstPiece {
    /// How many took at most as long as [`FIRST_PIECE_BOUNDS`] say, each counted once; the last took longer.
    pub buckets: [u64; FIRST_PIECE_BOUNDS.len() + 1],
    /// The sum of all times. As JSON in whole microseconds, as `sum_us`.
    #[serde(rename = "sum_us", serialize_with = "whole_micros")]
    pub sum: Duration,
}

/// The counters themselves.
#[derive(Debug, Default)]
pub(super) struct Stats {
    begun: AtomicU64,
    over: AtomicU64,
    done: AtomicU64,
    cancelled: AtomicU64,
    failed: [AtomicU64; CODES.len()],
    suspended: AtomicU64,
    limited: AtomicU64,
    passed_on: AtomicU64,
    pieces: AtomicU64,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
    first_piece: [AtomicU64; FIRST_PIECE_BOUNDS.len() + 1],
    first_piece_sum_us: AtomicU64,
}

impl Stats {
    pub(super) fn count_begun(&self) {
        add(&self.begun, 1);
    }

    /// `settled`: whether it was already counted how it ended.
    pub(super) fn count_over(&self, settled: bool) {
        if !settled {
            add(&self.cancelled, 1);
        }
        add(&self.over, 1);
    }

    pub(super) fn count_failed(&self, code: &str) {
        // A code that a scripted provider made up counts as the provider's error.
        let at = |code: &str| CODES.iter().position(|known| *known == code);
        if let Some(at) = at(code).or_else(|| at("provider_error")) {
            add(&self.failed[at], 1);
        }
    }

    pub(super) fn count_suspended(&self) {
        add(&self.suspended, 1);
    }

    pub(super) fn count_limited(&self) {
        add(&self.limited, 1);
    }

    pub(super) fn count_passed_on(&self) {
        add(&self.passed_on, 1);
    }

    pub(super) fn count_first_piece(&self, after: Duration) {
        let bucket = FIRST_PIECE_BOUNDS.partition_point(|bound| *bound < after);
        add(&self.first_piece[bucket], 1);
        add(&self.first_piece_sum_us, micros(after));
    }

    pub(super) fn count_pieces(&self, count: u64) {
        add(&self.pieces, count);
    }

    pub(super) fn count_piece(&self, chunk: &Chunk) {
        add(&self.pieces, 1);
        match chunk {
            Chunk::Usage(usage) => {
                add(&self.input_tokens, usage.input_tokens);
                add(&self.output_tokens, usage.output_tokens);
            }
            Chunk::Done { .. } => add(&self.done, 1),
            Chunk::Error(info) => self.count_failed(&info.code),
            _ => {}
        }
    }

    pub(super) fn snapshot(&self, provider: &str, breaker: BreakerState) -> ProviderSnapshot {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        // What is over was begun before, so this order never shows more over than begun.
        let over = load(&self.over);
        let requests = load(&self.begun);
        ProviderSnapshot {
            provider: provider.to_owned(),
            breaker,
            requests,
            in_flight: requests.saturating_sub(over),
            done: load(&self.done),
            cancelled: load(&self.cancelled),
            failed: CODES.iter().zip(&self.failed).map(|(code, count)| (*code, load(count))).collect(),
            suspended: load(&self.suspended),
            limited: load(&self.limited),
            passed_on: load(&self.passed_on),
            pieces: load(&self.pieces),
            input_tokens: load(&self.input_tokens),
            output_tokens: load(&self.output_tokens),
            first_piece: FirstPiece {
                buckets: std::array::from_fn(|at| load(&self.first_piece[at])),
                sum: Duration::from_micros(load(&self.first_piece_sum_us)),
            },
        }
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}

fn whole_micros<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(micros(*time))
}

/// Adds what a provider may have made up, so it wraps rather than panics.
fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ErrorInfo, StopReason, Usage};

    #[test]
    fn times_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let stats = Stats::default();
        for ms in [0, 10, 11, 60_000, 60_001] {
            stats.count_first_piece(Duration::from_millis(ms));
        }
        let seen = stats.snapshot("x", BreakerState::Closed).first_piece;
        let mut expected = [0; FIRST_PIECE_BOUNDS.len() + 1];
        (expected[0], expected[1], expected[11], expected[12]) = (2, 1, 1, 1);
        assert_eq!((seen.buckets, seen.sum), (expected, Duration::from_millis(120_022)));
    }

    #[test]
    fn counts_that_a_provider_makes_up_harm_nobody() {
        let stats = Stats::default();
        let usage = Usage { input_tokens: u64::MAX, output_tokens: u64::MAX, ..Usage::default() };
        stats.count_piece(&Chunk::Usage(usage.clone()));
        stats.count_piece(&Chunk::Usage(usage));
        let made_up =
            ErrorInfo { code: "made\nup".into(), message: String::new(), retryable: false, ..ErrorInfo::default() };
        stats.count_piece(&Chunk::Error(made_up));
        stats.count_piece(&Chunk::Done { stop_reason: StopReason::EndTurn });
        let seen = stats.snapshot("x", BreakerState::Closed);
        assert_eq!((seen.pieces, seen.done), (4, 1));
        let failed: Vec<_> = seen.failed.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(failed, [("provider_error", 1)]);
    }
}
