//! What the unit tests of several modules need.

use std::collections::VecDeque;

use crate::error::ProviderError;
use crate::message::{Chunk, ToolCallDelta};
use crate::providers::formats::{Progress, Translate};
use crate::sse::SseEvent;

/// What came of events: the chunks, and how the answer ended.
pub(crate) type Played = (Vec<Chunk>, Result<Progress, ProviderError>);

/// Plays events, which carry their names in their data, until one is the last; then the end of the connection. What is
/// told beside the answer is left out: it has tests of its own.
pub(crate) fn play(mut translator: impl Translate, events: &[&str]) -> Played {
    let mut out = VecDeque::new();
    let mut ended = Ok(Progress::Continues);
    for data in events {
        ended = translator.event(SseEvent { name: "message", data }, &mut out);
        if ended != Ok(Progress::Continues) {
            break;
        }
    }
    if ended == Ok(Progress::Continues) {
        ended = translator.end(None, "fin".into(), &mut out);
    }
    out.retain(|chunk| !matches!(chunk, Chunk::Notice { .. }));
    (out.into(), ended)
}

/// A piece of a tool call.
pub(crate) fn call(index: u32, id: Option<&str>, name: Option<&str>, arguments: &str) -> Chunk {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Chunk::ToolCall(ToolCallDelta { index, id: owned(id), name: owned(name), arguments: arguments.into() })
}
