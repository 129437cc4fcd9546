//! A request in the format of OpenAI's responses.

use serde_json::{Map, Value, json};

use crate::error::ProviderError;
use crate::message::{COMPACTION, ChatRequest, ToolChoice};
use crate::notes::Notes;
use crate::providers::formats::body::Body;
use crate::providers::formats::history::{self, Run, Spoken};
use crate::providers::formats::ids::CallRules;
use crate::providers::formats::options::{self, Form};
use crate::providers::formats::said::{Call, Output, Reasoning, Said, arguments, invalid};
use crate::providers::formats::tools::{Offered, Tools, tools};
use crate::providers::formats::wire_format::ProviderServer;

/// The highest temperature.
const MAX_TEMPERATURE: f64 = 2.0;

/// The least number of tokens that OpenAI's own server takes.
const LEAST_TOKENS: u32 = 16;

/// The most characters of a tool's name at OpenAI's own server.
const LONGEST_NAME: usize = 64;

/// The most bytes of a call's id.
const LONGEST_ID: usize = 64;

/// The JSON to post. Nothing of the conversation is left with the provider.
pub(crate) fn body(
    request: &ChatRequest,
    model: Option<&str>,
    server: ProviderServer,
    notes: &mut Notes,
) -> Result<Vec<u8>, ProviderError> {
    if !request.stop.is_empty() {
        // Leaving them out would give another answer than was asked for.
        return Err(invalid("stop is set, and this provider speaks OpenAI's responses, which have no stop texts"));
    }
    let longest_name = server.at_inventor.then_some(LONGEST_NAME);
    let tools = tools(request, longest_name, notes)?;
    let rules = CallRules { longest_id: LONGEST_ID, plain_ids: false, unique_ids: true, longest_name };
    let mut input = Input::default();
    for turn in history::turns(&request.messages, rules, notes)? {
        match turn {
            history::Turn::System(said) => input.say("system", "input_text", &said, notes),
            history::Turn::User(said) => input.say("user", "input_text", &said, notes),
            history::Turn::Stray(text) => {
                input.say("user", "input_text", &[Said::Text { text: &text, cache: None }], notes);
            }
            history::Turn::Assistant(spoken) => input.speak(&spoken, notes),
        }
    }
    if input.items.is_empty() {
        return Err(invalid("messages has no message with content"));
    }
    let mut body = Body::default();
    body.set_some("model", model);
    body.set_some("instructions", request.system.as_deref().filter(|system| !system.is_empty()));
    body.set("input", input.items);
    if tools.offered.iter().any(|offered| offered.tool.cache_control.is_some()) {
        note_cache(notes);
    }
    set_tools(&mut body, tools);
    set_options(&mut body, request, server, notes)?;
    // Models that do not reason refuse it.
    let encrypted =
        (input.has_encrypted || request.reasoning_effort.is_some()).then_some("reasoning.encrypted_content");
    let logprobs = request.wants_logprobs().then_some("message.output_text.logprobs");
    let include: Vec<_> = encrypted.into_iter().chain(logprobs).collect();
    if !include.is_empty() {
        body.set("include", json!(include));
    }
    body.set_some("top_logprobs", request.top_logprobs);
    body.set("stream", true);
    body.set("store", false);
    body.write()
}

fn set_options(
    body: &mut Body,
    request: &ChatRequest,
    server: ProviderServer,
    notes: &mut Notes,
) -> Result<(), ProviderError> {
    let mut max_tokens = options::max_tokens(request);
    if let Some(few) = max_tokens.filter(|tokens| server.at_inventor && *tokens < LEAST_TOKENS) {
        notes.add(&format!("`max_tokens` {few} was sent as {LEAST_TOKENS}, the least that OpenAI's responses take"));
        max_tokens = Some(LEAST_TOKENS);
    }
    body.set_some("temperature", options::temperature(request, MAX_TEMPERATURE, notes)?);
    body.set_some("max_output_tokens", max_tokens);
    body.set_some("top_p", options::top_p(request)?);
    body.set_some("user", request.user.as_deref());
    body.set_some("service_tier", request.service_tier.as_deref());
    body.set_some("metadata", options::metadata(request, notes).cloned());
    body.set_some("reasoning", request.reasoning_effort.as_deref().map(|effort| json!({"effort": effort})));
    let format = options::response_format(request)?.map(|form| match form {
        Form::Object => json!({"type": "json_object"}),
        Form::Schema(schema) => {
            let mut format = schema.clone();
            format.insert("type".to_owned(), "json_schema".into());
            format.into()
        }
    });
    body.set_some("text", format.map(|format| Value::from(Map::from_iter([("format".to_owned(), format)]))));
    let others = ["seed", "presence_penalty", "frequency_penalty", "logit_bias", "top_k", "thinking"];
    options::note_left_out(request, &others, "OpenAI's responses have no such field", notes);
    Ok(())
}

fn set_tools(body: &mut Body, tools: Tools<'_>) {
    if !tools.offered.is_empty() {
        body.set("tools", tools.offered.into_iter().map(tool).collect::<Value>());
    }
    body.set_some("tool_choice", tools.choice.map(tool_choice));
    body.set_some("parallel_tool_calls", tools.parallel);
}

/// The items of a conversation: a message becomes one or several, because calls of tools and their results are items of
/// their own.
#[derive(Default)]
struct Input {
    items: Vec<Value>,
    has_encrypted: bool,
}

impl Input {
    fn say(&mut self, role: &str, text_type: &str, said: &[Said<'_>], notes: &mut Notes) {
        let mut parts = Vec::with_capacity(said.len());
        for part in said {
            let (part, cache) = match part {
                // It says nothing beside others.
                Said::Text { text: "", .. } if said.len() > 1 => continue,
                Said::Text { text, cache } => (json!({"type": text_type, "text": text}), cache),
                Said::Image { url, detail, cache } => {
                    let mut image = json!({"type": "input_image", "image_url": url});
                    if let Some(detail) = detail {
                        image["detail"] = (*detail).into();
                    }
                    (image, cache)
                }
            };
            if cache.is_some() {
                note_cache(notes);
            }
            parts.push(part);
        }
        if !parts.is_empty() {
            self.items.push(json!({"type": "message", "role": role, "content": parts}));
        }
    }

    fn speak(&mut self, spoken: &Spoken<'_>, notes: &mut Notes) {
        for run in spoken.runs() {
            match run {
                Run::Reasoning(reasoning) => reasoning.iter().for_each(|reasoning| self.think(reasoning, notes)),
                Run::Said(said) => {
                    let is_silent = said.iter().all(|said| matches!(said, Said::Text { text: "", .. }));
                    if !is_silent {
                        self.say("assistant", "output_text", said, notes);
                    }
                }
                Run::Calls(calls) => calls.iter().for_each(|call| self.call(call, notes)),
            }
        }
        for Call { id, output, .. } in &spoken.calls {
            if let Some(output) = output {
                if output.cache.is_some() {
                    note_cache(notes);
                }
                self.items.push(json!({"type": "function_call_output", "call_id": id, "output": result(output)}));
            }
        }
    }

    fn think(&mut self, reasoning: &Reasoning<'_>, notes: &mut Notes) {
        match thought(reasoning) {
            Some(item) => {
                self.has_encrypted = true;
                self.items.push(item);
            }
            None => notes.left_out(
                "the reasoning of earlier turns",
                "OpenAI's responses take it with their encrypted_content alone",
            ),
        }
    }

    fn call(&mut self, Call { id, name, input, extra, .. }: &Call<'_>, notes: &mut Notes) {
        if extra.is_some() {
            notes.left_out("`extra_content` of calls", "OpenAI's responses have no place for it");
        }
        let arguments = arguments(input);
        self.items.push(json!({"type": "function_call", "call_id": id, "name": name, "arguments": arguments}));
    }
}

fn note_cache(notes: &mut Notes) {
    notes.left_out("`cache_control`", "OpenAI's responses keep what they have read by themselves");
}

/// What the model thought, if it goes back there: in the form in which it came from there.
fn thought(reasoning: &Reasoning<'_>) -> Option<Value> {
    let details = reasoning.details?;
    let mut item =
        json!({"type": "reasoning", "summary": [], "encrypted_content": details.get("encrypted_content")?.as_str()?});
    if reasoning.is_compaction() {
        item = json!({"type": COMPACTION, "encrypted_content": item["encrypted_content"]});
    }
    if let Some(id) = details.get("id").and_then(Value::as_str) {
        item["id"] = id.into();
    }
    if !reasoning.text.is_empty() {
        item["summary"] = json!([{"type": "summary_text", "text": reasoning.text}]);
    }
    Some(item)
}

fn result(output: &Output<'_>) -> Value {
    let text = output.in_words();
    if output.images.is_empty() {
        return (*text).into();
    }
    let text = (!text.is_empty()).then(|| json!({"type": "input_text", "text": text}));
    let images = output.images.iter().map(|url| json!({"type": "input_image", "image_url": url}));
    text.into_iter().chain(images).collect()
}

fn tool(Offered { tool, schema }: Offered<'_>) -> Value {
    // Strict mode, which is the default there, refuses most schemas that were not written for it.
    let strict = tool.strict.unwrap_or(false);
    let mut wire = json!({"type": "function", "name": tool.name, "strict": strict});
    // Not copied: it may be large.
    wire["parameters"] = schema;
    if let Some(description) = &tool.description {
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

    const SERVER: ProviderServer = ProviderServer { at_inventor: false, message_extras: true, stream_options: true };

    fn sent(request: Value) -> Value {
        let request = serde_json::from_value(request).unwrap();
        serde_json::from_slice(&body(&request, Some("m"), SERVER, &mut Notes::default()).unwrap()).unwrap()
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
            let messages = json!([{"role": "user", "content": "Hi"}]);
            let body = sent(json!({"messages": messages, "tool_choice": choice, "tools": [{"name": "f"}]}));
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
            {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{\"a\":2}"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I add."}]},
            {"type": "function_call_output", "call_id": "c1", "output": "4"},
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "and this?"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
            ]},
        ]);
        assert_eq!(sent(request)["input"], expected);
    }

    #[test]
    fn a_turn_keeps_the_order_in_which_the_model_said_it() {
        let thought = |id: &str| json!({"type": "reasoning", "details": {"id": id, "encrypted_content": "e"}});
        let call = |id: &str| json!({"type": "tool_use", "id": id, "name": "f"});
        let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": "r"});
        let text = |text: &str| json!({"type": "text", "text": text});
        let request = json!({"messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": [thought("rs_1"), call("a"), thought("rs_2"), text("A"), text("B"), call("b")]},
            {"role": "user", "content": [result("b"), result("a")]},
        ]});
        let sent = sent(request);
        let items = sent["input"].as_array().unwrap().iter();
        let word =
            |item: &Value| ["id", "call_id", "role"].iter().find_map(|name| item[name].as_str()).unwrap().to_owned();
        assert_eq!(items.map(word).collect::<Vec<_>>(), ["user", "rs_1", "a", "rs_2", "assistant", "b", "a", "b"]);
    }

    #[test]
    fn stop_texts_are_refused_rather_than_left_out() {
        let request = ChatRequest { stop: vec!["END".into()], ..ChatRequest::user("Hi") };
        assert_eq!(body(&request, None, SERVER, &mut Notes::default()).unwrap_err().code(), "invalid_request");
    }
}
