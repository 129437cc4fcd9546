//! What the editor asks.

use std::fmt;

use bellrope::breaker::Caller;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::from_tool::FromTool;
use super::lenient;
use super::version::{WIRE_VERSION, version, wire_version};
use crate::account::Meter;
use crate::asker::Asker;
use crate::room::AnswerRoom;

/// A conversation to be continued: the payload of `ai.chat` and `ai.chat_stream`.
///
/// Only `messages` is required on the wire.
///
/// ```
/// use bellrope_gateway::{ChatRequest, Content, Role};
///
/// let request: ChatRequest = serde_json::from_str(r#"{"messages":[{"role":"user","content":"Hello"}]}"#)?;
/// assert_eq!(request.messages[0].role, Role::User);
/// assert_eq!(request.messages[0].content, Content::Text("Hello".into()));
/// assert_eq!(request, ChatRequest::user("Hello"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The version of this message; [`WIRE_VERSION`] if absent.
    #[serde(default = "wire_version", deserialize_with = "version")]
    pub version: u32,
    /// The provider's name; the gateway's default one if absent.
    #[serde(default, deserialize_with = "lenient::name", skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The model's name as the provider knows it; the provider's default one if absent.
    #[serde(default, deserialize_with = "lenient::name", skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Instructions that stand before the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The conversation so far, oldest first. At least one.
    pub messages: Vec<Message>,
    /// The tools the model may call.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// Whether and which tool the model has to call; the provider's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    /// Sampling temperature, usually 0 to 2; the provider's default if absent. One above what the provider's format has
    /// counts as its highest.
    #[serde(default, deserialize_with = "lenient::number", skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The most tokens to answer with; the provider's default if absent, 0 or less.
    #[serde(default, deserialize_with = "lenient::count", skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Texts that end the answer when they appear in it. Most providers allow four.
    #[serde(default, deserialize_with = "lenient::texts", skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// From how much of the probability the next token is chosen, 0 to 1.
    #[serde(default, deserialize_with = "lenient::number", skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// From how many tokens the next one is chosen.
    #[serde(default, deserialize_with = "lenient::count", skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// What makes the choice repeatable, as far as the provider can.
    #[serde(default, deserialize_with = "lenient::whole", skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// How much a token that was used already is avoided, -2 to 2.
    #[serde(default, deserialize_with = "lenient::number", skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// How much a token is avoided for each time that it was used, -2 to 2.
    #[serde(default, deserialize_with = "lenient::number", skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// What is added to the likelihood of single tokens: their numbers, each with -100 to 100.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "Map::is_empty")]
    pub logit_bias: Map<String, Value>,
    /// Whether the answer is to say how likely its tokens were.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "is_false")]
    pub logprobs: bool,
    /// How many of the likeliest tokens of each place the answer is to say, usually up to 20. It means `logprobs`, too.
    #[serde(default, deserialize_with = "lenient::count", skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
    /// Who asks, as the provider is to know them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Words and values that the provider keeps with the request.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// How long the model reasons, in the provider's word: usually `low`, `medium` or `high`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<String>,
    /// How long the model reasons, as Anthropic writes it: an object whose `type` is `enabled` (with `budget_tokens`),
    /// `adaptive` or `disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Value>,
    /// Whether the model may call several tools at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer, as OpenAI writes it: an object whose `type` is `text`, `json_object` or `json_schema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Value>,
    /// How soon the provider answers and at what price, in its own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// How many answers to make. Only one is ever made, and more are refused.
    #[serde(default, deserialize_with = "lenient::count", skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// Whether the answer is to be kept for a while, so that it can be gone on with if its reader is lost: of
    /// `ai.chat_stream` alone. By default it ends with its reader.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "is_false")]
    pub resumable: bool,
    /// A text to be continued as it stands, rather than answered: of completions alone, and never part of the JSON.
    #[serde(skip)]
    pub prompt: Option<Prompt>,
    /// What of the request was left out before it came here. Told with the answer, and never part of the JSON.
    #[serde(skip)]
    pub notes: Vec<String>,
    /// Who asks, and by which way. Never part of the JSON.
    #[serde(skip)]
    pub asker: Asker,
    /// Who asks, as the breakers of providers tell callers apart; all that are not known are one. Never part of the JSON.
    #[serde(skip)]
    pub caller: Option<Caller>,
    /// What came with it from a tool at the API port. Never part of the JSON.
    #[serde(skip)]
    pub from_tool: FromTool,
    /// Where a provider notes what the answer has taken before its end. Never part of the JSON.
    #[serde(skip)]
    pub meter: Meter,
    /// What a whole answer takes its room from. Never part of the JSON.
    #[serde(skip)]
    pub room: AnswerRoom,
}

impl ChatRequest {
    /// A request with one message of the user and everything else by default.
    pub fn user(text: impl Into<String>) -> Self {
        Self { messages: vec![Message::new(Role::User, text)], ..Self::default() }
    }

    /// Whether the answer is to say how likely its tokens were.
    pub(crate) fn wants_logprobs(&self) -> bool {
        self.logprobs || self.top_logprobs.is_some()
    }

    /// Whether its texts have more than so many bytes, as far as a quick look shows. Everything counts for something.
    pub(crate) fn is_large(&self, bytes: usize) -> bool {
        self.size(bytes) > bytes
    }

    /// Bytes that it takes, as far as a quick look shows, which ends once there are more than `most`.
    pub(crate) fn size(&self, most: usize) -> usize {
        let mut size = 0_usize;
        let mut takes = |more: usize| {
            size = size.saturating_add(more + 64);
            size > most
        };
        let of_tools = |tool: &Tool| tree_size(&tool.parameters) + tool.description.as_ref().map_or(0, String::len);
        let _ = self.system.as_ref().is_some_and(|text| takes(text.len()))
            || self.tools.iter().any(|tool| takes(of_tools(tool)))
            || self.messages.iter().any(|message| match &message.content {
                Content::Text(text) => takes(text.len()),
                Content::Parts(parts) => parts.iter().any(|part| takes(part.text_len())),
            });
        size
    }
}

impl Default for ChatRequest {
    fn default() -> Self {
        Self {
            version: WIRE_VERSION,
            provider: None,
            model: None,
            system: None,
            messages: Vec::new(),
            tools: Vec::new(),
            tool_choice: None,
            temperature: None,
            max_tokens: None,
            stop: Vec::new(),
            top_p: None,
            top_k: None,
            seed: None,
            presence_penalty: None,
            frequency_penalty: None,
            logit_bias: Map::new(),
            logprobs: false,
            top_logprobs: None,
            user: None,
            metadata: Map::new(),
            reasoning_effort: None,
            thinking: None,
            parallel_tool_calls: None,
            response_format: None,
            service_tier: None,
            n: None,
            resumable: false,
            prompt: None,
            notes: Vec::new(),
            asker: Asker::default(),
            caller: None,
            from_tool: FromTool::default(),
            meter: Meter::default(),
            room: AnswerRoom::default(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A text to be continued as it stands, by providers that speak OpenAI's completions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompt {
    /// What stands before the place to fill.
    pub text: String,
    /// What stands after it.
    pub suffix: Option<String>,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    #[serde(default)]
    pub content: Content,
}

impl Message {
    /// A turn of plain text.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: Content::Text(text.into()) }
    }
}

/// Who speaks in a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions to the model; `developer` is another word for it.
    #[serde(alias = "developer")]
    System,
    /// The person who asks. May carry text, images and results of tools.
    User,
    /// The model. May carry text and calls of tools.
    Assistant,
    /// Results of tools, and nothing else.
    Tool,
}

/// What a [`Message`] says: on the wire either a string or a list of parts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Parts in order.
    Parts(Vec<Part>),
}

impl Default for Content {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

// By hand, because the derived code for untagged enums hides which part of a list was wrong.
impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ContentVisitor;

        impl<'de> Visitor<'de> for ContentVisitor {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of parts")
            }

            fn visit_unit<E>(self) -> Result<Content, E> {
                Ok(Content::default())
            }

            fn visit_str<E>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<Content, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(parts)).map(Content::Parts)
            }
        }

        deserializer.deserialize_any(ContentVisitor)
    }
}

/// One part of a [`Content`]. An unknown type is an error, because leaving out what was said would change its meaning.
///
/// `cache_control` is Anthropic's mark up to where the provider may keep what it has read. It goes to providers that
/// speak Anthropic's format, and to no other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Part {
    /// Text.
    Text {
        /// The text itself.
        text: String,
        /// See [`Part`].
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<Value>,
    },
    /// A picture.
    Image {
        /// A data URL (`data:image/png;base64,...`) or an address that the provider can fetch.
        url: String,
        /// How closely to look: `low`, `high` or `auto`. Only OpenAI's formats have it.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// See [`Part`].
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<Value>,
    },
    /// What the model thought in an earlier turn.
    Reasoning {
        /// The text.
        text: String,
        /// What the provider that thought it gave with it, and wants back as it was: an object with Anthropic's
        /// `signature` or `data` (of a redacted block), or with the `id` and `encrypted_content` of OpenAI's responses.
        #[serde(skip_serializing_if = "Option::is_none")]
        details: Option<Value>,
    },
    /// A call of a tool that the model made in an earlier turn.
    ToolUse {
        /// The call's id, which its result refers to.
        id: String,
        /// The tool's name.
        name: String,
        /// The arguments: usually a JSON object. A string is the text that the model wrote, which may be anything. A list
        /// or an object of more than 256 bytes is read as such a string, which takes far less memory.
        input: Value,
        /// What the provider gave with the call, and wants back as it was: Gemini's thought signature.
        #[serde(skip_serializing_if = "Option::is_none")]
        extra_content: Option<Value>,
    },
    /// What a tool answered.
    ToolResult {
        /// The id of the call.
        tool_use_id: String,
        /// The answer as text.
        content: String,
        /// The pictures of the answer, after its text: each a URL as of [`Part::Image`]. In chat completions, which have
        /// no place for them, words stand for each.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        images: Vec<String>,
        /// Whether the tool failed. Providers without such a mark get the text alone.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
        /// See [`Part`].
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<Value>,
    },
}

/// Bytes that a tree takes, about: its texts, and what each value has beside them.
fn tree_size(value: &Value) -> usize {
    const VALUE: usize = 32;
    VALUE
        + match value {
            Value::String(text) => text.len(),
            Value::Array(list) => list.iter().map(tree_size).sum(),
            Value::Object(fields) => fields.iter().map(|(name, value)| 2 * VALUE + name.len() + tree_size(value)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

impl Part {
    /// Bytes of its texts and trees, but for short ones.
    fn text_len(&self) -> usize {
        match self {
            Self::Text { text, .. } | Self::Image { url: text, .. } => text.len(),
            Self::Reasoning { text, details } => text.len() + details.as_ref().map_or(0, tree_size),
            Self::ToolUse { input, .. } => tree_size(input),
            Self::ToolResult { content, images, .. } => content.len() + images.iter().map(String::len).sum::<usize>(),
        }
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), cache_control: None }
    }

    /// A picture, by its URL.
    pub fn image(url: impl Into<String>) -> Self {
        Self::Image { url: url.into(), detail: None, cache_control: None }
    }

    /// A call of a tool.
    pub fn tool_use(id: impl Into<String>, name: impl Into<String>, input: Value) -> Self {
        Self::ToolUse { id: id.into(), name: name.into(), input, extra_content: None }
    }

    /// What a tool answered, as text.
    pub fn tool_result(id: impl Into<String>, content: impl Into<String>) -> Self {
        let (tool_use_id, content) = (id.into(), content.into());
        Self::ToolResult { tool_use_id, content, images: Vec::new(), is_error: false, cache_control: None }
    }
}

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Tool {
    /// The name the model calls it by.
    pub name: String,
    /// What it does, for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON schema of its arguments; an object without properties if absent.
    #[serde(default = "no_parameters")]
    pub parameters: Value,
    /// Whether the arguments have to fit the schema, from providers that see to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// See [`Part`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Value>,
}

fn no_parameters() -> Value {
    serde_json::json!({"type": "object", "properties": {}})
}

/// Whether the model has to call a tool: `"auto"`, `"none"`, `"required"` or `{"tool":{"name":"..."}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// The model decides.
    Auto,
    /// No tool is called.
    None,
    /// Some tool is called.
    Required,
    /// This very tool is called.
    Tool {
        /// The tool's name.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_large_by_all_that_it_says_wherever_that_stands() {
        let of = |json: Value| serde_json::from_value::<ChatRequest>(json).unwrap();
        let half = "x".repeat(600);
        let user = |content: Value| of(serde_json::json!({"messages": [{"role": "user", "content": content}]}));
        for (request, large) in [
            (ChatRequest::user("Hi"), false),
            (user(half.repeat(2).into()), true),
            (user(serde_json::json!([{"type": "text", "text": half}])), false),
            (user(serde_json::json!([{"type": "text", "text": half}, {"type": "image", "url": half}])), true),
            (
                user(
                    serde_json::json!([{"type": "tool_result", "tool_use_id": "a", "content": half, "images": [half]}]),
                ),
                true,
            ),
            (ChatRequest { system: Some(half.repeat(2)), ..ChatRequest::user("Hi") }, true),
            (ChatRequest { messages: vec![Message::new(Role::User, ""); 20], ..ChatRequest::default() }, true),
        ] {
            assert_eq!(request.is_large(1000), large, "{request:?}");
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_the_version_defaults() {
        let request: ChatRequest =
            serde_json::from_str(r#"{"messages":[{"role":"user","content":"a","colour":1}],"later":{"x":[]}}"#)
                .unwrap();
        assert_eq!(request, ChatRequest::user("a"));
        let null = r#"{"version":null,"messages":[{"role":"user","content":"a"}]}"#;
        assert_eq!(serde_json::from_str::<ChatRequest>(null).unwrap(), request);
    }

    #[test]
    fn parts_keep_their_order_and_come_back_as_they_went() {
        let json = r#"{"role":"user","content":[{"type":"text","text":"what is this?"},{"type":"image","url":"data:image/png;base64,AA=="},{"type":"tool_result","tool_use_id":"c1","content":"4","is_error":true}]}"#;
        let message: Message = serde_json::from_str(json).unwrap();
        assert!(matches!(&message.content, Content::Parts(parts) if parts.len() == 3));
        assert_eq!(serde_json::to_string(&message).unwrap(), json);
    }

    #[test]
    fn a_wrong_part_is_named_in_the_error() {
        let error = serde_json::from_str::<Message>(r#"{"role":"user","content":[{"type":"smell"}]}"#).unwrap_err();
        assert!(error.to_string().contains("unknown variant `smell`"), "{error}");
        let error = serde_json::from_str::<Message>(r#"{"role":"user","content":7}"#).unwrap_err();
        assert!(error.to_string().contains("a string or a list of parts"), "{error}");
    }

    #[test]
    fn tool_choices_have_their_documented_form() {
        let named = ToolChoice::Tool { name: "grep".into() };
        assert_eq!(serde_json::to_string(&named).unwrap(), r#"{"tool":{"name":"grep"}}"#);
        assert_eq!(serde_json::from_str::<ToolChoice>(r#""required""#).unwrap(), ToolChoice::Required);
    }
}
