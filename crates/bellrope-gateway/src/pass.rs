//! Requests that go to a provider as they came, because tool and provider speak the same format: byte for byte but for
//! the model's name, the key, and the wish for what the answer took. The answer comes back as the provider sent it.
//!
//! | file | what it holds |
//! |---|---|
//! | `format.rs` | what may be asked for so |
//! | `key.rs` | a tool's own key |
//! | `scan.rs` | where the fields of an object stand in its text |
//! | `edit.rs` | changes of a text at places that are known |
//! | `envelope.rs` | the few fields of a request that matter on its way, and how they are changed in place |
//! | `carried.rs` | fields that nobody here knows, put into the request that was made of the others |
//!
//! No part of it makes a tree of a request. The bytes of an answer are not looked at here: see the HTTP provider.

mod carried;
mod edit;
mod envelope;
mod format;
mod key;
mod scan;

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use futures_core::Stream;

use crate::account::Meter;
use crate::asker::Asker;
use crate::error::ProviderError;
use crate::input_tokens::InputTokens;
use crate::message::{StopReason, Usage};
use crate::room::AnswerRoom;
use crate::server_stop::ServerStop;

pub use carried::Carried;
pub(crate) use carried::MAX_FIELDS;
pub use envelope::{Envelope, Unreadable};
pub use format::PassFormat;
pub use key::ToolKey;

/// The headers of a request that go to the provider with it. No other does.
pub const HEADERS_FROM_TOOL: [&str; 7] = [
    "anthropic-beta",
    "anthropic-version",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "x-client-request-id",
    "x-request-id",
];

/// Pairs of a header's name and its value.
pub type HeaderPairs = Vec<(String, Vec<u8>)>;

/// A request that can go to a provider as it came.
#[derive(Debug, Clone)]
pub struct PassRequest {
    /// What is asked for.
    pub format: PassFormat,
    /// The provider's name; the gateway's default one if absent.
    pub provider: Option<String>,
    /// The model's name as the provider knows it; the provider's default one if absent.
    pub model: Option<String>,
    /// The headers that go with it.
    pub headers: HeaderPairs,
    /// The tool's own key, for providers that are set to take it.
    pub key: Option<ToolKey>,
    /// Who asks, and by which way.
    pub asker: Asker,
    /// Where it is noted what the answer has taken before its end.
    pub meter: Meter,
    /// What a whole answer takes its room from.
    pub room: AnswerRoom,
    /// Whether the server ends: then so does its answer, with a word for it.
    pub end: ServerStop,
    envelope: Envelope,
    body: Bytes,
    /// The most tokens of the answer, if a budget allows fewer than are asked for.
    limit: Option<u32>,
    /// How many tokens it may have, where that was counted as it was read.
    tokens: Option<InputTokens>,
}

impl PassRequest {
    /// A request with this body, of which `envelope` was read.
    #[must_use]
    pub fn new(format: PassFormat, envelope: Envelope, body: Bytes) -> Self {
        Self {
            format,
            provider: None,
            model: None,
            headers: Vec::new(),
            key: None,
            asker: Asker::default(),
            meter: Meter::default(),
            room: AnswerRoom::default(),
            end: ServerStop::default(),
            envelope,
            body,
            limit: None,
            tokens: None,
        }
    }

    /// Whether the answer is to come in pieces.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.envelope.stream
    }

    /// The id of the response that it goes on from.
    #[must_use]
    pub fn previous(&self) -> Option<&str> {
        self.envelope.previous.as_deref()
    }

    /// Its body.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// How many tokens it may have, where its reader has counted them.
    pub(crate) fn tokens(&self) -> Option<InputTokens> {
        self.tokens
    }

    pub(crate) fn set_tokens(&mut self, tokens: InputTokens) {
        self.tokens = Some(tokens);
    }

    /// The most tokens of its answer, where it says so.
    pub(crate) fn max_tokens(&self) -> Option<u32> {
        self.envelope.max_tokens(self.format.token_fields())
    }

    /// Whether it asks for no more than [`Self::max_tokens`] says, however it is read.
    pub(crate) fn is_countable(&self) -> bool {
        self.envelope.is_countable(self.format.token_fields())
    }

    /// Whether thoughts alone may take so many tokens, which Anthropic's servers refuse.
    pub(crate) fn thinks_for(&self, most: u32) -> bool {
        const NAME: &[u8] = b"\"budget_tokens\"";
        let is_as_many = |at: usize| {
            let value = self.body[at + NAME.len()..].trim_ascii_start().strip_prefix(b":").unwrap_or_default();
            let digits: Vec<_> = value.trim_ascii_start().iter().copied().take_while(u8::is_ascii_digit).collect();
            String::from_utf8_lossy(&digits).parse::<u64>().is_ok_and(|budget| budget >= u64::from(most))
        };
        self.format == PassFormat::Messages && memchr::memmem::find_iter(&self.body, NAME).any(is_as_many)
    }

    /// Sets the most tokens that the answer may have, if that is less than is asked for.
    pub(crate) fn set_limit(&mut self, limit: Option<u32>) {
        self.limit = limit;
    }

    /// How many answers are made at once.
    pub(crate) fn choices(&self) -> u32 {
        self.envelope.choices.unwrap_or(1)
    }

    /// The body for a provider that calls the model so, and whether the answer will tell what it took though the tool did
    /// not ask for it. `knows_options`: whether the provider can be asked for that. `is_inventors`: whether it knows the
    /// newest names of fields.
    pub(crate) fn body_for(&self, model: Option<&str>, knows_options: bool, is_inventors: bool) -> (Bytes, bool) {
        let asks = knows_options && self.envelope.stream && self.format.asks_for_usage();
        let adds_usage = asks && !self.envelope.wants_usage;
        let mut fields = self.limit.map(|_| self.format.token_fields().to_vec()).unwrap_or_default();
        if !is_inventors {
            fields.reverse();
        }
        let limit = self.limit.map(|limit| (limit, &*fields));
        (self.envelope.edited(&self.body, model, adds_usage, limit), adds_usage)
    }

    /// Makes it a request for another provider, to which the name of a model means nothing.
    pub(crate) fn forget(&mut self) {
        self.model = None;
    }
}

/// An answer as the provider sent it.
pub struct Passed {
    /// The HTTP status.
    pub status: u16,
    /// The headers that go back with it, the type of the content among them.
    pub headers: HeaderPairs,
    /// The rest.
    pub body: PassedBody,
}

/// The body of an answer.
pub enum PassedBody {
    /// All of it, and what was seen in it.
    Whole(Bytes, Seen),
    /// A stream of events.
    Stream(PassStream),
}

/// A stream of events as it comes in. It pulls, and dropping it closes the provider's connection.
pub type PassStream = Pin<Box<dyn Stream<Item = PassPiece> + Send>>;

/// Bytes of a stream, and what was seen in them.
#[derive(Debug, Default)]
pub struct PassPiece {
    /// To be handed on as they are.
    pub bytes: Bytes,
    /// What was seen since the last piece.
    pub seen: Seen,
    /// How the answer ended, once. Bytes may follow, but for [`PassEnd::Cut`].
    pub end: Option<PassEnd>,
}

/// What was seen in an answer that was handed on: all that accounts need.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Pieces of text, of reasoning and of calls of tools.
    pub pieces: u64,
    /// Bytes of their texts.
    pub said_bytes: usize,
    /// What the answer took, as far as the provider says it.
    pub usage: Option<Usage>,
    /// Whether that is its last word.
    pub is_final: bool,
    /// Why the model stopped.
    pub stop: Option<StopReason>,
}

/// How an answer ended.
#[derive(Debug)]
pub enum PassEnd {
    /// It is whole.
    Done(StopReason),
    /// The provider failed, and its bytes say so.
    Failed(ProviderError),
    /// It broke off, which nobody has told the tool yet.
    Cut(ProviderError, Mark),
}

/// Where an answer broke off, as far as its end has to name that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    /// The id of the answer, in the format of responses.
    pub id: Option<String>,
    /// The number of the next event there.
    pub next: u64,
}

/// An answer without success, as the provider sent it.
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The headers that go back with it.
    pub headers: HeaderPairs,
    /// The body, as far as it is kept.
    pub body: Bytes,
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Why a request that was to go through has no answer.
#[derive(Debug, Clone)]
pub struct PassError {
    /// The reason in the gateway's words.
    pub error: ProviderError,
    /// The provider's own answer, if it gave one.
    pub refusal: Option<Box<Refusal>>,
}

impl From<ProviderError> for PassError {
    fn from(error: ProviderError) -> Self {
        Self { error, refusal: None }
    }
}
