//! A single prompt to be answered, and the conversation that it is.

use bellrope::breaker::Caller;
use serde::{Deserialize, Serialize};

use super::lenient;
use super::request::{ChatRequest, Message, Prompt, Role};
use super::version::{WIRE_VERSION, version, wire_version};
use crate::asker::Asker;

/// A single prompt to be answered: the payload of `ai.complete` and `ai.complete_stream`.
///
/// It is a [`ChatRequest`] with one message of the user, and is converted into one. With a `suffix` the prompt is not
/// answered but continued, up to the suffix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompletionRequest {
    /// As in [`ChatRequest::version`].
    #[serde(default = "wire_version", deserialize_with = "version")]
    pub version: u32,
    /// As in [`ChatRequest::provider`].
    #[serde(default, deserialize_with = "lenient::name", skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// As in [`ChatRequest::model`].
    #[serde(default, deserialize_with = "lenient::name", skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// As in [`ChatRequest::system`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The text to answer.
    pub prompt: String,
    /// The text that stands after the place to fill. Only providers that speak OpenAI's completions have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// As in [`ChatRequest::temperature`].
    #[serde(default, deserialize_with = "lenient::number", skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// As in [`ChatRequest::max_tokens`].
    #[serde(default, deserialize_with = "lenient::count", skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// As in [`ChatRequest::stop`].
    #[serde(default, deserialize_with = "lenient::texts", skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// As in [`ChatRequest::notes`].
    #[serde(skip)]
    pub notes: Vec<String>,
    /// As in [`ChatRequest::asker`].
    #[serde(skip)]
    pub asker: Asker,
    /// As in [`ChatRequest::caller`].
    #[serde(skip)]
    pub caller: Option<Caller>,
}

impl CompletionRequest {
    /// A request for an answer to `prompt` with everything else by default.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            version: WIRE_VERSION,
            provider: None,
            model: None,
            system: None,
            prompt: prompt.into(),
            suffix: None,
            temperature: None,
            max_tokens: None,
            stop: Vec::new(),
            notes: Vec::new(),
            asker: Asker::default(),
            caller: None,
        }
    }
}

impl From<CompletionRequest> for ChatRequest {
    fn from(request: CompletionRequest) -> Self {
        let suffix = request.suffix.filter(|suffix| !suffix.is_empty());
        let prompt = suffix.map(|suffix| Prompt { text: request.prompt.clone(), suffix: Some(suffix) });
        Self {
            prompt,
            version: request.version,
            provider: request.provider,
            model: request.model,
            system: request.system,
            messages: vec![Message::new(Role::User, request.prompt)],
            temperature: request.temperature,
            max_tokens: request.max_tokens,
            stop: request.stop,
            notes: request.notes,
            asker: request.asker,
            caller: request.caller,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_becomes_a_conversation_of_one_message() {
        let mut completion = CompletionRequest::new("fn main");
        completion.max_tokens = Some(9);
        let chat = ChatRequest::from(completion);
        assert_eq!(chat, ChatRequest { max_tokens: Some(9), ..ChatRequest::user("fn main") });
    }
}
