//! What the gateway answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::logprobs::TokenLogprob;
use super::request::Part;
use super::usage::Usage;
use super::version::{version, wire_version};
use crate::units::millis;

/// One piece of a streamed answer, told apart by `kind`.
///
/// A stream is any number of pieces and then exactly one terminal one: [`Chunk::Done`] or [`Chunk::Error`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Chunk {
    /// The answer can be gone on with if its reader is lost: the first piece of one that was asked for as
    /// [`resumable`](super::ChatRequest::resumable).
    Resumable {
        /// What [`ResumeRequest`](super::ResumeRequest) and [`CancelRequest`](super::CancelRequest) call it: 32 hexadecimal
        /// digits, and in a fleet `@` with the place of the instance that keeps it. Whoever has it, and is the same user, can
        /// read the answer.
        id: String,
    },
    /// More of the answer's text.
    Text {
        /// The text to append. Never empty.
        text: String,
    },
    /// More of what the model thinks aloud before it answers.
    Reasoning {
        /// The text to append. Never empty.
        text: String,
    },
    /// How likely the tokens of the text since the last piece of this kind were, if that was
    /// [asked for](super::ChatRequest::logprobs).
    Logprobs {
        /// The tokens in their order. Never empty.
        tokens: Vec<TokenLogprob>,
    },
    /// More of a call of a tool.
    ToolCall(ToolCallDelta),
    /// What the provider gave with a call of a tool, and wants back with it: Gemini's thought signature. After the first
    /// piece of the call.
    ToolCallExtra {
        /// Which call of this answer, as of [`ToolCallDelta::index`].
        index: u32,
        /// An object that means nothing to anybody else.
        extra_content: Value,
    },
    /// What the provider gave with the reasoning since the last piece of this kind, and wants back with it: Anthropic's
    /// signature, the encrypted content of OpenAI's responses. After the reasoning that it belongs to, of which there need
    /// not be any.
    ReasoningDetails {
        /// An object, as of [`Part::Reasoning`].
        details: Value,
    },
    /// Something to know about the answer that is no part of it: why it is late, or what of the request was left out, changed
    /// or put in other words on its way. At any place in the stream, and at most [`MAX_NOTES`](crate::MAX_NOTES) times.
    Notice {
        /// One line for the user, of at most [`MAX_NOTE`](crate::MAX_NOTE) bytes. Never empty.
        text: String,
    },
    /// What the answer took. At most one a stream, just before `done`.
    Usage(Usage),
    /// Terminal: the answer failed or broke off.
    Error(ErrorInfo),
    /// Terminal: the answer is whole.
    Done {
        /// Why the model stopped.
        stop_reason: StopReason,
    },
    /// A kind of a later version. Readers pass over it; nothing here ever sends it.
    #[serde(other)]
    Unknown,
}

impl Chunk {
    /// What the answer took, of the piece that says it.
    pub(crate) fn usage_mut(&mut self) -> Option<&mut Usage> {
        match self {
            Self::Usage(usage) => Some(usage),
            _ => None,
        }
    }

    /// A piece of the answer's text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }

    /// A piece of reasoning.
    pub fn reasoning(text: impl Into<String>) -> Self {
        Self::Reasoning { text: text.into() }
    }

    /// Whether nothing may follow this piece.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Error(_))
    }
}

/// A [`Chunk`] with its place in the stream: the payload of one chunk of `ai.chat_stream`.
///
/// ```
/// use bellrope_gateway::{Chunk, SequencedChunk};
///
/// let chunk = SequencedChunk { seq: 3, chunk: Chunk::text("Hi") };
/// let json = r#"{"seq":3,"kind":"text","text":"Hi"}"#;
/// assert_eq!(serde_json::to_string(&chunk)?, json);
/// assert_eq!(serde_json::from_str::<SequencedChunk>(json)?, chunk);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequencedChunk {
    /// 0 for the first piece of a stream, then one more for each.
    pub seq: u64,
    /// The piece.
    #[serde(flatten)]
    pub chunk: Chunk,
}

impl SequencedChunk {
    /// The piece that a chunk of a stream holds, which is JSON.
    ///
    /// ```
    /// use bellrope_gateway::{Chunk, SequencedChunk, StopReason};
    ///
    /// let piece = SequencedChunk::read(br#"{"seq":4,"kind":"done","stop_reason":"end_turn"}"#)?;
    /// assert_eq!((piece.seq, piece.chunk), (4, Chunk::Done { stop_reason: StopReason::EndTurn }));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    /// It holds none.
    pub fn read(json: &[u8]) -> serde_json::Result<Self> {
        // All go by this: each crate that has serde read the type has 40 KB of code for that.
        serde_json::from_slice(json)
    }
}

/// More of a call of a tool. Pieces of several calls may interleave; `index` tells them apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ToolCallDelta {
    /// Which call of this answer, in the order in which they began. Not dense by promise, so never an index to trust.
    pub index: u32,
    /// The call's id, in its first piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The tool's name, in its first piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More of the arguments' JSON text. It may be cut anywhere; only the whole of a call's pieces parses.
    #[serde(default)]
    pub arguments: String,
}

/// Why the model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// It had said everything, or met a stop text (not every provider tells these two apart).
    EndTurn,
    /// It met a text of [`ChatRequest::stop`](super::ChatRequest::stop).
    StopSequence,
    /// It reached the most tokens allowed.
    MaxTokens,
    /// The conversation has filled all that the model can take in.
    ContextWindow,
    /// It waits for the results of tools.
    ToolUse,
    /// It declined to answer.
    Refusal,
    /// It paused, and goes on when it is asked with what it has said: Anthropic's servers, within a long turn of their own
    /// tools.
    PauseTurn,
    /// The provider's filter cut it off.
    ContentFilter,
    /// Something else, or not said.
    #[serde(other)]
    Other,
}

/// An error in words for the editor. Safe to show and to log: bounded, without control characters and secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// The kind of error in one word: one of the codes of [`ProviderError::code`](crate::ProviderError::code).
    pub code: String,
    /// What happened, and what to do where that is known.
    pub message: String,
    /// Whether the same request may succeed when it is sent again.
    pub retryable: bool,
    /// Whether it is known that no provider had the request: said to whoever keeps books of it, as of
    /// [`Usage::answered_by`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_sent: bool,
}

/// A whole answer: what `ai.chat` and `ai.complete` return.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatResponse {
    /// The version of this message.
    #[serde(default = "wire_version", deserialize_with = "version")]
    pub version: u32,
    /// The model that was asked; absent if neither request nor configuration names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The answer's text.
    pub text: String,
    /// What the model thought aloud; often empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    /// The reasoning once more, in parts to be sent back, where the provider gave something with it that it wants back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasoning_parts: Vec<Part>,
    /// How likely the tokens of the text were, if that was asked for and the provider says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
    /// The tools it wants called, in the order in which the calls began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// What the answer took, from providers that say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Why the model stopped.
    pub stop_reason: StopReason,
    /// What of the request was left out, changed or put in other words on its way: as [`Chunk::Notice`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A whole call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ToolCall {
    /// The id that the result has to refer to, made by the gateway if the provider gave none.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments' JSON text, just as the model wrote it: it may be anything.
    pub arguments: String,
    /// What the provider gave with the call, and wants back with it: [`Part::ToolUse`](super::Part::ToolUse) has a place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra_content: Option<Value>,
}

/// A model that a provider offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The name to ask for in [`ChatRequest::model`](super::ChatRequest::model).
    pub id: String,
    /// The name of the provider that offers it.
    pub provider: String,
    /// Who made or hosts it, as the provider says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// The models of all providers: what `ai.models` returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    /// The version of this message.
    #[serde(default = "wire_version", deserialize_with = "version")]
    pub version: u32,
    /// The models, provider by provider in the order of their names.
    pub models: Vec<ModelInfo>,
    /// The providers that could not say. They hide nobody else's models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<ProviderFault>,
}

/// A provider that failed where others may have answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderFault {
    /// The provider's name.
    pub provider: String,
    /// How it failed.
    pub error: ErrorInfo,
}

/// How a provider is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderHealth {
    /// The provider's name.
    pub provider: String,
    /// Whether a request sent now can be expected to be answered.
    pub healthy: bool,
    /// How long the check took. On the wire in whole milliseconds, as `latency_ms`.
    #[serde(rename = "latency_ms", with = "millis")]
    pub latency: Duration,
    /// What is wrong, when something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
}

/// How all providers are: what `ai.health` returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// The version of this message.
    #[serde(default = "wire_version", deserialize_with = "version")]
    pub version: u32,
    /// The provider that answers requests which name none.
    pub default_provider: String,
    /// Every provider, in the order of their names.
    pub providers: Vec<ProviderHealth>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(chunk: Chunk, json: &str) {
        let chunk = SequencedChunk { seq: u64::MAX, chunk };
        assert_eq!(serde_json::to_string(&chunk).unwrap(), json);
        assert_eq!(serde_json::from_str::<SequencedChunk>(json).unwrap(), chunk);
    }

    #[test]
    fn every_kind_has_its_documented_form() {
        there_and_back(Chunk::text("é\n"), r#"{"seq":18446744073709551615,"kind":"text","text":"é\n"}"#);
        there_and_back(Chunk::reasoning("hm"), r#"{"seq":18446744073709551615,"kind":"reasoning","text":"hm"}"#);
        there_and_back(
            Chunk::Notice { text: "n".into() },
            r#"{"seq":18446744073709551615,"kind":"notice","text":"n"}"#,
        );
        there_and_back(
            Chunk::ToolCall(ToolCallDelta { index: 1, id: Some("c".into()), name: None, arguments: "{".into() }),
            r#"{"seq":18446744073709551615,"kind":"tool_call","index":1,"id":"c","arguments":"{"}"#,
        );
        there_and_back(
            Chunk::Usage(Usage { input_tokens: 1, output_tokens: 2, total_cost: Some(0.5), ..Usage::default() }),
            r#"{"seq":18446744073709551615,"kind":"usage","input_tokens":1,"output_tokens":2,"total_cost":0.5}"#,
        );
        there_and_back(
            Chunk::Error(ErrorInfo {
                code: "truncated".into(),
                message: "m".into(),
                retryable: true,
                ..ErrorInfo::default()
            }),
            r#"{"seq":18446744073709551615,"kind":"error","code":"truncated","message":"m","retryable":true}"#,
        );
        there_and_back(
            Chunk::Done { stop_reason: StopReason::MaxTokens },
            r#"{"seq":18446744073709551615,"kind":"done","stop_reason":"max_tokens"}"#,
        );
    }

    #[test]
    fn kinds_and_reasons_of_a_later_version_are_passed_over() {
        let chunk: SequencedChunk = serde_json::from_str(r#"{"seq":0,"kind":"hologram","size":[1]}"#).unwrap();
        assert_eq!(chunk.chunk, Chunk::Unknown);
        let done: Chunk = serde_json::from_str(r#"{"kind":"done","stop_reason":"bored"}"#).unwrap();
        assert_eq!(done, Chunk::Done { stop_reason: StopReason::Other });
    }
}
