//! A provider behind HTTP, whichever of the wire formats it speaks.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use reqwest::Url;
use serde::Deserialize;
use tokio::time::Instant;

use super::client::is_this_machine;
use super::endpoint::{AN_EVENT_STREAM, Endpoint, Mends};
use super::events::{EventStream, Next};
use super::headers::{headers, with_more};
use super::retry::RetryPolicy;
use super::timeouts::Timeouts;
use crate::apart::{LARGE, apart};
use crate::config::{MAX_RETRY_WAIT, Preset, ProviderConfig, check_name, section};
use crate::error::{ConfigError, Excerpt, ProviderError};
use crate::json::Few;
use crate::message::{ChatRequest, Chunk, ModelInfo, ProviderHealth};
use crate::notes::Notes;
use crate::provider::{BoxFuture, Capabilities, ChunkStream, EmbeddingRequest, MAX_ANSWER, Provider, ProviderLimits};
use crate::providers::formats::{Post, Progress, ProviderKind, Server, Translate, push_extra};

/// Where every format has its list of models, below the base address.
const MODELS: &str = "models";

/// The largest count of tokens, in bytes: a number in an object.
const MAX_COUNT: usize = 64 * 1024;

/// The largest list of models, in bytes.
const MAX_MODEL_LIST: usize = 8 * 1024 * 1024;

/// Presets whose servers refuse fields of messages that OpenAI's do not have.
const NO_EXTRAS: [&str; 3] = ["openai", "groq", "mistral"];

/// The most models in it.
const MAX_MODELS: usize = 10_000;

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
    remote: Arc<Remote>,
}

/// The provider as all its answers share it.
#[derive(Debug)]
struct Remote {
    name: String,
    /// The name as it stands in sentences.
    title: String,
    kind: ProviderKind,
    endpoint: Endpoint,
    model: Option<String>,
    /// Whether it answers no request without a model.
    needs_model: bool,
    server: Server,
    /// The setting that holds the key, while there has to be one and is none.
    missing_key: Option<String>,
    model_setting: String,
    limits: ProviderLimits,
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
        Self::waiting(name, config, MAX_RETRY_WAIT)
    }

    /// A provider that waits so long at most when it asks for a pause.
    pub(crate) fn waiting(name: &str, config: ProviderConfig, max_wait: Duration) -> Result<Self, ConfigError> {
        check_name(name)?;
        let section = section(name);
        config.check(&section)?;
        let preset = Preset::named(name);
        let kind = config.kind.or(preset.map(|preset| preset.kind)).ok_or_else(|| ConfigError::Invalid {
            key: format!("{section}.kind").into(),
            reason: format!("is missing; set it to {}", ProviderKind::names()).into(),
        })?;
        // A preset's address speaks its own format, and no other.
        let known = preset.filter(|preset| preset.kind == kind).or_else(|| Preset::of_inventor(kind));
        let base_setting = match preset {
            Some(preset) => format!("{} ({section}.base_url)", preset.base_url_var),
            None => format!("{section}.base_url"),
        };
        let base = base(kind, &config, known)
            .map_err(|reason| ConfigError::Invalid { key: base_setting.clone().into(), reason: reason.into() })?;
        let home = known.filter(|known| is_home(known, &base));
        let needs_key = home.is_some_and(|home| home.needs_key);
        let key_setting = config.key_setting(name);
        let api_key = config.read_key(name)?;
        let missing_key = (needs_key && api_key.is_none()).then(|| key_setting.clone());
        let headers = headers(kind, api_key.as_ref()).ok_or_else(|| ConfigError::Invalid {
            key: key_setting.clone().into(),
            reason: "holds a character that no key has".into(),
        })?;
        let headers = with_more(headers, &config.headers);
        let timeouts = Timeouts {
            connect: config.connect_timeout,
            first_byte: config.first_byte_timeout,
            idle: config.idle_timeout,
            event: config.event_timeout,
        };
        let retry = RetryPolicy { max_retries: config.max_retries, base_delay: config.retry_delay, max_wait };
        let mends = Mends {
            base_url: format!("check {base_setting}").into(),
            api_key: format!("check {key_setting}").into(),
            not_found: format!("check the model's name and {base_setting}").into(),
        };
        let breaker = config.breaker_for(is_this_machine(&base));
        Ok(Self {
            remote: Arc::new(Remote {
                title: preset.map_or_else(|| format!("`{name}`"), |preset| preset.title.to_owned()),
                name: name.to_owned(),
                kind,
                endpoint: Endpoint::new(base, headers, api_key, timeouts, retry, mends),
                needs_model: needs_key || kind.format().needs_model(),
                server: Server {
                    at_inventor: home.is_some_and(|home| home.name == kind.name()),
                    message_extras: config
                        .message_extras
                        .unwrap_or_else(|| !home.is_some_and(|home| NO_EXTRAS.contains(&home.name))),
                    stream_options: config.stream_options,
                },
                missing_key,
                model_setting: preset.map_or_else(|| format!("{section}.model"), |preset| preset.model_var.to_owned()),
                model: config.model,
                limits: ProviderLimits {
                    requests_per_minute: config.requests_per_minute,
                    burst: config.burst,
                    breaker: Some(breaker),
                },
            }),
        })
    }
}

impl Provider for HttpProvider {
    fn name(&self) -> &str {
        &self.remote.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { default_model: self.remote.model.clone(), tools: true, images: true, reasoning: true }
    }

    fn limits(&self) -> ProviderLimits {
        self.remote.limits.clone()
    }

    fn missing(&self) -> Option<ProviderError> {
        self.remote.check_key().err()
    }

    fn begin_drain(&self) {
        self.remote.endpoint.begin_drain();
    }

    fn chat_stream(&self, request: ChatRequest) -> ChunkStream {
        let answer = RemoteAnswer::new(Arc::clone(&self.remote), request);
        Box::pin(stream::unfold(answer, |mut answer| async {
            let item = answer.next().await?;
            Some((item, answer))
        }))
    }

    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, ProviderError>> {
        Box::pin(self.remote.models())
    }

    fn embed(&self, request: EmbeddingRequest) -> BoxFuture<'_, Result<Vec<u8>, ProviderError>> {
        Box::pin(async move { self.remote.embed(&request).await })
    }

    fn count_tokens(&self, request: ChatRequest) -> BoxFuture<'_, Result<Option<u64>, ProviderError>> {
        Box::pin(async move { self.remote.count_tokens(&request).await })
    }

    fn health(&self) -> BoxFuture<'_, ProviderHealth> {
        Box::pin(async {
            let started = Instant::now();
            let found = self.remote.probe().await;
            ProviderHealth {
                provider: self.remote.name.clone(),
                healthy: found.is_ok(),
                latency_ms: started.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
                error: found.err().map(|error| error.info()),
            }
        })
    }
}

impl Remote {
    /// Sends a request; gets the events of its answer. Notes what was not sent as it came. A large one is written apart.
    async fn ask(
        self: &Arc<Self>,
        request: &mut Box<ChatRequest>,
        notes: &mut Notes,
    ) -> Result<EventStream, ProviderError> {
        self.check_key()?;
        let (path, body) = if request.is_large(LARGE) {
            let (remote, taken) = (Arc::clone(self), mem::take(request));
            let write = move || {
                let mut notes = Notes::default();
                (remote.write(&taken, &mut notes), notes, taken)
            };
            let (written, noted, given_back) = apart(write).await.map_err(|fault| setup(&fault))?;
            (*notes, *request) = (noted, given_back);
            written?
        } else {
            self.write(request, notes)?
        };
        let model = self.model_of(request.model.as_deref())?;
        self.endpoint.post_for_events(path.iter().map(|segment| segment.of(model)), body).await
    }

    /// What is sent, and where.
    fn write(&self, request: &ChatRequest, notes: &mut Notes) -> Result<Post, ProviderError> {
        let model = self.model_of(request.model.as_deref())?;
        let format = self.kind.format();
        match &request.prompt {
            Some(prompt) => format.completion(request, prompt, model, self.server, notes),
            None => Ok((format.path(), format.body(request, model, self.server, notes)?)),
        }
    }

    /// The model to ask.
    fn model_of<'a>(&'a self, asked: Option<&'a str>) -> Result<Option<&'a str>, ProviderError> {
        let model = asked.or(self.model.as_deref());
        if model.is_none() && self.needs_model {
            return Err(ProviderError::NotConfigured {
                missing: format!("{} needs the name of a model", self.title).into(),
                mend: format!("name a model in the request, or set {}", self.model_setting).into(),
            });
        }
        Ok(model)
    }

    async fn embed(&self, request: &EmbeddingRequest) -> Result<Vec<u8>, ProviderError> {
        self.check_key()?;
        let Some(path) = self.kind.format().embeddings() else {
            let reason = format!("{} has no embeddings; they need a provider that speaks OpenAI's format", self.title);
            return Err(ProviderError::InvalidRequest { reason: Excerpt::new(&reason) });
        };
        let model = self.model_of(request.model.as_deref())?;
        let body = with_model(&request.fields, model);
        self.endpoint.post_json(path.iter().map(|segment| segment.of(model)), body, MAX_ANSWER).await
    }

    async fn count_tokens(&self, request: &ChatRequest) -> Result<Option<u64>, ProviderError> {
        #[derive(Deserialize)]
        struct Counted {
            input_tokens: u64,
        }

        self.check_key()?;
        let model = self.model_of(request.model.as_deref())?;
        let Some((path, body)) = self.kind.format().count(request, model)? else { return Ok(None) };
        let answer = self.endpoint.post_json(path.iter().map(|segment| segment.of(model)), body, MAX_COUNT).await?;
        // What is no count is none.
        Ok(serde_json::from_slice::<Counted>(&answer).ok().map(|counted| counted.input_tokens))
    }

    fn translator(&self) -> Box<dyn Translate> {
        self.kind.format().translator(self.endpoint.secret().cloned())
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
        let body = self.endpoint.get_json(MODELS, MAX_MODEL_LIST).await?;
        let listed: Listed = serde_json::from_slice(&body)
            .map_err(|error| ProviderError::Malformed { reason: self.endpoint.excerpt(&error.to_string()) })?;
        let model = |Model { id, owned_by }| ModelInfo { id, provider: self.name.clone(), owner: owned_by };
        Ok(listed.data.into_iter().map(model).collect())
    }

    async fn probe(&self) -> Result<(), ProviderError> {
        self.check_key()?;
        self.endpoint.probe(MODELS).await
    }

    /// Tells the caller why nothing comes for a while.
    fn waits(&self, pause: Duration, error: &ProviderError) -> String {
        let why = match error.code() {
            "rate_limited" => "it has had too many requests",
            "overloaded" => "it is overloaded",
            _ => "it cannot answer now",
        };
        let seconds = pause.as_secs_f64().ceil().max(1.0);
        format!("{} asks to wait {seconds} s, as {why}; it is asked again then", self.title)
    }

    fn check_key(&self) -> Result<(), ProviderError> {
        let Some(setting) = &self.missing_key else { return Ok(()) };
        let missing = format!("{} needs a key", self.title).into();
        Err(ProviderError::NotConfigured { missing, mend: format!("set {setting}").into() })
    }
}

fn setup(fault: &str) -> ProviderError {
    ProviderError::Setup { reason: Excerpt::new(fault) }
}

/// The JSON text of an object with the name of a model in it. What it holds beside it, it does not have.
fn with_model(fields: &str, model: Option<&str>) -> Vec<u8> {
    let Some(model) = model else { return fields.as_bytes().to_vec() };
    let rest = fields.trim().strip_prefix('{').unwrap_or("}");
    let separator = if rest.trim_start().starts_with('}') { "" } else { "," };
    format!("{{\"model\":{}{separator}{rest}", serde_json::Value::from(model)).into_bytes()
}

/// The address that the paths of requests are added to. `known` knows where it is if the settings do not say.
fn base(kind: ProviderKind, config: &ProviderConfig, known: Option<&Preset>) -> Result<Url, &'static str> {
    let written = match config.base_url.trim() {
        "" => known.map_or("", |known| known.base_url),
        written => written,
    };
    if written.is_empty() {
        return Err("is missing; set the address of your resource");
    }
    kind.format().base(written, config.api_version.as_deref())
}

/// Whether a server at this address is the preset's own. Where everybody has an address of his own, each of them is.
fn is_home(known: &Preset, base: &Url) -> bool {
    let has_host = |home: Url| home.host_str() == base.host_str();
    known.base_url.is_empty() || known.base_url.parse().is_ok_and(has_host)
}

/// An answer on its way.
struct RemoteAnswer {
    remote: Arc<Remote>,
    stage: Stage,
    translator: Box<dyn Translate>,
    /// What is to be told before the first piece, and only with an answer.
    notes: VecDeque<String>,
    /// Pieces of the last event that were not asked for yet.
    ready: VecDeque<Chunk>,
    /// The error that comes after them.
    failed: Option<ProviderError>,
    /// How often the request was sent again, and after how long a wait in all.
    retries: u32,
    waited: Duration,
}

enum Stage {
    /// Nothing was sent yet.
    Asked(Box<ChatRequest>),
    /// It failed, and is sent again after a pause.
    Waiting(Box<ChatRequest>, Duration, ProviderError),
    Answering(Box<EventStream>),
    /// The connection is given back, or closed.
    Ended,
}

impl RemoteAnswer {
    fn new(remote: Arc<Remote>, request: ChatRequest) -> Self {
        let mut translator = remote.translator();
        translator.limit(request.max_tokens);
        let stage = Stage::Asked(Box::new(request));
        let (notes, ready) = (VecDeque::new(), VecDeque::new());
        Self { remote, stage, translator, notes, ready, failed: None, retries: 0, waited: Duration::ZERO }
    }

    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        // While keep-alives come in, of whatever form, this moment stays.
        let mut asked = Instant::now();
        loop {
            if !self.ready.is_empty()
                && let Some(text) = self.notes.pop_front()
            {
                return Some(Ok(Chunk::Notice { text }));
            }
            if let Some(chunk) = self.ready.pop_front() {
                return Some(Ok(chunk));
            }
            if matches!(self.stage, Stage::Ended) {
                return self.failed.take().map(Err);
            }
            let begins = matches!(self.stage, Stage::Asked(_) | Stage::Waiting(..));
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
                let mut notes = Notes::default();
                let error = match self.remote.ask(request, &mut notes).await {
                    Ok(events) => {
                        self.notes = notes.into_vec().into();
                        self.stage = Stage::Answering(Box::new(events));
                        return Ok(Progress::Continues);
                    }
                    Err(error) => error,
                };
                let Some(pause) = self.remote.endpoint.pause(&error, self.retries, self.waited) else {
                    return Err(error);
                };
                if error.retry_after().is_some() {
                    self.ready.push_back(Chunk::Notice { text: self.remote.waits(pause, &error) });
                }
                let request = mem::take(request);
                self.stage = Stage::Waiting(request, pause, error);
                return Ok(Progress::Continues);
            }
            Stage::Waiting(request, pause, error) => {
                if !self.remote.endpoint.wait(*pause).await {
                    return Err(error.clone());
                }
                self.retries += 1;
                self.waited += *pause;
                self.stage = Stage::Asked(mem::take(request));
                return Ok(Progress::Continues);
            }
            Stage::Answering(events) => events,
            Stage::Ended => return Ok(Progress::Ended),
        };
        match events.next(asked).await {
            Ok(Next::Event(event)) => {
                let from = self.ready.len();
                let progress = self.translator.event(event, &mut self.ready);
                push_extra(event.data, from, &mut self.ready);
                progress
            }
            Ok(Next::End { unfinished, reason }) => self.translator.end(unfinished, reason, &mut self.ready),
            Ok(Next::Document(json)) => {
                let from = self.ready.len();
                if self.translator.document(&json, &mut self.ready)? {
                    push_extra(&json, from, &mut self.ready);
                    return Ok(Progress::Ended);
                }
                Err(self.remote.endpoint.unexpected(AN_EVENT_STREAM, events.content_type(), json.as_bytes()))
            }
            // An answer that has said why it stopped is whole, however the connection ends.
            Err(error) => {
                if self.translator.finish(&mut self.ready)? {
                    return Ok(Progress::Ended);
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn base_of(kind: ProviderKind, written: &str) -> String {
        let config = ProviderConfig { base_url: written.to_owned(), ..ProviderConfig::default() };
        base(kind, &config, Preset::of_inventor(kind)).unwrap().to_string()
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
        assert_eq!(
            error("anthropic", config),
            "ANTHROPIC_API_KEY holds several lines; a key is one line and nothing else"
        );
    }
}
