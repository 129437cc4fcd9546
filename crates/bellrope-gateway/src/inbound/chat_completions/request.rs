//! Requests in OpenAI's form, as the gateway takes them.
//!
//! What cannot be passed on and would change the answer's form is refused by name (several choices, sound). A field that
//! is not known here is passed over and noted.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::inbound::fault::Fault;
use crate::inbound::wire::{FromText, OneOrMany, StreamOptions, model_of, read_wire, route, unknown};
use crate::message::fields::{Known, Known::All, Known::Fields, Known::Unused};
use crate::message::{ChatRequest, Content, Message, Part, Role, Tool, ToolChoice, lenient};
use crate::provider::MAX_TOOL_CALLS;
use crate::reasoning::{details_of, words_of};
use crate::text::of_data_url;

/// The fields that are passed on, or refused.
pub(in crate::inbound) const KNOWN: Known = Fields(&[
    ("model", All),
    ("messages", MESSAGE),
    ("tools", TOOL),
    ("tool_choice", All),
    ("temperature", All),
    ("max_tokens", All),
    ("max_completion_tokens", All),
    ("stop", All),
    ("stream", All),
    ("stream_options", Fields(&[("include_usage", All)])),
    ("n", All),
    ("response_format", All),
    ("functions", All),
    ("top_p", All),
    ("top_k", All),
    ("seed", All),
    ("presence_penalty", All),
    ("frequency_penalty", All),
    ("logit_bias", All),
    ("logprobs", All),
    ("top_logprobs", All),
    ("user", All),
    ("metadata", All),
    ("reasoning_effort", All),
    ("parallel_tool_calls", All),
    ("service_tier", All),
    ("store", Unused),
    ("audio", Unused),
    ("modalities", Unused),
]);

const MESSAGE: Known = Fields(&[
    ("role", All),
    (
        "content",
        Fields(&[
            ("type", All),
            ("text", All),
            ("refusal", All),
            ("image_url", Fields(&[("url", All), ("detail", All)])),
            ("file", Fields(&[("file_data", All), ("filename", All)])),
            ("cache_control", All),
        ]),
    ),
    (
        "tool_calls",
        Fields(&[
            ("id", All),
            ("index", All),
            ("type", All),
            ("function", Fields(&[("name", All), ("arguments", All)])),
            ("extra_content", All),
        ]),
    ),
    ("tool_call_id", All),
    ("name", All),
    ("tool_name", All),
    ("reasoning_content", All),
    ("reasoning", All),
    ("reasoning_details", All),
    ("refusal", All),
]);

const TOOL: Known = Fields(&[
    ("type", All),
    ("function", Fields(&[("name", All), ("description", All), ("parameters", All), ("strict", All)])),
    ("name", All),
    ("description", All),
    ("parameters", All),
    ("strict", All),
    ("cache_control", All),
]);

/// A request for a chat completion.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) chat: ChatRequest,
    /// The model, as the client calls it.
    pub(super) model: String,
    pub(super) stream: bool,
    /// Whether a stream ends with what the answer took.
    pub(super) include_usage: bool,
}

/// Reads a request. `providers`: the names that may stand before a model's name.
pub(super) fn read(body: &[u8], providers: &[String]) -> Result<Completion, Fault> {
    let wire: Wire = read_wire(body)?;
    wire.refuse_what_cannot_be_done()?;
    let model = model_of(wire.model)?;
    let (provider, asked) = route(&model, providers);
    let mut tools = wire.tools.unwrap_or_default().into_iter().map(tool).collect::<Result<_, _>>()?;
    let tool_choice = wire.tool_choice.as_ref().map(|choice| tool_choice(choice, &mut tools)).transpose()?;
    let mut notes = unknown(body, KNOWN);
    if wire.messages.iter().any(WireMessage::names_somebody) {
        notes.push(NAME_LEFT_OUT.to_owned());
    }
    let chat = ChatRequest {
        provider,
        model: asked,
        messages: messages(wire.messages)?,
        tools,
        tool_choice,
        temperature: wire.temperature,
        max_tokens: wire.max_completion_tokens.or(wire.max_tokens),
        stop: wire.stop,
        top_p: wire.top_p,
        top_k: wire.top_k,
        seed: wire.seed,
        presence_penalty: wire.presence_penalty,
        frequency_penalty: wire.frequency_penalty,
        logit_bias: wire.logit_bias,
        logprobs: wire.logprobs,
        top_logprobs: wire.top_logprobs,
        user: wire.user,
        metadata: wire.metadata,
        reasoning_effort: wire.reasoning_effort,
        parallel_tool_calls: wire.parallel_tool_calls,
        response_format: wire.response_format,
        service_tier: wire.service_tier,
        notes,
        ..ChatRequest::default()
    };
    let include_usage = wire.stream_options.is_some_and(|options| options.include_usage());
    Ok(Completion { chat, model, stream: wire.stream.unwrap_or(false), include_usage })
}

#[derive(Deserialize)]
struct Wire {
    model: Option<String>,
    messages: Vec<WireMessage>,
    tools: Option<Vec<WireTool>>,
    tool_choice: Option<Value>,
    #[serde(default, deserialize_with = "lenient::number")]
    temperature: Option<f64>,
    #[serde(default, deserialize_with = "lenient::count")]
    max_tokens: Option<u32>,
    #[serde(default, deserialize_with = "lenient::count")]
    max_completion_tokens: Option<u32>,
    #[serde(default, deserialize_with = "lenient::texts")]
    stop: Vec<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(default, deserialize_with = "lenient::count")]
    n: Option<u32>,
    response_format: Option<Value>,
    functions: Option<Value>,
    #[serde(default, deserialize_with = "lenient::number")]
    top_p: Option<f64>,
    #[serde(default, deserialize_with = "lenient::count")]
    top_k: Option<u32>,
    #[serde(default, deserialize_with = "lenient::whole")]
    seed: Option<i64>,
    #[serde(default, deserialize_with = "lenient::number")]
    presence_penalty: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    frequency_penalty: Option<f64>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    logit_bias: Map<String, Value>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    logprobs: bool,
    #[serde(default, deserialize_with = "lenient::count")]
    top_logprobs: Option<u32>,
    user: Option<String>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    metadata: Map<String, Value>,
    reasoning_effort: Option<String>,
    parallel_tool_calls: Option<bool>,
    service_tier: Option<String>,
}

impl Wire {
    fn refuse_what_cannot_be_done(&self) -> Result<(), Fault> {
        if self.messages.is_empty() {
            return Err(Fault::invalid(Some("messages"), "there are no messages"));
        }
        if self.n.is_some_and(|n| n > 1) {
            return Err(Fault::invalid(Some("n"), "one choice is made at a time; leave out n, or set it to 1"));
        }
        if self.functions.as_ref().is_some_and(|functions| !functions.is_null()) {
            return Err(Fault::invalid(Some("functions"), "functions are called tools now; use tools"));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(expecting = "a message")]
struct WireMessage {
    role: String,
    content: Option<OneOrMany<WirePart>>,
    tool_calls: Option<Vec<WireCall>>,
    tool_call_id: Option<String>,
    /// The tool of a result, in histories that have no ids: in OpenAI's word, and in Ollama's.
    #[serde(default, deserialize_with = "lenient::arguments")]
    name: Value,
    #[serde(default, deserialize_with = "lenient::arguments")]
    tool_name: Value,
    /// What the model thought in an earlier turn, under either name that servers have for it.
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    /// What goes back with that, as `OpenRouter` has it.
    #[serde(default, deserialize_with = "lenient::or_default")]
    reasoning_details: Vec<Value>,
    /// What the model said in place of an answer.
    refusal: Option<String>,
}

/// A part of a message. A string stands for a part with that text.
#[derive(Deserialize, Default)]
#[serde(expecting = "a part")]
struct WirePart {
    #[serde(default)]
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
    image_url: Option<OneOrMany<ImageUrl>>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    file: Option<File>,
    cache_control: Option<Value>,
}

#[derive(Deserialize)]
#[serde(expecting = "a file")]
struct File {
    file_data: Option<String>,
}

#[derive(Deserialize)]
#[serde(expecting = "an address of a picture")]
struct ImageUrl {
    url: String,
    detail: Option<String>,
}

#[derive(Deserialize)]
#[serde(expecting = "a call")]
struct WireCall {
    id: Option<String>,
    function: CalledFunction,
    extra_content: Option<Value>,
}

#[derive(Deserialize)]
#[serde(expecting = "a function")]
struct CalledFunction {
    name: String,
    /// Text that need not be JSON; some clients send the JSON itself.
    #[serde(default, deserialize_with = "lenient::arguments")]
    arguments: Value,
}

#[derive(Deserialize)]
#[serde(expecting = "a tool")]
struct WireTool {
    #[serde(default)]
    r#type: String,
    function: Option<OfferedFunction>,
    /// As responses have it, which some tools send here, too.
    name: Option<String>,
    description: Option<String>,
    #[serde(default)]
    parameters: Value,
    strict: Option<bool>,
    cache_control: Option<Value>,
}

#[derive(Deserialize)]
#[serde(expecting = "a function")]
struct OfferedFunction {
    name: String,
    description: Option<String>,
    #[serde(default)]
    parameters: Value,
    strict: Option<bool>,
}

/// Only of a result the name of its tool is of use.
const NAME_LEFT_OUT: &str = "`messages.name` was left out: no such field is known here";

impl WireMessage {
    fn is_result(&self) -> bool {
        matches!(&*self.role, "tool" | "function")
    }

    /// Whether it says who speaks, for which no format has a place.
    fn names_somebody(&self) -> bool {
        !(self.is_result() || self.name.is_null() && self.tool_name.is_null())
    }
}

fn messages(wire: Vec<WireMessage>) -> Result<Vec<Message>, Fault> {
    let mut messages = Vec::with_capacity(wire.len());
    // Where the calls of the last turn stand, and which of them have a result.
    let (mut turn, mut answered) = (0, HashSet::new());
    for mut wire in wire {
        if wire.is_result() {
            let called = wire.tool_call_id.take().filter(|id| !id.is_empty());
            let named = || {
                let name = wire.name.as_str().or_else(|| wire.tool_name.as_str())?;
                call_of(name, (turn, messages.get_mut(turn)?), &answered)
            };
            wire.tool_call_id = called.or_else(named);
            answered.extend(wire.tool_call_id.clone());
        } else {
            turn = messages.len();
            answered.clear();
        }
        messages.push(message(wire)?);
    }
    Ok(messages)
}

/// The id of the first call of this tool in a turn that has no result yet, for a result that names its tool alone. A call
/// without an id gets one.
fn call_of(tool: &str, (turn, message): (usize, &mut Message), answered: &HashSet<String>) -> Option<String> {
    let Content::Parts(parts) = &mut message.content else { return None };
    let calls = parts.iter_mut().filter_map(|part| match part {
        Part::ToolUse { id, name, .. } => Some((id, name)),
        _ => None,
    });
    let mut calls = calls.take(MAX_TOOL_CALLS).enumerate();
    let (at, (id, _)) = calls.find(|(_, (id, name))| *name == tool && (id.is_empty() || !answered.contains(&**id)))?;
    if id.is_empty() {
        *id = format!("call_{turn}_{at}");
    }
    Some(id.clone())
}

fn message(wire: WireMessage) -> Result<Message, Fault> {
    let content = wire.content.map(|OneOrMany(parts)| parts).unwrap_or_default();
    let role = match &*wire.role {
        // The newer name of the same thing.
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        // The older name of the same thing. A result without an id is that of the first call that has none yet.
        "tool" | "function" => return result(wire.tool_call_id.unwrap_or_default(), content),
        other => {
            let fault = format!("there is no role {other:?}; known: system, developer, user, assistant, tool");
            return Err(Fault::invalid(Some("messages"), fault));
        }
    };
    let mut parts = Vec::with_capacity(content.len());
    if role == Role::Assistant {
        let thought = wire.reasoning_content.or(wire.reasoning).unwrap_or_default();
        reasoning(thought, wire.reasoning_details, &mut parts);
    }
    for wire in content {
        parts.push(part(wire)?);
    }
    parts.extend(wire.refusal.filter(|text| !text.is_empty()).map(Part::text));
    for WireCall { id, function, extra_content } in wire.tool_calls.unwrap_or_default() {
        let CalledFunction { name, arguments: input } = function;
        parts.push(Part::ToolUse { id: id.unwrap_or_default(), name, input, extra_content });
    }
    let content = match &mut parts[..] {
        [] => Content::default(),
        [Part::Text { text, cache_control: None }] => Content::Text(std::mem::take(text)),
        _ => Content::Parts(parts),
    };
    Ok(Message { role, content })
}

/// What the model thought. Each of its details has the words that belong to it.
fn reasoning(thought: String, details: Vec<Value>, parts: &mut Vec<Part>) {
    let items: Vec<_> = details.into_iter().filter(Value::is_object).collect();
    let says_nothing = items.iter().all(|item| words_of(item).is_empty());
    let mut thought = Some(thought).filter(|thought| says_nothing && !thought.is_empty());
    // Words of their own stand before what is encrypted.
    if items.first().is_none_or(|item| item["type"] == "reasoning.encrypted") {
        parts.extend(thought.take().map(|text| Part::Reasoning { text, details: None }));
    }
    for item in items {
        let text = thought.take().unwrap_or_else(|| words_of(&item).to_owned());
        parts.push(Part::Reasoning { text, details: Some(details_of(item)) });
    }
}

/// The result of a tool.
fn result(tool_use_id: String, content: Vec<WirePart>) -> Result<Message, Fault> {
    let (mut text, mut pictures, mut cache) = (String::new(), Vec::new(), None);
    for wire in content {
        match part(wire)? {
            Part::Text { text: more, cache_control } => {
                text.push_str(&more);
                cache = cache_control.or(cache);
            }
            Part::Image { url, cache_control, .. } => {
                pictures.push(url);
                cache = cache_control.or(cache);
            }
            _ => {}
        }
    }
    let result =
        Part::ToolResult { tool_use_id, content: text, images: pictures, is_error: false, cache_control: cache };
    Ok(Message { role: Role::Tool, content: Content::Parts(vec![result]) })
}

/// A text or a picture.
fn part(wire: WirePart) -> Result<Part, Fault> {
    let WirePart { r#type: kind, text, refusal, image_url, file, cache_control } = wire;
    let data = file.filter(|_| kind == "file").and_then(|file| file.file_data);
    if let Some(text) = data.and_then(|url| of_data_url(&url)) {
        return Ok(Part::Text { text, cache_control });
    }
    let mut pictures = image_url.map(|OneOrMany(pictures)| pictures).unwrap_or_default();
    match (&*kind, text, refusal, pictures.pop()) {
        ("text" | "", Some(text), ..) | ("refusal", _, Some(text), _) => Ok(Part::Text { text, cache_control }),
        ("image_url" | "", _, _, Some(ImageUrl { url, detail })) => Ok(Part::Image { url, detail, cache_control }),
        (kind @ ("text" | "refusal" | "image_url"), ..) => {
            Err(Fault::invalid(Some("messages"), format!("a part of type {kind:?} lacks its {kind}")))
        }
        (other, ..) => {
            let fault = format!("parts of type {other:?} are not supported; known: text, image_url");
            Err(Fault::invalid(Some("messages"), fault))
        }
    }
}

fn tool(wire: WireTool) -> Result<Tool, Fault> {
    let WireTool { r#type: kind, function, name, description, parameters, strict, cache_control } = wire;
    let flat = name.map(|name| OfferedFunction { name, description, parameters, strict });
    match (&*kind, function.or(flat)) {
        ("function" | "", Some(OfferedFunction { name, description, parameters, strict })) => {
            Ok(Tool { name, description, parameters, strict, cache_control })
        }
        (kind, _) => Err(Fault::invalid(Some("tools"), format!("a tool of type {kind:?} is no function"))),
    }
}

/// The choice among tools. One among some of them leaves the others out.
fn tool_choice(wire: &Value, tools: &mut Vec<Tool>) -> Result<ToolChoice, Fault> {
    let named = |choice: &Value| {
        let name = choice.get("function").unwrap_or(choice).get("name")?;
        name.as_str().map(str::to_owned)
    };
    match wire {
        Value::String(word) => match &**word {
            "auto" => return Ok(ToolChoice::Auto),
            "none" => return Ok(ToolChoice::None),
            "required" => return Ok(ToolChoice::Required),
            _ => {}
        },
        Value::Object(choice) if choice.get("type").is_some_and(|kind| kind == "function") => {
            if let Some(name) = named(wire) {
                return Ok(ToolChoice::Tool { name });
            }
        }
        Value::Object(choice) if choice.get("type").is_some_and(|kind| kind == "allowed_tools") => {
            let allowed = choice.get("allowed_tools").unwrap_or(wire);
            let names: Vec<_> =
                allowed.get("tools").and_then(Value::as_array).into_iter().flatten().filter_map(named).collect();
            tools.retain(|tool| names.contains(&tool.name));
            let is_required = allowed.get("mode").is_some_and(|mode| mode == "required");
            return Ok(if is_required { ToolChoice::Required } else { ToolChoice::Auto });
        }
        _ => {}
    }
    Err(Fault::invalid(Some("tool_choice"), "tool_choice is none of auto, none, required and a function"))
}

impl FromText for ImageUrl {
    fn from_text(url: String) -> Self {
        Self { url, detail: None }
    }
}

impl FromText for WirePart {
    fn from_text(text: String) -> Self {
        Self { r#type: "text".to_owned(), text: Some(text), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::inbound::fault::ErrorForm;

    fn of(body: &Value) -> Result<Completion, String> {
        let providers = ["embedded".to_owned(), "openai".to_owned()];
        read(&serde_json::to_vec(body).unwrap(), &providers)
            .map_err(|fault| String::from_utf8(fault.body(ErrorForm::OpenAi)).unwrap())
    }

    #[test]
    fn a_whole_request_is_taken_over() {
        let Completion { chat, model, stream, include_usage } = of(&json!({
            "model": "openai/meta/llama",
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                ]},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}},
                    {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "no JSON"}},
                ]},
                {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "bell"}]},
            ],
            "tools": [{"type": "function", "function": {"name": "look", "strict": true}}],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
            "temperature": 0.5, "max_tokens": 1, "max_completion_tokens": 9, "stop": "\n",
            "stream": true, "stream_options": {"include_usage": true},
            "top_p": 0.1, "user": "somebody", "n": 1, "response_format": {"type": "text"}, "functions": null,
        }))
        .unwrap();
        assert_eq!((model.as_str(), stream, include_usage), ("openai/meta/llama", true, true));
        let used = |id: &str, input: &str| Part::tool_use(id, "look", input.into());
        let message = |role, parts| Message { role, content: Content::Parts(parts) };
        let expected = ChatRequest {
            provider: Some("openai".into()),
            model: Some("meta/llama".into()),
            messages: vec![
                Message::new(Role::System, "Be brief."),
                message(
                    Role::User,
                    vec![
                        Part::text("What is it?"),
                        Part::Image {
                            url: "data:image/png;base64,AA==".into(),
                            detail: Some("low".into()),
                            cache_control: None,
                        },
                    ],
                ),
                message(Role::Assistant, vec![used("c1", "{\"at\":1}"), used("c2", "no JSON")]),
                message(Role::Tool, vec![Part::tool_result("c1", "a bell")]),
            ],
            tools: vec![Tool { name: "look".into(), parameters: Value::Null, strict: Some(true), ..Tool::default() }],
            tool_choice: Some(ToolChoice::Tool { name: "look".into() }),
            temperature: Some(0.5),
            max_tokens: Some(9),
            stop: vec!["\n".into()],
            top_p: Some(0.1),
            user: Some("somebody".into()),
            response_format: Some(json!({"type": "text"})),
            ..ChatRequest::default()
        };
        assert_eq!(chat, expected);
    }

    // Fault 75.
    #[test]
    fn a_field_that_is_not_known_here_is_noted_and_what_is_known_is_not() {
        let hi = json!([{"role": "user", "content": "hi", "name": "Bo"}]);
        let asked = of(&json!({"messages": hi, "verbosity": "low", "store": false, "n": 1, "seed": 7})).unwrap();
        let mut notes = asked.chat.notes;
        // The order of the fields is that of the build's maps.
        notes.sort_unstable();
        let expected =
            ["`messages.name`", "`verbosity`"].map(|name| format!("{name} was left out: no such field is known here"));
        assert_eq!((notes, asked.chat.seed), (expected.to_vec(), Some(7)));
    }

    // Fault 74.
    #[test]
    fn what_clients_write_in_odd_ways_is_read_as_they_mean_it() {
        let chat = of(&json!({
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": "https://host/a.png"}]},
                {"role": "assistant", "content": null, "refusal": null, "reasoning_content": "I look.", "tool_calls": [
                    {"function": {"name": "f", "arguments": {"a": 1}}, "extra_content": {"google": {}}},
                    {"id": "c", "function": {"name": "f"}},
                ]},
                {"role": "tool", "content": [
                    {"type": "text", "text": "seen"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                ]},
                {"role": "assistant", "content": {"type": "text", "text": "so"}},
                {"role": "assistant", "refusal": "No."},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": null}}],
            "max_tokens": "100", "temperature": "0.5", "stop": [null, ""], "n": 0, "tool_choice": null,
        }))
        .unwrap()
        .chat;
        assert_eq!((chat.max_tokens, chat.temperature, chat.stop.len(), chat.n), (Some(100), Some(0.5), 0, None));
        let [picture, called, result, one, refused] = &chat.messages[..] else { panic!("{chat:?}") };
        assert_eq!(picture.content, Content::Parts(vec![Part::image("https://host/a.png")]));
        let expected = vec![
            Part::Reasoning { text: "I look.".into(), details: None },
            Part::ToolUse {
                id: String::new(),
                name: "f".into(),
                input: json!({"a": 1}),
                extra_content: Some(json!({"google": {}})),
            },
            Part::tool_use("c", "f", Value::Null),
        ];
        assert_eq!(called.content, Content::Parts(expected));
        let Content::Parts(parts) = &result.content else { panic!("{result:?}") };
        let images = vec!["data:image/png;base64,AA==".to_owned()];
        let expected = Part::ToolResult {
            tool_use_id: String::new(),
            content: "seen".into(),
            images,
            is_error: false,
            cache_control: None,
        };
        assert_eq!(parts[..], [expected]);
        assert_eq!((&one.content, &refused.content), (&Content::Text("so".into()), &Content::Text("No.".into())));
    }

    // Row 15.
    #[test]
    fn tools_and_parts_in_other_forms_are_read_as_they_are_meant() {
        let body = json!({
            "messages": [{"role": "user", "content": [null, "so", {"text": "it is"}, {"image_url": "https://host/a.png"}]}],
            "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}}, {"function": {"name": "go"}}],
            "tool_choice": {"type": "function", "name": "look"},
        });
        let chat = of(&body).unwrap().chat;
        let parts = [Part::text("so"), Part::text("it is"), Part::image("https://host/a.png")];
        assert_eq!((&chat.messages[0].content, &chat.notes), (&Content::Parts(parts.into()), &Vec::new()));
        assert_eq!(chat.tools.iter().map(|tool| &*tool.name).collect::<Vec<_>>(), ["look", "go"]);
        assert_eq!(chat.tool_choice, Some(ToolChoice::Tool { name: "look".into() }));
        for (mode, choice) in [("auto", ToolChoice::Auto), ("required", ToolChoice::Required)] {
            let mut some = body.clone();
            let go = json!([{"type": "function", "function": {"name": "go"}}]);
            some["tool_choice"] = json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": go}});
            let chat = of(&some).unwrap().chat;
            assert_eq!((chat.tools.len(), &*chat.tools[0].name, chat.tool_choice), (1, "go", Some(choice)));
        }
    }

    #[test]
    fn results_without_an_id_are_those_of_the_calls_of_their_tools() {
        let call = |id: &str, name: &str| json!({"id": id, "function": {"name": name}});
        let chat = of(&json!({"messages": [
            {"role": "user", "content": "q", "name": 7},
            {"role": "assistant", "tool_calls": [call("", "f"), call("", "g"), call("c", "f")]},
            {"role": "tool", "name": "g", "content": "of g"},
            {"role": "tool", "tool_name": "f", "content": "of the first f"},
            {"role": "function", "name": "f", "content": "of the second f"},
            {"role": "tool", "name": "h", "content": "of no call"},
        ]}))
        .unwrap()
        .chat;
        let parts = |at: usize| match &chat.messages[at].content {
            Content::Parts(parts) => parts.clone(),
            Content::Text(text) => panic!("{text}"),
        };
        let ids = parts(1).into_iter().map(|part| match part {
            Part::ToolUse { id, .. } => id,
            other => panic!("{other:?}"),
        });
        let ids: Vec<_> = ids.collect();
        assert_eq!(ids[2], "c");
        let expected = [(&*ids[1], "of g"), (&*ids[0], "of the first f"), ("c", "of the second f"), ("", "of no call")];
        for (at, (id, text)) in expected.into_iter().enumerate() {
            assert_eq!(parts(2 + at), [Part::tool_result(id, text)]);
        }
        assert!(ids.iter().collect::<HashSet<_>>().len() == 3, "{ids:?}");
    }

    // Fault 70.
    #[test]
    fn half_a_surrogate_pair_is_read_as_a_replacement_character() {
        let read = read(br#"{"messages":[{"role":"user","content":"cut \ud83d here"}]}"#, &[]).unwrap();
        assert_eq!(read.chat, ChatRequest::user("cut \u{fffd} here"));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let hi = json!([{"role": "user", "content": "hi"}]);
        for (body, words) in [
            (json!({"messages": []}), "there are no messages"),
            (json!({"messages": hi, "n": 2}), "set it to 1"),
            (json!({"messages": hi, "functions": []}), "use tools"),
            (json!({"messages": hi, "tools": [{"type": "web_search"}]}), "is no function"),
            (json!({"messages": hi, "tool_choice": "maybe"}), "none of auto"),
            (json!({"messages": hi, "tool_choice": 7}), "none of auto"),
            (json!({"messages": [{"role": "ghost", "content": "hi"}]}), "there is no role"),
            (json!({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}), "are not supported"),
            (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "lacks its image_url"),
            (json!({"messages": [{"role": "user", "content": 7}]}), "a string or a list"),
            (json!({"model": "x"}), "missing field `messages`"),
            (json!({"messages": hi, "user": 7}), "user: invalid type"),
            (json!({"messages": hi, "temperature": "warm"}), "temperature: invalid value"),
            (json!({"messages": [{"content": "hi"}]}), "messages[0]: missing field `role`"),
        ] {
            let fault = of(&body).unwrap_err();
            assert!(fault.contains(words), "{body}: {fault}");
        }
        assert!(read(b"{", &[]).is_err());
    }
}
