//! A request in the format of Anthropic's messages.

use serde_json::{Value, json};

use crate::error::ProviderError;
use crate::message::{ChatRequest, Message, Role, Tool, ToolChoice};
use crate::providers::formats::body::Body;
use crate::providers::formats::said::{Said, invalid, role_name, said};

/// The most tokens of an answer where the request says nothing: the format demands a number.
const DEFAULT_MAX_TOKENS: u32 = 4096;

/// The JSON to post.
pub(crate) fn body(request: &ChatRequest, model: Option<&str>) -> Result<Vec<u8>, ProviderError> {
    let mut turns = Turns::default();
    turns.system.extend(request.system.as_deref());
    for message in &request.messages {
        turns.add(message)?;
    }
    if turns.messages.is_empty() {
        return Err(invalid("it has no message of user or assistant with content"));
    }
    let mut body = Body::default();
    body.set_some("model", model);
    body.set("max_tokens", request.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS));
    body.set_some("system", (!turns.system.is_empty()).then(|| turns.system.join("\n\n")));
    body.set("messages", turns.messages.into_iter().map(Turn::into_json).collect::<Value>());
    body.set_list("tools", &request.tools, tool);
    body.set_some("tool_choice", request.tool_choice.as_ref().map(tool_choice));
    body.set_some("temperature", request.temperature);
    body.set_list("stop_sequences", &request.stop, |text| text.as_str().into());
    body.set("stream", true);
    body.write()
}

/// A conversation in the form in which this format wants it: instructions apart, user and assistant in turns, results
/// of tools first in the user's turn.
#[derive(Default)]
struct Turns<'a> {
    system: Vec<&'a str>,
    messages: Vec<Turn>,
}

struct Turn {
    role: Role,
    results: Vec<Value>,
    rest: Vec<Value>,
}

impl<'a> Turns<'a> {
    fn add(&mut self, message: &'a Message) -> Result<(), ProviderError> {
        for part in said(message)? {
            match (part, message.role) {
                // An empty text is refused there, and says nothing.
                (Said::Text(""), _) => {}
                (Said::Text(text), Role::System) => self.system.push(text),
                (Said::Text(text), role) => self.turn(role).rest.push(json!({"type": "text", "text": text})),
                (Said::Image(url), role) => self.turn(role).rest.push(image(url)?),
                (Said::Call { id, name, input }, role) => {
                    let input = if input.is_null() { json!({}) } else { input.clone() };
                    let call = json!({"type": "tool_use", "id": id, "name": name, "input": input});
                    self.turn(role).rest.push(call);
                }
                (Said::Result { id, content, is_error }, _) => {
                    let mut result = json!({"type": "tool_result", "tool_use_id": id, "content": content});
                    if is_error {
                        result["is_error"] = true.into();
                    }
                    self.turn(Role::User).results.push(result);
                }
            }
        }
        Ok(())
    }

    /// The turn to add to: the last one, if it is of this role.
    fn turn(&mut self, role: Role) -> &mut Turn {
        if self.messages.last().is_none_or(|last| last.role != role) {
            self.messages.push(Turn { role, results: Vec::new(), rest: Vec::new() });
        }
        self.messages.last_mut().expect("there is one now")
    }
}

impl Turn {
    fn into_json(mut self) -> Value {
        self.results.append(&mut self.rest);
        json!({"role": role_name(self.role), "content": self.results})
    }
}

fn image(url: &str) -> Result<Value, ProviderError> {
    let source = match url.strip_prefix("data:") {
        None => json!({"type": "url", "url": url}),
        Some(data) => {
            let (media_type, data) = data
                .split_once(";base64,")
                .ok_or_else(|| invalid("an image's data URL must have the form data:TYPE;base64,DATA"))?;
            json!({"type": "base64", "media_type": media_type, "data": data})
        }
    };
    Ok(json!({"type": "image", "source": source}))
}

fn tool(tool: &Tool) -> Value {
    let Tool { name, description, parameters } = tool;
    let mut wire = json!({"name": name, "input_schema": parameters});
    if let Some(description) = description {
        wire["description"] = description.as_str().into();
    }
    wire
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!({"type": "auto"}),
        ToolChoice::None => json!({"type": "none"}),
        ToolChoice::Required => json!({"type": "any"}),
        ToolChoice::Tool { name } => json!({"type": "tool", "name": name}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(request: Value) -> Result<Value, ProviderError> {
        let request = serde_json::from_value(request).unwrap();
        Ok(serde_json::from_slice(&body(&request, Some("m"))?).unwrap())
    }

    #[test]
    fn all_options_have_anthropics_names() {
        let expected = json!({
            "model": "m", "max_tokens": 9, "system": "Be brief\n\nBe kind", "stream": true,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            "temperature": 0.7, "stop_sequences": ["END"],
            "tools": [{"name": "ls", "description": "lists", "input_schema": {"type": "object", "properties": {}}}],
            "tool_choice": {"type": "tool", "name": "ls"},
        });
        let request = json!({
            "system": "Be brief",
            "messages": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}],
            "temperature": 0.7, "max_tokens": 9, "stop": ["END"],
            "tools": [{"name": "ls", "description": "lists"}], "tool_choice": {"tool": {"name": "ls"}},
        });
        assert_eq!(sent(request).unwrap(), expected);
    }

    #[test]
    fn each_choice_of_tools_has_anthropics_word_for_it() {
        for (choice, expected) in [("auto", "auto"), ("none", "none"), ("required", "any")] {
            let body = sent(json!({"messages": [{"role": "user", "content": "Hi"}], "tool_choice": choice})).unwrap();
            assert_eq!(body["tool_choice"], json!({"type": expected}));
        }
    }

    #[test]
    fn a_number_of_tokens_is_always_named() {
        let body = sent(json!({"messages": [{"role": "user", "content": "Hi"}]})).unwrap();
        assert_eq!(body["max_tokens"], 4096);
        assert!(body.get("system").is_none() && body.get("tools").is_none());
    }

    #[test]
    fn turns_of_one_role_are_joined_with_results_of_tools_first() {
        let request = json!({"messages": [
            {"role": "assistant", "content": [
                {"type": "text", "text": ""},
                {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 2}},
                {"type": "tool_use", "id": "c2", "name": "now"},
            ]},
            {"role": "user", "content": "well?"},
            {"role": "tool", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "4"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "no clock", "is_error": true},
            ]},
            {"role": "user", "content": [
                {"type": "image", "url": "data:image/png;base64,AA=="},
                {"type": "image", "url": "https://host/a.png"},
            ]},
        ]});
        let expected = json!([
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 2}},
                {"type": "tool_use", "id": "c2", "name": "now", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "4"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "no clock", "is_error": true},
                {"type": "text", "text": "well?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                {"type": "image", "source": {"type": "url", "url": "https://host/a.png"}},
            ]},
        ]);
        assert_eq!(sent(request).unwrap()["messages"], expected);
    }

    #[test]
    fn what_this_format_cannot_say_is_refused() {
        for messages in [
            json!([{"role": "system", "content": "alone"}]),
            json!([{"role": "user", "content": ""}]),
            json!([{"role": "user", "content": [{"type": "image", "url": "data:image/svg+xml,<svg/>"}]}]),
        ] {
            assert_eq!(sent(json!({ "messages": messages })).unwrap_err().code(), "invalid_request", "{messages}");
        }
    }
}
