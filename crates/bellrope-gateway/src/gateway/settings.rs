//! The gateway's part of the configuration, and the providers that come of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::answers::AnswerSettings;
use super::core::Gateway;
use super::upstream::{MadeOf, Upstream};
#[cfg(not(feature = "http"))]
use crate::config::section;
use crate::config::{MAX_RETRY_WAIT, PRESETS, Preset, ProviderConfig};
use crate::error::ConfigError;
use crate::providers::embedded::{self, EmbeddedProvider, EmbeddedSettings};
#[cfg(feature = "http")]
use crate::providers::http::{HttpProvider, check_trust};
use crate::units::millis;

/// The short section `[gateway.openai]`.
const OPENAI: &str = "openai";

/// The longest [`GatewaySettings::max_retry_wait`].
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// The gateway's part of the configuration.
///
/// ```
/// use bellrope_gateway::{Gateway, GatewaySettings};
///
/// let settings: GatewaySettings = serde_json::from_str(
///     r#"{
///         "provider": "local",
///         "fallback": ["anthropic"],
///         "providers": {
///             "local": {"kind": "openai", "base_url": "http://127.0.0.1:8080"},
///             "anthropic": {"model": "claude-sonnet-4-5", "requests_per_minute": 50}
///         }
///     }"#,
/// )?;
/// let gateway = Gateway::from_settings_and_vars(settings, |_| None)?;
/// assert_eq!(gateway.names(), ["anthropic", "embedded", "local", "openai"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// The name of the provider that answers requests which name none. Default: `embedded`.
    pub provider: String,
    /// Who is asked, in this order, when it cannot answer: before the first piece of an answer, and only for requests that
    /// name no provider. A fallback answers with its own default model. Default: nobody.
    pub fallback: Vec<String>,
    /// How long a provider may ask for a pause after it was asked too often, and get it: the request waits so long at most
    /// and is sent again. One that asks for more fails at once, with the time. In milliseconds as `max_retry_wait_ms`;
    /// default 20,000, at most 3,600,000.
    #[serde(rename = "max_retry_wait_ms", with = "millis")]
    pub max_retry_wait: Duration,
    /// How answers are kept that are to survive their readers.
    pub answers: AnswerSettings,
    /// The scripted provider, which needs no network.
    pub embedded: EmbeddedSettings,
    /// Short for `providers.openai`.
    pub openai: Option<ProviderConfig>,
    /// The providers behind HTTP, by name. `openai` is always there, and so is every preset whose key or address is in
    /// the environment, or that `provider` or `fallback` name.
    pub providers: BTreeMap<String, ProviderConfig>,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            provider: embedded::NAME.to_owned(),
            fallback: Vec::new(),
            max_retry_wait: MAX_RETRY_WAIT,
            answers: AnswerSettings::default(),
            embedded: EmbeddedSettings::default(),
            openai: None,
            providers: BTreeMap::new(),
        }
    }
}

impl Gateway {
    /// A gateway with the embedded provider and those behind HTTP that settings and environment name. Makes no connection.
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
        settings.into_gateway(vars)
    }
}

impl GatewaySettings {
    /// Sets the providers up. Makes no connection.
    fn into_gateway(self, vars: impl Fn(&str) -> Option<String>) -> Result<Gateway, ConfigError> {
        let Self { provider, fallback, max_retry_wait, answers, embedded, openai, mut providers } = self;
        let invalid =
            |key: &'static str, reason: String| ConfigError::Invalid { key: key.into(), reason: reason.into() };
        #[cfg(feature = "http")]
        check_trust(&vars)?;
        if max_retry_wait > LONGEST_WAIT {
            let reason = format!("is {}; set it to at most {}", max_retry_wait.as_millis(), LONGEST_WAIT.as_millis());
            return Err(invalid("gateway.max_retry_wait_ms", reason));
        }
        answers.check()?;
        if openai.is_some_and(|openai| providers.insert(OPENAI.to_owned(), openai).is_some()) {
            let reason = "stands there a second time as gateway.providers.openai; keep one of them";
            return Err(invalid("gateway.openai", reason.to_owned()));
        }
        if providers.contains_key(embedded::NAME) {
            let reason = "is the scripted provider; configure it as gateway.embedded";
            return Err(invalid("gateway.providers.embedded", reason.to_owned()));
        }
        #[cfg(feature = "http")]
        providers.entry(OPENAI.to_owned()).or_default();
        for name in fallback.iter().chain([&provider]).filter(|name| Preset::named(name).is_some()) {
            providers.entry(name.clone()).or_default();
        }
        let script = MadeOf::Script(embedded.clone());
        let embedded = Arc::new(EmbeddedProvider::new(embedded));
        let mut gateway = Gateway::new(Arc::clone(&embedded) as _).with_upstream(Upstream::new(embedded, Some(script)));
        for preset in PRESETS.iter().filter(|preset| preset.is_set_up_by(&vars)) {
            if !providers.contains_key(preset.name) {
                let config = ProviderConfig::default().with_vars(preset.name, &vars);
                match upstream(preset.name, config, max_retry_wait) {
                    Ok(upstream) => gateway = gateway.with_upstream(upstream),
                    // Nobody asked for it: another program's variable must not keep the server from starting.
                    Err(error) => warn!(%error, "{} is left out", preset.title),
                }
            }
        }
        for (name, config) in providers {
            let config = config.with_vars(&name, &vars);
            gateway = gateway.with_upstream(upstream(&name, config, max_retry_wait)?);
        }
        gateway.default = match gateway.upstreams.get(&provider) {
            Some(default) => Arc::clone(default),
            None => return Err(ConfigError::UnknownProvider { name: provider, known: gateway.names().to_vec() }),
        };
        if let Some(name) = fallback.iter().find(|name| !gateway.upstreams.contains_key(*name)) {
            let known = gateway.names().join(", ");
            let reason = format!("names `{}`, and there is no such provider; known: {known}", name.escape_debug());
            return Err(invalid("gateway.fallback", reason));
        }
        gateway.fallback = fallback.into();
        gateway.answers = answers;
        Ok(gateway)
    }
}

/// Refuses a provider behind HTTP.
#[cfg(not(feature = "http"))]
fn upstream(name: &str, _: ProviderConfig, _: Duration) -> Result<Upstream, ConfigError> {
    let reason = "is behind HTTP, and this program was built without the feature `http` of bellrope-gateway";
    Err(ConfigError::Invalid { key: section(name).into(), reason: reason.into() })
}

/// Sets a provider behind HTTP up.
#[cfg(feature = "http")]
fn upstream(name: &str, config: ProviderConfig, max_retry_wait: Duration) -> Result<Upstream, ConfigError> {
    // The provider reads its key file again; if that changed meanwhile the next comparison finds a difference.
    let api_key = config.read_key(name);
    let provider = HttpProvider::waiting(name, config.clone(), max_retry_wait)?;
    let made_of = MadeOf::Config(Box::new(ProviderConfig { api_key: api_key?, ..config }), max_retry_wait);
    Ok(Upstream::new(Arc::new(provider), Some(made_of)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_up(json: &str, vars: &[(&str, &str)]) -> Result<Gateway, String> {
        let settings: GatewaySettings = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let vars = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        settings.into_gateway(vars).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn error(json: &str, vars: &[(&str, &str)]) -> String {
        set_up(json, vars).map(|gateway| gateway.names().to_vec()).unwrap_err()
    }

    #[test]
    fn presets_are_there_when_they_are_named_or_their_variables_are_set() {
        assert_eq!(set_up("{}", &[]).unwrap().names(), ["embedded", "openai"]);
        let vars = [("ANTHROPIC_API_KEY", "sk-a"), ("XAI_API_KEY", "sk-x"), ("GROQ_API_KEY", " ")];
        assert_eq!(set_up("{}", &vars).unwrap().names(), ["anthropic", "embedded", "openai", "xai"]);
        let gateway = set_up(r#"{"provider":"groq","fallback":["ollama","embedded"]}"#, &[]).unwrap();
        assert_eq!(gateway.names(), ["embedded", "groq", "ollama", "openai"]);
        assert_eq!(gateway.default_provider().name(), "groq");
    }

    #[test]
    fn several_instances_of_one_kind_stand_side_by_side() {
        let json = r#"{"provider": "b", "openai": {"model": "m"}, "providers": {
            "a": {"kind": "openai", "base_url": "http://127.0.0.1:1"},
            "b": {"kind": "openai-responses", "base_url": "http://127.0.0.1:2"},
            "c": {"kind": "azure", "base_url": "https://r.openai.azure.com", "api_key": "${C_KEY}"}
        }}"#;
        assert_eq!(set_up(json, &[]).unwrap().names(), ["a", "b", "c", "embedded", "openai"]);
    }

    #[test]
    fn settings_are_checked_once_and_name_the_key() {
        let base = [("OPENAI_BASE_URL", "localhost:8080")];
        assert!(error("{}", &base).starts_with("OPENAI_BASE_URL (gateway.providers.openai.base_url) must start"));
        assert!(error(r#"{"privider":"x"}"#, &[]).contains("unknown field `privider`"));
        let twice = error(r#"{"openai":{},"providers":{"openai":{}}}"#, &[]);
        assert!(twice.starts_with("gateway.openai stands there a second time"), "{twice}");
        let own = error(r#"{"providers":{"embedded":{}}}"#, &[]);
        assert!(own.ends_with("configure it as gateway.embedded"), "{own}");
        let unknown = error(r#"{"fallback":["del\nphi"]}"#, &[]);
        assert_eq!(
            unknown,
            r"gateway.fallback names `del\nphi`, and there is no such provider; known: embedded, openai"
        );
        let unknown = error(r#"{"provider":"delphi"}"#, &[]);
        assert!(unknown.ends_with("no such provider; known: embedded, openai"), "{unknown}");
        let unknown = error(r#"{"provider":"del\u001b[2Jphi"}"#, &[]);
        assert!(unknown.starts_with(r"gateway.provider is `del\u{1b}[2Jphi`"), "{unknown}");
        let kind = error(r#"{"providers":{"x":{"kind":"pigeon"}}}"#, &[]);
        assert!(kind.contains("unknown variant `pigeon`, expected one of `openai`, `openai-responses`"), "{kind}");
    }

    #[test]
    fn another_programs_variable_does_not_keep_the_gateway_from_starting() {
        let vars = [("ANTHROPIC_BASE_URL", "no address")];
        assert_eq!(set_up("{}", &vars).unwrap().names(), ["embedded", "openai"]);
        assert!(error(r#"{"provider":"anthropic"}"#, &vars).starts_with("ANTHROPIC_BASE_URL"));
    }
}
