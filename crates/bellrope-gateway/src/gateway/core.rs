//! The providers by name, and the promises that hold for all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bellrope::breaker::Breaker;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use super::answer_stream::{AnswerStream, log};
use super::answers::AnswerSettings;
use super::notices::Notices;
use super::origins::{NOTE, Origins};
use super::route::{Accounts, Route, forget};
use super::stats::GatewaySnapshot;
use super::thoughts::{CallLead, Thinking, Thoughts};
use super::upstream::{MAX_NOTICES, Upstream};
use crate::account::{Books, Opened};
use crate::apart::{LONG, apart, no_thread};
use crate::config::{PassThrough, Preset};
use crate::error::{Excerpt, Phase, ProviderError};
use crate::inbound::{DEFAULT_MODEL, estimate_tokens_of, weigh_tokens};
use crate::message::{
    ChatRequest, ChatResponse, CompletionRequest, HealthReport, ModelInfo, ModelList, Part, ProviderFault, WIRE_VERSION,
};
use crate::provider::{EmbeddingRequest, Provider};

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope_gateway::gateway";

/// The provider that answers where nothing is set up.
const EMBEDDED: &str = "embedded";

/// How often a request may be sent on from model to model, because of budgets.
const MAX_MOVES: usize = 4;

/// How long a provider may take to list its models. Tools that let a model be chosen wait for the whole list, and not for long.
const LIST_TIMEOUT: Duration = Duration::from_secs(4);

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
    pub(super) upstreams: BTreeMap<String, Arc<Upstream>>,
    /// Theirs, sorted.
    names: Arc<[String]>,
    /// One of `upstreams`.
    pub(super) default: Arc<Upstream>,
    /// Names of `upstreams`, in the order in which they are asked.
    pub(super) fallback: Arc<[String]>,
    /// How answers are kept.
    pub(super) answers: AnswerSettings,
    /// Who keeps the books, if anybody does.
    pub(super) books: Option<Arc<dyn Books>>,
    origins: Origins,
    /// What models thought, if a provider wants it back.
    thoughts: Option<Thoughts>,
}

impl Gateway {
    /// A gateway with one provider, which is the default one.
    pub fn new(default: Arc<dyn Provider>) -> Self {
        let name = default.name().to_owned();
        let default = Arc::new(Upstream::new(default, None));
        let names = Arc::new([name.clone()]);
        let (upstreams, answers) = (BTreeMap::from([(name, Arc::clone(&default))]), AnswerSettings::default());
        let (fallback, origins) = (Arc::new([]), Origins::default());
        Self { upstreams, names, default, fallback, answers, books: None, origins, thoughts: None }.remembering()
    }

    /// This gateway with one more provider, in the place of another of its name. Its counters, its breaker and its rate
    /// limit begin anew.
    #[must_use]
    pub fn with_provider(self, provider: Arc<dyn Provider>) -> Self {
        self.with_upstream(Upstream::new(provider, None))
    }

    /// This gateway with other settings of the answers that it keeps.
    #[must_use]
    pub fn with_answers(mut self, answers: AnswerSettings) -> Self {
        self.answers = answers;
        self
    }

    /// This gateway with somebody who keeps the books of what it is asked.
    #[must_use]
    pub fn with_books(self, books: Arc<dyn Books>) -> Self {
        Self { books: Some(books), ..self }
    }

    /// Whether somebody keeps the books, who wants to know who asks.
    pub(crate) fn keeps_books(&self) -> bool {
        self.books.is_some()
    }

    pub(super) fn with_upstream(mut self, upstream: Upstream) -> Self {
        let (name, upstream) = (upstream.provider.name().to_owned(), Arc::new(upstream));
        if name == self.default.provider.name() {
            self.default = Arc::clone(&upstream);
        }
        self.upstreams.insert(name, upstream);
        self.names = self.upstreams.keys().cloned().collect();
        self.remembering()
    }

    /// This gateway with room for thoughts, if a provider wants any.
    fn remembering(mut self) -> Self {
        if self.thoughts.is_none() && self.upstreams.values().any(|upstream| upstream.provider.wants_thoughts()) {
            self.thoughts = Some(Thoughts::default());
        }
        self
    }

    /// This gateway with the upstreams of another one that were made of the same settings, and with its books unless it has
    /// some.
    pub(super) fn keeping(mut self, other: &Self) -> Self {
        self.books = self.books.or_else(|| other.books.clone());
        self.origins = other.origins.clone();
        if self.thoughts.is_some() && other.thoughts.is_some() {
            self.thoughts.clone_from(&other.thoughts);
        }
        for (name, upstream) in &mut self.upstreams {
            if let Some(kept) = other.upstreams.get(name).filter(|kept| kept.is_made_like(upstream)) {
                if Arc::ptr_eq(&self.default, upstream) {
                    self.default = Arc::clone(kept);
                }
                *upstream = Arc::clone(kept);
            }
        }
        self
    }

    /// The names of the providers, sorted.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The provider that answers requests which name none.
    pub fn default_provider(&self) -> &dyn Provider {
        &*self.default.provider
    }

    /// The provider whose own model is meant, if this name is `default` or that of a provider, and it has a model of its own.
    pub fn stands_for(&self, name: &str) -> Option<&str> {
        let meant = if name == DEFAULT_MODEL { Some(&self.default) } else { self.upstreams.get(name) };
        let provider = &meant?.provider;
        provider.capabilities().default_model.map(|_| provider.name())
    }

    /// The models that requests go to which name none, or a provider alone: each provider with its own.
    pub fn own_models(&self) -> Vec<(String, String)> {
        let default = self.default.provider.name();
        // What is answered by this program costs nobody anything.
        let others = self.names.iter().map(String::as_str).filter(|name| *name != default && *name != EMBEDDED);
        let own =
            |name: &str| Some((name.to_owned(), self.upstreams.get(name)?.provider.capabilities().default_model?));
        std::iter::once(default).chain(others).filter_map(own).collect()
    }

    /// What has to be set before the provider of this name can answer anything, such as its key.
    pub fn missing(&self, name: &str) -> Option<ProviderError> {
        self.upstreams.get(name)?.provider.missing()
    }

    /// What becomes of requests whose format the provider of this name speaks itself. `None`: there is none, or it speaks no
    /// format.
    pub fn pass_through(&self, name: &str) -> Option<PassThrough> {
        self.upstreams.get(name)?.provider.pass_through()
    }

    /// The providers' circuit breakers, by the providers' names: to be shown and to be steered.
    pub fn breakers(&self) -> impl Iterator<Item = (&str, &Arc<Breaker>)> {
        self.upstreams.iter().filter_map(|(name, upstream)| Some((&**name, upstream.breaker.as_ref()?)))
    }

    /// Ends the waits before requests are sent again, as the server is about to stop: they fail with the reason of the
    /// wait. Answers that have begun go on.
    pub fn begin_drain(&self) {
        self.upstreams.values().for_each(|upstream| upstream.provider.begin_drain());
    }

    /// What all providers did since the gateway was set up.
    pub fn snapshot(&self) -> GatewaySnapshot {
        GatewaySnapshot { providers: self.upstreams.values().map(|upstream| upstream.snapshot()).collect() }
    }

    /// Begins an answer: `ai.chat_stream`.
    pub fn chat_stream(&self, mut request: ChatRequest) -> AnswerStream {
        forget_if_tried(&mut request);
        let route = self.enter(&mut request);
        self.fit_to(&route, &mut request);
        let notes = std::mem::take(&mut request.notes);
        let (notices, heard) = mpsc::channel(MAX_NOTICES);
        let thinking = self.thoughts.clone().map(|thoughts| Thinking::new(thoughts, &request));
        let keeps_books = request.asker.keeps_books;
        let begun = Box::pin(async move { route?.begin(request, &notices).await });
        AnswerStream::new(begun, heard, notes, (self.origins.clone(), thinking)).for_books(keeps_books)
    }

    /// A whole answer: `ai.chat`.
    ///
    /// # Errors
    /// The request cannot be answered, or the answer broke off.
    pub async fn chat(&self, mut request: ChatRequest) -> Result<ChatResponse, ProviderError> {
        forget_if_tried(&mut request);
        let route = self.enter(&mut request);
        self.fit_to(&route, &mut request);
        let mut notices = Notices::new(std::mem::take(&mut request.notes));
        let thinks = self.thoughts.as_ref().map(|thoughts| (thoughts, thoughts.asked(&request)));
        let answer = match route {
            Ok(route) => route.whole(request).await,
            Err(error) => Err(error),
        };
        let (mut response, provider) = answer.inspect_err(log)?;
        for part in &response.reasoning_parts {
            if let Part::Reasoning { details: Some(details), .. } = part {
                self.origins.remember(details, &provider);
            }
        }
        let wants_thoughts = self.upstreams.get(&provider).is_some_and(|upstream| upstream.provider.wants_thoughts());
        for (thoughts, asked) in thinks.iter().filter(|_| wants_thoughts) {
            let whole = Part::Reasoning { text: response.reasoning.clone(), details: None };
            let parts: Arc<[Part]> = match &response.reasoning_parts[..] {
                [] if response.reasoning.is_empty() => Arc::default(),
                [] => [whole].into(),
                parts => parts.into(),
            };
            for call in &response.tool_calls {
                let thought = CallLead { parts: Arc::clone(&parts), extra: call.extra_content.clone() };
                thoughts.remember(asked, &provider, &call.id, thought);
            }
        }
        notices.extend(std::mem::take(&mut response.notes));
        response.notes = notices.into_vec();
        Ok(response)
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

    /// The vectors of texts: JSON as OpenAI's embeddings have it. No fallback is asked: another model's vectors mean
    /// something else.
    ///
    /// # Errors
    /// The request cannot be answered.
    pub async fn embed(&self, mut request: EmbeddingRequest) -> Result<Vec<u8>, ProviderError> {
        let upstream = self.upstream_of(request.provider.as_deref())?;
        let mut account = None;
        if let Some(books) = self.books.as_ref().filter(|_| !request.asker.is_booked) {
            let is_large = request.fields.len() > LONG;
            let weigh = move || (estimate_tokens_of(request.fields.as_bytes()), request);
            let (tokens, weighed) = if is_large { apart(weigh).await.map_err(no_thread)? } else { weigh() };
            account = Some(upstream.open_vectors(books, &weighed, tokens).inspect_err(log)?);
            request = weighed;
        }
        upstream.embed(request, account).await.inspect_err(log)
    }

    /// How many tokens the provider of a request counts in it. `None` if it cannot say, or does not: that counts against
    /// nobody.
    ///
    /// # Errors
    /// The request cannot go to any provider.
    pub async fn count_tokens(&self, request: ChatRequest) -> Result<Option<u64>, ProviderError> {
        let upstream = self.upstream_of(request.provider.as_deref())?;
        let counted = upstream.provider.count_tokens(request).await;
        Ok(counted.inspect_err(|error| debug!(target: TARGET, %error, "tokens were not counted")).ok().flatten())
    }

    /// The models of all providers, asked at the same time: `ai.models`. Of one that cannot list its models there is the one that is
    /// set for it, which may well answer.
    pub async fn models(&self) -> ModelList {
        let asked = self.upstreams.values().map(|upstream| async {
            let list = timeout(LIST_TIMEOUT, upstream.provider.models()).await;
            let late = |_| Err(ProviderError::TimedOut { phase: Phase::FirstByte, after: LIST_TIMEOUT });
            (&upstream.provider, list.unwrap_or_else(late))
        });
        let mut list = ModelList { version: WIRE_VERSION, models: Vec::new(), faults: Vec::new() };
        for (provider, answer) in join_all(asked).await {
            let name = || provider.name().to_owned();
            match answer {
                Ok(models) => list.models.extend(models),
                Err(error) => {
                    // Whoever asks others knows none by itself.
                    let set = provider.missing().is_none() && !provider.asks_others();
                    let set = set.then(|| provider.capabilities().default_model).flatten();
                    list.models.extend(set.map(|id| ModelInfo { id, provider: name(), owner: None }));
                    list.faults.push(ProviderFault { provider: name(), error: error.info() });
                }
            }
        }
        list
    }

    /// How all providers are, asked at the same time: `ai.health`.
    pub async fn health(&self) -> HealthReport {
        HealthReport {
            version: WIRE_VERSION,
            default_provider: self.default.provider.name().to_owned(),
            providers: join_all(self.upstreams.values().map(|upstream| upstream.health())).await,
        }
    }

    /// The way of a request, with its account where books are kept. It may lead to another model than it names, which its
    /// notes say.
    fn enter(&self, request: &mut ChatRequest) -> Result<Route, ProviderError> {
        request.notes.extend(self.model_name_notice(request.provider.as_deref(), request.model.as_deref()));
        if let Some(seed @ (i64::MIN | i64::MAX)) = request.seed {
            request.notes.push(format!("`seed` is sent as {seed}: no number is further from 0"));
        }
        if let Some(most @ u32::MAX) = request.max_tokens {
            request.notes.push(format!("`max_tokens` is sent as {most}: no number is larger"));
        }
        let mut upstreams = self.upstreams_for(request)?;
        let Some(books) = self.books.as_ref().filter(|_| !request.asker.is_booked) else {
            return Ok(Route { upstreams, accounts: None });
        };
        let input_tokens = request.from_tool.tokens.unwrap_or_else(|| weigh_tokens(request));
        for _ in 0..MAX_MOVES {
            let first = upstreams.first().unwrap_or(&self.default);
            match first.open(books, request, input_tokens)? {
                Opened::Here { account, max_tokens, notices, .. } => {
                    request.max_tokens = max_tokens.or(request.max_tokens);
                    request.notes.extend(notices);
                    let books = Arc::clone(books);
                    return Ok(Route { upstreams, accounts: Some(Accounts { books, first: account, input_tokens }) });
                }
                Opened::Elsewhere { model, notice } => {
                    let (provider, model) = match model.split_once('/') {
                        // Whoever answers there knows that name.
                        Some((provider, _))
                            if first.provider.asks_others() && !self.upstreams.contains_key(provider) =>
                        {
                            (first.provider.name().to_owned(), model)
                        }
                        Some((provider, model)) => {
                            self.upstream_of(Some(provider))?;
                            (provider.to_owned(), model.to_owned())
                        }
                        None => (first.provider.name().to_owned(), model),
                    };
                    if provider != first.provider.name() {
                        forget(request);
                    }
                    let to = self.upstream_of(Some(&*provider))?;
                    if request.prompt.is_some() && !to.provider.continues_prompts() {
                        return Err(super::upstream::cannot_move(&format!("{notice}, and that continues no prompt")));
                    }
                    (request.provider, request.model) = (Some(provider), Some(model));
                    request.notes.push(notice);
                    upstreams = self.upstreams_for(request)?;
                }
            }
        }
        let reason = format!("budgets send the request on from model to model, over {MAX_MOVES} times");
        Err(ProviderError::InvalidRequest { reason: Excerpt::new(&reason) })
    }

    /// The providers that a request may go to, once it is known to be one we understand.
    fn upstreams_for(&self, request: &ChatRequest) -> Result<Vec<Arc<Upstream>>, ProviderError> {
        if request.version > WIRE_VERSION {
            return Err(ProviderError::UnsupportedVersion { asked: request.version, known: WIRE_VERSION });
        }
        if request.messages.is_empty() {
            return Err(ProviderError::InvalidRequest { reason: "the request has no messages".into() });
        }
        if let Some(n) = request.n.filter(|n| *n > 1) {
            let reason = format!("n is {n}, and one answer is made at a time; leave it out, or ask {n} times");
            return Err(ProviderError::InvalidRequest { reason: Excerpt::new(&reason) });
        }
        let mut upstreams = self.providers_for(request.provider.as_deref())?;
        upstreams.drain(..request.from_tool.tried.min(upstreams.len()));
        Ok(upstreams)
    }

    /// Takes out of a request what means nothing to the provider whose turn it is, and puts in what it wants back.
    fn fit_to(&self, route: &Result<Route, ProviderError>, request: &mut ChatRequest) {
        let first = route.iter().flat_map(|route| &route.upstreams).next();
        let Some(first) = first else { return };
        let name = first.provider.name();
        if let Some(thoughts) = self.thoughts.as_ref().filter(|_| first.provider.wants_thoughts()) {
            thoughts.restore(request, name);
        }
        if self.origins.untie(request, name) {
            request.notes.push(NOTE.to_owned());
        }
        self.origins.restore(request, name);
    }

    /// The providers that a request for this one may go to, in order.
    pub(super) fn providers_for(&self, name: Option<&str>) -> Result<Vec<Arc<Upstream>>, ProviderError> {
        if name.is_some() {
            return self.upstream_of(name).map(|upstream| vec![upstream]);
        }
        let mut route = vec![Arc::clone(&self.default)];
        for upstream in self.fallback.iter().filter_map(|name| self.upstreams.get(name)) {
            if !route.iter().any(|earlier| Arc::ptr_eq(earlier, upstream)) {
                route.push(Arc::clone(upstream));
            }
        }
        Ok(route)
    }

    /// The provider of this name, or the default one.
    fn upstream_of(&self, name: Option<&str>) -> Result<Arc<Upstream>, ProviderError> {
        let Some(name) = name else { return Ok(Arc::clone(&self.default)) };
        self.upstreams.get(name).map(Arc::clone).ok_or_else(|| self.unknown(name))
    }

    /// What is to be said beside the answer of a model's name that looks as if it began with a provider's: all of it goes to
    /// the default provider, as the names of many servers' models have slashes. `None` where that is one of those servers. And of
    /// any name that the script answers in the place of a model.
    pub fn model_name_notice(&self, provider: Option<&str>, model: Option<&str>) -> Option<String> {
        let default = &self.default.provider;
        let model = model.filter(|_| provider.is_none() && default.has_plain_names())?;
        let Some((head, _)) = model.split_once('/') else {
            let is_scripts = default.name() == EMBEDDED && model != EMBEDDED;
            let model = Excerpt::new(model);
            return is_scripts.then(|| {
                format!(
                    "the model `{model}` is not here: the server has no provider, and its script `{EMBEDDED}` answers"
                )
            });
        };
        let head = Excerpt::new(head);
        let why = match self.upstreams.contains_key(head.as_str()) {
            true => format!("as `provider` names none, not even `{head}`"),
            false => format!("there is no provider `{head}` here (known: {})", self.names().join(", ")),
        };
        Some(format!("the model `{}` was asked for at `{}`: {why}", Excerpt::new(model), default.name()))
    }

    fn unknown(&self, name: &str) -> ProviderError {
        match Preset::named(name) {
            Some(preset) => ProviderError::NotConfigured {
                missing: format!("{} is not set up", preset.title).into(),
                fix: format!("set {} or {} where the server starts", preset.key_var, preset.base_url_var).into(),
            },
            None => ProviderError::UnknownProvider { name: Excerpt::new(name), known: self.names().to_vec() },
        }
    }
}

/// Makes a request that another provider has failed to answer one for the next.
fn forget_if_tried(request: &mut ChatRequest) {
    if request.from_tool.tried > 0 {
        forget(request);
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = self.default.provider.name();
        f.debug_struct("Gateway").field("providers", &self.names()).field("default", &default).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::GatewaySettings;
    use crate::account::{Intent, Outcome, Verdict};
    use crate::error::ConfigError;
    use crate::json;
    use crate::message::{Chunk, ErrorInfo, ProviderHealth, SequencedChunk, StopReason};
    use crate::provider::{BoxFuture, Capabilities, ProviderStream};
    use crate::providers::embedded::{EmbeddedProvider, EmbeddedSettings};

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

    /// One that is asleep.
    struct Asleep;

    impl Provider for Asleep {
        fn name(&self) -> &str {
            "asleep"
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities { default_model: Some("usual".to_owned()), ..Capabilities::default() }
        }

        fn chat_stream(&self, _: ChatRequest) -> ProviderStream {
            Box::pin(futures_util::stream::pending())
        }

        fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, ProviderError>> {
            Box::pin(std::future::pending())
        }

        fn health(&self) -> BoxFuture<'_, ProviderHealth> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_does_not_list_its_models_costs_no_other_its_own() {
        let gateway = scripted(Vec::new()).with_provider(Arc::new(Asleep));
        let list = gateway.models().await;
        let providers: Vec<_> = list.models.iter().map(|model| &*model.provider).collect();
        assert_eq!(providers, ["asleep", EMBEDDED]);
        let [ProviderFault { provider, error }] = &list.faults[..] else { panic!("{list:?}") };
        assert_eq!((&**provider, &*error.code), ("asleep", "timeout"));
    }

    #[tokio::test]
    async fn a_seed_that_is_too_large_for_the_wire_is_said_to_be_sent_as_another() {
        let gateway = without_env(GatewaySettings::default()).unwrap();
        for (written, expected) in [("123456789012345678901234567890", 1), ("18446744073709551615", 1), ("7", 0)] {
            let body = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}],"seed":{written}}}"#);
            let format = crate::inbound::ToolFormat::ChatCompletions;
            let asked = format.read(body.as_bytes(), gateway.names()).unwrap();
            let notes = gateway.chat(asked.chat).await.unwrap().notes;
            assert_eq!(notes.iter().filter(|note| note.contains("seed")).count(), expected, "{written}: {notes:?}");
        }
    }

    #[tokio::test]
    async fn what_is_too_large_or_empty_is_said_or_stands_for_nothing() {
        let gateway = without_env(GatewaySettings::default()).unwrap();
        let asks = async |fields: &str| {
            let json = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{fields}}}"#);
            gateway.chat(json::from_str(&json).unwrap()).await.unwrap()
        };
        let notes = asks(r#","max_tokens":99999999999"#).await.notes;
        assert_eq!(notes, ["`max_tokens` is sent as 4294967295: no number is larger"]);
        let usual = asks("").await;
        for fields in [r#","model":"""#, r#","model":" ","provider":"""#, r#","model":null,"provider":null"#] {
            let answer = asks(fields).await;
            assert_eq!((&answer.model, &answer.notes), (&usual.model, &usual.notes), "{fields}");
        }
    }

    /// Books with nothing left for anything but another provider's model.
    #[derive(Debug)]
    struct Spent;

    impl Books for Spent {
        fn admit(&self, _: &Intent<'_>) -> Result<Verdict, ProviderError> {
            let notice = "asked two/m instead: of the budget `b` nothing is left".to_owned();
            Ok(Verdict::Instead { model: "two/m".to_owned(), notice })
        }

        fn settle(&self, _: u64, _: Outcome, _: &crate::account::Spent) {}

        fn withdraw(&self, _: u64) {}
    }

    #[tokio::test]
    async fn a_prompt_whose_budget_is_spent_hears_that_where_the_other_model_continues_none() {
        let config = crate::ProviderConfig {
            base_url: "http://127.0.0.1:9".to_owned(),
            kind: Some(crate::ProviderKind::Anthropic),
            ..crate::ProviderConfig::default()
        };
        let two = Arc::new(crate::HttpProvider::named("two", config).unwrap());
        let gateway = scripted(Vec::new()).with_provider(two).with_books(Arc::new(Spent));
        let prompt = crate::message::Prompt { text: "fn a(".to_owned(), suffix: None };
        let request = ChatRequest { prompt: Some(prompt), ..ChatRequest::user("fn a(") };
        let error = gateway.chat(request).await.unwrap_err();
        assert_eq!(error.code(), "budget_exceeded", "{error}");
        assert!(
            error.to_string().contains("of the budget `b` nothing is left, and that continues no prompt"),
            "{error}"
        );
    }

    // Fault 75.
    #[tokio::test]
    async fn notes_of_request_and_provider_are_told_once_each_bounded_and_before_what_follows_them() {
        let notice = |text: String| Chunk::Notice { text };
        let done = Chunk::Done { stop_reason: StopReason::EndTurn };
        let mut script = vec![notice("same".into()), Chunk::text("a")];
        script.extend((0..100).map(|number| notice(number.to_string())));
        script.push(done.clone());
        let gateway = scripted(script);
        let request = ChatRequest { notes: vec!["first".into(), "same".into()], ..ChatRequest::user("hi") };
        let pieces: Vec<_> = answer(&gateway, request.clone()).await.into_iter().map(|piece| piece.chunk).collect();
        let begin = [notice("first".into()), notice("same".into()), Chunk::text("a"), notice("0".into())];
        assert_eq!((&pieces[..4], pieces.last()), (&begin[..], Some(&done)));
        assert_eq!(pieces.len(), crate::MAX_NOTES + 2);
        let whole = gateway.chat(request).await.unwrap();
        assert_eq!((whole.notes.len(), &*whole.notes[0], &*whole.notes[1]), (crate::MAX_NOTES, "first", "same"));
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
        let request = ChatRequest { provider: Some("groq".into()), ..ChatRequest::user("hi") };
        let error = gateway.chat(request).await.unwrap_err().to_string();
        assert_eq!(error, "Groq is not set up; set GROQ_API_KEY or GROQ_BASE_URL where the server starts");
    }

    #[tokio::test]
    async fn a_models_name_that_begins_with_no_known_provider_goes_on_whole_and_that_is_said() {
        let gateway = without_env(GatewaySettings::default()).unwrap();
        let named = |provider: Option<&str>, model: &str| ChatRequest {
            provider: provider.map(str::to_owned),
            model: Some(model.to_owned()),
            ..ChatRequest::user("hi")
        };
        let answer = gateway.chat(named(None, "delphi/m/1")).await.unwrap();
        let note = "the model `delphi/m/1` was asked for at `embedded`: there is no provider `delphi` here (known: embedded, openai)";
        assert_eq!(answer.notes, [note]);
        let pieces = self::answer(&gateway, named(None, "openai/m")).await;
        let note = "the model `openai/m` was asked for at `embedded`: as `provider` names none, not even `openai`";
        assert_eq!(pieces[0].chunk, Chunk::Notice { text: note.to_owned() });
        // The script is no model of anybody's.
        let note = "the model `gpt-5` is not here: the server has no provider, and its script `embedded` answers";
        assert_eq!(gateway.chat(named(None, "gpt-5")).await.unwrap().notes, [note]);
        for request in [named(None, "embedded"), named(Some("embedded"), "delphi/m"), ChatRequest::user("hi")] {
            assert!(gateway.chat(request).await.unwrap().notes.is_empty());
        }
    }

    #[test]
    fn a_slash_is_nothing_to_speak_of_where_models_are_called_so() {
        let speaks = |name: &str, base_url: &str| {
            let config = crate::ProviderConfig {
                base_url: base_url.to_owned(),
                api_key: Some(crate::Secret::new("k")),
                kind: Some(crate::ProviderKind::OpenAi),
                ..crate::ProviderConfig::default()
            };
            let gateway = Gateway::new(Arc::new(crate::HttpProvider::named(name, config).unwrap()));
            gateway.model_name_notice(None, Some("meta/llama")).is_some()
        };
        assert!(speaks("openai", "") && speaks("mistral", ""));
        for name in ["openrouter", "groq", "ollama", "vllm", "llamacpp"] {
            assert!(!speaks(name, ""), "{name}");
        }
        assert!(!speaks("openai", "http://127.0.0.1:9/v1") && !speaks("mine", "http://127.0.0.1:9/v1"));
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
        assert_eq!(gateway.missing("openai").unwrap().to_string(), "OpenAI needs a key; set OPENAI_API_KEY");
        assert!(gateway.missing("embedded").is_none());
        let list = gateway.models().await;
        assert_eq!(list.models.len(), 1);
        assert_eq!(list.faults[0].error.message, "OpenAI needs a key; set OPENAI_API_KEY");
        let health = gateway.health().await;
        let healthy: Vec<_> = health.providers.iter().map(|p| (p.provider.as_str(), p.healthy)).collect();
        assert_eq!(healthy, [("embedded", true), ("openai", false)]);
    }
}
