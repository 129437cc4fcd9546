//! A request in the format of Anthropic's messages.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::thinking;

use crate::error::{Excerpt, ProviderError};
use crate::message::{ChatRequest, Role, ToolChoice};
use crate::notes::Notes;
use crate::providers::formats::body::Body;
use crate::providers::formats::history::{self, Run, Spoken};
use crate::providers::formats::ids::CallRules;
use crate::providers::formats::options::{self, Form};
use crate::providers::formats::said::{
    COMPACTED, COMPACTED_REASON, Call, Output, Reasoning, Said, arguments_object, invalid, is_blank, role_name,
};
use crate::providers::formats::tools::{Offered, Tools, tools};

/// The most tokens of an answer where the request says nothing, as the format demands a number: what models of such names
/// take at the most, but no more than 32,000. An answer that is cut for want of a number is one that nobody asked to be cut.
const USUAL_MAX_TOKENS: [(&str, u32); 7] = [
    ("claude-2", 4_096),
    ("claude-instant", 4_096),
    ("claude-3-haiku", 4_096),
    ("claude-3-opus", 4_096),
    ("claude-3-sonnet", 4_096),
    ("claude-3-5", 8_192),
    ("claude-", 32_000),
];

/// As that, of models of other names.
const OTHERS_MAX_TOKENS: u32 = 8_192;

/// The highest temperature.
const MAX_TEMPERATURE: f64 = 1.0;

/// The most characters of a tool's name.
const LONGEST_NAME: usize = 128;

/// Ids are not written anew without need, and no longer than other formats take them.
const RULES: CallRules =
    CallRules { longest_id: 64, plain_ids: true, unique_ids: true, longest_name: Some(LONGEST_NAME) };

/// The types of pictures that are taken.
const PICTURES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// What a tool says that failed and said nothing.
const NO_WORDS: &str = "(The tool failed and said nothing.)";

/// What stands first where the conversation does not begin with the user, as it must.
const BEGINNING: &str = "(The beginning of the conversation is not shown.)";

/// The JSON to post.
pub(crate) fn body(request: &ChatRequest, model: Option<&str>, notes: &mut Notes) -> Result<Vec<u8>, ProviderError> {
    check(request)?;
    let tools = tools(request, Some(LONGEST_NAME), notes)?;
    let conversation = Conversation::of(request, notes)?;
    let mut body = Body::default();
    body.set_some("model", model);
    let thinking = thinking::thinking(request, conversation.goes_on_unthought(), notes);
    let thinks = thinking.as_ref().is_some_and(thinking::is_on);
    let usual = usual_max_tokens(model);
    body.set("max_tokens", thinking::max_tokens(thinking.as_ref(), options::max_tokens(request), usual));
    body.set_some("system", system(&conversation.system));
    set_tools(&mut body, tools, &conversation, thinks, notes);
    body.set_json("messages", &conversation.turns)?;
    set_options(&mut body, request, thinks, notes)?;
    body.set_some("thinking", thinking);
    body.set_list("stop_sequences", &request.stop, |text| text.as_str().into());
    body.set("stream", true);
    body.write()
}

/// The JSON to post where tokens are counted: what is read, and nothing of how to answer.
pub(crate) fn count_body(request: &ChatRequest, model: Option<&str>) -> Result<Vec<u8>, ProviderError> {
    // Whoever counts is told the number alone.
    let notes = &mut Notes::default();
    let tools = tools(request, Some(LONGEST_NAME), notes)?;
    let conversation = Conversation::of(request, notes)?;
    let mut body = Body::default();
    body.set_some("model", model);
    body.set_some("system", system(&conversation.system));
    let thinking = thinking::thinking(request, conversation.goes_on_unthought(), notes);
    set_tools(&mut body, tools, &conversation, thinking.as_ref().is_some_and(thinking::is_on), notes);
    body.set_json("messages", &conversation.turns)?;
    body.set_some("thinking", thinking);
    body.write()
}

/// The most tokens of an answer of this model, where nobody names a number.
pub(super) fn usual_max_tokens(model: Option<&str>) -> u32 {
    // Routers put the inventor's name before that of the model.
    let name = model.map_or("", |model| model.rsplit('/').next().unwrap_or_default());
    let known = USUAL_MAX_TOKENS.iter().find(|(begin, _)| name.starts_with(begin));
    known.map_or(OTHERS_MAX_TOKENS, |(_, most)| *most)
}

/// Refuses what this format cannot say and what would change the answer if it were left out.
fn check(request: &ChatRequest) -> Result<(), ProviderError> {
    if request.stop.iter().any(|text| is_blank(text)) {
        return Err(invalid("stop has a text of nothing but white space, which Anthropic's messages do not take"));
    }
    if let Some(Form::Object) = options::response_format(request)? {
        return Err(invalid(
            "response_format of type json_object is not known to Anthropic's messages; give a json_schema, or ask for JSON \
             in words or by a tool",
        ));
    }
    Ok(())
}

fn set_options(body: &mut Body, request: &ChatRequest, thinks: bool, notes: &mut Notes) -> Result<(), ProviderError> {
    const NO_PLACE: &str = "Anthropic's messages have no such field";
    let temperature = options::temperature(request, MAX_TEMPERATURE, notes)?;
    let top_p = options::top_p(request)?;
    let asked = (temperature, top_p, request.top_k);
    let (temperature, top_p, top_k) = if thinks { thinking::sampling(asked, notes) } else { asked };
    if temperature.is_some() && top_p.is_some() {
        notes.left_out("`top_p`", "Anthropic's newer models do not take it beside temperature");
    }
    if let Some(Form::Schema(schema)) = options::response_format(request)? {
        // The format has no name, and its schema is always kept to.
        let schema = schema.get("schema").cloned().unwrap_or_else(|| json!({"type": "object"}));
        body.set("output_config", json!({"format": {"type": "json_schema", "schema": schema}}));
    }
    body.set_some("temperature", temperature);
    body.set_some("top_p", top_p.filter(|_| temperature.is_none()));
    body.set_some("top_k", top_k);
    match request.service_tier.as_deref() {
        None => {}
        Some("auto" | "default") => body.set("service_tier", "auto"),
        Some("standard_only") => body.set("service_tier", "standard_only"),
        Some(_) => notes.left_out("`service_tier`", "Anthropic's messages take auto and standard_only"),
    }
    // The only word that metadata has there.
    let user = request.user.as_deref().or_else(|| request.metadata.get("user_id")?.as_str());
    body.set_some("metadata", user.map(|user| json!({"user_id": user})));
    let others =
        ["seed", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "reasoning_effort"];
    options::note_left_out(request, &others, NO_PLACE, notes);
    if request.metadata.keys().any(|key| key != "user_id") {
        options::note_left_out(request, &["metadata"], "Anthropic's messages keep a user_id alone", notes);
    }
    Ok(())
}

/// `thinks`: whether the model is to think first.
fn set_tools(body: &mut Body, tools: Tools<'_>, conversation: &Conversation, thinks: bool, notes: &mut Notes) {
    let Tools { offered, choice, parallel } = tools;
    if offered.is_empty() {
        if !conversation.called.is_empty() {
            // A conversation with calls is refused without tools; nothing else is known of them.
            let stub = |name: &String| json!({"name": name, "input_schema": {"type": "object", "properties": {}}});
            body.set_list("tools", &conversation.called, stub);
            body.set("tool_choice", json!({"type": "none"}));
        }
        return;
    }
    if offered.iter().any(|Offered { tool, .. }| tool.strict == Some(true)) {
        notes.left_out("`tools.strict`", "Anthropic's messages have no such field");
    }
    body.set("tools", offered.into_iter().map(tool).collect::<Value>());
    let mut choice = choice.map(tool_choice);
    let is_forced = choice.as_ref().is_some_and(|choice| choice["type"] == "any" || choice["type"] == "tool");
    if is_forced && thinks {
        notes.add("`tool_choice` was sent as auto: Anthropic's messages force no call beside `thinking`");
        choice = Some(json!({"type": "auto"}));
    }
    if let Some(parallel) = parallel.filter(|_| choice.as_ref().is_none_or(|choice| choice["type"] != "none")) {
        choice.get_or_insert_with(|| json!({"type": "auto"}))["disable_parallel_tool_use"] = (!parallel).into();
    }
    body.set_some("tool_choice", choice);
}

/// A conversation in the form in which this format wants it: instructions apart, user and assistant in turns and the
/// user first, results of tools first in the user's turn, and no text without a word.
#[derive(Default)]
struct Conversation {
    system: Vec<Value>,
    turns: Vec<Turn>,
    /// The names of the tools that were called, each once.
    called: Vec<String>,
}

struct Turn {
    role: Role,
    results: Vec<Value>,
    rest: Vec<Block>,
}

/// What a turn consists of beside results.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Block {
    Plain(Value),
    Call { r#type: &'static str, id: String, name: String, input: Box<RawValue> },
}

impl Conversation {
    fn of(request: &ChatRequest, notes: &mut Notes) -> Result<Self, ProviderError> {
        let mut conversation = Self::default();
        if let Some(text) = request.system.as_deref() {
            conversation.instruct(&Said::Text { text, cache: None });
        }
        for turn in history::turns(&request.messages, RULES, notes)? {
            match turn {
                history::Turn::System(said) => said.iter().for_each(|said| conversation.instruct(said)),
                history::Turn::User(said) => {
                    let blocks = blocks(&said, notes)?;
                    conversation.turn(Role::User).rest.extend(blocks.into_iter().map(Block::Plain));
                }
                history::Turn::Stray(text) => {
                    conversation.turn(Role::User).rest.push(Block::Plain(json!({"type": "text", "text": text})));
                }
                history::Turn::Assistant(spoken) => conversation.speak(&spoken, notes)?,
            }
        }
        conversation.finish(notes)?;
        Ok(conversation)
    }

    fn instruct(&mut self, said: &Said<'_>) {
        if let Said::Text { text, cache } = said
            && !is_blank(text)
        {
            self.system.push(marked(json!({"type": "text", "text": text}), *cache));
        }
    }

    fn speak(&mut self, spoken: &Spoken<'_>, notes: &mut Notes) -> Result<(), ProviderError> {
        // Calls stand last: a text or a thought behind them is refused.
        let (mut said, mut called) = (Vec::new(), Vec::new());
        for run in spoken.runs() {
            match run {
                Run::Reasoning(reasoning) => {
                    said.extend(reasoning.iter().filter_map(|part| thought(part, notes)).map(Block::Plain));
                }
                Run::Said(parts) => said.extend(blocks(parts, notes)?.into_iter().map(Block::Plain)),
                Run::Calls(calls) => {
                    for call in calls {
                        called.push(self.call(call, notes)?);
                    }
                }
            }
        }
        self.turn(Role::Assistant).rest.extend(said.into_iter().chain(called));
        for call in &spoken.calls {
            let Some(output) = &call.output else { continue };
            let result = result(&call.id, output, notes)?;
            self.turn(Role::User).results.push(result);
        }
        Ok(())
    }

    fn call(&mut self, call: &Call<'_>, notes: &mut Notes) -> Result<Block, ProviderError> {
        let Call { id, name, input, extra, .. } = call;
        if extra.is_some() {
            notes.left_out("`extra_content` of calls", "Anthropic's messages have no place for it");
        }
        let (id, name, input) = (id.to_string(), name.to_string(), arguments_object(input)?);
        if !self.called.contains(&name) {
            self.called.push(name.clone());
        }
        Ok(Block::Call { r#type: "tool_use", id, name, input })
    }

    /// The turn to add to: the last one, if it is of this role or empty.
    fn turn(&mut self, role: Role) -> &mut Turn {
        if self.turns.last().is_some_and(Turn::is_empty) {
            self.turns.pop();
        }
        if self.turns.last().is_none_or(|last| last.role != role) {
            self.turns.push(Turn { role, results: Vec::new(), rest: Vec::new() });
        }
        self.turns.last_mut().expect("there is one now")
    }

    /// Whether the model is to go on after calls before which it did not think.
    fn goes_on_unthought(&self) -> bool {
        let [.., Turn { role: Role::Assistant, rest, .. }, last] = &self.turns[..] else { return false };
        let is_thought = |block: &Block| matches!(block, Block::Plain(block) if block["type"] == "thinking" || block["type"] == "redacted_thinking");
        !last.results.is_empty() && !rest.first().is_some_and(is_thought)
    }

    /// Sees to the first turn and the last one.
    fn finish(&mut self, notes: &mut Notes) -> Result<(), ProviderError> {
        if self.turns.last().is_some_and(Turn::is_empty) {
            self.turns.pop();
        }
        match self.turns.first() {
            None => return Err(invalid("messages has no message of user or assistant with content")),
            Some(first) if first.role == Role::Assistant => {
                notes.add(
                    "`messages` does not begin with the user, which Anthropic's messages want; a text was put first",
                );
                let first = Turn {
                    role: Role::User,
                    results: Vec::new(),
                    rest: vec![Block::Plain(json!({"type": "text", "text": BEGINNING}))],
                };
                self.turns.insert(0, first);
            }
            Some(_) => {}
        }
        // An answer that has begun must not end in white space.
        if let Some(Turn { role: Role::Assistant, rest, .. }) = self.turns.last_mut()
            && let Some(Block::Plain(block)) = rest.last_mut()
            && let Some(Value::String(text)) = block.get_mut("text")
        {
            text.truncate(text.trim_end().len());
        }
        Ok(())
    }
}

impl Turn {
    fn is_empty(&self) -> bool {
        self.results.is_empty() && self.rest.is_empty()
    }
}

impl Serialize for Turn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// Results stand first.
        struct Content<'a>(&'a Turn);

        impl Serialize for Content<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let Turn { results, rest, .. } = self.0;
                let mut list = serializer.serialize_seq(Some(results.len() + rest.len()))?;
                results.iter().try_for_each(|result| list.serialize_element(result))?;
                rest.iter().try_for_each(|block| list.serialize_element(block))?;
                list.end()
            }
        }

        let mut turn = serializer.serialize_map(Some(2))?;
        turn.serialize_entry("role", role_name(self.role))?;
        turn.serialize_entry("content", &Content(self))?;
        turn.end()
    }
}

/// The instructions: one text, unless part of them is marked.
fn system(blocks: &[Value]) -> Option<Value> {
    if blocks.iter().any(|block| block.get("cache_control").is_some()) {
        return Some(blocks.into());
    }
    let texts: Vec<_> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
    (!texts.is_empty()).then(|| texts.join("\n\n").into())
}

/// What was said, without texts of nothing but white space: they are refused there, and say nothing.
fn blocks(said: &[Said<'_>], notes: &mut Notes) -> Result<Vec<Value>, ProviderError> {
    let mut blocks = Vec::with_capacity(said.len());
    for said in said {
        match said {
            Said::Text { text, .. } if is_blank(text) => {}
            Said::Text { text, cache } => blocks.push(marked(json!({"type": "text", "text": text}), *cache)),
            Said::Image { url, detail, cache } => {
                if detail.is_some_and(|detail| detail != "auto") {
                    notes.left_out("`detail` of images", "Anthropic's messages have no such field");
                }
                blocks.push(marked(image(url, notes)?, *cache));
            }
        }
    }
    Ok(blocks)
}

/// What the model thought, if it goes back there: with the signature of this format.
fn thought(reasoning: &Reasoning<'_>, notes: &mut Notes) -> Option<Value> {
    let detail = |name: &str| reasoning.details?.get(name)?.as_str();
    if let Some(signature) = detail("signature") {
        return Some(json!({"type": "thinking", "thinking": reasoning.text, "signature": signature}));
    }
    if let Some(data) = detail("data") {
        return Some(json!({"type": "redacted_thinking", "data": data}));
    }
    if reasoning.is_compaction() {
        notes.left_out(COMPACTED, COMPACTED_REASON);
        return None;
    }
    notes.left_out("the reasoning of earlier turns", "Anthropic's messages take it with their signature alone");
    None
}

fn result(id: &str, output: &Output<'_>, notes: &mut Notes) -> Result<Value, ProviderError> {
    let mut result = json!({"type": "tool_result", "tool_use_id": id});
    if !output.images.is_empty() {
        let mut blocks = Vec::with_capacity(output.images.len() + 1);
        if !is_blank(&output.text) {
            blocks.push(json!({"type": "text", "text": output.text}));
        }
        for url in &output.images {
            blocks.push(image(url, notes)?);
        }
        result["content"] = blocks.into();
    } else if !is_blank(&output.text) {
        result["content"] = (*output.text).into();
    } else if output.is_error {
        // An error of nothing is refused.
        result["content"] = NO_WORDS.into();
    }
    if output.is_error {
        result["is_error"] = true.into();
    }
    Ok(marked(result, output.cache))
}

/// A block with its mark for the cache, if it has one.
fn marked(mut block: Value, cache: Option<&Value>) -> Value {
    if let Some(cache) = cache.filter(|cache| cache.is_object()) {
        block["cache_control"] = cache.clone();
    }
    block
}

/// A picture, or words in its place where it is of a type that is refused, with the whole conversation.
fn image(url: &str, notes: &mut Notes) -> Result<Value, ProviderError> {
    let source = match url.strip_prefix("data:") {
        None => json!({"type": "url", "url": url}),
        Some(data) => {
            let (media_type, data) = data
                .split_once(";base64,")
                .ok_or_else(|| invalid("an image's data URL must have the form data:TYPE;base64,DATA"))?;
            // Without parameters, and by its registered name.
            let media_type = match media_type.split(';').next().unwrap_or_default() {
                "image/jpg" => "image/jpeg",
                media_type => media_type,
            };
            if !PICTURES.contains(&media_type) {
                let kind = Excerpt::new(media_type);
                notes.left_out("a picture", &format!("Anthropic's messages take none of type `{kind}`"));
                return Ok(json!({"type": "text", "text": format!("(A picture of type {kind} is not shown.)")}));
            }
            json!({"type": "base64", "media_type": media_type, "data": data})
        }
    };
    Ok(json!({"type": "image", "source": source}))
}

fn tool(Offered { tool, schema }: Offered<'_>) -> Value {
    let mut wire = json!({"name": tool.name});
    // Not copied: it may be large.
    wire["input_schema"] = schema;
    if let Some(description) = &tool.description {
        wire["description"] = description.as_str().into();
    }
    marked(wire, tool.cache_control.as_ref())
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
        Ok(serde_json::from_slice(&body(&request, Some("m"), &mut Notes::default())?).unwrap())
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
    fn a_turn_keeps_the_order_in_which_the_model_said_it_with_its_calls_behind_it() {
        let thought = |text: &str| json!({"type": "reasoning", "text": text, "details": {"signature": "s"}});
        let call = |id: &str| json!({"type": "tool_use", "id": id, "name": "f"});
        let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": "r"});
        let text = |text: &str| json!({"type": "text", "text": text});
        let body = sent(json!({"messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": [thought("t1"), text("A"), call("a"), thought("t2"), text("B"), call("b")]},
            {"role": "user", "content": [result("b"), result("a")]},
        ]}));
        let messages = &body.unwrap()["messages"];
        let word = |block: &Value| {
            let words = ["thinking", "text", "id", "tool_use_id"].iter().find_map(|name| block[name].as_str());
            words.unwrap().to_owned()
        };
        let words = |at: usize| messages[at]["content"].as_array().unwrap().iter().map(word).collect::<Vec<_>>();
        assert_eq!(
            (words(1), words(2)),
            (["t1", "A", "t2", "B", "a", "b"].map(String::from).to_vec(), ["a", "b"].map(String::from).to_vec())
        );
    }

    #[test]
    fn each_choice_of_tools_has_anthropics_word_for_it() {
        for (choice, expected) in [("auto", "auto"), ("none", "none"), ("required", "any")] {
            let body = sent(json!({"messages": [{"role": "user", "content": "Hi"}], "tool_choice": choice, "tools": [{"name": "f"}]}))
                .unwrap();
            assert_eq!(body["tool_choice"], json!({"type": expected}));
        }
    }

    // Row 43.
    #[test]
    fn no_call_is_forced_beside_thinking() {
        for (choice, thinking, expected) in [
            (json!("required"), "enabled", json!({"type": "auto"})),
            (json!({"tool": {"name": "f"}}), "adaptive", json!({"type": "auto"})),
            (json!("none"), "enabled", json!({"type": "none"})),
            (json!("required"), "disabled", json!({"type": "any"})),
        ] {
            let request = json!({"messages": [{"role": "user", "content": "Hi"}], "tool_choice": choice,
                "tools": [{"name": "f"}], "thinking": {"type": thinking}});
            assert_eq!(sent(request).unwrap()["tool_choice"], expected, "{choice} {thinking}");
        }
    }

    // Row 45.
    #[test]
    fn an_answer_is_not_cut_for_want_of_a_number() {
        for (model, most) in [
            (Some("claude-sonnet-4-5"), 32_000),
            (Some("anthropic/claude-opus-4-1"), 32_000),
            (Some("claude-3-5-haiku-latest"), 8_192),
            (Some("claude-3-haiku-20240307"), 4_096),
            (Some("glm-5"), OTHERS_MAX_TOKENS),
            (None, OTHERS_MAX_TOKENS),
        ] {
            assert_eq!(usual_max_tokens(model), most, "{model:?}");
        }
        let request = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 7});
        assert_eq!(sent(request).unwrap()["max_tokens"], 7, "what is said counts");
    }

    #[test]
    fn a_number_of_tokens_is_always_named() {
        let body = sent(json!({"messages": [{"role": "user", "content": "Hi"}]})).unwrap();
        assert_eq!(body["max_tokens"], OTHERS_MAX_TOKENS);
        assert!(body.get("system").is_none() && body.get("tools").is_none());
    }

    #[test]
    fn turns_of_one_role_are_joined_with_results_of_tools_first() {
        let request = json!({"messages": [
            {"role": "user", "content": "Go."},
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
            {"role": "user", "content": [{"type": "text", "text": "Go."}]},
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
            json!([{"role": "user", "content": " "}]),
            json!([{"role": "user", "content": [{"type": "image", "url": "data:image/svg+xml,<svg/>"}]}]),
        ] {
            assert_eq!(sent(json!({ "messages": messages })).unwrap_err().code(), "invalid_request", "{messages}");
        }
    }
}
