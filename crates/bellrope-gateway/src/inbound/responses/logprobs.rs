//! The text of an answer with how likely its tokens were, as OpenAI's responses have it.

use serde_json::{Value, json};

use crate::message::TokenLogprob;

/// What asks for it, in `include`.
pub(super) const INCLUDED: &str = "message.output_text.logprobs";

/// A part of text.
pub(super) fn text_part(text: &str, tokens: &[TokenLogprob]) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": list(tokens)})
}

/// Tokens as a list, with every field that OpenAI's own clients take to be there.
pub(super) fn list(tokens: &[TokenLogprob]) -> Value {
    let bytes = |bytes: Option<&Vec<u8>>, token: &str| json!(bytes.map_or(token.as_bytes(), Vec::as_slice));
    let one = |token: &TokenLogprob| {
        let top = token.top_logprobs.iter().map(|top| {
            let bytes = bytes(top.bytes.as_ref(), &top.token);
            json!({"token": top.token, "logprob": top.logprob, "bytes": bytes})
        });
        let top: Vec<_> = top.collect();
        let bytes = bytes(token.bytes.as_ref(), &token.token);
        json!({"token": token.token, "logprob": token.logprob, "bytes": bytes, "top_logprobs": top})
    };
    tokens.iter().map(one).collect()
}
