//! What a wire format is.

use reqwest::Url;
use reqwest::header::HeaderName;

use super::translate::Translate;
use crate::error::ProviderError;
use crate::message::{ChatRequest, Prompt};
use crate::notes::Notes;
use crate::pass::PassFormat;
use crate::secret::Secret;

/// What a request for a completion hears where there are none.
const NO_COMPLETIONS: &str = "this provider's format continues no prompt; completions with a suffix need a provider that \
                              speaks OpenAI's completions (kind = \"openai\")";

/// A wire format on the way to a provider: the request out, the answer back.
pub(crate) trait WireFormat: Send + Sync {
    /// The address that the paths of requests are added to, of one `written` as people write it.
    ///
    /// # Errors
    /// What should be right, after the name of the setting.
    fn base(&self, written: &str, api_version: Option<&str>) -> Result<Url, &'static str>;

    /// Where a request goes, below the base address.
    fn path(&self) -> &'static [Segment];

    /// The header that carries the key, and what stands before the key in it.
    fn key_header(&self) -> (HeaderName, &'static str);

    /// The other headers of every request.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Whether no server of this format answers a request without a model.
    fn needs_model(&self) -> bool {
        false
    }

    /// Whether a server of this format that takes [more than its inventor's](ProviderServer::message_extras) may refuse calls of
    /// earlier turns without what the model thought before them.
    fn wants_thoughts(&self) -> bool {
        false
    }

    /// Whether a tool's key may be one that the inventor of this format gives out: any other was meant for someone else.
    fn may_be_own(&self, key: &Secret) -> bool {
        !is_anthropics(key)
    }

    /// The most texts that end an answer which its servers take; the others are looked for here.
    fn most_stops(&self) -> usize {
        usize::MAX
    }

    /// The most characters of a tool's name that its servers take.
    fn longest_name(&self) -> usize {
        64
    }

    /// Whether this server takes names of tools only of letters, digits, `_` and `-`.
    fn takes_plain_names_only(&self, server: ProviderServer) -> bool {
        server.at_inventor
    }

    /// The most tokens of an answer that are asked for where nobody names a number, if this format demands one.
    fn usual_max_tokens(&self, _model: Option<&str>) -> Option<u32> {
        None
    }

    /// The JSON to post. What of the request goes no further, or goes in other words, is noted.
    ///
    /// # Errors
    /// The request cannot be said in this format.
    fn body(
        &self,
        request: &ChatRequest,
        model: Option<&str>,
        server: ProviderServer,
        notes: &mut Notes,
    ) -> Result<Vec<u8>, ProviderError>;

    /// Whether there is a request for the [continuation of a prompt](Self::completion).
    fn continues_prompts(&self) -> bool {
        false
    }

    /// Where a request for the continuation of a prompt goes, and the JSON to post. The answer's events are those of this
    /// format's other answers.
    ///
    /// # Errors
    /// There is no such request in this format.
    fn completion(
        &self,
        _request: &ChatRequest,
        _prompt: &Prompt,
        _model: Option<&str>,
        _server: ProviderServer,
        _notes: &mut Notes,
    ) -> Result<Post, ProviderError> {
        Err(ProviderError::InvalidRequest { reason: NO_COMPLETIONS.into() })
    }

    /// Where vectors are asked for, if this format has them.
    fn embeddings(&self) -> Option<&'static [Segment]> {
        None
    }

    /// Where the tokens of a request are counted, if this format can do that without an answer, and the JSON to post.
    ///
    /// # Errors
    /// The request cannot be said in this format.
    fn count(&self, _request: &ChatRequest, _model: Option<&str>) -> Result<Option<Post>, ProviderError> {
        Ok(None)
    }

    /// Where a tool's request of this format may go as it came, if the provider's format is the same.
    fn passes(&self, format: PassFormat) -> Option<&'static [Segment]>;

    /// What turns the events of one answer into chunks, with errors that never hold `key`.
    fn translator(&self, key: Option<Secret>) -> Box<dyn Translate>;
}

/// What is known of the server that a request goes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProviderServer {
    /// Whether it is the inventor's own, which may want other fields than all others understand.
    pub(crate) at_inventor: bool,
    /// Whether messages may hold what those of the inventor do not.
    pub(crate) message_extras: bool,
    /// Whether it knows `stream_options`.
    pub(crate) stream_options: bool,
}

/// Whether Anthropic gave out this key: no other inventor's keys begin so.
pub(super) fn is_anthropics(key: &Secret) -> bool {
    key.expose().starts_with("sk-ant-")
}

/// Where something is posted, and its JSON.
pub(crate) type Post = (&'static [Segment], Vec<u8>);

/// A segment of a request's path.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Segment {
    /// This word.
    Word(&'static str),
    /// The name of the model.
    Model,
}

impl Segment {
    /// The segment of a request for this model.
    pub(crate) fn of(self, model: Option<&str>) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Model => model.unwrap_or_default(),
        }
    }
}
