//! What chat completions and completions have in common: how the model chooses its words, and how the answer comes.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::ProviderError;
use crate::message::ChatRequest;
use crate::notes::Notes;
use crate::providers::formats::options;
use crate::providers::formats::wire_format::ProviderServer;

/// The fields, which stand among the others of a request.
#[derive(Serialize)]
pub(super) struct Sampling<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
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

/// What a stream is to have beside its pieces.
#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl<'a> Sampling<'a> {
    /// Of a request to this server, which takes temperatures up to `max_temperature`.
    pub(super) fn of(
        request: &'a ChatRequest,
        server: ProviderServer,
        max_temperature: f64,
        notes: &mut Notes,
    ) -> Result<Self, ProviderError> {
        Ok(Self {
            temperature: options::temperature(request, max_temperature, notes)?,
            top_p: options::top_p(request)?,
            top_k: request.top_k.filter(|_| !server.at_inventor),
            stop: &request.stop,
            seed: request.seed,
            presence_penalty: request.presence_penalty,
            frequency_penalty: request.frequency_penalty,
            logit_bias: Some(&request.logit_bias).filter(|bias| !bias.is_empty()),
            user: request.user.as_deref(),
            stream: true,
            stream_options: server.stream_options.then_some(StreamOptions { include_usage: true }),
        })
    }
}
