//! The pieces of an answer as chunks of a stream.

use std::mem;

use bellrope::{HandlerError, server::ChunkSender};
use futures_util::StreamExt;
use serde::Serialize;

use crate::error::ProviderError;
use crate::gateway::AnswerStream;
use crate::message::{Chunk, SequencedChunk, ToolCallDelta};
use crate::text::boundary;

/// The most bytes of one chunk of a stream. A server needs `ring_bytes` of at least four times as much.
pub const MAX_CHUNK: usize = 16 * 1024;

/// Longer texts are cut. In bytes; JSON makes at most six of one, which leaves room for the rest of the chunk.
const MAX_TEXT: usize = 2 * 1024;

/// Sends an answer piece by piece, at the pace of its reader.
pub(super) async fn forward(mut pieces: AnswerStream, mut chunks: ChunkSender) -> Result<(), HandlerError> {
    let mut seq = 0;
    while let Some(piece) = pieces.next().await {
        for chunk in Parts::of(piece.chunk)?.flat_map(Cut::new) {
            let bytes = encode(&SequencedChunk { seq, chunk })?;
            if bytes.len() > MAX_CHUNK {
                let error = ProviderError::TooLarge { what: "a piece of the answer", limit: MAX_CHUNK };
                chunks.send(encode(&SequencedChunk { seq, chunk: error.into() })?).await?;
                return Ok(());
            }
            chunks.send(bytes).await?;
            seq += 1;
        }
    }
    Ok(())
}

/// A piece as chunks that are small enough to be sent, as [`forward`] makes them. One that cannot be cut is an error.
pub(super) fn cut(chunk: Chunk) -> Vec<Chunk> {
    let too_large = || ProviderError::TooLarge { what: "a piece of the answer", limit: MAX_CHUNK }.into();
    let mut chunks = Vec::with_capacity(1);
    let parts = Parts::of(chunk).unwrap_or_else(|_| Parts::One(Some(too_large())));
    for chunk in parts.flat_map(Cut::new) {
        let piece = SequencedChunk { seq: u64::MAX, chunk };
        if !encode(&piece).is_ok_and(|bytes| bytes.len() <= MAX_CHUNK) {
            chunks.push(too_large());
            break;
        }
        chunks.push(piece.chunk);
    }
    chunks
}

/// Says that the details of some reasoning do not fit into a chunk, in their place.
fn bounded(chunk: Chunk) -> Result<Chunk, HandlerError> {
    if matches!(chunk, Chunk::ReasoningDetails { .. }) && encode(&chunk)?.len() > MAX_CHUNK / 2 {
        let text = format!("the details of some reasoning were left out: they have more than {} bytes", MAX_CHUNK / 2);
        return Ok(Chunk::Notice { text });
    }
    Ok(chunk)
}

/// A piece as several, where it is a list that does not fit into a chunk.
enum Parts {
    One(Option<Chunk>),
    Many(std::vec::IntoIter<Chunk>),
}

impl Parts {
    fn of(chunk: Chunk) -> Result<Self, HandlerError> {
        let Chunk::Logprobs { tokens } = chunk else { return Ok(Self::One(Some(bounded(chunk)?))) };
        let (mut parts, mut part, mut size) = (Vec::new(), Vec::new(), 0);
        let mut is_left_out = false;
        for token in tokens {
            let takes = encode(&token)?.len() + 1;
            if takes > MAX_CHUNK / 2 {
                is_left_out = true;
                continue;
            }
            if size + takes > MAX_CHUNK / 2 {
                parts.push(Chunk::Logprobs { tokens: mem::take(&mut part) });
                size = 0;
            }
            size += takes;
            part.push(token);
        }
        if !part.is_empty() {
            parts.push(Chunk::Logprobs { tokens: part });
        }
        if is_left_out {
            let text =
                format!("the likelihood of some tokens was left out: it takes more than {} bytes", MAX_CHUNK / 2);
            parts.push(Chunk::Notice { text });
        }
        Ok(Self::Many(parts.into_iter()))
    }
}

impl Iterator for Parts {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        match self {
            Self::One(chunk) => chunk.take(),
            Self::Many(chunks) => chunks.next(),
        }
    }
}

/// A chunk in pieces whose texts are no longer than [`MAX_TEXT`]. Each byte of it is copied at most once.
struct Cut {
    /// What is left of it, but for the text.
    chunk: Option<Chunk>,
    text: String,
    /// How much of the text was handed out.
    at: usize,
}

impl Cut {
    fn new(mut chunk: Chunk) -> Self {
        let text = text_of(&mut chunk).filter(|text| text.len() > MAX_TEXT).map(mem::take).unwrap_or_default();
        Self { chunk: Some(chunk), text, at: 0 }
    }
}

impl Iterator for Cut {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let mut chunk = self.chunk.take()?;
        let rest = &self.text[self.at..];
        let piece = &rest[..boundary(rest, MAX_TEXT)];
        self.at += piece.len();
        if self.at < self.text.len() {
            self.chunk = Some(match &chunk {
                // Its first piece names it.
                Chunk::ToolCall(delta) => Chunk::ToolCall(ToolCallDelta {
                    index: delta.index,
                    id: None,
                    name: None,
                    arguments: String::new(),
                }),
                other => other.clone(),
            });
        }
        if let Some(text) = text_of(&mut chunk).filter(|_| !piece.is_empty()) {
            piece.clone_into(text);
        }
        Some(chunk)
    }
}

/// The text of a chunk that may be cut.
fn text_of(chunk: &mut Chunk) -> Option<&mut String> {
    match chunk {
        Chunk::Text { text } | Chunk::Reasoning { text } => Some(text),
        Chunk::ToolCall(delta) => Some(&mut delta.arguments),
        _ => None,
    }
}

pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, HandlerError> {
    serde_json::to_vec(value).map_err(|error| HandlerError::failure(format!("the answer cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::TokenLogprob;

    #[test]
    fn a_long_text_is_cut_between_characters_and_none_of_it_is_lost() {
        let long = "é".repeat(5000);
        for kind in [Chunk::text(&long), Chunk::reasoning(&long)] {
            let mut whole = String::new();
            for chunk in Cut::new(kind) {
                let (Chunk::Text { text } | Chunk::Reasoning { text }) = chunk else { panic!("{chunk:?}") };
                assert!(!text.is_empty() && text.len() <= MAX_TEXT);
                whole.push_str(&text);
            }
            assert_eq!(whole, long);
        }
        for whole in [Chunk::text(""), Chunk::text("short"), Chunk::Notice { text: long }] {
            assert_eq!(Cut::new(whole.clone()).collect::<Vec<_>>(), [whole]);
        }
    }

    #[test]
    fn details_of_reasoning_that_do_not_fit_into_a_chunk_are_left_out_in_words() {
        let details =
            |length| Chunk::ReasoningDetails { details: serde_json::json!({"signature": "x".repeat(length)}) };
        assert_eq!(bounded(details(100)).unwrap(), details(100));
        let left_out = bounded(details(MAX_CHUNK)).unwrap();
        assert!(matches!(&left_out, Chunk::Notice { text } if text.contains("8192 bytes")), "{left_out:?}");
    }

    #[test]
    fn a_long_list_of_tokens_is_cut_between_them_and_none_is_lost() {
        let token = |token: String| TokenLogprob { token, logprob: -0.5, bytes: None, top_logprobs: Vec::new() };
        let tokens: Vec<_> = (0..1_000).map(|at| token(at.to_string())).collect();
        let mut seen = Vec::new();
        for chunk in cut(Chunk::Logprobs { tokens: tokens.clone() }) {
            assert!(encode(&chunk).unwrap().len() <= MAX_CHUNK / 2 + 64);
            let Chunk::Logprobs { tokens } = chunk else { panic!("{chunk:?}") };
            seen.extend(tokens);
        }
        assert_eq!(seen, tokens);
        let long = cut(Chunk::Logprobs { tokens: vec![token("x".repeat(MAX_CHUNK)), token("a".into())] });
        assert!(
            matches!(&long[..], [Chunk::Logprobs { tokens }, Chunk::Notice { .. }] if tokens.len() == 1),
            "{long:?}"
        );
    }

    #[test]
    fn only_the_first_piece_of_a_tool_call_names_it() {
        let arguments = "x".repeat(MAX_TEXT + 1);
        let call = |id: Option<&str>, name: Option<&str>, arguments: &str| {
            let (id, name, arguments) = (id.map(str::to_owned), name.map(str::to_owned), arguments.to_owned());
            Chunk::ToolCall(ToolCallDelta { index: 3, id, name, arguments })
        };
        let (first, second) = arguments.split_at(MAX_TEXT);
        let expected = [call(Some("c"), Some("n"), first), call(None, None, second)];
        assert_eq!(Cut::new(call(Some("c"), Some("n"), &arguments)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_worst_text_still_fits_into_a_chunk() {
        let pieces: Vec<_> = Cut::new(Chunk::text("\u{1}".repeat(MAX_TEXT))).collect();
        let [chunk] = <[Chunk; 1]>::try_from(pieces).unwrap();
        assert!(encode(&SequencedChunk { seq: u64::MAX, chunk }).unwrap().len() <= MAX_CHUNK);
    }
}
