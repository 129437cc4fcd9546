//! What the wire formats of all providers share.
//!
//! A format is two things: a request's body, written from what the editor asks, and a [`Translate`] that reads the events
//! of the answer. Neither knows a socket or a clock.

use std::collections::VecDeque;
use std::fmt;

use serde_json::Value;

use crate::error::{Excerpt, ProviderError};
use crate::http::Fault;
use crate::message::{Chunk, Content, Message, Part, Role};
use crate::secret::Secret;
use crate::sse::Event;

/// Whether more events are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More events belong to the answer.
    Continues,
    /// The answer is whole, and [`Chunk::Done`] was handed out.
    Ended,
}

/// Turns the events of one answer into [`Chunk`]s.
///
/// It knows no socket and no clock, so that every answer that a provider may ever give can be played to it.
pub trait Translate: fmt::Debug + Send {
    /// Takes one event in and appends what it says to `out`.
    ///
    /// # Errors
    /// The event reports an error, or cannot be read. What was appended before stays valid, and nothing may follow.
    fn event(&mut self, event: Event<'_>, out: &mut VecDeque<Chunk>) -> Result<Progress, ProviderError>;

    /// Hands out the end of an answer that has said why it stopped, though perhaps not that it is over. `false`, and
    /// nothing is handed out, if it has not.
    fn finish(&mut self, out: &mut VecDeque<Chunk>) -> bool;

    /// Takes in that the connection is at its end or broken, for `reason`, perhaps within an event.
    ///
    /// # Errors
    /// [`ProviderError::Truncated`] if the answer is not whole.
    fn end(
        &mut self,
        unfinished: Option<Event<'_>>,
        reason: Excerpt,
        out: &mut VecDeque<Chunk>,
    ) -> Result<Progress, ProviderError> {
        match unfinished.map(|event| self.event(event, out)) {
            // What does not parse is cut, which is no fault of the provider's format.
            None | Some(Ok(Progress::Continues) | Err(ProviderError::Malformed { .. })) => {}
            Some(ended) => return ended,
        }
        if self.finish(out) { Ok(Progress::Ended) } else { Err(ProviderError::Truncated { reason }) }
    }
}

/// The error that a provider reports within its stream, free of `key`.
pub(crate) fn reported(key: Option<&Secret>, error: &[u8]) -> ProviderError {
    let fault = Fault::in_body(error).unwrap_or_default();
    let excerpt = |text: &str| Secret::excerpt(key, text);
    ProviderError::Reported {
        code: fault.code.as_deref().map(excerpt),
        message: if fault.message.is_empty() { "no message".into() } else { excerpt(&fault.message) },
        status: fault.status,
        retryable: fault.is_retryable(),
    }
}

/// An event that is not what its format says, free of `key`.
pub(crate) fn malformed(key: Option<&Secret>, error: &serde_json::Error, data: &str) -> ProviderError {
    ProviderError::Malformed { reason: Secret::excerpt(key, &format!("{error} in {data}")) }
}

/// One thing that a message says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Said<'a> {
    Text(&'a str),
    Image(&'a str),
    Call { id: &'a str, name: &'a str, input: &'a Value },
    Result { id: &'a str, content: &'a str, is_error: bool },
}

/// What a message says, part by part, each known to fit its role.
pub(crate) fn said(message: &Message) -> Result<Vec<Said<'_>>, ProviderError> {
    let role = message.role;
    let parts = match &message.content {
        Content::Text(_) if role == Role::Tool => {
            return Err(invalid("a message of role tool must consist of tool_result parts"));
        }
        Content::Text(text) => return Ok(vec![Said::Text(text)]),
        Content::Parts(parts) if parts.is_empty() => return Err(invalid("a message has no content")),
        Content::Parts(parts) => parts,
    };
    let mut said = Vec::with_capacity(parts.len());
    for part in parts {
        said.push(match (part, role) {
            (Part::Text { text }, Role::System | Role::User | Role::Assistant) => Said::Text(text),
            (Part::Image { url }, Role::User) => Said::Image(url),
            (Part::ToolUse { id, name, input }, Role::Assistant) => Said::Call { id, name, input },
            (Part::ToolResult { tool_use_id, content, is_error }, Role::User | Role::Tool) => {
                Said::Result { id: tool_use_id, content, is_error: *is_error }
            }
            (Part::Text { .. }, _) => return Err(misplaced("text", role)),
            (Part::Image { .. }, _) => return Err(misplaced("an image", role)),
            (Part::ToolUse { .. }, _) => return Err(misplaced("a tool_use", role)),
            (Part::ToolResult { .. }, _) => return Err(misplaced("a tool_result", role)),
        });
    }
    Ok(said)
}

/// The role's name, which is the same in all formats that have the role.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

/// The arguments of a call as JSON text; an empty object for none.
pub(crate) fn arguments(input: &Value) -> String {
    if input.is_null() { "{}".to_owned() } else { input.to_string() }
}

pub(crate) fn invalid(reason: &str) -> ProviderError {
    ProviderError::InvalidRequest { reason: reason.into() }
}

fn misplaced(what: &str, role: Role) -> ProviderError {
    invalid(&format!("a message of role {} must not hold {what}", role_name(role)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_in_the_wrong_mouth_are_refused() {
        for (role, part) in [
            ("assistant", json!({"type": "image", "url": "data:"})),
            ("user", json!({"type": "tool_use", "id": "c", "name": "n"})),
            ("system", json!({"type": "tool_result", "tool_use_id": "c", "content": ""})),
            ("tool", json!({"type": "text", "text": "t"})),
        ] {
            let message: Message = serde_json::from_value(json!({"role": role, "content": [part]})).unwrap();
            assert_eq!(said(&message).unwrap_err().code(), "invalid_request", "{role}");
        }
        for content in [json!([]), json!("plain")] {
            let message: Message = serde_json::from_value(json!({"role": "tool", "content": content})).unwrap();
            assert_eq!(said(&message).unwrap_err().code(), "invalid_request");
        }
    }
}
