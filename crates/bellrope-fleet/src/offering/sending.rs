//! What goes to the importing server of one call.

use std::sync::Arc;

use bellrope::{CallError, client::AsyncStream};
use futures_util::FutureExt as _;

use crate::{
    flow::{Credit, Cutter, Gathered},
    frame::{self, Down, DownKind},
    link::{Link, Lost},
};

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
    /// Of them, those before the last message of gathered ones; and whether that had several.
    items_before: u64,
    follows_many: bool,
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
            follows_many: false,
        }
    }

    /// Sends the answer of a call that is no stream.
    pub(super) async fn answer(&mut self, answer: &[u8]) -> Result<(), Lost> {
        self.item(answer, true).await
    }

    /// Sends all chunks of a stream, as they come: those that are there at once in one message, as many as it holds. Of a stream
    /// whose last message had several, the next one waits for a turn of the runtime, in which more may come. `fault` says what an
    /// error is, after so many chunks.
    pub(super) async fn chunks<E: From<Lost>>(
        &mut self,
        stream: &mut AsyncStream,
        fault: impl Fn(&CallError, u64) -> E,
    ) -> Result<(), E> {
        loop {
            let mut next = stream.next().now_or_never();
            if next.is_none() && self.follows_many && !self.gathered.is_empty() {
                tokio::task::yield_now().await;
                next = stream.next().now_or_never();
            }
            let next = match next {
                Some(next) => next,
                // Nothing waits for what is not there yet.
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
        self.follows_many = self.items - self.items_before > 1;
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
