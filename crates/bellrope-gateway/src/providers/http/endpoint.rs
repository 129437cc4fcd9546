//! One provider's HTTP endpoint: connecting, time-outs, retries, and errors in the provider's own words.
//!
//! It knows nothing of what providers say to each other's clients beyond the shape of their errors. There is no time-out
//! for a whole request: an answer may take as long as it keeps coming.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, RequestBuilder, Response, Url};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::debug;

use super::client::{RuntimeClient, RuntimeClients, root_cause};
use super::events::{EventStream, Look, look};
use super::explain::Failed;
use super::retry::{RetryPolicy, verdict};
use super::retry_after::asked_delay;
use super::timeouts::Timeouts;
use crate::error::{CHECK_BALANCE, CHECK_TOOLS_KEY, Excerpt, Phase, ProviderError};
use crate::providers::formats::{MAX_ERROR_BODY, StatedFault, is_retryable};
use crate::room::AnswerRoom;
use crate::secret::{Secret, Strike};

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope_gateway::http";

/// How long is waited for the body of an error. Without it the error still has its status.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a check of a provider's health may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

const EVENT_STREAM: &str = "text/event-stream";
/// What is asked for, as errors call it.
pub(super) const AN_EVENT_STREAM: &str = "an event stream";

const JSON: &str = "application/json";

/// What to tell the user to change.
#[derive(Debug)]
pub(super) struct Fixes {
    /// When the endpoint cannot be reached, or is not what was expected.
    pub(super) base_url: Cow<'static, str>,
    /// When the key is not accepted.
    pub(super) api_key: Cow<'static, str>,
    /// When something is not found.
    pub(super) not_found: Cow<'static, str>,
}

/// A provider's endpoint. Its HTTP client comes into being with the first request.
#[derive(Debug)]
pub(super) struct Endpoint {
    base: Url,
    /// Sent with every request; holds the key, marked as sensitive.
    headers: HeaderMap,
    /// The key once more, to keep it out of error messages.
    secret: Option<Secret>,
    /// What strikes it out of answers that are handed on as they come.
    strike: Option<Arc<Strike>>,
    timeouts: Timeouts,
    /// How many idle connections each runtime keeps.
    idle_connections: usize,
    retry: RetryPolicy,
    fixes: Fixes,
    links: RuntimeClients,
    /// Whether nothing is to be waited for any longer, as the server stops.
    draining: watch::Sender<bool>,
}

/// The headers of one request, and what in them must not be shown.
#[derive(Debug)]
pub(super) struct Sent {
    headers: HeaderMap,
    secrets: Vec<Secret>,
    /// What strikes them out of what is handed on as it comes.
    strikes: Vec<Arc<Strike>>,
    /// Whether the key is the tool's own.
    is_tools: bool,
}

impl Sent {
    /// These headers, and those that carry a tool's key.
    pub(super) fn of_tool(mut headers: HeaderMap, keys: HeaderMap, secrets: Vec<Secret>) -> Self {
        headers.extend(keys);
        let strikes = secrets.iter().filter_map(Secret::strike).map(Arc::new).collect();
        Self { headers, secrets, strikes, is_tools: true }
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// This with other headers.
    pub(super) fn with(self, headers: impl FnOnce(HeaderMap) -> HeaderMap) -> Self {
        Self { headers: headers(self.headers), ..self }
    }

    /// The key, to keep it out of what is made of the answer.
    pub(super) fn secret(&self) -> Option<&Secret> {
        self.secrets.first()
    }

    /// Text of the provider, fit to be shown.
    fn excerpt(&self, text: &str) -> Excerpt {
        let mut text = Cow::Borrowed(text);
        for secret in &self.secrets {
            text = secret.redact(&text).into_owned().into();
        }
        Excerpt::new(&text)
    }

    /// A body as it came, but for the key where the provider quotes it.
    pub(super) fn without_secrets(&self, body: Vec<u8>) -> Bytes {
        self.strikes.iter().fold(body, |body, strike| strike.struck(&body).unwrap_or(body)).into()
    }

    /// What strikes the key of this program out of the answer. A tool may be told its own.
    pub(super) fn strike(&self) -> Option<&Arc<Strike>> {
        self.strikes.first().filter(|_| !self.is_tools)
    }
}

impl Endpoint {
    pub(super) fn new(
        base: Url,
        headers: HeaderMap,
        secret: Option<Secret>,
        timeouts: Timeouts,
        idle_connections: usize,
        retry: RetryPolicy,
        fixes: Fixes,
    ) -> Self {
        Self {
            base,
            headers,
            strike: secret.as_ref().and_then(Secret::strike).map(Arc::new),
            secret,
            timeouts,
            idle_connections,
            retry,
            fixes,
            links: RuntimeClients::default(),
            draining: watch::Sender::new(false),
        }
    }

    /// Posts JSON once and gets the events that answer it.
    pub(super) async fn post_for_events<'a>(
        &self,
        path: impl IntoIterator<Item = &'a str>,
        body: Vec<u8>,
        sent: &Sent,
    ) -> Result<EventStream, ProviderError> {
        let link = self.link().await?;
        let request = link.client.post(self.url(path)).header(ACCEPT, EVENT_STREAM).header(CONTENT_TYPE, JSON);
        let response = self.attempt(&link, request.body(body), sent).await?;
        self.answer_in(response).await
    }

    /// Gets a JSON document of at most `limit` bytes.
    pub(super) async fn get_json(&self, path: &str, limit: usize) -> Result<Vec<u8>, ProviderError> {
        let get = |client: &Client, url| client.get(url).header(ACCEPT, JSON);
        let response = self.send(self.url([path]), &self.own(), get).await?;
        self.json_in(response, limit, &AnswerRoom::default()).await
    }

    /// Posts JSON, and gets a JSON document of at most `limit` bytes.
    pub(super) async fn post_json<'a>(
        &self,
        path: impl IntoIterator<Item = &'a str>,
        body: Vec<u8>,
        limit: usize,
        (sent, room): (&Sent, &AnswerRoom),
    ) -> Result<Vec<u8>, ProviderError> {
        let body = Bytes::from(body);
        let post =
            |client: &Client, url| client.post(url).header(ACCEPT, JSON).header(CONTENT_TYPE, JSON).body(body.clone());
        let response = self.send(self.url(path), sent, post).await?;
        self.json_in(response, limit, room).await
    }

    async fn json_in(&self, response: Response, limit: usize, room: &AnswerRoom) -> Result<Vec<u8>, ProviderError> {
        let mut response = self.expect_content(response, JSON, "JSON").await?;
        let mut body = Vec::new();
        loop {
            match timeout(self.timeouts.idle, response.chunk()).await {
                Err(_) => return Err(ProviderError::TimedOut { phase: Phase::Idle, after: self.timeouts.idle }),
                Ok(Err(error)) => return Err(ProviderError::Truncated { reason: root_cause(&error) }),
                Ok(Ok(None)) => return Ok(body),
                Ok(Ok(Some(bytes))) if bytes.len() > limit - body.len() => {
                    return Err(ProviderError::TooLarge { what: "the response", limit });
                }
                Ok(Ok(Some(bytes))) => {
                    room.grow_to(body.len() + bytes.len())?;
                    body.extend_from_slice(&bytes);
                }
            }
        }
    }

    /// Whether a GET of `path` succeeds now: one attempt of a few seconds.
    pub(super) async fn probe(&self, path: &str) -> Result<(), ProviderError> {
        let link = self.link().await?;
        let request = link.client.get(self.url([path])).header(ACCEPT, JSON);
        let within = PROBE_TIMEOUT.min(self.timeouts.first_byte);
        let attempt = timeout(within, self.attempt(&link, request, &self.own())).await;
        attempt.unwrap_or(Err(ProviderError::TimedOut { phase: Phase::FirstByte, after: within })).map(drop)
    }

    /// The key that must not be shown.
    pub(super) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// Text of the provider, fit to be shown.
    pub(super) fn excerpt(&self, text: &str) -> Excerpt {
        Secret::excerpt(self.secret(), text)
    }

    /// How long to wait before a request is sent again that failed so, after `retries` repetitions and so long a wait.
    /// `None`: not at all.
    pub(super) fn pause(&self, error: &ProviderError, retries: u32, waited: Duration) -> Option<Duration> {
        let pause = self.retry.delay(error, retries, waited).filter(|_| !*self.draining.borrow())?;
        debug!(target: TARGET, %error, ?pause, retries, "asking the provider again");
        Some(pause)
    }

    /// Waits so long; false if the server stops meanwhile.
    pub(super) async fn wait(&self, pause: Duration) -> bool {
        timeout(pause, self.draining.subscribe().wait_for(|draining| *draining)).await.is_err()
    }

    /// Ends every wait, those to come too.
    pub(super) fn begin_drain(&self) {
        self.draining.send_replace(true);
    }

    /// Sends a request until it is answered with success, by the rules of [`RetryPolicy`].
    async fn send(
        &self,
        url: Url,
        sent: &Sent,
        make: impl Fn(&Client, Url) -> RequestBuilder,
    ) -> Result<Response, ProviderError> {
        let link = self.link().await?;
        let (mut retries, mut waited) = (0, Duration::ZERO);
        loop {
            let error = match self.attempt(&link, make(&link.client, url.clone()), sent).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let Some(pause) = self.pause(&error, retries, waited) else { return Err(error) };
            if !self.wait(pause).await {
                return Err(error);
            }
            retries += 1;
            waited += pause;
        }
    }

    async fn attempt(
        &self,
        link: &RuntimeClient,
        request: RequestBuilder,
        sent: &Sent,
    ) -> Result<Response, ProviderError> {
        let request = request.headers(sent.headers.clone());
        let response = self.send_once(link, request, self.timeouts.first_byte).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refused(link, response, sent).await.0)
    }

    /// Sends a request once, and waits so long for the head of the response.
    pub(super) async fn send_once(
        &self,
        link: &RuntimeClient,
        request: RequestBuilder,
        within: Duration,
    ) -> Result<Response, ProviderError> {
        match timeout(within, request.send()).await {
            Err(_) => Err(ProviderError::TimedOut { phase: Phase::FirstByte, after: within }),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.failed(link).explain(&error).await),
        }
    }

    /// What every request has with it.
    pub(super) fn own(&self) -> Sent {
        Sent {
            headers: self.headers.clone(),
            secrets: self.secret.iter().cloned().collect(),
            strikes: self.strike.iter().cloned().collect(),
            is_tools: false,
        }
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    fn failed<'a>(&'a self, link: &'a RuntimeClient) -> Failed<'a> {
        let connect_timeout = self.timeouts.connect;
        Failed { link, base: &self.base, check_base: &self.fixes.base_url, connect_timeout }
    }

    /// The error that a response without success stands for, its status, and what came of its body.
    pub(super) async fn refused(
        &self,
        link: &RuntimeClient,
        mut response: Response,
        sent: &Sent,
    ) -> (ProviderError, u16, Vec<u8>) {
        let body = read_some(&mut response).await;
        let status = response.status().as_u16();
        (self.refusal(link, &response, &body, sent), status, body)
    }

    fn refusal(&self, link: &RuntimeClient, response: &Response, body: &[u8], sent: &Sent) -> ProviderError {
        let status = response.status().as_u16();
        // What goes through a proxy without a tunnel is answered by it where the provider cannot.
        let proxy = link.proxy.as_ref().filter(|_| self.base.scheme() == "http");
        if let (407, Some(proxy)) = (status, proxy) {
            return self.failed(link).refused_by_proxy(proxy, Some(status));
        }
        let headers = response.headers().clone();
        let verdict = verdict(&headers);
        let redirected = headers.get(LOCATION).filter(|_| response.status().is_redirection());
        let redirected = redirected.map(|to| format!("redirects to {} are not followed", to.to_str().unwrap_or("?")));
        let is_plain = |coding: &HeaderValue| {
            let coding = coding.as_bytes().trim_ascii();
            [&b""[..], b"none", b"identity"].iter().any(|plain| coding.eq_ignore_ascii_case(plain))
        };
        let encoding = headers.get(CONTENT_ENCODING).filter(|coding| !is_plain(coding));
        // Nobody asked for that, and nobody here reads it.
        let compressed =
            encoding.map(|coding| format!("its words are compressed ({})", coding.to_str().unwrap_or("?")));
        let told = redirected.or(compressed).map(StatedFault::of_message);
        let fault = told.or_else(|| StatedFault::in_body(body));
        // What the body says of the key says more than that the request is at fault.
        let status = match &fault {
            Some(StatedFault { status: Some(401), .. }) if status == 400 => 401,
            _ => status,
        };
        let (code, message) = match &fault {
            Some(fault) => (fault.code.as_deref().map(|code| sent.excerpt(code)), sent.excerpt(&fault.message)),
            None => (None, "no message".into()),
        };
        let words = String::from_utf8_lossy(body);
        let out_of_money = status == 402 || fault.is_some_and(|fault| fault.is_out_of_money());
        let fix = match status {
            _ if out_of_money => Some(CHECK_BALANCE.into()),
            400 if expects_tls(&words) => {
                Some(format!("write https:// in place of http://: {}", self.fixes.base_url).into())
            }
            300..=399 => Some(self.fixes.base_url.clone()),
            401 | 403 if sent.is_tools => Some(CHECK_TOOLS_KEY.into()),
            401 | 403 => Some(self.fixes.api_key.clone()),
            404 if words.trim_start().starts_with('<') => {
                let path = self.excerpt(response.url().path());
                Some(format!("{} (`{path}` was asked for)", self.fixes.base_url).into())
            }
            404 => Some(self.fixes.not_found.clone()),
            _ => None,
        };
        let by_proxy = proxy.filter(|_| matches!(status, 403 | 502..=504)).map(|proxy| {
            let (shown, variable) = (proxy.shown(), proxy.variable);
            let host = self.base.host_str().unwrap_or_default();
            let own = fix.as_deref().map(|fix| format!("{fix}, ")).unwrap_or_default();
            format!("{own}the proxy {shown} of {variable} may have said that: check it, or add {host} to NO_PROXY")
        });
        ProviderError::Refused {
            status,
            code,
            message,
            retry_after: asked_delay(status, &headers, &words, SystemTime::now()),
            retryable: verdict.unwrap_or_else(|| is_retryable(status)) && !out_of_money,
            fix: by_proxy.map(Cow::Owned).or(fix),
        }
    }

    /// The answer in a response. Servers name its type wrongly, so one of another type is looked at before it is refused.
    async fn answer_in(&self, mut response: Response) -> Result<EventStream, ProviderError> {
        let content_type = response.headers().get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let is_as_asked = content_type.is_none_or(|found| media_type(&found).eq_ignore_ascii_case(EVENT_STREAM));
        if is_as_asked || response.headers().contains_key(CONTENT_ENCODING) {
            let response = self.expect_content(response, EVENT_STREAM, AN_EVENT_STREAM).await?;
            return Ok(EventStream::new(response, Bytes::new(), self.timeouts));
        }
        let mut begun = self.first_bytes(&mut response).await?;
        if matches!(look(&begun), Look::Events | Look::Json) {
            return Ok(EventStream::new(response, begun.into(), self.timeouts));
        }
        let content_type = response.headers().get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let content_type = content_type.unwrap_or_default().into_owned();
        begun.extend(read_some(&mut response).await);
        Err(self.unexpected(AN_EVENT_STREAM, &content_type, &begun))
    }

    /// As much of a response as shows what it is.
    pub(super) async fn first_bytes(&self, response: &mut Response) -> Result<Vec<u8>, ProviderError> {
        let mut begun = Vec::new();
        while matches!(look(&begun), Look::Blank | Look::Unclear) && begun.len() < MAX_ERROR_BODY {
            let has_begun = matches!(look(&begun), Look::Unclear);
            match timeout(self.timeouts.silence(has_begun), response.chunk()).await {
                Err(_) => return Err(self.timeouts.silent(has_begun)),
                Ok(Ok(Some(bytes))) => begun.extend_from_slice(&bytes),
                Ok(Ok(None) | Err(_)) => break,
            }
        }
        Ok(begun)
    }

    /// The error of a response that is not what was asked for, or of another type.
    pub(super) fn unexpected(&self, expected: &'static str, content_type: &str, body: &[u8]) -> ProviderError {
        ProviderError::UnexpectedContent {
            expected,
            content_type: self.excerpt(content_type),
            excerpt: match StatedFault::in_body(body) {
                Some(fault) => self.excerpt(&fault.message),
                None => "no readable text".into(),
            },
            fix: self.fixes.base_url.clone(),
        }
    }

    /// Passes a response on that is of type `expected`, or does not say its type.
    async fn expect_content(
        &self,
        mut response: Response,
        expected: &str,
        expected_name: &'static str,
    ) -> Result<Response, ProviderError> {
        let header = |name| response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let content_type = header(CONTENT_TYPE);
        let encoding = header(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity"));
        let as_expected = content_type.as_deref().is_none_or(|found| media_type(found).eq_ignore_ascii_case(expected));
        if as_expected && encoding.is_none() {
            return Ok(response);
        }
        let readable = encoding.is_none();
        let content_type = encoding.or(content_type).unwrap_or_default();
        let content_type = content_type.into_owned();
        let body = if readable { read_some(&mut response).await } else { Vec::new() };
        Err(self.unexpected(expected_name, &content_type, &body))
    }

    pub(super) async fn link(&self) -> Result<Arc<RuntimeClient>, ProviderError> {
        self.links.get(&self.base, self.timeouts.connect, self.idle_connections).await
    }

    /// The address of a path, whose segments may hold anything.
    pub(super) fn url<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }
}

/// What servers say to a plain request where TLS is spoken.
fn expects_tls(words: &str) -> bool {
    [
        "plain HTTP request was sent to HTTPS port",
        "HTTP request to an HTTPS server",
        "requires TLS",
        "speaking plain HTTP to an SSL",
    ]
    .iter()
    .any(|said| words.contains(said))
}

/// The beginning of a body, as far as it comes in time.
async fn read_some(response: &mut Response) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(bytes)) = response.chunk().await {
            let room = MAX_ERROR_BODY - body.len();
            body.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if body.len() == MAX_ERROR_BODY {
                break;
            }
        }
    };
    // What has come in until then is enough.
    let _ = timeout(ERROR_BODY_TIMEOUT, read).await;
    body
}

fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}
