//! A gateway whose providers can be exchanged while it is used.

use std::sync::{Arc, PoisonError, RwLock};

use super::answers::KeptAnswers;
use super::core::Gateway;

/// The gateway that is used at this moment, shared by all who ask it. Whoever has begun an answer keeps the providers it
/// began with to its end.
///
/// ```
/// use bellrope_gateway::{Gateway, GatewaySettings, LiveGateway};
///
/// let live = LiveGateway::new(Gateway::from_settings(GatewaySettings::default())?);
/// let settings = serde_json::from_str(r#"{"embedded": {"tokens": 3}}"#)?;
/// assert_eq!(live.replace(Gateway::from_settings(settings)?), ["embedded"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LiveGateway {
    current: Arc<RwLock<Arc<Gateway>>>,
    answers: KeptAnswers,
}

impl LiveGateway {
    /// Begins with this one.
    #[must_use]
    pub fn new(gateway: Gateway) -> Self {
        Self::from(Arc::new(gateway))
    }

    /// The one that is used now. To be asked for anew with every request.
    #[must_use]
    pub fn current(&self) -> Arc<Gateway> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Uses another one for every request that begins from now on, and answers with the names of the providers that are
    /// new, gone or set up otherwise, sorted. A provider whose settings are the same in both stays as it is, with its
    /// breaker, its rate limit and its counters.
    pub fn replace(&self, gateway: Gateway) -> Vec<String> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let next = gateway.keeping(&current);
        let differs = |name: &&String| match (current.upstreams.get(*name), next.upstreams.get(*name)) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
            _ => true,
        };
        let mut changed: Vec<_> =
            current.upstreams.keys().chain(next.upstreams.keys()).filter(differs).cloned().collect();
        changed.sort_unstable();
        changed.dedup();
        self.answers.change(next.answers.clone());
        *current = Arc::new(next);
        changed
    }

    /// The answers that are kept for readers that were lost. They outlive an exchange of providers.
    #[must_use]
    pub fn answers(&self) -> &KeptAnswers {
        &self.answers
    }
}

impl From<Arc<Gateway>> for LiveGateway {
    fn from(gateway: Arc<Gateway>) -> Self {
        let answers = KeptAnswers::new(gateway.answers.clone());
        Self { current: Arc::new(RwLock::new(gateway)), answers }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::GatewaySettings;
    use crate::message::{ChatRequest, Chunk};

    fn gateway(json: &str, vars: &[(&str, &str)]) -> Gateway {
        let settings: GatewaySettings = serde_json::from_str(json).unwrap();
        let var = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Gateway::from_settings_and_vars(settings, var).unwrap()
    }

    #[tokio::test]
    async fn an_answer_that_has_begun_ends_as_it_began_and_the_next_one_is_the_new_providers() {
        let live = LiveGateway::new(gateway(r#"{"embedded": {"tokens": 5}}"#, &[]));
        let mut begun = live.current().chat_stream(ChatRequest::user("Hello"));
        assert!(matches!(begun.next().await.unwrap().chunk, Chunk::Text { .. }));
        assert_eq!(live.replace(gateway(r#"{"embedded": {"tokens": 2}}"#, &[])), ["embedded"]);
        let tokens = |chunks: Vec<Chunk>| chunks.iter().filter(|chunk| matches!(chunk, Chunk::Text { .. })).count();
        let rest: Vec<_> = begun.map(|piece| piece.chunk).collect().await;
        assert_eq!((tokens(rest.clone()), rest.last().unwrap().is_terminal()), (4, true));
        let next = live.current().chat_stream(ChatRequest::user("Hello"));
        assert_eq!(tokens(next.map(|piece| piece.chunk).collect().await), 2);
    }

    #[tokio::test]
    async fn a_provider_whose_settings_are_the_same_keeps_its_counters_and_others_begin_anew() {
        const BOTH: &str = r#"{"provider": "a", "fallback": ["embedded"], "providers": {
            "a": {"kind": "openai", "base_url": "http://127.0.0.1:1", "max_retries": 0, "api_key": "${A_KEY}"}}}"#;
        let live = LiveGateway::new(gateway(BOTH, &[("A_KEY", "one")]));
        live.current().chat(ChatRequest::user("Hello")).await.unwrap();
        let asked = || {
            let snapshot = live.current().snapshot();
            snapshot.providers.into_iter().map(|row| (row.provider, row.requests)).collect::<Vec<_>>()
        };
        let rows = |a, embedded| vec![("a".to_owned(), a), ("embedded".to_owned(), embedded), ("openai".to_owned(), 0)];
        assert_eq!(asked(), rows(1, 1));
        assert!(live.replace(gateway(BOTH, &[("A_KEY", "one")])).is_empty());
        assert_eq!(asked(), rows(1, 1));
        // The same text in the file, another key in the variable.
        assert_eq!(live.replace(gateway(BOTH, &[("A_KEY", "two")])), ["a"]);
        assert_eq!(asked(), rows(0, 1));
        assert_eq!(live.current().default_provider().name(), "a");
        assert_eq!(live.replace(gateway("{}", &[])), ["a"]);
        assert_eq!(live.current().default_provider().name(), "embedded");
    }

    #[test]
    fn a_key_file_that_holds_another_key_sets_its_provider_up_anew() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sk-one").unwrap();
        let json = serde_json::json!({ "openai": { "api_key_file": file.path() } }).to_string();
        let live = LiveGateway::new(gateway(&json, &[]));
        assert!(live.replace(gateway(&json, &[])).is_empty());
        std::fs::write(file.path(), "sk-two").unwrap();
        assert_eq!(live.replace(gateway(&json, &[])), ["openai"]);
    }
}
