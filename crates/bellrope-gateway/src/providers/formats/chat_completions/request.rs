//! A request in the format of chat completions.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value};

use super::sampling::Sampling;
use crate::error::ProviderError;
use crate::message::{ChatRequest, ToolChoice};
use crate::notes::Notes;
use crate::providers::formats::history::{self, Spoken, Turn};
use crate::providers::formats::ids::CallRules;
use crate::providers::formats::options;
use crate::providers::formats::said::{
    COMPACTED, COMPACTED_REASON, Call, Output, Reasoning, Said, arguments, invalid, unwritable,
};
use crate::providers::formats::tools::{Offered, tools};
use crate::providers::formats::wire_format::ProviderServer;
use crate::reasoning::items_of;

/// The most texts that end an answer, the highest temperature and the longest name of a tool at OpenAI's own server.
pub(super) const MAX_STOP: usize = 4;
const MAX_TEMPERATURE: f64 = 2.0;
const LONGEST_NAME: usize = 64;

/// The most bytes of a call's id there; other servers take these too.
const LONGEST_ID: usize = 40;

/// What stands for each picture in the result of a tool, and what comes before the pictures of several results.
const PICTURE: &str = "(A picture stood here; it comes after the results.)";
const PICTURES: &str = "(The pictures of the results above:)";

/// The JSON to post. OpenAI's own models, the newer of which refuse `max_tokens`, take no field that is not OpenAI's;
/// other servers often know nothing but `max_tokens`.
pub(crate) fn body(
    request: &ChatRequest,
    model: Option<&str>,
    server: ProviderServer,
    notes: &mut Notes,
) -> Result<Vec<u8>, ProviderError> {
    let is_openai = server.at_inventor;
    let longest_name = is_openai.then_some(LONGEST_NAME);
    let rules = CallRules { longest_id: LONGEST_ID, plain_ids: false, unique_ids: false, longest_name };
    let tools = tools(request, longest_name, notes)?;
    let turns = history::turns(&request.messages, rules, notes)?;
    let mut writer = Writer { messages: Vec::with_capacity(turns.len() + 1), extras: server.message_extras, notes };
    let system = request.system.as_deref().filter(|system| !system.is_empty());
    writer.messages.extend(system.map(|system| WireMessage::text("system", system.into())));
    turns.iter().for_each(|turn| writer.add(turn));
    let Writer { messages, notes, .. } = writer;
    if messages.is_empty() {
        return Err(invalid("messages has no message with content"));
    }
    let tokens = options::max_tokens(request);
    let (max_completion_tokens, max_tokens) = if is_openai { (tokens, None) } else { (None, tokens) };
    options::note_left_out(request, &["thinking"], "only Anthropic's messages have it", notes);
    if is_openai {
        options::check_stop(request, MAX_STOP)?;
        options::note_left_out(request, &["top_k"], "OpenAI's chat completions have no such field", notes);
        options::note_left_out(request, &["metadata"], "OpenAI takes it only with answers that it stores", notes);
    }
    if tools.offered.iter().any(|offered| offered.tool.cache_control.is_some()) {
        note_cache(notes);
    }
    let body = Body {
        model,
        messages,
        tools: tools.offered.iter().map(WireTool::new).collect(),
        tool_choice: tools.choice.map(WireChoice::new),
        parallel_tool_calls: tools.parallel,
        sampling: Sampling::of(request, server, if is_openai { MAX_TEMPERATURE } else { f64::MAX }, notes)?,
        max_tokens,
        max_completion_tokens,
        logprobs: request.wants_logprobs().then_some(true),
        top_logprobs: request.top_logprobs,
        metadata: if is_openai { None } else { options::metadata(request, notes) },
        reasoning_effort: request.reasoning_effort.as_deref(),
        response_format: if is_openai {
            options::response_format(request)?.and(request.response_format.as_ref())
        } else {
            options::any_response_format(request)?
        },
        service_tier: request.service_tier.as_deref(),
    };
    serde_json::to_vec(&body).map_err(|error| unwritable(&error))
}

/// Writes the turns of a conversation as messages: each result of a tool is one of its own, right after its call.
struct Writer<'a, 'n> {
    messages: Vec<WireMessage<'a>>,
    extras: bool,
    notes: &'n mut Notes,
}

impl<'a> Writer<'a, '_> {
    fn add(&mut self, turn: &'a Turn<'a>) {
        match turn {
            Turn::System(said) => self.say("system", said),
            Turn::User(said) => self.say("user", said),
            Turn::Stray(text) => self.messages.push(WireMessage::text("user", text.into())),
            Turn::Assistant(spoken) => self.speak(spoken),
        }
    }

    fn say(&mut self, role: &'static str, said: &[Said<'a>]) {
        let content = self.content(said);
        if content.is_some() {
            self.messages.push(WireMessage { content, ..WireMessage::new(role) });
        }
    }

    fn speak(&mut self, spoken: &'a Spoken<'a>) {
        let Spoken { reasoning, said, calls, .. } = spoken;
        let mut message = WireMessage::new("assistant");
        message.content = self.content(said);
        let (compacted, thoughts): (Vec<&Reasoning<'_>>, Vec<_>) =
            reasoning.iter().partition(|part| part.is_compaction());
        if !compacted.is_empty() {
            self.notes.left_out(COMPACTED, COMPACTED_REASON);
        }
        if !thoughts.is_empty() && !self.extras {
            self.notes.left_out("the reasoning of earlier turns", "this provider's messages have no place for it");
        } else if !thoughts.is_empty() {
            let text: String = thoughts.iter().map(|thought| thought.text).collect();
            message.reasoning_details =
                thoughts.iter().filter_map(|thought| thought.details).flat_map(items_of).collect();
            message.reasoning_content =
                Some(text).filter(|text| !text.is_empty() || message.reasoning_details.is_empty());
        }
        message.tool_calls = calls.iter().map(|call| self.call(call)).collect();
        if message.content.is_none() && message.tool_calls.is_empty() {
            if message.reasoning_content.is_none() && message.reasoning_details.is_empty() {
                return;
            }
            message.content = Some(WireContent::Text("".into()));
        }
        self.messages.push(message);
        let mut pictures = vec![WirePart::Text { text: PICTURES }];
        for Call { id, output, .. } in calls {
            if let Some(output) = output {
                let result = WireMessage::text("tool", self.result(output));
                self.messages.push(WireMessage { tool_call_id: Some(id), ..result });
                let images = output.images.iter();
                pictures.extend(images.map(|url| WirePart::ImageUrl { image_url: ImageUrl { url, detail: None } }));
            }
        }
        // Nothing may stand between the results of one turn.
        if pictures.len() > 1 {
            let content = Some(WireContent::Parts(pictures));
            self.messages.push(WireMessage { content, ..WireMessage::new("user") });
        }
    }

    fn call(&mut self, call: &'a Call<'a>) -> WireCall<'a> {
        let Call { id, name, input, extra, .. } = call;
        if extra.is_some() && !self.extras {
            self.notes.left_out("`extra_content` of calls", "this provider's messages have no place for it");
        }
        WireCall {
            id,
            r#type: "function",
            function: CalledFunction { name, arguments: arguments(input) },
            extra_content: extra.filter(|_| self.extras),
        }
    }

    /// The text of a result, with words for its pictures.
    fn result(&mut self, output: &'a Output<'a>) -> Cow<'a, str> {
        if output.cache.is_some() {
            note_cache(self.notes);
        }
        let text = output.in_words();
        if output.images.is_empty() {
            return text;
        }
        self.notes.add(
            "a picture in the result of a tool was sent after the results: chat completions take text alone there",
        );
        let texts = std::iter::once(&*text).filter(|text| !text.is_empty());
        Cow::Owned(texts.chain(output.images.iter().map(|_| PICTURE)).collect::<Vec<_>>().join("\n"))
    }

    /// What was said. A single text goes as a string, which every server understands.
    fn content(&mut self, said: &[Said<'a>]) -> Option<WireContent<'a>> {
        let mut parts = Vec::with_capacity(said.len());
        for part in said {
            let (part, cache) = match *part {
                // It says nothing beside others, and some servers refuse it.
                Said::Text { text: "", .. } if said.len() > 1 => continue,
                Said::Text { text, cache } => (WirePart::Text { text }, cache),
                Said::Image { url, detail, cache } => {
                    (WirePart::ImageUrl { image_url: ImageUrl { url, detail } }, cache)
                }
            };
            if cache.is_some() {
                note_cache(self.notes);
            }
            parts.push(part);
        }
        match parts[..] {
            [] if said.is_empty() => None,
            [] => Some(WireContent::Text("".into())),
            [WirePart::Text { text }] => Some(WireContent::Text(text.into())),
            _ => Some(WireContent::Parts(parts)),
        }
    }
}

fn note_cache(notes: &mut Notes) {
    notes.left_out("`cache_control`", "chat completions have no place for it");
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
    parallel_tool_calls: Option<bool>,
    #[serde(flatten)]
    sampling: Sampling<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'a str>,
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    /// `null` for a message that only calls tools.
    content: Option<WireContent<'a>>,
    /// `DeepSeek` and others refuse a call of a tool without what led to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    /// Of `OpenRouter`, as it was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasoning_details: Vec<&'a Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

impl<'a> WireMessage<'a> {
    fn new(role: &'static str) -> Self {
        Self {
            role,
            content: None,
            reasoning_content: None,
            reasoning_details: Vec::new(),
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }

    fn text(role: &'static str, text: Cow<'a, str>) -> Self {
        Self { content: Some(WireContent::Text(text)), ..Self::new(role) }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum WireContent<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<WirePart<'a>>),
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
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: CalledFunction<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra_content: Option<&'a Value>,
}

#[derive(Serialize)]
struct CalledFunction<'a> {
    name: &'a str,
    /// JSON as a string.
    arguments: Cow<'a, str>,
}

#[derive(Serialize)]
struct WireTool<'a> {
    r#type: &'static str,
    function: OfferedFunction<'a>,
}

#[derive(Serialize)]
struct OfferedFunction<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    parameters: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

impl<'a> WireTool<'a> {
    fn new(offered: &'a Offered<'a>) -> Self {
        let Offered { tool, schema } = offered;
        let (name, description) = (&*tool.name, tool.description.as_deref());
        let function = OfferedFunction { name, description, parameters: schema, strict: tool.strict };
        Self { r#type: "function", function }
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
        let server = ProviderServer { at_inventor: is_openai, message_extras: !is_openai, stream_options: true };
        serde_json::from_slice(&body(request, model, server, &mut Notes::default()).unwrap()).unwrap()
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
            let request = json!({"messages": [{"role": "user", "content": "Hi"}], "tool_choice": choice,
                "tools": [{"name": "f"}]});
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
        let request: ChatRequest = serde_json::from_value(json!({"messages": [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "add"}]},
            {"role": "user", "content": [
                {"type": "text", "text": "and this?"},
                {"type": "image", "url": "data:image/png;base64,AA=="},
                {"type": "tool_result", "tool_use_id": "c1", "content": "4"},
            ]},
        ]}))
        .unwrap();
        let expected = json!([
            {"role": "tool", "content": "4", "tool_call_id": "c1"},
            {"role": "user", "content": [
                {"type": "text", "text": "and this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ]},
        ]);
        assert_eq!(sent(&request, None, false)["messages"].as_array().unwrap()[1..], expected.as_array().unwrap()[..]);
    }

    #[test]
    fn calls_of_tools_carry_their_arguments_as_a_string() {
        let request = message(json!({"role": "assistant", "content": [
            {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 2}},
            {"type": "tool_use", "id": "c2", "name": "now"},
        ]}));
        let expected = json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{\"a\":2}"}},
            {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
        ]});
        assert_eq!(sent(&request, None, false)["messages"][0], expected);
    }
}
