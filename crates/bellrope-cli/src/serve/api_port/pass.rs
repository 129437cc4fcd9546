//! Requests that go to a provider as they came, and answers that come back so.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bellrope_books::holds_token;
use bellrope_gateway::{
    AnswerRoom, Asker, Gateway, PassedAnswer, PassedStream, ProviderError, ServerStop, Told, Way,
    apart::LONG,
    inbound::{Fault, cut_off, pass_request},
    pass::{HEADERS_FROM_TOOL, HeaderPairs, PassFormat, PassRequest, ToolKey},
};
use futures_util::Stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Response, StatusCode,
    body::{Bytes, Frame},
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};

use super::{
    body::{AnswerBody, full, full_with_room, noted, response},
    keys::KEYS,
    on_its_own::on_its_own,
};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";

/// What of a request's head matters to providers.
#[derive(Debug)]
pub(super) struct Head {
    headers: HeaderPairs,
    /// The tool's own key.
    pub(super) key: Option<ToolKey>,
    /// Who asks.
    pub(super) asker: Asker,
}

impl Head {
    /// A token of this program is no provider's business, wherever it stands.
    pub(super) fn of(headers: &HeaderMap, asker: Asker) -> Self {
        let pairs = HEADERS_FROM_TOOL.iter().flat_map(|name| {
            let values =
                headers.get_all(*name).iter().filter(|value| !holds_token(&String::from_utf8_lossy(value.as_bytes())));
            values.map(|value| ((*name).to_owned(), value.as_bytes().to_vec()))
        });
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let foreign = |shown: &String| !holds_token(shown);
        let bearer = headers.get(AUTHORIZATION).and_then(text).filter(foreign);
        let key = KEYS.iter().filter_map(|name| headers.get(*name)).filter_map(text).find(foreign);
        Self { headers: pairs.collect(), key: ToolKey::new(bearer.as_deref(), key.as_deref()), asker }
    }
}

/// What became of a request.
pub(super) enum Sent {
    /// The answer.
    Answered(Response<AnswerBody>),
    /// It is to be translated, after so many providers were asked in vain, of which something is to be said. `failed`: why the first
    /// of them did not answer.
    Not { tried: usize, notes: Vec<String>, failed: Option<ProviderError> },
}

impl Sent {
    /// It is to be translated, and nobody was asked.
    const NOT: Self = Self::Not { tried: 0, notes: Vec::new(), failed: None };
}

/// Sends a request as it came, if the provider whose turn it is takes it so. `is_kept`: whether a response of this id is kept
/// here, so that no provider knows it. `room`: what a whole answer takes its room from.
pub(super) async fn send(
    gateway: &Gateway,
    format: PassFormat,
    head: &Head,
    body: &Bytes,
    (room, end): (AnswerRoom, ServerStop),
    is_kept: impl Fn(&str) -> bool,
) -> Result<Sent, Fault> {
    if !gateway.passes(format) {
        return Ok(Sent::NOT);
    }
    let Some(mut request) = read(gateway, format, body).await? else { return Ok(Sent::NOT) };
    if request.previous().is_some_and(is_kept) {
        return Ok(Sent::NOT);
    }
    request.headers.clone_from(&head.headers);
    request.key.clone_from(&head.key);
    request.asker.clone_from(&head.asker);
    (request.room, request.end) = (room.clone(), end);
    match gateway.pass(request).await {
        Way::Passed(PassedAnswer { status, headers, body, notes }) => {
            let (media_type, body) = match body {
                Ok(whole) => (JSON, full_with_room(whole, room)),
                Err(events) => (EVENTS, StreamBody::new(Passing { format, events }).boxed_unsync()),
            };
            Ok(Sent::Answered(noted(answer(status, &headers, media_type, body), &notes)))
        }
        // They can be estimated.
        Way::Refused(_) | Way::Failed(_) if format == PassFormat::CountTokens => Ok(Sent::NOT),
        Way::Refused(refusal) => Ok(Sent::Answered(answer(refusal.status, &refusal.headers, JSON, full(refusal.body)))),
        Way::Failed(error) => Err(error.into()),
        Way::Translated { tried, notes, failed } => Ok(Sent::Not { tried, notes, failed }),
    }
}

/// What has to be known of a request: of a long one it is looked for apart.
async fn read(gateway: &Gateway, format: PassFormat, body: &Bytes) -> Result<Option<PassRequest>, Fault> {
    let (body, names) = (body.clone(), gateway.names());
    if body.len() <= LONG {
        return pass_request(format, body, names);
    }
    let names = names.to_vec();
    on_its_own(move || pass_request(format, body, &names)).await?
}

/// An answer with the status and the headers that the provider gave it. `media_type`: what it is, where the provider does not say.
fn answer(status: u16, headers: &HeaderPairs, media_type: &'static str, body: AnswerBody) -> Response<AnswerBody> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut answer = response(status, media_type, body);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

/// The events of an answer as they come. One that breaks off ends with an error in its format.
struct Passing {
    format: PassFormat,
    events: PassedStream,
}

impl Stream for Passing {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let told = ready!(Pin::new(&mut self.events).poll_next(context));
        let bytes = told.map(|told| match told {
            Told::Bytes(bytes) => bytes,
            Told::Cut(error, mark) => cut_off(self.format, &error, &mark).into(),
        });
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
