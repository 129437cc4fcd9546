//! Answers that come in another shape than was asked for.

use bellrope_gateway::{Chunk, StopReason};

use crate::fake::{Fake, error_after, items, pieces};
use crate::for_each_format;
use crate::script::{Format, whole};

/// The types under which servers send what was not asked for under them.
const TYPES: [&str; 5] = [
    "content-type: application/json\r\n",
    "content-type: text/plain; charset=utf-8\r\n",
    "content-type: text/html\r\n",
    "content-type: text/event-stream\r\n",
    "",
];

/// A whole answer of the format that says `Four.`.
fn document(format: Format) -> &'static str {
    match format {
        Format::ChatCompletions => {
            r#"{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Four."},"finish_reason":"stop"}]}"#
        }
        Format::Responses => {
            r#"{"id":"x","object":"response","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"Four."}]}]}"#
        }
        Format::Messages => {
            r#"{"id":"x","type":"message","role":"assistant","content":[{"type":"text","text":"Four."}],"stop_reason":"end_turn"}"#
        }
    }
}

for_each_format! {
    async fn a_whole_answer_is_taken_in_place_of_a_stream_under_any_type(format: Format) {
        for headers in TYPES {
            for blanks in ["", "\n \r\n"] {
                let fake = Fake::replying("200 OK", headers, &format!("{blanks}{}\n", document(format))).await;
                let expected = [Chunk::text("Four."), Chunk::Done { stop_reason: StopReason::EndTurn }];
                assert_eq!(pieces(&fake.provider(format)).await, expected, "{headers:?}");
            }
        }
    }

    async fn events_are_taken_under_any_type(format: Format) {
        for headers in TYPES {
            let fake = Fake::replying("200 OK", headers, &format!(": hello\n\n{}", format.answer("a"))).await;
            assert_eq!(pieces(&fake.provider(format)).await, whole(&["a"]), "{headers:?}");
        }
    }

    async fn an_error_that_comes_with_success_is_what_it_says(format: Format) {
        for headers in TYPES {
            let body = r#"{"error":{"message":"too many requests for now","code":429}}"#;
            let fake = Fake::replying("200 OK", headers, body).await;
            let error = error_after(&[], items(&fake.provider(format)).await);
            assert_eq!((error.code(), error.retryable()), ("rate_limited", true), "{headers:?}");
            assert!(error.to_string().contains("too many requests for now"), "{error}");
        }
    }

    async fn a_whole_answer_that_breaks_off_is_truncated(format: Format) {
        let document = document(format);
        let fake = Fake::replying("200 OK", TYPES[0], &document[..document.len() - 5]).await;
        assert_eq!(error_after(&[], items(&fake.provider(format)).await).code(), "truncated");
    }

    async fn a_document_that_is_no_answer_names_the_address_to_check(format: Format) {
        for (headers, body) in [(TYPES[0], r#"{"version":"1.2"}"#), (TYPES[1], "It works!"), (TYPES[0], "")] {
            let fake = Fake::replying("200 OK", headers, body).await;
            let error = error_after(&[], items(&fake.provider(format)).await);
            assert_eq!(error.code(), "unexpected_content", "{body}");
            assert!(error.to_string().contains("_BASE_URL"), "{error}");
        }
    }

    async fn a_document_without_end_is_refused_at_the_limit(format: Format) {
        let fake = Fake::start(|_, mut peer| async move {
            peer.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"").await;
            let flood = vec![b'x'; 1 << 20];
            for _ in 0..16 {
                peer.send(&flood).await;
            }
            peer.closed().await;
        })
        .await;
        assert_eq!(error_after(&[], items(&fake.provider(format)).await).code(), "answer_too_large");
    }
}
