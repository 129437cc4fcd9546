//! How an answer ends: its last event and status, what it took, and the code of its failure.

use serde_json::{Value, json};

use crate::inbound::fault::Fault;
use crate::message::{StopReason, Usage};

/// The last event, the status, and why the response is incomplete.
pub(super) fn ending(reason: StopReason) -> (&'static str, &'static str, Value) {
    let incomplete = |why: &str| ("response.incomplete", "incomplete", json!({ "reason": why }));
    match reason {
        StopReason::MaxTokens | StopReason::ContextWindow => incomplete("max_output_tokens"),
        StopReason::ContentFilter => incomplete("content_filter"),
        _ => ("response.completed", "completed", Value::Null),
    }
}

/// What an answer took. Every count is there, because tools take one that is not for a broken answer; a part that nobody has
/// counted is 0.
pub(super) fn counts(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cache_read_tokens.unwrap_or(0)},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens.unwrap_or(0)},
        "total_tokens": usage.input_tokens.saturating_add(usage.output_tokens),
    })
}

/// OpenAI's word for an error, by which tools decide whether to try again.
pub(super) fn code(fault: &Fault) -> &'static str {
    match fault.code() {
        "rate_limited" => "rate_limit_exceeded",
        // What is over until its window ends invites nobody to wait for that with a stream in hand.
        "budget_exceeded" if fault.retryable => "rate_limit_exceeded",
        "billing" | "budget_exceeded" => "insufficient_quota",
        _ if fault.is_too_long() => "context_length_exceeded",
        "invalid_request" | "unsupported_version" => "invalid_prompt",
        _ => "server_error",
    }
}
