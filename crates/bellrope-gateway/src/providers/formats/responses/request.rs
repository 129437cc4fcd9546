//! A request in the format of OpenAI's responses.

use serde_json::{Value, json};

use crate::error::ProviderError;
use crate::message::{ChatRequest, Message, Role, Tool, ToolChoice};
use crate::providers::formats::body::Body;
use crate::providers::formats::said::{Said, arguments, invalid, role_name, said};

/// The JSON to post. Nothing of the conversation is left with the provider.
pub(crate) fn body(request: &ChatRequest, model: Option<&str>) -> Result<Vec<u8>, ProviderError> {
    if !request.stop.is_empty() {
        // Leaving them out would give another answer than was asked for.
        return Err(invalid("this provider speaks OpenAI's responses, which have no stop texts"));
    }
    let mut input = Vec::with_capacity(request.messages.len());
    for message in &request.messages {
        convert(message, &mut input)?;
    }
    let mut body = Body::default();
    body.set_some("model", model);
    body.set_some("instructions", request.system.as_deref());
    body.set("input", input);
    body.set_list("tools", &request.tools, tool);
    body.set_some("tool_choice", request.tool_choice.as_ref().map(tool_choice));
    body.set_some("temperature", request.temperature);
    body.set_some("max_output_tokens", request.max_tokens);
    body.set("stream", true);
    body.set("store", false);
    body.write()
}

/// One message becomes one or several items: calls of tools and their results are items of their own. Results go ahead
/// of what the user says, calls come after what the model said.
fn convert(message: &Message, out: &mut Vec<Value>) -> Result<(), ProviderError> {
    let text_type = if message.role == Role::Assistant { "output_text" } else { "input_text" };
    let mut parts = Vec::new();
    let mut calls = Vec::new();
    for part in said(message)? {
        match part {
            Said::Text(text) => parts.push(json!({"type": text_type, "text": text})),
            Said::Image(url) => parts.push(json!({"type": "input_image", "image_url": url})),
            Said::Call { id, name, input } => {
                let arguments = arguments(input);
                calls.push(json!({"type": "function_call", "call_id": id, "name": name, "arguments": arguments}));
            }
            Said::Result { id, content, .. } => {
                out.push(json!({"type": "function_call_output", "call_id": id, "output": content}));
            }
        }
    }
    if !parts.is_empty() {
        out.push(json!({"type": "message", "role": role_name(message.role), "content": parts}));
    }
    out.append(&mut calls);
    Ok(())
}

fn tool(tool: &Tool) -> Value {
    let Tool { name, description, parameters } = tool;
    // Strict mode, which is the default there, refuses most schemas that were not written for it.
    let mut wire = json!({"type": "function", "name": name, "parameters": parameters, "strict": false});
    if let Some(description) = description {
        wire["description"] = description.as_str().into();
    }
    wire
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Tool { name } => json!({"type": "function", "name": name}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(request: Value) -> Value {
        let request = serde_json::from_value(request).unwrap();
        serde_json::from_slice(&body(&request, Some("m")).unwrap()).unwrap()
    }

    #[test]
    fn all_options_have_the_names_of_responses() {
        let expected = json!({
            "model": "m", "instructions": "Be brief", "stream": true, "store": false,
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
            "temperature": 0.7, "max_output_tokens": 9,
            "tools": [{"type": "function", "name": "ls", "description": "lists", "strict": false,
                "parameters": {"type": "object", "properties": {}}}],
            "tool_choice": {"type": "function", "name": "ls"},
        });
        let request = json!({
            "system": "Be brief", "messages": [{"role": "user", "content": "Hi"}],
            "temperature": 0.7, "max_tokens": 9,
            "tools": [{"name": "ls", "description": "lists"}], "tool_choice": {"tool": {"name": "ls"}},
        });
        assert_eq!(sent(request), expected);
    }

    #[test]
    fn each_choice_of_tools_is_a_word() {
        for choice in ["auto", "none", "required"] {
            let body = sent(json!({"messages": [{"role": "user", "content": "Hi"}], "tool_choice": choice}));
            assert_eq!(body["tool_choice"], choice);
        }
    }

    #[test]
    fn calls_and_results_of_tools_and_images_become_items() {
        let request = json!({"messages": [
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 2}},
                {"type": "text", "text": "I add."},
            ]},
            {"role": "user", "content": [
                {"type": "text", "text": "and this?"},
                {"type": "image", "url": "data:image/png;base64,AA=="},
                {"type": "tool_result", "tool_use_id": "c1", "content": "4"},
            ]},
        ]});
        let expected = json!([
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I add."}]},
            {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{\"a\":2}"},
            {"type": "function_call_output", "call_id": "c1", "output": "4"},
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "and this?"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
            ]},
        ]);
        assert_eq!(sent(request)["input"], expected);
    }

    #[test]
    fn stop_texts_are_refused_rather_than_left_out() {
        let request = ChatRequest { stop: vec!["END".into()], ..ChatRequest::user("Hi") };
        assert_eq!(body(&request, None).unwrap_err().code(), "invalid_request");
    }
}
