//! One provider with what guards and counts it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellrope::breaker::{Breaker, BreakerSetting, BreakerState, Caller, Rejected};
use tokio::sync::mpsc;
use tracing::warn;

use super::leave::{Leave, now, somebody};
use super::stats::{ProviderSnapshot, Stats};
use super::vectors::looked_at;
use crate::account::{Account, Books, Intent, Opened};
use crate::asker::Asker;
use crate::bucket::Bucket;
use crate::config::{ProviderConfig, section};
use crate::error::ProviderError;
use crate::inbound::estimate_tokens_of;
use crate::input_tokens::InputTokens;
use crate::log_limit;
use crate::message::{AnsweredBy, ChatRequest, ChatResponse, Chunk, ProviderHealth, StopReason, Usage};
use crate::pass::{PassFormat, PassRequest, ToolKey};
use crate::provider::{BoxFuture, EmbeddingRequest, Provider, ProviderLimits, TakesKey};
use crate::providers::embedded::EmbeddedSettings;

/// The target of its log lines, which filters name: it stays when the file moves.
pub(super) const TARGET: &str = "bellrope_gateway::gateway::upstream";

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

/// What is kept of what is to be known before an answer begins, if its reader is slow. In notices.
pub(super) const MAX_NOTICES: usize = 8;

/// Where what is to be known goes before an answer has begun, until nobody reads it any longer. What does not fit is lost.
pub(super) type Notices = mpsc::Sender<String>;

/// A request that a provider is at work on. Dropped before its end it counts as cancelled.
pub(super) struct Running {
    upstream: Arc<Upstream>,
    started: Instant,
    account: Option<Account>,
    /// What the provider has said so far of what the answer takes, of one that goes through.
    usage: Option<Box<Usage>>,
    /// Who answers, where whoever asked keeps books of that.
    answered_by: Option<Box<AnsweredBy>>,
    has_piece: bool,
    settled: bool,
}

/// As many callers as a breaker tells apart.
const ALL_CALLERS: u32 = 32;

impl Upstream {
    pub(super) fn new(provider: Arc<dyn Provider>, made_of: Option<MadeOf>) -> Self {
        let ProviderLimits { requests_per_minute, burst, breaker } = provider.limits();
        let breaker = breaker.and_then(|mut config| {
            // What depends on the request counts for its caller alone, however many have such requests.
            if config.min_callers > 1 {
                config.min_callers = ALL_CALLERS;
            }
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

    /// What is to be told of fields that are not known here, if the provider does not get them as they came.
    pub(super) fn unsaid(&self, request: &ChatRequest) -> Vec<String> {
        let carried = request.from_tool.carried.as_ref().filter(|carried| !self.provider.carries(carried.format()));
        carried.map(|carried| carried.notes().to_vec()).unwrap_or_default()
    }

    /// Why it is not asked in the place of another, if it is not: it takes the tool's own key, and there is none that may be
    /// meant for it.
    pub(super) fn passed_over(&self, key: Option<&ToolKey>, format: Option<PassFormat>) -> Option<String> {
        let why = match self.provider.takes_key(format) {
            TakesKey::OfServer => return None,
            TakesKey::OfTool { .. } if key.is_none() => "came with the request",
            TakesKey::OfTool { is_its_format: false } => "of its own format came with the request",
            TakesKey::OfTool { is_its_format: true } => return None,
        };
        let name = self.provider.name();
        if log_limit::OF_CALLERS.may_come() {
            warn!(target: TARGET, provider = name, "a fallback is skipped: no key of a tool {why}");
        }
        Some(format!("the fallback `{name}` was skipped: it takes the tool's own key, and none {why}"))
    }

    /// Who answers a request, where whoever asked keeps books of that. Where others answer, they say it.
    pub(super) fn answering(&self, request: &ChatRequest) -> Option<Box<AnsweredBy>> {
        let is_said = request.asker.keeps_books && !self.provider.asks_others();
        is_said.then(|| {
            let model = request.model.clone().or_else(|| self.provider.capabilities().default_model);
            Box::new(AnsweredBy { provider: self.provider.name().to_owned(), model })
        })
    }

    /// Counts a request that goes on to a fallback.
    pub(super) fn count_passed_on(&self) {
        self.stats.count_passed_on();
    }

    fn suspended(&self, rejected: Rejected) -> ProviderError {
        // Only a breaker that was opened by hand knows no time.
        let retry_after = rejected.retry_after.map_or(Duration::ZERO, |after| after.max(Duration::from_millis(1)));
        ProviderError::Suspended { provider: self.provider.name().to_owned(), retry_after }
    }

    /// Leave to ask the provider once.
    fn admit(&self, caller: Caller) -> Result<Leave<'_>, ProviderError> {
        let now = now();
        let is_probe = self.breaker.as_ref().is_some_and(|breaker| breaker.state(now) != BreakerState::Closed);
        // The breaker first: what it refuses takes no token.
        let acquire =
            |breaker| if is_probe { Breaker::acquire(breaker, now) } else { breaker.acquire_for(|| caller, now) };
        let permit = self.breaker.as_deref().map(acquire).transpose();
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
                fix: format!("raise {}.requests_per_minute", section(&provider)).into(),
                provider,
            });
        }
        Ok(Leave { permit, caller, is_probe })
    }

    /// As [`Self::admit`], for a request in the books.
    pub(super) fn admit_to(&self, caller: Caller, account: &mut Option<Account>) -> Result<Leave<'_>, ProviderError> {
        self.admit(caller).inspect_err(|error| {
            if let Some(account) = account {
                account.fail(error);
            }
        })
    }

    /// The account of a request that comes here because others failed. It stays here, whatever the books would rather have.
    pub(super) fn account(
        &self,
        books: &Arc<dyn Books>,
        request: &mut ChatRequest,
        input: InputTokens,
        notices: &Notices,
    ) -> Result<Account, ProviderError> {
        match self.open(books, request, input)? {
            Opened::Here { account, max_tokens, notices: told, .. } => {
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
        input_tokens: InputTokens,
    ) -> Result<Opened, ProviderError> {
        // What the provider will be asked for, or a budget would reserve less than the answer may take.
        let max_tokens = request.max_tokens.filter(|tokens| *tokens > 0);
        let asked = |model: Option<&str>| max_tokens.or_else(|| self.provider.usual_max_tokens(model));
        self.ask_books(books, &request.asker, request.model.as_deref(), (input_tokens, true), asked)
    }

    /// Asks the books about a request for this model, or else the provider's usual one: about its tokens, whether an answer
    /// takes any, and how many that model is asked for.
    fn ask_books(
        &self,
        books: &Arc<dyn Books>,
        asker: &Asker,
        model: Option<&str>,
        (input, has_answer): (InputTokens, bool),
        max_tokens: impl Fn(Option<&str>) -> Option<u32>,
    ) -> Result<Opened, ProviderError> {
        let default = model.is_none().then(|| self.provider.capabilities().default_model).flatten();
        let model = model.or(default.as_deref());
        let (provider, max_tokens) = (self.provider.name(), max_tokens(model));
        let InputTokens { likely: input_tokens, most: most_input_tokens } = input;
        let intent = Intent { asker, provider, model, input_tokens, most_input_tokens, max_tokens, has_answer };
        Account::open(books, &intent)
    }

    /// As [`Self::open`], for a request that goes through as it came, but for the most tokens of its answer. `None`: a
    /// budget counts it, and how much it asks for is not clear; or it has to go to another model.
    pub(super) fn open_passed(
        &self,
        books: &Arc<dyn Books>,
        request: &mut PassRequest,
    ) -> Result<Option<(Account, Vec<String>)>, ProviderError> {
        let tokens = (request.tokens().unwrap_or_else(|| estimate_tokens_of(request.body())), true);
        // What is set for the provider is sent only where a budget counts on it.
        let set = |model: Option<&str>| match request.format {
            PassFormat::Messages => None,
            _ => self.provider.usual_max_tokens(model),
        };
        let unsaid = request.max_tokens().is_none().then(|| set(request.model.as_deref())).flatten();
        let asked = |_: Option<&str>| request.max_tokens().or(unsaid);
        Ok(match self.ask_books(books, &request.asker, request.model.as_deref(), tokens, asked)? {
            Opened::Here { account, max_tokens, is_bounded, notices }
                if (!is_bounded || request.is_countable()) && !leaves_no_answer(request, max_tokens) =>
            {
                request.set_limit(max_tokens.or(unsaid.filter(|_| is_bounded)));
                Some((account, notices))
            }
            Opened::Here { account, .. } => {
                account.withdraw();
                None
            }
            Opened::Elsewhere { .. } => None,
        })
    }

    /// As [`Self::open`], for vectors. No other model can make them.
    pub(super) fn open_vectors(
        &self,
        books: &Arc<dyn Books>,
        request: &EmbeddingRequest,
        tokens: InputTokens,
    ) -> Result<Account, ProviderError> {
        match self.ask_books(books, &request.asker, request.model.as_deref(), (tokens, false), |_| None)? {
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
        let caller = request.caller.unwrap_or_else(|| somebody(&request.asker));
        let leave = self.admit_to(caller, &mut account)?;
        let mut running = Running::new(Arc::clone(self), account);
        let texts = request.texts;
        let outcome = match self.provider.embed(request).await {
            Ok(answer) => looked_at(answer, texts).await,
            Err(error) => Err(error),
        };
        leave.settle(outcome.as_ref().err());
        match outcome {
            Ok((answer, usage)) => {
                if let Some(usage) = usage {
                    running.take_in(&Chunk::Usage(usage));
                }
                running.take_in(&Chunk::Done { stop_reason: StopReason::EndTurn });
                Ok(answer)
            }
            Err(error) => Err(running.fail(error)),
        }
    }

    /// Asks the provider, if its guards allow it, and tells the breaker how it went.
    pub(super) async fn ask<T>(
        self: &Arc<Self>,
        request: ChatRequest,
        notices: &Notices,
        mut account: Option<Account>,
        ask: Ask<T>,
    ) -> Result<T, ProviderError> {
        let caller = request.caller.unwrap_or_else(|| somebody(&request.asker));
        let leave = self.admit_to(caller, &mut account)?;
        let outcome = ask(Arc::clone(self), request, notices.clone(), account).await;
        leave.settle(outcome.as_ref().err());
        outcome
    }
}

/// A way to ask a provider.
pub(super) type Ask<T> =
    fn(Arc<Upstream>, ChatRequest, Notices, Option<Account>) -> BoxFuture<'static, Result<T, ProviderError>>;

impl Running {
    pub(super) fn new(upstream: Arc<Upstream>, account: Option<Account>) -> Self {
        upstream.stats.count_begun();
        let (started, usage, answered_by) = (now(), None, None);
        Self { upstream, started, account, usage, answered_by, has_piece: false, settled: false }
    }

    /// Has what the answer took say who answered.
    pub(super) fn answered_by(mut self, who: Option<Box<AnsweredBy>>) -> Self {
        self.answered_by = who;
        self
    }

    /// Says of what the answer took who answered, where that is to be said.
    pub(super) fn sign(&self, usage: Option<&mut Usage>) {
        if let (Some(usage), Some(who)) = (usage, &self.answered_by) {
            usage.answered_by = Some(who.clone());
        }
    }

    /// Counts what a whole answer says, for the books.
    pub(super) fn said(&mut self, response: &ChatResponse) {
        if let Some(account) = &mut self.account {
            let arguments: usize = response.tool_calls.iter().map(|call| call.arguments.len()).sum();
            account.said(response.text.len() + response.reasoning.len() + arguments);
        }
    }

    /// Counts a piece of the answer.
    pub(super) fn take_in(&mut self, chunk: &Chunk) {
        self.begins();
        self.upstream.stats.count_piece(chunk);
        if let Some(account) = &mut self.account {
            account.take_in(chunk);
        }
        self.settled |= chunk.is_terminal();
    }

    /// The name of the provider that is at work.
    pub(super) fn provider(&self) -> &str {
        self.upstream.provider.name()
    }

    /// Whether that wants back what its model thinks.
    pub(super) fn wants_thoughts(&self) -> bool {
        self.upstream.provider.wants_thoughts()
    }

    /// Counts how long its first piece took.
    pub(super) fn begins(&mut self) {
        if !self.has_piece {
            self.has_piece = true;
            self.upstream.stats.count_first_piece(now().saturating_duration_since(self.started));
        }
    }

    /// Counts pieces of which nothing but their number and their length is known.
    pub(super) fn count_pieces(&mut self, count: u64, said_bytes: usize) {
        self.upstream.stats.count_pieces(count);
        if let Some(account) = self.account.as_mut().filter(|_| count > 0 || said_bytes > 0) {
            account.said(said_bytes);
        }
    }

    /// Takes in what an answer that goes through has taken so far. It is counted when the answer is over.
    pub(super) fn used_so_far(&mut self, usage: &Usage, is_final: bool) {
        self.usage = Some(Box::new(usage.clone()));
        if let Some(account) = &mut self.account {
            account.used(usage.clone(), is_final);
        }
    }

    /// Counts that usage.
    pub(super) fn count_used(&mut self) {
        if let Some(usage) = self.usage.take() {
            self.upstream.stats.count_piece(&Chunk::Usage(*usage));
        }
    }

    /// Counts how the answer failed.
    pub(super) fn fail(&mut self, error: ProviderError) -> ProviderError {
        self.count_used();
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
        self.count_used();
        self.upstream.stats.count_over(self.settled);
    }
}

/// Whether a request that may have so many tokens, fewer than it asks for, would have its model think for all of them.
fn leaves_no_answer(request: &PassRequest, most: Option<u32>) -> bool {
    let fewer = most.filter(|most| request.max_tokens().is_none_or(|asked| *most < asked));
    fewer.is_some_and(|fewer| request.thinks_for(fewer))
}

/// The error of a request that would have to go to another model, and cannot.
pub(super) fn cannot_move(notice: &str) -> ProviderError {
    ProviderError::Budget {
        budget: String::new(),
        reason: notice.to_owned(),
        retry_after: Duration::from_secs(60),
        fix: "name that model".into(),
    }
}

/// The error of a provider whose stream ends at once.
pub(super) fn silent() -> ProviderError {
    ProviderError::Truncated { reason: "the provider ended without a word".into() }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

    use futures_util::stream;
    use tokio::time::advance;

    use super::super::route::Route;
    use super::*;
    use crate::asker::AskerKind;
    use crate::message::ModelInfo;
    use crate::provider::Capabilities;
    use crate::provider::ProviderStream;

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
        /// How it fails; else it is overloaded.
        failure: Mutex<Option<ProviderError>>,
    }

    impl Moody {
        fn failing(failure: ProviderError) -> Self {
            Self { failure: Mutex::new(Some(failure)), ..Self::default() }
        }
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

        fn chat_stream(&self, _: ChatRequest) -> ProviderStream {
            self.asked.fetch_add(1, Relaxed);
            let outcome = if self.is_well.load(Relaxed) {
                Ok(Chunk::Done { stop_reason: StopReason::EndTurn })
            } else {
                Err(self.failure.lock().unwrap().clone().unwrap_or_else(|| refused(503)))
            };
            Box::pin(stream::once(async {
                tokio::time::sleep(Duration::from_millis(30)).await;
                outcome
            }))
        }

        fn embed(&self, _: EmbeddingRequest) -> BoxFuture<'_, Result<Vec<u8>, ProviderError>> {
            let failure = self.failure.lock().unwrap().clone();
            Box::pin(async { Err(failure.unwrap_or_else(|| refused(503))) })
        }

        fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, ProviderError>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn health(&self) -> BoxFuture<'_, ProviderHealth> {
            let health =
                ProviderHealth { provider: "moody".into(), healthy: true, latency: Duration::ZERO, error: None };
            Box::pin(async { health })
        }
    }

    /// The code of the error that a request meets; `None` if it is answered.
    async fn meets(upstream: &Arc<Upstream>) -> Option<&'static str> {
        asks(upstream, None).await
    }

    async fn asks(upstream: &Arc<Upstream>, caller: Option<u64>) -> Option<&'static str> {
        let (notices, _) = mpsc::channel(1);
        let request = ChatRequest { caller: caller.map(Caller::Connection), ..ChatRequest::user("Hello") };
        let begun = Route::alone(upstream).begin(request, &notices).await;
        begun.err().map(|error| error.code())
    }

    fn refused(status: u16) -> ProviderError {
        let message = "no".into();
        ProviderError::Refused { status, code: None, message, retry_after: None, retryable: true, fix: None }
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_depend_on_the_request_keeps_its_caller_away_and_nobody_else() {
        for depends in
            [refused(500), refused(501), refused(408), ProviderError::Disconnected { reason: "reset".into() }]
        {
            let moody = Arc::new(Moody::failing(depends.clone()));
            let upstream = Arc::new(Upstream::new(moody.clone(), None));
            for caller in 1..=3 {
                for _ in 0..5 {
                    assert_eq!(asks(&upstream, Some(caller)).await, Some(depends.code()), "caller {caller}");
                }
                assert_eq!(asks(&upstream, Some(caller)).await, Some("unavailable"), "caller {caller}");
            }
            assert!(upstream.health().await.healthy, "{depends}");
            moody.is_well.store(true, Relaxed);
            assert_eq!((asks(&upstream, Some(4)).await, asks(&upstream, None).await), (None, None), "{depends}");
            assert_eq!(asks(&upstream, Some(1)).await, Some("unavailable"), "its time is not over");
            advance(Duration::from_secs(61)).await;
            assert_eq!(asks(&upstream, Some(1)).await, None, "{depends}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn callers_of_vectors_are_told_apart() {
        let upstream = Arc::new(Upstream::new(Arc::new(Moody::failing(refused(500))), None));
        let asks = async |caller: u64| {
            let request = EmbeddingRequest {
                provider: None,
                model: None,
                fields: "{}".into(),
                texts: None,
                caller: Some(Caller::Connection(caller)),
                asker: Asker::default(),
                key: None,
                room: crate::AnswerRoom::default(),
            };
            upstream.embed(request, None).await.unwrap_err().code()
        };
        for _ in 0..5 {
            assert_eq!(asks(1).await, refused(500).code());
        }
        assert_eq!((asks(1).await, asks(2).await), ("unavailable", refused(500).code()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_holder_of_a_token_is_a_caller_of_its_own() {
        let moody = Arc::new(Moody::failing(refused(500)));
        let upstream = Arc::new(Upstream::new(moody.clone(), None));
        let asks = async |name: &str, kind| {
            let (notices, _) = mpsc::channel(1);
            let request = ChatRequest { asker: Asker::new(kind, name, ""), ..ChatRequest::user("Hello") };
            Route::alone(&upstream).begin(request, &notices).await.err().map(|error| error.code())
        };
        for _ in 0..5 {
            assert_eq!(asks("one", AskerKind::Token).await, Some(refused(500).code()));
        }
        assert_eq!(asks("one", AskerKind::Token).await, Some("unavailable"));
        moody.is_well.store(true, Relaxed);
        assert_eq!(asks("two", AskerKind::Token).await, None, "whatever the other one asks for");
        assert_eq!(asks("one", AskerKind::Program).await, None, "who only says its name is somebody else");
        assert_eq!(asks("one", AskerKind::Token).await, Some("unavailable"), "its time is not over");
    }

    #[tokio::test(start_paused = true)]
    async fn overload_and_what_cannot_be_reached_count_whoever_asked_also_while_it_is_tried_again() {
        let connect = ProviderError::Connect { reason: "refused".into(), fix: "".into(), retryable: true };
        for failure in [refused(502), refused(503), refused(504), refused(529), connect] {
            let moody = Arc::new(Moody::failing(failure.clone()));
            let upstream = Arc::new(Upstream::new(moody.clone(), None));
            for caller in 1..=5 {
                assert_eq!(asks(&upstream, Some(caller)).await, Some(failure.code()));
            }
            assert_eq!(asks(&upstream, Some(6)).await, Some("unavailable"), "{failure}");
            assert!(!upstream.health().await.healthy);
            advance(Duration::from_secs(61)).await;
            assert_eq!(asks(&upstream, Some(1)).await, Some(failure.code()), "the try after the pause");
            assert_eq!(asks(&upstream, Some(6)).await, Some("unavailable"), "is everybody's: {failure}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_a_provider_falls_over_does_not_keep_it_from_being_tried_by_others() {
        let moody = Arc::new(Moody::failing(refused(503)));
        let upstream = Arc::new(Upstream::new(moody.clone(), None));
        for _ in 0..5 {
            assert!(asks(&upstream, Some(1)).await.is_some());
        }
        advance(Duration::from_secs(61)).await;
        *moody.failure.lock().unwrap() = Some(refused(500));
        for _ in 0..10 {
            assert_eq!(asks(&upstream, Some(1)).await, Some(refused(500).code()));
        }
        moody.is_well.store(true, Relaxed);
        assert_eq!((asks(&upstream, Some(2)).await, asks(&upstream, Some(3)).await), (None, None));
        assert_eq!(upstream.snapshot().breaker, BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_failed_five_times_is_not_asked_for_a_minute_and_then_tried() {
        let moody = Arc::new(Moody::default());
        let upstream = Arc::new(Upstream::new(moody.clone(), None));
        for _ in 0..5 {
            assert_eq!(meets(&upstream).await, Some("overloaded"));
        }
        assert_eq!(meets(&upstream).await, Some("unavailable"));
        assert!(!upstream.health().await.healthy);
        advance(Duration::from_secs(61)).await;
        assert_eq!(meets(&upstream).await, Some("overloaded"), "the try after the pause");
        moody.is_well.store(true, Relaxed);
        advance(Duration::from_secs(61)).await;
        assert_eq!(meets(&upstream).await, Some("unavailable"), "the second pause is longer");
        advance(Duration::from_secs(61)).await;
        assert_eq!((meets(&upstream).await, meets(&upstream).await), (None, None));
        let seen = upstream.snapshot();
        assert_eq!((seen.breaker, seen.requests, seen.suspended, seen.done), (BreakerState::Closed, 8, 2, 2));
        assert_eq!(moody.asked.load(Relaxed), 8);
        // 30 ms each of the two that had a first piece.
        assert_eq!((seen.first_piece.buckets[2], seen.first_piece.sum), (2, Duration::from_millis(60)));
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
