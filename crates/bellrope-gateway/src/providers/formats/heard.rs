//! What a provider says of an answer beside its pieces.

use crate::message::Usage;

/// What events say that no chunk does, or not before the end: for whoever keeps the books of an answer that has none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Heard {
    /// What the answer has taken so far, as far as the provider has said it.
    pub usage: Option<Usage>,
    /// Whether that is its last word: said with the end of the answer, or with why there is none.
    pub is_final: bool,
    /// Bytes of text that came and cannot be shown, such as the input of a tool that is none of the gateway's.
    pub unshown_bytes: usize,
}
