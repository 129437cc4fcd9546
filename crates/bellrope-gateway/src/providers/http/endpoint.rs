//! One provider's HTTP endpoint: connecting, time-outs, retries, and errors in the provider's own words.
//!
//! It knows nothing of what providers say to each other's clients beyond the shape of their errors. There is no time-out
//! for a whole request: an answer may take as long as it keeps coming.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Client, RequestBuilder, Response, Url};
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::client::{build, root_cause};
use super::events::{EventStream, Look, look};
use super::retry::{RetryPolicy, asked_delay, verdict};
use super::timeouts::Timeouts;
use crate::error::{Excerpt, Phase, ProviderError};
use crate::providers::formats::{Fault, MAX_ERROR_BODY, is_retryable};
use crate::secret::Secret;

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
pub(super) struct Mends {
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
    timeouts: Timeouts,
    retry: RetryPolicy,
    mends: Mends,
    client: OnceCell<Client>,
}

impl Endpoint {
    pub(super) fn new(
        base: Url,
        headers: HeaderMap,
        secret: Option<Secret>,
        timeouts: Timeouts,
        retry: RetryPolicy,
        mends: Mends,
    ) -> Self {
        Self { base, headers, secret, timeouts, retry, mends, client: OnceCell::new() }
    }

    /// Posts JSON and gets the events that answer it.
    pub(super) async fn post_for_events<'a>(
        &self,
        path: impl IntoIterator<Item = &'a str>,
        body: Vec<u8>,
    ) -> Result<EventStream, ProviderError> {
        let url = self.url(path);
        let body = Bytes::from(body);
        let make = |client: &Client, url: Url| {
            client.post(url).header(ACCEPT, EVENT_STREAM).header(CONTENT_TYPE, JSON).body(body.clone())
        };
        let response = self.send(url, make).await?;
        self.answer_in(response).await
    }

    /// Gets a JSON document of at most `limit` bytes.
    pub(super) async fn get_json(&self, path: &str, limit: usize) -> Result<Vec<u8>, ProviderError> {
        let response = self.send(self.url([path]), |client, url| client.get(url).header(ACCEPT, JSON)).await?;
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
                Ok(Ok(Some(bytes))) => body.extend_from_slice(&bytes),
            }
        }
    }

    /// Whether a GET of `path` succeeds now: one attempt of a few seconds.
    pub(super) async fn probe(&self, path: &str) -> Result<(), ProviderError> {
        let client = self.client().await?;
        let request = client.get(self.url([path])).header(ACCEPT, JSON);
        let within = PROBE_TIMEOUT.min(self.timeouts.first_byte);
        let attempt = timeout(within, self.attempt(request)).await;
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

    /// Sends a request until it is answered with success, by the rules of [`RetryPolicy`].
    async fn send(&self, url: Url, make: impl Fn(&Client, Url) -> RequestBuilder) -> Result<Response, ProviderError> {
        let client = self.client().await?;
        let mut retries = 0;
        loop {
            let error = match self.attempt(make(client, url.clone())).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let Some(delay) = self.retry.delay(&error, retries) else { return Err(error) };
            debug!(target: TARGET, %error, ?delay, retries, "asking the provider again");
            sleep(delay).await;
            retries += 1;
        }
    }

    async fn attempt(&self, request: RequestBuilder) -> Result<Response, ProviderError> {
        let request = request.headers(self.headers.clone());
        let Timeouts { connect, first_byte, .. } = self.timeouts;
        match timeout(first_byte, request.send()).await {
            Err(_) => Err(ProviderError::TimedOut { phase: Phase::FirstByte, after: first_byte }),
            Ok(Ok(response)) if response.status().is_success() => Ok(response),
            Ok(Ok(response)) => Err(self.refused(response).await),
            Ok(Err(error)) if error.is_connect() && error.is_timeout() => {
                Err(ProviderError::TimedOut { phase: Phase::Connect, after: connect })
            }
            Ok(Err(error)) if error.is_connect() => {
                Err(ProviderError::Connect { reason: root_cause(&error), mend: self.mends.base_url.clone() })
            }
            Ok(Err(error)) if error.is_builder() => Err(ProviderError::Setup { reason: root_cause(&error) }),
            Ok(Err(error)) => Err(ProviderError::Disconnected { reason: root_cause(&error) }),
        }
    }

    /// The error that a response without success stands for.
    async fn refused(&self, mut response: Response) -> ProviderError {
        let status = response.status().as_u16();
        let headers = response.headers();
        let retry_after = asked_delay(headers, SystemTime::now());
        let verdict = verdict(headers);
        let redirected = headers.get(LOCATION).filter(|_| response.status().is_redirection());
        let redirected = redirected.map(|to| format!("redirects to {} are not followed", to.to_str().unwrap_or("?")));
        let body = read_some(&mut response).await;
        let fault = redirected.map(Fault::of_message).or_else(|| Fault::in_body(&body));
        let (code, message) = match &fault {
            Some(fault) => (fault.code.as_deref().map(|code| self.excerpt(code)), self.excerpt(&fault.message)),
            None => (None, "no message".into()),
        };
        let out_of_money = fault.is_some_and(|fault| fault.is_out_of_money());
        ProviderError::Refused {
            status,
            code,
            message,
            retry_after,
            retryable: verdict.unwrap_or(is_retryable(status) && !out_of_money),
            mend: match status {
                300..=399 => Some(self.mends.base_url.clone()),
                401 | 403 => Some(self.mends.api_key.clone()),
                404 => Some(self.mends.not_found.clone()),
                _ if out_of_money => Some("check the plan and the balance of the account".into()),
                _ => None,
            },
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
        let mut begun = Vec::new();
        while matches!(look(&begun), Look::Blank | Look::Unclear) && begun.len() < MAX_ERROR_BODY {
            match timeout(self.timeouts.idle, response.chunk()).await {
                Err(_) => return Err(ProviderError::TimedOut { phase: Phase::Idle, after: self.timeouts.idle }),
                Ok(Ok(Some(bytes))) => begun.extend_from_slice(&bytes),
                Ok(Ok(None) | Err(_)) => break,
            }
        }
        if matches!(look(&begun), Look::Events | Look::Json) {
            return Ok(EventStream::new(response, begun.into(), self.timeouts));
        }
        let content_type = response.headers().get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let content_type = content_type.unwrap_or_default().into_owned();
        begun.extend(read_some(&mut response).await);
        Err(self.unexpected(AN_EVENT_STREAM, &content_type, &begun))
    }

    /// The error of a response that is not what was asked for, or of another type.
    pub(super) fn unexpected(&self, expected: &'static str, content_type: &str, body: &[u8]) -> ProviderError {
        ProviderError::UnexpectedContent {
            expected,
            content_type: self.excerpt(content_type),
            excerpt: match Fault::in_body(body) {
                Some(fault) => self.excerpt(&fault.message),
                None => "no readable text".into(),
            },
            mend: self.mends.base_url.clone(),
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

    async fn client(&self) -> Result<&Client, ProviderError> {
        self.client.get_or_try_init(|| build(self.base.clone(), self.timeouts.connect)).await
    }

    /// The address of a path, whose segments may hold anything.
    fn url<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }
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
