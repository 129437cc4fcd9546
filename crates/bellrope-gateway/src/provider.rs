//! What every AI provider offers, whichever it is.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use bellrope::breaker::{BreakerConfig, Caller};
use futures_core::Stream;
use futures_util::StreamExt;

use crate::account::Meter;
use crate::asker::Asker;
use crate::config::PassThrough;
use crate::error::{Excerpt, ProviderError};
use crate::message::{
    ChatRequest, ChatResponse, Chunk, ModelInfo, Part, ProviderHealth, StopReason, TokenLogprob, ToolCall,
    ToolCallDelta, WIRE_VERSION,
};
use crate::notes::Notes;
use crate::pass::{PassError, PassFormat, PassRequest, Passed, ToolKey};
use crate::room::{AnswerRoom, NoRoom};

/// The most text a collected answer may hold, in bytes: below the default limit of a message.
pub const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// The most tool calls a collected answer may hold.
pub const MAX_TOOL_CALLS: usize = 256;

/// An answer, piece by piece.
///
/// It pulls: nothing is read from the provider's socket unless the stream is polled, so a slow consumer slows the
/// provider down. Dropping it closes the socket. It ends with exactly one of [`Chunk::Done`], [`Chunk::Error`] or an
/// `Err`.
pub type ProviderStream = Pin<Box<dyn Stream<Item = Result<Chunk, ProviderError>> + Send>>;

/// A boxed future, so that [`Provider`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An AI provider.
///
/// Implementations hold no lock across a poll and are called from many tasks at once. All but `name` and
/// `capabilities` run inside a tokio runtime with time and I/O.
pub trait Provider: Send + Sync + 'static {
    /// The name by which requests ask for it: short, lower case, constant.
    fn name(&self) -> &str;

    /// What it can do, as far as that is known without asking it.
    fn capabilities(&self) -> Capabilities;

    /// How the gateway keeps it from being asked too often, or in vain. By default no limit and a breaker.
    fn limits(&self) -> ProviderLimits {
        ProviderLimits::default()
    }

    /// What has to be set before it can answer anything, as far as that is known without asking it. By default nothing.
    fn missing(&self) -> Option<ProviderError> {
        None
    }

    /// What has to be set before it can answer a request that names no model. By default nothing.
    fn missing_model(&self) -> Option<ProviderError> {
        None
    }

    /// The most tokens of an answer that it is asked for where a request names no number; `model` as it is sent. `None`, by
    /// default: it is asked for no number.
    fn usual_max_tokens(&self, _model: Option<&str>) -> Option<u32> {
        None
    }

    /// What becomes of a request whose format it speaks itself. `None`, by default: it speaks none.
    fn pass_through(&self) -> Option<PassThrough> {
        None
    }

    /// Ends the waits before requests are sent again, as the server is about to stop. By default there are none.
    fn begin_drain(&self) {}

    /// Begins an answer. All errors, even those of the request, come out of the stream.
    fn chat_stream(&self, request: ChatRequest) -> ProviderStream;

    /// The models it offers.
    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, ProviderError>>;

    /// The vectors of texts: JSON as OpenAI's embeddings have it, both ways. By default there are none.
    fn embed(&self, _request: EmbeddingRequest) -> BoxFuture<'_, Result<Vec<u8>, ProviderError>> {
        let reason = format!("`{}` has no embeddings; they need a provider that speaks OpenAI's format", self.name());
        Box::pin(async move { Err(ProviderError::InvalidRequest { reason: Excerpt::new(&reason) }) })
    }

    /// How many tokens the provider counts in a request, if it can do that. By default it cannot.
    fn count_tokens(&self, _request: ChatRequest) -> BoxFuture<'_, Result<Option<u64>, ProviderError>> {
        Box::pin(async { Ok(None) })
    }

    /// Whether it takes requests of this format as they come, and gives its answers back so. By default it does not.
    fn passes(&self, _format: PassFormat) -> bool {
        false
    }

    /// Whether it takes what is not known here of requests of this format, which are put in order on their way. By default
    /// it does not.
    fn carries(&self, _format: PassFormat) -> bool {
        false
    }

    /// Whose key it is sent with a request of a tool that speaks this format. By default one of this program.
    fn takes_key(&self, _format: Option<PassFormat>) -> TakesKey {
        TakesKey::OfServer
    }

    /// Whether its requests have a place for what the model thought before the calls of earlier turns, without which some
    /// servers refuse these. By default they have none.
    fn wants_thoughts(&self) -> bool {
        false
    }

    /// Whether no model of it has a slash in its name. A name with one that comes to it by default was then probably meant for
    /// another provider, which is said beside the answer. By default nobody knows.
    fn has_plain_names(&self) -> bool {
        false
    }

    /// Whether it can continue a prompt, as OpenAI's completions do. By default nobody knows before it is asked.
    fn continues_prompts(&self) -> bool {
        true
    }

    /// Whether it asks others, whose providers' names may stand before a model's: `PROVIDER/MODEL` goes to it whole.
    fn asks_others(&self) -> bool {
        false
    }

    /// Sends a request as it came. Only for formats of which [`Provider::passes`] says so.
    fn pass(&self, _request: PassRequest) -> BoxFuture<'_, Result<Passed, PassError>> {
        let reason = format!("`{}` takes no request as it comes", self.name());
        Box::pin(async move { Err(ProviderError::InvalidRequest { reason: Excerpt::new(&reason) }.into()) })
    }

    /// Whether a request sent now can be expected to be answered. Takes some seconds at most, and costs no tokens.
    fn health(&self) -> BoxFuture<'_, ProviderHealth>;

    /// A whole answer: by default the collected stream.
    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ProviderError>> {
        let model = request.model.clone().or_else(|| self.capabilities().default_model);
        let (room, meter) = (request.room.clone(), request.meter.clone());
        let stream = self.chat_stream(request);
        Box::pin(collect_within(stream, model, room, meter))
    }
}

/// Whose key a provider is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakesKey {
    /// One of this program, or none.
    OfServer,
    /// The one that the tool sent (`credentials = "client"`).
    OfTool {
        /// Whether the tool speaks the provider's format. Otherwise its key was made by somebody else.
        is_its_format: bool,
    },
}

/// A request for the vectors of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingRequest {
    /// The provider's name; the gateway's default one if absent.
    pub provider: Option<String>,
    /// The model's name as the provider knows it; the provider's default one if absent.
    pub model: Option<String>,
    /// The other fields of the request, without the model: the JSON text of an object.
    pub fields: String,
    /// For how many texts vectors are to come, as far as that is known.
    pub texts: Option<usize>,
    /// Who asks, as breakers tell callers apart. `None`: by its token, or with all others who have none.
    pub caller: Option<Caller>,
    /// Who asks, and by which way.
    pub asker: Asker,
    /// The tool's own key, for providers that take it.
    pub key: Option<ToolKey>,
    /// What the answer takes its room from.
    pub room: AnswerRoom,
}

/// What a provider can do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// The model that answers requests which name none.
    pub default_model: Option<String>,
    /// Whether models may call tools.
    pub tools: bool,
    /// Whether messages may hold images.
    pub images: bool,
    /// Whether models may show their reasoning.
    pub reasoning: bool,
}

/// How often a provider is asked at most, and when not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderLimits {
    /// How many requests a minute; 0 for no limit.
    pub requests_per_minute: u32,
    /// How many of them at once after a pause; 0 for as many as in a minute.
    pub burst: u32,
    /// When it is no longer asked because it fails; absent for never.
    pub breaker: Option<BreakerConfig>,
}

impl Default for ProviderLimits {
    fn default() -> Self {
        Self { requests_per_minute: 0, burst: 0, breaker: Some(BreakerConfig::default()) }
    }
}

/// Collects a stream into one answer of at most [`MAX_ANSWER`] bytes and [`MAX_TOOL_CALLS`] tool calls.
///
/// # Errors
/// The stream's own error; [`ProviderError::TooLarge`]; [`ProviderError::Truncated`] if it ends without a terminal piece.
pub async fn collect(stream: ProviderStream, model: Option<String>) -> Result<ChatResponse, ProviderError> {
    collect_within(stream, model, AnswerRoom::default(), Meter::default()).await
}

/// The same, of which each byte takes its room there. What came of an answer that fails, or that nobody waits for any longer, is
/// noted in the meter.
async fn collect_within(
    mut stream: ProviderStream,
    model: Option<String>,
    room: AnswerRoom,
    meter: Meter,
) -> Result<ChatResponse, ProviderError> {
    let mut metered = Metered { answer: Collector::new(model), meter };
    while let Some(chunk) = stream.next().await {
        if let Some(stop_reason) = metered.answer.add(chunk?)? {
            return Ok(metered.whole().finish(stop_reason));
        }
        room.grow_to(MAX_ANSWER - metered.answer.room)?;
    }
    Err(ProviderError::Truncated { reason: "the stream ended without a word".into() })
}

/// An answer on its way, which leaves word in the books of how much of it came.
struct Metered {
    answer: Collector,
    meter: Meter,
}

impl Metered {
    /// The answer, of which there is nothing to say but what it says itself.
    fn whole(mut self) -> Collector {
        self.meter = Meter::default();
        std::mem::replace(&mut self.answer, Collector::new(None))
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.meter.note(self.answer.response.usage.clone(), true, MAX_ANSWER - self.answer.room);
    }
}

impl AnswerRoom {
    /// Makes room for what a stream holds back of its answer, so many bytes in all: once, as they are held as they are. It is held
    /// as long as a clone of this is.
    ///
    /// # Errors
    /// There is none, so the answer is to end with this.
    pub fn hold_back(&self, bytes: usize) -> Result<(), ProviderError> {
        Ok(self.hold(bytes)?)
    }
}

impl From<NoRoom> for ProviderError {
    fn from(NoRoom(reason): NoRoom) -> Self {
        Self::NoRoom(Excerpt::new(&reason))
    }
}

struct Collector {
    response: ChatResponse,
    /// From where on the reasoning belongs to no part.
    thought: usize,
    notes: Notes,
    /// Where in `response.tool_calls` the call with the provider's index is.
    calls: BTreeMap<u32, usize>,
    /// Bytes that may still come in.
    room: usize,
}

impl Collector {
    fn new(model: Option<String>) -> Self {
        let response = ChatResponse {
            version: WIRE_VERSION,
            model,
            text: String::new(),
            reasoning: String::new(),
            reasoning_parts: Vec::new(),
            logprobs: Vec::new(),
            tool_calls: Vec::new(),
            usage: None,
            stop_reason: StopReason::Other,
            notes: Vec::new(),
        };
        Self { response, thought: 0, notes: Notes::default(), calls: BTreeMap::new(), room: MAX_ANSWER }
    }

    /// Takes one piece in; a reason to stop says that it was the last.
    fn add(&mut self, chunk: Chunk) -> Result<Option<StopReason>, ProviderError> {
        match chunk {
            Chunk::Text { text } => {
                self.take_room(text.len())?;
                self.response.text.push_str(&text);
            }
            Chunk::Reasoning { text } => {
                self.take_room(text.len())?;
                self.response.reasoning.push_str(&text);
            }
            Chunk::ReasoningDetails { details } => {
                // A part has its text once more.
                let text = self.response.reasoning[self.thought..].to_owned();
                self.take_room(text.len() + details.to_string().len())?;
                self.thought = self.response.reasoning.len();
                self.response.reasoning_parts.push(Part::Reasoning { text, details: Some(details) });
            }
            Chunk::Logprobs { mut tokens } => {
                self.take_room(tokens.iter().map(TokenLogprob::size).sum())?;
                self.response.logprobs.append(&mut tokens);
            }
            Chunk::ToolCall(delta) => self.add_call(delta)?,
            Chunk::ToolCallExtra { index, extra_content } => {
                if let Some(call) = self.calls.get(&index).and_then(|at| self.response.tool_calls.get_mut(*at)) {
                    call.extra_content = Some(extra_content);
                }
            }
            Chunk::Notice { text } => drop(self.notes.add(&text)),
            Chunk::Usage(usage) => self.response.usage = Some(usage),
            Chunk::Done { stop_reason } => return Ok(Some(stop_reason)),
            Chunk::Error(info) => {
                return Err(ProviderError::Reported {
                    code: Some(Excerpt::new(&info.code)),
                    message: Excerpt::new(&info.message),
                    status: None,
                    retryable: info.retryable,
                });
            }
            Chunk::Resumable { .. } | Chunk::Unknown => {}
        }
        Ok(None)
    }

    fn add_call(&mut self, delta: ToolCallDelta) -> Result<(), ProviderError> {
        let ToolCallDelta { index, id, name, arguments } = delta;
        let (id, name) = (id.unwrap_or_default(), name.unwrap_or_default());
        self.take_room(id.len() + name.len() + arguments.len())?;
        let calls = &mut self.response.tool_calls;
        let at = *self.calls.entry(index).or_insert(calls.len());
        if at == calls.len() {
            if at == MAX_TOOL_CALLS {
                return Err(ProviderError::Malformed { reason: "more tool calls than an answer may hold".into() });
            }
            calls.push(ToolCall::default());
        }
        let call = &mut calls[at];
        call.id.push_str(&id);
        call.name.push_str(&name);
        call.arguments.push_str(&arguments);
        Ok(())
    }

    fn take_room(&mut self, bytes: usize) -> Result<(), ProviderError> {
        let room = self.room.checked_sub(bytes);
        self.room = room.ok_or(ProviderError::TooLarge { what: "the answer", limit: MAX_ANSWER })?;
        Ok(())
    }

    fn finish(mut self, stop_reason: StopReason) -> ChatResponse {
        let rest = &self.response.reasoning[self.thought..];
        if !rest.is_empty() && !self.response.reasoning_parts.is_empty() {
            let text = rest.to_owned();
            self.response.reasoning_parts.push(Part::Reasoning { text, details: None });
        }
        self.response.stop_reason = stop_reason;
        self.response.notes = self.notes.into_vec();
        self.response
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::testing::call;

    fn scripted(chunks: Vec<Chunk>) -> ProviderStream {
        Box::pin(stream::iter(chunks.into_iter().map(Ok)))
    }

    #[tokio::test]
    async fn interleaved_tool_calls_are_put_together_by_index() {
        let done = Chunk::Done { stop_reason: StopReason::ToolUse };
        let chunks = vec![
            call(u32::MAX, Some("b"), Some("grep"), "{\"q\""),
            call(7, Some("a"), Some("ls"), "{"),
            call(u32::MAX, None, None, ":1}"),
            call(7, None, None, "}"),
            done,
        ];
        let response = collect(scripted(chunks), Some("m".into())).await.unwrap();
        let expected = [("b", "grep", "{\"q\":1}"), ("a", "ls", "{}")].map(|(id, name, arguments)| ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: arguments.into(),
            ..ToolCall::default()
        });
        assert_eq!(response.tool_calls, expected);
        assert_eq!(response.model.as_deref(), Some("m"));
    }

    #[tokio::test]
    async fn an_endless_answer_is_refused_at_its_bound() {
        let endless = stream::repeat_with(|| Ok(Chunk::text("x".repeat(1 << 20))));
        let error = collect(Box::pin(endless), None).await.unwrap_err();
        assert_eq!(error, ProviderError::TooLarge { what: "the answer", limit: MAX_ANSWER });
        let mut index = 0;
        let calls = stream::repeat_with(move || {
            index += 1;
            Ok(call(index, None, None, ""))
        });
        assert_eq!(collect(Box::pin(calls), None).await.unwrap_err().code(), "malformed");
    }

    #[tokio::test]
    async fn reasoning_is_kept_apart_from_text_and_what_is_not_known_is_left_out() {
        let done = Chunk::Done { stop_reason: StopReason::EndTurn };
        let chunks = vec![Chunk::reasoning("h"), Chunk::text("a"), Chunk::Unknown, Chunk::reasoning("m"), done];
        let response = collect(scripted(chunks), None).await.unwrap();
        assert_eq!((response.reasoning.as_str(), response.text.as_str()), ("hm", "a"));
    }

    #[tokio::test]
    async fn an_error_in_the_stream_is_the_answer_with_its_own_word_on_trying_again() {
        for retryable in [true, false] {
            let info = crate::ErrorInfo {
                code: "overloaded".into(),
                message: "busy".into(),
                retryable,
                ..crate::ErrorInfo::default()
            };
            let error = collect(scripted(vec![Chunk::text("a"), Chunk::Error(info)]), None).await.unwrap_err();
            assert_eq!(error.retryable(), retryable);
            assert!(error.to_string().contains("overloaded") && error.to_string().contains("busy"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_stream_without_an_end_is_truncated() {
        let error = collect(scripted(vec![Chunk::text("a")]), None).await.unwrap_err();
        assert_eq!(error.code(), "truncated");
    }
}
