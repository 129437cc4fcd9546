//! When a provider is asked again: by its own rules, and never after the first token.

use std::time::{Duration, Instant};

use bellrope_gateway::{ChatRequest, Provider, ProviderError};

use crate::fake::{Fake, ask, soon};
use crate::for_each_format;
use crate::script::Format;

async fn refusal(fake: &Fake, format: Format) -> ProviderError {
    ask(&fake.provider(format)).await.unwrap_err()
}

/// Refuses the first `refusals` requests with this response, then answers.
async fn refusing(format: Format, refusals: usize, status: &str, headers: &str, body: &str) -> Fake {
    let (status, headers, body) = (status.to_owned(), format!("{headers}connection: close\r\n"), body.to_owned());
    Fake::start(move |number, mut peer| {
        let (status, headers, body) = (status.clone(), headers.clone(), body.clone());
        async move {
            if number < refusals {
                peer.reply(&status, &headers, &body).await;
            } else {
                peer.begin_events().await;
                peer.chunk(format.answer("at last")).await;
                peer.end().await;
            }
        }
    })
    .await
}

for_each_format! {
    async fn a_large_request_which_is_written_apart_is_sent_again_whole(format: Format) {
        let fake = refusing(format, 1, "503 Busy", "retry-after-ms: 1\r\n", "").await;
        let answer = soon(fake.provider(format).chat(ChatRequest::user("x".repeat(300_000)))).await.unwrap();
        assert_eq!(answer.text, "at last");
        let sent: Vec<_> = fake.requests().into_iter().map(|request| request.body).collect();
        assert!(sent.len() == 2 && sent[0].len() > 300_000 && sent[0] == sent[1]);
    }

    // Fault 53.
    async fn a_429_or_529_with_retry_after_is_waited_out_as_long_as_the_provider_asks(format: Format) {
        for status in ["429 Too Many Requests", "529 Overloaded"] {
            for headers in ["retry-after-ms: 300\r\nretry-after: 60\r\n", "retry-after: 0.3\r\n"] {
                let fake = refusing(format, 1, status, headers, "").await;
                let started = Instant::now();
                assert_eq!(ask(&fake.provider(format)).await.as_deref(), Ok("at last"));
                assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
                assert_eq!(fake.requests().len(), 2);
            }
        }
    }

    async fn a_429_or_529_without_retry_after_is_asked_again_up_to_two_times(format: Format) {
        for status in ["429 Too Many Requests", "529 Overloaded"] {
            let body = format.error("rate_limit_error", "slow down");
            let fake = refusing(format, 2, status, "", &body).await;
            assert_eq!(ask(&fake.provider(format)).await.as_deref(), Ok("at last"), "{status}");
            let fake = refusing(format, 3, status, "", &body).await;
            let error = refusal(&fake, format).await;
            assert!(error.retryable() && error.to_string().contains("slow down"), "{error}");
            assert_eq!(fake.requests().len(), 3, "{status}");
        }
    }

    async fn what_may_pass_is_asked_again_and_what_cannot_is_not(format: Format) {
        for status in ["408 Request Timeout", "409 Conflict", "500 Oops", "502 Bad", "503 Busy", "504 Slow"] {
            let fake = refusing(format, 2, status, "", "").await;
            assert_eq!(ask(&fake.provider(format)).await.as_deref(), Ok("at last"), "{status}");
        }
        for status in ["400 Bad Request", "401 Unauthorized", "404 Not Found", "422 No"] {
            let fake = refusing(format, 1, status, "", "").await;
            refusal(&fake, format).await;
            assert_eq!(fake.requests().len(), 1, "{status}");
        }
    }

    async fn an_unreasonable_pause_is_told_rather_than_waited(format: Format) {
        let fake = refusing(format, 1, "429 Too Many Requests", "retry-after: 3600\r\n", "").await;
        let error = refusal(&fake, format).await;
        assert_eq!((error.code(), error.retry_after()), ("rate_limited", Some(Duration::from_secs(3600))));
        assert_eq!(fake.requests().len(), 1);
    }

    async fn the_providers_own_verdict_decides(format: Format) {
        let fake = refusing(format, 1, "500 Oops", "x-should-retry: false\r\n", "").await;
        assert!(!refusal(&fake, format).await.retryable());
        assert_eq!(fake.requests().len(), 1);
        let fake = refusing(format, 1, "400 Bad Request", "x-should-retry: true\r\n", "").await;
        assert_eq!(ask(&fake.provider(format)).await.as_deref(), Ok("at last"));
    }

    async fn an_empty_account_is_not_asked_again(format: Format) {
        let code = if format == Format::Messages { "billing_error" } else { "insufficient_quota" };
        let fake = refusing(format, 1, "429 Too Many Requests", "", &format.error(code, "Your balance is 0")).await;
        let error = refusal(&fake, format).await;
        assert_eq!(error.fix(), Some("check the plan and the balance of the account"));
        assert_eq!(fake.requests().len(), 1);
    }

    async fn a_connection_lost_before_the_answer_is_tried_again(format: Format) {
        let fake = Fake::start(move |number, mut peer| async move {
            if number == 0 {
                return peer.reset();
            }
            peer.begin_events().await;
            peer.chunk(format.answer("at last")).await;
            peer.end().await;
        })
        .await;
        assert_eq!(ask(&fake.provider(format)).await.as_deref(), Ok("at last"));
        let fake = Fake::start(|_, peer| async move { peer.reset() }).await;
        assert_eq!(refusal(&fake, format).await.code(), "disconnected");
        assert_eq!(fake.requests().len(), 3);
    }
}
