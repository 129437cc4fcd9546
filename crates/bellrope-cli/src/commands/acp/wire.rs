//! The lines on standard input and output, with their bounds.
//!
//! The protocol library queues whatever it is given, so the bounds are kept at its edges: whoever streams an answer asks
//! for [`Flow::room`] first and so waits for a slow editor, and an editor that writes without reading is read no further.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use agent_client_protocol as sdk;
use futures_util::{Sink, Stream, sink, stream};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{Notify, Semaphore},
};

/// The longest line that is taken in, in bytes: more than a server takes in one message.
const MAX_LINE: usize = 16 * 1024 * 1024;
/// What may be read while standard output is blocked, in bytes, before reading rests, too.
const MAX_AHEAD: usize = 32 * 1024 * 1024;
/// Pieces of answers that may wait for standard output. Worst case: 64 x about 16 KiB.
const MAX_UPDATES: usize = 64;

/// How the line of a piece of an answer begins, as the library writes it.
const UPDATE: &str = r#"{"jsonrpc":"2.0","method":"session/update","#;

/// What the two directions know of each other.
#[derive(Debug)]
pub(super) struct Flow {
    /// Places for pieces of answers.
    updates: Semaphore,
    /// Whether a line waits to be written.
    blocked: AtomicBool,
    unblocked: Notify,
    /// Whether standard input is at its end.
    over: AtomicBool,
    ended: Notify,
    /// Requests whose answers are waited for before the end: see [`Brief`].
    brief: AtomicUsize,
    settled: Notify,
}

/// A request that takes a moment. As long as this is there, the end of standard input is not the end.
#[derive(Debug)]
pub(super) struct Brief(Arc<Flow>);

impl Drop for Brief {
    fn drop(&mut self) {
        self.0.brief.fetch_sub(1, Ordering::SeqCst);
        self.0.settled.notify_waiters();
    }
}

impl Flow {
    fn new() -> Self {
        Self {
            updates: Semaphore::new(MAX_UPDATES),
            blocked: AtomicBool::new(false),
            unblocked: Notify::new(),
            over: AtomicBool::new(false),
            ended: Notify::new(),
            brief: AtomicUsize::new(0),
            settled: Notify::new(),
        }
    }

    /// Begins a request that takes a moment.
    pub(super) fn brief(self: &Arc<Self>) -> Brief {
        self.brief.fetch_add(1, Ordering::SeqCst);
        Brief(Arc::clone(self))
    }

    /// Waits until there is no such request.
    pub(super) async fn settled(&self) {
        wait(&self.settled, || self.brief.load(Ordering::SeqCst) == 0).await;
    }

    /// Waits for room for one more piece of an answer, and takes it.
    pub(super) async fn room(&self) {
        // Never closed.
        if let Ok(room) = self.updates.acquire().await {
            room.forget();
        }
    }

    /// Waits until standard input has been at its end for so long.
    pub(super) async fn ended_for(&self, time: Duration) {
        wait(&self.ended, || self.over.load(Ordering::SeqCst)).await;
        tokio::time::sleep(time).await;
    }

    fn written(&self, line: &str) {
        if line.starts_with(UPDATE) {
            self.updates.add_permits(1);
        }
        self.blocked.store(false, Ordering::SeqCst);
        self.unblocked.notify_waiters();
    }
}

/// Standard input and output as the protocol library takes them.
pub(super) fn standard() -> (impl sdk::ConnectTo<sdk::Agent> + 'static, Arc<Flow>) {
    let flow = Arc::new(Flow::new());
    let input = lines(BufReader::new(tokio::io::stdin()), Arc::clone(&flow));
    let output = writer(tokio::io::stdout(), Arc::clone(&flow));
    (sdk::Lines::new(output, input), flow)
}

fn writer<W: AsyncWrite + Send + Unpin + 'static>(
    output: W,
    flow: Arc<Flow>,
) -> impl Sink<String, Error = io::Error> + Send + 'static {
    sink::unfold((output, flow), |(mut output, flow), mut line: String| async move {
        line.push('\n');
        flow.blocked.store(true, Ordering::SeqCst);
        output.write_all(line.as_bytes()).await?;
        output.flush().await?;
        flow.written(&line);
        Ok((output, flow))
    })
}

fn lines<R: AsyncBufRead + Send + Unpin + 'static>(
    input: R,
    flow: Arc<Flow>,
) -> impl Stream<Item = io::Result<String>> + Send + 'static {
    stream::try_unfold((input, flow, 0), |(mut input, flow, mut ahead)| async move {
        // What was read before is dealt with first.
        tokio::task::yield_now().await;
        if !flow.blocked.load(Ordering::SeqCst) {
            ahead = 0;
        } else if ahead >= MAX_AHEAD {
            wait(&flow.unblocked, || !flow.blocked.load(Ordering::SeqCst)).await;
            ahead = 0;
        }
        let Some(line) = line(&mut input, MAX_LINE).await? else {
            flow.over.store(true, Ordering::SeqCst);
            flow.ended.notify_waiters();
            return Ok(None);
        };
        ahead += line.len();
        Ok(Some((line, (input, flow, ahead))))
    })
}

/// Waits until a condition holds, looking at it after every notice.
async fn wait(notice: &Notify, holds: impl Fn() -> bool) {
    loop {
        let mut notified = std::pin::pin!(notice.notified());
        notified.as_mut().enable();
        if holds() {
            return;
        }
        notified.await;
    }
}

/// The next line that is not empty. One that cannot be taken in becomes a text that says why, and is no JSON, so that
/// the editor is told.
async fn line(input: &mut (impl AsyncBufRead + Unpin), limit: usize) -> io::Result<Option<String>> {
    loop {
        let (bytes, whole) = match bounded_line(input, limit).await? {
            Some(read) => read,
            None => return Ok(None),
        };
        if !whole {
            return Ok(Some(format!("(a line of more than {limit} bytes was passed over)")));
        }
        match String::from_utf8(bytes) {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => return Ok(Some(line)),
            Err(_) => return Ok(Some("(a line that is not UTF-8 was passed over)".to_owned())),
        }
    }
}

/// The next line, and whether it is all of it. `None` at the end.
async fn bounded_line(input: &mut (impl AsyncBufRead + Unpin), limit: usize) -> io::Result<Option<(Vec<u8>, bool)>> {
    let (mut line, mut whole) = (Vec::new(), true);
    loop {
        let piece = input.fill_buf().await?;
        if piece.is_empty() {
            return Ok((!line.is_empty() || !whole).then_some((line, whole)));
        }
        let end = piece.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(piece.len());
        if taken > limit - line.len() {
            whole = false;
        } else if whole {
            line.extend_from_slice(&piece[..taken]);
        }
        input.consume(end.map_or(taken, |end| end + 1));
        if end.is_some() {
            return Ok(Some((line, whole)));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};

    use super::*;

    async fn read(input: &'static [u8], limit: usize) -> Vec<String> {
        let mut input = BufReader::with_capacity(4, input);
        let mut read = Vec::new();
        while let Some(line) = line(&mut input, limit).await.unwrap() {
            read.push(line);
        }
        read
    }

    #[tokio::test]
    async fn a_line_that_cannot_be_taken_in_is_passed_over_and_told_of() {
        let read = read(b"{}\n\n  \r\n0123456789\n\xff\n[]\r\nlast", 8).await;
        let expected = [
            "{}",
            "(a line of more than 8 bytes was passed over)",
            "(a line that is not UTF-8 was passed over)",
            "[]\r",
            "last",
        ];
        assert_eq!(read, expected);
    }

    #[tokio::test]
    async fn an_editor_that_does_not_read_gets_no_more_than_the_bound() {
        let flow = Arc::new(Flow::new());
        let (near, far) = tokio::io::duplex(16);
        let mut output = Box::pin(writer(near, Arc::clone(&flow)));
        let update = format!("{UPDATE}\"params\":{{}}}}");
        for _ in 0..MAX_UPDATES {
            flow.room().await;
        }
        let mut more = Box::pin(flow.room());
        assert!(futures_util::poll!(&mut more).is_pending());
        assert!(futures_util::poll!(output.send(update.clone())).is_pending());
        assert!(futures_util::poll!(&mut more).is_pending());

        // What is written makes room, once an update has been written whole; other lines make none.
        let mut far = BufReader::new(far).lines();
        let writing = async {
            output.send(r#"{"jsonrpc":"2.0","id":1,"result":null}"#.to_owned()).await.unwrap();
        };
        let reading = async {
            assert_eq!(far.next_line().await.unwrap(), Some(update));
            far.next_line().await.unwrap()
        };
        let (_, other) = tokio::join!(writing, reading);
        assert!(other.is_some_and(|line| line.contains("result")));
        more.await;
        assert_eq!(flow.updates.available_permits(), 0);
    }

    #[tokio::test]
    async fn while_output_is_blocked_input_is_read_only_so_far() {
        let flow = Arc::new(Flow::new());
        flow.blocked.store(true, Ordering::SeqCst);
        let long = "x".repeat(MAX_LINE);
        let text: &'static [u8] = Box::leak(format!("{long}\n{long}\nlast\n").into_boxed_str().into_boxed_bytes());
        let mut input = Box::pin(lines(text, Arc::clone(&flow)));
        assert!(input.next().await.is_some() && input.next().await.is_some());
        assert!(futures_util::poll!(input.next()).is_pending());
        assert!(futures_util::poll!(input.next()).is_pending());
        flow.written("");
        assert_eq!(input.next().await.unwrap().unwrap(), "last");
        assert!(input.next().await.is_none());
        flow.ended_for(Duration::ZERO).await;
    }
}
