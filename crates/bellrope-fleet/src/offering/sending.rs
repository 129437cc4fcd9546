//! What goes to the importing server of one call.

use std::{sync::Arc, time::Duration};

use bellrope::{CallError, client::AsyncStream};
use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout_at};

use crate::{
    flow::{Credit, Cutter, Gathered},
    frame::{self, Down, DownKind},
    link::{Link, Lost},
};

/// Messages of one stream that are not full follow each other by no less, if the last one had many chunks. A message costs NATS and
/// both servers more than the chunks in it.
const PACE: Duration = Duration::from_millis(1);
/// So many.
const MANY: u64 = 4;

/// Says something of a call to its importing server.
pub(super) async fn say(link: &Link, from: u64, call: u64, what: DownKind<'_>, bytes: &[u8]) -> Result<(), Lost> {
    let message = frame::write(&Down { from: link.id, call, what }, bytes);
    link.publish(link.inbox(from, "down"), None, message).await
}

/// Sends items to the importing server, as far as its credit goes.
pub(super) struct Sending {
    link: Arc<Link>,
    /// The importing server's link, and its number of the call.
    from: u64,
    call: u64,
    credit: Credit,
    cutter: Cutter,
    gathered: Gathered,
    /// Chunks that were taken from the stream.
    items: u64,
    /// Of them, those before the last message of gathered ones; and when that was sent, if it had many.
    items_before: u64,
    sent: Option<Instant>,
    /// Whether chunks of a stream that brings many may wait for more.
    is_paced: bool,
}

impl Sending {
    pub(super) fn new(link: &Arc<Link>, (from, call): (u64, u64), credit: &Credit) -> Self {
        let (cutter, gathered) = (Cutter::new(link.part()), Gathered::default());
        Self {
            link: Arc::clone(link),
            from,
            call,
            credit: credit.clone(),
            cutter,
            gathered,
            items: 0,
            items_before: 0,
            sent: None,
            is_paced: false,
        }
    }

    /// The same for a stream whose caller sends nothing that its chunks answer: where they come so fast that many share a message,
    /// the next one that is not full waits until this long after the last.
    pub(super) fn paced(self) -> Self {
        Self { is_paced: true, ..self }
    }

    /// Sends the answer of a call that is no stream.
    pub(super) async fn answer(&mut self, answer: &[u8]) -> Result<(), Lost> {
        self.item(answer, true).await
    }

    /// Sends all chunks of a stream, as they come: those that are there at once in one message, as many as it holds. `fault` says
    /// what an error is, after so many chunks.
    pub(super) async fn chunks<E: From<Lost>>(
        &mut self,
        stream: &mut AsyncStream,
        fault: impl Fn(&CallError, u64) -> E,
    ) -> Result<(), E> {
        loop {
            let next = match (stream.next().now_or_never(), self.gathers_until()) {
                (Some(next), _) => Some(next),
                (None, Some(until)) => timeout_at(until, stream.next()).await.ok(),
                (None, None) => None,
            };
            let next = match next {
                Some(next) => next,
                None => {
                    self.flush().await?;
                    stream.next().await
                }
            };
            match next {
                Some(Ok(chunk)) => self.chunk(&chunk).await?,
                Some(Err(error)) => {
                    self.flush().await?;
                    return Err(fault(&error, self.items));
                }
                None => {
                    self.flush().await?;
                    say(&self.link, self.from, self.call, DownKind::End { items: self.items }, &[]).await?;
                    return Ok(());
                }
            }
        }
    }

    /// Until when what is gathered may wait for more. `None`: nothing waits for what is not there yet.
    fn gathers_until(&self) -> Option<Instant> {
        let until = self.sent? + PACE;
        (self.is_paced && !self.gathered.is_empty() && Instant::now() < until).then_some(until)
    }

    async fn chunk(&mut self, chunk: &[u8]) -> Result<(), Lost> {
        if !self.gathered.has_room(chunk, self.link.part()) {
            self.flush().await?;
        }
        self.items += 1;
        match self.gathered.has_room(chunk, self.link.part()) {
            true => self.gathered.add(chunk),
            false => self.item(chunk, false).await?,
        }
        Ok(())
    }

    /// Sends what is gathered.
    async fn flush(&mut self) -> Result<(), Lost> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let chunks = self.gathered.take();
        // One that brings few chunks at a time is not made to wait.
        self.sent = (self.items - self.items_before >= MANY).then(Instant::now);
        self.items_before = self.items;
        self.credit.take(chunks.len()).await;
        let seq = self.cutter.number();
        say(&self.link, self.from, self.call, DownKind::Chunks { seq }, &chunks).await
    }

    async fn item(&mut self, item: &[u8], end: bool) -> Result<(), Lost> {
        let mut at = 0;
        loop {
            let (part, bytes) = self.cutter.cut(item, at);
            at += bytes.len();
            let is_last = at == item.len();
            self.credit.take(bytes.len()).await;
            let data = DownKind::Data { part, end: end && is_last };
            say(&self.link, self.from, self.call, data, bytes).await?;
            if is_last {
                return Ok(());
            }
        }
    }
}
