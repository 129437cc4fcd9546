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
        // However it is spelt: `tool_calls`, `tool-calls`, `FINISH_REASON_TOOL_CALLS`.
        let letters = word.chars().filter(char::is_ascii_alphabetic).take(LONGEST).collect::<String>();
        let letters = letters.to_ascii_lowercase();
        let letters =
            ["finishreason", "stopreason"].iter().find_map(|begin| letters.strip_prefix(begin)).unwrap_or(&letters);
        Some(match letters {
            "stop" | "endturn" | "eos" | "eostoken" | "complete" | "completed" | "normal" => {
                Self::Stop(StopReason::EndTurn)
            }
            "stopsequence" => Self::Stop(StopReason::StopSequence),
            "length" | "maxtokens" | "maxoutputtokens" => Self::Stop(StopReason::MaxTokens),
            "modelcontextwindowexceeded" | "modellength" => Self::Stop(StopReason::ContextWindow),
            "toolcalls" | "toolcall" | "tooluse" | "functioncall" | "functioncalls" => Self::Stop(StopReason::ToolUse),
            "refusal" => Self::Stop(StopReason::Refusal),
            "contentfilter"
            | "contentfiltered"
            | "safety"
            | "imagesafety"
            | "recitation"
            | "blocklist"
            | "prohibitedcontent"
            | "spii"
            | "sensitive"
            | "guardrailintervened" => Self::Stop(StopReason::ContentFilter),
            "pauseturn" => Self::Stop(StopReason::PauseTurn),
            "insufficientsystemresource" | "unexpectedtoolcall" | "toomanytoolcalls" => Self::Failure,
            _ if FAILURES.iter().any(|stem| letters.contains(stem)) => Self::Failure,
            _ => return None,
        })
    }
}

/// Letters that are looked at.
const LONGEST: usize = 64;

/// What words have in them that mean failure, of which every server has its own.
const FAILURES: [&str; 10] =
    ["error", "fail", "abort", "cancel", "timeout", "timedout", "malformed", "exception", "overload", "unavailable"];

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 72.
    #[test]
    fn a_reason_is_known_however_it_is_spelt_and_every_word_of_failure_is_one() {
        for (words, reason) in [
            (&["stop", " STOP ", "FINISH_REASON_STOP", "end-turn", "EndTurn"][..], StopReason::EndTurn),
            (&["tool-calls", "toolCalls", "TOOL_USE", "function_calls"], StopReason::ToolUse),
            (&["MAX_TOKENS", "max-tokens"], StopReason::MaxTokens),
            (&["model_context_window_exceeded", "modelLength"], StopReason::ContextWindow),
            (&["content-filter", "guardrail_intervened", "IMAGE_SAFETY"], StopReason::ContentFilter),
            (&["stopSequence", "stop-sequence"], StopReason::StopSequence),
        ] {
            words.iter().for_each(|word| assert_eq!(Reason::of(word), Some(Reason::Stop(reason)), "{word}"));
        }
        for word in [
            "upstream_error",
            "ERROR_TOXIC",
            "generation-failed",
            "USER_CANCEL",
            "request_timed_out",
            "engine exception",
        ] {
            assert_eq!(Reason::of(word), Some(Reason::Failure), "{word}");
        }
        for word in ["", " ", "unspecified", "FINISH_REASON_UNSPECIFIED", "other", "???"] {
            assert_eq!(Reason::of(word), None, "{word}");
        }
    }
}
