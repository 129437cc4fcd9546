//! The gateway as message types of a server.
//!
//! Everything pulls: a piece is asked of the provider only when the one before has been taken for sending, so a slow
//! reader slows its provider down. No task is started: when the caller cancels or goes away the server drops the
//! handler, and the provider's stream, and with it its socket, goes in the same moment.

use std::mem;
use std::sync::Arc;

use bellrope::{
    HandlerError,
    breaker::Caller,
    server::{ChunkSender, ClaimedRoom, OwnedCall, ServerBuilder},
};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::apart::{LARGE, apart};
use crate::error::{Blame, Excerpt, ProviderError};
use crate::gateway::{AnswerStream, Gateway, LiveGateway};
use crate::json;
use crate::message::fields::{CHAT_REQUEST, COMPLETION_REQUEST, Known, misread, unknown};
use crate::message::{ChatRequest, Chunk, CompletionRequest, SequencedChunk, ToolCallDelta, WIRE_VERSION};
use crate::provider::BoxFuture;
use crate::text::boundary;

/// The message types that [`register`] adds.
pub const MESSAGE_TYPES: [&str; 6] = [CHAT, CHAT_STREAM, COMPLETE, COMPLETE_STREAM, MODELS, HEALTH];

pub(crate) const CHAT: &str = "ai.chat";
pub(crate) const CHAT_STREAM: &str = "ai.chat_stream";
pub(crate) const COMPLETE: &str = "ai.complete";
pub(crate) const COMPLETE_STREAM: &str = "ai.complete_stream";
pub(crate) const MODELS: &str = "ai.models";
pub(crate) const HEALTH: &str = "ai.health";

/// The most bytes of one chunk of a stream. A server needs `ring_bytes` of at least four times as much.
pub const MAX_CHUNK: usize = 16 * 1024;

/// Longer texts are cut. In bytes; JSON makes at most six of one, which leaves room for the rest of the chunk.
const MAX_TEXT: usize = 2 * 1024;

/// How often a request counts in the server's buffer budget: what is read out of it, what is sent to the provider, and a
/// part of that on its way from the one to the other.
const WEIGHT: u32 = 3;

/// What is kept as text if it is long: the arguments of calls.
const ARGUMENTS: json::Place = &["messages", json::IN_LIST, "content", json::IN_LIST, "input"];

/// Adds the gateway's [message types](crate::message) to a server.
///
/// A request that is no valid JSON is answered with an error that says what is wrong and where. A provider's error ends
/// a stream as its last chunk; of the others it is the error, as `code: message`, with the setting to change where one
/// is known. A chunk has at most [`MAX_CHUNK`] bytes: longer texts are cut, and the pieces numbered as they are sent.
///
/// ```
/// use std::sync::Arc;
///
/// use bellrope_gateway::{ChatRequest, ChatResponse, Gateway, GatewaySettings};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("ai.sock");
/// let gateway = Arc::new(Gateway::from_settings(GatewaySettings::default())?);
/// let server = bellrope_gateway::register(bellrope::Server::builder(), gateway).bind(&path)?;
///
/// let client = bellrope::Client::connect(&path)?;
/// let request = serde_json::to_vec(&ChatRequest::user("Who is there?"))?;
/// let answer: ChatResponse = serde_json::from_slice(&client.call("ai.chat", &request)?)?;
/// assert!(answer.text.ends_with("Who is there?"));
/// # Ok(())
/// # }
/// ```
///
/// With a [`LiveGateway`] the providers can be exchanged while the server runs; each call has those that are in use when it
/// begins.
#[must_use]
pub fn register(builder: ServerBuilder, gateway: impl Into<LiveGateway>) -> ServerBuilder {
    let gateway = gateway.into();
    builder
        .unary_async(
            CHAT,
            unary(&gateway, |gateway, call| async move {
                let Asked { request, room: _room } = asked(call).await?;
                answer(gateway.chat(request).await)
            }),
        )
        .server_stream(CHAT_STREAM, stream(&gateway, Gateway::chat_stream))
        .unary_async(
            COMPLETE,
            unary(&gateway, |gateway, call| async move {
                let Asked { request, room: _room } = asked(call).await?;
                answer(gateway.complete(request).await)
            }),
        )
        .server_stream(COMPLETE_STREAM, stream(&gateway, Gateway::complete_stream))
        .weight(CHAT, WEIGHT)
        .weight(CHAT_STREAM, WEIGHT)
        .weight(COMPLETE, WEIGHT)
        .weight(COMPLETE_STREAM, WEIGHT)
        .unary_async(
            MODELS,
            unary(&gateway, |gateway, call| async move {
                check_question(&call)?;
                encode(&gateway.models().await)
            }),
        )
        .unary_async(
            HEALTH,
            unary(&gateway, |gateway, call| async move {
                check_question(&call)?;
                encode(&gateway.health().await)
            }),
        )
}

/// A handler that answers once, with the gateway at hand.
fn unary<F, A>(gateway: &LiveGateway, handler: F) -> impl Fn(OwnedCall) -> A + use<F, A>
where
    F: Fn(Arc<Gateway>, OwnedCall) -> A,
{
    let gateway = gateway.clone();
    move |call| handler(gateway.current(), call)
}

/// A handler that answers with the pieces of what `begin` begins.
fn stream<T: WithNotes>(
    gateway: &LiveGateway,
    begin: fn(&Gateway, T) -> AnswerStream,
) -> impl Fn(OwnedCall, ChunkSender) -> BoxFuture<'static, Result<(), HandlerError>> + use<T> {
    let gateway = gateway.clone();
    move |call, chunks| {
        let gateway = gateway.current();
        // The request is read in here: outside of the future it would keep the worker from its other connections.
        Box::pin(async move {
            let Asked { request, room: _room } = asked(call).await?;
            forward(begin(&gateway, request), chunks).await
        })
    }
}

/// Sends an answer piece by piece, at the pace of its reader.
async fn forward(mut pieces: AnswerStream, mut chunks: ChunkSender) -> Result<(), HandlerError> {
    let mut seq = 0;
    while let Some(piece) = pieces.next().await {
        let cut = Cut::new(bounded(piece.chunk)?);
        for chunk in cut {
            let bytes = encode(&SequencedChunk { seq, chunk })?;
            if bytes.len() > MAX_CHUNK {
                let error = ProviderError::TooLarge { what: "a piece of the answer", limit: MAX_CHUNK };
                chunks.send(encode(&SequencedChunk { seq, chunk: error.into() })?).await?;
                return Ok(());
            }
            chunks.send(bytes).await?;
            seq += 1;
        }
    }
    Ok(())
}

/// Says that the details of some reasoning do not fit into a chunk, in their place.
fn bounded(chunk: Chunk) -> Result<Chunk, HandlerError> {
    if matches!(chunk, Chunk::ReasoningDetails { .. }) && encode(&chunk)?.len() > MAX_CHUNK / 2 {
        let text = format!("the details of some reasoning were left out: they have more than {} bytes", MAX_CHUNK / 2);
        return Ok(Chunk::Notice { text });
    }
    Ok(chunk)
}

/// A chunk in pieces whose texts are no longer than [`MAX_TEXT`]. Each byte of it is copied at most once.
struct Cut {
    /// What is left of it, but for the text.
    chunk: Option<Chunk>,
    text: String,
    /// How much of the text was handed out.
    at: usize,
}

impl Cut {
    fn new(mut chunk: Chunk) -> Self {
        let text = text_of(&mut chunk).filter(|text| text.len() > MAX_TEXT).map(mem::take).unwrap_or_default();
        Self { chunk: Some(chunk), text, at: 0 }
    }
}

impl Iterator for Cut {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let mut chunk = self.chunk.take()?;
        let rest = &self.text[self.at..];
        let piece = &rest[..boundary(rest, MAX_TEXT)];
        self.at += piece.len();
        if self.at < self.text.len() {
            self.chunk = Some(match &chunk {
                // Its first piece names it.
                Chunk::ToolCall(delta) => Chunk::ToolCall(ToolCallDelta {
                    index: delta.index,
                    id: None,
                    name: None,
                    arguments: String::new(),
                }),
                other => other.clone(),
            });
        }
        if let Some(text) = text_of(&mut chunk).filter(|_| !piece.is_empty()) {
            piece.clone_into(text);
        }
        Some(chunk)
    }
}

/// The text of a chunk that may be cut.
fn text_of(chunk: &mut Chunk) -> Option<&mut String> {
    match chunk {
        Chunk::Text { text } | Chunk::Reasoning { text } => Some(text),
        Chunk::ToolCall(delta) => Some(&mut delta.arguments),
        _ => None,
    }
}

/// A whole answer, or an error for the caller.
fn answer(outcome: Result<impl Serialize, ProviderError>) -> Result<Vec<u8>, HandlerError> {
    match outcome {
        Ok(response) => encode(&response),
        // The error's own words hold its mend.
        Err(error) => {
            let text = format!("{}: {error}", error.code());
            Err(if error.blame() == Blame::Caller {
                HandlerError::invalid_request(text)
            } else {
                // Each provider has a breaker of its own: one that fails must not close the way to the others.
                HandlerError::upstream(text).guarded()
            })
        }
    }
}

/// A request that tells of its fields which nobody here knows.
trait WithNotes: DeserializeOwned + Send + 'static {
    const KNOWN: Known;

    /// The field that no request lacks, and a value for it.
    const REQUIRED: (&str, &str);

    /// Where the notes go, and who asks.
    fn notes(&mut self) -> (&mut Vec<String>, &mut Option<Caller>);
}

impl WithNotes for ChatRequest {
    const KNOWN: Known = CHAT_REQUEST;
    const REQUIRED: (&str, &str) = ("messages", "[]");

    fn notes(&mut self) -> (&mut Vec<String>, &mut Option<Caller>) {
        (&mut self.notes, &mut self.caller)
    }
}

impl WithNotes for CompletionRequest {
    const KNOWN: Known = COMPLETION_REQUEST;
    const REQUIRED: (&str, &str) = ("prompt", "\"\"");

    fn notes(&mut self) -> (&mut Vec<String>, &mut Option<Caller>) {
        (&mut self.notes, &mut self.caller)
    }
}

/// A request, and the room that it takes beside that of its call.
struct Asked<T> {
    request: T,
    room: Option<ClaimedRoom>,
}

/// The request that a call holds, with a note for each field of it that is passed over. A large one is read by a thread
/// that serves nobody else, which keeps the call, and so its room in the budget, although it may be cancelled meanwhile.
async fn asked<T: WithNotes>(call: OwnedCall) -> Result<Asked<T>, HandlerError> {
    let size = call.payload().len();
    let large = size > LARGE;
    let weigh = move |call: OwnedCall| (json::weight(call.payload(), ARGUMENTS), call);
    let (weight, call) = if large { apart(move || weigh(call)).await.map_err(no_thread)? } else { weigh(call) };
    // What the call holds for itself is enough for most.
    let more = weight.saturating_sub(u64::from(WEIGHT - 1) * size as u64);
    let room = if more == 0 { None } else { Some(call.claim(more).await?) };
    let read = move || Ok(Asked { request: read(&call)?, room });
    if large { apart(read).await.map_err(no_thread)? } else { read() }
}

fn no_thread(fault: String) -> HandlerError {
    HandlerError::failure(fault)
}

fn read<T: WithNotes>(call: &OwnedCall) -> Result<T, HandlerError> {
    let payload = call.payload();
    let mut request: T = json::from_slice(payload).map_err(|error| {
        let place = misread::<T>(payload, T::KNOWN, T::REQUIRED);
        unreadable(&place.map_or_else(|| error.to_string(), |field| format!("{field}: {error}")))
    })?;
    let (notes, caller) = request.notes();
    (*notes, *caller) = (unknown(payload, T::KNOWN), Some(call.caller()));
    Ok(request)
}

/// The JSON that a call holds.
fn request_of<T: DeserializeOwned>(call: &OwnedCall) -> Result<T, HandlerError> {
    json::from_slice(call.payload()).map_err(|error| unreadable(&error.to_string()))
}

fn unreadable(fault: &str) -> HandlerError {
    HandlerError::invalid_request(format!("the request cannot be read: {}", Excerpt::new(fault)))
}

/// A request without content may be empty; else it is an object that may hold a version.
fn check_question(call: &OwnedCall) -> Result<(), HandlerError> {
    #[derive(Deserialize)]
    struct Question {
        version: Option<u32>,
    }

    if call.payload().is_empty() {
        return Ok(());
    }
    match request_of::<Question>(call)?.version {
        Some(asked) if asked > WIRE_VERSION => {
            answer(Err::<(), _>(ProviderError::UnsupportedVersion { asked, known: WIRE_VERSION })).map(drop)
        }
        _ => Ok(()),
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, HandlerError> {
    serde_json::to_vec(value).map_err(|error| HandlerError::failure(format!("the answer cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_and_none_of_it_is_lost() {
        let long = "é".repeat(5000);
        for kind in [Chunk::text(&long), Chunk::reasoning(&long)] {
            let mut whole = String::new();
            for chunk in Cut::new(kind) {
                let (Chunk::Text { text } | Chunk::Reasoning { text }) = chunk else { panic!("{chunk:?}") };
                assert!(!text.is_empty() && text.len() <= MAX_TEXT);
                whole.push_str(&text);
            }
            assert_eq!(whole, long);
        }
        for whole in [Chunk::text(""), Chunk::text("short"), Chunk::Notice { text: long }] {
            assert_eq!(Cut::new(whole.clone()).collect::<Vec<_>>(), [whole]);
        }
    }

    #[test]
    fn details_of_reasoning_that_do_not_fit_into_a_chunk_are_left_out_in_words() {
        let details =
            |length| Chunk::ReasoningDetails { details: serde_json::json!({"signature": "x".repeat(length)}) };
        assert_eq!(bounded(details(100)).unwrap(), details(100));
        let left_out = bounded(details(MAX_CHUNK)).unwrap();
        assert!(matches!(&left_out, Chunk::Notice { text } if text.contains("8192 bytes")), "{left_out:?}");
    }

    #[test]
    fn only_the_first_piece_of_a_tool_call_names_it() {
        let arguments = "x".repeat(MAX_TEXT + 1);
        let call = |id: Option<&str>, name: Option<&str>, arguments: &str| {
            let (id, name, arguments) = (id.map(str::to_owned), name.map(str::to_owned), arguments.to_owned());
            Chunk::ToolCall(ToolCallDelta { index: 3, id, name, arguments })
        };
        let (first, second) = arguments.split_at(MAX_TEXT);
        let expected = [call(Some("c"), Some("n"), first), call(None, None, second)];
        assert_eq!(Cut::new(call(Some("c"), Some("n"), &arguments)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_worst_text_still_fits_into_a_chunk() {
        let pieces: Vec<_> = Cut::new(Chunk::text("\u{1}".repeat(MAX_TEXT))).collect();
        let [chunk] = <[Chunk; 1]>::try_from(pieces).unwrap();
        assert!(encode(&SequencedChunk { seq: u64::MAX, chunk }).unwrap().len() <= MAX_CHUNK);
    }

    #[test]
    fn every_mend_stands_in_the_words_of_its_error() {
        let mend = "set SOME_KEY";
        let errors = [
            ProviderError::NotConfigured { missing: "a key is missing".into(), mend: mend.into() },
            ProviderError::Connect { reason: "refused".into(), mend: mend.into(), retryable: true },
            ProviderError::Refused {
                status: 401,
                code: None,
                message: "no".into(),
                retry_after: None,
                retryable: false,
                mend: Some(mend.into()),
            },
            ProviderError::UnexpectedContent {
                expected: "JSON",
                content_type: "text/html".into(),
                excerpt: "<html>".into(),
                mend: mend.into(),
            },
        ];
        for error in errors {
            let text = answer(Err::<(), _>(error.clone())).unwrap_err().to_string();
            assert!(text.starts_with(&format!("{}: ", error.code())) && text.contains(mend), "{text}");
        }
    }
}
