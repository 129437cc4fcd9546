//! A look at the events of an answer that is handed on as it comes: its end, its errors, what it took and why it stopped.
//!
//! It reads by the translator of the format, and keeps no more of the answer than the event that is coming in. That is held
//! back until it is whole, so that an answer that breaks off ends between two events, where an error can follow.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;
use memchr::memchr2;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Excerpt, ProviderError};
use crate::json::{fields_and, is_nothing, repaired};
use crate::message::{Chunk, StopReason};
use crate::pass::{Mark, PassEnd, Seen};
use crate::providers::formats::{Heard, Progress, Translate};
use crate::sse::{SseDecoder, SseEvent};

const CLOSED: &str = "the provider closed the connection";

/// A larger event is handed on as it comes, in bytes.
const MAX_HELD: usize = 64 * 1024;

/// Looks at the events of one answer.
#[derive(Debug)]
pub(super) struct Watch {
    decoder: SseDecoder,
    translator: Box<dyn Translate>,
    /// Whether the event that says what the answer took is for this program alone.
    hides_usage: bool,
    /// How many answers are made at once.
    choices: u32,
    /// Whether events have numbers, the next of which is in `mark`.
    is_numbered: bool,
    mark: Mark,
    /// The beginning of an event whose end has not come in.
    held: Vec<u8>,
    /// Whether a part of that event was handed on already.
    leaks: bool,
    /// Whether what was handed on last ends within a line.
    within_line: bool,
    /// Whether a line feed that comes next belongs to the event before, and whether that was taken out.
    after_return: Option<bool>,
    /// Whether an event was passed over: it was too large even without the ends of its strings, or means nothing here.
    has_missed: bool,
    /// Why the answer failed. It ends with the next event, in which some servers say what it took.
    failing: Option<ProviderError>,
    end: Option<PassEnd>,
    /// Whether it was ever known.
    is_settled: bool,
    seen: Seen,
    /// Events so far.
    events: u64,
    /// What the translator makes of an event.
    made: VecDeque<Chunk>,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Closing {
    /// As it should.
    Ended,
    Broken(Excerpt),
    /// This program has ended it.
    Failed(ProviderError),
}

impl Watch {
    /// `hides_usage`: the event with what the answer took is taken out. `is_numbered`: the format is that of responses.
    /// `choices`: how many answers are made at once.
    pub(super) fn new(translator: Box<dyn Translate>, hides_usage: bool, is_numbered: bool, choices: u32) -> Self {
        Self {
            decoder: SseDecoder::squeezing(),
            translator,
            hides_usage,
            choices,
            is_numbered,
            mark: Mark::default(),
            held: Vec::new(),
            leaks: false,
            within_line: false,
            after_return: None,
            has_missed: false,
            failing: None,
            end: None,
            is_settled: false,
            seen: Seen::default(),
            events: 0,
            made: VecDeque::new(),
        }
    }

    /// Whether an event has come that does not say that the answer failed.
    pub(super) fn has_begun(&self) -> bool {
        self.events > 0 && !self.is_failing()
    }

    /// Whether the answer has failed, and no event has come since.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// What was seen since this was asked for last.
    pub(super) fn take_seen(&mut self) -> Seen {
        mem::take(&mut self.seen)
    }

    /// How the answer has ended, once.
    pub(super) fn take_end(&mut self) -> Option<PassEnd> {
        self.end.take()
    }

    /// Takes bytes in; gives those that are to be handed on.
    pub(super) fn take_in(&mut self, bytes: &Bytes) -> Bytes {
        let mut input: &[u8] = bytes;
        let mut kept = mem::take(&mut self.held);
        // What of `bytes` is handed on begins at `from`; the event that is coming in began at `start`.
        let (mut from, mut start) = (0, 0);
        if let Some(is_hidden) = self.after_return.take_if(|_| !bytes.is_empty())
            && bytes[0] == b'\n'
        {
            (from, start) = (usize::from(is_hidden), 1);
        }
        // How much of `kept` belongs to that event.
        let mut earlier = kept.len();
        // One that squeezes refuses nothing.
        while let Ok(true) = self.decoder.push(&mut input) {
            let mut end = bytes.len() - input.len();
            let is_hidden = self.hides_usage && !self.leaks && says_usage_alone(self.decoder.event().data);
            self.see();
            match (bytes[end - 1], bytes.get(end)) {
                (b'\r', Some(b'\n')) => end += 1,
                (b'\r', None) => self.after_return = Some(is_hidden),
                _ => {}
            }
            if is_hidden {
                kept.truncate(kept.len() - earlier);
                kept.extend_from_slice(&bytes[from..start]);
                from = end;
            }
            (start, earlier, self.leaks, self.within_line) = (end, 0, false, false);
        }
        self.hand_on(bytes, kept, earlier, from, start)
    }

    /// What is whole, and of the rest what cannot be the beginning of an event. The rest is held.
    fn hand_on(&mut self, bytes: &Bytes, mut kept: Vec<u8>, earlier: usize, from: usize, start: usize) -> Bytes {
        if earlier == 0 {
            let release = start + self.release(&bytes[start..]);
            self.held.extend_from_slice(&bytes[release..]);
            if kept.is_empty() {
                return bytes.slice(from..release);
            }
            kept.extend_from_slice(&bytes[from..release]);
        } else {
            // The event began before these bytes, and has not ended in them: `from` and `start` are the same.
            let whole = kept.len() - earlier;
            kept.extend_from_slice(&bytes[from..]);
            let release = whole + self.release(&kept[whole..]);
            self.held = kept.split_off(release);
        }
        kept.into()
    }

    /// How many bytes of the beginning of an event may go: lines of comments, empty ones, and all if it is too large.
    fn release(&mut self, begun: &[u8]) -> usize {
        if begun.len() > MAX_HELD {
            self.leaks = true;
            self.within_line = !matches!(begun.last(), Some(b'\n' | b'\r'));
            return begun.len();
        }
        if self.leaks {
            return begun.len();
        }
        let mut at = 0;
        while let Some(first) = begun.get(at) {
            let is_free = self.within_line || matches!(first, b':' | b'\n' | b'\r');
            if !is_free {
                break;
            }
            match memchr2(b'\n', b'\r', &begun[at..]) {
                Some(end) => {
                    at += end + 1;
                    self.within_line = false;
                }
                None => {
                    self.within_line = true;
                    at = begun.len();
                }
            }
        }
        at
    }

    /// Says that the connection is no more. Gives what is still to be handed on; how the answer has ended is known then.
    pub(super) fn finish(&mut self, closing: Closing) -> Bytes {
        let held = Bytes::from(mem::take(&mut self.held));
        // An event whose end has not come: only its line end may lack.
        let is_begun = !held.is_empty() || self.leaks;
        let is_event = is_begun && self.decoder.finish().unwrap_or(false) && is_whole(self.decoder.event().data);
        let is_half = is_begun && !is_event;
        if let Some(error) = self.failing.take() {
            self.settle(PassEnd::Failed(error));
        }
        if self.is_settled {
            // What was begun after the end of an answer is no part of it.
            return if is_half { Bytes::new() } else { held };
        }
        let error = match closing {
            Closing::Ended => closed(),
            Closing::Broken(reason) => ProviderError::Truncated { reason },
            Closing::Failed(error) => error,
        };
        if is_half {
            return self.cut(error);
        }
        // What was closed as it should be may be whole, and so may what the provider keeps open after its last word.
        let may_be_whole = !matches!(error, ProviderError::Truncated { .. }) || error == closed();
        let is_hidden = self.hides_usage && !self.leaks && is_event && says_usage_alone(self.decoder.event().data);
        let progress = match is_event.then(|| self.translator.event(self.decoder.event(), &mut self.made)) {
            None => Ok(Progress::Continues),
            Some(read) => read,
        };
        let is_whole = match progress {
            Ok(Progress::Continues) if may_be_whole && self.translator.is_over(self.choices) => {
                self.translator.finish(&mut self.made)
            }
            Ok(progress) => Ok(progress == Progress::Ended),
            Err(error) => Err(error),
        };
        self.count();
        match is_whole {
            Ok(true) if is_hidden => Bytes::new(),
            Ok(true) => held,
            // Its end may have been in what was passed over: nobody can say that it was cut.
            Ok(false) | Err(ProviderError::Malformed { .. }) if self.has_missed && error == closed() => {
                self.settle(PassEnd::Done(StopReason::Other));
                held
            }
            Err(error @ ProviderError::Reported { .. }) => {
                self.settle(PassEnd::Failed(error));
                held
            }
            Ok(false) => self.cut(error),
            Err(error) => self.cut(error),
        }
    }

    /// Says that the answer breaks off here. Gives what has to come before the word for it: the end of an event of which a
    /// part was handed on.
    fn cut(&mut self, error: ProviderError) -> Bytes {
        let mark = mem::take(&mut self.mark);
        self.settle(PassEnd::Cut(error, mark));
        Bytes::from_static(if self.leaks { b"\n\n" } else { b"" })
    }

    fn settle(&mut self, end: PassEnd) {
        if !mem::replace(&mut self.is_settled, true) {
            self.end = Some(end);
        }
    }

    /// Looks at the event that the decoder has.
    fn see(&mut self) {
        self.events += 1;
        if self.is_settled {
            return;
        }
        if let Some(error) = self.failing.take() {
            return self.fail(error);
        }
        if self.decoder.is_lost() {
            self.seen.said_bytes += self.decoder.left_out();
            return self.miss();
        }
        let event = self.decoder.event();
        if self.is_numbered {
            self.mark.see(event);
        }
        let said = self.seen.said_bytes;
        let progress = self.translator.event(event, &mut self.made);
        self.count();
        if self.seen.said_bytes > said {
            self.seen.said_bytes += self.decoder.left_out();
        }
        match progress {
            Ok(_) => {}
            // What is odd to this program may be all right to the tool, and what comes behind it counts.
            Err(ProviderError::Malformed { .. } | ProviderError::TooLarge { .. }) => self.miss(),
            Err(error) if self.seen.is_final => self.settle(PassEnd::Failed(error)),
            Err(error) => self.failing = Some(error),
        }
    }

    /// Ends the answer, which has failed, with the event that came behind the word for it.
    fn fail(&mut self, error: ProviderError) {
        let event = self.decoder.event();
        // A last word makes an answer of what came, and this is none.
        if event.data.trim() != "[DONE]" {
            let _ = self.translator.event(event, &mut VecDeque::new());
            self.count();
        }
        self.settle(PassEnd::Failed(error));
    }

    fn miss(&mut self) {
        self.has_missed = true;
        self.translator.missed();
    }

    /// Counts what the translator has made.
    fn count(&mut self) {
        let Heard { usage, is_final, unshown_bytes } = self.translator.heard();
        if usage.is_some() {
            (self.seen.usage, self.seen.is_final) = (usage, is_final);
        }
        if unshown_bytes > 0 {
            self.seen.pieces += 1;
            self.seen.said_bytes += unshown_bytes;
        }
        while let Some(chunk) = self.made.pop_front() {
            match chunk {
                Chunk::Usage(usage) => (self.seen.usage, self.seen.is_final) = (Some(usage), true),
                Chunk::Done { stop_reason } => {
                    self.seen.stop = Some(stop_reason);
                    self.settle(PassEnd::Done(stop_reason));
                }
                Chunk::Notice { .. } | Chunk::Unknown => {}
                piece => {
                    self.seen.pieces += 1;
                    self.seen.said_bytes += match &piece {
                        Chunk::Text { text } | Chunk::Reasoning { text } => text.len(),
                        Chunk::ToolCall(delta) => delta.arguments.len(),
                        _ => 0,
                    };
                }
            }
        }
    }
}

impl Mark {
    /// Takes in an event of responses.
    fn see(&mut self, event: SseEvent<'_>) {
        const NUMBER: &[u8] = b"\"sequence_number\":";
        #[derive(Deserialize)]
        struct Created {
            response: Option<Id>,
        }
        #[derive(Deserialize)]
        struct Id {
            id: String,
        }
        let data = event.data.as_bytes();
        if self.id.is_none() {
            let created = serde_json::from_slice::<Created>(data).ok().and_then(|created| created.response);
            // It comes back to whoever sent it, so it is bounded.
            self.id = created.map(|response| response.id).filter(|id| id.len() <= 256);
        }
        if let Some(at) = memchr::memmem::find(data, NUMBER) {
            let digits = event.data[at + NUMBER.len()..].trim_start();
            let digits = &digits[..digits.bytes().take_while(u8::is_ascii_digit).count()];
            self.next = digits.parse::<u64>().map_or(self.next, |number| number.saturating_add(1));
        }
    }
}

/// Whether the data of an event is not cut.
fn is_whole(data: &str) -> bool {
    data.trim() == "[DONE]" || serde_json::from_str::<IgnoredAny>(&repaired(data)).is_ok()
}

fn closed() -> ProviderError {
    ProviderError::Truncated { reason: CLOSED.into() }
}

/// What a tool misses of an event that has no choice: that the answer failed, and where it comes from.
const MISSED: [&str; 7] = ["error", "citations", "search_results", "annotations", "sources", "images", "warnings"];

/// Whether an event of chat completions says what the answer took, and nothing else: no error, and no sources.
fn says_usage_alone(data: &str) -> bool {
    // Hardly any event has it.
    if memchr::memmem::find(data.as_bytes(), b"\"usage\"").is_none() {
        return false;
    }
    let Ok(event) = serde_json::from_str(data) else { return false };
    let mut is_alone = true;
    let read = fields_and(event, ["choices", "usage"], |name, value| {
        is_alone &= !MISSED.contains(&name) || is_nothing(value);
    });
    let Some([Some(choices), Some(_)]) = read else { return false };
    is_alone && choices.get().starts_with('[') && is_nothing(choices)
}

#[cfg(test)]
mod tests;
