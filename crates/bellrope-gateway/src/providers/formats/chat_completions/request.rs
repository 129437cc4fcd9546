//! A request in the format of chat completions.

use serde::Serialize;
use serde_json::Value;

use crate::error::ProviderError;
use crate::message::{ChatRequest, Message, Tool, ToolChoice};
use crate::providers::formats::said::{Said, arguments, role_name, said, unwritable};

/// The JSON to post. `is_openai`: for OpenAI's own models, the newer of which refuse `max_tokens`, while other servers
/// often know nothing else.
pub(crate) fn body(request: &ChatRequest, model: Option<&str>, is_openai: bool) -> Result<Vec<u8>, ProviderError> {
    let mut messages = Vec::with_capacity(request.messages.len() + 1);
    messages.extend(request.system.as_deref().map(|system| WireMessage::text("system", system)));
    for message in &request.messages {
        convert(message, &mut messages)?;
    }
    let (max_completion_tokens, max_tokens) =
        if is_openai { (request.max_tokens, None) } else { (None, request.max_tokens) };
    let body = Body {
        model,
        messages,
        tools: request.tools.iter().map(WireTool::new).collect(),
        tool_choice: request.tool_choice.as_ref().map(WireChoice::new),
        temperature: request.temperature,
        max_tokens,
        max_completion_tokens,
        stop: &request.stop,
        stream: true,
        stream_options: StreamOptions { include_usage: true },
    };
    serde_json::to_vec(&body).map_err(|error| unwritable(&error))
}

/// One message becomes one or several: each result of a tool is a message of its own, ahead of the rest.
fn convert<'a>(message: &'a Message, out: &mut Vec<WireMessage<'a>>) -> Result<(), ProviderError> {
    let mut parts = Vec::new();
    let mut calls = Vec::new();
    for part in said(message)? {
        match part {
            Said::Text(text) => parts.push(WirePart::Text { text }),
            Said::Image(url) => parts.push(WirePart::ImageUrl { image_url: ImageUrl { url } }),
            Said::Call { id, name, input } => calls.push(WireCall::new(id, name, input)),
            Said::Result { id, content, .. } => {
                let mut result = WireMessage::text("tool", content);
                result.tool_call_id = Some(id);
                out.push(result);
            }
        }
    }
    if !parts.is_empty() || !calls.is_empty() {
        let (role, content) = (role_name(message.role), WireContent::of(parts));
        out.push(WireMessage { role, content, tool_calls: calls, tool_call_id: None });
    }
    Ok(())
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    messages: Vec<WireMessage<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<WireChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    /// `null` for a message that only calls tools.
    content: Option<WireContent<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

impl<'a> WireMessage<'a> {
    fn text(role: &'static str, text: &'a str) -> Self {
        Self { role, content: Some(WireContent::Text(text)), tool_calls: Vec::new(), tool_call_id: None }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum WireContent<'a> {
    Text(&'a str),
    Parts(Vec<WirePart<'a>>),
}

impl<'a> WireContent<'a> {
    /// A single text goes as a string, which every server understands.
    fn of(parts: Vec<WirePart<'a>>) -> Option<Self> {
        match parts[..] {
            [] => None,
            [WirePart::Text { text }] => Some(Self::Text(text)),
            _ => Some(Self::Parts(parts)),
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WirePart<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageUrl<'a> },
}

#[derive(Serialize)]
struct ImageUrl<'a> {
    url: &'a str,
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: CalledFunction<'a>,
}

#[derive(Serialize)]
struct CalledFunction<'a> {
    name: &'a str,
    /// JSON as a string.
    arguments: String,
}

impl<'a> WireCall<'a> {
    fn new(id: &'a str, name: &'a str, input: &Value) -> Self {
        Self { id, r#type: "function", function: CalledFunction { name, arguments: arguments(input) } }
    }
}

#[derive(Serialize)]
struct WireTool<'a> {
    r#type: &'static str,
    function: &'a Tool,
}

impl<'a> WireTool<'a> {
    fn new(tool: &'a Tool) -> Self {
        Self { r#type: "function", function: tool }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum WireChoice<'a> {
    Word(&'static str),
    Function { r#type: &'static str, function: FunctionName<'a> },
}

#[derive(Serialize)]
struct FunctionName<'a> {
    name: &'a str,
}

impl<'a> WireChoice<'a> {
    fn new(choice: &'a ToolChoice) -> Self {
        match choice {
            ToolChoice::Auto => Self::Word("auto"),
            ToolChoice::None => Self::Word("none"),
            ToolChoice::Required => Self::Word("required"),
            ToolChoice::Tool { name } => Self::Function { r#type: "function", function: FunctionName { name } },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent(request: &ChatRequest, model: Option<&str>, is_openai: bool) -> Value {
        serde_json::from_slice(&body(request, model, is_openai).unwrap()).unwrap()
    }

    fn message(json: Value) -> ChatRequest {
        ChatRequest { messages: vec![serde_json::from_value(json).unwrap()], ..ChatRequest::default() }
    }

    #[test]
    fn a_plain_question_leaves_out_what_was_not_asked() {
        let expected = json!({
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": true, "stream_options": {"include_usage": true},
        });
        assert_eq!(sent(&ChatRequest::user("Hi"), None, false), expected);
    }

    #[test]
    fn each_choice_of_tools_is_a_word() {
        for choice in ["auto", "none", "required"] {
            let request = json!({"messages": [{"role": "user", "content": "Hi"}], "tool_choice": choice});
            let body = sent(&serde_json::from_value(request).unwrap(), None, false);
            assert_eq!(body["tool_choice"], choice);
        }
    }

    #[test]
    fn all_options_have_openais_names() {
        let request: ChatRequest = serde_json::from_value(json!({
            "system": "Be brief", "messages": [{"role": "user", "content": "Hi"}],
            "temperature": 0.7, "max_tokens": 9, "stop": ["END"],
            "tools": [{"name": "ls", "description": "lists"}], "tool_choice": {"tool": {"name": "ls"}},
        }))
        .unwrap();
        let mut expected = json!({
            "model": "m", "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}],
            "temperature": 0.7, "max_tokens": 9, "stop": ["END"],
            "tools": [{"type": "function", "function":
                {"name": "ls", "description": "lists", "parameters": {"type": "object", "properties": {}}}}],
            "tool_choice": {"type": "function", "function": {"name": "ls"}},
            "stream": true, "stream_options": {"include_usage": true},
        });
        assert_eq!(sent(&request, Some("m"), false), expected);
        let fields = expected.as_object_mut().unwrap();
        let most = fields.remove("max_tokens").unwrap();
        fields.insert("max_completion_tokens".into(), most);
        assert_eq!(sent(&request, Some("m"), true), expected);
    }

    #[test]
    fn tool_results_go_ahead_of_what_the_user_says() {
        let request = message(json!({"role": "user", "content": [
            {"type": "text", "text": "and this?"},
            {"type": "image", "url": "data:image/png;base64,AA=="},
            {"type": "tool_result", "tool_use_id": "c1", "content": "4"},
        ]}));
        let expected = json!([
            {"role": "tool", "content": "4", "tool_call_id": "c1"},
            {"role": "user", "content": [
                {"type": "text", "text": "and this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ]},
        ]);
        assert_eq!(sent(&request, None, false)["messages"], expected);
    }

    #[test]
    fn calls_of_tools_carry_their_arguments_as_a_string() {
        let request = message(json!({"role": "assistant", "content": [
            {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 2}},
            {"type": "tool_use", "id": "c2", "name": "now"},
        ]}));
        let expected = json!([{"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{\"a\":2}"}},
            {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
        ]}]);
        assert_eq!(sent(&request, None, false)["messages"], expected);
    }
}
