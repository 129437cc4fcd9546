//! Requests in the form of OpenAI's responses, as the gateway takes them.
//!
//! What would run at OpenAI's servers is left out and noted, unless the request demands it.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::echo::{Echo, MAX_ECHO, is_short};
use super::items::{Item, messages};
use super::logprobs::INCLUDED;
use super::tools::{Names, WireTool, choice, tools};
use crate::inbound::fault::Fault;
use crate::inbound::wire::{OneOrMany, Told, model_of, read_wire, route, unknown};
use crate::message::fields::{Known, Known::All, Known::Fields};
use crate::message::{ChatRequest, lenient};

/// The fields that are passed on, or refused, or noted in words of their own.
pub(in crate::inbound) const KNOWN: Known = Fields(&[
    ("model", All),
    ("input", ITEM),
    ("instructions", All),
    ("tools", All),
    ("tool_choice", All),
    ("parallel_tool_calls", All),
    ("temperature", All),
    ("top_p", All),
    ("max_output_tokens", All),
    ("stream", All),
    ("stream_options", Fields(&[])),
    ("store", All),
    ("previous_response_id", All),
    ("conversation", All),
    ("background", All),
    ("reasoning", Fields(&[("effort", All)])),
    ("text", Fields(&[("format", All)])),
    // What else there is of this comes anyway.
    ("include", All),
    ("top_logprobs", All),
    ("metadata", All),
    ("user", All),
    ("service_tier", All),
    ("truncation", All),
]);

const ITEM: Known = Fields(&[
    ("type", All),
    ("id", All),
    ("status", All),
    ("role", All),
    ("content", PART),
    ("call_id", All),
    ("name", All),
    ("namespace", All),
    ("arguments", All),
    ("input", All),
    // It may be JSON of any form.
    ("output", All),
    ("summary", All),
    ("encrypted_content", All),
]);

const PART: Known = Fields(&[
    ("type", All),
    ("text", All),
    ("refusal", All),
    ("image_url", All),
    ("detail", All),
    ("file_data", All),
    ("filename", All),
    // Links that the model gave with a text that it wrote.
    ("annotations", All),
    ("logprobs", All),
]);

/// A request for a response.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) chat: ChatRequest,
    pub(super) stream: bool,
    pub(super) echo: Echo,
    /// What the tools are called by the caller.
    pub(super) names: Names,
}

/// Reads a request. `providers`: the names that may stand before a model's name.
pub(super) fn read(body: &[u8], providers: &[String]) -> Result<Turn, Fault> {
    let wire: Wire = read_wire(body)?;
    wire.refuse_what_cannot_be_kept()?;
    let mut told = Told::new(&unknown(body, KNOWN));
    if wire.truncation.as_deref() == Some("auto") {
        told.left_out("`truncation`", "no conversation is cut");
    }
    let model = model_of(wire.model)?;
    let (provider, asked) = route(&model, providers);
    let mut names = Names::default();
    let offered = wire.tools.unwrap_or_default();
    let offers = !offered.is_empty();
    let mut tools = tools(offered, &mut names, &mut told)?;
    let tool_choice = choice(wire.tool_choice.as_ref(), &mut tools, &names, offers)?;
    let OneOrMany(items) = wire.input.unwrap_or_default();
    let messages = messages(items, &mut told)?;
    if messages.is_empty() {
        return Err(Fault::invalid(Some("input"), "there is no input"));
    }
    let effort = wire.reasoning.and_then(|reasoning| reasoning.effort);
    let echo = Echo {
        model,
        max_output_tokens: wire.max_output_tokens,
        temperature: wire.temperature,
        top_p: wire.top_p,
        parallel_tool_calls: wire.parallel_tool_calls,
        effort: effort.clone().filter(|effort| effort.len() < MAX_ECHO),
        metadata: if is_short(&wire.metadata) { wire.metadata.clone() } else { Map::new() },
        store: wire.store == Some(true) || wire.background == Some(true),
        background: wire.background == Some(true),
        previous: wire.previous_response_id.filter(|id| !id.is_empty()),
        is_private: wire.store == Some(false),
    };
    let chat = ChatRequest {
        provider,
        model: asked,
        system: wire.instructions.filter(|instructions| !instructions.is_empty()),
        messages,
        tools,
        tool_choice,
        parallel_tool_calls: wire.parallel_tool_calls,
        temperature: wire.temperature,
        top_p: wire.top_p,
        max_tokens: wire.max_output_tokens,
        logprobs: wire.include.unwrap_or_default().iter().any(|wanted| wanted == INCLUDED),
        top_logprobs: wire.top_logprobs,
        user: wire.user,
        metadata: wire.metadata,
        reasoning_effort: effort,
        response_format: wire.text.and_then(|text| text.format).map(response_format).transpose()?,
        service_tier: wire.service_tier,
        notes: told.into_vec(),
        ..ChatRequest::default()
    };
    Ok(Turn { chat, stream: wire.stream.unwrap_or(false), echo, names })
}

/// The form of an answer, as chat completions write it: the schema with its name in an object of its own.
fn response_format(format: Value) -> Result<Value, Fault> {
    match (format, "text.format must be an object with a type") {
        (Value::Object(mut format), fault) => match format.remove("type") {
            Some(Value::String(kind)) if kind == "json_schema" => Ok(json!({"type": kind, "json_schema": format})),
            Some(Value::String(kind)) => Ok(json!({ "type": kind })),
            _ => Err(Fault::invalid(Some("text"), fault)),
        },
        (_, fault) => Err(Fault::invalid(Some("text"), fault)),
    }
}

#[derive(Deserialize)]
struct Wire {
    model: Option<String>,
    input: Option<OneOrMany<Item>>,
    instructions: Option<String>,
    tools: Option<Vec<WireTool>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    #[serde(default, deserialize_with = "lenient::number")]
    temperature: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    top_p: Option<f64>,
    #[serde(default, deserialize_with = "lenient::count")]
    max_output_tokens: Option<u32>,
    stream: Option<bool>,
    store: Option<bool>,
    previous_response_id: Option<String>,
    conversation: Option<Value>,
    background: Option<bool>,
    include: Option<Vec<String>>,
    #[serde(default, deserialize_with = "lenient::count")]
    top_logprobs: Option<u32>,
    reasoning: Option<Reasoning>,
    text: Option<Text>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    metadata: Map<String, Value>,
    user: Option<String>,
    service_tier: Option<String>,
    truncation: Option<String>,
}

impl Wire {
    /// Refuses what needs what is kept nowhere here.
    fn refuse_what_cannot_be_kept(&self) -> Result<(), Fault> {
        if self.conversation.is_some() {
            let words = "The `conversation` was not found: none is kept here; send the whole of it as `input`.";
            return Err(Fault::missing("not_found", Some("conversation"), words));
        }
        if self.background == Some(true) && self.store == Some(false) {
            let words = "background needs a response that is kept; leave `store` out, or set it to true";
            return Err(Fault::invalid(Some("background"), words));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Reasoning {
    effort: Option<String>,
}

#[derive(Deserialize)]
struct Text {
    format: Option<Value>,
}

#[cfg(test)]
mod tests;
