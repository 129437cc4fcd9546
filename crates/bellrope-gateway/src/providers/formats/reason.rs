//! Why an answer stopped, in the words of all formats.

use crate::message::StopReason;

/// What a word means that is given as the reason to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The answer ended, for this reason.
    Stop(StopReason),
    /// The server failed.
    Failure,
}

impl Reason {
    /// `None` for a word that is not known: it ends nothing.
    pub(super) fn of(word: &str) -> Option<Self> {
        Some(match word.trim().to_ascii_lowercase().as_str() {
            "stop" | "end_turn" | "eos" | "eos_token" | "complete" | "completed" => Self::Stop(StopReason::EndTurn),
            "stop_sequence" => Self::Stop(StopReason::StopSequence),
            "length" | "max_tokens" | "max_output_tokens" => Self::Stop(StopReason::MaxTokens),
            "model_context_window_exceeded" | "model_length" => Self::Stop(StopReason::ContextWindow),
            "tool_calls" | "tool_call" | "tool_use" | "function_call" => Self::Stop(StopReason::ToolUse),
            "refusal" => Self::Stop(StopReason::Refusal),
            "content_filter" | "content_filtered" | "safety" | "recitation" | "blocklist" | "prohibited_content"
            | "spii" | "sensitive" => Self::Stop(StopReason::ContentFilter),
            "pause_turn" => Self::Stop(StopReason::PauseTurn),
            "error"
            | "failed"
            | "failure"
            | "fail"
            | "abort"
            | "aborted"
            | "cancelled"
            | "canceled"
            | "timeout"
            | "network_error"
            | "server_error"
            | "internal_error"
            | "insufficient_system_resource"
            | "malformed_function_call" => Self::Failure,
            _ => return None,
        })
    }
}
