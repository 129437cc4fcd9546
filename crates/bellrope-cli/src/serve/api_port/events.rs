//! An answer as server-sent events, pulled from the gateway as they are asked for.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bellrope_gateway::{AnswerRoom, AnswerStream, Chunk, ServerStop, inbound::AnswerWriter};
use futures_util::Stream;
use hyper::body::{Bytes, Frame};
use tokio::time::{Instant, Sleep, sleep};

/// Events that are ready at once go out in pieces of about this many bytes.
const PIECE: usize = 16 * 1024;
/// How long nothing comes before the reader hears that the connection is alive. The provider has its own bounds.
const SILENCE: Duration = Duration::from_secs(15);

/// The events of one answer.
pub(super) struct Events {
    pieces: Option<AnswerStream>,
    writer: Box<dyn AnswerWriter>,
    /// What is ready to go out.
    ready: Vec<u8>,
    silence: Duration,
    ping: Pin<Box<Sleep>>,
    end: ServerStop,
    /// For what the writer holds back.
    room: AnswerRoom,
}

impl Events {
    /// An answer that has begun with `first`. `room`: for what of it is held back.
    pub(super) fn new(
        writer: Box<dyn AnswerWriter>,
        first: Chunk,
        pieces: AnswerStream,
        (room, end): (AnswerRoom, ServerStop),
    ) -> Self {
        Self::with_silence(SILENCE, writer, first, (pieces, room, end))
    }

    fn with_silence(
        silence: Duration,
        mut writer: Box<dyn AnswerWriter>,
        first: Chunk,
        (pieces, room, end): (AnswerStream, AnswerRoom, ServerStop),
    ) -> Self {
        let mut ready = Vec::new();
        writer.begin(&mut ready);
        let mut events =
            Self { pieces: Some(pieces), writer, ready, silence, ping: Box::pin(sleep(silence)), end, room };
        events.take(first);
        events
    }

    fn take(&mut self, chunk: Chunk) {
        if chunk.is_terminal() {
            self.pieces = None;
        }
        self.writer.chunk(chunk, &mut self.ready);
        if let Err(error) = self.room.hold_back(self.writer.held())
            && let Some(mut pieces) = self.pieces.take()
        {
            let last = pieces.cut(error);
            self.writer.chunk(last, &mut self.ready);
        }
    }
}

impl Stream for Events {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.end.has_come()
            && let Some(mut pieces) = self.pieces.take()
        {
            let last = pieces.cut(ServerStop::error());
            self.take(last);
        }
        loop {
            while self.ready.len() < PIECE {
                let Some(pieces) = &mut self.pieces else { break };
                match Pin::new(pieces).poll_next(context) {
                    Poll::Ready(Some(piece)) => self.take(piece.chunk),
                    Poll::Ready(None) => self.pieces = None,
                    Poll::Pending => break,
                }
            }
            if !self.ready.is_empty() {
                let due = Instant::now() + self.silence;
                self.ping.as_mut().reset(due);
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.ready).into()))));
            }
            if self.pieces.is_none() {
                return Poll::Ready(None);
            }
            if self.ping.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            let this = &mut *self;
            this.writer.ping(&mut this.ready);
        }
    }
}

#[cfg(test)]
mod tests {
    use bellrope_gateway::{
        BoxFuture, Capabilities, ChatRequest, Gateway, ModelInfo, Provider, ProviderError, ProviderHealth,
        ProviderStream, StopReason, inbound::ToolFormat,
    };
    use futures_util::{StreamExt, stream};
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    use super::*;

    /// A provider that says one word and then nothing, or so many KiB.
    struct Says(usize);

    impl Provider for Says {
        fn name(&self) -> &str {
            "silent"
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities::default()
        }

        fn chat_stream(&self, _: ChatRequest) -> ProviderStream {
            match self.0 {
                0 => Box::pin(stream::iter([Ok(Chunk::text("Hm"))]).chain(stream::pending())),
                kib => {
                    let said = (0..kib).map(|_| Ok(Chunk::text("x".repeat(1_024))));
                    let end = Ok(Chunk::Done { stop_reason: StopReason::EndTurn });
                    Box::pin(stream::iter(said.chain([end]).collect::<Vec<_>>()))
                }
            }
        }

        fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, ProviderError>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn health(&self) -> BoxFuture<'_, ProviderHealth> {
            let health =
                ProviderHealth { provider: "silent".into(), healthy: true, latency: Duration::ZERO, error: None };
            Box::pin(async { health })
        }
    }

    #[tokio::test]
    async fn a_reader_hears_of_a_silent_answer_that_it_is_alive() {
        for (format, expected) in [
            (ToolFormat::Messages, "event: ping\ndata: {\"type\":\"ping\"}\n\n"),
            (ToolFormat::ChatCompletions, ": waiting\n\n"),
        ] {
            let body = br#"{"messages":[{"role":"user","content":"Hi"}]}"#;
            let asked = format.read(body, &[]).unwrap();
            let mut pieces = Gateway::new(Arc::new(Says(0))).chat_stream(asked.chat);
            let first = pieces.next().await.unwrap().chunk;
            let mut events = Events::with_silence(
                Duration::from_millis(1),
                asked.writer,
                first,
                (pieces, AnswerRoom::default(), ServerStop::default()),
            );
            let mut next = async || events.next().await.unwrap().unwrap().into_data().unwrap();
            next().await;
            assert_eq!((next().await, next().await), (expected.into(), expected.into()));
        }
    }

    // Fault 58.
    #[tokio::test]
    async fn what_streams_hold_back_for_their_last_event_has_room_or_they_end() {
        let all = Arc::new(Semaphore::new(1_024));
        let body = br#"{"model":"m","input":"Hi","stream":true}"#;
        let answer = async |room: AnswerRoom| {
            let asked = ToolFormat::Responses.read(body, &[]).unwrap();
            let mut pieces = Gateway::new(Arc::new(Says(500))).chat_stream(asked.chat);
            let first = pieces.next().await.unwrap().chunk;
            let events = Events::new(asked.writer, first, pieces, (room, ServerStop::default()));
            let whole = events.map(|frame| frame.unwrap().into_data().unwrap().to_vec()).collect::<Vec<_>>().await;
            String::from_utf8(whole.concat()).unwrap()
        };
        let whole = answer(AnswerRoom::of_all(Arc::clone(&all))).await;
        assert!(whole.contains("response.completed") && whole.len() > 500_000, "{}", whole.len());
        assert_eq!(all.available_permits(), 1_024, "it is given back");
        // Others have most of it.
        let _others = Arc::clone(&all).try_acquire_many_owned(900).unwrap();
        let cut = answer(AnswerRoom::of_all(all)).await;
        assert!(cut.contains("response.failed") && !cut.contains("response.completed"), "{}", &cut[cut.len() - 500..]);
        assert!(cut.contains("too much is held of the answers"), "{}", &cut[cut.len() - 500..]);
    }
}
