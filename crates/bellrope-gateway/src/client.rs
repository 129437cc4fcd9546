//! The other end: an editor's calls of `ai.*` with the types of [`message`](crate::message).
//!
//! [`ChatClient`] blocks, [`AsyncChatClient`] runs on tokio. Each wraps a client of `bellrope`, whose rules hold here as
//! well: clones share one connection, a call runs at most once, and dropping a stream cancels it at the provider.

use std::path::PathBuf;

use bellrope::{
    AsyncClient, CallError, Client,
    client::{AsyncStream, CallOptions, ConnectError},
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::error::Excerpt;
use crate::handlers::{CANCEL, CHAT, CHAT_STREAM, COMPLETE, COMPLETE_STREAM, EMBED, HEALTH, MODELS, RESUME};
use crate::message::{
    CancelReport, CancelRequest, ChatRequest, ChatResponse, CompletionRequest, EmbedRequest, EmbedResponse,
    HealthReport, ModelList, ResumeRequest, SequencedChunk, WIRE_VERSION,
};

/// Why a call has no answer. An answer that the *provider* broke off is none of these: its stream ends with
/// [`Chunk::Error`](crate::Chunk::Error).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The call itself failed: no server, a refusal, a deadline. Of a unary call also the provider's error, as text.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The request cannot be written as JSON.
    #[error("the request cannot be written: {reason}")]
    Unwritable {
        /// What is wrong with it.
        reason: Excerpt,
    },
    /// The server answered with something else than this version of the messages.
    #[error("the server answered with what cannot be read: {reason}; are client and server of one version?")]
    Unreadable {
        /// What is wrong with it.
        reason: Excerpt,
    },
    /// A piece of the stream is missing.
    #[error("piece {expected} of the answer is missing: piece {found} came in its place")]
    Gap {
        /// The number that was due.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The stream ended without its last piece.
    #[error("the answer broke off: its stream ended without a last piece")]
    Truncated,
}

/// A blocking client of a gateway.
///
/// ```
/// use std::sync::Arc;
///
/// use bellrope_gateway::client::ChatClient;
/// use bellrope_gateway::{ChatRequest, Chunk, Gateway, GatewaySettings};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("ai.sock");
/// # let gateway = Arc::new(Gateway::from_settings_and_vars(GatewaySettings::default(), |_| None)?);
/// # let _server = bellrope_gateway::register(bellrope::Server::builder(), gateway).bind(&path)?;
/// let ai = ChatClient::connect(&path)?; // a real editor takes bellrope::default_socket_path()
/// for piece in ai.chat_stream(&ChatRequest::user("Who is there?"))? {
///     match piece?.chunk {
///         Chunk::Text { text } => print!("{text}"),
///         Chunk::Error(error) => eprintln!("{}", error.message),
///         _ => {} // reasoning, calls of tools, usage, and kinds of later versions
///     }
/// }
/// assert!(ai.chat(&ChatRequest::user("Hello"))?.text.ends_with("Hello"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ChatClient {
    client: Client,
    options: CallOptions,
}

impl ChatClient {
    /// Connects to the server at `path`.
    ///
    /// # Errors
    /// As of [`Client::connect`].
    pub fn connect(path: impl Into<PathBuf>) -> Result<Self, ConnectError> {
        Client::connect(path).map(Self::over)
    }

    /// Calls over a connection that is there already.
    pub fn over(client: Client) -> Self {
        Self { client, options: CallOptions::new() }
    }

    /// The same client, whose calls have these options: a time-out, a token, a retry.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use bellrope_gateway::{ChatRequest, Gateway, GatewaySettings};
    /// # use bellrope_gateway::client::ChatClient;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("ai.sock");
    /// # let gateway = Arc::new(Gateway::from_settings_and_vars(GatewaySettings::default(), |_| None)?);
    /// # let _server = bellrope_gateway::register(bellrope::Server::builder(), gateway).bind(&path)?;
    /// use std::time::Duration;
    /// use bellrope::client::CallOptions;
    ///
    /// let ai = ChatClient::connect(&path)?;
    /// let soon = CallOptions::new().timeout(Duration::from_secs(60));
    /// assert!(ai.with_options(soon).chat(&ChatRequest::user("Hello"))?.text.ends_with("Hello"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_options(&self, options: CallOptions) -> Self {
        Self { client: self.client.clone(), options }
    }

    /// A whole answer: `ai.chat`.
    ///
    /// # Errors
    /// There is none; [`CallError::Handler`] has the provider's error as `code: message`.
    pub fn chat(&self, request: &ChatRequest) -> Result<ChatResponse, ChatError> {
        read(&self.client.call_with(CHAT, &write(request)?, &self.options)?)
    }

    /// Begins an answer: `ai.chat_stream`. Dropping the stream cancels it.
    ///
    /// # Errors
    /// The request could not be sent.
    pub fn chat_stream(&self, request: &ChatRequest) -> Result<ChatStream, ChatError> {
        self.stream(CHAT_STREAM, request)
    }

    /// A whole answer to a single prompt: `ai.complete`.
    ///
    /// # Errors
    /// As of [`ChatClient::chat`].
    pub fn complete(&self, request: &CompletionRequest) -> Result<ChatResponse, ChatError> {
        read(&self.client.call_with(COMPLETE, &write(request)?, &self.options)?)
    }

    /// Begins an answer to a single prompt: `ai.complete_stream`.
    ///
    /// # Errors
    /// As of [`ChatClient::chat_stream`].
    pub fn complete_stream(&self, request: &CompletionRequest) -> Result<ChatStream, ChatError> {
        self.stream(COMPLETE_STREAM, request)
    }

    /// Goes on with an answer that was asked for as [`resumable`](ChatRequest::resumable), after the piece with the number
    /// `last_seq`, or from its beginning: `ai.resume`. Whoever read it until now reads it no longer. Dropping the stream
    /// cancels the answer; to leave it for later, end the process or the connection instead.
    ///
    /// # Errors
    /// As of [`ChatClient::chat_stream`]. That there is no such answer is a [`Chunk::Error`](crate::Chunk::Error).
    pub fn resume(&self, id: &str, last_seq: Option<u64>) -> Result<ChatStream, ChatError> {
        let chunks = self.client.stream_with(RESUME, &write(&resume_of(id, last_seq))?, &self.options)?;
        Ok(ChatStream { chunks, order: Order::after(last_seq) })
    }

    /// Cancels such an answer: `ai.cancel`. Whether it was under way.
    ///
    /// # Errors
    /// There is no such answer, or the call failed.
    pub fn cancel(&self, id: &str) -> Result<bool, ChatError> {
        let request = CancelRequest { version: WIRE_VERSION, id: id.to_owned() };
        read::<CancelReport>(&self.client.call_with(CANCEL, &write(&request)?, &self.options)?)
            .map(|report| report.cancelled)
    }

    /// The vectors of texts: `ai.embed`.
    ///
    /// # Errors
    /// As of [`ChatClient::chat`].
    pub fn embed(&self, request: &EmbedRequest) -> Result<EmbedResponse, ChatError> {
        read(&self.client.call_with(EMBED, &write(request)?, &self.options)?)
    }

    /// The models of all providers: `ai.models`.
    ///
    /// # Errors
    /// The call failed; a provider that could not say is no error, but one of [`ModelList::faults`].
    pub fn models(&self) -> Result<ModelList, ChatError> {
        read(&self.client.call_with(MODELS, b"", &self.options)?)
    }

    /// How all providers are: `ai.health`.
    ///
    /// # Errors
    /// The call failed.
    pub fn health(&self) -> Result<HealthReport, ChatError> {
        read(&self.client.call_with(HEALTH, b"", &self.options)?)
    }

    fn stream(&self, name: &str, request: &impl Serialize) -> Result<ChatStream, ChatError> {
        let chunks = self.client.stream_with(name, &write(request)?, &self.options)?;
        Ok(ChatStream { chunks, order: Order::default() })
    }
}

/// An answer on its way: pieces in order, the last of them [`Chunk::Done`](crate::Chunk::Done) or
/// [`Chunk::Error`](crate::Chunk::Error), or a [`ChatError`]; nothing follows.
pub struct ChatStream {
    chunks: bellrope::client::ChunkStream,
    order: Order,
}

impl Iterator for ChatStream {
    type Item = Result<SequencedChunk, ChatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.order.is_over {
            return None;
        }
        let came = self.chunks.next();
        Some(self.order.take_in(came))
    }
}

/// A client of a gateway on tokio.
///
/// ```
/// # use std::sync::Arc;
/// # use bellrope_gateway::{Gateway, GatewaySettings};
/// use bellrope_gateway::client::AsyncChatClient;
/// use bellrope_gateway::{ChatRequest, Chunk};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("ai.sock");
/// # let gateway = Arc::new(Gateway::from_settings_and_vars(GatewaySettings::default(), |_| None)?);
/// # let _server = bellrope_gateway::register(bellrope::Server::builder(), gateway).bind(&path)?;
/// let ai = AsyncChatClient::connect(&path).await?;
/// let mut answer = ai.chat_stream(&ChatRequest::user("Who is there?")).await?;
/// while let Some(piece) = answer.next().await {
///     if let Chunk::Text { text } = piece?.chunk {
///         print!("{text}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AsyncChatClient {
    client: AsyncClient,
    options: CallOptions,
}

impl AsyncChatClient {
    /// Connects to the server at `path`.
    ///
    /// # Errors
    /// As of [`AsyncClient::connect`].
    pub async fn connect(path: impl Into<PathBuf>) -> Result<Self, ConnectError> {
        AsyncClient::connect(path).await.map(Self::over)
    }

    /// Calls over a connection that is there already.
    pub fn over(client: AsyncClient) -> Self {
        Self { client, options: CallOptions::new() }
    }

    /// As [`ChatClient::with_options`].
    #[must_use]
    pub fn with_options(&self, options: CallOptions) -> Self {
        Self { client: self.client.clone(), options }
    }

    /// As [`ChatClient::chat`].
    ///
    /// # Errors
    /// As there.
    pub async fn chat(&self, request: &ChatRequest) -> Result<ChatResponse, ChatError> {
        read(&self.client.call_with(CHAT, &write(request)?, &self.options).await?)
    }

    /// As [`ChatClient::chat_stream`].
    ///
    /// # Errors
    /// As there.
    pub async fn chat_stream(&self, request: &ChatRequest) -> Result<AsyncChatStream, ChatError> {
        self.stream(CHAT_STREAM, request).await
    }

    /// As [`ChatClient::complete`].
    ///
    /// # Errors
    /// As there.
    pub async fn complete(&self, request: &CompletionRequest) -> Result<ChatResponse, ChatError> {
        read(&self.client.call_with(COMPLETE, &write(request)?, &self.options).await?)
    }

    /// As [`ChatClient::complete_stream`].
    ///
    /// # Errors
    /// As there.
    pub async fn complete_stream(&self, request: &CompletionRequest) -> Result<AsyncChatStream, ChatError> {
        self.stream(COMPLETE_STREAM, request).await
    }

    /// As [`ChatClient::resume`].
    ///
    /// # Errors
    /// As there.
    pub async fn resume(&self, id: &str, last_seq: Option<u64>) -> Result<AsyncChatStream, ChatError> {
        let chunks = self.client.stream_with(RESUME, &write(&resume_of(id, last_seq))?, &self.options).await?;
        Ok(AsyncChatStream { chunks, order: Order::after(last_seq) })
    }

    /// As [`ChatClient::cancel`].
    ///
    /// # Errors
    /// As there.
    pub async fn cancel(&self, id: &str) -> Result<bool, ChatError> {
        let request = CancelRequest { version: WIRE_VERSION, id: id.to_owned() };
        read::<CancelReport>(&self.client.call_with(CANCEL, &write(&request)?, &self.options).await?)
            .map(|report| report.cancelled)
    }

    /// As [`ChatClient::embed`].
    ///
    /// # Errors
    /// As there.
    pub async fn embed(&self, request: &EmbedRequest) -> Result<EmbedResponse, ChatError> {
        read(&self.client.call_with(EMBED, &write(request)?, &self.options).await?)
    }

    /// As [`ChatClient::models`].
    ///
    /// # Errors
    /// As there.
    pub async fn models(&self) -> Result<ModelList, ChatError> {
        read(&self.client.call_with(MODELS, b"", &self.options).await?)
    }

    /// As [`ChatClient::health`].
    ///
    /// # Errors
    /// As there.
    pub async fn health(&self) -> Result<HealthReport, ChatError> {
        read(&self.client.call_with(HEALTH, b"", &self.options).await?)
    }

    async fn stream(&self, name: &str, request: &impl Serialize) -> Result<AsyncChatStream, ChatError> {
        let chunks = self.client.stream_with(name, &write(request)?, &self.options).await?;
        Ok(AsyncChatStream { chunks, order: Order::default() })
    }
}

/// As [`ChatStream`], on tokio.
pub struct AsyncChatStream {
    chunks: AsyncStream,
    order: Order,
}

impl AsyncChatStream {
    /// The next piece; `None` after the last one. Safe to be dropped while it waits.
    pub async fn next(&mut self) -> Option<Result<SequencedChunk, ChatError>> {
        if self.order.is_over {
            return None;
        }
        let came = self.chunks.next().await;
        Some(self.order.take_in(came))
    }
}

/// What is known of the pieces so far.
#[derive(Default)]
struct Order {
    next: u64,
    is_over: bool,
}

impl Order {
    fn after(last_seq: Option<u64>) -> Self {
        Self { next: last_seq.map_or(0, |last| last.saturating_add(1)), is_over: false }
    }

    /// Checks what came of the stream; nothing means that it ended.
    fn take_in(&mut self, came: Option<Result<Vec<u8>, CallError>>) -> Result<SequencedChunk, ChatError> {
        let piece = self.check(came);
        self.is_over = piece.as_ref().map_or(true, |piece| piece.chunk.is_terminal());
        self.next += 1;
        piece
    }

    fn check(&self, came: Option<Result<Vec<u8>, CallError>>) -> Result<SequencedChunk, ChatError> {
        let piece: SequencedChunk = read(&came.ok_or(ChatError::Truncated)??)?;
        if piece.seq != self.next {
            return Err(ChatError::Gap { expected: self.next, found: piece.seq });
        }
        Ok(piece)
    }
}

fn resume_of(id: &str, last_seq: Option<u64>) -> ResumeRequest {
    ResumeRequest { version: WIRE_VERSION, id: id.to_owned(), last_seq }
}

fn write(request: &impl Serialize) -> Result<Vec<u8>, ChatError> {
    serde_json::to_vec(request).map_err(|error| ChatError::Unwritable { reason: Excerpt::new(&error.to_string()) })
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ChatError> {
    serde_json::from_slice(bytes).map_err(|error| ChatError::Unreadable { reason: Excerpt::new(&error.to_string()) })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// What comes of a stream of these payloads.
    fn pieces(payloads: &[&str]) -> (Vec<SequencedChunk>, Option<ChatError>) {
        let mut order = Order::default();
        let mut payloads: VecDeque<_> = payloads.iter().map(|payload| Ok(payload.as_bytes().to_vec())).collect();
        let mut pieces = Vec::new();
        while !order.is_over {
            match order.take_in(payloads.pop_front()) {
                Ok(piece) => pieces.push(piece),
                Err(error) => return (pieces, Some(error)),
            }
        }
        (pieces, None)
    }

    const TEXT: &str = r#"{"seq":0,"kind":"text","text":"a"}"#;
    const DONE: &str = r#"{"seq":1,"kind":"done","stop_reason":"end_turn"}"#;

    #[test]
    fn nothing_is_asked_for_after_the_last_piece() {
        let (pieces, error) = pieces(&[TEXT, DONE, "late"]);
        assert_eq!((pieces.len(), error.is_none()), (2, true));
    }

    #[test]
    fn an_answer_that_is_not_whole_is_never_taken_for_one() {
        for (payloads, pieces_before, expected) in [
            (&[TEXT][..], 1, "the answer broke off"),
            (&[DONE][..], 0, "piece 0 of the answer is missing: piece 1 came in its place"),
            (&[TEXT, TEXT, DONE][..], 1, "piece 1 of the answer is missing: piece 0"),
            (&[TEXT, "\u{1b}[2J"][..], 1, "cannot be read"),
        ] {
            let (pieces, error) = pieces(payloads);
            let error = error.unwrap().to_string();
            assert!(pieces.len() == pieces_before && error.contains(expected), "{error}");
        }
    }
}
