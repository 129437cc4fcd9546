//! The pieces of an answer as chunks of a stream.

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
        let mut rest = Some(bounded(piece.chunk)?);
        while let Some(mut chunk) = rest {
            rest = split_off(&mut chunk);
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
    let mut rest = Some(bounded(chunk).unwrap_or_else(|_| too_large()));
    while let Some(mut chunk) = rest {
        rest = split_off(&mut chunk);
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

/// Cuts a chunk whose text is longer than [`MAX_TEXT`], and returns what comes after the cut.
fn split_off(chunk: &mut Chunk) -> Option<Chunk> {
    let cut = |text: &mut String| {
        let at = boundary(text, MAX_TEXT);
        (at < text.len()).then(|| text.split_off(at))
    };
    match chunk {
        Chunk::Text { text } => cut(text).map(|text| Chunk::Text { text }),
        Chunk::Reasoning { text } => cut(text).map(|text| Chunk::Reasoning { text }),
        Chunk::ToolCall(delta) => {
            let arguments = cut(&mut delta.arguments)?;
            Some(Chunk::ToolCall(ToolCallDelta { index: delta.index, id: None, name: None, arguments }))
        }
        _ => None,
    }
}

pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, HandlerError> {
    serde_json::to_vec(value).map_err(|error| HandlerError::failure(format!("the answer cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_and_none_of_it_is_lost() {
        let long = "é".repeat(5000);
        for kind in [Chunk::text(&long), Chunk::reasoning(&long)] {
            let (mut whole, mut rest) = (String::new(), Some(kind));
            while let Some(mut chunk) = rest {
                rest = split_off(&mut chunk);
                let (Chunk::Text { text } | Chunk::Reasoning { text }) = chunk else { panic!("{chunk:?}") };
                assert!(!text.is_empty() && text.len() <= MAX_TEXT);
                whole.push_str(&text);
            }
            assert_eq!(whole, long);
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
    fn only_the_first_piece_of_a_tool_call_names_it() {
        let arguments = "x".repeat(MAX_TEXT + 1);
        let mut first =
            Chunk::ToolCall(ToolCallDelta { index: 3, id: Some("c".into()), name: Some("n".into()), arguments });
        let second = split_off(&mut first).unwrap();
        let expected = ToolCallDelta { index: 3, id: None, name: None, arguments: "x".into() };
        assert_eq!(second, Chunk::ToolCall(expected));
        assert!(matches!(first, Chunk::ToolCall(ToolCallDelta { id: Some(_), name: Some(_), .. })));
    }

    #[test]
    fn the_worst_text_still_fits_into_a_chunk() {
        let mut chunk = Chunk::text("\u{1}".repeat(MAX_TEXT));
        assert!(split_off(&mut chunk).is_none());
        assert!(encode(&SequencedChunk { seq: u64::MAX, chunk }).unwrap().len() <= MAX_CHUNK);
    }
}
