//! A provider behind HTTP, whichever of the wire formats it speaks.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use futures_util::stream;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tokio::time::Instant;

use crate::config::{Preset, ProviderConfig, ProviderKind, check_name, section};
use crate::error::{ConfigError, ProviderError};
use crate::http::{Endpoint, EventStream, Mends, Next, RetryPolicy, Timeouts, parse_base};
use crate::json::Few;
use crate::message::{ChatRequest, Chunk, ModelInfo, ProviderHealth};
use crate::provider::{BoxFuture, Capabilities, ChunkStream, Limits, Provider};
use crate::secret::Secret;
use crate::wire::{Progress, Translate};
use crate::{anthropic, openai, responses};

/// The largest list of models, in bytes.
const MAX_MODEL_LIST: usize = 8 * 1024 * 1024;

/// The most models in it.
const MAX_MODELS: usize = 10_000;

/// The version of Azure's API where none is set.
const AZURE_API_VERSION: &str = "2024-10-21";

/// A provider that speaks one of the wire formats over HTTP.
///
/// It costs nothing until it is first asked: HTTP client and TLS roots are set up then. A key is needed where the
/// address is that of a preset that wants one; other servers get one if there is one.
///
/// ```
/// use bellrope_gateway::{HttpProvider, Provider, ProviderConfig, ProviderKind};
///
/// let config = ProviderConfig {
///     kind: Some(ProviderKind::Anthropic),
///     base_url: "http://127.0.0.1:8080".to_owned(),
///     ..ProviderConfig::default()
/// };
/// assert_eq!(HttpProvider::named("local", config)?.name(), "local");
/// # Ok::<(), bellrope_gateway::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct HttpProvider {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    /// The name as it stands in sentences.
    title: String,
    kind: ProviderKind,
    endpoint: Endpoint,
    model: Option<String>,
    /// Whether it answers no request without a model.
    needs_model: bool,
    /// Whether the models are OpenAI's own.
    is_openai: bool,
    /// The setting that holds the key, while there has to be one and is none.
    missing_key: Option<String>,
    model_setting: String,
    limits: Limits,
}

impl HttpProvider {
    /// A provider under the name of its kind, which is `openai` if none is given. No connection is made yet.
    ///
    /// # Errors
    /// A setting cannot be used, or the key file cannot be read.
    pub fn new(config: ProviderConfig) -> Result<Self, ConfigError> {
        let kind = config.kind.unwrap_or(ProviderKind::OpenAi);
        Self::named(kind.name(), config)
    }

    /// A provider under a name of its own.
    ///
    /// # Errors
    /// As there; or the name is neither that of a preset nor has a kind.
    pub fn named(name: &str, config: ProviderConfig) -> Result<Self, ConfigError> {
        check_name(name)?;
        let section = section(name);
        config.check(&section)?;
        let preset = Preset::named(name);
        let kind = config.kind.or(preset.map(|preset| preset.kind)).ok_or_else(|| ConfigError::Invalid {
            key: format!("{section}.kind").into(),
            reason: "is missing; set it to openai, openai-responses, anthropic or azure".into(),
        })?;
        // A preset's address speaks its own format, and no other.
        let known = preset.filter(|preset| preset.kind == kind).unwrap_or(Preset::of_kind(kind));
        let base_setting = match preset {
            Some(preset) => format!("{} ({section}.base_url)", preset.base_url_var),
            None => format!("{section}.base_url"),
        };
        let base = base(kind, &config, known)
            .map_err(|reason| ConfigError::Invalid { key: base_setting.clone().into(), reason: reason.into() })?;
        let at_home = known.base_url.parse::<Url>().is_ok_and(|home| home.host_str() == base.host_str());
        let needs_key = known.needs_key && (at_home || kind == ProviderKind::Azure);
        let key_setting = config.key_setting(name);
        let api_key = config.read_key(&section)?;
        let missing_key = (needs_key && api_key.is_none()).then(|| key_setting.clone());
        let headers = headers(kind, api_key.as_ref()).ok_or_else(|| ConfigError::Invalid {
            key: key_setting.clone().into(),
            reason: "holds a character that no key has".into(),
        })?;
        let timeouts = Timeouts {
            connect: config.connect_timeout,
            first_byte: config.first_byte_timeout,
            idle: config.idle_timeout,
            event: config.event_timeout,
        };
        let retry = RetryPolicy { max_retries: config.max_retries, base_delay: config.retry_delay };
        let mends = Mends {
            base_url: format!("check {base_setting}").into(),
            api_key: format!("check {key_setting}").into(),
            not_found: format!("check the model's name and {base_setting}").into(),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                title: preset.map_or_else(|| format!("`{name}`"), |preset| preset.title.to_owned()),
                name: name.to_owned(),
                kind,
                endpoint: Endpoint::new(base, headers, api_key, timeouts, retry, mends),
                needs_model: at_home && known.needs_key
                    || matches!(kind, ProviderKind::Anthropic | ProviderKind::Azure),
                is_openai: (at_home && kind.name() == known.name) || kind == ProviderKind::Azure,
                missing_key,
                model_setting: preset.map_or_else(|| format!("{section}.model"), |preset| preset.model_var.to_owned()),
                model: config.model,
                limits: Limits {
                    requests_per_minute: config.requests_per_minute,
                    burst: config.burst,
                    breaker: Some(config.breaker),
                },
            }),
        })
    }
}

impl Provider for HttpProvider {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { default_model: self.shared.model.clone(), tools: true, images: true, reasoning: true }
    }

    fn limits(&self) -> Limits {
        self.shared.limits.clone()
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
                provider: self.shared.name.clone(),
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
        if model.is_none() && self.needs_model {
            return Err(ProviderError::NotConfigured {
                missing: format!("{} needs the name of a model", self.title).into(),
                mend: format!("name a model in the request, or set {}", self.model_setting).into(),
            });
        }
        let (path, body) = match self.kind {
            ProviderKind::OpenAi => (&["chat", "completions"][..], openai::body(request, model, self.is_openai)?),
            ProviderKind::OpenAiResponses => (&["responses"][..], responses::body(request, model)?),
            ProviderKind::Anthropic => (&["messages"][..], anthropic::body(request, model)?),
            ProviderKind::Azure => {
                let path = ["deployments", model.unwrap_or_default(), "chat", "completions"];
                return self.endpoint.post_for_events(&path, openai::body(request, model, true)?).await;
            }
        };
        self.endpoint.post_for_events(path, body).await
    }

    fn translator(&self) -> Box<dyn Translate> {
        let key = self.endpoint.secret().cloned();
        match self.kind {
            ProviderKind::OpenAi | ProviderKind::Azure => Box::new(openai::Translator::new(key)),
            ProviderKind::OpenAiResponses => Box::new(responses::Translator::new(key)),
            ProviderKind::Anthropic => Box::new(anthropic::Translator::new(key)),
        }
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
        let body = self.endpoint.get_json(&["models"], MAX_MODEL_LIST).await?;
        let listed: Listed = serde_json::from_slice(&body)
            .map_err(|error| ProviderError::Malformed { reason: self.endpoint.excerpt(&error.to_string()) })?;
        let model = |Model { id, owned_by }| ModelInfo { id, provider: self.name.clone(), owner: owned_by };
        Ok(listed.data.into_iter().map(model).collect())
    }

    async fn probe(&self) -> Result<(), ProviderError> {
        self.check_key()?;
        self.endpoint.probe(&["models"]).await
    }

    fn check_key(&self) -> Result<(), ProviderError> {
        let Some(setting) = &self.missing_key else { return Ok(()) };
        let missing = format!("{} needs a key", self.title).into();
        Err(ProviderError::NotConfigured { missing, mend: format!("set {setting}").into() })
    }
}

/// The address that the paths of requests are added to.
fn base(kind: ProviderKind, config: &ProviderConfig, known: &Preset) -> Result<Url, &'static str> {
    let written = match config.base_url.trim() {
        "" if known.base_url.is_empty() => return Err("is missing; set the address of your resource"),
        "" => known.base_url,
        written => written,
    };
    let with_segment = |url: &mut Url, segment: &str| {
        let path = format!("{}/{segment}", url.path().trim_end_matches('/'));
        url.set_path(&path);
    };
    match kind {
        ProviderKind::OpenAi => parse_base(written, "/chat/completions"),
        ProviderKind::OpenAiResponses => parse_base(written, "/responses"),
        ProviderKind::Anthropic => {
            let mut url = parse_base(written, "/messages")?;
            if !url.path().ends_with("/v1") {
                with_segment(&mut url, "v1");
            }
            Ok(url)
        }
        ProviderKind::Azure => {
            let mut url = parse_base(written, "/openai")?;
            // `/v1` was added where there was no path.
            if url.path() == "/v1" {
                url.set_path("");
            }
            with_segment(&mut url, "openai");
            let version = config.api_version.as_deref().unwrap_or(AZURE_API_VERSION);
            url.query_pairs_mut().append_pair("api-version", version);
            Ok(url)
        }
    }
}

/// The headers of every request; `None` if the key cannot stand in one.
fn headers(kind: ProviderKind, key: Option<&Secret>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    if kind == ProviderKind::Anthropic {
        headers.insert("anthropic-version", HeaderValue::from_static(anthropic::VERSION));
    }
    if let Some(key) = key {
        let (name, value) = match kind {
            ProviderKind::OpenAi | ProviderKind::OpenAiResponses => {
                (AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {}", key.expose())))
            }
            ProviderKind::Anthropic => (HeaderName::from_static("x-api-key"), HeaderValue::from_str(key.expose())),
            ProviderKind::Azure => (HeaderName::from_static("api-key"), HeaderValue::from_str(key.expose())),
        };
        let mut value = value.ok()?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Some(headers)
}

/// An answer on its way.
struct Answer {
    shared: Arc<Shared>,
    stage: Stage,
    translator: Box<dyn Translate>,
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
        let translator = shared.translator();
        let stage = Stage::Asked(Box::new(request));
        Self { shared, stage, translator, ready: VecDeque::new(), failed: None }
    }

    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        // While keep-alives come in, of whatever form, this moment stays.
        let mut asked = Instant::now();
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(Ok(chunk));
            }
            if matches!(self.stage, Stage::Ended) {
                return self.failed.take().map(Err);
            }
            let begins = matches!(self.stage, Stage::Asked(_));
            match self.advance(asked).await {
                // The head of the response had its own time.
                Ok(Progress::Continues) if begins => asked = Instant::now(),
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
    async fn advance(&mut self, asked: Instant) -> Result<Progress, ProviderError> {
        let events = match &mut self.stage {
            Stage::Asked(request) => {
                let events = self.shared.ask(request).await?;
                self.stage = Stage::Answering(Box::new(events));
                return Ok(Progress::Continues);
            }
            Stage::Answering(events) => events,
            Stage::Ended => return Ok(Progress::Ended),
        };
        match events.next(asked).await {
            Ok(Next::Event(event)) => self.translator.event(event, &mut self.ready),
            Ok(Next::End { unfinished, reason }) => self.translator.end(unfinished, reason, &mut self.ready),
            // An answer that has said why it stopped is whole, however the connection ends.
            Err(_) if self.translator.finish(&mut self.ready) => Ok(Progress::Ended),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base_of(kind: ProviderKind, written: &str) -> String {
        let config = ProviderConfig { base_url: written.to_owned(), ..ProviderConfig::default() };
        base(kind, &config, Preset::of_kind(kind)).unwrap().to_string()
    }

    #[test]
    fn every_kind_adds_what_its_addresses_lack() {
        let azure = |host: &str| format!("{host}/openai?api-version=2024-10-21");
        for (kind, written, meant) in [
            (ProviderKind::OpenAi, "", "https://api.openai.com/v1".to_owned()),
            (ProviderKind::OpenAi, "http://h/x", "http://h/x".to_owned()),
            (ProviderKind::OpenAiResponses, "http://h/v1/responses", "http://h/v1".to_owned()),
            (ProviderKind::Anthropic, "", "https://api.anthropic.com/v1".to_owned()),
            (ProviderKind::Anthropic, "http://h/anthropic/", "http://h/anthropic/v1".to_owned()),
            (ProviderKind::Anthropic, "http://h/v1/messages", "http://h/v1".to_owned()),
            (ProviderKind::Azure, "https://r.openai.azure.com/", azure("https://r.openai.azure.com")),
            (ProviderKind::Azure, "https://r.openai.azure.com/openai", azure("https://r.openai.azure.com")),
        ] {
            assert_eq!(base_of(kind, written), meant, "{written}");
        }
    }

    #[test]
    fn a_setting_that_cannot_be_used_is_named_with_what_would_be_right() {
        let error = |name: &str, config: ProviderConfig| HttpProvider::named(name, config).unwrap_err().to_string();
        assert_eq!(
            error("mine", ProviderConfig::default()),
            "gateway.providers.mine.kind is missing; set it to openai, openai-responses, anthropic or azure"
        );
        assert_eq!(
            error("azure", ProviderConfig::default()),
            "AZURE_OPENAI_ENDPOINT (gateway.providers.azure.base_url) is missing; set the address of your resource"
        );
        let config = ProviderConfig { base_url: "localhost:80".into(), ..ProviderConfig::default() };
        assert!(error("groq", config).starts_with("GROQ_BASE_URL (gateway.providers.groq.base_url) must start"));
        let config = ProviderConfig { api_key: Some(Secret::new("a\nb")), ..ProviderConfig::default() };
        assert_eq!(error("anthropic", config), "ANTHROPIC_API_KEY holds a character that no key has");
    }
}
