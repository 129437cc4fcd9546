//! Where the provider is and how long to wait for it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::secret::Secret;

/// How to reach an OpenAI-compatible server. None of it costs memory.
///
/// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` hold as everywhere, except for a server on this machine,
/// which is always asked directly.
///
/// ```
/// use bellrope_gateway::OpenAiConfig;
///
/// let config = OpenAiConfig::from_vars(|name| match name {
///     "OPENAI_BASE_URL" => Some("http://127.0.0.1:8080".to_owned()),
///     _ => None,
/// });
/// assert_eq!(config.base_url, "http://127.0.0.1:8080");
/// assert!(config.api_key.is_none());
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenAiConfig {
    /// The API's address, with or without `/v1`. Default: `https://api.openai.com/v1`. Environment: `OPENAI_BASE_URL`.
    pub base_url: String,
    /// The key. Never in a configuration file. Default: none. Environment: `OPENAI_API_KEY`.
    #[serde(skip)]
    pub api_key: Option<Secret>,
    /// A file with the key, read when the provider is set up and the environment holds no key. Default: none.
    pub api_key_file: Option<PathBuf>,
    /// The model of requests that name none. Default: none, and then OpenAI itself needs it in every request, while
    /// other servers choose by themselves. Environment: `OPENAI_MODEL`.
    pub model: Option<String>,
    /// How long a connection may take, TLS included. In milliseconds as `connect_timeout_ms`; default 10,000.
    #[serde(rename = "connect_timeout_ms", with = "millis")]
    pub connect_timeout: Duration,
    /// How long the head of the response may take, counted from the start of each attempt. A local server may read the
    /// whole prompt first. In milliseconds as `first_byte_timeout_ms`; default 120,000.
    #[serde(rename = "first_byte_timeout_ms", with = "millis")]
    pub first_byte_timeout: Duration,
    /// How long a response may be silent. In milliseconds as `idle_timeout_ms`; default 60,000.
    #[serde(rename = "idle_timeout_ms", with = "millis")]
    pub idle_timeout: Duration,
    /// How long a response may consist of keep-alives alone. In milliseconds as `event_timeout_ms`; default 600,000.
    #[serde(rename = "event_timeout_ms", with = "millis")]
    pub event_timeout: Duration,
    /// How often a request is sent again after an error that may pass, always before the first token. Default: 2.
    pub max_retries: u32,
    /// The pause before the first repetition, where the provider does not ask for another. Each next one is twice as
    /// long, to at most 8 s. In milliseconds as `retry_delay_ms`; default 500.
    #[serde(rename = "retry_delay_ms", with = "millis")]
    pub retry_delay: Duration,
}

impl Default for OpenAiConfig {
    fn default() -> Self {
        Self {
            base_url: "https://api.openai.com/v1".to_owned(),
            api_key: None,
            api_key_file: None,
            model: None,
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(60),
            event_timeout: Duration::from_secs(600),
            max_retries: 2,
            retry_delay: Duration::from_millis(500),
        }
    }
}

impl OpenAiConfig {
    /// The defaults, with what `OPENAI_BASE_URL`, `OPENAI_API_KEY` and `OPENAI_MODEL` say.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// As [`OpenAiConfig::from_env`], with variables from elsewhere.
    pub fn from_vars(vars: impl Fn(&str) -> Option<String>) -> Self {
        Self::default().with_vars(vars)
    }

    /// This configuration, overruled by what the variables say. Empty ones say nothing.
    #[must_use]
    pub fn with_vars(mut self, vars: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| vars(name).filter(|value| !value.trim().is_empty());
        if let Some(base_url) = set("OPENAI_BASE_URL") {
            self.base_url = base_url;
        }
        if let Some(key) = set("OPENAI_API_KEY") {
            self.api_key = Some(Secret::new(key));
        }
        if let Some(model) = set("OPENAI_MODEL") {
            self.model = Some(model.trim().to_owned());
        }
        self
    }

    /// Checks what can be wrong in itself.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (key, timeout) in [
            ("gateway.openai.connect_timeout_ms", self.connect_timeout),
            ("gateway.openai.first_byte_timeout_ms", self.first_byte_timeout),
            ("gateway.openai.idle_timeout_ms", self.idle_timeout),
            ("gateway.openai.event_timeout_ms", self.event_timeout),
        ] {
            if timeout.is_zero() {
                return Err(ConfigError::Invalid { key, reason: "is 0; set it to 1 or more" });
            }
        }
        Ok(())
    }

    /// The key itself, else that of the file.
    pub(super) fn read_key(&self) -> Result<Option<Secret>, ConfigError> {
        let file = self.api_key_file.as_deref().filter(|_| self.api_key.is_none());
        let Some(path) = file else { return Ok(self.api_key.clone()) };
        let read = Secret::from_file(path);
        let key = "gateway.openai.api_key_file";
        read.map(Some).map_err(|source| ConfigError::KeyFile { key, path: path.to_owned(), source })
    }
}

/// Durations as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(duration.as_millis().try_into().unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_overrules_the_file_unless_it_is_empty() {
        let file: OpenAiConfig =
            serde_json::from_str(r#"{"base_url":"http://a","model":"m","idle_timeout_ms":70}"#).unwrap();
        let config = file.with_vars(|name| match name {
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
    fn a_key_in_the_configuration_file_is_refused() {
        let error = serde_json::from_str::<OpenAiConfig>(r#"{"api_key":"sk-1"}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `api_key`"), "{error}");
    }

    #[test]
    fn a_timeout_of_zero_is_named() {
        let config = OpenAiConfig { idle_timeout: Duration::ZERO, ..OpenAiConfig::default() };
        let error = config.check().unwrap_err();
        assert_eq!(error.to_string(), "gateway.openai.idle_timeout_ms is 0; set it to 1 or more");
    }
}
