//! One provider with what guards and counts it, and the order in which providers are asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellrope::breaker::{Breaker, BreakerSetting, BreakerState, Permit, Rejected};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tracing::warn;

use super::stats::{ProviderSnapshot, Stats};
use crate::bucket::Bucket;
use crate::config::{ProviderConfig, section};
use crate::error::ProviderError;
use crate::message::{ChatRequest, ChatResponse, Chunk, Content, Part, ProviderHealth, StopReason};
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
pub(super) struct Route(pub(super) Vec<Arc<Upstream>>);

/// Where what is to be known goes before an answer has begun, until nobody reads it any longer. What does not fit is lost.
pub(super) type Notices = mpsc::Sender<String>;

/// An answer that has begun, or failed to.
pub(super) struct Begun {
    pub(super) first: Chunk,
    pub(super) rest: ChunkStream,
    /// What is to be told of fields that this provider did not get.
    pub(super) unsaid: Vec<String>,
    pub(super) running: Running,
}

/// A request that a provider is at work on. Dropped before its end it counts as cancelled.
pub(super) struct Running {
    upstream: Arc<Upstream>,
    started: Instant,
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

    /// What is to be told of fields that are not known here, if the provider does not get them as they came.
    fn unsaid(&self, request: &ChatRequest) -> Vec<String> {
        let carried = request.from_tool.carried.as_ref().filter(|carried| !self.provider.carries(carried.format()));
        carried.map(|carried| carried.notes().to_vec()).unwrap_or_default()
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
    pub(super) fn admit(&self) -> Result<Option<Permit<&Breaker>>, ProviderError> {
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

    /// Asks the provider for vectors, if its guards allow it, and tells the breaker how it went.
    pub(super) async fn embed(self: &Arc<Self>, request: EmbeddingRequest) -> Result<Vec<u8>, ProviderError> {
        let permit = self.admit()?;
        let mut running = Running::new(Arc::clone(self));
        let outcome = self.provider.embed(request).await;
        settle(permit, outcome.as_ref().err());
        match outcome {
            Ok(answer) => {
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
        ask: Ask<T>,
    ) -> Result<T, ProviderError> {
        let permit = self.admit()?;
        let outcome = ask(Arc::clone(self), request, notices.clone()).await;
        settle(permit, outcome.as_ref().err());
        outcome
    }
}

/// Tells the breaker how it went.
pub(super) fn settle(permit: Option<Permit<&Breaker>>, failed: Option<&ProviderError>) {
    match (failed, permit) {
        (None, Some(permit)) => permit.succeed(now()),
        (Some(error), Some(permit)) if error.is_failure() => permit.fail(now()),
        (_, permit) => drop(permit),
    }
}

/// A way to ask a provider.
type Ask<T> = fn(Arc<Upstream>, ChatRequest, Notices) -> BoxFuture<'static, Result<T, ProviderError>>;

impl Route {
    /// Begins an answer: of the first provider that has a first piece. That piece settles whether the provider is well;
    /// after it nobody else is asked.
    pub(super) async fn begin(self, request: ChatRequest, notices: &Notices) -> Result<Begun, ProviderError> {
        self.ask(request, notices, |upstream, request, notices| {
            Box::pin(async move {
                let unsaid = upstream.unsaid(&request);
                let mut rest = upstream.provider.chat_stream(request);
                let mut running = Running::new(upstream);
                loop {
                    match rest.next().await.unwrap_or_else(|| Err(silent())) {
                        // It settles nothing yet.
                        Ok(Chunk::Notice { text }) => drop(notices.try_send(text)),
                        Ok(first) => {
                            running.take_in(&first);
                            return Ok(Begun { first, rest, unsaid, running });
                        }
                        Err(error) => return Err(running.fail(error)),
                    }
                }
            })
        })
        .await
    }

    /// A whole answer, and the name of its provider: of the first that has one.
    pub(super) async fn whole(self, request: ChatRequest) -> Result<(ChatResponse, String), ProviderError> {
        // Nobody reads before it is whole.
        let (notices, _) = mpsc::channel(1);
        self.ask(request, &notices, |upstream, request, _| {
            Box::pin(async move {
                let provider = Arc::clone(&upstream.provider);
                let mut unsaid = upstream.unsaid(&request);
                let mut running = Running::new(upstream);
                match provider.chat(request).await {
                    Ok(mut response) => {
                        unsaid.append(&mut response.notes);
                        response.notes = unsaid;
                        if let Some(usage) = &response.usage {
                            running.take_in(&Chunk::Usage(usage.clone()));
                        }
                        running.take_in(&Chunk::Done { stop_reason: response.stop_reason });
                        Ok((response, provider.name().to_owned()))
                    }
                    Err(error) => Err(running.fail(error)),
                }
            })
        })
        .await
    }

    async fn ask<T>(self, mut request: ChatRequest, notices: &Notices, ask: Ask<T>) -> Result<T, ProviderError> {
        let mut upstreams = self.0.into_iter().peekable();
        while let Some(upstream) = upstreams.next() {
            let Some(next) = upstreams.peek() else { return upstream.ask(request, notices, ask).await };
            let error = match upstream.ask(request.clone(), notices, ask).await {
                Err(error) if error.may_pass_on(request.model.is_some()) => error,
                outcome => return outcome,
            };
            let (from, to) = (upstream.provider.name(), next.provider.name());
            warn!(target: TARGET, %error, from, to, "a request goes to the fallback");
            upstream.count_passed_on();
            forget(&mut request);
        }
        Err(silent())
    }
}

/// Takes out what means nothing to another provider, or is none of its business: the name of the model, the tool's key, and
/// what came with the reasoning of the one before, which it may refuse.
pub(super) fn forget(request: &mut ChatRequest) {
    request.model = None;
    request.from_tool.key = None;
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
    pub(super) fn new(upstream: Arc<Upstream>) -> Self {
        upstream.stats.count_begun();
        Self { upstream, started: now(), has_piece: false, settled: false }
    }

    /// Counts a piece of the answer.
    pub(super) fn take_in(&mut self, chunk: &Chunk) {
        self.begins();
        self.upstream.stats.count_piece(chunk);
        self.settled |= chunk.is_terminal();
    }

    /// The name of the provider that is at work.
    pub(super) fn provider(&self) -> &str {
        self.upstream.provider.name()
    }

    /// Counts how long its first piece took.
    pub(super) fn begins(&mut self) {
        if !self.has_piece {
            self.has_piece = true;
            self.upstream.stats.count_first_piece(now().saturating_duration_since(self.started));
        }
    }

    /// Counts pieces of which nothing but their number is known.
    pub(super) fn count_pieces(&self, count: u64) {
        self.upstream.stats.count_pieces(count);
    }

    /// Counts how the answer failed.
    pub(super) fn fail(&mut self, error: ProviderError) -> ProviderError {
        self.upstream.stats.count_failed(error.code());
        self.settled = true;
        error
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.upstream.stats.count_over(self.settled);
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
        let begun = Route(vec![Arc::clone(upstream)]).begin(ChatRequest::user("Hello"), &notices).await;
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
        let error = Route(Vec::new()).begin(ChatRequest::user("Hello"), &notices).await.err().unwrap();
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
