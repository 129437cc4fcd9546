//! The events of a response, read from the socket only as they are asked for.

use std::time::Duration;

use bytes::{Buf, Bytes};
use reqwest::Response;
use tokio::time::{Instant, timeout};

use super::client::root_cause;
use super::timeouts::Timeouts;
use crate::error::{Excerpt, Phase, ProviderError};
use crate::sse::{Event, SseDecoder, SseError};

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
    timeouts: Timeouts,
}

/// What comes next in an [`EventStream`].
#[derive(Debug)]
pub(super) enum Next<'a> {
    /// An event.
    Event(Event<'a>),
    /// The connection is at its end, or broken, for `reason`; nothing follows. Perhaps it broke within an event.
    End { unfinished: Option<Event<'a>>, reason: Excerpt },
}

impl EventStream {
    pub(super) fn new(response: Response, timeouts: Timeouts) -> Self {
        Self { response, input: Bytes::new(), decoder: SseDecoder::default(), timeouts }
    }

    /// Waits for the next event. `since` is when its reader began to wait for something that is worth more than a
    /// keep-alive; what that is, is a matter of the format.
    pub(super) async fn next(&mut self, since: Instant) -> Result<Next<'_>, ProviderError> {
        let Timeouts { idle, event, .. } = self.timeouts;
        loop {
            let mut input = &*self.input;
            let whole = self.decoder.push(&mut input)?;
            let taken = self.input.len() - input.len();
            self.input.advance(taken);
            if whole {
                return Ok(Next::Event(self.decoder.event()));
            }
            if since.elapsed() > event {
                return Err(ProviderError::TimedOut { phase: Phase::Event, after: event });
            }
            match timeout(idle, self.response.chunk()).await {
                Ok(Ok(Some(bytes))) => self.input = bytes,
                Ok(Ok(None)) => return self.end("the provider closed the connection".into()),
                Ok(Err(error)) => return self.end(root_cause(&error)),
                Err(_) => return Err(ProviderError::TimedOut { phase: Phase::Idle, after: idle }),
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

    fn end(&mut self, reason: Excerpt) -> Result<Next<'_>, ProviderError> {
        let unfinished = self.decoder.finish()?;
        Ok(Next::End { unfinished: unfinished.then(|| self.decoder.event()), reason })
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
