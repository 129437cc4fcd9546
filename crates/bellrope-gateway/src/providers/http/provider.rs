//! A provider behind HTTP, whichever of the wire formats it speaks: set up from its configuration.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use reqwest::Url;
use tokio::time::Instant;

use super::answer::RemoteAnswer;
use super::client::is_this_machine;
use super::endpoint::{Endpoint, Fixes};
use super::headers::headers;
use super::remote::Remote;
use super::retry::RetryPolicy;
use super::timeouts::Timeouts;
use crate::config::{Credentials, MAX_RETRY_WAIT, PassThrough, Preset, ProviderConfig, check_name, section};
use crate::error::{ConfigError, ProviderError};
use crate::message::{ChatRequest, ModelInfo, ProviderHealth};
use crate::pass::{PassError, PassFormat, PassRequest, Passed};
use crate::provider::{BoxFuture, Capabilities, EmbeddingRequest, Provider, ProviderLimits, ProviderStream, TakesKey};
use crate::providers::fill::Fill;
use crate::providers::formats::{ProviderKind, ProviderServer};
use crate::providers::names::Renamed;
use crate::providers::shape::{AnswerShape, shaped};

/// Presets whose servers refuse fields of messages that OpenAI's do not have.
const NO_EXTRAS: [&str; 3] = ["openai", "groq", "mistral"];

/// Presets whose models are called by their makers and a slash, or as their users like.
const SLASHES: [&str; 5] = ["openrouter", "groq", "ollama", "llamacpp", "vllm"];

/// Presets whose servers know no `suffix`.
const NO_SUFFIX: [&str; 2] = ["llamacpp", "vllm"];

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
        let is_clients = config.credentials == Credentials::Client;
        // One that is set all the same is none of the tools' business.
        let api_key = api_key.filter(|_| !is_clients);
        let missing_key = (needs_key && api_key.is_none() && !is_clients).then(|| key_setting.clone());
        let headers = headers(kind, api_key.as_ref(), &config.headers).ok_or_else(|| ConfigError::Invalid {
            key: key_setting.clone().into(),
            reason: "holds a character that no key has".into(),
        })?;
        let timeouts = Timeouts {
            connect: config.connect_timeout,
            first_byte: config.first_byte_timeout,
            idle: config.idle_timeout,
            event: config.event_timeout,
        };
        let retry = RetryPolicy { max_retries: config.max_retries, base_delay: config.retry_delay, max_wait };
        let fixes = Fixes {
            base_url: format!("check {base_setting}").into(),
            api_key: format!("check {key_setting}").into(),
            not_found: format!("check the model's name and {base_setting}").into(),
        };
        let at_inventor = home.is_some_and(|home| home.name == kind.name());
        let usual = if at_inventor { PassThrough::Exact } else { PassThrough::Repaired };
        let is_local = is_this_machine(&base);
        let breaker = config.breaker_for(is_local);
        let has_extras = !home.is_some_and(|home| NO_EXTRAS.contains(&home.name));
        let message_extras = config.message_extras.unwrap_or(has_extras);
        Ok(Self {
            remote: Arc::new(Remote {
                title: preset.map_or_else(|| format!("`{name}`"), |preset| preset.title.to_owned()),
                name: name.to_owned(),
                kind,
                endpoint: Endpoint::new(base, headers, api_key, timeouts, config.idle_connections, retry, fixes),
                needs_model: needs_key || kind.format().needs_model(),
                server: ProviderServer { at_inventor, message_extras, stream_options: config.stream_options },
                wants_thoughts: kind.format().wants_thoughts() && message_extras,
                has_plain_names: home.is_some_and(|home| !SLASHES.contains(&home.name)),
                missing_key,
                pass_through: config.pass_through.unwrap_or(usual),
                credentials: config.credentials,
                model_setting: preset.map_or_else(|| format!("{section}.model"), |preset| preset.model_var.to_owned()),
                model: config.model,
                max_tokens: config.max_tokens,
                think_tags: config.think_tags.unwrap_or(is_local),
                fill: config.fill.unwrap_or(if NO_SUFFIX.contains(&name) { Fill::Auto } else { Fill::Server }),
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

    fn missing_model(&self) -> Option<ProviderError> {
        self.remote.model_of(None).err()
    }

    fn usual_max_tokens(&self, model: Option<&str>) -> Option<u32> {
        let remote = &self.remote;
        remote.max_tokens.or_else(|| remote.kind.format().usual_max_tokens(model.or(remote.model.as_deref())))
    }

    fn pass_through(&self) -> Option<PassThrough> {
        Some(self.remote.pass_through)
    }

    fn begin_drain(&self) {
        self.remote.endpoint.begin_drain();
    }

    fn chat_stream(&self, mut request: ChatRequest) -> ProviderStream {
        let remote = &self.remote;
        if request.max_tokens.is_none_or(|tokens| tokens == 0) {
            request.max_tokens = remote.max_tokens;
        }
        let model = request.model.clone().or_else(|| remote.model.clone());
        let stops = remote.fill.apply(&mut request, model.as_deref(), remote.kind.format().most_stops());
        let shape = AnswerShape::new(remote.think_tags && request.prompt.is_none(), stops);
        let renamed = Renamed::of(&mut request, remote.kind.format(), remote.server);
        let answer = RemoteAnswer::new(Arc::clone(remote), request);
        let pieces: ProviderStream = Box::pin(stream::unfold(answer, |mut answer| async {
            let item = answer.next().await?;
            Some((item, answer))
        }));
        let pieces = if shape.is_idle() { pieces } else { shaped(pieces, shape) };
        if renamed.is_empty() {
            return pieces;
        }
        Box::pin(pieces.map(move |piece| piece.map(|chunk| renamed.back(chunk))))
    }

    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, ProviderError>> {
        Box::pin(self.remote.models())
    }

    fn embed(&self, request: EmbeddingRequest) -> BoxFuture<'_, Result<Vec<u8>, ProviderError>> {
        Box::pin(async move { self.remote.embed(&request).await })
    }

    fn count_tokens(&self, mut request: ChatRequest) -> BoxFuture<'_, Result<Option<u64>, ProviderError>> {
        Renamed::of(&mut request, self.remote.kind.format(), self.remote.server);
        Box::pin(async move { self.remote.count_tokens(request).await })
    }

    fn passes(&self, format: PassFormat) -> bool {
        self.remote.pass_through == PassThrough::Exact && self.remote.kind.format().passes(format).is_some()
    }

    fn carries(&self, format: PassFormat) -> bool {
        self.remote.carries(format)
    }

    fn wants_thoughts(&self) -> bool {
        self.remote.wants_thoughts
    }

    fn continues_prompts(&self) -> bool {
        self.remote.kind.format().continues_prompts()
    }

    fn has_plain_names(&self) -> bool {
        self.remote.has_plain_names
    }

    fn takes_key(&self, format: Option<PassFormat>) -> TakesKey {
        self.remote.takes_key(format)
    }

    fn pass(&self, request: PassRequest) -> BoxFuture<'_, Result<Passed, PassError>> {
        Box::pin(async move { self.remote.pass(&request).await })
    }

    fn health(&self) -> BoxFuture<'_, ProviderHealth> {
        Box::pin(async {
            let started = Instant::now();
            let found = self.remote.probe().await;
            ProviderHealth {
                provider: self.remote.name.clone(),
                healthy: found.is_ok(),
                latency: started.elapsed(),
                error: found.err().map(|error| error.info()),
            }
        })
    }
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

/// Whether a server at this address is the preset's own. Where each user has an address of its own, each of them is.
fn is_home(known: &Preset, base: &Url) -> bool {
    let has_host = |home: Url| home.host_str() == base.host_str();
    known.base_url.is_empty() || known.base_url.parse().is_ok_and(has_host)
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
