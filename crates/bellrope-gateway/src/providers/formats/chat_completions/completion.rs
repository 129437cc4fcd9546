//! A request for the continuation of a prompt: OpenAI's completions, which llama.cpp, Ollama and others have beside chat.

use serde::Serialize;
use serde_json::{Map, Value};

use super::request::StreamOptions;
use crate::error::ProviderError;
use crate::message::{ChatRequest, Prompt};
use crate::notes::Notes;
use crate::providers::formats::options;
use crate::providers::formats::said::unwritable;
use crate::providers::formats::wire_format::Server;

/// The JSON to post.
pub(crate) fn body(
    request: &ChatRequest,
    prompt: &Prompt,
    model: Option<&str>,
    server: Server,
    notes: &mut Notes,
) -> Result<Vec<u8>, ProviderError> {
    let others = ["metadata", "reasoning_effort", "thinking"];
    options::note_left_out(request, &others, "completions have no such field", notes);
    let body = Body {
        model,
        prompt: &prompt.text,
        suffix: prompt.suffix.as_deref(),
        temperature: options::temperature(request, f64::MAX, notes)?,
        top_p: options::top_p(request)?,
        top_k: request.top_k.filter(|_| !server.at_inventor),
        max_tokens: options::max_tokens(request),
        stop: &request.stop,
        seed: request.seed,
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        logit_bias: Some(&request.logit_bias).filter(|bias| !bias.is_empty()),
        user: request.user.as_deref(),
        stream: true,
        stream_options: server.stream_options.then_some(StreamOptions { include_usage: true }),
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
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logit_bias: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}
