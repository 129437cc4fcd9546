//! Requests in Anthropic's form, as the gateway takes them.
//!
//! What would change the answer if it were left out is refused by name (documents that are no text). Everything else that
//! cannot be passed on is left out and noted: tools that Anthropic's own servers run, and fields that are not known here.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::blocks::{Block, Blocks, message, system};
use crate::inbound::fault::Fault;
use crate::inbound::wire::{OneOrMany, Told, model_of, read_wire, route, unknown};
use crate::message::fields::{Known, Known::All, Known::Fields, Known::Unused};
use crate::message::{ChatRequest, Tool, ToolChoice, lenient};

/// The fields that are passed on, or refused, or noted in words of their own.
const KNOWN: Known = Fields(&[
    ("model", All),
    ("messages", Fields(&[("role", All), ("content", BLOCK)])),
    ("max_tokens", All),
    ("system", Fields(&[("type", All), ("text", All), ("cache_control", All)])),
    (
        "tools",
        Fields(&[
            ("type", All),
            ("name", All),
            ("description", All),
            ("input_schema", All),
            ("strict", All),
            ("cache_control", All),
        ]),
    ),
    ("tool_choice", Fields(&[("type", All), ("name", All), ("disable_parallel_tool_use", All)])),
    ("temperature", All),
    ("top_p", All),
    ("top_k", All),
    ("stop_sequences", All),
    ("stream", All),
    ("metadata", Fields(&[("user_id", All)])),
    ("thinking", All),
    ("service_tier", All),
    ("output_config", Fields(&[("format", FORMAT)])),
    ("output_format", FORMAT),
    ("container", Unused),
    ("context_management", Unused),
    ("mcp_servers", Unused),
]);

const FORMAT: Known = Fields(&[("type", All), ("schema", All)]);

const BLOCK: Known = Fields(&[
    ("type", All),
    ("text", All),
    ("source", All),
    ("title", All),
    ("thinking", All),
    ("signature", All),
    ("data", All),
    ("id", All),
    ("name", All),
    ("input", All),
    ("tool_use_id", All),
    ("content", All),
    ("is_error", All),
    ("cache_control", All),
]);

/// What the name of a model ends in that has a long context, for the tool's eyes alone.
const LONG_CONTEXT: &str = "[1m]";

/// A request for a message.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) chat: ChatRequest,
    /// The model, as the tool calls it.
    pub(super) model: String,
    pub(super) stream: bool,
}

/// Reads a request. `providers`: the names that may stand before a model's name.
pub(super) fn read(body: &[u8], providers: &[String]) -> Result<Turn, Fault> {
    let wire: Wire = read_wire(body)?;
    if wire.messages.is_empty() {
        return Err(Fault::invalid(Some("messages"), "there are no messages"));
    }
    let mut told = Told::new(&unknown(body, KNOWN));
    let model = model_of(wire.model)?;
    let (provider, asked) = route(without_mark(&model), providers);
    let mut messages = Vec::with_capacity(wire.messages.len() + 1);
    messages.extend(system(wire.system, &mut told));
    for WireMessage { role, content } in wire.messages {
        message(&role, content, &mut messages, &mut told)?;
    }
    let (tool_choice, parallel_tool_calls) = choice(wire.tool_choice)?;
    let tools = tools(wire.tools, tool_choice.as_ref(), &mut told)?;
    let mut metadata = Map::new();
    if let Some(user) = wire.metadata.and_then(|metadata| metadata.user_id) {
        metadata.insert("user_id".to_owned(), user.into());
    }
    let format = wire.output_config.and_then(|config| config.format).or(wire.output_format);
    let chat = ChatRequest {
        provider,
        model: asked,
        messages,
        tools,
        tool_choice,
        parallel_tool_calls,
        temperature: wire.temperature,
        max_tokens: wire.max_tokens,
        stop: wire.stop_sequences,
        top_p: wire.top_p,
        top_k: wire.top_k,
        metadata,
        thinking: wire.thinking.filter(Value::is_object),
        response_format: format.as_ref().map(response_format).transpose()?,
        service_tier: wire.service_tier,
        notes: told.into_vec(),
        ..ChatRequest::default()
    };
    Ok(Turn { chat, model, stream: wire.stream.unwrap_or(false) })
}

/// The name of a model without the mark of a long context, however often it stands there.
pub(in crate::inbound) fn without_mark(model: &str) -> &str {
    let mut name = model.trim();
    while let Some(at) = name.len().checked_sub(LONG_CONTEXT.len())
        && name.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(LONG_CONTEXT))
    {
        name = name[..at].trim_end();
    }
    name
}

fn choice(wire: Option<WireChoice>) -> Result<(Option<ToolChoice>, Option<bool>), Fault> {
    let Some(WireChoice { kind, name, disable_parallel_tool_use }) = wire else { return Ok((None, None)) };
    let parallel = disable_parallel_tool_use.map(|disabled| !disabled);
    let choice = match (&*kind, name) {
        ("auto", _) => ToolChoice::Auto,
        ("any", _) => ToolChoice::Required,
        ("none", _) => ToolChoice::None,
        ("tool", Some(name)) => ToolChoice::Tool { name },
        _ => {
            let fault = "tool_choice must be an object whose type is auto, any, none, or tool with a name";
            return Err(Fault::invalid(Some("tool_choice"), fault));
        }
    };
    Ok((Some(choice), parallel))
}

/// The tools that the caller runs. Those that Anthropic's servers run are known to nobody else.
fn tools(wire: Option<Vec<WireTool>>, choice: Option<&ToolChoice>, told: &mut Told) -> Result<Vec<Tool>, Fault> {
    let mut tools = Vec::new();
    for WireTool { kind, name, description, input_schema, strict, cache_control } in wire.unwrap_or_default() {
        if let Some(kind) = kind.filter(|kind| kind != "custom") {
            if matches!(choice, Some(ToolChoice::Tool { name: chosen }) if *chosen == name) {
                let fault = format!("tool_choice wants `{name}`, a tool of type {kind:?}, which no provider here runs");
                return Err(Fault::invalid(Some("tool_choice"), fault));
            }
            told.left_out(&format!("the tool `{name}` of type {kind:?}"), "it would run at Anthropic's servers");
            continue;
        }
        tools.push(Tool { name, description, parameters: input_schema, strict, cache_control });
    }
    Ok(tools)
}

/// The form of an answer, as OpenAI writes it.
fn response_format(format: &WireFormat) -> Result<Value, Fault> {
    if format.kind != "json_schema" {
        return Err(Fault::invalid(Some("output_config"), "the format of an answer must be of type json_schema"));
    }
    Ok(json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": format.schema, "strict": true}}))
}

#[derive(Deserialize)]
struct Wire {
    model: Option<String>,
    messages: Vec<WireMessage>,
    #[serde(default, deserialize_with = "lenient::count")]
    max_tokens: Option<u32>,
    system: Option<OneOrMany<Block>>,
    tools: Option<Vec<WireTool>>,
    tool_choice: Option<WireChoice>,
    #[serde(default, deserialize_with = "lenient::number")]
    temperature: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    top_p: Option<f64>,
    #[serde(default, deserialize_with = "lenient::count")]
    top_k: Option<u32>,
    #[serde(default, deserialize_with = "lenient::texts")]
    stop_sequences: Vec<String>,
    stream: Option<bool>,
    metadata: Option<Metadata>,
    thinking: Option<Value>,
    service_tier: Option<String>,
    output_config: Option<OutputConfig>,
    output_format: Option<WireFormat>,
}

#[derive(Deserialize)]
#[serde(expecting = "a message")]
struct WireMessage {
    role: String,
    content: Option<Blocks>,
}

#[derive(Deserialize)]
#[serde(expecting = "a tool")]
struct WireTool {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: String,
    description: Option<String>,
    #[serde(default)]
    input_schema: Value,
    strict: Option<bool>,
    cache_control: Option<Value>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object such as {\"type\": \"auto\"}")]
struct WireChoice {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    disable_parallel_tool_use: Option<bool>,
}

#[derive(Deserialize)]
struct Metadata {
    user_id: Option<String>,
}

#[derive(Deserialize)]
struct OutputConfig {
    format: Option<WireFormat>,
}

#[derive(Deserialize)]
struct WireFormat {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    schema: Value,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::fault::ErrorForm;
    use crate::message::{Content, Message, Part, Role};

    fn of(body: &Value) -> Result<Turn, String> {
        let providers = ["openai".to_owned()];
        read(&serde_json::to_vec(body).unwrap(), &providers)
            .map_err(|fault| String::from_utf8(fault.body(ErrorForm::Anthropic)).unwrap())
    }

    fn parts(message: &Message) -> &[Part] {
        let Content::Parts(parts) = &message.content else { panic!("{message:?}") };
        parts
    }

    #[test]
    fn a_whole_request_is_taken_over() {
        let mark = json!({"type": "ephemeral"});
        let Turn { chat, model, stream } = of(&json!({
            "model": "openai/gpt-5[1m]", "max_tokens": 9, "stream": true,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": mark}],
            "messages": [
                {"role": "user", "content": "What is it?"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                    {"type": "redacted_thinking", "data": "eA=="},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "is_error": true, "content": [
                        {"type": "text", "text": "a bell"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                    ]},
                    {"type": "image", "source": {"type": "url", "url": "https://host/a.png"}, "cache_control": mark},
                    {"type": "text", "text": "And this?"},
                ]},
            ],
            "tools": [{"name": "look", "description": "Looks.", "input_schema": {"type": "object"}, "cache_control": mark}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
            "temperature": 0.5, "top_p": 0.9, "top_k": 4, "stop_sequences": ["END"], "metadata": {"user_id": "u"},
            "thinking": {"type": "enabled", "budget_tokens": 1024}, "service_tier": "auto",
        }))
        .unwrap();
        assert_eq!((model.as_str(), stream), ("openai/gpt-5[1m]", true));
        assert_eq!((chat.provider.as_deref(), chat.model.as_deref()), (Some("openai"), Some("gpt-5")));
        let [system, asked, called, result, more] = &chat.messages[..] else { panic!("{:?}", chat.messages) };
        let text = |text: &str, mark: Option<&Value>| Part::Text { text: text.into(), cache_control: mark.cloned() };
        assert_eq!((system.role, parts(system)), (Role::System, &[text("Be brief.", Some(&mark))][..]));
        assert_eq!(asked, &Message::new(Role::User, "What is it?"));
        let expected = [
            Part::Reasoning { text: "hm".into(), details: Some(json!({"signature": "c2ln"})) },
            Part::Reasoning { text: String::new(), details: Some(json!({"data": "eA=="})) },
            text("I look.", None),
            Part::tool_use("c1", "look", json!({"at": 1})),
        ];
        assert_eq!((called.role, parts(called)), (Role::Assistant, &expected[..]));
        let expected = [Part::ToolResult {
            tool_use_id: "c1".into(),
            content: "a bell".into(),
            images: vec!["data:image/png;base64,AA==".into()],
            is_error: true,
            cache_control: None,
        }];
        assert_eq!((result.role, parts(result)), (Role::User, &expected[..]));
        let image = Part::Image { url: "https://host/a.png".into(), detail: None, cache_control: Some(mark.clone()) };
        assert_eq!((more.role, parts(more)), (Role::User, &[image, text("And this?", None)][..]));
        let tool = Tool {
            name: "look".into(),
            description: Some("Looks.".into()),
            parameters: json!({"type": "object"}),
            cache_control: Some(mark),
            ..Tool::default()
        };
        assert_eq!((chat.tools, chat.tool_choice), (vec![tool], Some(ToolChoice::Required)));
        assert_eq!((chat.parallel_tool_calls, chat.max_tokens, chat.top_k), (Some(false), Some(9), Some(4)));
        assert_eq!((chat.temperature, chat.top_p, chat.stop), (Some(0.5), Some(0.9), vec!["END".to_owned()]));
        assert_eq!(chat.metadata["user_id"], "u");
        assert_eq!(chat.thinking, Some(json!({"type": "enabled", "budget_tokens": 1024})));
        assert_eq!((chat.service_tier.as_deref(), chat.notes), (Some("auto"), Vec::new()));
    }

    #[test]
    fn what_goes_no_further_is_noted_by_name() {
        let chat = of(&json!({
            "messages": [
                {"role": "user", "content": [
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "A letter."}},
                    {"type": "text", "text": "Read it."},
                ]},
                {"role": "assistant", "content": [
                    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                    {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                    {"type": "text", "text": "Read."},
                ]},
            ],
            "system": [
                {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=00001;"},
                {"type": "text", "text": "Be brief."},
            ],
            "tools": [
                {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
                {"type": "custom", "name": "look", "input_schema": {"type": "object"}},
            ],
            "context_management": {"edits": []}, "mcp_servers": [{"url": "x"}], "container": "c",
        }))
        .unwrap()
        .chat;
        assert_eq!(chat.tools.len(), 1);
        let [system, asked, said] = &chat.messages[..] else { panic!("{:?}", chat.messages) };
        assert_eq!(system, &Message::new(Role::System, "Be brief."));
        assert_eq!(parts(asked), [Part::text("A letter."), Part::text("Read it.")]);
        assert_eq!(said, &Message::new(Role::Assistant, "Read."));
        let notes = chat.notes.join("; ");
        for name in [
            "`context_management`",
            "`mcp_servers`",
            "`container`",
            "the tool `web_search`",
            "server_tool_use",
            "web_search_tool_result",
            "x-anthropic-billing-header",
        ] {
            assert!(notes.contains(name), "{name} in {notes}");
        }
    }

    #[test]
    fn the_mark_of_a_long_context_is_no_part_of_a_models_name() {
        for (name, expected) in [
            ("claude-x[1m]", "claude-x"),
            ("claude-x[1M][1m]", "claude-x"),
            ("claude-x [1m] ", "claude-x"),
            ("[1m]", ""),
            ("claude-x[1m]-y", "claude-x[1m]-y"),
            ("é[1m", "é[1m"),
        ] {
            assert_eq!(without_mark(name), expected);
        }
    }

    #[test]
    fn each_choice_among_tools_keeps_its_meaning() {
        let of = |choice: Value| {
            let chat =
                of(&json!({"messages": [{"role": "user", "content": "Hi"}], "tool_choice": choice})).unwrap().chat;
            (chat.tool_choice, chat.parallel_tool_calls)
        };
        assert_eq!(of(json!({"type": "auto"})), (Some(ToolChoice::Auto), None));
        assert_eq!(
            of(json!({"type": "auto", "disable_parallel_tool_use": false})),
            (Some(ToolChoice::Auto), Some(true))
        );
        assert_eq!(of(json!({"type": "any"})), (Some(ToolChoice::Required), None));
        assert_eq!(of(json!({"type": "none"})), (Some(ToolChoice::None), None));
        assert_eq!(of(json!({"type": "tool", "name": "f"})), (Some(ToolChoice::Tool { name: "f".into() }), None));
        assert_eq!(of(Value::Null), (None, None));
    }

    #[test]
    fn what_would_change_the_answer_is_refused_by_name() {
        let hi = json!([{"role": "user", "content": "hi"}]);
        let with = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
        let pdf = json!({"type": "base64", "media_type": "application/pdf", "data": "AA=="});
        for (body, words) in [
            (json!({"messages": []}), "there are no messages"),
            (json!({"model": "x"}), "missing field `messages`"),
            (json!({"messages": [{"role": "ghost", "content": "hi"}]}), "there is no role"),
            (json!({"messages": [{"role": "user", "content": 7}]}), "a string or a list"),
            (with(json!({"type": "smell"})), "smell"),
            (with(json!({"type": "document", "source": pdf})), "application/pdf"),
            (with(json!({"type": "image", "source": {"type": "file", "file_id": "f"}})), "type \\\"file\\\""),
            (with(json!({"type": "image"})), "lacks its source"),
            (with(json!({"type": "text"})), "lacks its text"),
            (json!({"messages": hi, "tool_choice": {"type": "maybe"}}), "auto, any, none"),
            (json!({"messages": hi, "tool_choice": "auto"}), "expected an object such as"),
            (json!({"messages": hi, "output_format": {"type": "xml"}}), "json_schema"),
            (json!({"messages": hi, "temperature": "warm"}), "temperature: invalid value"),
            (
                json!({"messages": hi, "tool_choice": {"type": "tool", "name": "s"}, "tools": [{"type": "bash_1", "name": "s"}]}),
                "bash_1",
            ),
        ] {
            let fault = of(&body).unwrap_err();
            assert!(fault.contains(words) && fault.contains("invalid_request_error"), "{body}: {fault}");
        }
        assert!(read(b"{", &[]).is_err());
    }
}
