//! Reading the events of an answer: what the translators of all formats share.

use std::collections::VecDeque;
use std::fmt;

use serde::Deserialize;

use super::fault::Fault;
use crate::error::{Excerpt, ProviderError};
use crate::message::{Chunk, StopReason, Usage};
use crate::secret::Secret;
use crate::sse::Event;

/// Whether more events are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More events belong to the answer.
    Continues,
    /// The answer is whole, and [`Chunk::Done`] was handed out.
    Ended,
}

/// Turns the events of one answer into [`Chunk`]s.
///
/// It knows no socket and no clock, so that every answer that a provider may ever give can be played to it.
pub trait Translate: fmt::Debug + Send {
    /// Takes one event in and appends what it says to `out`.
    ///
    /// # Errors
    /// The event reports an error, or cannot be read. What was appended before stays valid, and nothing may follow.
    fn event(&mut self, event: Event<'_>, out: &mut VecDeque<Chunk>) -> Result<Progress, ProviderError>;

    /// Hands out the end of an answer that has said why it stopped, though perhaps not that it is over. `false`, and
    /// nothing is handed out, if it has not.
    fn finish(&mut self, out: &mut VecDeque<Chunk>) -> bool;

    /// Takes in that the connection is at its end or broken, for `reason`, perhaps within an event.
    ///
    /// # Errors
    /// [`ProviderError::Truncated`] if the answer is not whole.
    fn end(
        &mut self,
        unfinished: Option<Event<'_>>,
        reason: Excerpt,
        out: &mut VecDeque<Chunk>,
    ) -> Result<Progress, ProviderError> {
        match unfinished.map(|event| self.event(event, out)) {
            // What does not parse is cut, which is no fault of the provider's format.
            None | Some(Ok(Progress::Continues) | Err(ProviderError::Malformed { .. })) => {}
            Some(ended) => return ended,
        }
        if self.finish(out) { Ok(Progress::Ended) } else { Err(ProviderError::Truncated { reason }) }
    }
}

/// Reads what events hold, and keeps the provider's key out of the errors.
#[derive(Debug, Default)]
pub(super) struct EventReader {
    key: Option<Secret>,
}

impl EventReader {
    pub(super) fn new(key: Option<Secret>) -> Self {
        Self { key }
    }

    /// An event's JSON.
    ///
    /// # Errors
    /// [`ProviderError::Malformed`] if it is not what the format says.
    pub(super) fn read<'a, T: Deserialize<'a>>(&self, data: &'a str) -> Result<T, ProviderError> {
        serde_json::from_str(data)
            .map_err(|error| ProviderError::Malformed { reason: self.excerpt(&format!("{error} in {data}")) })
    }

    /// The error that a provider reports within its stream.
    pub(super) fn reported(&self, error: &str) -> ProviderError {
        let fault = Fault::in_body(error.as_bytes()).unwrap_or_default();
        ProviderError::Reported {
            code: fault.code.as_deref().map(|code| self.excerpt(code)),
            message: if fault.message.is_empty() { "no message".into() } else { self.excerpt(&fault.message) },
            status: fault.status,
            retryable: fault.is_retryable(),
        }
    }

    fn excerpt(&self, text: &str) -> Excerpt {
        Secret::excerpt(self.key.as_ref(), text)
    }
}

/// Appends the end of an answer: what it took, if that is known, and why it stopped.
pub(super) fn push_end(out: &mut VecDeque<Chunk>, usage: Option<impl Into<Usage>>, stop_reason: StopReason) {
    out.extend(usage.map(|usage| Chunk::Usage(usage.into())));
    out.push_back(Chunk::Done { stop_reason });
}
