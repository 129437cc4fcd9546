//! Vectors of texts, between OpenAI's form and that of `ai.embed`.

use serde::Deserialize;
use serde_json::json;

use crate::error::{Excerpt, ProviderError};
use crate::json;
use crate::message::{EmbedRequest, EmbedResponse, WIRE_VERSION};
use crate::provider::EmbeddingRequest;
use crate::room::AnswerRoom;

/// The most bytes that a number takes as text.
const NUMBER: usize = 16;

/// The request as `ai.embed` has it.
pub(super) fn asked(request: &EmbeddingRequest) -> Result<EmbedRequest, ProviderError> {
    #[derive(Deserialize)]
    struct Fields {
        input: Input,
        dimensions: Option<u32>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Input {
        One(String),
        Many(Vec<String>),
    }

    let fields: Fields = json::from_slice(request.fields.as_bytes()).map_err(|_| ProviderError::InvalidRequest {
        reason: "`input` has to be a text or a list of texts where a fleet answers: tokens mean something to one model alone"
            .into(),
    })?;
    let input = match fields.input {
        Input::One(text) => vec![text],
        Input::Many(texts) => texts,
    };
    Ok(EmbedRequest {
        version: WIRE_VERSION,
        provider: request.provider.clone(),
        model: request.model.clone(),
        input,
        dimensions: fields.dimensions,
    })
}

/// The answer as OpenAI has it.
pub(super) fn answered(answer: &EmbedResponse, room: &AnswerRoom) -> Result<Vec<u8>, ProviderError> {
    room.grow_to(NUMBER * answer.embeddings.iter().map(Vec::len).sum::<usize>())?;
    let rows = answer.embeddings.iter().enumerate();
    let rows: Vec<_> =
        rows.map(|(index, vector)| json!({"object": "embedding", "index": index, "embedding": vector})).collect();
    let mut list = json!({"object": "list", "data": rows, "model": answer.model});
    if let Some(usage) = &answer.usage {
        list["usage"] = json!({"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens});
    }
    serde_json::to_vec(&list).map_err(|error| ProviderError::Malformed { reason: Excerpt::new(&error.to_string()) })
}
