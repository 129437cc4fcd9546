//! What the message types of the gateway take and answer with, as schemas.
//!
//! They are written by hand, because serde does not tell the forms of their types: objects told apart by a field, texts or
//! lists, fields that may be left out, numbers that are read leniently. A schema says what to send: what is read beyond that
//! is for callers that were never told. The tests hold them to the types.

use bellrope::server::ServerBuilder;
use bellrope::service::{Form, Schema, Shape, Type};

use super::names::{CANCEL, CHAT, CHAT_STREAM, COMPLETE, COMPLETE_STREAM, EMBED, MESSAGE_TYPES, MODELS, RESUME};

/// Says what all of them are.
pub(super) fn describe(builder: ServerBuilder) -> ServerBuilder {
    MESSAGE_TYPES.iter().fold(builder, |builder, name| builder.schema(name, schema_of(name)))
}

/// The schema of one.
pub(super) fn schema_of(name: &str) -> Schema {
    let mut types = Types::default();
    let request = match name {
        CHAT | CHAT_STREAM => chat_request(&mut types),
        COMPLETE | COMPLETE_STREAM => completion_request(&mut types),
        RESUME => types.object("ResumeRequest", &[version(), ("id", TEXT), ("last_seq", optional(U64))]),
        CANCEL => types.object("CancelRequest", &[version(), ("id", TEXT)]),
        EMBED => types.object(
            "EmbedRequest",
            &[
                version(),
                ("provider", optional(TEXT)),
                ("model", optional(TEXT)),
                ("input", list(TEXT)),
                ("dimensions", optional(U32)),
            ],
        ),
        _ => types.object("Question", &[version()]),
    };
    let answer = match name {
        CHAT | COMPLETE => chat_response(&mut types),
        CHAT_STREAM | COMPLETE_STREAM | RESUME => sequenced_chunk(&mut types),
        CANCEL => types.object("CancelReport", &[version(), ("cancelled", Shape::Bool)]),
        EMBED => {
            let usage = usage(&mut types);
            let vectors = list(list(Shape::Float { bits: 32 }));
            let fields = [version(), ("model", optional(TEXT)), ("embeddings", vectors), ("usage", optional(usage))];
            types.object("EmbedResponse", &fields)
        }
        MODELS => model_list(&mut types),
        _ => health_report(&mut types),
    };
    Schema { codec: "json".to_owned(), request, answer, sent: Shape::Unit, types: types.0 }
}

const TEXT: Shape = Shape::Text;
const U8: Shape = Shape::Integer { signed: false, bits: 8 };
const U32: Shape = Shape::Integer { signed: false, bits: 32 };
const U64: Shape = Shape::Integer { signed: false, bits: 64 };
const I64: Shape = Shape::Integer { signed: true, bits: 64 };
const F64: Shape = Shape::Float { bits: 64 };

fn optional(shape: Shape) -> Shape {
    Shape::Optional(Box::new(shape))
}

fn list(shape: Shape) -> Shape {
    Shape::List(Some(Box::new(shape)))
}

/// An object of JSON whose keys are not known here.
fn object() -> Shape {
    Shape::Map(Some(Box::new((TEXT, Shape::Any))))
}

/// Every message may say it.
fn version() -> Field {
    ("version", optional(U32))
}

type Field = (&'static str, Shape);

/// The types of a schema, so far.
#[derive(Default)]
struct Types(Vec<Type>);

impl Types {
    fn add(&mut self, name: &str, form: Form) -> Shape {
        let place = self.0.iter().position(|known| known.name == name).unwrap_or_else(|| {
            self.0.push(Type { name: name.to_owned(), form });
            self.0.len() - 1
        });
        Shape::Type(place as u32)
    }

    fn object(&mut self, name: &str, fields: &[Field]) -> Shape {
        self.add(name, Form::Struct(owned(fields)))
    }

    /// An object whose field `tag` says which of these it is.
    fn tagged(&mut self, name: &str, tag: &str, variants: &[(&str, Vec<Field>)]) -> Shape {
        let variants = variants.iter().map(|(variant, fields)| ((*variant).to_owned(), owned(fields))).collect();
        self.add(name, Form::Tagged { tag: tag.to_owned(), variants })
    }

    /// One of these words.
    fn words(&mut self, name: &str, words: &[&str]) -> Shape {
        self.add(name, Form::Enum(words.iter().map(|word| ((*word).to_owned(), Form::Unit)).collect()))
    }
}

fn owned(fields: &[Field]) -> Vec<(String, Shape)> {
    fields.iter().map(|(name, shape)| ((*name).to_owned(), shape.clone())).collect()
}

fn chat_request(types: &mut Types) -> Shape {
    let message = message(types);
    let tool = types.object(
        "Tool",
        &[
            ("name", TEXT),
            ("description", optional(TEXT)),
            ("parameters", optional(Shape::Any)),
            ("strict", optional(Shape::Bool)),
            ("cache_control", optional(Shape::Any)),
        ],
    );
    let named = Form::Struct(owned(&[("name", TEXT)]));
    let words = ["auto", "none", "required"].map(|word| (word.to_owned(), Form::Unit));
    let choices = words.into_iter().chain([("tool".to_owned(), named)]).collect();
    let choice = types.add("ToolChoice", Form::Enum(choices));
    types.object(
        "ChatRequest",
        &[
            version(),
            ("provider", optional(TEXT)),
            ("model", optional(TEXT)),
            ("system", optional(TEXT)),
            ("messages", list(message)),
            ("tools", optional(list(tool))),
            ("tool_choice", optional(choice)),
            ("temperature", optional(F64)),
            ("max_tokens", optional(U32)),
            ("stop", optional(list(TEXT))),
            ("top_p", optional(F64)),
            ("top_k", optional(U32)),
            ("seed", optional(I64)),
            ("presence_penalty", optional(F64)),
            ("frequency_penalty", optional(F64)),
            ("logit_bias", optional(object())),
            ("logprobs", optional(Shape::Bool)),
            ("top_logprobs", optional(U32)),
            ("user", optional(TEXT)),
            ("metadata", optional(object())),
            ("reasoning_effort", optional(TEXT)),
            ("thinking", optional(Shape::Any)),
            ("parallel_tool_calls", optional(Shape::Bool)),
            ("response_format", optional(Shape::Any)),
            ("service_tier", optional(TEXT)),
            ("n", optional(U32)),
            ("resumable", optional(Shape::Bool)),
        ],
    )
}

fn completion_request(types: &mut Types) -> Shape {
    types.object(
        "CompletionRequest",
        &[
            version(),
            ("provider", optional(TEXT)),
            ("model", optional(TEXT)),
            ("system", optional(TEXT)),
            ("prompt", TEXT),
            ("suffix", optional(TEXT)),
            ("temperature", optional(F64)),
            ("max_tokens", optional(U32)),
            ("stop", optional(list(TEXT))),
        ],
    )
}

fn message(types: &mut Types) -> Shape {
    let role = types.words("Role", &["system", "user", "assistant", "tool"]);
    let part = part(types);
    let content = types.add("Content", Form::Either(vec![TEXT, list(part)]));
    types.object("Message", &[("role", role), ("content", optional(content))])
}

fn part(types: &mut Types) -> Shape {
    let cache = || ("cache_control", optional(Shape::Any));
    types.tagged(
        "Part",
        "type",
        &[
            ("text", vec![("text", TEXT), cache()]),
            ("image", vec![("url", TEXT), ("detail", optional(TEXT)), cache()]),
            ("reasoning", vec![("text", optional(TEXT)), ("details", optional(Shape::Any))]),
            (
                "tool_use",
                vec![
                    ("id", optional(TEXT)),
                    ("name", TEXT),
                    ("input", optional(Shape::Any)),
                    ("extra_content", optional(Shape::Any)),
                ],
            ),
            (
                "tool_result",
                vec![
                    ("tool_use_id", optional(TEXT)),
                    ("content", optional(TEXT)),
                    ("images", optional(list(TEXT))),
                    ("is_error", optional(Shape::Bool)),
                    cache(),
                ],
            ),
        ],
    )
}

fn usage_fields(types: &mut Types) -> Vec<Field> {
    let unsaid = types.object("Unsaid", &[("input", optional(Shape::Bool)), ("output", optional(Shape::Bool))]);
    let answered_by = types.object("AnsweredBy", &[("provider", TEXT), ("model", optional(TEXT))]);
    vec![
        ("input_tokens", U64),
        ("output_tokens", U64),
        ("cache_read_tokens", optional(U64)),
        ("cache_write_tokens", optional(U64)),
        ("reasoning_tokens", optional(U64)),
        ("total_cost", optional(F64)),
        ("unsaid", optional(unsaid)),
        ("answered_by", optional(answered_by)),
    ]
}

fn usage(types: &mut Types) -> Shape {
    let fields = usage_fields(types);
    types.object("Usage", &fields)
}

fn error_fields() -> Vec<Field> {
    vec![("code", TEXT), ("message", TEXT), ("retryable", Shape::Bool), ("not_sent", optional(Shape::Bool))]
}

fn error(types: &mut Types) -> Shape {
    types.object("ErrorInfo", &error_fields())
}

fn stop_reason(types: &mut Types) -> Shape {
    let words = [
        "end_turn",
        "stop_sequence",
        "max_tokens",
        "context_window",
        "tool_use",
        "refusal",
        "pause_turn",
        "content_filter",
        "other",
    ];
    types.words("StopReason", &words)
}

fn token_logprob(types: &mut Types) -> Shape {
    let fields = || vec![("token", TEXT), ("logprob", F64), ("bytes", optional(list(U8)))];
    let top = types.object("TopLogprob", &fields());
    let mut fields = fields();
    fields.push(("top_logprobs", optional(list(top))));
    types.object("TokenLogprob", &fields)
}

fn sequenced_chunk(types: &mut Types) -> Shape {
    let (stop_reason, token, usage) = (stop_reason(types), token_logprob(types), usage_fields(types));
    let call = vec![("index", U32), ("id", optional(TEXT)), ("name", optional(TEXT)), ("arguments", TEXT)];
    let mut variants = [
        ("resumable", vec![("id", TEXT)]),
        ("text", vec![("text", TEXT)]),
        ("reasoning", vec![("text", TEXT)]),
        ("logprobs", vec![("tokens", list(token))]),
        ("tool_call", call),
        ("tool_call_extra", vec![("index", U32), ("extra_content", Shape::Any)]),
        ("reasoning_details", vec![("details", Shape::Any)]),
        ("notice", vec![("text", TEXT)]),
        ("usage", usage),
        ("error", error_fields()),
        ("done", vec![("stop_reason", stop_reason)]),
    ];
    variants.iter_mut().for_each(|(_, fields)| fields.insert(0, ("seq", U64)));
    types.tagged("SequencedChunk", "kind", &variants)
}

fn chat_response(types: &mut Types) -> Shape {
    let part = part(types);
    let call = types.object(
        "ToolCall",
        &[("id", TEXT), ("name", TEXT), ("arguments", TEXT), ("extra_content", optional(Shape::Any))],
    );
    let (usage, stop_reason, token) = (usage(types), stop_reason(types), token_logprob(types));
    types.object(
        "ChatResponse",
        &[
            version(),
            ("model", optional(TEXT)),
            ("text", TEXT),
            ("reasoning", optional(TEXT)),
            ("reasoning_parts", optional(list(part))),
            ("logprobs", optional(list(token))),
            ("tool_calls", optional(list(call))),
            ("usage", optional(usage)),
            ("stop_reason", stop_reason),
            ("notes", optional(list(TEXT))),
        ],
    )
}

fn model_list(types: &mut Types) -> Shape {
    let model = types.object("ModelInfo", &[("id", TEXT), ("provider", TEXT), ("owner", optional(TEXT))]);
    let error = error(types);
    let fault = types.object("ProviderFault", &[("provider", TEXT), ("error", error)]);
    types.object("ModelList", &[version(), ("models", list(model)), ("faults", optional(list(fault)))])
}

fn health_report(types: &mut Types) -> Shape {
    let error = error(types);
    let provider = types.object(
        "ProviderHealth",
        &[("provider", TEXT), ("healthy", Shape::Bool), ("latency_ms", U64), ("error", optional(error))],
    );
    types.object("HealthReport", &[version(), ("default_provider", TEXT), ("providers", list(provider))])
}

#[cfg(test)]
mod tests;
