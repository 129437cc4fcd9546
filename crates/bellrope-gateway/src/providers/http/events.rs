//! The events of a response, read from the socket only as they are asked for.
//!
//! Some servers answer with one JSON document though a stream was asked for, and name either by the type of the other:
//! what a response is, its first bytes decide.

use std::mem;
use std::time::Duration;

use bytes::{Buf, Bytes};
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout};

use super::client::root_cause;
use super::timeouts::Timeouts;
use crate::error::{Excerpt, Phase, ProviderError};
use crate::provider::MAX_ANSWER;
use crate::sse::{SseDecoder, SseError, SseEvent};

/// What is read after the end of an answer to keep its connection, in bytes: usually five of the chunked coding.
const MAX_REST: usize = 4 * 1024;

/// How long is waited for it.
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// A response that is a stream of events. Dropping it closes the connection, unless the response is at its end.
#[derive(Debug)]
pub(super) struct EventStream {
    response: Response,
    /// What was read and not decoded yet.
    input: Bytes,
    decoder: SseDecoder,
    body: Body,
    timeouts: Timeouts,
}

/// What the response turned out to be.
#[derive(Debug)]
enum Body {
    /// Nothing but blanks has come.
    Unknown,
    Events,
    /// JSON, as far as it has come.
    Document(Vec<u8>),
}

/// What the first bytes of a response look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing but blanks.
    Blank,
    /// Perhaps the beginning of events.
    Unclear,
    Events,
    Json,
    Other,
}

/// What comes next in an [`EventStream`].
#[derive(Debug)]
pub(super) enum Next<'a> {
    /// An event.
    Event(SseEvent<'a>),
    /// All of the response, which is one JSON document; nothing follows.
    Document(String),
    /// The connection is at its end, or broken, for `reason`; nothing follows. Perhaps it broke within an event.
    End { unfinished: Option<SseEvent<'a>>, reason: Excerpt },
}

impl EventStream {
    /// `input`: what was read of the response already.
    pub(super) fn new(response: Response, input: Bytes, timeouts: Timeouts) -> Self {
        Self { response, input, decoder: SseDecoder::default(), body: Body::Unknown, timeouts }
    }

    /// What the response says it is.
    pub(super) fn content_type(&self) -> &str {
        self.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Waits for the next event. `since` is when its reader began to wait for something that is worth more than a
    /// keep-alive; what that is, is a matter of the format. `has_begun`: whether there was such a thing.
    pub(super) async fn next(&mut self, since: Instant, has_begun: bool) -> Result<Next<'_>, ProviderError> {
        let event = self.timeouts.event;
        loop {
            if self.take_in()? {
                return Ok(Next::Event(self.decoder.event()));
            }
            if since.elapsed() > event {
                return Err(ProviderError::TimedOut { phase: Phase::Event, after: event });
            }
            let has_begun = has_begun || matches!(&self.body, Body::Document(json) if !json.is_empty());
            // Before something of the answer has come the time is one for all, whatever keep-alives come.
            let gone = if has_begun { Duration::ZERO } else { since.elapsed() };
            let left = self.timeouts.silence(has_begun).saturating_sub(gone);
            match timeout(left, self.response.chunk()).await {
                Ok(Ok(Some(bytes))) => self.input = bytes,
                Ok(Ok(None)) => match mem::replace(&mut self.body, Body::Events) {
                    Body::Document(json) => return Ok(Next::Document(String::from_utf8_lossy(&json).into_owned())),
                    Body::Unknown | Body::Events => return self.end("the provider closed the connection".into()),
                },
                Ok(Err(error)) => return self.end(root_cause(&error)),
                Err(_) => return Err(self.timeouts.silent(has_begun)),
            }
        }
    }

    /// Says that the answer is whole. What the connection still holds is read in the background, if it is little and
    /// comes soon, so that the next request can have the connection and needs no handshake.
    pub(super) fn give_back(mut self) {
        let rest = async move {
            let mut room = MAX_REST;
            while let Ok(Some(bytes)) = self.response.chunk().await {
                match room.checked_sub(bytes.len()) {
                    Some(left) => room = left,
                    None => break,
                }
            }
        };
        tokio::spawn(timeout(REST_TIMEOUT, rest));
    }

    /// Takes in what was read. Whether an event is whole.
    fn take_in(&mut self) -> Result<bool, ProviderError> {
        if matches!(self.body, Body::Unknown) {
            match look(&self.input) {
                Look::Blank => {}
                Look::Json => self.body = Body::Document(Vec::new()),
                Look::Unclear | Look::Events | Look::Other => self.body = Body::Events,
            }
        }
        match &mut self.body {
            Body::Document(json) => {
                if self.input.len() > MAX_ANSWER - json.len() {
                    return Err(ProviderError::TooLarge { what: "the answer", limit: MAX_ANSWER });
                }
                json.extend_from_slice(&self.input);
                self.input.clear();
                Ok(false)
            }
            Body::Unknown | Body::Events => {
                let mut input = &*self.input;
                let whole = self.decoder.push(&mut input)?;
                let taken = self.input.len() - input.len();
                self.input.advance(taken);
                Ok(whole)
            }
        }
    }

    fn end(&mut self, reason: Excerpt) -> Result<Next<'_>, ProviderError> {
        let unfinished = self.decoder.finish()?;
        Ok(Next::End { unfinished: unfinished.then(|| self.decoder.event()), reason })
    }
}

/// What a response is that begins with these bytes.
pub(super) fn look(bytes: &[u8]) -> Look {
    const FIELDS: [&[u8]; 4] = [b"data", b"event", b"id", b"retry"];
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    match bytes.first() {
        None => Look::Blank,
        Some(b'{' | b'[') => Look::Json,
        Some(b':') => Look::Events,
        Some(_) if FIELDS.iter().any(|field| bytes.strip_prefix(*field).is_some_and(|rest| rest.starts_with(b":"))) => {
            Look::Events
        }
        Some(_) if FIELDS.iter().any(|field| field.len() >= bytes.len() && field.starts_with(bytes)) => Look::Unclear,
        Some(_) => Look::Other,
    }
}

impl From<SseError> for ProviderError {
    fn from(error: SseError) -> Self {
        match error {
            SseError::LineTooLong { limit } => Self::TooLarge { what: "a line of the event stream", limit },
            SseError::EventTooLarge { limit } => Self::TooLarge { what: "an event of the event stream", limit },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_events_from_a_document_and_from_anything_else() {
        for (bytes, expected) in [
            ("", Look::Blank),
            (" \r\n", Look::Blank),
            ("\u{feff}data:", Look::Events),
            ("event: a", Look::Events),
            (": ping", Look::Events),
            ("\n\nid: 1", Look::Events),
            ("dat", Look::Unclear),
            ("data", Look::Unclear),
            ("database", Look::Other),
            (" {", Look::Json),
            ("[", Look::Json),
            ("<html>", Look::Other),
        ] {
            assert_eq!(look(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }
}
