//! The pause that a provider asks for: bounded by a setting, told while it lasts, and ended when nobody needs it longer.

use std::sync::Arc;
use std::time::Duration;

use bellrope_gateway::{ChatRequest, Chunk, Gateway, GatewaySettings, SequencedChunk};
use futures_util::StreamExt;

use crate::fake::{Fake, soon};
use crate::for_each_format;
use crate::script::{Format, whole};

/// Refuses the first request with this header, then answers.
async fn asking_for_a_pause(format: Format, header: &str) -> Fake {
    let head = format!("{header}\r\nconnection: close\r\n");
    Fake::start(move |number, mut peer| {
        let head = head.clone();
        async move {
            if number == 0 {
                return peer.reply("429 Too Many Requests", &head, "").await;
            }
            peer.begin_events().await;
            peer.chunk(format.answer("at last")).await;
            peer.end().await;
        }
    })
    .await
}

/// A gateway with this one provider, which may ask for a pause of so many milliseconds.
fn gateway(fake: &Fake, format: Format, max_retry_wait_ms: u64) -> Gateway {
    let settings = GatewaySettings {
        provider: "one".to_owned(),
        max_retry_wait: Duration::from_millis(max_retry_wait_ms),
        providers: [("one".to_owned(), fake.config(format))].into(),
        ..GatewaySettings::default()
    };
    Gateway::from_settings_and_vars(settings, |name| (name == "KEY").then(|| "sk-123456".to_owned())).unwrap()
}

async fn chunks(gateway: &Gateway) -> Vec<Chunk> {
    let pieces: Vec<SequencedChunk> = soon(gateway.chat_stream(ChatRequest::user("Hello")).collect()).await;
    assert!(pieces.iter().enumerate().all(|(at, piece)| piece.seq == at as u64), "{pieces:?}");
    pieces.into_iter().map(|piece| piece.chunk).collect()
}

for_each_format! {
    async fn a_stream_is_told_of_a_pause_before_it_and_nothing_of_the_answer_is_lost(format: Format) {
        let fake = asking_for_a_pause(format, "retry-after-ms: 300").await;
        let mut pieces = chunks(&gateway(&fake, format, 20_000)).await;
        let Chunk::Notice { text } = pieces.remove(0) else { panic!("{pieces:?}") };
        assert!(text.contains("asks to wait 1 s, as it has had too many requests"), "{text}");
        assert_eq!(pieces, whole(&["at last"]));
        let fake = asking_for_a_pause(format, "retry-after-ms: 1").await;
        assert_eq!(soon(gateway(&fake, format, 20_000).chat(ChatRequest::user("Hello"))).await.unwrap().text, "at last");
    }

    async fn a_pause_over_the_bound_is_told_at_once_with_its_time(format: Format) {
        for (header, max_ms, seconds) in [("retry-after: 21", 20_000, 21), ("retry-after: 2", 1_000, 2), ("x-ratelimit-reset-requests: 6m0s", 20_000, 360)] {
            let fake = asking_for_a_pause(format, header).await;
            let pieces = chunks(&gateway(&fake, format, max_ms)).await;
            let [Chunk::Error(info)] = &pieces[..] else { panic!("{pieces:?}") };
            assert_eq!((&*info.code, info.retryable), ("rate_limited", true));
            assert!(info.message.contains(&format!("429, too many requests: no message; try again in {seconds} s")), "{}", info.message);
            assert_eq!(fake.requests().len(), 1);
        }
    }

    async fn a_pause_ends_when_the_server_drains_and_when_its_caller_goes(format: Format) {
        let fake = asking_for_a_pause(format, "retry-after: 3000").await;
        let gateway = Arc::new(gateway(&fake, format, 3_600_000));
        let mut stream = gateway.chat_stream(ChatRequest::user("Hello"));
        assert!(matches!(soon(stream.next()).await.unwrap().chunk, Chunk::Notice { .. }));
        gateway.begin_drain();
        let Chunk::Error(info) = soon(stream.next()).await.unwrap().chunk else { panic!("no error") };
        assert_eq!((&*info.code, info.retryable), ("rate_limited", true));
        assert!(soon(stream.next()).await.is_none());

        let fake = asking_for_a_pause(format, "retry-after: 3000").await;
        let gateway = self::gateway(&fake, format, 3_600_000);
        let mut stream = gateway.chat_stream(ChatRequest::user("Hello"));
        assert!(matches!(soon(stream.next()).await.unwrap().chunk, Chunk::Notice { .. }));
        drop(stream);
        let seen = gateway.snapshot().providers.into_iter().find(|seen| seen.provider == "one").unwrap();
        assert_eq!((seen.cancelled, seen.in_flight), (1, 0));
    }
}
