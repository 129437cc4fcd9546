//! When a request is sent again, and after how long: the rules that the providers' own clients follow.

use std::time::Duration;

use reqwest::header::HeaderMap;

use crate::error::{Phase, ProviderError};

/// The longest pause of our own choice.
const MAX_BACKOFF: Duration = Duration::from_secs(8);

/// How a request is repeated. Only ever before the head of a successful response, so never after the first token.
#[derive(Debug, Clone, Copy)]
pub(super) struct RetryPolicy {
    /// How often at most.
    pub(super) max_retries: u32,
    /// The first pause; each next one is twice as long, to at most 8 s, less up to a quarter by chance.
    pub(super) base_delay: Duration,
    /// How long a provider may make one request wait, all pauses together. Beyond it the caller is told, rather than kept
    /// waiting.
    pub(super) max_wait: Duration,
}

impl RetryPolicy {
    /// How long to wait before the next attempt, after `retries` so far and so long a wait. `None`: there is none.
    pub(super) fn delay(&self, error: &ProviderError, retries: u32, waited: Duration) -> Option<Duration> {
        // A provider that takes too long may well be at work on the request: asking again would double that work.
        let too_slow = matches!(error, ProviderError::TimedOut { phase, .. } if *phase != Phase::Connect);
        if retries >= self.max_retries || too_slow || !error.retryable() {
            return None;
        }
        match error.retry_after() {
            Some(asked) => (asked <= self.max_wait.saturating_sub(waited)).then_some(asked),
            None => {
                let backoff = self.base_delay.saturating_mul(1 << retries.min(16)).min(MAX_BACKOFF);
                Some(backoff.mul_f64(1.0 - fastrand::f64() / 4.0))
            }
        }
    }
}

/// What the provider itself says on whether to send the request again.
pub(super) fn verdict(headers: &HeaderMap) -> Option<bool> {
    match headers.get("x-should-retry")?.as_bytes() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;
    use crate::providers::formats::is_retryable;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn refused(status: u16, retry_after: Option<Duration>) -> ProviderError {
        let retryable = is_retryable(status);
        ProviderError::Refused { status, code: None, message: "".into(), retry_after, retryable, fix: None }
    }

    #[test]
    fn the_providers_verdict_is_yes_no_or_none() {
        let said = |word| verdict(&headers(&[("x-should-retry", word)]));
        assert_eq!(["true", "false", "maybe", ""].map(said), [Some(true), Some(false), None, None]);
        assert_eq!(verdict(&headers(&[])), None);
    }

    #[test]
    fn pauses_double_with_jitter_up_to_eight_seconds() {
        let policy = RetryPolicy { max_retries: 40, base_delay: Duration::from_millis(500), max_wait: Duration::ZERO };
        for (retries, longest) in [(0, 500), (1, 1000), (2, 2000), (4, 8000), (5, 8000), (39, 8000)] {
            let delay = policy.delay(&refused(500, None), retries, Duration::ZERO).unwrap();
            let longest = Duration::from_millis(longest);
            assert!(delay <= longest && delay >= longest.mul_f64(0.75), "{retries}: {delay:?}");
        }
    }

    #[test]
    fn what_cannot_succeed_or_takes_too_long_is_not_repeated() {
        let policy = RetryPolicy { max_retries: 2, base_delay: Duration::ZERO, max_wait: Duration::from_secs(20) };
        let after = Duration::from_secs(1);
        assert!(policy.delay(&refused(429, Some(after)), 1, Duration::ZERO).is_some());
        assert!(policy.delay(&refused(429, Some(after)), 2, Duration::ZERO).is_none(), "the retries are used up");
        assert!(policy.delay(&refused(429, Some(Duration::from_secs(21))), 0, Duration::ZERO).is_none(), "too long");
        assert!(policy.delay(&refused(429, Some(after)), 1, Duration::from_secs(19)).is_some());
        assert!(
            policy.delay(&refused(429, Some(after)), 1, Duration::from_millis(19_001)).is_none(),
            "too long in all"
        );
        assert!(policy.delay(&refused(400, None), 0, Duration::ZERO).is_none());
        assert!(policy.delay(&ProviderError::TimedOut { phase: Phase::Connect, after }, 0, Duration::ZERO).is_some());
        assert!(policy.delay(&ProviderError::TimedOut { phase: Phase::FirstByte, after }, 0, Duration::ZERO).is_none());
    }
}
