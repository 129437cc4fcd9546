//! What is counted of calls: how they end, and how long they take.

use std::time::Duration;

use bellrope_proto::frame::ErrorCode;

/// Upper bounds of the latency buckets, in microseconds. 10 is the user's own target.
pub(super) const LATENCY_BOUNDS_US: [u64; 16] =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// The same as times.
pub(crate) const LATENCY_BOUNDS: [Duration; 16] = {
    let (mut bounds, mut at) = ([Duration::ZERO; 16], 0);
    while at < bounds.len() {
        bounds[at] = Duration::from_micros(LATENCY_BOUNDS_US[at]);
        at += 1;
    }
    bounds
};

/// How calls can end, by name.
pub(crate) const OUTCOMES: [&str; 11] = [
    "ok",
    "handler_error",
    "handler_panic",
    "message_too_large",
    "deadline_exceeded",
    "cancelled",
    "unknown_message_type",
    "rejected",
    "invalid_request",
    "exhausted",
    "upstream_error",
];

/// The row of all message types that no handler has.
pub(crate) const UNKNOWN: &str = "unknown";

/// The place of an error in [`OUTCOMES`].
pub(super) fn outcome_of(code: ErrorCode) -> usize {
    match code {
        ErrorCode::HandlerPanic => 2,
        ErrorCode::MessageTooLarge => 3,
        ErrorCode::DeadlineExceeded => 4,
        ErrorCode::Cancelled => 5,
        ErrorCode::UnknownMessageType => 6,
        // Refused, whether here or where it was to go.
        ErrorCode::Rejected | ErrorCode::NotExecuted => 7,
        ErrorCode::InvalidRequest => 8,
        ErrorCode::Exhausted => 9,
        ErrorCode::Upstream | ErrorCode::Unknown => 10,
        _ => 1,
    }
}
