//! The gateway as message types of a server.
//!
//! Everything pulls: a piece is asked of the provider only when the one before has been taken for sending, so a slow
//! reader slows its provider down. No task is started: when the caller cancels or goes away the server drops the
//! handler, and the provider's stream, and with it its socket, goes in the same moment. An answer that is to survive its
//! reader is the one exception.

mod embed;
mod names;
mod pieces;
mod refused;
mod resumable;
mod schemas;
mod unreadable;
mod weighed;

use std::sync::Arc;

use bellrope::{
    HandlerError,
    breaker::Caller,
    server::{ChunkSender, ClaimedRoom, OwnedCall, ServerBuilder, Vouched},
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::apart::{LARGE, apart};
use crate::asker::{Asker, AskerKind};
use crate::error::ProviderError;
use crate::gateway::{AnswerStream, Gateway, LiveGateway};
use crate::inbound::weigh_tokens;
use crate::json;
use crate::message::fields::{CHAT_REQUEST, COMPLETION_REQUEST, Known, misread, unknown};
use crate::message::{ChatRequest, CompletionRequest, WIRE_VERSION};
use crate::provider::BoxFuture;
use crate::room::AnswerRoom;
pub use names::MESSAGE_TYPES;
pub(crate) use names::{CANCEL, CHAT, CHAT_STREAM, COMPLETE, COMPLETE_STREAM, EMBED, HEALTH, MODELS, RESUME};
pub use pieces::MAX_CHUNK;
use pieces::{encode, forward};
use refused::{refused, without_thread};
use resumable::Reader;
use unreadable::unreadable;
use weighed::{WEIGHT, weighed};

/// What is said of a request for an answer that is kept, where none is.
const NOT_RESUMABLE: &str = "`resumable` was left out: only answers of ai.chat_stream are kept";

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
    let builder = builder
        .unary_async(
            CHAT,
            unary(&gateway, |gateway, call| async move {
                let asker = asker(&gateway, &call, CHAT);
                let room = AnswerRoom::of_call(call.room_claims());
                let Asked::<ChatRequest> { mut request, _room, .. } = asked(call).await?;
                if request.resumable {
                    request.notes.push(NOT_RESUMABLE.to_owned());
                }
                (request.asker, request.room) = (asker, room.clone());
                answer(gateway.chat(request).await)
            }),
        )
        .server_stream(CHAT_STREAM, chat_stream(&gateway))
        .unary_async(
            COMPLETE,
            unary(&gateway, |gateway, call| async move {
                let asker = asker(&gateway, &call, COMPLETE);
                let room = AnswerRoom::of_call(call.room_claims());
                let Asked { request, _room, .. } = asked::<CompletionRequest>(call).await?;
                let mut request = ChatRequest::from(request);
                (request.asker, request.room) = (asker, room.clone());
                answer(gateway.chat(request).await)
            }),
        )
        .server_stream(COMPLETE_STREAM, stream(&gateway, Gateway::complete_stream))
        .server_stream(RESUME, {
            let gateway = gateway.clone();
            move |call, chunks| resumable::resume(gateway.clone(), call, chunks)
        })
        .unary_async(CANCEL, {
            let gateway = gateway.clone();
            move |call| resumable::cancel(gateway.clone(), call)
        })
        .unary_async(
            EMBED,
            unary(&gateway, |gateway, call| async move {
                let asker = asker(&gateway, &call, EMBED);
                embed::embed(&gateway, call, asker).await
            }),
        )
        .weight(EMBED, WEIGHT)
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
        );
    schemas::describe(builder)
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
            let asker = asker(&gateway, &call, T::STREAM);
            let Asked { mut request, _room, .. } = asked::<T>(call).await?;
            *request.beside().2 = asker;
            forward(begin(&gateway, request), chunks).await
        })
    }
}

/// The key of the metadata of a call that this process has in its books already. Of no other process that is believed.
pub(crate) const BOOKED: u8 = 0;

/// Who calls, as the books are to know it.
fn asker(gateway: &Gateway, call: &OwnedCall, endpoint: &'static str) -> Asker {
    let is_ours = call.process() == Some(std::process::id());
    let is_booked = is_ours && call.metadata().is_some_and(|said| said.own_value(BOOKED).is_some());
    let mut asker = asker_of(gateway, call, endpoint);
    asker.is_booked = is_booked;
    // The API port, or another server of a fleet.
    asker.keeps_books = is_booked || call.vouched().is_some();
    asker
}

fn asker_of(gateway: &Gateway, call: &OwnedCall, endpoint: &'static str) -> Asker {
    if !gateway.keeps_books() {
        return Asker::new(AskerKind::Unknown, "", endpoint);
    }
    if let Some(name) = call.token() {
        return Asker::new(AskerKind::Token, &name, endpoint);
    }
    let name = match call.vouched() {
        // The other machine's kernel knows that process.
        Some(Vouched::Named(name)) => Some(name.to_owned()),
        _ => call.process_name(),
    };
    Asker::new(AskerKind::Process, name.as_deref().unwrap_or_default(), endpoint)
}

/// A whole answer, or an error for the caller.
fn answer(outcome: Result<impl Serialize, ProviderError>) -> Result<Vec<u8>, HandlerError> {
    outcome.map_err(|error| refused(&error)).and_then(|response| encode(&response))
}

/// The handler of `ai.chat_stream`: as [`stream`], but for an answer that is to survive its reader.
fn chat_stream(
    gateway: &LiveGateway,
) -> impl Fn(OwnedCall, ChunkSender) -> BoxFuture<'static, Result<(), HandlerError>> + use<> {
    let live = gateway.clone();
    move |call, chunks| {
        let (live, gateway, caller) = (live.clone(), live.current(), Reader::of(&call));
        Box::pin(async move {
            let asker = asker(&gateway, &call, CHAT_STREAM);
            let Asked::<ChatRequest> { mut request, size, _room } = asked(call).await?;
            request.asker = asker;
            if request.resumable {
                return resumable::begin(&live, request, size, caller, chunks).await;
            }
            forward(gateway.chat_stream(request), chunks).await
        })
    }
}

/// A request that tells of its fields which nobody here knows.
trait WithNotes: DeserializeOwned + Send + 'static {
    const KNOWN: Known;

    /// The field that no request lacks, and a value for it.
    const REQUIRED: (&str, &str);

    /// The message type that streams its answer.
    const STREAM: &str;

    /// Where the notes go, who asks as breakers tell callers apart, and who asks for the books.
    fn beside(&mut self) -> (&mut Vec<String>, &mut Option<Caller>, &mut Asker);

    /// Finds out how many tokens it may have, while it is read.
    fn weigh(&mut self) {}
}

impl WithNotes for ChatRequest {
    const KNOWN: Known = CHAT_REQUEST;
    const REQUIRED: (&str, &str) = ("messages", "[]");
    const STREAM: &str = CHAT_STREAM;

    fn beside(&mut self) -> (&mut Vec<String>, &mut Option<Caller>, &mut Asker) {
        (&mut self.notes, &mut self.caller, &mut self.asker)
    }

    fn weigh(&mut self) {
        self.from_tool.tokens = Some(weigh_tokens(self));
    }
}

impl WithNotes for CompletionRequest {
    const KNOWN: Known = COMPLETION_REQUEST;
    const REQUIRED: (&str, &str) = ("prompt", "\"\"");
    const STREAM: &str = COMPLETE_STREAM;

    fn beside(&mut self) -> (&mut Vec<String>, &mut Option<Caller>, &mut Asker) {
        (&mut self.notes, &mut self.caller, &mut self.asker)
    }
}

/// A request, and the room that it takes beside that of its call.
struct Asked<T> {
    request: T,
    /// Of the request as it came, in bytes.
    size: usize,
    _room: ClaimedRoom,
}

/// The request that a call holds, with a note for each field of it that is passed over. A large one is read by a thread
/// that serves nobody else, which keeps the call, and so its room in the budget, although it may be cancelled meanwhile.
async fn asked<T: WithNotes>(call: OwnedCall) -> Result<Asked<T>, HandlerError> {
    let size = call.payload().len();
    let (call, room) = weighed(call, ARGUMENTS).await?;
    let read = move || Ok(Asked { request: read(&call)?, size, _room: room });
    if size > LARGE { apart(read).await.map_err(without_thread)? } else { read() }
}

fn read<T: WithNotes>(call: &OwnedCall) -> Result<T, HandlerError> {
    let payload = call.payload();
    let mut request: T = json::from_slice(payload).map_err(|error| {
        let field = misread::<T>(payload, T::KNOWN, T::REQUIRED);
        let within = |place: &String| field.is_none_or(|field| place.starts_with(field));
        let place = json::place_of_fault::<T>(payload).filter(within).or(field.map(str::to_owned));
        unreadable(&place.map_or_else(|| error.to_string(), |field| format!("{field}: {error}")))
    })?;
    let (notes, caller, _) = request.beside();
    (*notes, *caller) = (unknown(payload, T::KNOWN), Some(call.caller()));
    if payload.len() > LARGE {
        request.weigh();
    }
    Ok(request)
}

/// The JSON that a call holds.
fn request_of<T: DeserializeOwned>(call: &OwnedCall) -> Result<T, HandlerError> {
    json::from_slice(call.payload()).map_err(|error| unreadable(&error.to_string()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fix_stands_in_the_words_of_its_error() {
        let fix = "set SOME_KEY";
        let errors = [
            ProviderError::NotConfigured { missing: "a key is missing".into(), fix: fix.into() },
            ProviderError::Connect { reason: "refused".into(), fix: fix.into(), retryable: true },
            ProviderError::Refused {
                status: 401,
                code: None,
                message: "no".into(),
                retry_after: None,
                retryable: false,
                fix: Some(fix.into()),
            },
            ProviderError::UnexpectedContent {
                expected: "JSON",
                content_type: "text/html".into(),
                excerpt: "<html>".into(),
                fix: fix.into(),
            },
        ];
        for error in errors {
            let text = answer(Err::<(), _>(error.clone())).unwrap_err().to_string();
            assert!(text.starts_with(&format!("{}: ", error.code())) && text.contains(fix), "{text}");
        }
    }
}
