//! One provider with what guards and counts it, and the order in which providers are asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellrope::breaker::{Breaker, BreakerSetting, BreakerState, Permit, Rejected};
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::warn;

use super::stats::{ProviderSnapshot, Stats};
use crate::account::{Account, Books, Intent, Opened};
use crate::bucket::Bucket;
use crate::config::{ProviderConfig, section};
use crate::error::ProviderError;
use crate::message::{ChatRequest, ChatResponse, Chunk, Content, Part, ProviderHealth, StopReason, Usage};
use crate::provider::{BoxFuture, ChunkStream, EmbeddingRequest, Provider, ProviderLimits};
use crate::providers::embedded::EmbeddedSettings;

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope_gateway::gateway::lane";

/// A provider, its guards and its counters.
pub(super) struct Upstream {
    pub(super) provider: Arc<dyn Provider>,
    requests_per_minute: u32,
    pub(super) breaker: Option<Arc<Breaker>>,
    bucket: Option<Bucket>,
    stats: Stats,
    /// `None` for one that somebody handed in ready made.
    made_of: Option<MadeOf>,
}

/// What a provider was set up from. Equal settings make equal providers.
#[derive(PartialEq)]
pub(super) enum MadeOf {
    Script(EmbeddedSettings),
    /// With the key that was found, wherever it stood.
    /// And how long it may ask for a pause.
    Config(Box<ProviderConfig>, Duration),
}

/// The providers that a request may go to, in order. At least one.
pub(super) struct Route {
    pub(super) upstreams: Vec<Arc<Upstream>>,
    /// Who keeps the books, if anybody does, and the request in them as the first of these is asked.
    pub(super) accounts: Option<Accounts>,
}

/// The books of a route.
pub(super) struct Accounts {
    pub(super) books: Arc<dyn Books>,
    pub(super) first: Account,
    /// About how many tokens the request has.
    pub(super) input_tokens: u64,
}

/// Bytes of a text that is to become a vector, for each of its tokens.
const BYTES_A_TOKEN: u64 = 4;

/// Where what is to be known goes before an answer has begun, until nobody reads it any longer. What does not fit is lost.
pub(super) type Notices = mpsc::Sender<String>;

/// An answer that has begun, or failed to.
pub(super) struct Begun {
    pub(super) first: Chunk,
    pub(super) rest: ChunkStream,
    pub(super) running: Running,
}

/// A request that a provider is at work on. Dropped before its end it counts as cancelled.
pub(super) struct Running {
    upstream: Arc<Upstream>,
    started: Instant,
    account: Option<Account>,
    has_piece: bool,
    settled: bool,
}

impl Upstream {
    pub(super) fn new(provider: Arc<dyn Provider>, made_of: Option<MadeOf>) -> Self {
        let ProviderLimits { requests_per_minute, burst, breaker } = provider.limits();
        let breaker = breaker.and_then(|config| {
            // Those of a configuration were checked when it was read.
            let unusable = |error: BreakerSetting| {
                warn!(target: TARGET, %error, provider = provider.name(), "there is no breaker");
            };
            Breaker::new(config).map_err(unusable).ok().map(Arc::new)
        });
        Self {
            provider,
            requests_per_minute,
            breaker,
            bucket: Bucket::new(requests_per_minute, burst),
            stats: Stats::default(),
            made_of,
        }
    }

    /// Whether both were set up from the same settings.
    pub(super) fn is_made_like(&self, other: &Self) -> bool {
        self.made_of.is_some() && self.made_of == other.made_of
    }

    pub(super) fn snapshot(&self) -> ProviderSnapshot {
        let state = self.breaker.as_ref().map_or(BreakerState::Closed, |breaker| breaker.state(now()));
        self.stats.snapshot(self.provider.name(), state)
    }

    /// How the provider is. One that is not asked for now cannot be expected to answer, whatever it says.
    pub(super) async fn health(&self) -> ProviderHealth {
        let health = self.provider.health().await;
        match self.suspension(now()) {
            Some(error) if health.healthy => ProviderHealth { healthy: false, error: Some(error.info()), ..health },
            _ => health,
        }
    }

    /// Why the provider is not asked now, if its breaker is open.
    fn suspension(&self, now: Instant) -> Option<ProviderError> {
        let breaker = self.breaker.as_ref().filter(|breaker| breaker.state(now) == BreakerState::Open)?;
        breaker.acquire(now).err().map(|rejected| self.suspended(rejected))
    }

    fn suspended(&self, rejected: Rejected) -> ProviderError {
        // Only a breaker that was opened by hand knows no time.
        let retry_after = rejected.retry_after.map_or(Duration::ZERO, |after| after.max(Duration::from_millis(1)));
        ProviderError::Suspended { provider: self.provider.name().to_owned(), retry_after }
    }

    /// Leave to ask the provider once.
    fn admit(&self) -> Result<Option<Permit<&Breaker>>, ProviderError> {
        let now = now();
        // The breaker first: what it refuses takes no token.
        let permit = self.breaker.as_ref().map(|breaker| breaker.acquire(now)).transpose();
        let permit = permit.map_err(|rejected| {
            self.stats.count_suspended();
            self.suspended(rejected)
        })?;
        if let Some(Err(retry_after)) = self.bucket.as_ref().map(|bucket| bucket.take(now)) {
            self.stats.count_limited();
            let provider = self.provider.name().to_owned();
            return Err(ProviderError::Limited {
                limit: self.requests_per_minute,
                retry_after,
                mend: format!("raise {}.requests_per_minute", section(&provider)).into(),
                provider,
            });
        }
        Ok(permit)
    }

    /// As [`Self::admit`], for a request in the books.
    fn admit_to(&self, account: &mut Option<Account>) -> Result<Option<Permit<&Breaker>>, ProviderError> {
        self.admit().inspect_err(|error| {
            if let Some(account) = account {
                account.fail(error);
            }
        })
    }

    /// The account of a request that comes here because others failed. It stays here, whatever the books would rather have.
    fn account(
        &self,
        books: &Arc<dyn Books>,
        request: &mut ChatRequest,
        input: u64,
        notices: &Notices,
    ) -> Result<Account, ProviderError> {
        match self.open(books, request, input)? {
            Opened::Here { account, max_tokens, notices: told } => {
                request.max_tokens = max_tokens.or(request.max_tokens);
                told.into_iter().for_each(|notice| drop(notices.try_send(notice)));
                Ok(account)
            }
            Opened::Elsewhere { notice, .. } => Err(cannot_move(&notice)),
        }
    }

    /// Asks the books whether a request may be sent to this provider.
    pub(super) fn open(
        &self,
        books: &Arc<dyn Books>,
        request: &ChatRequest,
        input_tokens: u64,
    ) -> Result<Opened, ProviderError> {
        let default = request.model.is_none().then(|| self.provider.capabilities().default_model).flatten();
        let intent = Intent {
            asker: &request.asker,
            provider: self.provider.name(),
            model: request.model.as_deref().or(default.as_deref()),
            input_tokens,
            max_tokens: request.max_tokens,
            has_answer: true,
        };
        Account::open(books, &intent)
    }

    /// As [`Self::open`], for vectors. No other model can make them.
    pub(super) fn open_vectors(
        &self,
        books: &Arc<dyn Books>,
        request: &EmbeddingRequest,
    ) -> Result<Account, ProviderError> {
        let intent = Intent {
            asker: &request.asker,
            provider: self.provider.name(),
            model: request.model.as_deref(),
            input_tokens: (request.fields.len() as u64).div_ceil(BYTES_A_TOKEN),
            max_tokens: None,
            has_answer: false,
        };
        match Account::open(books, &intent)? {
            Opened::Here { account, .. } => Ok(account),
            Opened::Elsewhere { notice, .. } => Err(cannot_move(&notice)),
        }
    }

    /// Asks the provider for vectors, if its guards allow it, and tells the breaker how it went.
    pub(super) async fn embed(
        self: &Arc<Self>,
        request: EmbeddingRequest,
        mut account: Option<Account>,
    ) -> Result<Vec<u8>, ProviderError> {
        let permit = self.admit_to(&mut account)?;
        let mut running = Running::new(Arc::clone(self), account);
        let outcome = self.provider.embed(request).await;
        settle(permit, &outcome);
        match outcome {
            Ok(answer) => {
                if let Some(usage) = usage_of_vectors(&answer) {
                    running.take_in(&Chunk::Usage(usage));
                }
                running.take_in(&Chunk::Done { stop_reason: StopReason::EndTurn });
                Ok(answer)
            }
            Err(error) => Err(running.fail(error)),
        }
    }

    /// Asks the provider, if its guards allow it, and tells the breaker how it went.
    async fn ask<T>(
        self: &Arc<Self>,
        request: ChatRequest,
        notices: &Notices,
        mut account: Option<Account>,
        ask: Ask<T>,
    ) -> Result<T, ProviderError> {
        let permit = self.admit_to(&mut account)?;
        let outcome = ask(Arc::clone(self), request, notices.clone(), account).await;
        settle(permit, &outcome);
        outcome
    }
}

/// Tells the breaker how it went.
fn settle<T>(permit: Option<Permit<&Breaker>>, outcome: &Result<T, ProviderError>) {
    match (outcome, permit) {
        (Ok(_), Some(permit)) => permit.succeed(now()),
        (Err(error), Some(permit)) if error.is_failure() => permit.fail(now()),
        (_, permit) => drop(permit),
    }
}

/// A way to ask a provider.
type Ask<T> = fn(Arc<Upstream>, ChatRequest, Notices, Option<Account>) -> BoxFuture<'static, Result<T, ProviderError>>;

impl Route {
    /// Begins an answer: of the first provider that has a first piece. That piece settles whether the provider is well;
    /// after it nobody else is asked.
    pub(super) async fn begin(self, request: ChatRequest, notices: &Notices) -> Result<Begun, ProviderError> {
        self.ask(request, notices, |upstream, request, notices, account| {
            Box::pin(async move {
                let mut rest = upstream.provider.chat_stream(request);
                let mut running = Running::new(upstream, account);
                loop {
                    match rest.next().await.unwrap_or_else(|| Err(silent())) {
                        // It settles nothing yet.
                        Ok(Chunk::Notice { text }) => drop(notices.try_send(text)),
                        Ok(first) => {
                            running.take_in(&first);
                            return Ok(Begun { first, rest, running });
                        }
                        Err(error) => return Err(running.fail(error)),
                    }
                }
            })
        })
        .await
    }

    /// A whole answer: of the first provider that has one.
    pub(super) async fn whole(self, request: ChatRequest) -> Result<ChatResponse, ProviderError> {
        // Nobody reads before it is whole.
        let (notices, _) = mpsc::channel(1);
        self.ask(request, &notices, |upstream, request, _, account| {
            Box::pin(async move {
                let provider = Arc::clone(&upstream.provider);
                let mut running = Running::new(upstream, account);
                match provider.chat(request).await {
                    Ok(response) => {
                        running.said(&response);
                        if let Some(usage) = &response.usage {
                            running.take_in(&Chunk::Usage(usage.clone()));
                        }
                        running.take_in(&Chunk::Done { stop_reason: response.stop_reason });
                        Ok(response)
                    }
                    Err(error) => Err(running.fail(error)),
                }
            })
        })
        .await
    }

    async fn ask<T>(self, mut request: ChatRequest, notices: &Notices, ask: Ask<T>) -> Result<T, ProviderError> {
        let (books, first) = match self.accounts {
            Some(Accounts { books, first, input_tokens }) => (Some((books, input_tokens)), Some(first)),
            None => (None, None),
        };
        let mut account = first;
        let mut upstreams = self.upstreams.into_iter().peekable();
        while let Some(upstream) = upstreams.next() {
            if let (Some((books, input)), None) = (&books, &account) {
                account = Some(upstream.account(books, &mut request, *input, notices)?);
            }
            let account = account.take();
            let Some(next) = upstreams.peek() else { return upstream.ask(request, notices, account, ask).await };
            let error = match upstream.ask(request.clone(), notices, account, ask).await {
                Err(error) if error.may_pass_on(request.model.is_some()) => error,
                outcome => return outcome,
            };
            let (from, to) = (upstream.provider.name(), next.provider.name());
            warn!(target: TARGET, %error, from, to, "a request goes to the fallback");
            upstream.stats.count_passed_on();
            // The name of a model means nothing to another provider.
            request.model = None;
            forget_details(&mut request);
        }
        Err(silent())
    }
}

/// Takes out what one provider gave with its reasoning: it means nothing to another one, which may refuse it.
pub(super) fn forget_details(request: &mut ChatRequest) {
    for message in &mut request.messages {
        let Content::Parts(parts) = &mut message.content else { continue };
        for part in parts {
            if let Part::Reasoning { details, .. } = part {
                *details = None;
            }
        }
    }
}

impl Running {
    fn new(upstream: Arc<Upstream>, account: Option<Account>) -> Self {
        upstream.stats.count_begun();
        Self { upstream, started: now(), account, has_piece: false, settled: false }
    }

    /// Counts what a whole answer says, for the books.
    fn said(&mut self, response: &ChatResponse) {
        if let Some(account) = &mut self.account {
            let arguments: usize = response.tool_calls.iter().map(|call| call.arguments.len()).sum();
            account.said(response.text.len() + response.reasoning.len() + arguments);
        }
    }

    /// Counts a piece of the answer.
    pub(super) fn take_in(&mut self, chunk: &Chunk) {
        let stats = &self.upstream.stats;
        if !self.has_piece {
            self.has_piece = true;
            stats.count_first_piece(now().saturating_duration_since(self.started));
        }
        stats.count_piece(chunk);
        if let Some(account) = &mut self.account {
            account.take_in(chunk);
        }
        self.settled |= chunk.is_terminal();
    }

    /// Counts how the answer failed.
    pub(super) fn fail(&mut self, error: ProviderError) -> ProviderError {
        self.upstream.stats.count_failed(error.code());
        if let Some(account) = &mut self.account {
            account.fail(&error);
        }
        self.settled = true;
        error
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.upstream.stats.count_over(self.settled);
    }
}

/// What vectors took, as OpenAI's format has it.
fn usage_of_vectors(answer: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Answer {
        usage: Option<Tokens>,
    }
    #[derive(Deserialize)]
    struct Tokens {
        prompt_tokens: Option<u64>,
        total_tokens: Option<u64>,
    }

    let Tokens { prompt_tokens, total_tokens } = serde_json::from_slice::<Answer>(answer).ok()?.usage?;
    Some(Usage { input_tokens: prompt_tokens.or(total_tokens)?, ..Usage::default() })
}

/// The error of a request that would have to go to another model, and cannot.
fn cannot_move(notice: &str) -> ProviderError {
    ProviderError::Budget {
        budget: String::new(),
        reason: notice.to_owned(),
        retry_after: Duration::from_secs(60),
        mend: "name that model".into(),
    }
}

/// The error of a provider whose stream ends at once.
pub(super) fn silent() -> ProviderError {
    ProviderError::Truncated { reason: "the provider ended without a word".into() }
}

/// The runtime's time, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

    use futures_util::stream;
    use tokio::time::advance;

    use super::*;
    use crate::message::ModelInfo;
    use crate::provider::Capabilities;

    impl Route {
        fn alone(upstream: &Arc<Upstream>) -> Self {
            Self { upstreams: vec![Arc::clone(upstream)], accounts: None }
        }
    }

    /// A provider that is well or not, and takes its time.
    #[derive(Default)]
    struct Moody {
        limits: ProviderLimits,
        is_well: AtomicBool,
        asked: AtomicU32,
    }

    impl Provider for Moody {
        fn name(&self) -> &str {
            "moody"
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities::default()
        }

        fn limits(&self) -> ProviderLimits {
            self.limits.clone()
        }

        fn chat_stream(&self, _: ChatRequest) -> ChunkStream {
            self.asked.fetch_add(1, Relaxed);
            let outcome = if self.is_well.load(Relaxed) {
                Ok(Chunk::Done { stop_reason: StopReason::EndTurn })
            } else {
                Err(ProviderError::Disconnected { reason: "down".into() })
            };
            Box::pin(stream::once(async {
                tokio::time::sleep(Duration::from_millis(30)).await;
                outcome
            }))
        }

        fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, ProviderError>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn health(&self) -> BoxFuture<'_, ProviderHealth> {
            let health = ProviderHealth { provider: "moody".into(), healthy: true, latency_ms: 0, error: None };
            Box::pin(async { health })
        }
    }

    /// The code of the error that a request meets; `None` if it is answered.
    async fn meets(upstream: &Arc<Upstream>) -> Option<&'static str> {
        let (notices, _) = mpsc::channel(1);
        let begun = Route::alone(upstream).begin(ChatRequest::user("Hello"), &notices).await;
        begun.err().map(|error| error.code())
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_failed_five_times_is_not_asked_for_a_minute_and_then_tried() {
        let moody = Arc::new(Moody::default());
        let upstream = Arc::new(Upstream::new(moody.clone(), None));
        for _ in 0..5 {
            assert_eq!(meets(&upstream).await, Some("disconnected"));
        }
        assert_eq!(meets(&upstream).await, Some("unavailable"));
        assert!(!upstream.health().await.healthy);
        advance(Duration::from_secs(61)).await;
        assert_eq!(meets(&upstream).await, Some("disconnected"), "the try after the pause");
        moody.is_well.store(true, Relaxed);
        advance(Duration::from_secs(61)).await;
        assert_eq!(meets(&upstream).await, Some("unavailable"), "the second pause is longer");
        advance(Duration::from_secs(61)).await;
        assert_eq!((meets(&upstream).await, meets(&upstream).await), (None, None));
        let seen = upstream.snapshot();
        assert_eq!((seen.breaker, seen.requests, seen.suspended, seen.done), (BreakerState::Closed, 8, 2, 2));
        assert_eq!(moody.asked.load(Relaxed), 8);
        // 30 ms each of the two that had a first piece.
        assert_eq!((seen.first_piece.buckets[2], seen.first_piece.sum_us), (2, 60_000));
        assert!(upstream.health().await.healthy);
    }

    #[tokio::test]
    async fn a_route_to_nobody_ends_with_an_error() {
        let (notices, _) = mpsc::channel(1);
        let error = Route { upstreams: Vec::new(), accounts: None }
            .begin(ChatRequest::user("Hello"), &notices)
            .await
            .err()
            .unwrap();
        assert_eq!(error.to_string(), silent().to_string());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_limit_lets_a_burst_through_and_then_one_request_a_period() {
        let limits = ProviderLimits { requests_per_minute: 6, burst: 2, ..ProviderLimits::default() };
        let upstream =
            Arc::new(Upstream::new(Arc::new(Moody { limits, is_well: true.into(), ..Moody::default() }), None));
        assert_eq!((meets(&upstream).await, meets(&upstream).await), (None, None));
        assert_eq!(meets(&upstream).await, Some("rate_limited"));
        advance(Duration::from_secs(10)).await;
        assert_eq!((meets(&upstream).await, meets(&upstream).await), (None, Some("rate_limited")));
        assert_eq!(upstream.snapshot().limited, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_dropped_before_its_first_piece_counts_for_nothing_with_the_breaker() {
        let upstream = Arc::new(Upstream::new(Arc::new(Moody::default()), None));
        for _ in 0..20 {
            let asked = tokio::time::timeout(Duration::from_millis(1), meets(&upstream)).await;
            assert!(asked.is_err(), "it was answered");
        }
        let seen = upstream.snapshot();
        assert_eq!((seen.breaker, seen.requests, seen.cancelled, seen.in_flight), (BreakerState::Closed, 20, 20, 0));
    }
}
