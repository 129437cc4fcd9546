//! The paths, and the bodies of requests.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use bellrope_gateway::{
    Asker, Chunk, Gateway, LiveGateway,
    inbound::{
        AnswerWriter, Asked, ErrorForm, Fault, ToolFormat, embedding_request, embedding_response, estimate_tokens,
    },
};
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header::{
        CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{events::Events, guard, keys::Keys, models, paths::Endpoint};

/// The largest body of a request, in bytes.
const MAX_BODY: usize = 32 * 1024 * 1024;
/// How long a client may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(30);
/// What the bodies of all requests under way may take together, in KiB.
const BODY_BUDGET: usize = 64 * 1024;
/// A larger body is read on another thread, so that others need not wait for it.
const LARGE_BODY: usize = 128 * 1024;

/// The header that says what of a request was left out, changed or put in other words on its way to the provider.
const NOTES: &str = "x-bellrope-notes";
/// The longest value of it, in bytes: clients bound the head of an answer, too.
const MAX_NOTES_HEADER: usize = 4 * 1024;

/// What is said of a number of tokens that no provider has counted.
const ESTIMATED: &str = "input_tokens is an estimate: this provider cannot count the tokens of a request";

/// The body of an answer.
pub(super) type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;

/// Answers requests, one after another or many at once.
#[derive(Debug)]
pub(super) struct Service {
    gateway: LiveGateway,
    keys: Keys,
    /// In KiB.
    budget: Arc<Semaphore>,
}

impl Service {
    pub(super) fn new(gateway: LiveGateway, keys: Keys) -> Self {
        Self { gateway, keys, budget: Arc::new(Semaphore::new(BODY_BUDGET)) }
    }

    /// The answer to a request. Dropping it, or the body of what it returns, drops the provider's stream.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let endpoint = Endpoint::of(&path);
        let form = match &endpoint {
            Ok(endpoint) => endpoint.form(request.headers()),
            Err(_) => Endpoint::form_of_unknown(&path, request.headers()),
        };
        let answer = match endpoint {
            Ok(endpoint) => self.route(endpoint, form, request).await,
            // Whoever may not ask learns nothing of the paths.
            Err(unknown) => guard::check(request.headers()).and(Err(unknown)),
        };
        answer.unwrap_or_else(|fault| refusal(&fault, form))
    }

    async fn route(
        &self,
        endpoint: Endpoint<'_>,
        form: ErrorForm,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Fault> {
        guard::check(request.headers())?;
        if request.headers().contains_key(UPGRADE) {
            return Err(Fault::upgrade("no other protocol is spoken here, WebSockets among them; send plain requests"));
        }
        endpoint.check_method(request.method())?;
        let asker = self.keys.asker(request.headers(), &endpoint)?;
        // Of what has no body to be read nothing can come.
        if request.method() == Method::POST && !matches!(endpoint, Endpoint::Response(_)) {
            guard::check_json(request.headers())?;
        }
        let body = request.into_body();
        match endpoint {
            Endpoint::Ask(format) => self.ask(format, asker, body).await,
            Endpoint::CountTokens => self.count_tokens(body).await,
            Endpoint::Embeddings => self.embed(asker, body).await,
            Endpoint::Models => json(models::list(&self.gateway.current().models().await, form)),
            Endpoint::Model(name) => {
                let name = models::unescaped(name);
                let found = models::one(&self.gateway.current().models().await, &name, form);
                let missing =
                    || Fault::not_found(format!("the model {name:?} does not exist; GET /v1/models lists them"));
                json(found.ok_or_else(missing)?)
            }
            Endpoint::Response(id) => Err(Fault::no_response(id)),
            Endpoint::Root => Ok(response(StatusCode::OK, "text/plain; charset=utf-8", full(Vec::new()))),
        }
    }

    async fn ask(&self, format: ToolFormat, asker: Asker, body: Incoming) -> Result<Response<AnswerBody>, Fault> {
        let (body, room) = self.read(body).await?;
        // The same providers from reading the model's name to the end of the answer.
        let gateway = self.gateway.current();
        let Asked { mut chat, stream, mut writer } =
            apart(&gateway, body, move |body, names| format.read(body, names)).await?;
        chat.asker = asker;
        if !stream {
            let mut response = gateway.chat(chat).await?;
            let notes = std::mem::take(&mut response.notes);
            return Ok(noted(json(writer.whole(response))?, &notes));
        }
        let mut pieces = gateway.chat_stream(chat);
        let mut notes = Vec::new();
        // What fails before it begins has a status of its own; what is to be told before it has a header.
        let first = loop {
            match pieces.next().await {
                Some(piece) => match piece.chunk {
                    Chunk::Error(info) => return failed(&Fault::from(info).after(pieces.retry_after()), writer),
                    Chunk::Notice { text } => notes.push(text),
                    chunk => break chunk,
                },
                None => return Err(Fault::not_found("the gateway gave no answer")),
            }
        };
        drop(room);
        let events = StreamBody::new(Events::new(writer, first, pieces));
        Ok(noted(event_stream(events.boxed_unsync()), &notes))
    }

    async fn count_tokens(&self, body: Incoming) -> Result<Response<AnswerBody>, Fault> {
        let (body, _room) = self.read(body).await?;
        let gateway = self.gateway.current();
        let asked = apart(&gateway, body, |body, names| ToolFormat::Messages.read(body, names)).await?;
        let estimate = estimate_tokens(&asked.chat);
        let counted = gateway.count_tokens(asked.chat).await?;
        let note = counted.is_none().then(|| ESTIMATED.to_owned());
        let body = serde_json::to_vec(&serde_json::json!({"input_tokens": counted.unwrap_or(estimate)}));
        Ok(noted(json(body)?, note.as_slice()))
    }

    async fn embed(&self, asker: Asker, body: Incoming) -> Result<Response<AnswerBody>, Fault> {
        let (body, _room) = self.read(body).await?;
        let gateway = self.gateway.current();
        let (mut request, is_base64) = apart(&gateway, body, embedding_request).await?;
        request.asker = asker;
        let answer = gateway.embed(request).await?;
        json(tokio::task::spawn_blocking(move || embedding_response(&answer, is_base64)).await.map_err(|_| broken())?)
    }

    /// Reads a body, within its bounds and those of all bodies together.
    async fn read(&self, mut body: Incoming) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Fault> {
        let too_large = || Fault::too_large(format!("the request has more than {MAX_BODY} bytes"));
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(too_large());
        }
        let read = async {
            let (mut bytes, mut taken) = (Vec::new(), None::<OwnedSemaphorePermit>);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| Fault::invalid(None, format!("the body broke off: {error}")))?;
                let Ok(data) = frame.into_data() else { continue };
                if data.len() > MAX_BODY - bytes.len() {
                    return Err(too_large());
                }
                let (held, needed) = (bytes.len().div_ceil(1024), (bytes.len() + data.len()).div_ceil(1024));
                if needed > held {
                    let room = Arc::clone(&self.budget).try_acquire_many_owned((needed - held) as u32);
                    let room = room.map_err(|_| Fault::busy("too many large requests are under way; try again"))?;
                    match &mut taken {
                        Some(taken) => taken.merge(room),
                        None => taken = Some(room),
                    }
                }
                bytes.extend_from_slice(&data);
            }
            Ok((bytes, taken))
        };
        in_time(BODY_TIME, read).await
    }
}

async fn in_time<T>(limit: Duration, reading: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let late = || Fault::too_slow(format!("the body did not come within {limit:?}"));
    tokio::time::timeout(limit, reading).await.unwrap_or_else(|_| Err(late()))
}

/// Reads a body, a large one on another thread.
async fn apart<T: Send + 'static>(
    gateway: &Gateway,
    body: Vec<u8>,
    read: impl FnOnce(&[u8], &[String]) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let names = gateway.names();
    if body.len() < LARGE_BODY {
        return read(&body, &names);
    }
    tokio::task::spawn_blocking(move || read(&body, &names)).await.map_err(|_| broken())?
}

/// A fault of this program.
fn broken() -> Fault {
    Fault::busy("the request could not be worked on; try again")
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

fn event_stream(body: AnswerBody) -> Response<AnswerBody> {
    response(StatusCode::OK, "text/event-stream; charset=utf-8", body)
}

fn json(body: serde_json::Result<Vec<u8>>) -> Result<Response<AnswerBody>, Fault> {
    let body = body.map_err(|error| Fault::busy(format!("the answer cannot be written: {error}")))?;
    Ok(response(StatusCode::OK, "application/json", full(body)))
}

fn refusal(fault: &Fault, form: ErrorForm) -> Response<AnswerBody> {
    let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut refusal = response(status, "application/json", full(fault.body(form)));
    let headers: &mut HeaderMap = refusal.headers_mut();
    if fault.status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
    }
    if fault.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // OpenAI's own clients go by this before they go by the status.
    let again = HeaderValue::from_static(if fault.retryable { "true" } else { "false" });
    headers.insert("x-should-retry", again);
    if let Some(seconds) = fault.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    refusal
}

/// An answer whose header [`NOTES`] says what of the request was not sent as it came. Of notes that are too long for a
/// header it has the first.
fn noted(mut response: Response<AnswerBody>, notes: &[String]) -> Response<AnswerBody> {
    let mut value = String::new();
    for note in notes {
        let plain = note.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' });
        let separator = if value.is_empty() { "" } else { "; " };
        if value.len() + separator.len() + note.len() > MAX_NOTES_HEADER {
            break;
        }
        value.push_str(separator);
        value.extend(plain);
    }
    // It holds what a header may hold.
    if let Some(value) = HeaderValue::from_str(&value).ok().filter(|value| !value.is_empty()) {
        response.headers_mut().insert(NOTES, value);
    }
    response
}

fn full(body: Vec<u8>) -> AnswerBody {
    Full::new(Bytes::from(body)).boxed_unsync()
}

fn response(status: StatusCode, media_type: &'static str, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 75.
    #[test]
    fn notes_are_a_header_of_plain_characters_and_bounded_length() {
        let of = |notes: &[String]| {
            let response = noted(response(StatusCode::OK, "text/plain", full(Vec::new())), notes);
            response.headers().get(NOTES).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["a\r\nb".to_owned(), "\u{fc}".to_owned()]).as_deref(), Some("a??b; ?"));
        let many = vec!["x".repeat(256); 32];
        assert_eq!(of(&many).unwrap().len(), 256 + 14 * 258);
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
