//! One call from the fleet, made at the local server.

use std::{sync::Arc, time::Duration};

use bellrope::{
    CallError,
    client::{AsyncChunkSink, AsyncStream, AsyncUpload, CallOptions, ErrorCode, Metadata, Rejection, Style},
};

use tokio::sync::Notify;

use super::{
    guests::{Guest, Guests},
    incoming::{Incoming, Next, Stop},
    sending::{Sending, say},
};
use crate::{
    flow::Credit,
    frame::{DownKind, Head, ItemPart, start_of},
    link::{Link, Lost},
};

/// Most bytes of who asks.
const MOST_VOUCHED: usize = 96;

/// How a call failed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It has run, at least in part, or may have.
    Failed { code: ErrorCode, detail: u64, text: String },
    /// It has not run and will not.
    Refused { code: ErrorCode, detail: u64, text: String },
    /// Nobody can be told.
    Lost,
}

impl From<Lost> for Fault {
    fn from(Lost: Lost) -> Self {
        Self::Lost
    }
}

impl From<Stop> for Fault {
    fn from(Stop(code, text): Stop) -> Self {
        Self::Failed { code, detail: 0, text: text.to_owned() }
    }
}

impl Fault {
    pub(super) fn refused(code: ErrorCode, text: impl Into<String>) -> Self {
        Self::Refused { code, detail: 0, text: text.into() }
    }

    pub(super) fn busy(text: &str) -> Self {
        Self::Refused { code: ErrorCode::Rejected, detail: Rejection::Busy.to_detail(None), text: text.to_owned() }
    }

    pub(super) fn going_away() -> Self {
        let detail = Rejection::Draining.to_detail(None);
        Self::Refused { code: ErrorCode::Rejected, detail, text: "the instance is going away".to_owned() }
    }

    /// What the local server said. `begun`: something of the call was taken from its caller, or given to it.
    fn of(error: &CallError, begun: bool) -> Self {
        let text = || error.to_string();
        let failed = |code, detail, text| Self::Failed { code, detail, text };
        let refused = |code, detail, text| match begun {
            true => Self::Failed { code, detail, text },
            false => Self::Refused { code, detail, text },
        };
        match error {
            CallError::Handler { code, text } => failed(ErrorCode::Handler, (*code).into(), text.clone()),
            CallError::InvalidRequest { text } => failed(ErrorCode::InvalidRequest, 0, text.clone()),
            CallError::HandlerPanic { text } => failed(ErrorCode::HandlerPanic, 0, text.clone()),
            CallError::MessageTooLarge { size, .. } => failed(ErrorCode::MessageTooLarge, *size, text()),
            CallError::ChunkTooLarge { .. } => failed(ErrorCode::InvalidRequest, 0, text()),
            CallError::DeadlineExceeded => failed(ErrorCode::DeadlineExceeded, 0, text()),
            CallError::Cancelled => failed(ErrorCode::Cancelled, 0, text()),
            CallError::Exhausted { text } => failed(ErrorCode::Exhausted, 0, text.clone()),
            CallError::Other { code, text } => failed(*code, 0, text.clone()),
            CallError::Rejected { reason, retry_after, text } => {
                let after = retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
                refused(ErrorCode::Rejected, reason.to_detail(after), text.clone())
            }
            CallError::NotExecuted
            | CallError::Connect(_)
            | CallError::UnknownMessageType { .. }
            | CallError::WrongStyle { .. }
            | CallError::MessageTypeGone => refused(ErrorCode::NotExecuted, 0, text()),
            _ => failed(ErrorCode::Unknown, 0, text()),
        }
    }
}

/// A call that was taken.
pub(super) struct Running {
    pub(super) link: Arc<Link>,
    pub(super) guests: Arc<Guests>,
    /// Who asks, if that is known.
    pub(super) guest: Option<Guest>,
    pub(super) name: String,
    /// What the local server is asked in place of what came.
    pub(super) question: Option<Vec<u8>>,
    pub(super) style: Style,
    pub(super) options: CallOptions,
    /// The importing server's link, and its number of the call.
    pub(super) from: u64,
    pub(super) call: u64,
    pub(super) incoming: Incoming,
    pub(super) credit: Credit,
    /// Notified when the caller of a stream has left, who may come back for what its handler keeps.
    pub(super) left: Arc<Notify>,
}

/// A stream that is left to whoever comes back, not cancelled, if its link is lost before anybody has noticed.
struct LeftIfLost {
    stream: Option<AsyncStream>,
    link: Arc<Link>,
}

impl Drop for LeftIfLost {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take().filter(|_| self.link.is_lost()) {
            stream.leave();
        }
    }
}

/// What the local server is told of a call from the fleet. `vouched`: who asks, or nothing.
pub(super) fn options(head: &Head<'_>, vouched: &str, left: Option<Duration>) -> CallOptions {
    let mut metadata = Metadata::new();
    // What does not fit beside the others is left out. Who asks comes first.
    let vouched = start_of(vouched, MOST_VOUCHED);
    if let Ok(with) = metadata.clone().vouched(vouched) {
        metadata = with;
    }
    if let Some(with) = head.trace.parse().ok().and_then(|trace| metadata.clone().trace(trace).ok()) {
        metadata = with;
    }
    for (text, add) in [
        (head.session, Metadata::session as fn(Metadata, &str) -> Result<Metadata, _>),
        (head.caller, Metadata::caller),
    ] {
        if let Some(with) = (!text.is_empty()).then(|| add(metadata.clone(), text).ok()).flatten() {
            metadata = with;
        }
    }
    let options = CallOptions::new().timeout(left.unwrap_or(Duration::MAX));
    if metadata.is_empty() { options } else { options.metadata(metadata) }
}

impl Running {
    /// Makes the call, and sends what comes of it. `part` and `first` are what came with it.
    pub(super) async fn run(mut self, part: ItemPart, first: &[u8]) -> Result<(), Fault> {
        let is_whole = part.size == first.len() as u64;
        if !is_whole || self.style != Style::Unary {
            self.say(DownKind::Taken, &[]).await?;
        }
        let left = Arc::clone(&self.left);
        let request = tokio::select! {
            request = self.request(part, first) => request?,
            () = left.notified() => return Err(Fault::Lost),
        };
        let request = self.question.take().unwrap_or(request);
        let held = self.guests.hold(self.guest).await;
        let (client, name, options) = (&held.client, self.name.clone(), self.options.clone());
        match self.style {
            Style::Unary => {
                let answer = client.call_with(&name, &request, &options).await;
                let answer = answer.map_err(|error| Fault::of(&error, false))?;
                self.answer(&answer).await
            }
            Style::ServerStream => {
                let stream = client.stream_with(&name, &request, &options).await;
                self.server_stream(stream.map_err(|error| Fault::of(&error, false))?).await
            }
            Style::ClientStream => {
                let upload = client.client_stream_with(&name, &request, &options).await;
                self.client_stream(upload.map_err(|error| Fault::of(&error, false))?).await
            }
            Style::Duplex => {
                let both = client.duplex_with(&name, &request, &options).await;
                self.duplex(both.map_err(|error| Fault::of(&error, false))?).await
            }
        }
    }

    /// Puts the request together.
    async fn request(&mut self, part: ItemPart, first: &[u8]) -> Result<Vec<u8>, Fault> {
        let refuse = |Stop(code, text): Stop| match code {
            ErrorCode::Rejected => Fault::busy(text),
            code => Fault::refused(code, text),
        };
        let (mut next, mut len) = (self.incoming.part(part, first).map_err(refuse)?, first.len());
        loop {
            self.give_back(len).await?;
            match next {
                Next::Item(request) => return Ok(request),
                Next::Part => {}
                Next::Finish => return Err(Fault::refused(ErrorCode::NotExecuted, "the request has an end too early")),
            }
            (next, len) = self.incoming.next().await.map_err(refuse)?;
        }
    }

    async fn server_stream(self, stream: AsyncStream) -> Result<(), Fault> {
        let mut sending = self.sending();
        let mut kept = LeftIfLost { stream: Some(stream), link: Arc::clone(&self.link) };
        let Some(stream) = &mut kept.stream else { return Err(Fault::Lost) };
        let ended = tokio::select! {
            biased;
            () = self.left.notified() => Err(Fault::Lost),
            ended = sending.chunks(stream, |error, items| Fault::of(error, items > 0)) => ended,
        };
        if let (Err(Fault::Lost), Some(stream)) = (&ended, kept.stream.take()) {
            stream.leave();
        }
        ended
    }

    async fn client_stream(mut self, upload: AsyncUpload) -> Result<(), Fault> {
        let (sink, answer) = upload.split();
        // The handler may answer before its caller has sent all.
        let answer = tokio::select! {
            answer = answer.wait() => answer.map_err(|error| Fault::of(&error, true))?,
            Err(fault) = self.upload(sink) => return Err(fault),
        };
        self.answer(&answer).await
    }

    async fn duplex(mut self, (sink, mut stream): (AsyncChunkSink, AsyncStream)) -> Result<(), Fault> {
        let mut sending = self.sending();
        let down = sending.chunks(&mut stream, |error, _| Fault::of(error, true));
        tokio::select! {
            ended = down => ended,
            Err(fault) = self.upload(sink) => Err(fault),
        }
    }

    /// Hands on what the caller sends, until that or the call ends. The answering half says how the call ends.
    async fn upload(&mut self, mut sink: AsyncChunkSink) -> Result<(), Fault> {
        loop {
            let (next, len) = self.incoming.next().await?;
            match next {
                Next::Part => {}
                Next::Finish => return Ok(()),
                Next::Item(chunk) => {
                    if !sink.send(&chunk).await.map_err(|error| Fault::of(&error, true))? {
                        return Ok(());
                    }
                }
            }
            self.give_back(len).await?;
        }
    }

    fn sending(&self) -> Sending {
        Sending::new(&self.link, (self.from, self.call), &self.credit)
    }

    async fn answer(self, answer: &[u8]) -> Result<(), Fault> {
        Ok(self.sending().answer(answer).await?)
    }

    async fn give_back(&mut self, len: usize) -> Result<(), Lost> {
        match self.incoming.dealt_with(len) {
            Some(bytes) => self.say(DownKind::Credit(bytes), &[]).await,
            None => Ok(()),
        }
    }

    async fn say(&self, what: DownKind<'_>, bytes: &[u8]) -> Result<(), Lost> {
        say(&self.link, self.from, self.call, what, bytes).await
    }
}
