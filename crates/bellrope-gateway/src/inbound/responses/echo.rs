//! What of a request stands in its response again, and what a request sends back of an earlier response.

use serde_json::{Map, Value};

/// What the ids of reasoning begin with that are made here.
pub(super) const OWN_REASONING: &str = "rs_own_";

/// What stands in each of several events of an answer again has no more bytes.
pub(super) const MAX_ECHO: usize = 4 * 1024;

/// Whether metadata may stand in them.
pub(super) fn is_short(metadata: &Map<String, Value>) -> bool {
    let length = |value: &Value| value.as_str().map_or(MAX_ECHO, str::len);
    metadata.iter().map(|(name, value)| name.len() + length(value)).sum::<usize>() < MAX_ECHO
}

/// What of a request stands in its response again.
#[derive(Debug, Clone, Default)]
pub(super) struct Echo {
    /// The model, as the tool calls it.
    pub(super) model: String,
    pub(super) max_output_tokens: Option<u32>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) parallel_tool_calls: Option<bool>,
    pub(super) effort: Option<String>,
    pub(super) metadata: Map<String, Value>,
    /// Whether it is kept, whether it goes on without a reader, and the id of the one that it goes on from.
    pub(super) store: bool,
    pub(super) background: bool,
    pub(super) previous: Option<String>,
    /// Whether nothing of it is to be kept at all.
    pub(super) is_private: bool,
}
