//! Requests that go to a provider as they came, and its answers on their way back.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, Url};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::client::{RuntimeClient, root_cause};
use super::endpoint::{AN_EVENT_STREAM, Endpoint, Sent};
use super::events::{Look, look};
use super::timeouts::Timeouts;
use super::watch::{Closing, Watch};
use crate::account::Meter;
use crate::error::{Phase, ProviderError};
use crate::message::{Chunk, StopReason};
use crate::pass::{
    HEADERS_FROM_TOOL, HeaderPairs, PassEnd, PassError, PassFormat, PassPiece, PassStream, Passed, PassedBody, Refusal,
    Seen,
};
use crate::provider::MAX_ANSWER;
use crate::providers::formats::{Heard, Translate};
use crate::room::AnswerRoom;
use crate::secret::Striking;
use crate::server_stop::ServerStop;

/// The headers of an answer that go to the tool, and the beginnings of the names of others.
const FROM_PROVIDER: [&str; 12] = [
    "anthropic-organization-id",
    "content-type",
    "openai-organization",
    "openai-processing-ms",
    "openai-project",
    "openai-version",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-client-request-id",
    "x-request-id",
    "x-should-retry",
];
const LIMITS_FROM_PROVIDER: [&str; 4] = ["anthropic-ratelimit-", "ratelimit-", "x-codex-", "x-ratelimit-"];

/// The most headers that go either way, and the most bytes of one value.
const MAX_HEADERS: usize = 48;
const MAX_VALUE: usize = 4 * 1024;

/// How long an answer may consist of comments alone until these are handed on, and nobody else can be asked any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is still handed on after the end of an answer, in bytes, and how long is waited for it.
const MAX_REST: usize = 64 * 1024;
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// What the type of a stream of events begins with.
const EVENTS: &[u8] = b"text/event-stream";

/// A request, ready to be sent.
pub(super) struct Post {
    pub(super) url: Url,
    pub(super) sent: Sent,
    pub(super) body: Bytes,
    /// Whether the answer is to be a stream of events.
    pub(super) streams: bool,
    /// Whether the event with what the answer took is taken out.
    pub(super) hides_usage: bool,
    pub(super) format: PassFormat,
    /// How many answers are made at once.
    pub(super) choices: u32,
    /// Where it is noted what the answer takes, if it fails before it begins.
    pub(super) meter: Meter,
    pub(super) room: AnswerRoom,
    pub(super) end: ServerStop,
}

/// The headers of a request that go with it: those of the tool, and before them those of the settings.
pub(super) fn with_tools_headers(mut headers: HeaderMap, from_tool: &HeaderPairs) -> HeaderMap {
    if from_tool.is_empty() {
        return headers;
    }
    let own = headers.clone();
    for (name, value) in from_tool.iter().take(MAX_HEADERS) {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) else {
            continue;
        };
        if !HEADERS_FROM_TOOL.contains(&name.as_str()) || value.len() > MAX_VALUE {
            continue;
        }
        match name.as_str() {
            // No setting has it: this is the version that the tool speaks.
            "anthropic-version" => drop(headers.insert(name, value)),
            // It may stand there several times.
            "anthropic-beta" => drop(headers.append(name, value)),
            _ if own.contains_key(&name) => {}
            _ => drop(headers.append(name, value)),
        }
    }
    headers
}

/// The headers of an answer that go back with it, without the key where the provider quotes it.
pub(super) fn kept(headers: &HeaderMap, sent: &Sent) -> HeaderPairs {
    let goes =
        |name: &str| FROM_PROVIDER.contains(&name) || LIMITS_FROM_PROVIDER.iter().any(|begin| name.starts_with(begin));
    let going = headers.iter().filter(|(name, value)| goes(name.as_str()) && value.len() <= MAX_VALUE);
    going
        .take(MAX_HEADERS)
        .map(|(name, value)| (name.as_str().to_owned(), sent.without_secrets(value.as_bytes().to_vec()).into()))
        .collect()
}

/// Sends a request until it is answered, by the rules for all requests. `translator` reads the answer; without it nothing
/// of it is looked at.
pub(super) async fn pass(
    endpoint: &Endpoint,
    post: Post,
    translator: Option<Box<dyn Translate>>,
) -> Result<Passed, PassError> {
    let link = endpoint.link().await?;
    let (mut retries, mut waited) = (0, Duration::ZERO);
    loop {
        let failed = match once(endpoint, &link, &post).await {
            Ok(response) => return begin(endpoint, response, post, translator).await,
            Err(failed) => failed,
        };
        let Some(pause) = endpoint.pause(&failed.error, retries, waited) else { return Err(failed) };
        if !endpoint.wait(pause).await {
            return Err(failed);
        }
        retries += 1;
        waited += pause;
    }
}

async fn once(endpoint: &Endpoint, link: &RuntimeClient, post: &Post) -> Result<Response, PassError> {
    let accept = if post.streams { "text/event-stream" } else { "application/json" };
    let request = link.client.post(post.url.clone()).header(ACCEPT, accept).header(CONTENT_TYPE, "application/json");
    let request = request.headers(post.sent.headers().clone()).body(post.body.clone());
    let Timeouts { first_byte, event, .. } = endpoint.timeouts();
    // The head of a whole answer comes when all of it has been made.
    let within = if post.streams { first_byte } else { first_byte.max(event) };
    let response = endpoint.send_once(link, request, within).await?;
    if response.status().is_success() {
        return Ok(response);
    }
    let headers = kept(response.headers(), &post.sent);
    let (error, status, body) = endpoint.refused(link, response, &post.sent).await;
    // Where a redirect leads, or what a proxy says, is told in this program's words.
    // To change the protocol nobody has asked.
    let is_told = matches!(status, 100..=199 | 300..=399 | 407);
    let refusal = (!is_told).then(|| Box::new(Refusal { status, headers, body: post.sent.without_secrets(body) }));
    Err(PassError { error, refusal })
}

/// The beginning of an answer: as far as it takes to know that there is one.
async fn begin(
    endpoint: &Endpoint,
    mut response: Response,
    post: Post,
    translator: Option<Box<dyn Translate>>,
) -> Result<Passed, PassError> {
    let Post { sent, hides_usage, format, choices, meter, room, end, .. } = post;
    let status = response.status().as_u16();
    let headers = kept(response.headers(), &sent);
    // A clone shares its bytes.
    let value = |name| response.headers().get(name).cloned();
    let (content_type, encoding) = (value(CONTENT_TYPE), value(CONTENT_ENCODING));
    if let Some(encoding) = encoding.filter(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(endpoint.unexpected(AN_EVENT_STREAM, &String::from_utf8_lossy(encoding.as_bytes()), b"").into());
    }
    let begun = endpoint.first_bytes(&mut response).await?;
    let says_events = content_type.as_ref().is_some_and(|kind| {
        let begin = kind.as_bytes().trim_ascii_start().get(..EVENTS.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(EVENTS))
    });
    let answer = Passed { status, headers, body: PassedBody::Whole(Bytes::new(), Seen::default()) };
    match (look(&begun), translator) {
        (Look::Json, translator) => whole(endpoint, response, begun, translator, answer, (&sent, &meter, &room)).await,
        (found, Some(translator)) if says_events || found == Look::Events => {
            let watch = Watch::new(translator, hides_usage, format == PassFormat::Responses, choices);
            let strike =
                sent.strike().filter(|strike| strike.is_distinct()).map(|strike| Striking::new(Arc::clone(strike)));
            let events = Passing::new(response, begun.into(), watch, strike, (endpoint.timeouts(), end));
            begin_events(events, answer, (&sent, &meter), format).await
        }
        _ => {
            let content_type = content_type.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
            Err(endpoint.unexpected("JSON or events", &String::from_utf8_lossy(content_type), &begun).into())
        }
    }
}

/// An answer that is one document. It is handed on when it is whole, so that one that breaks off has the status of an error.
async fn whole(
    endpoint: &Endpoint,
    mut response: Response,
    mut body: Vec<u8>,
    translator: Option<Box<dyn Translate>>,
    answer: Passed,
    (sent, meter, room): (&Sent, &Meter, &AnswerRoom),
) -> Result<Passed, PassError> {
    let timeouts = endpoint.timeouts();
    loop {
        match timeout(timeouts.silence(!body.is_empty()), response.chunk()).await {
            Err(_) => return Err(timeouts.silent(!body.is_empty()).into()),
            Ok(Err(error)) => return Err(ProviderError::Truncated { reason: root_cause(&error) }.into()),
            Ok(Ok(None)) => break,
            Ok(Ok(Some(bytes))) if bytes.len() > MAX_ANSWER.saturating_sub(body.len()) => {
                return Err(ProviderError::TooLarge { what: "the answer", limit: MAX_ANSWER }.into());
            }
            Ok(Ok(Some(bytes))) => {
                room.grow_to(body.len() + bytes.len()).map_err(ProviderError::from)?;
                body.extend_from_slice(&bytes);
            }
        }
    }
    let mut seen = Seen { stop: Some(StopReason::Other), ..Seen::default() };
    let mut made = VecDeque::new();
    let read = translator.map(|mut translator| {
        let read = translator.document(&String::from_utf8_lossy(&body), &mut made);
        let Heard { usage, is_final, unshown_bytes } = translator.heard();
        meter.note(usage, is_final, unshown_bytes);
        read
    });
    for chunk in made {
        match chunk {
            Chunk::Usage(usage) => (seen.usage, seen.is_final) = (Some(usage), true),
            Chunk::Done { stop_reason } => seen.stop = Some(stop_reason),
            Chunk::Text { text } | Chunk::Reasoning { text } => seen.said_bytes += text.len(),
            Chunk::ToolCall(delta) => seen.said_bytes += delta.arguments.len(),
            _ => {}
        }
    }
    let Passed { status, headers, .. } = answer;
    match read {
        // The JSON has no end.
        Some(Err(error @ ProviderError::Truncated { .. })) if is_cut(&body) => Err(error.into()),
        Some(Err(error @ ProviderError::Reported { .. })) => {
            let body = sent.without_secrets(body);
            Err(PassError { error, refusal: Some(Box::new(Refusal { status, headers, body })) })
        }
        // What is odd to this program may be all right to the tool.
        _ => {
            let strike = sent.strike().filter(|strike| strike.is_distinct());
            let body = strike.and_then(|strike| strike.struck(&body)).unwrap_or(body);
            Ok(Passed { status, headers, body: PassedBody::Whole(body.into(), seen) })
        }
    }
}

fn is_cut(json: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(json).is_err_and(|error| error.is_eof())
}

/// Waits for the first event. One that says that the provider failed is a refusal: another provider can be asked.
async fn begin_events(
    mut events: Passing,
    answer: Passed,
    (sent, meter): (&Sent, &Meter),
    format: PassFormat,
) -> Result<Passed, PassError> {
    let asked = Instant::now();
    let Passed { status, headers, .. } = answer;
    while let Some(mut piece) = events.next().await {
        // Of an answer of which something came nobody else is asked, and what came is paid for.
        let says_nothing = piece.seen.said_bytes == 0 && events.first.iter().all(|piece| piece.seen.said_bytes == 0);
        if piece.end.is_some() && says_nothing {
            meter.note(piece.seen.usage.clone(), piece.seen.is_final, 0);
        }
        match piece.end.take() {
            Some(PassEnd::Cut(error, _)) if says_nothing => return Err(error.into()),
            Some(PassEnd::Failed(error)) if says_nothing => {
                let mut body: Vec<u8> = events.first.iter().flat_map(|piece| piece.bytes.clone()).collect();
                body.extend_from_slice(&piece.bytes);
                while let Some(piece) = events.next().await {
                    body.extend_from_slice(&piece.bytes);
                }
                let is_told = tells_failure(format, &body);
                let refusal = Refusal { status, headers, body: sent.without_secrets(body) };
                return Err(PassError { error, refusal: is_told.then(|| Box::new(refusal)) });
            }
            end => piece.end = end,
        }
        let has_begun = piece.end.is_some() || events.watch.has_begun() || asked.elapsed() > PATIENCE;
        events.first.push_back(piece);
        if has_begun {
            break;
        }
    }
    let rest: PassStream = Box::pin(stream::unfold(events, |mut events| async {
        let piece = match events.first.pop_front() {
            Some(first) => first,
            None => events.next().await?,
        };
        Some((piece, events))
    }));
    Ok(Passed { status, headers, body: PassedBody::Stream(rest) })
}

/// Whether some event says that the answer failed in the way in which tools of this format read it. What is in another
/// server's has to be told in words of this program.
fn tells_failure(format: PassFormat, events: &[u8]) -> bool {
    let lines = events.split(|byte| matches!(byte, b'\n' | b'\r')).filter_map(|line| line.strip_prefix(b"data:"));
    lines.filter_map(|data| serde_json::from_slice::<Value>(data).ok()).any(|event| match format {
        PassFormat::Messages => event["type"] == "error",
        PassFormat::Responses => event["type"] == "error" || event["type"] == "response.failed",
        _ => !event["error"].is_null(),
    })
}

/// A stream of events on its way.
struct Passing {
    /// `None` after the end.
    response: Option<Response>,
    /// What was read of it already.
    begun: Bytes,
    watch: Watch,
    /// Strikes out the key of this program, if it was sent.
    striking: Option<Striking>,
    timeouts: Timeouts,
    end: ServerStop,
    /// When something came last that is more than a keep-alive, and whether there was such a thing.
    since: Instant,
    has_piece: bool,
    /// Bytes that came after the end of the answer.
    rest: usize,
    /// Until when more is waited for, once it has ended.
    rest_until: Option<Instant>,
    /// Pieces that were read before the answer was known to have begun.
    first: VecDeque<PassPiece>,
}

impl Passing {
    fn new(
        response: Response,
        begun: Bytes,
        watch: Watch,
        striking: Option<Striking>,
        (timeouts, end): (Timeouts, ServerStop),
    ) -> Self {
        Self {
            response: Some(response),
            begun,
            watch,
            striking,
            timeouts,
            end,
            since: Instant::now(),
            has_piece: false,
            rest: 0,
            rest_until: None,
            first: VecDeque::new(),
        }
    }

    async fn next(&mut self) -> Option<PassPiece> {
        loop {
            let bytes = self.read().await?;
            let bytes = self.without_key(bytes);
            let (seen, mut end) = (self.watch.take_seen(), self.watch.take_end());
            if let Some(PassEnd::Cut(_, mark)) = &mut end {
                // The bytes that it stands in were told without the key.
                let struck = |id: String| self.without_key(id.into_bytes().into());
                mark.id = mark.id.take().map(struck).map(|id| String::from_utf8_lossy(&id).into_owned());
            }
            if end.is_some() || self.watch.is_failing() {
                self.rest_until.get_or_insert_with(|| Instant::now() + REST_TIMEOUT);
            }
            if seen.pieces > 0 {
                self.since = Instant::now();
                self.has_piece = true;
            }
            if !bytes.is_empty() || end.is_some() || seen != Seen::default() {
                return Some(PassPiece { bytes, seen, end });
            }
        }
    }

    /// These bytes as they may be told. After the end nothing is held back.
    fn without_key(&mut self, bytes: Bytes) -> Bytes {
        let Some(striking) = &mut self.striking else { return bytes };
        let bytes = striking.take_in(bytes);
        if self.response.is_some() {
            return bytes;
        }
        let rest = striking.rest();
        if rest.is_empty() { bytes } else { [&*bytes, &*rest].concat().into() }
    }

    /// Reads once, within its time. `None` after the end.
    async fn read(&mut self) -> Option<Bytes> {
        let Timeouts { event, .. } = self.timeouts;
        let silence = self.timeouts.silence(self.has_piece);
        let response = self.response.as_mut()?;
        let rest_until = self.rest_until;
        if rest_until.is_none() && self.since.elapsed() > event {
            self.response = None;
            return Some(
                self.watch.finish(Closing::Failed(ProviderError::TimedOut { phase: Phase::Event, after: event })),
            );
        }
        let begun = std::mem::take(&mut self.begun);
        let read = if begun.is_empty() {
            // Before something of the answer has come the time is one for all, whatever keep-alives come.
            let from = if self.has_piece { Instant::now() } else { self.since };
            let until = rest_until.unwrap_or(from + silence);
            let (end, mut reading) = (&self.end, pin!(timeout_at(until, response.chunk())));
            let mut read = poll_fn(|context| match end.has_come() {
                true => Poll::Ready(None),
                false => reading.as_mut().poll(context).map(Some),
            });
            (&mut read).await
        } else {
            Some(Ok(Ok(Some(begun))))
        };
        let closing = match read.unwrap_or(Ok(Ok(None))) {
            _ if self.end.has_come() => Closing::Failed(ServerStop::error()),
            Ok(Ok(Some(bytes))) => {
                self.rest += if rest_until.is_some() { bytes.len() } else { 0 };
                let bytes = self.watch.take_in(&bytes);
                if self.rest > MAX_REST {
                    self.response = None;
                    if self.watch.is_failing() {
                        // Nothing more is read that could end it.
                        return Some([&*bytes, &*self.watch.finish(Closing::Ended)].concat().into());
                    }
                }
                return Some(bytes);
            }
            Ok(Ok(None)) => Closing::Ended,
            Ok(Err(error)) => Closing::Broken(root_cause(&error)),
            Err(_) if rest_until.is_some() => Closing::Ended,
            Err(_) => Closing::Failed(self.timeouts.silent(self.has_piece)),
        };
        self.response = None;
        Some(self.watch.finish(closing))
    }
}
