//! An item as it stands in an event, or in the list of all.

use serde_json::{Value, json};

use super::super::logprobs::text_part;
use super::super::tools::{Called, input_of};
use super::{Item, Kind, Status, Thought};

impl Item {
    pub(super) fn json(&self) -> Value {
        let Self { id, kind, text, tokens, status } = self;
        // An item that has only been added is empty.
        let is_begun = *status != Status::Begun || !text.is_empty();
        let status = match status {
            Status::Begun => "in_progress",
            Status::Whole => "completed",
            Status::Cut => "incomplete",
        };
        match kind {
            Kind::Message => {
                let content = if is_begun { vec![text_part(text, tokens)] } else { Vec::new() };
                json!({"type": "message", "id": id, "status": status, "role": "assistant", "content": content})
            }
            Kind::Reasoning(Thought { encrypted, .. }) => {
                let has_text = is_begun && !text.is_empty();
                let summary: Vec<_> =
                    has_text.then(|| json!({"type": "summary_text", "text": text})).into_iter().collect();
                let mut item = json!({"type": "reasoning", "id": id, "summary": summary});
                if let Some(encrypted) = encrypted {
                    item["encrypted_content"] = encrypted.as_str().into();
                }
                item
            }
            Kind::Call { call_id, called: Called { name, namespace, is_custom }, .. } => {
                let mut item = if *is_custom {
                    let input = if is_begun { input_of(text) } else { String::new() };
                    json!({"type": "custom_tool_call", "input": input})
                } else {
                    json!({"type": "function_call", "arguments": if is_begun { text } else { "" }})
                };
                item["id"] = id.as_str().into();
                item["call_id"] = call_id.as_str().into();
                item["name"] = name.as_str().into();
                item["status"] = status.into();
                if let Some(namespace) = namespace {
                    item["namespace"] = namespace.as_str().into();
                }
                item
            }
        }
    }
}
