//! OpenAI's chat completions, and every server that speaks them: llama.cpp, Ollama, vLLM, OpenRouter and others.

mod config;
mod request;
mod translate;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use futures_util::stream;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde::Deserialize;

use crate::error::{ConfigError, ProviderError};
use crate::http::{Endpoint, EventStream, Mends, Next, RetryPolicy, Timeouts, parse_base};
use crate::json::Few;
use crate::message::{ChatRequest, Chunk, ModelInfo, ProviderHealth};
use crate::provider::{BoxFuture, Capabilities, ChunkStream, Provider};

pub use config::OpenAiConfig;
pub use translate::{Progress, Translator};

/// The provider's name.
pub const NAME: &str = "openai";

/// The host of OpenAI itself, which is stricter and newer than the servers that speak its format.
const OPENAI_HOST: &str = "api.openai.com";

/// The largest list of models, in bytes.
const MAX_MODEL_LIST: usize = 8 * 1024 * 1024;

/// The most models in it.
const MAX_MODELS: usize = 10_000;

const MENDS: Mends = Mends {
    base_url: "check OPENAI_BASE_URL",
    api_key: "check OPENAI_API_KEY",
    not_found: "check OPENAI_BASE_URL and the model's name",
};

/// A provider that speaks OpenAI's chat completions.
///
/// It costs nothing until it is first asked: HTTP client and TLS roots are set up then. A key is needed for OpenAI
/// itself only; other servers get one if there is one.
#[derive(Debug, Clone)]
pub struct OpenAiProvider {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    model: Option<String>,
    /// Whether this is OpenAI itself.
    is_openai: bool,
    has_key: bool,
}

impl OpenAiProvider {
    /// A provider as configured. No connection is made yet.
    ///
    /// # Errors
    /// A setting cannot be used, or the key file cannot be read.
    pub fn new(config: OpenAiConfig) -> Result<Self, ConfigError> {
        let invalid = |key, reason| ConfigError::Invalid { key, reason };
        config.check()?;
        let base = parse_base(&config.base_url, "/chat/completions")
            .map_err(|reason| invalid("OPENAI_BASE_URL (gateway.openai.base_url)", reason))?;
        let is_openai = base.host_str() == Some(OPENAI_HOST);
        let api_key = config.read_key()?;
        let mut headers = HeaderMap::new();
        if let Some(key) = &api_key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
                .map_err(|_| invalid("OPENAI_API_KEY", "holds a character that no key has"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let timeouts = Timeouts {
            connect: config.connect_timeout,
            first_byte: config.first_byte_timeout,
            idle: config.idle_timeout,
            event: config.event_timeout,
        };
        let retry = RetryPolicy { max_retries: config.max_retries, base_delay: config.retry_delay };
        let has_key = api_key.is_some();
        let endpoint = Endpoint::new(base, headers, api_key, timeouts, retry, MENDS);
        Ok(Self { shared: Arc::new(Shared { endpoint, model: config.model, is_openai, has_key }) })
    }
}

impl Provider for OpenAiProvider {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { default_model: self.shared.model.clone(), tools: true, images: true, reasoning: true }
    }

    fn chat_stream(&self, request: ChatRequest) -> ChunkStream {
        let answer = Answer::new(Arc::clone(&self.shared), request);
        Box::pin(stream::unfold(answer, |mut answer| async {
            let item = answer.next().await?;
            Some((item, answer))
        }))
    }

    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, ProviderError>> {
        Box::pin(self.shared.models())
    }

    fn health(&self) -> BoxFuture<'_, ProviderHealth> {
        Box::pin(async {
            let started = Instant::now();
            let found = self.shared.probe().await;
            ProviderHealth {
                provider: NAME.to_owned(),
                healthy: found.is_ok(),
                latency_ms: started.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
                error: found.err().map(|error| error.info()),
            }
        })
    }
}

impl Shared {
    /// Sends a request; gets the events of its answer.
    async fn ask(&self, request: &ChatRequest) -> Result<EventStream, ProviderError> {
        self.check_key()?;
        let model = request.model.as_deref().or(self.model.as_deref());
        if model.is_none() && self.is_openai {
            let mend = "name a model in the request, or set OPENAI_MODEL";
            return Err(ProviderError::NotConfigured { missing: "OpenAI needs the name of a model", mend });
        }
        let body = request::body(request, model, self.is_openai)?;
        self.endpoint.post_for_events("chat/completions", body).await
    }

    async fn models(&self) -> Result<Vec<ModelInfo>, ProviderError> {
        #[derive(Deserialize)]
        struct Listed {
            data: Few<Model, MAX_MODELS>,
        }

        #[derive(Deserialize)]
        struct Model {
            id: String,
            owned_by: Option<String>,
        }

        self.check_key()?;
        let body = self.endpoint.get_json("models", MAX_MODEL_LIST).await?;
        let listed: Listed = serde_json::from_slice(&body)
            .map_err(|error| ProviderError::Malformed { reason: self.endpoint.excerpt(&error.to_string()) })?;
        let model = |Model { id, owned_by }| ModelInfo { id, provider: NAME.to_owned(), owner: owned_by };
        Ok(listed.data.into_iter().map(model).collect())
    }

    async fn probe(&self) -> Result<(), ProviderError> {
        self.check_key()?;
        self.endpoint.probe("models").await
    }

    fn check_key(&self) -> Result<(), ProviderError> {
        if self.is_openai && !self.has_key {
            return Err(ProviderError::NotConfigured { missing: "OpenAI needs a key", mend: "set OPENAI_API_KEY" });
        }
        Ok(())
    }
}

/// An answer on its way.
struct Answer {
    shared: Arc<Shared>,
    stage: Stage,
    translator: Translator,
    /// Pieces of the last event that were not asked for yet.
    ready: VecDeque<Chunk>,
    /// The error that comes after them.
    failed: Option<ProviderError>,
}

enum Stage {
    /// Nothing was sent yet.
    Asked(Box<ChatRequest>),
    Answering(Box<EventStream>),
    /// The connection is given back, or closed.
    Ended,
}

impl Answer {
    fn new(shared: Arc<Shared>, request: ChatRequest) -> Self {
        let translator = Translator::new(shared.endpoint.secret().cloned());
        let stage = Stage::Asked(Box::new(request));
        Self { shared, stage, translator, ready: VecDeque::new(), failed: None }
    }

    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(Ok(chunk));
            }
            if matches!(self.stage, Stage::Ended) {
                return self.failed.take().map(Err);
            }
            match self.advance().await {
                Ok(Progress::Continues) => {}
                Ok(Progress::Ended) => {
                    if let Stage::Answering(events) = mem::replace(&mut self.stage, Stage::Ended) {
                        events.give_back();
                    }
                }
                Err(error) => {
                    self.stage = Stage::Ended;
                    self.failed = Some(error);
                }
            }
        }
    }

    /// Sends the request, or takes one event in.
    async fn advance(&mut self) -> Result<Progress, ProviderError> {
        let events = match &mut self.stage {
            Stage::Asked(request) => {
                let events = self.shared.ask(request).await?;
                self.stage = Stage::Answering(Box::new(events));
                return Ok(Progress::Continues);
            }
            Stage::Answering(events) => events,
            Stage::Ended => return Ok(Progress::Ended),
        };
        match events.next().await {
            Ok(Next::Event(event)) => self.translator.event(event, &mut self.ready),
            Ok(Next::End { unfinished, reason }) => self.translator.end(unfinished, reason, &mut self.ready),
            // An answer that has said why it stopped is whole, however the connection ends.
            Err(error) => self.translator.end(None, "".into(), &mut self.ready).map_err(|_| error),
        }
    }
}
