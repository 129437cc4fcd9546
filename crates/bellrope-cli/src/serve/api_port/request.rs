//! Requests in OpenAI's form, as the gateway takes them.
//!
//! What cannot be passed on and would change the answer's form is refused by name (several choices, JSON schemas for the
//! answer, sound); what only shades it (`top_p`, `seed`, penalties) is passed over.

use std::fmt;
use std::marker::PhantomData;

use bellrope_gateway::{ChatRequest, Content, Message, Part, Role, Tool, ToolChoice};
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use serde_json::Value;

use super::fault::Fault;

/// The name of a model that leaves the choice to the server.
const DEFAULT_MODEL: &str = "default";

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
    let wire: Wire = serde_json::from_slice(body)
        .map_err(|error| Fault::invalid(None, format!("the request cannot be read: {error}")))?;
    wire.refuse_what_cannot_be_done()?;
    let model = wire.model.unwrap_or_else(|| DEFAULT_MODEL.to_owned());
    let (provider, asked) = route(&model, providers);
    let chat = ChatRequest {
        provider,
        model: asked,
        messages: wire.messages.into_iter().map(message).collect::<Result<_, _>>()?,
        tools: wire.tools.unwrap_or_default().into_iter().map(tool).collect::<Result<_, _>>()?,
        tool_choice: wire.tool_choice.as_ref().map(tool_choice).transpose()?,
        temperature: wire.temperature,
        max_tokens: wire.max_completion_tokens.or(wire.max_tokens),
        stop: wire.stop.map(|OneOrMany(stop)| stop).unwrap_or_default(),
        ..ChatRequest::default()
    };
    let include_usage = wire.stream_options.is_some_and(|options| options.include_usage.unwrap_or(false));
    Ok(Completion { chat, model, stream: wire.stream.unwrap_or(false), include_usage })
}

/// The provider and the model that a name stands for: `PROVIDER/MODEL`, a provider alone, or a model of the default
/// provider, whose name may hold a slash of its own.
fn route(name: &str, providers: &[String]) -> (Option<String>, Option<String>) {
    let known = |provider: &str| providers.iter().any(|known| known == provider);
    match name.split_once('/') {
        Some((provider, model)) if known(provider) && !model.is_empty() => {
            (Some(provider.to_owned()), Some(model.to_owned()))
        }
        None if known(name) => (Some(name.to_owned()), None),
        None if name.is_empty() || name == DEFAULT_MODEL => (None, None),
        _ => (None, Some(name.to_owned())),
    }
}

#[derive(Deserialize)]
struct Wire {
    model: Option<String>,
    messages: Vec<WireMessage>,
    tools: Option<Vec<WireTool>>,
    tool_choice: Option<Value>,
    temperature: Option<f64>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    stop: Option<OneOrMany<String>>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    n: Option<u32>,
    response_format: Option<Kind>,
    functions: Option<Value>,
}

impl Wire {
    fn refuse_what_cannot_be_done(&self) -> Result<(), Fault> {
        if self.messages.is_empty() {
            return Err(Fault::invalid(Some("messages"), "there are no messages"));
        }
        if self.n.is_some_and(|n| n != 1) {
            return Err(Fault::invalid(Some("n"), "one choice is made at a time; leave out n, or set it to 1"));
        }
        if let Some(Kind { r#type }) = &self.response_format
            && r#type != "text"
        {
            let fault = format!("response_format {type:?} is not supported; leave it out, and ask for JSON in words");
            return Err(Fault::invalid(Some("response_format"), fault));
        }
        if self.functions.as_ref().is_some_and(|functions| !functions.is_null()) {
            return Err(Fault::invalid(Some("functions"), "functions are called tools now; use tools"));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

#[derive(Deserialize)]
struct WireMessage {
    role: String,
    content: Option<OneOrMany<WirePart>>,
    tool_calls: Option<Vec<WireCall>>,
    tool_call_id: Option<String>,
}

/// A part of a message. A string stands for a part with that text.
#[derive(Deserialize)]
struct WirePart {
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
    image_url: Option<ImageUrl>,
}

#[derive(Deserialize)]
struct ImageUrl {
    url: String,
}

#[derive(Deserialize)]
struct WireCall {
    id: String,
    function: CalledFunction,
}

#[derive(Deserialize)]
struct CalledFunction {
    name: String,
    #[serde(default)]
    arguments: String,
}

#[derive(Deserialize)]
struct WireTool {
    r#type: String,
    function: Option<OfferedFunction>,
}

#[derive(Deserialize)]
struct OfferedFunction {
    name: String,
    description: Option<String>,
    parameters: Option<Value>,
}

fn message(wire: WireMessage) -> Result<Message, Fault> {
    let content = wire.content.map(|OneOrMany(parts)| parts).unwrap_or_default();
    let role = match &*wire.role {
        // The newer name of the same thing.
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => return result(wire.tool_call_id, content),
        other => {
            let fault = format!("there is no role {other:?}; known: system, developer, user, assistant, tool");
            return Err(Fault::invalid(Some("messages"), fault));
        }
    };
    let mut parts = content.into_iter().map(part).collect::<Result<Vec<_>, _>>()?;
    for call in wire.tool_calls.unwrap_or_default() {
        let CalledFunction { name, arguments } = call.function;
        // What a model wrote need not be JSON.
        let input = serde_json::from_str(&arguments).unwrap_or(Value::String(arguments));
        parts.push(Part::ToolUse { id: call.id, name, input });
    }
    let content = match &mut parts[..] {
        [] => Content::Text(String::new()),
        [Part::Text { text }] => Content::Text(std::mem::take(text)),
        _ => Content::Parts(parts),
    };
    Ok(Message { role, content })
}

/// The result of a tool.
fn result(id: Option<String>, content: Vec<WirePart>) -> Result<Message, Fault> {
    let Some(tool_use_id) = id else {
        return Err(Fault::invalid(Some("messages"), "a message of role tool needs a tool_call_id"));
    };
    let mut text = String::new();
    for wire in content {
        match part(wire)? {
            Part::Text { text: more } => text.push_str(&more),
            _ => return Err(Fault::invalid(Some("messages"), "a message of role tool may hold text alone")),
        }
    }
    let result = Part::ToolResult { tool_use_id, content: text, is_error: false };
    Ok(Message { role: Role::Tool, content: Content::Parts(vec![result]) })
}

fn part(wire: WirePart) -> Result<Part, Fault> {
    match (&*wire.r#type, wire.text, wire.refusal, wire.image_url) {
        ("text", Some(text), ..) | ("refusal", _, Some(text), _) => Ok(Part::Text { text }),
        ("image_url", _, _, Some(ImageUrl { url })) => Ok(Part::Image { url }),
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
    match (&*wire.r#type, wire.function) {
        ("function", Some(OfferedFunction { name, description, parameters })) => Ok(Tool {
            name,
            description,
            parameters: parameters.unwrap_or_else(|| serde_json::json!({"type": "object", "properties": {}})),
        }),
        (kind, _) => Err(Fault::invalid(Some("tools"), format!("a tool of type {kind:?} is no function"))),
    }
}

fn tool_choice(wire: &Value) -> Result<ToolChoice, Fault> {
    match wire {
        Value::String(word) => match &**word {
            "auto" => return Ok(ToolChoice::Auto),
            "none" => return Ok(ToolChoice::None),
            "required" => return Ok(ToolChoice::Required),
            _ => {}
        },
        Value::Object(choice) if choice.get("type").is_some_and(|kind| kind == "function") => {
            if let Some(Value::String(name)) = choice.get("function").and_then(|function| function.get("name")) {
                return Ok(ToolChoice::Tool { name: name.clone() });
            }
        }
        _ => {}
    }
    Err(Fault::invalid(Some("tool_choice"), "tool_choice is none of auto, none, required and a function"))
}

/// A list, or a string that stands for a list of one.
struct OneOrMany<T>(Vec<T>);

/// What a string can stand for.
trait FromText {
    fn from_text(text: String) -> Self;
}

impl FromText for String {
    fn from_text(text: String) -> Self {
        text
    }
}

impl FromText for WirePart {
    fn from_text(text: String) -> Self {
        Self { r#type: "text".to_owned(), text: Some(text), refusal: None, image_url: None }
    }
}

// By hand, because the derived code for untagged enums hides what was wrong.
impl<'de, T: Deserialize<'de> + FromText> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrManyVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + FromText> Visitor<'de> for OneOrManyVisitor<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(OneOrMany(vec![T::from_text(text.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany)
            }
        }

        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(body: &Value) -> Result<Completion, String> {
        let providers = ["embedded".to_owned(), "openai".to_owned()];
        read(&serde_json::to_vec(body).unwrap(), &providers)
            .map_err(|fault| String::from_utf8(fault.body().unwrap()).unwrap())
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
        let used = |id: &str, input: Value| Part::ToolUse { id: id.into(), name: "look".into(), input };
        let message = |role, parts| Message { role, content: Content::Parts(parts) };
        let expected = ChatRequest {
            provider: Some("openai".into()),
            model: Some("meta/llama".into()),
            messages: vec![
                Message::new(Role::System, "Be brief."),
                message(
                    Role::User,
                    vec![
                        Part::Text { text: "What is it?".into() },
                        Part::Image { url: "data:image/png;base64,AA==".into() },
                    ],
                ),
                message(Role::Assistant, vec![used("c1", json!({"at": 1})), used("c2", json!("no JSON"))]),
                message(
                    Role::Tool,
                    vec![Part::ToolResult { tool_use_id: "c1".into(), content: "a bell".into(), is_error: false }],
                ),
            ],
            tools: vec![Tool {
                name: "look".into(),
                description: None,
                parameters: json!({"type": "object", "properties": {}}),
            }],
            tool_choice: Some(ToolChoice::Tool { name: "look".into() }),
            temperature: Some(0.5),
            max_tokens: Some(9),
            stop: vec!["\n".into()],
            ..ChatRequest::default()
        };
        assert_eq!(chat, expected);
    }

    #[test]
    fn a_models_name_may_name_its_provider() {
        let providers = ["embedded".to_owned(), "openai".to_owned()];
        let some = |text: &str| Some(text.to_owned());
        for (name, provider, model) in [
            ("openai/gpt-5", some("openai"), some("gpt-5")),
            ("openai/meta/llama", some("openai"), some("meta/llama")),
            ("meta/llama", None, some("meta/llama")),
            ("gpt-5", None, some("gpt-5")),
            ("embedded", some("embedded"), None),
            ("default", None, None),
            ("", None, None),
        ] {
            assert_eq!(route(name, &providers), (provider, model), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let hi = json!([{"role": "user", "content": "hi"}]);
        for (body, words) in [
            (json!({"messages": []}), "there are no messages"),
            (json!({"messages": hi, "n": 2}), "set it to 1"),
            (json!({"messages": hi, "response_format": {"type": "json_object"}}), "is not supported"),
            (json!({"messages": hi, "functions": []}), "use tools"),
            (json!({"messages": hi, "tools": [{"type": "web_search"}]}), "is no function"),
            (json!({"messages": hi, "tool_choice": "maybe"}), "none of auto"),
            (json!({"messages": hi, "tool_choice": 7}), "none of auto"),
            (json!({"messages": [{"role": "ghost", "content": "hi"}]}), "there is no role"),
            (json!({"messages": [{"role": "tool", "content": "hi"}]}), "needs a tool_call_id"),
            (
                json!({"messages": [{"role": "tool", "tool_call_id": "c", "content": [
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                ]}]}),
                "may hold text alone",
            ),
            (json!({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}), "are not supported"),
            (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "lacks its image_url"),
            (json!({"messages": [{"role": "user", "content": 7}]}), "a string or a list"),
            (json!({"model": "x"}), "missing field `messages`"),
        ] {
            let fault = of(&body).unwrap_err();
            assert!(fault.contains(words), "{body}: {fault}");
        }
        assert!(read(b"{", &[]).is_err());
    }
}
