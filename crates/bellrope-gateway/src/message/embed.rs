//! Vectors of texts.

use serde::{Deserialize, Serialize};

use super::lenient;
use super::usage::Usage;
use super::version::{version, wire_version};

/// Texts whose vectors are wanted: the payload of `ai.embed`.
///
/// ```
/// use bellrope_gateway::EmbedRequest;
///
/// let request: EmbedRequest = serde_json::from_str(r#"{"input":["a bell","a rope"],"dimensions":256}"#)?;
/// assert_eq!(request.input.len(), 2);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbedRequest {
    /// The version of this message.
    #[serde(default = "wire_version", deserialize_with = "version")]
    pub version: u32,
    /// As in [`ChatRequest::provider`](super::ChatRequest::provider). No fallback is asked: another model's vectors mean
    /// something else.
    #[serde(default, deserialize_with = "lenient::name", skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// As in [`ChatRequest::model`](super::ChatRequest::model).
    #[serde(default, deserialize_with = "lenient::name", skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The texts. At least one.
    pub input: Vec<String>,
    /// How many numbers a vector is to have; the model's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u32>,
}

/// The vectors: what `ai.embed` returns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbedResponse {
    /// The version of this message.
    #[serde(default = "wire_version", deserialize_with = "version")]
    pub version: u32,
    /// The model that was asked, as its provider calls it, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// One vector for each text, in their order.
    pub embeddings: Vec<Vec<f32>>,
    /// What it took, from providers that say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}
