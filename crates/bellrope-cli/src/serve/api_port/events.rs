//! An answer as server-sent events, pulled from the gateway as they are asked for.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bellrope_gateway::{AnswerStream, Chunk, ServerStop, inbound::AnswerWriter};
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
}

impl Events {
    /// An answer that has begun with `first`.
    pub(super) fn new(writer: Box<dyn AnswerWriter>, first: Chunk, pieces: AnswerStream, end: ServerStop) -> Self {
        Self::with_silence(SILENCE, writer, first, (pieces, end))
    }

    fn with_silence(
        silence: Duration,
        mut writer: Box<dyn AnswerWriter>,
        first: Chunk,
        (pieces, end): (AnswerStream, ServerStop),
    ) -> Self {
        let mut ready = Vec::new();
        writer.begin(&mut ready);
        let mut events = Self { pieces: Some(pieces), writer, ready, silence, ping: Box::pin(sleep(silence)), end };
        events.take(first);
        events
    }

    fn take(&mut self, chunk: Chunk) {
        if chunk.is_terminal() {
            self.pieces = None;
        }
        self.writer.chunk(chunk, &mut self.ready);
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
        ProviderStream, inbound::ToolFormat,
    };
    use futures_util::{StreamExt, stream};
    use std::sync::Arc;

    use super::*;

    /// A provider that says one word and then nothing.
    struct Silent;

    impl Provider for Silent {
        fn name(&self) -> &str {
            "silent"
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities::default()
        }

        fn chat_stream(&self, _: ChatRequest) -> ProviderStream {
            Box::pin(stream::iter([Ok(Chunk::text("Hm"))]).chain(stream::pending()))
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
            let mut pieces = Gateway::new(Arc::new(Silent)).chat_stream(asked.chat);
            let first = pieces.next().await.unwrap().chunk;
            let mut events =
                Events::with_silence(Duration::from_millis(1), asked.writer, first, (pieces, ServerStop::default()));
            let mut next = async || events.next().await.unwrap().unwrap().into_data().unwrap();
            next().await;
            assert_eq!((next().await, next().await), (expected.into(), expected.into()));
        }
    }
}
