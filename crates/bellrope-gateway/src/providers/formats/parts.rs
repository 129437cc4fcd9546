//! Content that comes as a part or a list of parts, which all formats have.

use std::collections::VecDeque;

use serde_json::value::RawValue;

use super::answer::PartialAnswer;
use super::calls::{Arguments, CallPiece, Place};
use crate::error::ProviderError;
use crate::json::{TextPiece, each, fields, fields_and, is_nothing, words};
use crate::message::Chunk;

/// How deep parts may lie in parts.
const MAX_DEPTH: usize = 4;

/// What plain strings are, where they stand for parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Speech {
    Text,
    Reasoning,
    Refusal,
}

/// Takes content in: a string, a part, or a list of both.
pub(super) fn content(
    answer: &mut PartialAnswer,
    content: &RawValue,
    speech: Speech,
    out: &mut VecDeque<Chunk>,
) -> Result<(), ProviderError> {
    nested(answer, content, speech, MAX_DEPTH, out)
}

/// Takes a part in that begins at `place`, as where parts are sent piece by piece.
pub(super) fn begin(
    answer: &mut PartialAnswer,
    part: &RawValue,
    place: Place,
    out: &mut VecDeque<Chunk>,
) -> Result<(), ProviderError> {
    match TextPiece::of(part) {
        Some(piece) => {
            answer.text(piece, out);
            Ok(())
        }
        None => one(answer, part, Speech::Text, Some(place), MAX_DEPTH, out),
    }
}

/// Says a string.
pub(super) fn say(answer: &mut PartialAnswer, piece: TextPiece, speech: Speech, out: &mut VecDeque<Chunk>) {
    match speech {
        Speech::Text => answer.text(piece, out),
        Speech::Reasoning => answer.reasoning(piece, out),
        Speech::Refusal => answer.refusal(piece, out),
    }
}

/// Arguments, which are either text or, at some servers, the object itself.
pub(super) fn arguments(value: Option<&RawValue>) -> Option<TextPiece> {
    value.map(|value| TextPiece::of(value).unwrap_or_else(|| value.get().to_owned().into()))
}

fn nested(
    answer: &mut PartialAnswer,
    content: &RawValue,
    speech: Speech,
    depth: usize,
    out: &mut VecDeque<Chunk>,
) -> Result<(), ProviderError> {
    if let Some(piece) = TextPiece::of(content) {
        say(answer, piece, speech, out);
        return Ok(());
    }
    let Some(depth) = depth.checked_sub(1) else {
        answer.left_out("content", content);
        return Ok(());
    };
    match content.get().as_bytes().first() {
        Some(b'[') => {
            each(content, |_, element| nested(answer, element, speech, depth, out))?;
            Ok(())
        }
        Some(b'{') => one(answer, content, speech, None, depth, out),
        _ => {
            answer.left_out("content", content);
            Ok(())
        }
    }
}

/// A part. `place`: where it is, if it only begins.
fn one(
    answer: &mut PartialAnswer,
    part: &RawValue,
    speech: Speech,
    place: Option<Place>,
    depth: usize,
    out: &mut VecDeque<Chunk>,
) -> Result<(), ProviderError> {
    let names =
        ["type", "text", "thinking", "reasoning", "content", "summary", "refusal", "value", "id", "name", "input"];
    let Some([kind, text, thinking, reasoning, content, summary, refusal, value, id, name, input]) =
        fields(part, names)
    else {
        return Ok(());
    };
    let kind = kind.and_then(words);
    let place_of_other = place.clone();
    let (said, speech) = match kind.as_deref().unwrap_or("text") {
        "text" | "output_text" | "input_text" | "text_delta" => (text.or(content).or(value), speech),
        "thinking" | "reasoning" | "reasoning_text" | "reasoning_content" | "summary_text" | "thinking_delta"
        | "reasoning.text" | "reasoning.summary" | "thought" => {
            let said = thinking.or(reasoning).or(text).or(summary.filter(|summary| !is_nothing(summary))).or(content);
            (said, Speech::Reasoning)
        }
        "refusal" => (refusal.or(text), Speech::Refusal),
        "tool_use" => {
            // Some write them as text, as OpenAI's formats do.
            let text = input.map(|input| TextPiece::of(input).map_or_else(|| input.get().to_owned(), TextPiece::alone));
            let arguments = match &place {
                Some(_) => text.map_or(Arguments::None, Arguments::Start),
                None => text.map_or(Arguments::None, Arguments::Whole),
            };
            let (id, name) = (id.and_then(words), name.and_then(words));
            let place = place.unwrap_or(Place::Latest);
            let piece = CallPiece { place, id, name, is_named: true, arguments, ..CallPiece::default() };
            return answer.call(piece, out);
        }
        // Reasoning for the provider's own eyes, which nobody misses.
        "redacted_thinking" | "reasoning.encrypted" => (None, speech),
        other => {
            answer.left_out(other, part);
            (None, speech)
        }
    };
    if let Some(place) = place_of_other {
        answer.no_call(place)?;
    }
    match said {
        Some(said) => nested(answer, said, speech, depth, out),
        None => Ok(()),
    }
}

/// What a message or a delta of one says in the fields that chat completions have; its calls are left to the caller.
/// What else it holds is named. `is_again`: whether it repeats what came in pieces, as far as that came.
pub(super) fn message<'a>(
    answer: &mut PartialAnswer,
    message: &'a RawValue,
    is_again: bool,
    out: &mut VecDeque<Chunk>,
) -> Result<[Option<&'a RawValue>; 2], ProviderError> {
    let names = [
        "content",
        "refusal",
        "reasoning_content",
        "reasoning",
        "reasoning_details",
        "thinking",
        "tool_calls",
        "function_call",
    ];
    let mut others = Vec::new();
    let found = fields_and(message, names, |name, value| {
        // The bound is that of the notes, and more.
        if others.len() < MAX_OTHERS && !SILENT.contains(&name) && !is_nothing(value) {
            others.push((name.to_owned(), value));
        }
    });
    let Some([text, refusal, reasoning_content, reasoning, details, thinking, calls, function_call]) = found else {
        // Some servers put the text itself in the place of the message.
        content(answer, message, Speech::Text, out)?;
        return Ok([None, None]);
    };
    for (name, value) in others {
        answer.left_out(&name, value);
    }
    // Some servers send the same reasoning under several names.
    let (has_reasoning, has_text) = (is_again && answer.has_reasoning(), is_again && answer.has_text());
    let aloud = [reasoning_content, reasoning, details, thinking];
    if let Some(aloud) = aloud.into_iter().flatten().find(|said| !has_reasoning && !says_nothing(said)) {
        content(answer, aloud, Speech::Reasoning, out)?;
    }
    if let Some(details) = details.filter(|details| !is_nothing(details)) {
        answer.reasoning_details(details, is_again);
    }
    if let Some(text) = text.filter(|_| !has_text) {
        content(answer, text, Speech::Text, out)?;
    }
    if let Some(refusal) = refusal.filter(|_| !has_text) {
        content(answer, refusal, Speech::Refusal, out)?;
    }
    Ok([calls, function_call])
}

/// How many unknown fields of one message are looked at.
const MAX_OTHERS: usize = 64;

/// Fields of a message that nobody misses.
const SILENT: [&str; 14] = [
    "role",
    "name",
    "id",
    "type",
    "index",
    "status",
    "phase",
    "model",
    "object",
    "created",
    "tool_call_id",
    "signature",
    "extra_content",
    "provider_specific_fields",
];

/// Whether a value is empty. A string of blanks is not: it may stand between words.
fn says_nothing(value: &RawValue) -> bool {
    TextPiece::of(value).map_or_else(|| is_nothing(value), |piece| piece.is_empty())
}
