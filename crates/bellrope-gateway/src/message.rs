//! The JSON that editor and gateway exchange.
//!
//! Every request and every unary answer carries a `version`; [`WIRE_VERSION`] is the one spoken here. Within a version
//! fields and chunk kinds are only ever added: a reader ignores the fields and the kinds that it does not know. A
//! request of a later version is refused by name rather than half understood.
//!
//! | message type | request | answer |
//! |---|---|---|
//! | `ai.chat` | [`ChatRequest`] | [`ChatResponse`] |
//! | `ai.chat_stream` | [`ChatRequest`] | a stream of [`SequencedChunk`] |
//! | `ai.complete` | [`CompletionRequest`] | [`ChatResponse`] |
//! | `ai.complete_stream` | [`CompletionRequest`] | a stream of [`SequencedChunk`] |
//! | `ai.resume` | [`ResumeRequest`] | a stream of [`SequencedChunk`] |
//! | `ai.cancel` | [`CancelRequest`] | [`CancelReport`] |
//! | `ai.embed` | [`EmbedRequest`] | [`EmbedResponse`] |
//! | `ai.models` | empty | [`ModelList`] |
//! | `ai.health` | empty | [`HealthReport`] |

mod answer;
mod completion;
mod embed;
pub mod fields;
mod from_tool;
mod kept;
pub mod lenient;
mod logprobs;
mod part;
mod request;
mod usage;
mod version;

pub use answer::{
    ChatResponse, Chunk, ErrorInfo, HealthReport, ModelInfo, ModelList, ProviderFault, ProviderHealth, SequencedChunk,
    StopReason, ToolCall, ToolCallDelta,
};
pub use completion::CompletionRequest;
pub use embed::{EmbedRequest, EmbedResponse};
pub use from_tool::FromTool;
pub use kept::{CancelReport, CancelRequest, ResumeRequest};
pub use logprobs::{TokenLogprob, TopLogprob};
pub use request::{ChatRequest, Content, Message, Part, Prompt, Role, Tool, ToolChoice};
pub use usage::{AnsweredBy, MOST_TOKENS, Unsaid, Usage};
pub use version::WIRE_VERSION;

/// The `type` in the details of reasoning that stands for an earlier part of the conversation.
pub(crate) const COMPACTION: &str = "compaction";
