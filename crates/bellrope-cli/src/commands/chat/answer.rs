//! An answer on its way from a server.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bellrope::{
    AsyncClient, CallError,
    client::{AsyncStream, CallOptions, Metadata},
};
use bellrope_gateway::{Chunk, SequencedChunk, WIRE_VERSION};

use crate::socket;

/// How long a stream may take to end after its last chunk.
const PARTING: Duration = Duration::from_secs(1);

/// The session of all answers that are kept for later. A fleet sends the calls of one session to one instance, which is the
/// one that keeps the answer.
const SESSION: &str = "bellrope chat";

/// An answer on its way. Dropping it cancels it at the server.
///
/// It knows no terminal and no editor: it hands out pieces, each in its place, and fails where one is missing.
#[derive(Debug)]
pub(crate) struct ChatAnswer {
    stream: AsyncStream,
    /// The number that the next piece must have.
    due: u64,
    /// What to send again if the server turns out to have gone before it took the request.
    again: Option<(AsyncClient, Vec<u8>, CallOptions)>,
}

/// A piece of an answer.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) chunk: Chunk,
    /// The piece as it came.
    pub(crate) json: Vec<u8>,
}

impl ChatAnswer {
    /// Sends a chat request, `resumable` if its answer is kept for later.
    ///
    /// # Errors
    /// [`CallError`] if it could not be sent.
    pub(crate) async fn begin(client: &AsyncClient, request: Vec<u8>, resumable: bool) -> Result<Self, CallError> {
        let options = if resumable { in_session(SESSION) } else { CallOptions::new() };
        let stream = send(client, &request, &options).await?;
        Ok(Self { stream, due: 0, again: Some((client.clone(), request, options)) })
    }

    /// Goes on with an answer that is kept, from its beginning.
    ///
    /// # Errors
    /// [`CallError`] if it could not be asked for.
    pub(crate) async fn resume(client: &AsyncClient, id: &str) -> Result<Self, CallError> {
        let request = serde_json::json!({"version": WIRE_VERSION, "id": id}).to_string();
        // Of a fleet, the id says which instance keeps it: so does a session by that name.
        let session = id.split_once('@').map_or_else(|| SESSION.to_owned(), |(_, place)| format!("{SESSION}@{place}"));
        let stream = client.stream_with("ai.resume", request.as_bytes(), &in_session(&session)).await?;
        Ok(Self { stream, due: 0, again: None })
    }

    /// Waits for the next piece. After a terminal one comes none. Dropping what this returns before it is done loses the
    /// answer: whoever wants to do something else meanwhile must keep it.
    ///
    /// # Errors
    /// The answer breaks off, or fails: a [`Chunk::Error`] is a piece and no error.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Piece> {
        let mut next = self.stream.next().await;
        if let Some((client, request, options)) = self.again.take()
            && matches!(&next, Some(Err(error)) if error.is_retryable())
        {
            // The request never reached a handler: it cannot be answered twice.
            self.stream = send(&client, &request, &options).await.map_err(socket::explain_call)?;
            next = self.stream.next().await;
        }
        let Some(json) = next.transpose()? else {
            bail!("the answer broke off: the server ended it without saying that it is whole");
        };
        let SequencedChunk { seq, chunk } =
            SequencedChunk::read(&json).context("the server sent a chunk that cannot be read")?;
        ensure!(seq == self.due, "chunk {seq} came where {} was due; a part of the answer is missing", self.due);
        self.due += 1;
        Ok(Piece { chunk, json })
    }

    /// Lets the stream end by itself after its last piece, so that it does not count as cancelled.
    pub(crate) async fn part(mut self) {
        let _ = tokio::time::timeout(PARTING, self.stream.next()).await;
    }
}

async fn send(client: &AsyncClient, request: &[u8], options: &CallOptions) -> Result<AsyncStream, CallError> {
    client.stream_with("ai.chat_stream", request, options).await
}

fn in_session(session: &str) -> CallOptions {
    // What does not fit is no id of ours.
    Metadata::new().session(session).map_or_else(|_| CallOptions::new(), |said| CallOptions::new().metadata(said))
}
