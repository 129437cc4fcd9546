//! Vectors of texts: `ai.embed`.

use bellrope::{HandlerError, server::OwnedCall};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::pieces::encode;
use super::weighed::{no_thread, weighed};
use crate::apart::{LARGE, apart, no_thread as without_thread};
use crate::asker::Asker;
use crate::error::{Blame, Excerpt, ProviderError};
use crate::gateway::Gateway;
use crate::inbound::{embedding_response, odd_vectors};
use crate::json;
use crate::message::{EmbedRequest, EmbedResponse, Usage, WIRE_VERSION};
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
    let read = if size > LARGE { apart(read).await.map_err(no_thread)? } else { read() };
    let asked = read.map_err(|error| HandlerError::invalid_request(format!("the request cannot be read: {error}")))?;
    let answer = match asked {
        Ok((request, wanted)) => {
            let request = EmbeddingRequest { caller: Some(caller), asker, room, ..request };
            vectors(gateway, request, wanted).await
        }
        Err(error) => Err(error),
    };
    match answer {
        Ok(response) => encode(&response),
        Err(error @ ProviderError::NoRoom(_)) => Err(HandlerError::exhausted(format!("{}: {error}", error.code()))),
        Err(error) => {
            let text = format!("{}: {error}", error.code());
            // Each provider has a breaker of its own: one that fails must not close the way to the others.
            Err(match error.blame() {
                Blame::Caller => HandlerError::invalid_request(text),
                _ => HandlerError::upstream(text).guarded(),
            })
        }
    }
}

/// The request in OpenAI's format, and the number of its texts.
fn asked(request: EmbedRequest) -> Result<(EmbeddingRequest, usize), ProviderError> {
    let EmbedRequest { version, provider, model, input, dimensions } = request;
    if version > WIRE_VERSION {
        return Err(ProviderError::UnsupportedVersion { asked: version, known: WIRE_VERSION });
    }
    if input.is_empty() {
        return Err(ProviderError::InvalidRequest { reason: "the request has no input".into() });
    }
    let wanted = input.len();
    let mut fields = Map::from_iter([("input".to_owned(), Value::from(input))]);
    fields.extend(dimensions.map(|dimensions| ("dimensions".to_owned(), dimensions.into())));
    let fields = Value::Object(fields).to_string();
    let (caller, asker, key, room) = (None, Asker::default(), None, AnswerRoom::default());
    Ok((EmbeddingRequest { provider, model, fields, texts: Some(wanted), caller, asker, key, room }, wanted))
}

async fn vectors(gateway: &Gateway, request: EmbeddingRequest, wanted: usize) -> Result<EmbedResponse, ProviderError> {
    let room = request.room.clone();
    let answer = gateway.embed(request).await?;
    // As it came, in order, as numbers, and as they are sent.
    room.grow_to(2 * answer.len())?;
    if answer.len() <= LARGE {
        return read(&answer, wanted);
    }
    let reading = move || {
        // As long as it is at work, whoever asked may be gone.
        let _room = room;
        read(&answer, wanted)
    };
    apart(reading).await.map_err(|fault| without_thread(&fault))?
}

/// The vectors of an answer in OpenAI's format.
fn read(answer: &[u8], wanted: usize) -> Result<EmbedResponse, ProviderError> {
    let malformed = |reason: &str| ProviderError::Malformed { reason: Excerpt::new(reason) };
    let lists = embedding_response(answer, false, Some(wanted)).map_err(|error| odd_vectors(&error))?;
    let Listed { model, mut data, usage } =
        serde_json::from_slice(&lists).map_err(|error| malformed(&error.to_string()))?;
    data.sort_by_key(|row| row.index);
    let embeddings = data.into_iter().map(|row| row.embedding).collect();
    let input = usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens));
    let usage = input.map(|input_tokens| Usage { input_tokens, ..Usage::default() });
    Ok(EmbedResponse { version: WIRE_VERSION, model, embeddings, usage })
}

/// An answer in OpenAI's format.
#[derive(Deserialize)]
struct Listed {
    model: Option<String>,
    data: Vec<Row>,
    usage: Option<Counted>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    index: u64,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct Counted {
    prompt_tokens: Option<u64>,
    total_tokens: Option<u64>,
}
