//! The lines on standard input and output, with their bounds.
//!
//! Every line that is to be written waits in one queue of fixed length. Whoever streams an answer asks for [`Flow::room`]
//! first and so waits for a slow editor, and an editor that writes without reading is read no further.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agent_client_protocol_schema::v1::{Error, RequestId, SessionNotification};
use serde::Serialize;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
};

use super::rpc;

/// The longest line that is taken in, in bytes: more than a server takes in one message.
pub(super) const MAX_LINE: usize = 16 * 1024 * 1024;
/// How much of a longer line is looked at for the id of its request.
const MAX_BEGINNING: usize = 4 * 1024;
/// What may be read while standard output is blocked, in bytes, before reading rests, too.
const MAX_AHEAD: usize = 32 * 1024 * 1024;
/// Pieces of answers that may wait for standard output. Worst case: 64 x about 16 KiB.
const MAX_UPDATES: usize = 64;
/// Answers that may wait for standard output; beyond it, reading rests.
const MAX_ANSWERS: usize = 256;
/// Requests that take a moment and may run at once; beyond it, reading rests.
const MAX_BRIEF: u32 = 64;

/// A line that waits to be written.
#[derive(Debug)]
struct Line {
    text: String,
    /// Whether it is a piece of an answer.
    piece: bool,
}

/// Where lines for the editor go.
#[derive(Debug, Clone)]
pub(super) struct Editor {
    lines: mpsc::Sender<Line>,
    flow: Arc<Flow>,
}

/// Lines on their way to the editor.
#[derive(Debug)]
pub(super) struct Outgoing(mpsc::Receiver<Line>);

impl Editor {
    pub(super) fn new(flow: &Arc<Flow>) -> (Self, Outgoing) {
        let (lines, outgoing) = mpsc::channel(MAX_UPDATES + MAX_ANSWERS);
        (Self { lines, flow: Arc::clone(flow) }, Outgoing(outgoing))
    }

    /// Answers a request. Where nobody writes any more, the answer is lost with the connection.
    pub(super) async fn answer(&self, id: &RequestId, outcome: Result<impl Serialize, Error>) {
        let text = rpc::answer(id, outcome);
        let _ = self.lines.send(Line { text, piece: false }).await;
    }

    /// Sends a line that is no answer.
    pub(super) async fn say(&self, text: String) {
        let _ = self.lines.send(Line { text, piece: false }).await;
    }

    /// Sends a piece of an answer, once there is room for it.
    pub(super) async fn update(&self, params: &SessionNotification) -> anyhow::Result<()> {
        let text = rpc::update(params)?;
        self.flow.room().await;
        Ok(self.lines.send(Line { text, piece: true }).await?)
    }
}

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
    /// Places for requests whose answers are waited for before the end.
    brief: Arc<Semaphore>,
}

impl Flow {
    pub(super) fn new() -> Self {
        Self {
            updates: Semaphore::new(MAX_UPDATES),
            blocked: AtomicBool::new(false),
            unblocked: Notify::new(),
            over: AtomicBool::new(false),
            ended: Notify::new(),
            brief: Arc::new(Semaphore::new(MAX_BRIEF as usize)),
        }
    }

    /// Begins a request that takes a moment. As long as what is returned is there, the end of standard input is not the
    /// end.
    pub(super) async fn brief(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        Arc::clone(&self.brief).acquire_owned().await.ok()
    }

    /// Waits until there is no such request.
    pub(super) async fn settled(&self) {
        let _ = self.brief.acquire_many(MAX_BRIEF).await;
    }

    /// Waits for room for one more piece of an answer, and takes it.
    async fn room(&self) {
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

    fn written(&self, piece: bool) {
        if piece {
            self.updates.add_permits(1);
        }
        self.blocked.store(false, Ordering::SeqCst);
        self.unblocked.notify_waiters();
    }
}

/// Writes lines until nobody is left to send any.
pub(super) async fn write(
    mut output: impl AsyncWrite + Unpin,
    Outgoing(mut lines): Outgoing,
    flow: &Flow,
) -> io::Result<()> {
    while let Some(line) = lines.recv().await {
        flow.blocked.store(true, Ordering::SeqCst);
        output.write_all(line.text.as_bytes()).await?;
        output.flush().await?;
        flow.written(line.piece);
    }
    Ok(())
}

/// A line of the editor's.
#[derive(Debug, PartialEq)]
pub(super) enum Taken {
    Line(String),
    /// One of more than [`MAX_LINE`] bytes was passed over; what it begins with.
    TooLong(String),
}

/// The lines of the editor.
#[derive(Debug)]
pub(super) struct Input<R> {
    from: R,
    flow: Arc<Flow>,
    /// Bytes read since standard output was seen to be blocked.
    ahead: usize,
}

impl<R: AsyncBufRead + Unpin> Input<R> {
    pub(super) fn new(from: R, flow: &Arc<Flow>) -> Self {
        Self { from, flow: Arc::clone(flow), ahead: 0 }
    }

    /// The next line. None at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Taken>> {
        // What was read before is dealt with first.
        tokio::task::yield_now().await;
        let flow = &self.flow;
        if !flow.blocked.load(Ordering::SeqCst) {
            self.ahead = 0;
        } else if self.ahead >= MAX_AHEAD {
            wait(&flow.unblocked, || !flow.blocked.load(Ordering::SeqCst)).await;
            self.ahead = 0;
        }
        let line = line(&mut self.from, MAX_LINE).await?;
        match &line {
            Some(Taken::Line(line)) => self.ahead += line.len(),
            Some(Taken::TooLong(_)) => self.ahead += MAX_LINE,
            None => {
                flow.over.store(true, Ordering::SeqCst);
                flow.ended.notify_waiters();
            }
        }
        Ok(line)
    }
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

/// The next line that is not empty. What is not UTF-8 in it becomes U+FFFD.
async fn line(input: &mut (impl AsyncBufRead + Unpin), limit: usize) -> io::Result<Option<Taken>> {
    loop {
        let (bytes, whole) = match bounded_line(input, limit).await? {
            Some(read) => read,
            None => return Ok(None),
        };
        if !whole {
            let beginning = &bytes[..bytes.len().min(MAX_BEGINNING)];
            return Ok(Some(Taken::TooLong(String::from_utf8_lossy(beginning).into_owned())));
        }
        let line = String::from_utf8(bytes).unwrap_or_else(|error| {
            let bytes = error.into_bytes();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        if !line.trim().is_empty() {
            return Ok(Some(Taken::Line(line)));
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
        let room = limit.saturating_sub(line.len());
        if whole {
            line.extend_from_slice(&piece[..taken.min(room)]);
        }
        if taken > room && whole {
            whole = false;
            // What is kept is its beginning, and no more memory than that takes.
            line.truncate(MAX_BEGINNING);
            line.shrink_to_fit();
        }
        input.consume(end.map_or(taken, |end| end + 1));
        if end.is_some() {
            return Ok(Some((line, whole)));
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_client_protocol_schema::v1::{ContentChunk, SessionUpdate};
    use tokio::io::BufReader;

    use super::*;

    async fn read(input: &'static [u8], limit: usize) -> Vec<String> {
        let mut input = BufReader::with_capacity(4, input);
        let mut read = Vec::new();
        while let Some(taken) = line(&mut input, limit).await.unwrap() {
            read.push(match taken {
                Taken::Line(line) => line,
                Taken::TooLong(beginning) => format!("{beginning}..."),
            });
        }
        read
    }

    #[tokio::test]
    async fn a_line_that_cannot_be_taken_in_is_passed_over_and_told_of() {
        let read = read(b"{}\n\n  \r\n0123456789\n\xff\n[]\r\nlast", 8).await;
        let expected = ["{}", "01234567...", "\u{fffd}", "[]\r", "last"];
        assert_eq!(read, expected);
    }

    #[tokio::test]
    async fn an_editor_that_does_not_read_gets_no_more_than_the_bound() {
        let flow = Arc::new(Flow::new());
        let (near, far) = tokio::io::duplex(16);
        let (editor, outgoing) = Editor::new(&flow);
        let mut writing = Box::pin(write(near, outgoing, &flow));
        let update = SessionNotification::new("s", SessionUpdate::AgentMessageChunk(ContentChunk::new("x".into())));
        for _ in 0..MAX_UPDATES {
            editor.update(&update).await.unwrap();
        }
        let mut more = Box::pin(editor.update(&update));
        assert!(futures_util::poll!(&mut more).is_pending());
        assert!(futures_util::poll!(&mut writing).is_pending());
        assert!(futures_util::poll!(&mut more).is_pending());

        // Answers have places of their own, and what is written whole makes room for one more piece.
        let mut far = BufReader::new(far).lines();
        editor.answer(&RequestId::Number(1), Ok(())).await;
        tokio::select! {
            _ = &mut writing => panic!("somebody is left to send lines"),
            line = far.next_line() => assert!(line.unwrap().unwrap().starts_with(r#"{"jsonrpc":"2.0","method":"session/update","#)),
        }
        tokio::select! {
            _ = &mut writing => panic!("somebody is left to send lines"),
            sent = more => sent.unwrap(),
        }
        assert_eq!(flow.updates.available_permits(), 0);
        drop(editor);
        let reading = async {
            let mut lines = Vec::new();
            while lines.len() < MAX_UPDATES + 1 {
                lines.push(far.next_line().await.unwrap().unwrap());
            }
            lines
        };
        let (written, lines) = tokio::join!(writing, reading);
        written.unwrap();
        assert_eq!(lines[MAX_UPDATES - 1], r#"{"jsonrpc":"2.0","id":1,"result":null}"#);
        assert_eq!(flow.updates.available_permits(), MAX_UPDATES);
    }

    #[tokio::test]
    async fn while_output_is_blocked_input_is_read_only_so_far() {
        let flow = Arc::new(Flow::new());
        flow.blocked.store(true, Ordering::SeqCst);
        let long = "x".repeat(MAX_LINE);
        let text = format!("{long}\n{long}\nlast\n");
        let mut input = Input::new(text.as_bytes(), &flow);
        assert!(input.next().await.unwrap().is_some() && input.next().await.unwrap().is_some());
        let mut next = Box::pin(input.next());
        assert!(futures_util::poll!(&mut next).is_pending());
        assert!(futures_util::poll!(&mut next).is_pending());
        flow.written(false);
        assert_eq!(next.await.unwrap(), Some(Taken::Line("last".to_owned())));
        assert!(input.next().await.unwrap().is_none());
        flow.ended_for(Duration::ZERO).await;
    }
}
