//! How likely the tokens of an answer were.

use serde::{Deserialize, Serialize};

/// A token of an answer, and how likely it was, as OpenAI's formats have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token, as far as it is text.
    pub token: String,
    /// The natural logarithm of its probability: 0 or less.
    pub logprob: f64,
    /// Its bytes in UTF-8, from providers that say them: a character may be split over several tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Vec<u8>>,
    /// The likeliest tokens of this place, the likeliest first: at most
    /// [`top_logprobs`](super::ChatRequest::top_logprobs).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top_logprobs: Vec<TopLogprob>,
}

/// One of the likeliest tokens of a place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopLogprob {
    /// The token, as far as it is text.
    pub token: String,
    /// The natural logarithm of its probability.
    pub logprob: f64,
    /// Its bytes, as of [`TokenLogprob::bytes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Vec<u8>>,
}

impl TokenLogprob {
    /// About how many bytes of memory it takes.
    pub(crate) fn size(&self) -> usize {
        let one = |token: &str, bytes: Option<&Vec<u8>>| 64 + token.len() + bytes.map_or(0, Vec::len);
        let top: usize = self.top_logprobs.iter().map(|top| one(&top.token, top.bytes.as_ref())).sum();
        one(&self.token, self.bytes.as_ref()) + top
    }
}
