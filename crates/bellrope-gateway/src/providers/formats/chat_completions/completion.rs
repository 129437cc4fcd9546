//! A request for the continuation of a prompt: OpenAI's completions, which llama.cpp, Ollama and others have beside chat.

use serde::Serialize;

use super::sampling::Sampling;
use crate::error::ProviderError;
use crate::message::{ChatRequest, Prompt};
use crate::notes::Notes;
use crate::providers::formats::options;
use crate::providers::formats::said::unwritable;
use crate::providers::formats::wire_format::ProviderServer;

/// The JSON to post.
pub(crate) fn body(
    request: &ChatRequest,
    prompt: &Prompt,
    model: Option<&str>,
    server: ProviderServer,
    notes: &mut Notes,
) -> Result<Vec<u8>, ProviderError> {
    let others = ["metadata", "reasoning_effort", "thinking"];
    options::note_left_out(request, &others, "completions have no such field", notes);
    let body = Body {
        model,
        prompt: &prompt.text,
        suffix: prompt.suffix.as_deref(),
        max_tokens: options::max_tokens(request),
        sampling: Sampling::of(request, server, f64::MAX, notes)?,
    };
    serde_json::to_vec(&body).map_err(|error| unwritable(&error))
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    suffix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(flatten)]
    sampling: Sampling<'a>,
}
