//! One try of one call.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use bellrope::{
    client::{ErrorCode, Rejection},
    server::{ChunkReceiver, ChunkSender, HandlerError, OwnedCall, SendError},
};
use tokio::sync::watch;

use super::{
    calls::{Event, Open, Table},
    choice::Choices,
};
use crate::{
    flow::{Assembly, Credit, Cutter, Gathered, Owed, cost},
    frame::{self, Head, ItemPart, Up, UpKind},
    link::{Link, Lost},
    message_type::FleetType,
    signing::Asks,
    times::BEGIN_WITHIN,
};

/// Most bytes of a schema: no server hands out more.
const MOST_SCHEMA: u64 = 1 << 20;

/// What is needed to forward a call.
pub(super) struct Attempt<'a> {
    pub(super) table: &'a Table,
    pub(super) link: &'a Arc<Link>,
    pub(super) imported: &'a FleetType,
    pub(super) call: &'a OwnedCall,
    /// The instance that it goes to; `None` leaves that to NATS.
    pub(super) to: Option<u64>,
    pub(super) choices: &'a Choices,
    /// The session that its caller named, or nothing.
    pub(super) session: &'a str,
    /// Who asks.
    pub(super) asks: &'a Asks,
}

/// How a try ended.
pub(super) enum Ended {
    Answered(Vec<u8>),
    Failed(HandlerError),
    /// It is proven that nobody has run it.
    NotTaken {
        error: HandlerError,
        /// Whoever was to take it is not there, or takes no further calls.
        gone: bool,
    },
    /// Somebody may have.
    Lost(&'static str),
}

impl From<HandlerError> for Ended {
    fn from(error: HandlerError) -> Self {
        Self::Failed(error)
    }
}

impl From<SendError> for Ended {
    fn from(error: SendError) -> Self {
        Self::Failed(error.into())
    }
}

impl Attempt<'_> {
    /// Hands the call over and follows it to its end.
    pub(super) async fn run(&self, incoming: Option<&mut ChunkReceiver>, outgoing: Option<&mut ChunkSender>) -> Ended {
        // What is signed is for one instance: another one could be given it again.
        let signer = self.table.signer.as_ref().filter(|_| self.to.is_some());
        let mut open = Open::new(self.table, self.link, self.call.cancelled(), self.to, signer.is_some());
        let mut cutter = Cutter::new(self.link.part());
        let request = self.request();
        let (_, first) = cutter.cut(request, 0);
        let message = self.first_message(open.number, first);
        open.credit.take(first.len()).await;
        let reply = self.link.inbox(self.link.id, &format!("down.{:016x}", open.number));
        let subject = match self.to {
            Some(instance) => self.link.calls_at(instance, &self.imported.name),
            None => self.link.calls(&self.imported.name),
        };
        // From here on it may have run, wherever this future is dropped.
        open.handed_over = true;
        let headers = signer.map(|signer| signer.call(&subject, self.asks, &message));
        if self.link.publish_signed(subject, Some(reply), headers, message).await == Err(Lost) {
            return Ended::NotTaken {
                error: HandlerError::not_executed("the connection to NATS was lost"),
                gone: false,
            };
        }
        let (taken, taken_by) = watch::channel(None);
        let sending = Sending { link: self.link, number: open.number, credit: open.credit.clone(), cutter };
        let up = sending.run(request, first.len(), incoming, taken_by);
        let ended = tokio::select! {
            ended = self.receive(&mut open, outgoing, &taken) => ended,
            Lost = up => Ended::Lost("the connection to NATS was lost"),
        };
        if matches!(ended, Ended::Answered(_)) {
            self.settle(self.table.instance_of(open.number));
        }
        open.ended = matches!(ended, Ended::Answered(_) | Ended::NotTaken { .. }) || open.ended;
        ended
    }

    /// What is sent: of a question for a schema its head says all.
    fn request(&self) -> &[u8] {
        if self.imported.asks_for_schema() { &[] } else { self.call.payload() }
    }

    fn first_message(&self, call: u64, first: &[u8]) -> Vec<u8> {
        let now = self.table.clock.at(Instant::now());
        let left = self.call.time_left().map(|left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX));
        let within = left.unwrap_or(u64::MAX).min(BEGIN_WITHIN.as_micros() as u64);
        let said = self.call.metadata();
        let caller =
            said.and_then(|said| said.caller_text().map(str::to_owned)).or_else(|| self.table.programs.of(self.call));
        let caller = match (self.table.name.as_str(), caller.unwrap_or_default()) {
            ("", caller) => caller,
            (name, caller) if caller.is_empty() => name.to_owned(),
            (name, caller) => format!("{name}/{caller}"),
        };
        let trace = said.and_then(|said| said.trace_context()).map(|trace| trace.to_string()).unwrap_or_default();
        let head = Head {
            name: &self.imported.name,
            style: self.imported.style,
            codec: self.imported.codec,
            schema: self.imported.schema,
            begin_by_us: now.saturating_add(within),
            deadline_us: left.map(|left| now.saturating_add(left)),
            caller: &caller,
            session: self.session,
            trace: &trace,
            size: self.request().len() as u64,
        };
        frame::write(&Up { from: self.link.id, call, what: UpKind::Call(head) }, first)
    }

    /// Takes what comes, to the end.
    async fn receive(
        &self,
        open: &mut Open<'_>,
        mut outgoing: Option<&mut ChunkSender>,
        taken: &watch::Sender<Option<u64>>,
    ) -> Ended {
        let (mut assembly, mut owed, mut items) = (Assembly::default(), Owed::default(), 0);
        let mut answer = None;
        let mut room = None;
        loop {
            match open.events.recv().await.unwrap_or(Event::Lost("the call was forgotten")) {
                Event::Taken(instance) => {
                    taken.send_replace(Some(instance));
                    self.settle(Some(instance));
                }
                Event::Data { part, end, bytes } => {
                    open.queued.fetch_sub(cost(bytes.len()), Relaxed);
                    let instance = *taken.borrow();
                    if self.imported.asks_for_schema() && part.size > MOST_SCHEMA {
                        return Ended::Lost("the instance has a larger schema than there may be");
                    }
                    if assembly.begins_large(part, &bytes) {
                        match self.call.claim(part.size).await {
                            Ok(claimed) => room = Some(claimed),
                            Err(error) => return Ended::Failed(error),
                        }
                    }
                    let item = match assembly.take(part, &bytes) {
                        Ok(item) => item,
                        Err(broken) => {
                            tracing::warn!(target: "bellrope::fleet", "an answer is not whole: {broken}");
                            return Ended::Lost("a part of the answer is missing");
                        }
                    };
                    if let Some(item) = item {
                        items += 1;
                        match &mut outgoing {
                            Some(chunks) => {
                                if let Err(error) = chunks.send(&item).await {
                                    return error.into();
                                }
                                room = None;
                            }
                            None if answer.replace(item).is_some() => {
                                return Ended::Lost("the instance sent two answers");
                            }
                            None => {}
                        }
                    }
                    if end {
                        open.ended = true;
                        return whole(answer.take(), outgoing.is_some());
                    }
                    self.give_back(open, instance, owed.add(bytes.len())).await;
                }
                Event::Chunks { seq, bytes } => {
                    open.queued.fetch_sub(cost(bytes.len()), Relaxed);
                    let instance = *taken.borrow();
                    let Some(chunks) = &mut outgoing else {
                        return Ended::Lost("chunks came in answer to a call that has none");
                    };
                    if let Err(broken) = assembly.take_gathered(seq) {
                        tracing::warn!(target: "bellrope::fleet", "an answer is not whole: {broken}");
                        return Ended::Lost("a part of the answer is missing");
                    }
                    let all = Gathered::items(&bytes);
                    let whole: Vec<_> = all.map_while(Result::ok).collect();
                    let is_cut = Gathered::items(&bytes).nth(whole.len()).is_some();
                    items += whole.len() as u64;
                    if let Err(error) = chunks.send_all(&whole).await {
                        return error.into();
                    }
                    if is_cut {
                        return Ended::Lost("chunks of the answer are cut short");
                    }
                    self.give_back(open, instance, owed.add(bytes.len())).await;
                }
                Event::End { items: all } => {
                    open.ended = true;
                    if all != items {
                        return Ended::Lost("some of the answer's chunks are missing");
                    }
                    drop(room);
                    return whole(answer.take(), outgoing.is_some());
                }
                Event::Failed { code, detail, text } => {
                    open.ended = true;
                    return Ended::Failed(HandlerError::forwarded(ErrorCode::from_bits(code), detail, text));
                }
                Event::Refused { code, detail, text } => {
                    open.ended = true;
                    if items > 0 {
                        return Ended::Lost("the instance refused a call of which it had sent chunks");
                    }
                    let gone = code == ErrorCode::Rejected.to_bits()
                        && Rejection::from_detail(detail).0 == Rejection::Draining;
                    let error = HandlerError::forwarded(ErrorCode::from_bits(code), detail, text);
                    // Chunks that were taken from the caller are sent once.
                    let begun = taken.borrow().is_some() && self.imported.uploads();
                    return if begun { Ended::Failed(error) } else { Ended::NotTaken { error, gone } };
                }
                Event::NoResponders => {
                    let text = format!("nobody in the fleet offers {}", self.imported.name);
                    return Ended::NotTaken { error: HandlerError::not_executed(text), gone: true };
                }
                Event::Lost(reason) => return Ended::Lost(reason),
            }
        }
    }

    /// An instance has the call. If NATS chose it, the session stays there from now on.
    fn settle(&self, instance: Option<u64>) {
        if let (None, Some(instance)) = (self.to, instance) {
            self.choices.settle(self.session, instance, Instant::now());
        }
    }

    async fn give_back(&self, open: &Open<'_>, instance: Option<u64>, bytes: Option<u32>) {
        let known = || self.table.instance_of(open.number);
        if let (Some(bytes), Some(instance)) = (bytes, instance.or_else(known)) {
            let credit = Up { from: self.link.id, call: open.number, what: UpKind::Credit(bytes) };
            // If it is lost, so is the call.
            let _ = self.link.publish(self.link.inbox(instance, "up"), None, frame::write(&credit, &[])).await;
        }
    }
}

/// A call that has ended well has an answer, or is a stream.
fn whole(answer: Option<Vec<u8>>, is_stream: bool) -> Ended {
    match answer {
        Some(answer) => Ended::Answered(answer),
        None if is_stream => Ended::Answered(Vec::new()),
        None => Ended::Lost("the call ended without an answer"),
    }
}

/// What goes to the instance after the first part.
struct Sending<'a> {
    link: &'a Arc<Link>,
    number: u64,
    credit: Credit,
    cutter: Cutter,
}

impl Sending<'_> {
    /// Sends the rest of the request, then the caller's chunks, to whoever has taken the call. Returns only if the link is
    /// lost.
    async fn run(
        mut self,
        request: &[u8],
        sent: usize,
        incoming: Option<&mut ChunkReceiver>,
        mut taken_by: watch::Receiver<Option<u64>>,
    ) -> Lost {
        if sent == request.len() && incoming.is_none() {
            return std::future::pending().await;
        }
        let Some(instance) = taken_by.wait_for(Option::is_some).await.ok().and_then(|taken| *taken) else {
            return std::future::pending().await;
        };
        let subject = self.link.inbox(instance, "up");
        if sent < request.len() && self.item(&subject, request, sent).await.is_err() {
            return Lost;
        }
        if let Some(incoming) = incoming {
            while let Some(chunk) = incoming.next().await {
                if self.item(&subject, &chunk, 0).await.is_err() {
                    return Lost;
                }
            }
            let finish = Up { from: self.link.id, call: self.number, what: UpKind::Finish };
            if self.link.publish(subject, None, frame::write(&finish, &[])).await.is_err() {
                return Lost;
            }
        }
        std::future::pending().await
    }

    async fn item(&mut self, subject: &str, item: &[u8], mut from: usize) -> Result<(), Lost> {
        loop {
            let (part, bytes): (ItemPart, _) = self.cutter.cut(item, from);
            self.credit.take(bytes.len()).await;
            let message = frame::write(&Up { from: self.link.id, call: self.number, what: UpKind::Data(part) }, bytes);
            self.link.publish(subject.to_owned(), None, message).await?;
            from += bytes.len();
            if from >= item.len() {
                return Ok(());
            }
        }
    }
}
