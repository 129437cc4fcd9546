//! What the messages of a conversation say, in parts that every format can write.

use serde_json::Value;

use crate::error::ProviderError;
use crate::message::{Content, Message, Part, Role};

/// One thing that a message says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Said<'a> {
    Text(&'a str),
    Image(&'a str),
    Call { id: &'a str, name: &'a str, input: &'a Value },
    Result { id: &'a str, content: &'a str, is_error: bool },
}

/// What a message says, part by part, each known to fit its role.
pub(super) fn said(message: &Message) -> Result<Vec<Said<'_>>, ProviderError> {
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
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

/// The arguments of a call as JSON text; an empty object for none.
pub(super) fn arguments(input: &Value) -> String {
    if input.is_null() { "{}".to_owned() } else { input.to_string() }
}

pub(super) fn invalid(reason: &str) -> ProviderError {
    ProviderError::InvalidRequest { reason: reason.into() }
}

/// A request that cannot be written as JSON.
pub(super) fn unwritable(error: &serde_json::Error) -> ProviderError {
    invalid(&error.to_string())
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
