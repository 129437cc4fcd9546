//! Answers that survive their readers: how one begins, is gone on with, and is cancelled.

use bellrope::{
    HandlerError,
    server::{Cancelled, ChunkSender, OwnedCall},
};
use futures_util::{StreamExt, stream};

use super::pieces::{cut, encode};
use crate::error::ProviderError;
use crate::gateway::{AnswerReader, KeptAnswer, KeptAnswers, LiveGateway, Owner};
use crate::json;
use crate::message::{CancelReport, CancelRequest, ChatRequest, Chunk, ResumeRequest, SequencedChunk, WIRE_VERSION};

/// Who called, and whether it still wants an answer.
pub(super) struct Reader {
    owner: Owner,
    cancelled: Cancelled,
}

impl Reader {
    pub(super) fn of(call: &OwnedCall) -> Self {
        Self { owner: Owner::User(call.user()), cancelled: call.cancelled() }
    }
}

/// Begins an answer that is kept, and sends it. `size`: of its request, in bytes.
pub(super) async fn begin(
    gateway: &LiveGateway,
    request: ChatRequest,
    size: usize,
    caller: Reader,
    mut chunks: ChunkSender,
) -> Result<(), HandlerError> {
    let begun =
        KeptAnswers::new_id().and_then(|id| gateway.answers().begin(id, caller.owner, false, None, size as u64));
    let answer = match begun {
        Ok(answer) => answer,
        Err(full) => {
            chunks.send(encode(&SequencedChunk { seq: 0, chunk: full.into() })?).await?;
            return Ok(());
        }
    };
    let first = stream::iter([Chunk::Resumable { id: answer.id() }]);
    let began = answer.clone();
    let rest = gateway.current().chat_stream(request).flat_map(move |piece| {
        // Whatever comes, its request has been sent.
        began.hold(0);
        stream::iter(cut(piece.chunk))
    });
    let reader = answer.read(0);
    answer.pull(first.chain(rest));
    send(reader, 0, caller.cancelled, chunks).await
}

/// Goes on with an answer.
pub(super) async fn resume(gateway: LiveGateway, call: OwnedCall, chunks: ChunkSender) -> Result<(), HandlerError> {
    let caller = Reader::of(&call);
    let ResumeRequest { version, id, last_seq } = read(&call)?;
    let from = last_seq.map_or(0, |last| last.saturating_add(1));
    let reader = check_version(version)
        .and_then(|()| gateway.answers().find(&id, &caller.owner))
        .and_then(|answer: KeptAnswer| answer.read(from));
    send(reader, from, caller.cancelled, chunks).await
}

/// Cancels an answer.
pub(super) async fn cancel(gateway: LiveGateway, call: OwnedCall) -> Result<Vec<u8>, HandlerError> {
    let CancelRequest { version, id } = read(&call)?;
    let found = check_version(version).and_then(|()| gateway.answers().find(&id, &Reader::of(&call).owner));
    let answer = found.map_err(|error| HandlerError::invalid_request(format!("{}: {error}", error.code())))?;
    encode(&CancelReport { version: WIRE_VERSION, cancelled: answer.cancel() })
}

/// Sends what a reader reads. What cannot be read is an error in its place.
async fn send(
    reader: Result<AnswerReader, ProviderError>,
    from: u64,
    cancelled: Cancelled,
    mut chunks: ChunkSender,
) -> Result<(), HandlerError> {
    let (error, seq) = match reader {
        Ok(reader) => {
            let mut reading = Reading { reader, cancelled };
            loop {
                match reading.reader.next().await {
                    Ok(Some(piece)) => chunks.send(piece).await?,
                    Ok(None) => return Ok(()),
                    Err(error) => break (error, reading.reader.position()),
                }
            }
        }
        Err(error) => (error, from),
    };
    chunks.send(encode(&SequencedChunk { seq, chunk: error.into() })?).await?;
    Ok(())
}

/// A reader, and what tells why it is dropped: an answer that its caller cancels ends, one whose caller is gone does not.
struct Reading {
    reader: AnswerReader,
    cancelled: Cancelled,
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.cancelled.is_withdrawn() {
            self.reader.cancel();
        }
    }
}

fn check_version(asked: u32) -> Result<(), ProviderError> {
    if asked > WIRE_VERSION {
        return Err(ProviderError::UnsupportedVersion { asked, known: WIRE_VERSION });
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(call: &OwnedCall) -> Result<T, HandlerError> {
    json::from_slice(call.payload())
        .map_err(|error| HandlerError::invalid_request(format!("the request cannot be read: {error}")))
}
