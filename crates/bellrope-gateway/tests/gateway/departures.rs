//! Every way in which a stream departs from its format, and what the editor gets then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bellrope_gateway::{
    ChatRequest, Chunk, HttpProvider, Phase, Provider, ProviderConfig, ProviderError, StopReason, ToolCall,
};
use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::fake::{Fake, error_after, items, pieces, soon};
use crate::for_each_format;
use crate::script::{Format, whole};

/// What a provider is given up after here: enough for a busy machine to bring what came before.
const SILENCE: Duration = Duration::from_secs(1);

/// A provider with other settings than the usual ones.
fn provider(fake: &Fake, format: Format, change: impl FnOnce(&mut ProviderConfig)) -> HttpProvider {
    let mut config = fake.config(format);
    change(&mut config);
    HttpProvider::new(config).unwrap()
}

/// Sends the keep-alives of the format, at most this often, until the client hangs up; then, or after `pings`, the answer.
async fn pinging(format: Format, pings: usize) -> Fake {
    Fake::start(move |_, mut peer| async move {
        peer.begin_events().await;
        for _ in 0..pings {
            peer.chunk(format.ping()).await;
            if timeout(Duration::from_millis(20), peer.closed()).await.is_ok() {
                return;
            }
        }
        peer.chunk(format.answer("a")).await;
        peer.end().await;
    })
    .await
}

/// Sends this and then nothing more, without closing.
async fn falling_silent(bytes: String) -> Fake {
    Fake::start(move |_, mut peer| {
        let bytes = bytes.clone();
        async move {
            peer.begin_events().await;
            peer.chunk(bytes).await;
            peer.closed().await;
        }
    })
    .await
}

for_each_format! {
    // Fault 53.
    async fn fin_without_a_terminator_is_truncated(format: Format) {
        let fake = Fake::start(move |_, mut peer| async move {
            peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
            peer.send(format.half("half an")).await;
            peer.send("data: {\"choices\":[{\"del").await;
        })
        .await;
        let error = error_after(&["half an"], items(&fake.provider(format)).await);
        assert_eq!(error.code(), "truncated");
        assert!(error.retryable(), "by the editor, who knows what it has shown");
        assert_eq!(fake.requests().len(), 1, "asked again after the first token");
    }

    async fn a_chunked_body_that_ends_well_but_too_early_is_truncated(format: Format) {
        let fake = Fake::streaming([&format.half("a")]).await;
        assert_eq!(error_after(&["a"], items(&fake.provider(format)).await).code(), "truncated");
    }

    async fn fin_after_the_reason_to_stop_is_whole_where_there_is_one(format: Format) {
        let fake = Fake::streaming([&format.script().text("a").stop("stop").out]).await;
        let items = items(&fake.provider(format)).await;
        match format {
            // Only the terminator itself says why.
            Format::Responses => assert_eq!(error_after(&["a"], items).code(), "truncated"),
            Format::ChatCompletions | Format::Messages => {
                assert_eq!(items.into_iter().map(Result::unwrap).collect::<Vec<_>>(), whole(&["a"]));
            }
        }
    }

    // Fault 53.
    async fn a_reset_is_truncated_and_never_asked_again_after_a_token(format: Format) {
        let shown = Arc::new(Notify::new());
        let may_reset = Arc::clone(&shown);
        let fake = Fake::start(move |_, mut peer| {
            let may_reset = Arc::clone(&may_reset);
            async move {
                peer.begin_events().await;
                peer.chunk(format.half("a")).await;
                // A reset throws away what was not read yet.
                may_reset.notified().await;
                peer.reset();
            }
        })
        .await;
        let mut stream = fake.provider(format).chat_stream(ChatRequest::user("Hello"));
        assert_eq!(soon(stream.next()).await, Some(Ok(Chunk::text("a"))));
        shown.notify_one();
        let error = soon(stream.next()).await.unwrap().unwrap_err();
        assert_eq!(error.code(), "truncated");
        assert!(soon(stream.next()).await.is_none());
        assert_eq!(fake.requests().len(), 1);
    }

    // Fault 53.
    async fn a_cut_chunked_body_is_truncated(format: Format) {
        let fake = Fake::start(move |_, mut peer| async move {
            peer.begin_events().await;
            peer.chunk(format.half("a")).await;
            peer.send("40\r\ndata: {").await;
        })
        .await;
        assert_eq!(error_after(&["a"], items(&fake.provider(format)).await).code(), "truncated");
    }

    // Fault 53.
    async fn a_split_anywhere_in_utf8_json_or_a_line_changes_nothing(format: Format) {
        let fake = Fake::start(move |_, mut peer| async move {
            peer.begin_events().await;
            for byte in format.answer("grüß Gott 🔔").bytes() {
                peer.chunk([byte]).await;
            }
            peer.end().await;
        })
        .await;
        assert_eq!(pieces(&fake.provider(format)).await, whole(&["grüß Gott 🔔"]));
    }

    // Fault 53.
    async fn crlf_is_a_line_end_also_byte_by_byte(format: Format) {
        let fake = Fake::start(move |_, mut peer| async move {
            peer.begin_events().await;
            for byte in format.answer("a").replace('\n', "\r\n").bytes() {
                peer.chunk([byte]).await;
            }
            peer.end().await;
        })
        .await;
        assert_eq!(pieces(&fake.provider(format)).await, whole(&["a"]));
    }

    async fn a_lone_carriage_return_is_a_line_end(format: Format) {
        let fake = Fake::streaming([&format.answer("a").replace('\n', "\r")]).await;
        assert_eq!(pieces(&fake.provider(format)).await, whole(&["a"]));
    }

    // Fault 53.
    async fn a_byte_order_mark_is_passed_over(format: Format) {
        let fake = Fake::streaming([&format!("\u{feff}{}", format.answer("a"))]).await;
        assert_eq!(pieces(&fake.provider(format)).await, whole(&["a"]));
    }

    async fn data_in_several_lines_is_one_event(format: Format) {
        let several_lines = format.answer("a").replace(",\"", ",\ndata: \"");
        let fake = Fake::streaming([&several_lines]).await;
        assert_eq!(pieces(&fake.provider(format)).await, whole(&["a"]));
    }

    async fn no_space_after_the_colon_is_no_difference(format: Format) {
        let fake = Fake::streaming([&format.answer("a").replace("data: ", "data:")]).await;
        assert_eq!(pieces(&fake.provider(format)).await, whole(&["a"]));
    }

    async fn a_last_event_without_its_empty_line_counts(format: Format) {
        let fake = Fake::streaming([format.answer("a").trim_end()]).await;
        assert_eq!(pieces(&fake.provider(format)).await, whole(&["a"]));
    }

    // Fault 53.
    async fn comments_alone_are_keep_alives(format: Format) {
        let commented = format!(": PROCESSING\n\n:\n\n{}", format.answer("a").replace("\n\n", "\n\n: ping\n\n"));
        let fake = Fake::streaming([&commented]).await;
        assert_eq!(pieces(&fake.provider(format)).await, whole(&["a"]));
    }

    async fn events_without_meaning_are_passed_over(format: Format) {
        let unknown = "event: later_addition\ndata: {\"type\":\"later_addition\",\"x\":[1]}\n\n";
        let answer = format.script().raw(unknown).text("a").raw(unknown).raw("event: ping\ndata: {\"type\":\"ping\"}\n\n");
        let fake = Fake::streaming([&answer.stop("stop").end()]).await;
        assert_eq!(pieces(&fake.provider(format)).await, whole(&["a"]));
    }

    // Fault 53.
    async fn a_stall_without_pings_runs_into_the_idle_time_out(format: Format) {
        let fake = falling_silent(format.half("a")).await;
        let idle = SILENCE;
        let provider = provider(&fake, format, |config| config.idle_timeout = idle);
        let error = error_after(&["a"], items(&provider).await);
        assert_eq!(error, ProviderError::TimedOut { phase: Phase::Idle, after: idle });
    }

    async fn a_model_that_thinks_long_behind_its_head_is_waited_for(format: Format) {
        let fake = Fake::start(move |_, mut peer| async move {
            peer.begin_events().await;
            sleep(3 * SILENCE).await;
            peer.chunk(format.answer("a")).await;
        })
        .await;
        let provider = provider(&fake, format, |config| config.idle_timeout = SILENCE);
        assert_eq!(pieces(&provider).await, whole(&["a"]));
    }

    // Fault 53.
    async fn a_stall_with_pings_runs_into_the_event_time_out(format: Format) {
        let fake = pinging(format, usize::MAX).await;
        let event = SILENCE;
        let provider = provider(&fake, format, |config| config.event_timeout = event);
        let error = error_after(&[], items(&provider).await);
        assert_eq!(error, ProviderError::TimedOut { phase: Phase::Event, after: event });
    }

    async fn events_that_bring_nothing_of_the_answer_are_no_more_than_pings(format: Format) {
        let fake = Fake::start(move |_, mut peer| async move {
            peer.begin_events().await;
            peer.chunk(format.half("a")).await;
            while timeout(Duration::from_millis(10), peer.closed()).await.is_err() {
                peer.chunk("event: later_addition\ndata: {\"type\":\"later_addition\"}\n\n: ping\n\n").await;
            }
        })
        .await;
        let event = SILENCE;
        let provider = provider(&fake, format, |config| config.event_timeout = event);
        let error = error_after(&["a"], items(&provider).await);
        assert_eq!(error, ProviderError::TimedOut { phase: Phase::Event, after: event });
    }

    async fn pings_keep_a_slow_answer_alive(format: Format) {
        // Together they take longer than the server may be silent.
        let fake = pinging(format, 60).await;
        let provider = provider(&fake, format, |config| config.idle_timeout = SILENCE);
        assert_eq!(pieces(&provider).await, whole(&["a"]));
    }

    async fn silence_after_the_reason_to_stop_is_no_error_where_there_is_one(format: Format) {
        let fake = falling_silent(format.script().text("a").stop("stop").out).await;
        let provider = provider(&fake, format, |config| config.idle_timeout = SILENCE);
        let items = items(&provider).await;
        match format {
            Format::Responses => assert_eq!(error_after(&["a"], items).code(), "timeout"),
            Format::ChatCompletions | Format::Messages => {
                assert_eq!(items.into_iter().map(Result::unwrap).collect::<Vec<_>>(), whole(&["a"]));
            }
        }
    }

    async fn an_error_within_the_stream_ends_it_and_nothing_follows(format: Format) {
        let failed = format.script().text("a").fail("overloaded_error", "Too many at once").text("late");
        let fake = Fake::streaming([&failed.stop("stop").end()]).await;
        let error = error_after(&["a"], items(&fake.provider(format)).await);
        let words = "the provider broke off with an error (overloaded_error): Too many at once";
        assert_eq!((error.to_string().as_str(), error.code(), error.retryable()), (words, "overloaded", true));
    }

    // Fault 53.
    async fn interleaved_calls_of_tools_are_put_together_by_index(format: Format) {
        let answer = format
            .script()
            .tool(1, "b", "grep")
            .tool(0, "a", "ls")
            .arguments(0, "{\"p")
            .arguments(1, "{}")
            .arguments(0, "ath\":1}")
            .stop("tools")
            .end();
        let fake = Fake::streaming([&answer]).await;
        let response = soon(fake.provider(format).chat(ChatRequest::user("Hello"))).await.unwrap();
        let expected = [("b", "grep", "{}"), ("a", "ls", r#"{"path":1}"#)].map(|(id, name, arguments)| ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: arguments.into(),
            ..ToolCall::default()
        });
        assert_eq!((response.tool_calls.as_slice(), response.stop_reason), (&expected[..], StopReason::ToolUse));
    }

    // Fault 53.
    async fn an_event_of_a_megabyte_arrives_and_one_beyond_the_limit_is_refused(format: Format) {
        let large = "x".repeat(1 << 20);
        let fake = Fake::streaming([&format.answer(&large)]).await;
        assert_eq!(pieces(&fake.provider(format)).await, whole(&[&large]));
        let fake = Fake::streaming([&format.answer(&"x".repeat(5 << 20))]).await;
        assert_eq!(error_after(&[], items(&fake.provider(format)).await).code(), "answer_too_large");
    }

    // Fault 53.
    async fn nothing_follows_the_terminator(format: Format) {
        let fake = Fake::streaming([&format.answer("a"), &format.half("late"), &format.answer("later")]).await;
        assert_eq!(pieces(&fake.provider(format)).await, whole(&["a"]));
    }

    // Fault 53.
    async fn json_that_is_cut_within_an_event_is_malformed(format: Format) {
        let cut = format.script().text("a").raw("data: {\"type\":[\n\n");
        let fake = Fake::streaming([&cut.out]).await;
        let error = error_after(&["a"], items(&fake.provider(format)).await);
        assert_eq!(error.code(), "malformed");
        assert!(error.to_string().contains(r#"{"type":["#), "{error}");
    }

    async fn a_flood_without_a_line_end_is_refused_at_the_limit(format: Format) {
        let fake = Fake::start(|_, mut peer| async move {
            peer.begin_events().await;
            let flood = vec![b'x'; 1 << 20];
            for _ in 0..16 {
                peer.chunk(&flood).await;
            }
            peer.closed().await;
        })
        .await;
        assert_eq!(error_after(&[], items(&fake.provider(format)).await).code(), "answer_too_large");
    }

    async fn dropping_the_stream_closes_the_socket_at_every_stage(format: Format) {
        let closed = Arc::new(Notify::new());
        let tell = Arc::clone(&closed);
        let fake = Fake::start(move |number, mut peer| {
            let tell = Arc::clone(&tell);
            async move {
                if number == 1 {
                    peer.begin_events().await;
                    peer.chunk(format.half("a")).await;
                }
                peer.closed().await;
                tell.notify_one();
            }
        })
        .await;
        let provider = fake.provider(format);
        // While the head of the response is awaited.
        let mut stream = provider.chat_stream(ChatRequest::user("Hello"));
        let asked = async {
            while fake.requests().is_empty() {
                assert!(timeout(Duration::from_millis(5), stream.next()).await.is_err());
            }
        };
        soon(asked).await;
        drop(stream);
        soon(closed.notified()).await;
        // In the midst of the answer.
        let mut stream = provider.chat_stream(ChatRequest::user("Hello"));
        assert_eq!(soon(stream.next()).await, Some(Ok(Chunk::text("a"))));
        drop(stream);
        soon(closed.notified()).await;
    }

    async fn a_slow_consumer_slows_the_provider_down(format: Format) {
        const EVENTS: usize = 512;
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        let text = "x".repeat(64 * 1024);
        let mut script = format.script();
        for _ in 0..EVENTS {
            script = script.text(&text);
        }
        let body = script.stop("stop").end();
        let total = body.len();
        let fake = Fake::start(move |_, mut peer| {
            let (counter, body) = (Arc::clone(&counter), body.clone());
            async move {
                peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
                peer.send_counting(body.as_bytes(), |sent| counter.store(sent, Ordering::Relaxed)).await;
            }
        })
        .await;
        let mut stream = fake.provider(format).chat_stream(ChatRequest::user("Hello"));
        assert_eq!(soon(stream.next()).await, Some(Ok(Chunk::text(text.as_str()))));
        // Without anybody who polls, the provider comes to a halt. (Should it only seem so, the test merely proves less.)
        let halted = async {
            let mut before = 0;
            loop {
                sleep(Duration::from_millis(100)).await;
                let now = sent.load(Ordering::Relaxed);
                if now == before {
                    break now;
                }
                before = now;
            }
        };
        let halted_at = soon(halted).await;
        assert!(halted_at < total, "all {total} bytes were taken from a provider nobody listened to");
        // As soon as somebody does, all the rest comes.
        let rest: Vec<_> = soon(stream.collect()).await;
        assert_eq!(rest.len(), EVENTS - 1 + 2);
        assert_eq!(rest.last(), Some(&Ok(Chunk::Done { stop_reason: StopReason::EndTurn })));
        assert_eq!(sent.load(Ordering::Relaxed), total);
    }

    async fn a_whole_answer_gives_its_connection_back(format: Format) {
        let reused = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&reused);
        let fake = Fake::start(move |_, mut peer| {
            let tell = Arc::clone(&tell);
            async move {
                loop {
                    peer.begin_events().await;
                    peer.chunk(format.answer("a")).await;
                    peer.end().await;
                    if !peer.next_request().await {
                        break;
                    }
                    tell.store(true, Ordering::Relaxed);
                }
            }
        })
        .await;
        let provider = fake.provider(format);
        // The connection comes back in the background: not always in time for the very next request, but soon.
        let asked = async {
            while !reused.load(Ordering::Relaxed) {
                assert_eq!(pieces(&provider).await, whole(&["a"]));
            }
        };
        soon(asked).await;
    }

    async fn a_little_that_follows_an_answer_is_read_for_its_connection_and_much_is_not(format: Format) {
        for (rest, read) in [(": bye\n\n".to_owned(), true), (":".repeat(100_000), false)] {
            let reused = Arc::new(AtomicBool::new(false));
            let tell = Arc::clone(&reused);
            let fake = Fake::start(move |_, mut peer| {
                let (tell, rest) = (Arc::clone(&tell), rest.clone());
                async move {
                    loop {
                        peer.begin_events().await;
                        peer.chunk(format.answer("a")).await;
                        peer.chunk(&rest).await;
                        peer.end().await;
                        if !peer.next_request().await {
                            break;
                        }
                        tell.store(true, Ordering::Relaxed);
                    }
                }
            })
            .await;
            let provider = fake.provider(format);
            let asked = async {
                for round in 0.. {
                    assert_eq!(pieces(&provider).await, whole(&["a"]));
                    if reused.load(Ordering::Relaxed) || !read && round == 3 {
                        break;
                    }
                }
            };
            soon(asked).await;
            assert_eq!(reused.load(Ordering::Relaxed), read);
        }
    }
}
