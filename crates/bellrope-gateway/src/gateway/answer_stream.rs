//! An answer as it goes to the editor, whatever the provider does.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::mpsc;
use tracing::warn;

use super::notices::Notices;
use super::origins::Origins;
use super::route::Begun;
use super::thoughts::Thinking;
use super::upstream::{Running, silent};
use crate::error::{Blame, ProviderError};
use crate::log_limit;
use crate::message::{Chunk, ErrorInfo, SequencedChunk};
use crate::provider::{BoxFuture, ProviderStream};

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope_gateway::gateway";

/// An answer as it goes to the editor.
///
/// Whatever the provider does, the pieces are numbered from 0 and end with exactly one [`Chunk::Done`] or
/// [`Chunk::Error`]; then the provider's stream is dropped and the stream is over. It pulls, as [`ProviderStream`] does.
pub struct AnswerStream {
    stage: Stage,
    seq: u64,
    /// What is to be told of the request, if it is answered.
    asked: Vec<String>,
    notices: Notices,
    origins: Origins,
    /// Whether whoever asked keeps books, too.
    keeps_books: bool,
    /// What it thinks, if a provider may want that back.
    thinking: Option<Thinking>,
    /// The next piece, while there are notices to be told before it.
    next: Option<Chunk>,
    /// When it is worth asking again, once it has failed.
    retry_after: Option<Duration>,
}

enum Stage {
    /// No piece has come yet. What is to be known meanwhile comes from the receiver.
    Beginning(BoxFuture<'static, Result<Begun, ProviderError>>, mpsc::Receiver<String>),
    Answering(ProviderStream, Running),
    /// After the terminal piece.
    Over,
}

impl AnswerStream {
    /// `heard`: what is to be known until it has begun. `notes`: what is to be told of the request, if it is answered.
    pub(super) fn new(
        beginning: BoxFuture<'static, Result<Begun, ProviderError>>,
        heard: mpsc::Receiver<String>,
        notes: Vec<String>,
        (origins, thinking): (Origins, Option<Thinking>),
    ) -> Self {
        let stage = Stage::Beginning(beginning, heard);
        let (notices, keeps_books) = (Notices::default(), false);
        Self { stage, seq: 0, asked: notes, notices, origins, keeps_books, thinking, next: None, retry_after: None }
    }

    /// Has it say what books need to know of how it ended, if whoever asked keeps any.
    pub(super) fn for_books(self, keeps_books: bool) -> Self {
        Self { keeps_books, ..self }
    }

    /// How long to wait before the next request, once the answer has failed and it is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Ends it before its time, for this reason: the last piece, which says so.
    pub fn cut(&mut self, error: ProviderError) -> Chunk {
        if let Stage::Answering(_, mut running) = mem::replace(&mut self.stage, Stage::Over) {
            drop(running.fail(error.clone()));
        }
        (self.next, self.notices) = (None, Notices::default());
        error.into()
    }

    /// The next piece as the provider has it, those that tell something among them.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Chunk, ProviderError>>> {
        Poll::Ready(Some(match &mut self.stage {
            Stage::Beginning(beginning, heard) => match beginning.as_mut().poll(cx) {
                Poll::Ready(Ok(Begun { first, rest, unsaid, running })) => {
                    self.notices.extend(mem::take(&mut self.asked));
                    self.notices.extend(unsaid);
                    while let Ok(text) = heard.try_recv() {
                        self.notices.extend(vec![text]);
                    }
                    self.origins.note(&first, running.provider());
                    self.thinking.take_if(|_| !running.wants_thoughts());
                    self.thinking.iter_mut().for_each(|thinking| thinking.take_in(&first, running.provider()));
                    self.stage = Stage::Answering(rest, running);
                    Ok(first)
                }
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => match ready!(heard.poll_recv(cx)) {
                    Some(text) => Ok(Chunk::Notice { text }),
                    None => return Poll::Pending,
                },
            },
            Stage::Answering(pieces, running) => match ready!(pieces.as_mut().poll_next(cx)) {
                Some(Ok(mut chunk)) => {
                    running.sign(chunk.usage_mut());
                    running.take_in(&chunk);
                    self.origins.note(&chunk, running.provider());
                    self.thinking.iter_mut().for_each(|thinking| thinking.take_in(&chunk, running.provider()));
                    Ok(chunk)
                }
                failed => Err(running.fail(failed.and_then(Result::err).unwrap_or_else(silent))),
            },
            Stage::Over => return Poll::Ready(None),
        }))
    }
}

impl Stream for AnswerStream {
    type Item = SequencedChunk;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SequencedChunk>> {
        let chunk = loop {
            // What is to be told comes before the piece that it was found with.
            if let Some(notice) = self.notices.next() {
                break notice;
            }
            let piece = match self.next.take() {
                Some(next) => break next,
                None => ready!(self.poll_piece(cx)),
            };
            match piece {
                None => return Poll::Ready(None),
                Some(Ok(Chunk::Notice { text })) => self.notices.extend(vec![text]),
                Some(Ok(chunk)) => self.next = Some(chunk),
                Some(Err(error)) => {
                    log(&error);
                    self.retry_after = error.retry_after();
                    let not_sent = self.keeps_books && error.was_not_sent();
                    break Chunk::Error(ErrorInfo { not_sent, ..error.info() });
                }
            }
        };
        if chunk.is_terminal() {
            self.notices.log();
            self.stage = Stage::Over;
        }
        let seq = self.seq;
        self.seq += 1;
        Poll::Ready(Some(SequencedChunk { seq, chunk }))
    }
}

/// Logs why an answer failed.
pub(super) fn log(error: &ProviderError) {
    let lines = if error.blame() == Blame::Caller { &log_limit::OF_CALLERS } else { &log_limit::OF_PROVIDERS };
    if lines.may_come() {
        warn!(target: TARGET, code = error.code(), blame = ?error.blame(), %error, "an answer failed");
    }
}
