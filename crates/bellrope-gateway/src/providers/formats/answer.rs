//! An answer as it is put together from what a provider sends, whichever the format.
//!
//! The translators know what their formats call things; what an answer is, is decided here: what ends it, what makes it
//! fail, and what of it is told though it cannot be shown.

use std::collections::VecDeque;

use serde_json::value::RawValue;

use super::calls::{AnswerHash, CallPiece, Calls, Place};
use super::details::Counts;
use super::fault::StatedFault;
use super::heard::Heard;
use super::reader::EventReader;
use super::reason::Reason;
use super::reasoning_details::ReasoningDetails;

use crate::error::ProviderError;
use crate::json::{Seam, TextPiece, fields, is_nothing, repaired, text_len, words};
use crate::message::{Chunk, StopReason, TokenLogprob, Usage};

/// The most notes of one answer.
const MAX_NOTES: usize = 16;

/// How an answer ended.
#[derive(Debug)]
pub(super) struct Ending {
    usage: Option<Usage>,
    stop_reason: StopReason,
    /// What the provider sent that is not shown, and what was odd: bounded, each named once, free of the key.
    pub(super) notes: Vec<String>,
}

/// An answer so far.
#[derive(Debug, Default)]
pub(super) struct PartialAnswer {
    reader: EventReader,
    text: Seam,
    reasoning: Seam,
    refusal: Seam,
    has_text: bool,
    has_reasoning: bool,
    is_refused: bool,
    /// What goes back with the reasoning.
    details: ReasoningDetails,
    calls: Calls,
    reason: Option<StopReason>,
    /// A reason that is none of the known ones.
    odd_reason: Option<String>,
    usage: Counts,
    notes: Vec<String>,
    hash: AnswerHash,
    is_identified: bool,
    /// Bytes of what came and is not shown, since [`Self::heard`] was asked for last.
    unshown: usize,
    max_output_tokens: Option<u64>,
    /// Whether the provider has said that it failed.
    has_failed: bool,
    /// Whether events were passed over, in which may be what the others lack.
    has_missed: bool,
    /// Whether an answer of nothing is one: there may be nothing to insert, or it is the reader's business.
    may_be_empty: bool,
}

impl PartialAnswer {
    /// An answer whose errors and notes never hold the reader's key.
    pub(super) fn new(reader: EventReader) -> Self {
        Self { reader, ..Self::default() }
    }

    pub(super) fn reader(&self) -> &EventReader {
        &self.reader
    }

    /// More text.
    pub(super) fn text(&mut self, piece: TextPiece, out: &mut VecDeque<Chunk>) {
        self.has_text |= !piece.is_empty();
        if !piece.is_empty() {
            self.details.hand_out(out);
        }
        push_text(self.text.join(piece), out);
    }

    /// More text by which the model declines.
    pub(super) fn refusal(&mut self, piece: TextPiece, out: &mut VecDeque<Chunk>) {
        self.has_text |= !piece.is_empty();
        self.is_refused |= !piece.is_empty();
        push_text(self.refusal.join(piece), out);
    }

    /// More of what the model thinks aloud.
    pub(super) fn reasoning(&mut self, piece: TextPiece, out: &mut VecDeque<Chunk>) {
        self.has_reasoning |= !piece.is_empty();
        push_reasoning(self.reasoning.join(piece), out);
    }

    /// How likely the tokens of more text were: a list of OpenAI's. It is a side matter: what cannot be read is left out.
    pub(super) fn logprobs(&mut self, list: Option<&RawValue>, out: &mut VecDeque<Chunk>) {
        let Some(list) = list.filter(|list| !is_nothing(list)) else { return };
        match serde_json::from_str::<Vec<TokenLogprob>>(&repaired(list.get())) {
            Ok(tokens) if tokens.is_empty() => {}
            Ok(tokens) => out.push_back(Chunk::Logprobs { tokens }),
            Err(_) => self.not_shown("logprobs", list),
        }
    }

    /// More of a call of a tool.
    pub(super) fn call(&mut self, piece: CallPiece, out: &mut VecDeque<Chunk>) -> Result<(), ProviderError> {
        self.details.hand_out(out);
        self.calls.take(piece, out)
    }

    /// Takes in that an event begins, or a list of calls within one: see [`Calls::begin_list`].
    pub(super) fn begin_list(&mut self) {
        self.calls.begin_list();
    }

    /// More of what goes back with the reasoning. `is_again`: whether it repeats what came.
    pub(super) fn reasoning_details(&mut self, list: &RawValue, is_again: bool) {
        let is_known = is_again && self.details.are_there();
        if !is_known && !self.details.take(list) {
            self.not_shown("reasoning_details", list);
        }
    }

    /// Says that what comes for this place is no call.
    pub(super) fn no_call(&mut self, place: Place) -> Result<(), ProviderError> {
        self.calls.pass_over(place)
    }

    pub(super) fn has_text(&self) -> bool {
        self.has_text
    }

    pub(super) fn has_reasoning(&self) -> bool {
        self.has_reasoning
    }

    pub(super) fn has_calls(&self) -> bool {
        self.calls.are_there()
    }

    pub(super) fn usage(&mut self) -> &mut Counts {
        &mut self.usage
    }

    /// Takes in a word that should say why the answer stopped. The first known one stays; no other ends the answer.
    ///
    /// # Errors
    /// It says that the server failed.
    pub(super) fn stopped(&mut self, word: Option<&RawValue>) -> Result<(), ProviderError> {
        // Some servers put the word into an object, beside what the answer stopped at.
        let inner =
            |reason| fields(reason, ["type", "reason"]).and_then(|[kind, reason]| kind.or(reason).and_then(words));
        let Some(word) = word.and_then(|word| words(word).or_else(|| inner(word))) else { return Ok(()) };
        match Reason::of(&word) {
            Some(Reason::Stop(reason)) => {
                self.reason.get_or_insert(reason);
            }
            Some(Reason::Failure) => {
                return Err(self
                    .reader
                    .failed(&StatedFault::of_message(format!("the answer stopped with `{}`", word.trim()))));
            }
            None => self.odd_reason = Some(word),
        }
        Ok(())
    }

    /// Takes in why the answer stopped, where the format says it without a word.
    pub(super) fn stopped_for(&mut self, reason: StopReason) {
        self.reason.get_or_insert(reason);
    }

    /// Takes in that the answer was cut, for a reason of which nothing is known.
    pub(super) fn cut_for(&mut self, word: &str) {
        self.stopped_for(StopReason::MaxTokens);
        self.note(&format!("the provider calls the answer incomplete because of `{}`", word.trim()));
    }

    /// Notes that a text came whole, and is not what came of it in pieces.
    pub(super) fn differs(&mut self) {
        self.note("the provider says at the end of the answer that its text is another one");
    }

    /// Takes in what tells this answer from others, such as its id. The first counts: servers repeat it.
    pub(super) fn identify(&mut self, id: Option<&RawValue>) {
        if let Some(id) = id.filter(|id| !self.is_identified && !is_nothing(id)) {
            self.is_identified = true;
            self.hash = self.hash.with(id.get());
        }
    }

    /// Takes in at how many tokens of output the provider was to stop, where the counts alone show that it did.
    pub(super) fn limit(&mut self, max_output_tokens: Option<u64>) {
        self.max_output_tokens = max_output_tokens.or(self.max_output_tokens);
    }

    /// Whether the counts show that the answer was cut.
    pub(super) fn is_at_limit(&self) -> bool {
        self.max_output_tokens.is_some_and(|most| self.usage.output() >= Some(most))
    }

    /// Notes that more of the answer was sent which is not shown, unless it is empty. It was written all the same, so its
    /// text counts.
    pub(super) fn left_out(&mut self, what: &str, value: &RawValue) {
        self.unshown = self.unshown.saturating_add(text_len(value.get().as_bytes()));
        self.not_shown(what, value);
    }

    /// What the events so far say that no chunk does, since this was asked for last.
    pub(super) fn heard(&mut self) -> Heard {
        Heard {
            usage: self.usage.news(),
            is_final: self.has_failed || self.reason.is_some(),
            unshown_bytes: std::mem::take(&mut self.unshown),
        }
    }

    /// Takes in that an event says why there is no answer, or no whole one.
    pub(super) fn failed(&mut self) {
        self.has_failed = true;
    }

    /// Takes in that an answer of nothing is one.
    pub(super) fn may_be_empty(&mut self) {
        self.may_be_empty = true;
    }

    /// Takes in that an event was passed over.
    pub(super) fn missed(&mut self) {
        self.has_missed = true;
    }

    /// Notes that something was sent which is not shown, unless it is empty, and whose text came before or is no answer.
    pub(super) fn not_shown(&mut self, what: &str, value: &RawValue) {
        if !is_nothing(value) {
            self.note(&format!("`{what}` of the answer was left out: it cannot be shown"));
        }
    }

    /// Ends the answer, of which the provider says that it is whole.
    ///
    /// # Errors
    /// As for [`PartialAnswer::finish`].
    pub(super) fn end(&mut self, out: &mut VecDeque<Chunk>) -> Result<(), ProviderError> {
        self.finish(true, out).map(drop)
    }

    /// Ends the answer. `is_told`: whether the provider says that it is whole; otherwise only a known reason to stop
    /// makes it whole. `false`, and nothing is handed out, if it is not.
    ///
    /// # Errors
    /// It is whole, but no answer: it holds nothing, or breaks off within a call.
    pub(super) fn finish(&mut self, is_told: bool, out: &mut VecDeque<Chunk>) -> Result<bool, ProviderError> {
        self.flush(out);
        let reason = match self.reason {
            Some(reason) => reason,
            None if !is_told => return Ok(false),
            None if self.calls.is_within_one() => {
                return Err(ProviderError::Truncated { reason: "it ends within a call of a tool".into() });
            }
            None => StopReason::Other,
        };
        if self.reason.is_none()
            && let Some(odd) = self.odd_reason.take()
        {
            self.note(&format!("the reason to stop, `{}`, is not known", odd.trim()));
        }
        let left_out = self.calls.finish(self.hash, out);
        if left_out.nameless {
            self.note("a call of a tool was left out: it names no tool");
        }
        if left_out.repeated {
            self.note("a call of a tool came once more under its id, and counts once");
        }
        let stop_reason = self.stop_reason(reason);
        let explains_nothing = !matches!(
            stop_reason,
            StopReason::MaxTokens
                | StopReason::ContextWindow
                | StopReason::ContentFilter
                | StopReason::Refusal
                | StopReason::PauseTurn
                | StopReason::StopSequence
        );
        // A model that says nothing has written a token all the same: that it ends.
        let has_written = || self.may_be_empty || self.usage.output().is_some_and(|count| count > 0);
        let is_meant = self.reason.is_some() && has_written();
        if explains_nothing
            && !is_meant
            && !self.has_missed
            && !self.has_text
            && !self.has_reasoning
            && !self.has_calls()
        {
            return Err(self.nothing());
        }
        let ending = Ending { usage: self.usage.take(), stop_reason, notes: self.notes.clone() };
        ending.push(out);
        Ok(true)
    }

    /// Hands out half a character that nothing follows.
    fn flush(&mut self, out: &mut VecDeque<Chunk>) {
        push_reasoning(self.reasoning.rest().into_iter().collect(), out);
        self.details.hand_out(out);
        push_text(self.text.rest().into_iter().chain(self.refusal.rest()).collect(), out);
    }

    #[cfg(test)]
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    fn stop_reason(&mut self, reason: StopReason) -> StopReason {
        match reason {
            StopReason::MaxTokens | StopReason::ContextWindow | StopReason::ContentFilter | StopReason::Refusal => {
                reason
            }
            _ if self.is_at_limit() => StopReason::MaxTokens,
            _ if self.is_refused => StopReason::Refusal,
            _ if self.has_calls() => StopReason::ToolUse,
            StopReason::ToolUse => {
                self.note("it stopped to have tools called, but calls none");
                StopReason::EndTurn
            }
            reason => reason,
        }
    }

    /// The error of an answer of nothing at all.
    fn nothing(&self) -> ProviderError {
        let left_out = self.notes.iter().map(|note| format!("; {note}")).collect::<String>();
        ProviderError::Reported {
            code: None,
            message: self
                .reader
                .excerpt(&format!("the answer is empty: no text, no reasoning and no call of a tool{left_out}")),
            status: None,
            retryable: true,
        }
    }

    fn note(&mut self, note: &str) {
        let note = self.reader.excerpt(note).as_str().to_owned();
        if self.notes.len() < MAX_NOTES && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

impl Ending {
    fn push(self, out: &mut VecDeque<Chunk>) {
        out.extend(self.notes.into_iter().map(|text| Chunk::Notice { text }));
        out.extend(self.usage.map(Chunk::Usage));
        out.push_back(Chunk::Done { stop_reason: self.stop_reason });
    }
}

fn push_text(text: String, out: &mut VecDeque<Chunk>) {
    if !text.is_empty() {
        out.push_back(Chunk::Text { text });
    }
}

fn push_reasoning(text: String, out: &mut VecDeque<Chunk>) {
    if !text.is_empty() {
        out.push_back(Chunk::Reasoning { text });
    }
}
