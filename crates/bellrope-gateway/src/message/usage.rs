//! What answers take.

use serde::{Deserialize, Serialize};

/// The most tokens that one request or answer may have taken. A larger count is none: no model reads or writes so many, and a
/// budget would be spent by it.
pub const MOST_TOKENS: u64 = 100_000_000;

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
    /// Which of the counts of tokens the provider did not say.
    #[serde(default, skip_serializing_if = "Unsaid::is_nothing")]
    pub unsaid: Unsaid,
    /// Who answered, for the books of whoever asked on somebody's behalf: of an answer for a server of a fleet, or for the API
    /// port of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<Box<AnsweredBy>>,
}

/// A provider and its model, by the names that they have at the server that asked them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AnsweredBy {
    /// The provider's name.
    pub provider: String,
    /// The model's name, as it was asked for, or the provider's usual one. Nothing where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// Counts that nobody said. They are 0 in [`Usage`], which they need not have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Unsaid {
    /// How many tokens were read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub input: bool,
    /// How many were written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output: bool,
}

impl Unsaid {
    /// Whether everything was said.
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_said_travels_and_so_does_who_answered() {
        let by = AnsweredBy { provider: "openai".to_owned(), model: Some("usual".to_owned()) };
        let unsaid = Unsaid { output: true, ..Unsaid::default() };
        let usage = Usage { input_tokens: 5, unsaid, answered_by: Some(Box::new(by)), ..Usage::default() };
        let json = serde_json::to_string(&usage).unwrap();
        let said = r#""unsaid":{"output":true},"answered_by":{"provider":"openai","model":"usual"}}"#;
        assert_eq!(json, format!(r#"{{"input_tokens":5,"output_tokens":0,{said}"#));
        assert_eq!(serde_json::from_str::<Usage>(&json).unwrap(), usage);
        // As older servers say it.
        let old = r#"{"input_tokens":5,"output_tokens":0}"#;
        assert_eq!(serde_json::from_str::<Usage>(old).unwrap(), Usage { input_tokens: 5, ..Usage::default() });
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Usage>(old).unwrap()).unwrap(), old);
    }
}
