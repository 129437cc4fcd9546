//! The providers by name, and the promises that hold for all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::embedded::{self, EmbeddedProvider, EmbeddedSettings};
use crate::error::{ConfigError, Excerpt, ProviderError};
use crate::message::{
    ChatRequest, ChatResponse, Chunk, CompletionRequest, HealthReport, ModelList, ProviderFault, SequencedChunk,
    WIRE_VERSION,
};
use crate::openai::{OpenAiConfig, OpenAiProvider};
use crate::provider::{ChunkStream, Provider};

/// The gateway's part of the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// The name of the provider that answers requests which name none. Default: `embedded`.
    pub provider: String,
    /// The scripted provider, which needs no network.
    pub embedded: EmbeddedSettings,
    /// The OpenAI-compatible provider. `OPENAI_BASE_URL`, `OPENAI_API_KEY` and `OPENAI_MODEL` overrule it.
    pub openai: OpenAiConfig,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            provider: embedded::NAME.to_owned(),
            embedded: EmbeddedSettings::default(),
            openai: OpenAiConfig::default(),
        }
    }
}

/// All AI providers behind one face.
///
/// ```
/// use bellrope_gateway::{ChatRequest, Gateway, GatewaySettings};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let gateway = Gateway::from_settings(GatewaySettings::default())?;
/// let answer = gateway.chat(ChatRequest::user("Hello")).await?;
/// assert!(answer.text.ends_with("Hello"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Gateway {
    /// At least one, under its own name.
    providers: BTreeMap<String, Arc<dyn Provider>>,
    /// One of `providers`.
    default: Arc<dyn Provider>,
}

impl Gateway {
    /// A gateway with one provider, which is the default one.
    pub fn new(default: Arc<dyn Provider>) -> Self {
        Self { providers: BTreeMap::from([(default.name().to_owned(), Arc::clone(&default))]), default }
    }

    /// This gateway with one more provider, in the place of another of its name.
    #[must_use]
    pub fn with_provider(mut self, provider: Arc<dyn Provider>) -> Self {
        if provider.name() == self.default.name() {
            self.default = Arc::clone(&provider);
        }
        self.providers.insert(provider.name().to_owned(), provider);
        self
    }

    /// A gateway with the embedded and the OpenAI-compatible provider. Makes no connection.
    ///
    /// # Errors
    /// A setting, or an environment variable that overrules it, cannot be used.
    pub fn from_settings(settings: GatewaySettings) -> Result<Self, ConfigError> {
        Self::from_settings_and_vars(settings, |name| std::env::var(name).ok())
    }

    /// As [`Gateway::from_settings`], with environment variables from elsewhere.
    ///
    /// # Errors
    /// As there.
    pub fn from_settings_and_vars(
        settings: GatewaySettings,
        vars: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let GatewaySettings { provider, embedded, openai } = settings;
        let mut gateway = Self::new(Arc::new(EmbeddedProvider::new(embedded)))
            .with_provider(Arc::new(OpenAiProvider::new(openai.with_vars(vars))?));
        match gateway.providers.get(&provider) {
            Some(default) => gateway.default = Arc::clone(default),
            None => return Err(ConfigError::UnknownProvider { name: provider, known: gateway.names() }),
        }
        Ok(gateway)
    }

    /// The names of the providers, sorted.
    pub fn names(&self) -> Vec<String> {
        self.providers.keys().cloned().collect()
    }

    /// The provider that answers requests which name none.
    pub fn default_provider(&self) -> &dyn Provider {
        &*self.default
    }

    /// Begins an answer: `ai.chat_stream`.
    pub fn chat_stream(&self, request: ChatRequest) -> AnswerStream {
        match self.provider_for(&request) {
            Ok(provider) => AnswerStream::new(provider.chat_stream(request)),
            Err(error) => AnswerStream::of_error(error),
        }
    }

    /// A whole answer: `ai.chat`.
    ///
    /// # Errors
    /// The request cannot be answered, or the answer broke off.
    pub async fn chat(&self, request: ChatRequest) -> Result<ChatResponse, ProviderError> {
        let answer = match self.provider_for(&request) {
            Ok(provider) => provider.chat(request).await,
            Err(error) => Err(error),
        };
        answer.inspect_err(log)
    }

    /// Begins an answer to a single prompt: `ai.complete_stream`.
    pub fn complete_stream(&self, request: CompletionRequest) -> AnswerStream {
        self.chat_stream(request.into())
    }

    /// A whole answer to a single prompt: `ai.complete`.
    ///
    /// # Errors
    /// As of [`Gateway::chat`].
    pub async fn complete(&self, request: CompletionRequest) -> Result<ChatResponse, ProviderError> {
        self.chat(request.into()).await
    }

    /// The models of all providers, asked at the same time: `ai.models`.
    pub async fn models(&self) -> ModelList {
        let asked = self.providers.values().map(|provider| async { (provider.name(), provider.models().await) });
        let mut list = ModelList { version: WIRE_VERSION, models: Vec::new(), faults: Vec::new() };
        for (name, answer) in join_all(asked).await {
            match answer {
                Ok(models) => list.models.extend(models),
                Err(error) => list.faults.push(ProviderFault { provider: name.to_owned(), error: error.info() }),
            }
        }
        list
    }

    /// How all providers are, asked at the same time: `ai.health`.
    pub async fn health(&self) -> HealthReport {
        HealthReport {
            version: WIRE_VERSION,
            default_provider: self.default.name().to_owned(),
            providers: join_all(self.providers.values().map(|provider| provider.health())).await,
        }
    }

    /// The provider that a request is for, once it is known to be one we understand.
    fn provider_for(&self, request: &ChatRequest) -> Result<&Arc<dyn Provider>, ProviderError> {
        if request.version > WIRE_VERSION {
            return Err(ProviderError::UnsupportedVersion { asked: request.version, known: WIRE_VERSION });
        }
        if request.messages.is_empty() {
            return Err(ProviderError::InvalidRequest { reason: "it has no messages".into() });
        }
        let Some(name) = &request.provider else { return Ok(&self.default) };
        let unknown = || ProviderError::UnknownProvider { name: Excerpt::new(name), known: self.names() };
        self.providers.get(name).ok_or_else(unknown)
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("providers", &self.names()).field("default", &self.default.name()).finish()
    }
}

/// An answer as it goes to the editor.
///
/// Whatever the provider does, the pieces are numbered from 0 and end with exactly one [`Chunk::Done`] or
/// [`Chunk::Error`]; then the provider's stream is dropped and the stream is over. It pulls, as [`ChunkStream`] does.
pub struct AnswerStream {
    /// `None` after the terminal piece.
    pieces: Option<ChunkStream>,
    seq: u64,
}

impl AnswerStream {
    fn new(pieces: ChunkStream) -> Self {
        Self { pieces: Some(pieces), seq: 0 }
    }

    fn of_error(error: ProviderError) -> Self {
        Self::new(Box::pin(futures_util::stream::once(async { Err(error) })))
    }
}

impl Stream for AnswerStream {
    type Item = SequencedChunk;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SequencedChunk>> {
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        let piece = std::task::ready!(pieces.as_mut().poll_next(cx))
            .unwrap_or_else(|| Err(ProviderError::Truncated { reason: "the provider ended without a word".into() }));
        let chunk = piece.unwrap_or_else(|error| {
            log(&error);
            Chunk::from(error)
        });
        if chunk.is_terminal() {
            self.pieces = None;
        }
        let seq = self.seq;
        self.seq += 1;
        Poll::Ready(Some(SequencedChunk { seq, chunk }))
    }
}

fn log(error: &ProviderError) {
    warn!(code = error.code(), blame = ?error.blame(), %error, "an answer failed");
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::message::{ErrorInfo, StopReason};

    fn scripted(script: Vec<Chunk>) -> Gateway {
        Gateway::new(Arc::new(EmbeddedProvider::new(EmbeddedSettings { script, ..EmbeddedSettings::default() })))
    }

    fn without_env(settings: GatewaySettings) -> Result<Gateway, ConfigError> {
        Gateway::from_settings_and_vars(settings, |_| None)
    }

    async fn answer(gateway: &Gateway, request: ChatRequest) -> Vec<SequencedChunk> {
        gateway.chat_stream(request).collect().await
    }

    #[tokio::test]
    async fn pieces_are_numbered_from_zero_and_nothing_follows_the_last() {
        let done = Chunk::Done { stop_reason: StopReason::EndTurn };
        let gateway = scripted(vec![Chunk::text("a"), done.clone(), Chunk::text("late"), done.clone()]);
        let expected = [SequencedChunk { seq: 0, chunk: Chunk::text("a") }, SequencedChunk { seq: 1, chunk: done }];
        assert_eq!(answer(&gateway, ChatRequest::user("hi")).await, expected);
    }

    #[tokio::test]
    async fn a_provider_that_ends_without_a_word_is_truncated() {
        let gateway = scripted(vec![Chunk::text("a")]);
        let pieces = answer(&gateway, ChatRequest::user("hi")).await;
        assert!(matches!(&pieces[1].chunk, Chunk::Error(ErrorInfo { code, .. }) if code == "truncated"));
        assert_eq!(gateway.chat(ChatRequest::user("hi")).await.unwrap_err().code(), "truncated");
    }

    #[tokio::test]
    async fn an_unknown_provider_lists_the_known_ones() {
        let gateway = without_env(GatewaySettings::default()).unwrap();
        let request = ChatRequest { provider: Some("delphi".into()), ..ChatRequest::user("hi") };
        let pieces = answer(&gateway, request).await;
        let Chunk::Error(info) = &pieces[0].chunk else { panic!("{pieces:?}") };
        assert_eq!(info.code, "unknown_provider");
        assert_eq!(info.message, "there is no provider `delphi`; known: embedded, openai");
        assert_eq!(pieces.len(), 1);
        let settings = GatewaySettings { provider: "delphi".into(), ..GatewaySettings::default() };
        let error = without_env(settings).unwrap_err();
        assert!(error.to_string().ends_with("no such provider; known: embedded, openai"), "{error}");
    }

    #[tokio::test]
    async fn requests_that_cannot_be_understood_are_refused() {
        let gateway = without_env(GatewaySettings::default()).unwrap();
        let later = ChatRequest { version: WIRE_VERSION + 1, ..ChatRequest::user("hi") };
        assert_eq!(gateway.chat(later).await.unwrap_err().code(), "unsupported_version");
        assert_eq!(gateway.chat(ChatRequest::default()).await.unwrap_err().code(), "invalid_request");
    }

    #[tokio::test]
    async fn completions_are_answered_as_conversations() {
        let gateway = without_env(GatewaySettings::default()).unwrap();
        let response = gateway.complete(CompletionRequest::new("fn main")).await.unwrap();
        assert!(response.text.ends_with("fn main"));
        assert_eq!(response.model.as_deref(), Some("embedded"));
        assert!(gateway.complete_stream(CompletionRequest::new("x")).count().await > 2);
    }

    #[tokio::test]
    async fn a_provider_without_its_key_says_so_and_hides_nobody_else() {
        let gateway = without_env(GatewaySettings::default()).unwrap();
        let list = gateway.models().await;
        assert_eq!(list.models.len(), 1);
        assert_eq!(list.faults[0].error.message, "OpenAI needs a key; set OPENAI_API_KEY");
        let health = gateway.health().await;
        let healthy: Vec<_> = health.providers.iter().map(|p| (p.provider.as_str(), p.healthy)).collect();
        assert_eq!(healthy, [("embedded", true), ("openai", false)]);
    }

    #[test]
    fn settings_are_checked_once_and_name_the_key() {
        let vars = |name: &str| (name == "OPENAI_BASE_URL").then(|| "localhost:8080".to_owned());
        let error = Gateway::from_settings_and_vars(GatewaySettings::default(), vars).unwrap_err();
        assert!(error.to_string().starts_with("OPENAI_BASE_URL (gateway.openai.base_url) must start"), "{error}");
        let error = serde_json::from_str::<GatewaySettings>(r#"{"privider":"x"}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `privider`"), "{error}");
    }
}
