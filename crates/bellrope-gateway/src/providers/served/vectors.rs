//! Vectors of texts, between OpenAI's form and that of `ai.embed`.

use serde::{Deserialize, Serialize};

use crate::apart::{LARGE, apart, no_thread};
use crate::error::{Excerpt, ProviderError};
use crate::json;
use crate::message::{EmbedRequest, EmbedResponse, WIRE_VERSION};
use crate::provider::EmbeddingRequest;
use crate::room::AnswerRoom;

/// The most bytes that a number takes as text, with what stands between two.
const NUMBER: usize = 16;
/// The most bytes of what stands around the numbers of a text.
const ROW: usize = 80;

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

/// The answer as OpenAI has it, made apart from the threads that serve others.
pub(super) async fn answered(answer: EmbedResponse, room: AnswerRoom) -> Result<Vec<u8>, ProviderError> {
    let numbers = answer.embeddings.iter().map(Vec::len).sum::<usize>();
    let size = NUMBER * numbers + ROW * answer.embeddings.len();
    room.grow_to(size)?;
    if size <= LARGE {
        return written(&answer);
    }
    let written = apart(move || {
        // As long as it is at work, whoever asked may be gone.
        let _room = room;
        written(&answer)
    });
    written.await.map_err(no_thread)?
}

fn written(answer: &EmbedResponse) -> Result<Vec<u8>, ProviderError> {
    #[derive(Serialize)]
    struct List<'a> {
        object: &'static str,
        data: Vec<Row<'a>>,
        model: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage: Option<Taken>,
    }
    #[derive(Serialize)]
    struct Row<'a> {
        object: &'static str,
        index: usize,
        embedding: &'a [f32],
    }
    #[derive(Serialize)]
    struct Taken {
        prompt_tokens: u64,
        total_tokens: u64,
    }

    let rows = answer.embeddings.iter().enumerate();
    let list = List {
        object: "list",
        data: rows.map(|(index, embedding)| Row { object: "embedding", index, embedding }).collect(),
        model: answer.model.as_deref(),
        usage: answer
            .usage
            .as_ref()
            .map(|usage| Taken { prompt_tokens: usage.input_tokens, total_tokens: usage.input_tokens }),
    };
    serde_json::to_vec(&list).map_err(|error| ProviderError::Malformed { reason: Excerpt::new(&error.to_string()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_short_as_they_are_and_within_the_room_that_is_taken_for_them() {
        let answer = |embeddings| EmbedResponse { version: WIRE_VERSION, model: None, embeddings, usage: None };
        let text = String::from_utf8(written(&answer(vec![vec![0.1, -1.0]])).unwrap()).unwrap();
        assert!(text.contains("\"embedding\":[0.1,-1.0]"), "{text}");
        let longest = vec![vec![-1.175_494_4e-38_f32, -3.402_823_5e38, f32::MIN_POSITIVE]; 1000];
        let room = NUMBER * 3 * longest.len() + ROW * longest.len();
        let size = written(&answer(longest)).unwrap().len();
        assert!(size <= room, "{size} {room}");
    }
}
