//! The items of a conversation in the form of OpenAI's responses.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::echo::OWN_REASONING;
use super::tools::qualified;
use crate::inbound::fault::Fault;
use crate::inbound::wire::{FromText, OneOrMany, Told};
use crate::message::{COMPACTION, Content, Message, Part, Role, lenient};
use crate::text::of_data_url;

/// An item. A string stands for a message of the user's.
#[derive(Debug, Deserialize, Default)]
#[serde(expecting = "an item")]
pub(super) struct Item {
    #[serde(rename = "type")]
    kind: Option<String>,
    role: Option<String>,
    id: Option<String>,
    content: Option<OneOrMany<WirePart>>,
    call_id: Option<String>,
    name: Option<String>,
    namespace: Option<String>,
    /// Text that need not be JSON; some clients send the JSON itself.
    #[serde(default, deserialize_with = "lenient::arguments")]
    arguments: Value,
    #[serde(default)]
    input: Value,
    output: Option<Output>,
    summary: Option<OneOrMany<WirePart>>,
    encrypted_content: Option<String>,
}

impl FromText for Item {
    fn from_text(text: String) -> Self {
        let content = OneOrMany(vec![WirePart::from_text(text)]);
        Self { role: Some("user".to_owned()), content: Some(content), ..Self::default() }
    }
}

/// What a tool gave: a text, parts, or JSON of its own, which is a text to the model.
#[derive(Debug)]
struct Output(Vec<WirePart>);

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OutputVisitor;

        impl<'de> Visitor<'de> for OutputVisitor {
            type Value = Output;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a list of parts, or JSON")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Output(vec![WirePart::from_text(text.to_owned())]))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                OneOrMany::deserialize(SeqAccessDeserializer::new(list)).map(|OneOrMany(parts)| Output(parts))
            }

            fn visit_map<A: MapAccess<'de>>(self, one: A) -> Result<Self::Value, A::Error> {
                let object = Value::deserialize(MapAccessDeserializer::new(one))?;
                if object["type"].is_string() {
                    return WirePart::deserialize(object).map(|part| Output(vec![part])).map_err(Error::custom);
                }
                self.visit_str(&object.to_string())
            }
        }

        deserializer.deserialize_any(OutputVisitor)
    }
}

/// A part of an item. A string stands for a part with that text.
#[derive(Debug, Deserialize, Default)]
#[serde(expecting = "a part")]
pub(super) struct WirePart {
    #[serde(default, rename = "type")]
    kind: String,
    text: Option<String>,
    refusal: Option<String>,
    image_url: Option<OneOrMany<Picture>>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    detail: Option<String>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    file_data: Option<String>,
}

impl FromText for WirePart {
    fn from_text(text: String) -> Self {
        Self { kind: "input_text".to_owned(), text: Some(text), ..Self::default() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an address of a picture")]
struct Picture {
    url: String,
}

impl FromText for Picture {
    fn from_text(url: String) -> Self {
        Self { url }
    }
}

/// The conversation: what the model said, thought and called in a row is one message.
pub(super) fn messages(items: Vec<Item>, told: &mut Told) -> Result<Vec<Message>, Fault> {
    let mut conversation = Conversation::default();
    for item in items {
        conversation.add(item, told)?;
    }
    Ok(conversation.messages)
}

#[derive(Default)]
struct Conversation {
    messages: Vec<Message>,
}

impl Conversation {
    fn add(&mut self, item: Item, told: &mut Told) -> Result<(), Fault> {
        let Item { kind, role, id, content, call_id, name, namespace, arguments, input, output, summary, .. } = item;
        let call_id = call_id.unwrap_or_default();
        let call_name = || {
            let name = name.ok_or_else(|| Fault::invalid(Some("input"), "a call lacks its name"))?;
            Ok::<_, Fault>(namespace.map_or(name.clone(), |namespace| qualified(&namespace, &name)))
        };
        match kind.as_deref().unwrap_or("message") {
            "message" => return self.say(role.as_deref().unwrap_or("user"), content),
            "reasoning" => {
                let texts = [summary, content].into_iter().flatten().find(|OneOrMany(parts)| !parts.is_empty());
                let texts = texts.map(|OneOrMany(parts)| parts).unwrap_or_default();
                let texts: Vec<_> = texts.into_iter().filter_map(|part| part.text).collect();
                let details = item.encrypted_content.map(|encrypted| thought(&encrypted, id));
                let text = texts.join("\n\n");
                if !text.is_empty() || details.is_some() {
                    self.push(Role::Assistant, vec![Part::Reasoning { text, details }]);
                }
            }
            // What an earlier part of the conversation was made into, for the eyes of whoever made it.
            "compaction" | "compaction_summary" if item.encrypted_content.is_some() => {
                let mut details = thought(&item.encrypted_content.unwrap_or_default(), id);
                details["type"] = COMPACTION.into();
                self.push(Role::Assistant, vec![Part::Reasoning { text: String::new(), details: Some(details) }]);
            }
            "function_call" => {
                let (id, name, input) = (call_id, call_name()?, arguments);
                self.push(Role::Assistant, vec![Part::ToolUse { id, name, input, extra_content: None }]);
            }
            // A tool that takes a text is offered as one that takes an object with it.
            "custom_tool_call" => {
                let (id, name, input) = (call_id, call_name()?, json!({ "input": input }));
                self.push(Role::Assistant, vec![Part::ToolUse { id, name, input, extra_content: None }]);
            }
            "function_call_output" | "custom_tool_call_output" => {
                let (content, images) = result(output)?;
                let part =
                    Part::ToolResult { tool_use_id: call_id, content, images, is_error: false, cache_control: None };
                self.push(Role::Tool, vec![part]);
            }
            "item_reference" => {
                let id: String = id.unwrap_or_default().chars().filter(char::is_ascii_graphic).take(64).collect();
                let words =
                    format!("Item with id '{id}' not found. Items are kept for a while only; send the item itself.");
                return Err(Fault::missing("not_found", Some("input"), words));
            }
            // An answer without the summary that it asks for would be taken for one.
            "compaction_trigger" => {
                let words =
                    "a conversation is not compacted here; ask for a summary of it in words, or for exact pass-through";
                return Err(Fault::invalid(Some("input"), words));
            }
            // What OpenAI's own servers did in an earlier turn.
            other => told.left_out(&format!("an item of type {other:?}"), "it is known to OpenAI's servers alone"),
        }
        Ok(())
    }

    fn say(&mut self, role: &str, content: Option<OneOrMany<WirePart>>) -> Result<(), Fault> {
        let role = match role {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => {
                let fault = format!("there is no role {other:?}; known: system, developer, user, assistant");
                return Err(Fault::invalid(Some("input"), fault));
            }
        };
        let mut parts = Vec::new();
        for wire in content.map(|OneOrMany(parts)| parts).unwrap_or_default() {
            parts.extend(part(wire)?);
        }
        if !parts.is_empty() {
            self.push(role, parts);
        }
        Ok(())
    }

    /// Adds parts to the last message, if it is the model's or of results and this is too; else as a message of their own.
    fn push(&mut self, role: Role, mut parts: Vec<Part>) {
        let joins = matches!(role, Role::Assistant | Role::Tool);
        if let Some(Message { content: Content::Parts(last), .. }) =
            self.messages.last_mut().filter(|last| joins && last.role == role)
        {
            return last.append(&mut parts);
        }
        let content = match &mut parts[..] {
            [Part::Text { text, .. }] if !joins => Content::Text(std::mem::take(text)),
            _ => Content::Parts(parts),
        };
        self.messages.push(Message { role, content });
    }
}

/// What the provider wants back with its reasoning. An id that was made here means nothing to it.
fn thought(encrypted: &str, id: Option<String>) -> Value {
    let mut details = json!({ "encrypted_content": encrypted });
    if let Some(id) = id.filter(|id| !id.starts_with(OWN_REASONING)) {
        details["id"] = id.into();
    }
    details
}

/// A text or a picture; nothing for an empty text.
fn part(wire: WirePart) -> Result<Option<Part>, Fault> {
    let WirePart { kind, text, refusal, image_url, detail, file_data } = wire;
    if let Some(text) = file_data.filter(|_| kind == "input_file").and_then(|url| of_data_url(&url)) {
        return Ok(Some(Part::text(text)));
    }
    let url = image_url.and_then(|OneOrMany(mut pictures)| pictures.pop()).map(|picture| picture.url);
    Ok(Some(match (&*kind, text, refusal, url) {
        ("input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" | "", Some(text), ..)
        | ("refusal", _, Some(text), _) => {
            if text.is_empty() {
                return Ok(None);
            }
            Part::text(text)
        }
        ("input_image" | "image_url", _, _, Some(url)) => Part::Image { url, detail, cache_control: None },
        (kind @ ("input_text" | "output_text" | "text" | "refusal"), ..) => {
            return Err(Fault::invalid(Some("input"), format!("a part of type {kind:?} lacks its text")));
        }
        (kind @ ("input_image" | "image_url"), ..) => {
            let fault = format!("a part of type {kind:?} lacks its image_url; files are not kept here");
            return Err(Fault::invalid(Some("input"), fault));
        }
        (other, ..) => {
            let fault =
                format!("parts of type {other:?} are not supported; known: input_text, output_text, input_image");
            return Err(Fault::invalid(Some("input"), fault));
        }
    }))
}

/// The text and the pictures of a result.
fn result(output: Option<Output>) -> Result<(String, Vec<String>), Fault> {
    let (mut texts, mut images) = (Vec::new(), Vec::new());
    for wire in output.map(|Output(parts)| parts).unwrap_or_default() {
        match part(wire)? {
            Some(Part::Text { text, .. }) => texts.push(text),
            Some(Part::Image { url, .. }) => images.push(url),
            _ => {}
        }
    }
    Ok((texts.join("\n"), images))
}
