//! The parts of a usage that OpenAI's two formats have in common.

use serde::Deserialize;

use crate::json::count;

/// What of the input is counted apart.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct InputDetails {
    #[serde(deserialize_with = "count")]
    pub(super) cached_tokens: Option<u64>,
}

/// What of the output is counted apart.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct OutputDetails {
    #[serde(deserialize_with = "count")]
    pub(super) reasoning_tokens: Option<u64>,
}
