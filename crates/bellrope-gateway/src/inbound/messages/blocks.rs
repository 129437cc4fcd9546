//! The blocks of a conversation in Anthropic's form.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::inbound::fault::Fault;
use crate::inbound::wire::{FromText, OneOrMany, Told};
use crate::message::{Content, Message, Part, Role, lenient};
use crate::text::of_file;

/// What a line of instructions begins with that changes with each request, so that nothing after it could be kept.
const BILLING: &str = "x-anthropic-billing-header:";

/// What a message says: a string, or blocks.
pub(super) type Blocks = OneOrMany<Block>;

/// A block. A string stands for one with that text.
#[derive(Deserialize, Default, Debug)]
#[serde(expecting = "a block")]
pub(super) struct Block {
    #[serde(default, rename = "type")]
    kind: String,
    text: Option<String>,
    source: Option<Source>,
    title: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    data: Option<String>,
    id: Option<String>,
    name: Option<String>,
    #[serde(default, deserialize_with = "lenient::arguments")]
    input: Value,
    tool_use_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    content: Inner,
    #[serde(default, deserialize_with = "lenient::or_default")]
    is_error: bool,
    cache_control: Option<Value>,
}

/// The blocks within a block. What is no block there is of a kind that is not read.
#[derive(Debug, Default)]
struct Inner(Vec<Block>);

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        OneOrMany::deserialize(deserializer).map(|OneOrMany(blocks)| Self(blocks))
    }
}

impl FromText for Block {
    fn from_text(text: String) -> Self {
        Self { kind: "text".to_owned(), text: Some(text), ..Self::default() }
    }
}

#[derive(Deserialize, Debug)]
#[serde(expecting = "a source")]
struct Source {
    #[serde(default, rename = "type")]
    kind: String,
    media_type: Option<String>,
    data: Option<String>,
    url: Option<String>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    content: Inner,
}

/// The instructions, if there are any.
pub(super) fn system(blocks: Option<Blocks>, told: &mut Told) -> Option<Message> {
    let mut parts = Vec::new();
    for block in blocks.map(|OneOrMany(blocks)| blocks).unwrap_or_default() {
        let text = block.text.unwrap_or_default();
        if text.trim_start().starts_with(BILLING) {
            told.left_out(BILLING.trim_end_matches(':'), "it is no instruction, and changes with each request");
        } else if !text.trim().is_empty() {
            parts.push(Part::Text { text, cache_control: block.cache_control });
        }
    }
    (!parts.is_empty()).then(|| Message { role: Role::System, content: content(parts) })
}

/// Appends a message. Results of tools stand before what the user says, as a message of their own.
pub(super) fn message(
    role: &str,
    blocks: Option<Blocks>,
    messages: &mut Vec<Message>,
    told: &mut Told,
) -> Result<(), Fault> {
    let role = match role {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        other => {
            let fault = format!("there is no role {other:?}; known: user, assistant, system");
            return Err(Fault::invalid(Some("messages"), fault));
        }
    };
    let (mut results, mut said) = (Vec::new(), Vec::new());
    for block in blocks.map(|OneOrMany(blocks)| blocks).unwrap_or_default() {
        match part(block, role, told)? {
            Some(result @ Part::ToolResult { .. }) => results.push(result),
            Some(part) => said.push(part),
            None => {}
        }
    }
    if !results.is_empty() {
        messages.push(Message { role: Role::User, content: Content::Parts(results) });
    }
    if !said.is_empty() {
        messages.push(Message { role, content: content(said) });
    }
    Ok(())
}

/// What parts say. A single text is one.
fn content(mut parts: Vec<Part>) -> Content {
    match &mut parts[..] {
        [Part::Text { text, cache_control: None }] => Content::Text(std::mem::take(text)),
        _ => Content::Parts(parts),
    }
}

/// What a block says; nothing for one that is noted.
fn part(block: Block, role: Role, told: &mut Told) -> Result<Option<Part>, Fault> {
    let Block { kind, text, source, title, thinking, signature, data, id, name, input, .. } = block;
    let lacks = |field: &str| Fault::invalid(Some("messages"), format!("a block of type {kind:?} lacks its {field}"));
    let cache_control = block.cache_control;
    Ok(Some(match &*kind {
        "text" => Part::Text { text: text.ok_or_else(|| lacks("text"))?, cache_control },
        "image" => {
            let url = picture(source.ok_or_else(|| lacks("source"))?)?;
            Part::Image { url, detail: None, cache_control }
        }
        "document" => {
            let text = document(source.ok_or_else(|| lacks("source"))?, told)?;
            let text = title.map_or_else(|| text.clone(), |title| format!("{title}\n\n{text}"));
            Part::Text { text, cache_control }
        }
        "search_result" => {
            let text = texts(block.content.0).0;
            Part::Text { text: title.map_or_else(|| text.clone(), |title| format!("{title}\n\n{text}")), cache_control }
        }
        // The signature of another provider's reasoning is empty.
        "thinking" => Part::Reasoning {
            text: thinking.unwrap_or_default(),
            details: signature
                .filter(|signature| !signature.is_empty())
                .map(|signature| json!({"signature": signature})),
        },
        "redacted_thinking" => {
            Part::Reasoning { text: String::new(), details: Some(json!({"data": data.unwrap_or_default()})) }
        }
        "tool_use" => Part::ToolUse {
            id: id.unwrap_or_default(),
            name: name.ok_or_else(|| lacks("name"))?,
            input,
            extra_content: None,
        },
        "tool_result" => {
            let (content, images) = result(block.content.0, told)?;
            Part::ToolResult {
                tool_use_id: block.tool_use_id.unwrap_or_default(),
                content,
                images,
                is_error: block.is_error,
                cache_control,
            }
        }
        other if role == Role::Assistant => {
            // What Anthropic's own servers did in an earlier turn.
            told.left_out(&format!("a block of type {other:?}"), "it is known to Anthropic's servers alone");
            return Ok(None);
        }
        other => {
            let fault =
                format!("blocks of type {other:?} are not supported; known: text, image, document, tool_result");
            return Err(Fault::invalid(Some("messages"), fault));
        }
    }))
}

/// The texts and the pictures of a result.
fn result(blocks: Vec<Block>, told: &mut Told) -> Result<(String, Vec<String>), Fault> {
    let (mut texts, mut images) = (Vec::new(), Vec::new());
    for block in blocks {
        if block.kind == "tool_reference" {
            told.left_out("a block of type \"tool_reference\"", "it is known to Anthropic's servers alone");
            continue;
        }
        match part(block, Role::User, told)? {
            Some(Part::Text { text, .. }) => texts.push(text),
            Some(Part::Image { url, .. }) => images.push(url),
            _ => return Err(Fault::invalid(Some("messages"), "the result of a tool holds text and pictures alone")),
        }
    }
    Ok((texts.join("\n"), images))
}

/// The texts of blocks, and whether there is anything else.
fn texts(blocks: Vec<Block>) -> (String, bool) {
    let count = blocks.len();
    let texts: Vec<_> = blocks.into_iter().filter_map(|block| block.text).collect();
    (texts.join("\n"), texts.len() < count)
}

/// The address of a picture, as a data URL if it came with the request.
fn picture(source: Source) -> Result<String, Fault> {
    match (&*source.kind, source.url, source.media_type, source.data) {
        ("url", Some(url), ..) => Ok(url),
        ("base64", _, Some(media_type), Some(data)) => Ok(format!("data:{media_type};base64,{data}")),
        (kind, ..) => {
            let fault =
                format!("a picture whose source is of type {kind:?} cannot be passed on; give its base64 or its url");
            Err(Fault::invalid(Some("messages"), fault))
        }
    }
}

/// The text of a document.
fn document(source: Source, told: &mut Told) -> Result<String, Fault> {
    if let ("base64", Some(media_type), Some(data)) = (&*source.kind, &source.media_type, &source.data)
        && let Some(text) = of_file(media_type, data)
    {
        return Ok(text);
    }
    match (&*source.kind, source.media_type, source.data) {
        ("text", _, Some(text)) => Ok(text),
        ("content", ..) => {
            let (text, has_more) = texts(source.content.0);
            if has_more {
                told.left_out("what is no text in a document", "documents are passed on as text");
            }
            Ok(text)
        }
        (kind, media_type, _) => {
            let kind = media_type.unwrap_or_else(|| kind.to_owned());
            let fault =
                format!("a document of type {kind:?} cannot be passed on; give its text, or pictures of its pages");
            Err(Fault::invalid(Some("messages"), fault))
        }
    }
}
