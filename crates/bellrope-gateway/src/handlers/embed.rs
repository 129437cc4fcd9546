//! Vectors of texts: `ai.embed`.

use bellrope::{HandlerError, server::OwnedCall};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::pieces::encode;
use super::refused::{refused, without_thread};
use super::unreadable::unreadable;
use super::weighed::weighed;
use crate::apart::{LARGE, apart, no_thread};
use crate::asker::Asker;
use crate::error::{Excerpt, ProviderError};
use crate::gateway::Gateway;
use crate::inbound::{embedding_response, odd_vectors};
use crate::json;
use crate::message::{EmbedRequest, EmbedResponse, MOST_TOKENS, Usage, WIRE_VERSION};
use crate::provider::EmbeddingRequest;
use crate::room::AnswerRoom;

/// Nothing of a request is kept as text.
const NO_TEXT: json::Place = &[""];

/// Answers a call.
pub(super) async fn embed(gateway: &Gateway, call: OwnedCall, asker: Asker) -> Result<Vec<u8>, HandlerError> {
    let room = AnswerRoom::of_call(call.room_claims());
    let (size, caller) = (call.payload().len(), call.caller());
    let (call, _room) = weighed(call, NO_TEXT).await?;
    let read = move || json::from_slice(call.payload()).map(asked);
    let read = if size > LARGE { apart(read).await.map_err(without_thread)? } else { read() };
    let asked = read.map_err(|error: serde_json::Error| unreadable(&error.to_string()))?;
    let answer = match asked {
        Ok(request) => {
            let request = EmbeddingRequest { caller: Some(caller), asker, room, ..request };
            vectors(gateway, request).await
        }
        Err(error) => Err(error),
    };
    answer.map_err(|error| refused(&error)).and_then(|response| encode(&response))
}

/// The request in OpenAI's format.
fn asked(request: EmbedRequest) -> Result<EmbeddingRequest, ProviderError> {
    let EmbedRequest { version, provider, model, input, dimensions } = request;
    if version > WIRE_VERSION {
        return Err(ProviderError::UnsupportedVersion { asked: version, known: WIRE_VERSION });
    }
    if input.is_empty() {
        return Err(ProviderError::InvalidRequest { reason: "the request has no input".into() });
    }
    let texts = Some(input.len());
    let mut fields = Map::from_iter([("input".to_owned(), Value::from(input))]);
    fields.extend(dimensions.map(|dimensions| ("dimensions".to_owned(), dimensions.into())));
    let fields = Value::Object(fields).to_string();
    let (caller, asker, key, room) = (None, Asker::default(), None, AnswerRoom::default());
    Ok(EmbeddingRequest { provider, model, fields, texts, caller, asker, key, room })
}

async fn vectors(gateway: &Gateway, request: EmbeddingRequest) -> Result<EmbedResponse, ProviderError> {
    let room = request.room.clone();
    let answer = gateway.embed(request).await?;
    // As it came, in order, as numbers, and as they are sent.
    room.grow_to(2 * answer.len())?;
    if answer.len() <= LARGE {
        return read(&answer);
    }
    let reading = move || {
        // As long as it is at work, whoever asked may be gone.
        let _room = room;
        read(&answer)
    };
    apart(reading).await.map_err(no_thread)?
}

/// The vectors of an answer in OpenAI's format.
fn read(answer: &[u8]) -> Result<EmbedResponse, ProviderError> {
    let malformed = |reason: &str| ProviderError::Malformed { reason: Excerpt::new(reason) };
    let lists = embedding_response(answer, false).map_err(|error| odd_vectors(&error))?;
    let Listed { model, data, usage } =
        serde_json::from_slice(&lists).map_err(|error| malformed(&error.to_string()))?;
    let embeddings = data.into_iter().map(|row| row.embedding).collect();
    // A side matter.
    let count = |name: &str| usage.get(name).and_then(Value::as_u64).filter(|count| *count <= MOST_TOKENS);
    let input = count("prompt_tokens").or_else(|| count("total_tokens"));
    let usage = input.map(|input_tokens| Usage { input_tokens, ..Usage::default() });
    Ok(EmbedResponse { version: WIRE_VERSION, model, embeddings, usage })
}

/// An answer in OpenAI's format.
#[derive(Deserialize)]
struct Listed {
    model: Option<String>,
    data: Vec<Row>,
    #[serde(default)]
    usage: Value,
}

#[derive(Deserialize)]
struct Row {
    embedding: Vec<f32>,
}
