//! The paths, and the bodies of requests.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bellrope_gateway::{
    AnswerRoom, Chunk, Gateway, LiveGateway, Owner, ServerStop,
    apart::LARGE,
    inbound::{
        AnswerWriter, Asked, ErrorForm, Fault, KeptItems, StoredResponse, ToolFormat, embedding_request,
        embedding_response, estimate_tokens, odd_vectors, weight,
    },
    pass::PassFormat,
};
use bellrope_health::http::ComingBody;
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header::{ALLOW, HeaderMap, HeaderValue, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::percent::unescaped;

use super::{
    bodies::{Bodies, Taken},
    body::{AnswerBody, full, full_with_room, noted, response},
    events::Events,
    guard,
    keys::{self, Keys},
    models,
    on_its_own::on_its_own,
    pass::{self, Head, Sent},
    paths::{self, Endpoint},
    stored::{self, Next, Owners},
};

/// The largest body of a request, in bytes.
const MAX_BODY: usize = 32 * 1024 * 1024;
/// How long a client may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(30);
/// What the bodies of all requests under way may take together, in KiB.
pub(super) const BODY_BUDGET: usize = 64 * 1024;
/// What may be made of them together, beside a copy of their texts, in KiB.
pub(super) const VALUES_BUDGET: usize = 64 * 1024;
/// The longest time, in seconds, that the clients of OpenAI and Anthropic wait because `retry-after` says so.
const MOST_WAIT: u64 = 60;
/// What is said of a number of tokens that no provider has counted.
const ESTIMATED: &str = "input_tokens is an estimate: this provider cannot count the tokens of a request";

/// Answers requests, one after another or many at once.
pub(super) struct Service {
    gateway: LiveGateway,
    owners: Owners,
    keys: Keys,
    bodies: Bodies,
    /// In KiB.
    values: Arc<Semaphore>,
    items: KeptItems,
    end: ServerStop,
}

/// What a request takes of the bounds for all of them: until it is answered, and its body is not read any more.
type Room = Arc<[OwnedSemaphorePermit]>;

/// A body that may not have come whole.
struct Arriving {
    body: Incoming,
    coming: Option<ComingBody>,
}

/// A body, and what it takes.
struct Held<T> {
    bytes: T,
    _room: Room,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// A body that holds what it takes as long as anybody has it.
fn held(bytes: impl AsRef<[u8]> + Send + 'static, room: Room) -> (Bytes, Room) {
    (Bytes::from_owner(Held { bytes, _room: Arc::clone(&room) }), room)
}

impl Service {
    pub(super) fn new(gateway: LiveGateway, keys: Keys, end: ServerStop) -> Self {
        let (bodies, values) = (Bodies::new(BODY_BUDGET), Arc::new(Semaphore::new(VALUES_BUDGET)));
        Self { gateway, owners: Owners::new(), keys, bodies, values, items: KeptItems::default(), end }
    }

    /// The answer to a request. Dropping it, or the body of what it returns, drops the provider's stream.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let path = paths::meant(request.uri().path()).into_owned();
        let endpoint = Endpoint::of(&path);
        let form = match &endpoint {
            Ok(endpoint) => endpoint.form(request.headers()),
            Err(_) => Endpoint::form_of_unknown(&path, request.headers()),
        };
        let answer = match endpoint {
            Ok(endpoint) => {
                let mut answer = pin!(self.route(endpoint, form, request));
                // Whoever sets it has this polled.
                let answer = poll_fn(|context| match self.end.has_come() {
                    true => Poll::Ready(Err(Fault::busy("the server stops; ask again when it is back"))),
                    false => answer.as_mut().poll(context),
                });
                answer.await
            }
            // Whoever may not ask learns nothing of the paths.
            Err(unknown) => guard::check(request.headers()).and(Err(unknown)),
        };
        answer.unwrap_or_else(|fault| refusal(&fault, form))
    }

    async fn route(
        &self,
        endpoint: Endpoint<'_>,
        form: ErrorForm,
        mut request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Fault> {
        guard::check(request.headers())?;
        // What else somebody would rather speak may be passed over: Java's own client asks for HTTP/2 with each first request.
        if guard::wants_web_socket(request.headers()) {
            return Err(Fault::upgrade("no other protocol is spoken here, WebSockets among them; send plain requests"));
        }
        endpoint.check_method(request.method())?;
        keys::check(request.headers())?;
        let asker = self.keys.asker(request.headers(), &endpoint)?;
        // Of what has no body to be read nothing can come.
        if request.method() == Method::POST && !matches!(endpoint, Endpoint::Response(..)) {
            guard::check_json(request.headers())?;
        }
        let owner = self.owners.of(self.keys.shown(request.headers()).as_deref());
        if let Endpoint::Response(id, deed) = endpoint {
            let (method, query) = (request.method(), request.uri().query());
            return kept(stored::about(&self.gateway, &owner, (method, deed), (id, query), &self.end)?);
        }
        let head = Head::of(request.headers(), asker);
        // So asks Codex.
        let wants_catalog = request.uri().query().is_some_and(|query| query.contains("client_version="));
        let coming = request.extensions_mut().remove();
        let body = Arriving { body: request.into_body(), coming };
        match endpoint {
            Endpoint::Ask(format) => self.ask(format, owner, head, body).await,
            Endpoint::CountTokens => self.count_tokens(head, body).await,
            Endpoint::Embeddings => self.embed(head, body).await,
            Endpoint::Models => {
                let list = self.gateway.current().models().await;
                Ok(noted(json(models::list(&list, form, wants_catalog))?, &models::faults(&list)))
            }
            Endpoint::Model(name) => {
                let (name, gateway) = (unescaped(name), self.gateway.current());
                let list = gateway.models().await;
                if let Some(found) = models::one(&list, &name, form) {
                    return json(found);
                }
                if let Some(provider) = gateway.stands_for(&name) {
                    return json(models::stand_in(&name, provider, form));
                }
                let default = gateway.default_provider().name();
                let Some((provider, note)) = models::unlisted(&list, &name, (gateway.names(), default)) else {
                    let words = format!("the model {name:?} does not exist; GET /v1/models lists them");
                    return Err(Fault::not_found(words));
                };
                Ok(noted(json(models::stand_in(&name, provider, form))?, &[note]))
            }
            Endpoint::Response(id, _) => Err(Fault::no_response(id)),
            Endpoint::Root => Ok(response(StatusCode::OK, "text/plain; charset=utf-8", full(Vec::new()))),
        }
    }

    async fn ask(
        &self,
        format: ToolFormat,
        owner: Owner,
        head: Head,
        body: Arriving,
    ) -> Result<Response<AnswerBody>, Fault> {
        let (body, room) = self.read(body).await?;
        // The same providers from reading the model's name to the end of the answer.
        let gateway = self.gateway.current();
        let answers = self.gateway.answers();
        let is_kept = |id: &str| StoredResponse::find(answers, &owner, id).is_ok();
        let answer_room = AnswerRoom::of_all(Arc::clone(&self.values));
        let sent =
            pass::send(&gateway, format.into(), &head, &body, (answer_room.clone(), self.end.clone()), is_kept).await?;
        let (tried, said, before) = match sent {
            Sent::Answered(answer) => return Ok(answer),
            Sent::Not { tried, notes, failed } => (tried, notes, failed),
        };
        let (body, values) = self.weighed((body, Arc::clone(&room))).await?;
        let body = self.with_items(format, owner, body, &room).await?;
        // A provider that was asked took it: that another one cannot says nothing of the request.
        let or_before = |fault: Fault| match &before {
            Some(before) if matches!(fault.status, 400 | 413 | 422) => before.clone().into(),
            _ => fault,
        };
        let asked = read_body(&gateway, body, move |body, names| format.read(body, names)).await;
        let Asked { mut chat, stream, mut writer, stored } = asked.map_err(or_before)?;
        (chat.from_tool.key, chat.from_tool.tried, chat.asker) = (head.key, tried, head.asker);
        chat.notes.extend(said);
        if let Some(stored) = stored {
            match stored::ask(answers, &gateway, owner, stored, (&mut chat, stream), (writer, &self.end))? {
                Next::Asked(keeping) => writer = keeping,
                Next::Begun(body) => return kept(body),
            }
        }
        if format == ToolFormat::Responses {
            writer = self.items.writer(owner, writer);
        }
        if !stream {
            chat.room = answer_room.clone();
            let mut response = gateway.chat(chat).await.map_err(|error| or_before(error.into()))?;
            let notes = std::mem::take(&mut response.notes);
            let body = writer.whole(response).map_err(unwritable)?;
            return Ok(noted(response_of(full_with_room(body, answer_room)), &notes));
        }
        let mut pieces = gateway.chat_stream(chat);
        let mut notes = Vec::new();
        // What fails before it begins has a status of its own; what is to be told before it has a header.
        let first = loop {
            match pieces.next().await {
                Some(piece) => match piece.chunk {
                    Chunk::Error(info) => {
                        let fault = Fault::from(info).after(pieces.retry_after());
                        return failed(&or_before(fault), writer);
                    }
                    Chunk::Notice { text } => notes.push(text),
                    chunk => break chunk,
                },
                None => return Err(Fault::not_found("the gateway gave no answer")),
            }
        };
        drop((room, values));
        let events = StreamBody::new(Events::new(writer, first, pieces, (answer_room, self.end.clone())));
        Ok(noted(event_stream(events.boxed_unsync()), &notes))
    }

    /// A request with the items of earlier answers that it names alone.
    async fn with_items(&self, format: ToolFormat, owner: Owner, body: Bytes, room: &Room) -> Result<Bytes, Fault> {
        if format != ToolFormat::Responses {
            return Ok(body);
        }
        let (items, asked) = (self.items.clone(), body.clone());
        let fill = move || items.filled(owner, &asked);
        let filled = if body.len() >= LARGE { on_its_own(fill).await? } else { fill() };
        Ok(filled.map_or(body, |filled| held(filled, Arc::clone(room)).0))
    }

    async fn count_tokens(&self, head: Head, body: Arriving) -> Result<Response<AnswerBody>, Fault> {
        let (body, _room) = self.read(body).await?;
        let gateway = self.gateway.current();
        let room = AnswerRoom::of_all(Arc::clone(&self.values));
        let sent =
            pass::send(&gateway, PassFormat::CountTokens, &head, &body, (room, self.end.clone()), |_| false).await?;
        if let Sent::Answered(answer) = sent {
            return Ok(answer);
        }
        let (body, _values) = self.weighed((body, _room)).await?;
        let mut asked = read_body(&gateway, body, |body, names| ToolFormat::Messages.read(body, names)).await?;
        asked.chat.from_tool.key = head.key;
        let estimate = estimate_tokens(&asked.chat);
        let counted = gateway.count_tokens(asked.chat).await?;
        let note = counted.is_none().then(|| ESTIMATED.to_owned());
        let body = serde_json::to_vec(&serde_json::json!({"input_tokens": counted.unwrap_or(estimate)}));
        Ok(noted(json(body)?, note.as_slice()))
    }

    async fn embed(&self, head: Head, body: Arriving) -> Result<Response<AnswerBody>, Fault> {
        let (body, _values) = self.weighed(self.read(body).await?).await?;
        let gateway = self.gateway.current();
        let (mut request, is_base64) = read_body(&gateway, body, embedding_request).await?;
        let room = AnswerRoom::of_all(Arc::clone(&self.values));
        (request.key, request.asker, request.room) = (head.key, head.asker, room.clone());
        let note = gateway.model_name_notice(request.provider.as_deref(), request.model.as_deref());
        let answer = gateway.embed(request).await?;
        let body = on_its_own(move || embedding_response(&answer, is_base64)).await?;
        let body = body.map_err(|error| odd_vectors(&error))?;
        Ok(noted(response_of(full_with_room(body, room)), note.as_slice()))
    }

    /// Reads a body, within its bounds and those of all bodies together.
    async fn read(&self, Arriving { body, coming }: Arriving) -> Result<(Bytes, Room), Fault> {
        let (bytes, taken) = self.receive(body).await?;
        if let Some(coming) = coming {
            coming.has_come();
        }
        Ok(held(bytes, taken.into_iter().collect()))
    }

    /// A body that is to be translated, with room for what is made of it.
    async fn weighed(&self, (body, room): (Bytes, Room)) -> Result<(Bytes, Room), Fault> {
        let weighing = body.clone();
        let weight = if body.len() < LARGE { weight(&weighing) } else { on_its_own(move || weight(&weighing)).await? };
        // A copy of the texts, and what is sent to the provider, are about as large as the body.
        let kib = weight.saturating_sub(2 * body.len() as u64).div_ceil(1024);
        let mib = VALUES_BUDGET / 1024;
        let too_many = || {
            let words = format!("the JSON of the request has so many values that they take over {mib} MiB; send fewer");
            Fault::too_large(words)
        };
        let kib = u32::try_from(kib).ok().filter(|kib| *kib as usize <= VALUES_BUDGET).ok_or_else(too_many)?;
        let values = Arc::clone(&self.values).try_acquire_many_owned(kib).map_err(|_| no_room())?;
        // The body it came from has the room of its bytes.
        drop(room);
        Ok(held(body, [values].into()))
    }

    async fn receive(&self, mut body: Incoming) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Fault> {
        let too_large = || Fault::too_large(format!("the request has more than {MAX_BODY} bytes"));
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(too_large());
        }
        let read = async {
            let (mut bytes, mut room) = (Vec::new(), self.bodies.begin());
            loop {
                let frame = tokio::select! {
                    biased;
                    () = room.put_out() => return Err(put_out()),
                    frame = body.frame() => frame,
                };
                let Some(frame) = frame else { return Ok((bytes, room.has_come())) };
                let frame = frame.map_err(|error| Fault::invalid(None, format!("the body broke off: {error}")))?;
                let Ok(data) = frame.into_data() else { continue };
                if data.len() > MAX_BODY - bytes.len() {
                    return Err(too_large());
                }
                let (held, needed) = (bytes.len().div_ceil(1024), (bytes.len() + data.len()).div_ceil(1024));
                match if needed > held { room.take((needed - held) as u32).await } else { Taken::Room } {
                    Taken::Room => {}
                    Taken::NoRoom => return Err(no_room()),
                    Taken::PutOut => return Err(put_out()),
                }
                bytes.extend_from_slice(&data);
            }
        };
        in_time(BODY_TIME, read).await
    }
}

async fn in_time<T>(limit: Duration, reading: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let late = || Fault::too_slow(format!("the body did not come within {limit:?}"));
    tokio::time::timeout(limit, reading).await.unwrap_or_else(|_| Err(late()))
}

/// Reads a body, a large one on another thread. It takes its room until it is read, also for a client that has gone.
async fn read_body<T: Send + 'static>(
    gateway: &Gateway,
    body: Bytes,
    read: impl FnOnce(&[u8], &[String]) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let names = gateway.names();
    if body.len() < LARGE {
        return read(&body, names);
    }
    let names = names.to_vec();
    on_its_own(move || read(&body, &names)).await?
}

fn no_room() -> Fault {
    Fault::busy("too many large requests are under way; try again")
}

fn put_out() -> Fault {
    Fault::busy("the request came too slowly while others needed its room; send it without pauses")
}

/// A stream that failed before its first piece: with the status of the fault, unless the tool would not read it there.
fn failed(fault: &Fault, mut writer: Box<dyn AnswerWriter>) -> Result<Response<AnswerBody>, Fault> {
    if !writer.tells_in_stream(fault) {
        return Err(fault.clone());
    }
    let mut events = Vec::new();
    writer.begin(&mut events);
    writer.fail(fault, &mut events);
    Ok(event_stream(full(events)))
}

/// A response that is kept.
fn kept(body: stored::Body) -> Result<Response<AnswerBody>, Fault> {
    match body {
        stored::Body::Json(body) => json(Ok(body)),
        stored::Body::Events(events) => Ok(event_stream(events)),
    }
}

fn event_stream(body: AnswerBody) -> Response<AnswerBody> {
    response(StatusCode::OK, "text/event-stream; charset=utf-8", body)
}

fn json(body: serde_json::Result<Vec<u8>>) -> Result<Response<AnswerBody>, Fault> {
    Ok(response_of(full(body.map_err(unwritable)?)))
}

fn response_of(json: AnswerBody) -> Response<AnswerBody> {
    response(StatusCode::OK, "application/json", json)
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn unwritable(error: serde_json::Error) -> Fault {
    Fault::busy(format!("the answer cannot be written: {error}"))
}

fn refusal(fault: &Fault, form: ErrorForm) -> Response<AnswerBody> {
    let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut refusal = response(status, "application/json", full(fault.body(form)));
    let headers: &mut HeaderMap = refusal.headers_mut();
    if fault.status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
    }
    if let Some(methods) = fault.allow {
        headers.insert(ALLOW, HeaderValue::from_static(methods));
    }
    if fault.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // The clients of OpenAI and Anthropic go by this before they go by the status. A longer wait they cut short themselves.
    let is_soon = fault.retry_after.is_none_or(|seconds| seconds <= MOST_WAIT);
    let again = HeaderValue::from_static(if fault.retryable && is_soon { "true" } else { "false" });
    headers.insert("x-should-retry", again);
    if let Some(seconds) = fault.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_asked_again_within_a_minute_says_so() {
        let said = |retry_after, retryable| {
            let mut fault = Fault::busy("full");
            (fault.retryable, fault.retry_after) = (retryable, retry_after);
            let refusal = refusal(&fault, ErrorForm::Anthropic);
            let header = |name: &str| refusal.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            (header("x-should-retry").unwrap(), header("retry-after"))
        };
        for (retry_after, retryable, again) in
            [(None, true, "true"), (Some(1), true, "true"), (Some(60), true, "true"), (Some(61), true, "false")]
        {
            assert_eq!(said(retry_after, retryable), (again.to_owned(), retry_after.map(|wait| wait.to_string())));
        }
        assert_eq!(said(None, false).0, "false");
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_waited_for_no_longer_than_the_limit() {
        let limit = Duration::from_millis(5);
        let fault = in_time(limit, std::future::pending::<Result<(), Fault>>()).await.unwrap_err();
        let response = refusal(&fault, ErrorForm::OpenAi);
        assert_eq!(
            (response.status(), response.headers()["x-should-retry"].as_bytes()),
            (StatusCode::REQUEST_TIMEOUT, &b"false"[..])
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let error = &serde_json::from_slice::<serde_json::Value>(&body).unwrap()["error"];
        assert_eq!(
            (&error["message"], &error["code"]),
            (&"the body did not come within 5ms".into(), &"timeout".into())
        );
    }
}
