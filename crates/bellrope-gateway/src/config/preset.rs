//! The providers that are known by name.

use crate::providers::formats::ProviderKind;

/// A provider that is known by name.
#[derive(Debug)]
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    /// The name as people write it.
    pub(crate) title: &'static str,
    pub(crate) kind: ProviderKind,
    /// The API's address; empty where each user has one of its own.
    pub(crate) base_url: &'static str,
    /// Whether that address wants a key.
    pub(crate) needs_key: bool,
    pub(crate) base_url_var: &'static str,
    pub(crate) key_var: &'static str,
    pub(crate) model_var: &'static str,
    /// The variable that holds the version of the API, where there are several.
    pub(crate) version_var: Option<&'static str>,
    /// Whether a variable of its own is enough to make it known to the gateway.
    pub(crate) by_vars: bool,
}

/// A row of [`PRESETS`], whose variables begin with `$prefix`.
macro_rules! preset {
    ($name:literal, $title:literal, $kind:ident, $base_url:literal, $needs_key:literal, $prefix:literal) => {
        Preset {
            name: $name,
            title: $title,
            kind: ProviderKind::$kind,
            base_url: $base_url,
            needs_key: $needs_key,
            base_url_var: concat!($prefix, "_BASE_URL"),
            key_var: concat!($prefix, "_API_KEY"),
            model_var: concat!($prefix, "_MODEL"),
            version_var: None,
            by_vars: true,
        }
    };
}

/// All presets.
pub(crate) const PRESETS: &[Preset] = &[
    preset!("openai", "OpenAI", OpenAi, "https://api.openai.com/v1", true, "OPENAI"),
    Preset {
        // The variables are those of `openai`, which they make known already.
        by_vars: false,
        ..preset!("openai-responses", "OpenAI", OpenAiResponses, "https://api.openai.com/v1", true, "OPENAI")
    },
    preset!("anthropic", "Anthropic", Anthropic, "https://api.anthropic.com", true, "ANTHROPIC"),
    Preset {
        base_url_var: "AZURE_OPENAI_ENDPOINT",
        model_var: "AZURE_OPENAI_DEPLOYMENT",
        version_var: Some("OPENAI_API_VERSION"),
        ..preset!("azure", "Azure", Azure, "", true, "AZURE_OPENAI")
    },
    preset!("openrouter", "OpenRouter", OpenAi, "https://openrouter.ai/api/v1", true, "OPENROUTER"),
    preset!("xai", "xAI", OpenAi, "https://api.x.ai/v1", true, "XAI"),
    preset!("groq", "Groq", OpenAi, "https://api.groq.com/openai/v1", true, "GROQ"),
    preset!("mistral", "Mistral", OpenAi, "https://api.mistral.ai/v1", true, "MISTRAL"),
    preset!("deepseek", "DeepSeek", OpenAi, "https://api.deepseek.com/v1", true, "DEEPSEEK"),
    preset!("ollama", "Ollama", OpenAi, "http://127.0.0.1:11434/v1", false, "OLLAMA"),
    preset!("llamacpp", "llama.cpp", OpenAi, "http://127.0.0.1:8080/v1", false, "LLAMACPP"),
    preset!("vllm", "vLLM", OpenAi, "http://127.0.0.1:8000/v1", false, "VLLM"),
];

impl Preset {
    /// The preset of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// The preset of a kind's inventor, whose address and rules a provider without one takes. It has the kind's name.
    pub(crate) fn of_inventor(kind: ProviderKind) -> Option<&'static Self> {
        Self::named(kind.name())
    }

    /// Whether a variable says that this provider is wanted.
    pub(crate) fn is_set_up_by(&self, vars: &impl Fn(&str) -> Option<String>) -> bool {
        let is_set = |name: &str| vars(name).is_some_and(|value| !value.trim().is_empty());
        // Everybody's own address is needed where there is no other.
        let has_address = !self.base_url.is_empty() || is_set(self.base_url_var);
        self.by_vars && has_address && (is_set(self.key_var) || is_set(self.base_url_var))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_inventors_preset() {
        for kind in ProviderKind::ALL {
            assert_eq!(Preset::of_inventor(kind).unwrap().kind, kind);
        }
    }

    #[test]
    fn a_key_or_an_address_makes_a_provider_known() {
        let set_up = |preset: &str, set: &[&str]| {
            Preset::named(preset).unwrap().is_set_up_by(&|name| set.contains(&name).then(|| "x".into()))
        };
        assert!(set_up("anthropic", &["ANTHROPIC_API_KEY"]) && set_up("ollama", &["OLLAMA_BASE_URL"]));
        assert!(!set_up("anthropic", &["OPENAI_API_KEY"]) && !set_up("openai-responses", &["OPENAI_API_KEY"]));
        assert!(!set_up("azure", &["AZURE_OPENAI_API_KEY"]));
        assert!(set_up("azure", &["AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT"]));
    }
}
