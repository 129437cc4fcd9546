//! An answer on its way, read and put in order: see `pass.rs` for one that goes through as it comes.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::endpoint::AN_EVENT_STREAM;
use super::events::{EventStream, Next};
use super::remote::Remote;
use crate::account::Meter;
use crate::error::ProviderError;
use crate::message::{ChatRequest, Chunk};
use crate::notes::Notes;
use crate::providers::formats::{Heard, Progress, Translate, push_extra};

/// How many events behind the word that it failed are looked at for what an answer took, and for how long.
const REST_EVENTS: usize = 16;
/// The longest event that is kept until the calls in it are handed out, in bytes.
const MAX_UNPLACED: usize = 64 * 1024;
const REST_TIMEOUT: Duration = Duration::from_millis(500);

/// An answer on its way.
pub(super) struct RemoteAnswer {
    remote: Arc<Remote>,
    stage: Stage,
    translator: Box<dyn Translate>,
    /// Whether it was asked how likely its tokens are. Some servers say it unasked.
    wants_logprobs: bool,
    /// Where what it says before its end is noted.
    meter: Meter,
    /// What is to be told before the first piece, and only with an answer.
    notes: VecDeque<String>,
    /// Pieces of the last event that were not asked for yet.
    ready: VecDeque<Chunk>,
    /// An event with what goes back with calls, whose pieces are held back.
    unplaced: Option<String>,
    /// Whether something of the answer has come.
    has_begun: bool,
    /// The error that comes after them.
    failed: Option<ProviderError>,
    /// How often the request was sent again, and after how long a wait in all.
    retries: u32,
    waited: Duration,
}

enum Stage {
    /// Nothing was sent yet.
    Asked(Box<ChatRequest>),
    /// It failed, and is sent again after a pause.
    Waiting(Box<ChatRequest>, Duration, ProviderError),
    Answering(Box<EventStream>),
    /// The connection is given back, or closed.
    Ended,
}

impl RemoteAnswer {
    pub(super) fn new(remote: Arc<Remote>, request: ChatRequest) -> Self {
        let mut translator = remote.translator(&request.from_tool);
        translator.limit(request.max_tokens);
        // At the end of a prompt there may be nothing to insert, and a text that ends the answer may come first.
        if request.prompt.is_some() || !request.stop.is_empty() {
            translator.may_be_empty();
        }
        let (meter, wants_logprobs) = (request.meter.clone(), request.wants_logprobs());
        let stage = Stage::Asked(Box::new(request));
        let (notes, ready) = (VecDeque::new(), VecDeque::new());
        Self {
            remote,
            stage,
            translator,
            wants_logprobs,
            meter,
            notes,
            ready,
            unplaced: None,
            has_begun: false,
            failed: None,
            retries: 0,
            waited: Duration::ZERO,
        }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        // While keep-alives come in, of whatever form, this moment stays.
        let mut asked = Instant::now();
        loop {
            if !self.ready.is_empty()
                && let Some(text) = self.notes.pop_front()
            {
                return Some(Ok(Chunk::Notice { text }));
            }
            match self.ready.pop_front() {
                Some(Chunk::Logprobs { .. }) if !self.wants_logprobs => continue,
                Some(chunk) => return Some(Ok(chunk)),
                None => {}
            }
            if matches!(self.stage, Stage::Ended) {
                return self.failed.take().map(Err);
            }
            let begins = matches!(self.stage, Stage::Asked(_) | Stage::Waiting(..));
            let advanced = self.advance(asked).await;
            let has_usage = self.hear();
            match advanced {
                // The head of the response had its own time.
                Ok(Progress::Continues) if begins => asked = Instant::now(),
                Ok(Progress::Continues) => {}
                Ok(Progress::Ended) => {
                    if let Stage::Answering(events) = mem::replace(&mut self.stage, Stage::Ended) {
                        events.give_back();
                    }
                }
                Err(error) => {
                    if matches!(error, ProviderError::Reported { .. }) && !has_usage {
                        let _ = timeout(REST_TIMEOUT, self.hear_rest()).await;
                    }
                    self.stage = Stage::Ended;
                    self.failed = Some(error);
                }
            }
        }
    }

    /// Notes what the last event has said beside its pieces. Whether that is what the answer took.
    fn hear(&mut self) -> bool {
        let Heard { usage, is_final, unshown_bytes } = self.translator.heard();
        let has_usage = usage.is_some();
        self.meter.note(usage, is_final, unshown_bytes);
        has_usage
    }

    /// Reads on behind the word that the answer failed: some servers say only then what it took.
    async fn hear_rest(&mut self) {
        for _ in 0..REST_EVENTS {
            let Stage::Answering(events) = &mut self.stage else { return };
            let Ok(Next::Event(event)) = events.next(Instant::now(), true).await else { return };
            if event.data.trim() == "[DONE]" {
                return;
            }
            // Its pieces come too late.
            let _ = self.translator.event(event, &mut VecDeque::new());
            if self.hear() {
                return;
            }
        }
    }

    /// Sends the request, or takes one event in.
    async fn advance(&mut self, asked: Instant) -> Result<Progress, ProviderError> {
        let events = match &mut self.stage {
            Stage::Asked(request) => {
                let mut notes = Notes::default();
                let error = match self.remote.ask(request, &mut notes).await {
                    Ok(events) => {
                        self.notes = notes.into_vec().into();
                        self.stage = Stage::Answering(Box::new(events));
                        return Ok(Progress::Continues);
                    }
                    Err(error) => error,
                };
                let Some(pause) = self.remote.endpoint.pause(&error, self.retries, self.waited) else {
                    return Err(error);
                };
                if error.retry_after().is_some() {
                    self.ready.push_back(Chunk::Notice { text: self.remote.waits(pause, &error) });
                }
                let request = mem::take(request);
                self.stage = Stage::Waiting(request, pause, error);
                return Ok(Progress::Continues);
            }
            Stage::Waiting(request, pause, error) => {
                if !self.remote.endpoint.wait(*pause).await {
                    return Err(error.clone());
                }
                self.retries += 1;
                self.waited += *pause;
                self.stage = Stage::Asked(mem::take(request));
                return Ok(Progress::Continues);
            }
            Stage::Answering(events) => events,
            Stage::Ended => return Ok(Progress::Ended),
        };
        match events.next(asked, self.has_begun).await {
            Ok(Next::Event(event)) => {
                let from = self.ready.len();
                let progress = self.translator.event(event, &mut self.ready);
                self.unplaced.take_if(|earlier| push_extra(earlier, from, &mut self.ready));
                if !push_extra(event.data, from, &mut self.ready) && event.data.len() <= MAX_UNPLACED {
                    self.unplaced = Some(event.data.to_owned());
                }
                self.has_begun |= self.ready.len() > from;
                progress
            }
            Ok(Next::End { unfinished, reason }) => {
                let from = self.ready.len();
                let progress = self.translator.end(unfinished, reason, &mut self.ready);
                self.unplaced.take_if(|earlier| push_extra(earlier, from, &mut self.ready));
                progress
            }
            Ok(Next::Document(json)) => {
                let from = self.ready.len();
                if self.translator.document(&json, &mut self.ready)? {
                    push_extra(&json, from, &mut self.ready);
                    return Ok(Progress::Ended);
                }
                Err(self.remote.endpoint.unexpected(AN_EVENT_STREAM, events.content_type(), json.as_bytes()))
            }
            // An answer that has said why it stopped is whole, however the connection ends.
            Err(error) => {
                if self.translator.finish(&mut self.ready)? {
                    return Ok(Progress::Ended);
                }
                Err(error)
            }
        }
    }
}
