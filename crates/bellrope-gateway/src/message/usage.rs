//! What answers take.

use serde::{Deserialize, Serialize};

/// What an answer took. Counts are the provider's own tokens.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read, those from the cache among them.
    pub input_tokens: u64,
    /// Tokens written, those of reasoning among them.
    pub output_tokens: u64,
    /// Input tokens that came from the provider's cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<u64>,
    /// Input tokens that went into the provider's cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_tokens: Option<u64>,
    /// Output tokens spent on reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_tokens: Option<u64>,
    /// The price in the provider's currency, from providers that say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_cost: Option<f64>,
    /// Which of the counts of tokens the provider did not say. It does not travel.
    #[serde(skip)]
    pub unsaid: Unsaid,
}

/// Counts that nobody said. They are 0 in [`Usage`], which they need not have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unsaid {
    /// How many tokens were read.
    pub input: bool,
    /// How many were written.
    pub output: bool,
}
