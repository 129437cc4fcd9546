//! Reading the events of an answer: what the translators of all formats share.

use std::collections::VecDeque;
use std::fmt;

use serde_json::value::RawValue;

use super::answer::PartialAnswer;
use super::fault::StatedFault;
use super::heard::Heard;
use crate::error::{Excerpt, ProviderError};
use crate::json::{each, fields, raw};
use crate::message::Chunk;
use crate::sse::SseEvent;

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
    fn event(&mut self, event: SseEvent<'_>, out: &mut VecDeque<Chunk>) -> Result<Progress, ProviderError>;

    /// Takes in a whole answer, which some servers send though a stream was asked for. `false`, and nothing is handed
    /// out, if the text is no answer of this format.
    ///
    /// # Errors
    /// It reports an error, or is cut off.
    fn document(&mut self, json: &str, out: &mut VecDeque<Chunk>) -> Result<bool, ProviderError>;

    /// Hands out the end of an answer that has said why it stopped, though perhaps not that it is over. `false`, and the
    /// answer is not whole, if it has not. Nothing may follow either way.
    ///
    /// # Errors
    /// The answer is over, but holds nothing.
    fn finish(&mut self, out: &mut VecDeque<Chunk>) -> Result<bool, ProviderError>;

    /// Takes in how many tokens the answer may have, for formats in which that alone shows that it was cut.
    fn limit(&mut self, _max_output_tokens: Option<u32>) {}

    /// Takes in that an answer of nothing is one: a prompt may be at its end, and what goes through is the reader's business.
    fn may_be_empty(&mut self) {}

    /// Takes in that an event was passed over, because it cannot be read or is too large: what the others say may be all the
    /// same an answer.
    fn missed(&mut self) {}

    /// What was said since this was asked for last, whether or not the answer comes to an end.
    fn heard(&mut self) -> Heard {
        Heard::default()
    }

    /// Whether the provider has said that each of so many choices is over. An answer that is handed on as it comes, and whose
    /// last event is missing, is whole only then.
    fn is_over(&self, _choices: u32) -> bool {
        false
    }

    /// Takes in that the connection is at its end or broken, for `reason`, perhaps within an event.
    ///
    /// # Errors
    /// [`ProviderError::Truncated`] if the answer is not whole.
    fn end(
        &mut self,
        unfinished: Option<SseEvent<'_>>,
        reason: Excerpt,
        out: &mut VecDeque<Chunk>,
    ) -> Result<Progress, ProviderError> {
        match unfinished.map(|event| self.event(event, out)) {
            // What does not parse is cut, which is no fault of the provider's format.
            None | Some(Ok(Progress::Continues) | Err(ProviderError::Malformed { .. })) => {}
            Some(ended) => return ended,
        }
        if self.finish(out)? { Ok(Progress::Ended) } else { Err(ProviderError::Truncated { reason }) }
    }
}

/// What a format knows of its events. All else is the same for all formats.
pub(super) trait Frames: fmt::Debug + Send {
    /// Whether the word `[DONE]` ends an answer.
    const DONE_ENDS: bool;

    /// The answer so far.
    fn answer(&mut self) -> &mut PartialAnswer;

    /// Takes in the JSON of an event called `name`.
    fn frame(&mut self, name: &str, frame: &RawValue, out: &mut VecDeque<Chunk>) -> Result<Progress, ProviderError>;

    /// Takes a whole answer in; `false` if it is none.
    fn whole(&mut self, document: &RawValue, out: &mut VecDeque<Chunk>) -> Result<bool, ProviderError>;

    /// See [`Translate::is_over`].
    fn has_all(&self, _choices: u32) -> bool {
        false
    }

    /// See [`Translate::limit`].
    fn limited(&mut self, _max_output_tokens: Option<u32>) {}

    /// Takes in what an event that says why there is no answer tells of what it took: beside the error, within it, or in the
    /// response.
    fn said_with_error(&mut self, event: &RawValue) {
        let Some([usage, error, response]) = fields(event, ["usage", "error", "response"]) else { return };
        let inner =
            [error, response].map(|said| said.and_then(|said| fields(said, ["usage"])).and_then(|[usage]| usage));
        inner.into_iter().chain([usage]).for_each(|usage| self.answer().usage().update(usage));
    }
}

/// Takes in a list: of one whole answer, or of what would be the events of a stream. How far the answer has come; `None` if none of it
/// is one.
fn listed<F: Frames>(
    format: &mut F,
    list: &RawValue,
    out: &mut VecDeque<Chunk>,
) -> Result<Option<Progress>, ProviderError> {
    let mut so_far = None;
    each(list, |_, element| {
        if so_far == Some(Progress::Ended) || !element.get().starts_with('{') {
            return Ok(());
        }
        format.answer().begin_list();
        if format.whole(element, out)? {
            so_far = Some(Progress::Continues);
            return Ok::<(), ProviderError>(());
        }
        // Beside a name that says nothing the type of an event counts.
        if format.frame("", element, out)? == Progress::Ended {
            so_far = Some(Progress::Ended);
        }
        Ok(())
    })?;
    let has_said = |answer: &PartialAnswer| answer.has_text() || answer.has_reasoning() || answer.has_calls();
    Ok(so_far.or_else(|| has_said(format.answer()).then_some(Progress::Continues)))
}

/// Takes in that an answer failed by what the provider says, if it did.
fn note_failure<T>(answer: &mut PartialAnswer, read: Result<T, ProviderError>) -> Result<T, ProviderError> {
    if matches!(read, Err(ProviderError::Reported { .. } | ProviderError::Truncated { .. })) {
        answer.failed();
    }
    read
}

impl<F: Frames> Translate for F {
    fn event(&mut self, event: SseEvent<'_>, out: &mut VecDeque<Chunk>) -> Result<Progress, ProviderError> {
        self.answer().begin_list();
        let read = match event.data.trim() {
            "" => Ok(Progress::Continues),
            "[DONE]" if Self::DONE_ENDS => self.answer().end(out).map(|()| Progress::Ended),
            // Some servers end with the word that ends a chat completion, and proxies say it also of an answer that was cut.
            "[DONE]" => {
                let is_over = self.answer().finish(false, out)?;
                Ok(if is_over { Progress::Ended } else { Progress::Continues })
            }
            data if event.name == "error" => {
                let _ = raw(data, |event| self.said_with_error(event));
                Err(self.answer().reader().reported(data))
            }
            data => raw(data, |frame| {
                let read = self.frame(event.name, frame, out);
                if let Err(ProviderError::Reported { .. }) = &read {
                    self.said_with_error(frame);
                }
                read
            })
            .unwrap_or_else(|error| Err(self.answer().reader().malformed(&error.to_string(), data))),
        };
        note_failure(self.answer(), read)
    }

    fn document(&mut self, json: &str, out: &mut VecDeque<Chunk>) -> Result<bool, ProviderError> {
        let read = raw(json, |document| {
            let is_over = match document.get().starts_with('[') {
                true => listed(self, document, out)?,
                false => self.whole(document, out)?.then_some(Progress::Continues),
            };
            match is_over {
                Some(Progress::Ended) => Ok(true),
                Some(Progress::Continues) => self.answer().end(out).map(|()| true),
                None => StatedFault::in_event(document)
                    .map_or(Ok(false), |fault| Err(self.answer().reader().failed(&fault))),
            }
        });
        match read {
            Ok(read) => note_failure(self.answer(), read),
            Err(error) if error.is_eof() => Err(ProviderError::Truncated { reason: "its JSON is cut off".into() }),
            Err(_) => Ok(false),
        }
    }

    fn finish(&mut self, out: &mut VecDeque<Chunk>) -> Result<bool, ProviderError> {
        self.answer().finish(false, out)
    }

    fn may_be_empty(&mut self) {
        self.answer().may_be_empty();
    }

    fn missed(&mut self) {
        self.answer().missed();
    }

    fn heard(&mut self) -> Heard {
        self.answer().heard()
    }

    fn is_over(&self, choices: u32) -> bool {
        self.has_all(choices)
    }

    fn limit(&mut self, max_output_tokens: Option<u32>) {
        self.limited(max_output_tokens);
    }
}
