//! An answer as it goes to the editor, whatever the provider does.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::mpsc;
use tracing::warn;

use super::upstream::{Begun, Running, silent};
use crate::error::ProviderError;
use crate::message::{Chunk, SequencedChunk};
use crate::provider::{BoxFuture, ChunkStream};

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope_gateway::gateway";

/// An answer as it goes to the editor.
///
/// Whatever the provider does, the pieces are numbered from 0 and end with exactly one [`Chunk::Done`] or
/// [`Chunk::Error`]; then the provider's stream is dropped and the stream is over. It pulls, as [`ChunkStream`] does.
pub struct AnswerStream {
    stage: Stage,
    seq: u64,
    /// What comes next: what is to be known before the first piece, and that piece.
    ready: VecDeque<Chunk>,
}

enum Stage {
    /// No piece has come yet.
    Beginning(BoxFuture<'static, Result<Begun, ProviderError>>, mpsc::Receiver<String>),
    Answering(ChunkStream, Running),
    /// After the terminal piece.
    Over,
}

impl AnswerStream {
    /// `heard`: what is to be known until it has begun.
    pub(super) fn new(
        beginning: BoxFuture<'static, Result<Begun, ProviderError>>,
        heard: mpsc::Receiver<String>,
    ) -> Self {
        Self { stage: Stage::Beginning(beginning, heard), seq: 0, ready: VecDeque::new() }
    }
}

impl Stream for AnswerStream {
    type Item = SequencedChunk;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SequencedChunk>> {
        let this = &mut *self;
        let piece = match (this.ready.pop_front(), &mut this.stage) {
            (Some(ready), _) => Ok(ready),
            (None, Stage::Beginning(beginning, heard)) => match beginning.as_mut().poll(cx) {
                Poll::Ready(Ok(Begun { first, rest, running })) => {
                    while let Ok(text) = heard.try_recv() {
                        this.ready.push_back(Chunk::Notice { text });
                    }
                    this.ready.push_back(first);
                    this.stage = Stage::Answering(rest, running);
                    Ok(this.ready.pop_front().unwrap_or(Chunk::Unknown))
                }
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => match ready!(heard.poll_recv(cx)) {
                    Some(text) => Ok(Chunk::Notice { text }),
                    None => return Poll::Pending,
                },
            },
            (None, Stage::Answering(pieces, running)) => match ready!(pieces.as_mut().poll_next(cx)) {
                Some(Ok(chunk)) => {
                    running.take_in(&chunk);
                    Ok(chunk)
                }
                failed => Err(running.fail(failed.and_then(Result::err).unwrap_or_else(silent))),
            },
            (None, Stage::Over) => return Poll::Ready(None),
        };
        let chunk = piece.unwrap_or_else(|error| {
            log(&error);
            Chunk::from(error)
        });
        if chunk.is_terminal() {
            self.stage = Stage::Over;
        }
        let seq = self.seq;
        self.seq += 1;
        Poll::Ready(Some(SequencedChunk { seq, chunk }))
    }
}

/// Logs why an answer failed.
pub(super) fn log(error: &ProviderError) {
    warn!(target: TARGET, code = error.code(), blame = ?error.blame(), %error, "an answer failed");
}
