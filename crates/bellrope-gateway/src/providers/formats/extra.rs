//! What a provider gives with a call of a tool and wants back with it: the `extra_content` of chat completions, in which
//! Gemini signs what the model thought. It means nothing here, so it is passed on as it is.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{self, Few};
use crate::message::Chunk;
use crate::provider::MAX_TOOL_CALLS;

/// The name of the field.
const FIELD: &[u8] = b"extra_content";

/// The longest one that is passed on, in bytes: a piece of a stream holds one.
const MAX_EXTRA: usize = 8 * 1024;

/// Appends the extra contents of the calls in an event to the pieces that were made of it, which begin at `from`. `false`: there
/// are some, and no piece of a call, which is held back: they belong to the next pieces of calls.
pub(crate) fn push_extra(data: &str, from: usize, out: &mut VecDeque<Chunk>) -> bool {
    // Hardly any event has one.
    if memchr::memmem::find(data.as_bytes(), FIELD).is_none() {
        return true;
    }
    let Ok(frame) = json::from_str::<Frame>(data) else { return true };
    let mut indices: Vec<_> = out.iter().skip(from).filter_map(index).collect();
    indices.dedup();
    let calls = frame
        .choices
        .into_iter()
        .flatten()
        .next()
        .and_then(|choice| choice.delta.or(choice.message))
        .unwrap_or_default();
    let extras: Vec<_> = calls.tool_calls.into_iter().flatten().map(|call| call.extra_content).collect();
    if indices.is_empty() && extras.iter().any(Option::is_some) {
        return false;
    }
    let mut made = Vec::new();
    for (index, extra) in indices.into_iter().zip(extras) {
        let Some(extra) = extra else { continue };
        let small = Some(extra.get()).filter(|extra| extra.len() <= MAX_EXTRA);
        made.push(match small.and_then(|extra| serde_json::from_str(extra).ok()) {
            Some(extra_content) => Chunk::ToolCallExtra { index, extra_content },
            None => {
                let text = format!("the `extra_content` of a call was left out: it has more than {MAX_EXTRA} bytes");
                Chunk::Notice { text }
            }
        });
    }
    // Nothing may follow the last piece.
    let is_piece = |chunk: &Chunk| {
        matches!(
            chunk,
            Chunk::Text { .. }
                | Chunk::Reasoning { .. }
                | Chunk::ReasoningDetails { .. }
                | Chunk::Logprobs { .. }
                | Chunk::ToolCall(_)
        )
    };
    let end = out.iter().skip(from).position(|chunk| !is_piece(chunk));
    let at = end.map_or(out.len(), |end| from + end);
    for chunk in made.into_iter().rev() {
        out.insert(at, chunk);
    }
    true
}

fn index(chunk: &Chunk) -> Option<u32> {
    match chunk {
        Chunk::ToolCall(delta) => Some(delta.index),
        _ => None,
    }
}

#[derive(Deserialize)]
struct Frame {
    choices: Option<Few<Choice, MAX_TOOL_CALLS>>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Calls>,
    message: Option<Calls>,
}

#[derive(Deserialize, Default)]
struct Calls {
    tool_calls: Option<Few<Call, MAX_TOOL_CALLS>>,
}

#[derive(Deserialize)]
struct Call {
    extra_content: Option<Box<RawValue>>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::message::StopReason;
    use crate::testing::call;

    // Fault 75.
    #[test]
    fn the_extra_content_of_each_call_follows_the_call_and_is_bounded() {
        let google = |signature: &str| json!({"google": {"thought_signature": signature}});
        let done = Chunk::Done { stop_reason: StopReason::ToolUse };
        let pieces = [Chunk::text("a"), call(0, Some("a"), Some("f"), "{}"), call(4, Some("b"), Some("f"), "{}"), done];
        let play = |extras: [Value; 2]| {
            let calls: Vec<_> = extras.into_iter().map(|extra| json!({"id": "a", "extra_content": extra})).collect();
            let data = json!({"choices": [{"delta": {"tool_calls": calls}}]}).to_string();
            let mut out = VecDeque::from(pieces.to_vec());
            push_extra(&data, 1, &mut out);
            out.into_iter().skip(3).collect::<Vec<_>>()
        };
        let extra = |index, text| Chunk::ToolCallExtra { index, extra_content: google(text) };
        assert_eq!(play([google("A"), google("B")])[..2], [extra(0, "A"), extra(4, "B")]);
        assert_eq!(play([Value::Null, google("B")])[0], extra(4, "B"));
        let long = play([google(&"x".repeat(MAX_EXTRA)), Value::Null]);
        assert!(matches!(&long[0], Chunk::Notice { text } if text.contains("extra_content")), "{long:?}");
        assert_eq!(long.len(), 2, "and the end is the end");
    }
}
