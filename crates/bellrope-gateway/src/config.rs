//! Where a provider is, what it speaks, and how long to wait for it.

mod pass_through;
mod preset;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bellrope::breaker::{BreakerConfig, BreakerSetting};
#[cfg(feature = "http")]
use reqwest::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::ConfigError;
use crate::providers::fill::Fill;
use crate::providers::formats::ProviderKind;
use crate::secret::Secret;
use crate::units::millis;

pub use pass_through::{Credentials, PassThrough};
pub(crate) use preset::{PRESETS, Preset};

/// How long a provider may ask for a pause and get it, unless the settings say otherwise.
pub(crate) const MAX_RETRY_WAIT: Duration = Duration::from_secs(20);

/// The longest name of a provider, in bytes.
const MAX_NAME: usize = 64;

/// Headers that no setting may change: those of keys, and those that say how a message is framed.
const OWN_HEADERS: [&str; 13] = [
    "accept-encoding",
    "anthropic-version",
    "api-key",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "x-api-key",
];

/// How to reach a provider: a section `[gateway.providers.NAME]` of the configuration. None of it costs memory.
///
/// A provider whose name is a preset's (`openai`, `openai-responses`, `anthropic`, `azure`, `openrouter`, `xai`, `groq`,
/// `mistral`, `deepseek`, `ollama`, `llamacpp`, `vllm`) knows its kind, its address and its environment variables:
/// `OPENAI_BASE_URL`, `OPENAI_API_KEY`, `OPENAI_MODEL` and so on, which come before this configuration. Any other needs
/// `kind`, takes nothing from the environment but the key that `api_key` names, and has the address of its kind's inventor
/// where `base_url` is missing.
///
/// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` hold as everywhere, except for a server at a loopback address,
/// which is always asked directly. So do `SSL_CERT_FILE` and `SSL_CERT_DIR`.
///
/// ```
/// use bellrope_gateway::{ProviderConfig, ProviderKind};
///
/// let config: ProviderConfig = serde_json::from_str(
///     r#"{"kind": "anthropic", "base_url": "http://127.0.0.1:8080", "api_key": "${WORK_KEY}", "model": "m"}"#,
/// )?;
/// assert_eq!(config.kind, Some(ProviderKind::Anthropic));
/// assert!(config.api_key.is_none(), "the variable is read when the gateway is set up");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderConfig {
    /// The wire format. Default: that of the preset.
    pub kind: Option<ProviderKind>,
    /// The API's address, with or without `/v1`. Default: empty, which is that of the preset or of the kind's inventor.
    pub base_url: String,
    /// The key. It never stands in a configuration file, where `api_key` names a variable instead.
    #[serde(skip)]
    pub api_key: Option<Secret>,
    /// The environment variable that holds the key, in the file as `api_key = "${NAME}"`. It comes before the variable of
    /// the preset. Default: none.
    #[serde(rename = "api_key", with = "variable")]
    pub api_key_variable: Option<String>,
    /// A file with the key, read when the provider is set up and no variable holds a key. Default: none.
    pub api_key_file: Option<PathBuf>,
    /// The model of requests that name none; at Azure the deployment. Default: none, and then every request has to name
    /// one, unless the server chooses by itself.
    pub model: Option<String>,
    /// Azure's version of the API. Default: `2024-10-21`. Environment: `OPENAI_API_VERSION`.
    pub api_version: Option<String>,
    /// How long a connection may take, TLS included. In milliseconds as `connect_timeout_ms`; default 10,000.
    #[serde(rename = "connect_timeout_ms", with = "millis")]
    pub connect_timeout: Duration,
    /// How long the head of the response may take, counted from the start of each attempt. A local server may read the
    /// whole prompt first. In milliseconds as `first_byte_timeout_ms`; default 120,000.
    #[serde(rename = "first_byte_timeout_ms", with = "millis")]
    pub first_byte_timeout: Duration,
    /// How long a response may be silent once something of the answer has come; before that, `event_timeout`. In milliseconds as
    /// `idle_timeout_ms`; default 60,000.
    #[serde(rename = "idle_timeout_ms", with = "millis")]
    pub idle_timeout: Duration,
    /// How long a response may bring nothing of the answer, though its head or keep-alives come: comments, pings, and other
    /// events. A model may think for minutes first. In milliseconds as `event_timeout_ms`; default 600,000.
    #[serde(rename = "event_timeout_ms", with = "millis")]
    pub event_timeout: Duration,
    /// How often a request is sent again after an error that may pass, always before the first token. Default: 2.
    pub max_retries: u32,
    /// The pause before the first repetition, where the provider does not ask for another. Each next one is twice as
    /// long, to at most 8 s. In milliseconds as `retry_delay_ms`; default 500.
    #[serde(rename = "retry_delay_ms", with = "millis")]
    pub retry_delay: Duration,
    /// Whether a stream of chat completions is asked to end with what the answer took. Some servers refuse the field.
    /// Default: true.
    pub stream_options: bool,
    /// Whether messages of chat completions may hold what OpenAI's do not: `reasoning_content` and `reasoning_details` of
    /// earlier turns, and the `extra_content` of calls. Default: true, but for OpenAI, Azure, Groq and Mistral, which refuse it.
    pub message_extras: Option<bool>,
    /// What becomes of a request whose format the provider speaks itself, at the API port: `exact`, it goes through as it
    /// came, and so does the answer; `repaired`, both are put in order on their way, and fields that are not known here
    /// are carried on; `off`, these are left out. Default: `exact` at the address of the format's inventor, else
    /// `repaired`.
    pub pass_through: Option<PassThrough>,
    /// Whose key is sent: `server`, the one that is set here, or `client`, the one that the tool sent with its request to
    /// the API port. Default: `server`.
    pub credentials: Credentials,
    /// How many idle connections to the provider are kept for the next requests. Each takes a few KiB, with TLS some 50.
    /// Default: 64.
    pub idle_connections: usize,
    /// The most tokens of an answer to a request that says nothing of it. Default: none, which leaves it to the provider;
    /// Anthropic's messages need a number, and get one by the model's name (docs/providers.md, "The length of answers").
    pub max_tokens: Option<u32>,
    /// Whether what a model thinks, if its answer begins with `<think>`, is told apart from the answer as reasoning.
    /// Default: true for a server on this machine, else false.
    pub think_tags: Option<bool>,
    /// How a prompt with a suffix is sent to `/completions`: `server` (as `suffix`), `auto` (in the template of the model, if
    /// its name tells which), or a template: `qwen`, `starcoder`, `codellama`, `deepseek`, `codestral`, `codegemma`.
    /// Default: `auto` for `llamacpp` and `vllm`, which know no `suffix`, else `server`.
    pub fill: Option<Fill>,
    /// How many requests a minute this provider is asked at most; more are refused, or go to a fallback. Default: 0, no
    /// limit.
    pub requests_per_minute: u32,
    /// How many of them may come at once after a pause. Default: 0, as many as in a minute.
    pub burst: u32,
    /// More headers of every request, by name, such as a proxy of your own asks for. They are shown with the settings, so a
    /// key does not belong here. Default: none.
    pub headers: BTreeMap<String, String>,
    /// When the provider is no longer asked because it fails.
    pub breaker: BreakerConfig,
    /// For a server on this machine: the longest time between two probes while its breaker is open, in place of what
    /// `breaker` says, so that a server that was started again is asked again at once. In milliseconds; default 1,000. 0
    /// leaves it to `breaker`.
    #[serde(rename = "local_probe_ms", with = "millis")]
    pub local_probe: Duration,
}

impl Default for ProviderConfig {
    fn default() -> Self {
        Self {
            kind: None,
            base_url: String::new(),
            api_key: None,
            api_key_variable: None,
            api_key_file: None,
            model: None,
            api_version: None,
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(60),
            event_timeout: Duration::from_secs(600),
            max_retries: 2,
            retry_delay: Duration::from_millis(500),
            stream_options: true,
            message_extras: None,
            pass_through: None,
            credentials: Credentials::Server,
            idle_connections: 64,
            max_tokens: None,
            think_tags: None,
            fill: None,
            headers: BTreeMap::new(),
            requests_per_minute: 0,
            burst: 0,
            breaker: BreakerConfig::default(),
            local_probe: Duration::from_secs(1),
        }
    }
}

impl ProviderConfig {
    /// This configuration of the provider `name`, overruled by what its environment variables say. Empty ones say nothing.
    ///
    /// ```
    /// use bellrope_gateway::ProviderConfig;
    ///
    /// let config = ProviderConfig::default().with_vars("openai", |name| match name {
    ///     "OPENAI_BASE_URL" => Some("http://127.0.0.1:8080".to_owned()),
    ///     _ => None,
    /// });
    /// assert_eq!(config.base_url, "http://127.0.0.1:8080");
    /// ```
    #[must_use]
    pub fn with_vars(mut self, name: &str, vars: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| vars(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        if let Some(key) = self.api_key_variable.as_deref().and_then(&set) {
            self.api_key = Some(Secret::new(key));
        }
        let Some(preset) = Preset::named(name) else { return self };
        if let Some(base_url) = set(preset.base_url_var) {
            self.base_url = base_url;
        }
        if let (None, Some(key)) = (&self.api_key_variable, set(preset.key_var)) {
            self.api_key = Some(Secret::new(key));
        }
        if let Some(model) = set(preset.model_var) {
            self.model = Some(model);
        }
        if let Some(version) = preset.version_var.and_then(set) {
            self.api_version = Some(version);
        }
        self
    }

    /// The breaker that it is to have. `is_local`: whether the server is on this machine.
    pub(crate) fn breaker_for(&self, is_local: bool) -> BreakerConfig {
        let mut breaker = self.breaker.clone();
        if is_local && !self.local_probe.is_zero() {
            let probe = self.local_probe;
            breaker.timeout = breaker.timeout.min(probe);
            breaker.max_timeout = breaker.max_timeout.min(probe).max(breaker.timeout);
        }
        breaker
    }

    /// Checks what can be wrong in itself. `section` is where it stands.
    pub(crate) fn check(&self, section: &str) -> Result<(), ConfigError> {
        for (key, timeout) in [
            ("connect_timeout_ms", self.connect_timeout),
            ("first_byte_timeout_ms", self.first_byte_timeout),
            ("idle_timeout_ms", self.idle_timeout),
            ("event_timeout_ms", self.event_timeout),
        ] {
            if timeout.is_zero() {
                let key = format!("{section}.{key}").into();
                return Err(ConfigError::Invalid { key, reason: "is 0; set it to 1 or more".into() });
            }
        }
        if self.max_tokens == Some(0) {
            let key = format!("{section}.max_tokens").into();
            return Err(ConfigError::Invalid { key, reason: "is 0; set it to 1 or more, or leave it out".into() });
        }
        #[cfg(feature = "http")]
        self.check_headers(section)?;
        self.breaker.check().map_err(|BreakerSetting { key, value, expected }| ConfigError::Invalid {
            key: format!("{section}.breaker.{key}").into(),
            reason: format!("is {value}, {expected}").into(),
        })
    }

    #[cfg(feature = "http")]
    fn check_headers(&self, section: &str) -> Result<(), ConfigError> {
        for (name, value) in &self.headers {
            let reason = match HeaderName::from_bytes(name.as_bytes()) {
                Err(_) => "is no name that a header can have",
                Ok(name) if OWN_HEADERS.contains(&name.as_str()) => "is set by the program itself; leave it out",
                Ok(_) if HeaderValue::from_str(value).is_err() => "holds a character that no header can have",
                Ok(_) => continue,
            };
            let name = crate::error::Excerpt::new(name);
            let key = format!("{section}.headers.{name}").into();
            return Err(ConfigError::Invalid { key, reason: reason.into() });
        }
        Ok(())
    }

    /// The key itself, else that of the file, without what people put around keys.
    pub(crate) fn read_key(&self, name: &str) -> Result<Option<Secret>, ConfigError> {
        if let Some(key) = &self.api_key {
            return Secret::parse(key.expose()).map(Some).map_err(|fault| ConfigError::Invalid {
                key: self.key_setting(name).into(),
                reason: format!("holds {fault}").into(),
            });
        }
        let Some(path) = self.api_key_file.as_deref() else { return Ok(None) };
        Secret::from_file(path).map(Some).map_err(|source| ConfigError::KeyFile {
            key: format!("{}.api_key_file", section(name)).into(),
            path: path.to_owned(),
            source,
        })
    }

    /// What holds the key, or should: a variable, a file or a setting.
    pub(crate) fn key_setting(&self, name: &str) -> String {
        match (&self.api_key_variable, &self.api_key_file, Preset::named(name)) {
            (Some(variable), ..) => variable.clone(),
            (None, Some(_), _) if self.api_key.is_none() => format!("the key in {}.api_key_file", section(name)),
            (None, _, Some(preset)) => preset.key_var.to_owned(),
            (None, _, None) => format!("{}.api_key", section(name)),
        }
    }
}

/// Where the provider `name` stands in the configuration.
pub(crate) fn section(name: &str) -> String {
    format!("gateway.providers.{name}")
}

/// Checks a provider's name: it becomes a label of metrics and a word of error messages.
pub(crate) fn check_name(name: &str) -> Result<(), ConfigError> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_plain) {
        let shown = crate::error::Excerpt::new(name);
        let reason = "has a name that cannot be used; take 1 to 64 of a-z, 0-9, `-`, `_` and `.`".into();
        return Err(ConfigError::Invalid { key: section(shown.as_str()).into(), reason });
    }
    Ok(())
}

/// The name of a variable as `${NAME}`. A key itself is refused, and the error does not quote it.
mod variable {
    use super::{Deserialize, Deserializer};
    use serde::Serializer;
    use serde::de::{Error, IgnoredAny};

    pub(super) fn serialize<S: Serializer>(name: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
        match name {
            Some(name) => serializer.serialize_some(&format!("${{{name}}}")),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
        /// Any value, so that no error quotes it.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Other(IgnoredAny),
        }

        let text = match Option::deserialize(deserializer)? {
            Some(Written::Text(text)) => text,
            Some(Written::Other(IgnoredAny)) => String::new(),
            None => return Ok(None),
        };
        let name = text.trim().strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        let is_name = |name: &&str| {
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            plain && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
        };
        name.filter(is_name).map(|name| Some(name.to_owned())).ok_or_else(|| {
            D::Error::custom(
                "`api_key` must name an environment variable, as in \"${NAME}\": a key does not belong into this file; \
                 or name a file that holds it with `api_key_file`",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_json(json: &str) -> serde_json::Result<ProviderConfig> {
        serde_json::from_str(json)
    }

    #[test]
    fn the_environment_overrules_the_file_unless_it_is_empty() {
        let file = from_json(r#"{"base_url":"http://a","model":"m","idle_timeout_ms":70}"#).unwrap();
        let config = file.with_vars("openai", |name| match name {
            "OPENAI_BASE_URL" => Some("  ".into()),
            "OPENAI_API_KEY" => Some("sk-1234567\n".into()),
            "OPENAI_MODEL" => Some("n".into()),
            other => panic!("{other} was read"),
        });
        assert_eq!(config.base_url, "http://a");
        assert_eq!(config.model.as_deref(), Some("n"));
        assert_eq!(config.idle_timeout, Duration::from_millis(70));
        assert_eq!(config.api_key.as_ref().map(Secret::expose), Some("sk-1234567"));
        assert!(!format!("{config:?}").contains("1234567"));
        assert!(!serde_json::to_string(&config).unwrap().contains("1234567"));
    }

    #[test]
    fn a_provider_without_a_preset_takes_from_the_environment_what_it_names_and_nothing_else() {
        let file = from_json(r#"{"kind":"openai","base_url":"http://a","api_key":"${WORK_KEY}"}"#).unwrap();
        let config = file.clone().with_vars("work", |name| match name {
            "WORK_KEY" => Some("sk-work".into()),
            other => panic!("{other} was read"),
        });
        assert_eq!(config.api_key.as_ref().map(Secret::expose), Some("sk-work"));
        assert_eq!(config.key_setting("work"), "WORK_KEY");
        // Nor does a preset look elsewhere once a variable is named: the key may be another account's.
        let config = file.with_vars("openai", |name| (name == "OPENAI_API_KEY").then(|| "sk-private".into()));
        assert!(config.api_key.is_none());
        let back: ProviderConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(back.api_key_variable.as_deref(), Some("WORK_KEY"));
    }

    // Fault 55.
    #[test]
    fn a_key_in_the_configuration_file_is_refused_and_not_quoted() {
        for json in [
            r#"{"api_key":"sk-123456"}"#,
            r#"{"api_key":"${sk-123456}"}"#,
            r#"{"api_key":"${}"}"#,
            r#"{"api_key":123456}"#,
            r#"{"api_key":["123456"]}"#,
        ] {
            let error = from_json(json).unwrap_err().to_string();
            assert!(error.contains("`api_key` must name") && error.contains("`api_key_file`"), "{error}");
            assert!(!error.contains("123456"), "{error}");
        }
    }

    #[test]
    fn a_server_on_this_machine_is_probed_every_second_unless_the_settings_say_otherwise() {
        let times = |config: &ProviderConfig, is_local| {
            let breaker = config.breaker_for(is_local);
            (breaker.timeout.as_millis(), breaker.max_timeout.as_millis())
        };
        let mut config = ProviderConfig::default();
        assert_eq!((times(&config, false), times(&config, true)), ((60_000, 600_000), (1_000, 1_000)));
        let breaker = config.breaker_for(true);
        assert_eq!((breaker.failure_threshold, breaker.success_threshold, breaker.half_open_max_requests), (5, 2, 3));
        config.breaker.timeout = Duration::from_millis(200);
        assert_eq!(times(&config, true), (200, 1_000));
        config.local_probe = Duration::ZERO;
        assert_eq!(times(&config, true), (200, 600_000));
    }

    #[test]
    fn what_holds_the_key_is_named() {
        let config = ProviderConfig::default();
        assert_eq!(config.key_setting("groq"), "GROQ_API_KEY");
        assert_eq!(config.key_setting("mine"), "gateway.providers.mine.api_key");
        let config = ProviderConfig { api_key_file: Some("/k".into()), ..config };
        assert_eq!(config.key_setting("groq"), "the key in gateway.providers.groq.api_key_file");
        let error = config.read_key("groq").unwrap_err().to_string();
        assert!(error.starts_with("gateway.providers.groq.api_key_file: cannot read /k: "), "{error}");
    }

    #[test]
    fn a_setting_out_of_its_range_is_named() {
        let config = ProviderConfig { idle_timeout: Duration::ZERO, ..ProviderConfig::default() };
        let error = config.check("gateway.providers.x").unwrap_err();
        assert_eq!(error.to_string(), "gateway.providers.x.idle_timeout_ms is 0; set it to 1 or more");
        let config = from_json(r#"{"breaker":{"timeout_ms":0}}"#).unwrap();
        let error = config.check("gateway.providers.x").unwrap_err();
        assert_eq!(error.to_string(), "gateway.providers.x.breaker.timeout_ms is 0, and must be at least 1");
    }

    #[test]
    fn a_header_that_cannot_be_set_is_named() {
        for (name, value, words) in [
            ("a b", "x", "headers.a b is no name"),
            ("X-Api-Key", "x", "headers.X-Api-Key is set by the program itself"),
            ("content-length", "x", "is set by the program itself"),
            ("x-team", "a\nb", "headers.x-team holds a character"),
        ] {
            let headers = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let config = ProviderConfig { headers, ..ProviderConfig::default() };
            let error = config.check("gateway.providers.x").unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn names_are_plain_words() {
        assert!(check_name("llama.cpp_2-b").is_ok());
        for name in ["", "Ä", "a b", "a\n", "UPPER", &"x".repeat(65)] {
            assert!(check_name(name).unwrap_err().to_string().contains("cannot be used"), "{name}");
        }
    }
}
