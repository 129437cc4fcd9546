//! The way in for tools that speak a provider's format: their requests as the gateway takes them, and its answers and
//! errors in the form that they know.
//!
//! Nothing here knows a socket, a path's server or a provider: a port reads a body, hands it to [`ToolFormat::read`], asks
//! the gateway, and sends what the [`AnswerWriter`] writes. The way out, to a provider, is in
//! [`formats`](crate::formats).
//!
//! | module | what it holds |
//! |---|---|
//! | `chat_completions`, `completions`, `messages`, `responses` | one format each: `request` reads, `answer` writes |
//! | `asked` | what a tool asks |
//! | `embeddings` | vectors, which go to providers of OpenAI's format as they come |
//! | `fault` | errors, each with its status, in the form of OpenAI or of Anthropic |
//! | `ids` | names that every format takes |
//! | `wire` | what tools write in several ways, and the names of models |
//! | `pass` | requests that go to a provider as they came |
//! | `writer`, `stamp` | what writes an answer; its id and time |
//! | `wholeness` | whether the arguments of a call have come to their end |
//! | `count` | an estimate of the tokens of a request |
//! | `counted` | what a tool is told that its answer took |
//!
//! docs/api.md says for each field of each format what becomes of it.

mod asked;
mod chat_completions;
mod completions;
mod count;
mod counted;
mod embeddings;
mod fault;
mod messages;
mod pass;
mod responses;
#[cfg(all(test, feature = "http"))]
mod round_trip;
mod stamp;
mod wholeness;
mod wire;
mod writer;

use crate::pass::PassFormat;

pub use asked::Asked;
pub use count::{BYTES_A_TOKEN, estimate_tokens};
pub(crate) use count::{estimate_tokens_of, weigh_tokens};
pub use embeddings::{embedding_request, embedding_response, odd_vectors};
pub use fault::{ErrorForm, Fault};
pub use pass::{cut_off, pass_request};
pub use responses::{ItemsPage, KeptItems, Replay, StoredRequest, StoredResponse};
pub(crate) use wire::DEFAULT_MODEL;
pub use writer::AnswerWriter;

use crate::json;
use crate::notes::bound;

/// How many bytes a request of any format takes at the most when it is read, beside its own: for its values, of which there
/// may be one for every two bytes. This takes no memory, and about a millisecond for each megabyte.
///
/// ```
/// use bellrope_gateway::inbound::weight;
///
/// assert!(weight(br#"{"input":"a long text"}"#) < 2_000);
/// assert!(weight(format!("[{}1]", "1,".repeat(1_000)).as_bytes()) > 100_000);
/// ```
pub fn weight(body: &[u8]) -> u64 {
    json::weight(body, &["messages", json::IN_LIST, "content", json::IN_LIST, "input"])
}

/// A format in which tools ask for answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToolFormat {
    /// OpenAI's chat completions.
    ChatCompletions,
    /// OpenAI's responses.
    Responses,
    /// OpenAI's completions of a prompt, with `suffix`.
    Completions,
    /// Anthropic's messages.
    Messages,
}

impl ToolFormat {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::ChatCompletions, Self::Responses, Self::Completions, Self::Messages];

    /// Where requests of this format are posted.
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Completions => "/v1/completions",
            Self::Messages => "/v1/messages",
        }
    }

    /// The form of its errors.
    pub fn errors(self) -> ErrorForm {
        match self {
            Self::Messages => ErrorForm::Anthropic,
            _ => ErrorForm::OpenAi,
        }
    }

    /// Reads a request. `providers`: the names that may stand before a model's name, as in `PROVIDER/MODEL`.
    ///
    /// ```
    /// use bellrope_gateway::inbound::ToolFormat;
    ///
    /// let body = br#"{"model":"openai/gpt-5","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
    /// let asked = ToolFormat::Messages.read(body, &["openai".to_owned()])?;
    /// assert_eq!((asked.chat.provider.as_deref(), asked.chat.max_tokens), (Some("openai"), Some(9)));
    /// # Ok::<(), bellrope_gateway::inbound::Fault>(())
    /// ```
    ///
    /// # Errors
    /// It cannot be read, or asks for what cannot be done.
    pub fn read(self, body: &[u8], providers: &[String]) -> Result<Asked, Fault> {
        let mut asked = match self {
            Self::ChatCompletions => chat_completions::read(body, providers),
            Self::Responses => responses::read(body, providers),
            Self::Completions => completions::read(body, providers),
            Self::Messages => messages::read(body, providers),
        }?;
        asked.chat.from_tool.format = Some(self.into());
        asked.chat.from_tool.carried = pass::carried(self.into(), body, &mut asked.chat.notes);
        bound(&mut asked.chat.notes);
        let tokens = weigh_tokens(&asked.chat);
        asked.chat.from_tool.tokens = Some(tokens);
        asked.writer.expect(tokens.likely);
        if let Some(stored) = &mut asked.stored {
            stored.expect(tokens.likely);
        }
        Ok(asked)
    }
}

impl From<ToolFormat> for PassFormat {
    fn from(format: ToolFormat) -> Self {
        match format {
            ToolFormat::ChatCompletions => Self::ChatCompletions,
            ToolFormat::Completions => Self::Completions,
            ToolFormat::Responses => Self::Responses,
            ToolFormat::Messages => Self::Messages,
        }
    }
}
