//! Errors, each with its status, in the form of OpenAI or of Anthropic.

mod named;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use self::named::{is_providers, named_field, providers_code};
use super::stamp::serial;
use crate::error::ProviderError;
use crate::message::ErrorInfo;
use crate::text::boundary;

/// Words by which providers say that a conversation is too long, in small letters.
const TOO_LONG: [&str; 14] = [
    "context length",
    "context window",
    "context_length",
    "maximum context",
    "prompt is too long",
    "exceeds the context",
    "exceed context limit",
    "exceed_context_size",
    "available context size",
    // xAI, Gemini, vLLM, Bedrock and Copilot.
    "maximum prompt length",
    "input token count",
    "maximum model length",
    "input is too long",
    "prompt token count",
];

/// The words by which Anthropic's servers say so.
const PROMPT_TOO_LONG: &str = "prompt is too long";

/// The longest message, in bytes. What comes after it is left out.
const MAX_MESSAGE: usize = 2 * 1024;

/// What an error looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorForm {
    /// `{"error":{"message":"…","type":"…","param":null,"code":"…"}}`.
    OpenAi,
    /// `{"type":"error","error":{"type":"…","message":"…"},"request_id":"…"}`.
    Anthropic,
}

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The HTTP status.
    pub status: u16,
    /// Whether the same request may succeed when it is sent again. OpenAI's own clients ask for this.
    pub retryable: bool,
    /// How long to wait before that, in seconds.
    pub retry_after: Option<u64>,
    /// The methods that the path takes, where it takes others.
    pub allow: Option<&'static str>,
    code: String,
    message: String,
    /// The field of the request that is at fault, or the place in it.
    param: Option<Cow<'static, str>>,
    /// Whether OpenAI has an error of its own for it, which calls all that is not there an invalid request.
    is_openais: bool,
}

impl Fault {
    /// The request is at fault.
    pub fn invalid(param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { param: param.map(Cow::Borrowed), ..Self::of(400, "invalid_request", message) }
    }

    /// The request is at fault at this place, as in `messages[1].role`.
    pub(super) fn misread(place: Option<String>, message: impl Into<String>) -> Self {
        Self { param: place.map(Cow::Owned), ..Self::of(400, "invalid_request", message) }
    }

    /// Whoever asks must show another key.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::of(401, "invalid_api_key", message)
    }

    /// Whoever asks may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::of(403, "forbidden", message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::of(404, "not_found", message)
    }

    /// There is no such thing, with a code and a field of their own.
    pub(crate) fn missing(code: &str, param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { param: param.map(Cow::Borrowed), is_openais: true, ..Self::of(404, code, message) }
    }

    /// A response is asked for that is not kept: what OpenAI says of one that it does not know.
    pub fn no_response(id: &str) -> Self {
        let message = format!("Response with id '{}' not found.", shown(id));
        Self { is_openais: true, ..Self::of(404, "", message) }
    }

    /// What is asked for takes other methods, which are listed as in the header `Allow`.
    pub fn method_not_allowed(what: &str, allow: &'static str) -> Self {
        let message = format!("{what} takes {}", allow.replace(", ", " and "));
        Self { allow: Some(allow), ..Self::of(405, "method_not_allowed", message) }
    }

    /// The body is of another type, or compressed.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::of(415, "unsupported_media_type", message)
    }

    /// Another protocol is wanted, which is not spoken here.
    pub fn upgrade(message: impl Into<String>) -> Self {
        Self::of(426, "upgrade_required", message)
    }

    /// The request is larger than is taken.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::of(413, "too_large", message)
    }

    /// The request did not come in time.
    pub fn too_slow(message: impl Into<String>) -> Self {
        Self::of(408, "timeout", message)
    }

    /// There is no room now.
    pub fn busy(message: impl Into<String>) -> Self {
        Self { retryable: true, retry_after: Some(1), ..Self::of(503, "overloaded", message) }
    }

    /// This fault, with how long to wait before the next request.
    #[must_use]
    pub fn after(self, wait: Option<Duration>) -> Self {
        let seconds = |wait: Duration| wait.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX);
        Self { retry_after: wait.map(seconds), ..self }
    }

    /// Whether it was this program that found the request at fault, and no provider.
    pub fn is_invalid_here(&self) -> bool {
        self.status == 400 && !is_providers(&self.message)
    }

    /// As JSON.
    pub fn body(&self, form: ErrorForm) -> Vec<u8> {
        let json = match form {
            ErrorForm::OpenAi => serde_json::to_vec(&OpenAi { error: self.openai() }),
            ErrorForm::Anthropic => serde_json::to_vec(&self.anthropic()),
        };
        // Plain structs with text keys: writing them cannot fail.
        json.unwrap_or_default()
    }

    /// The kind of error in the gateway's word.
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// The field of the request that is at fault, or the place in it.
    #[cfg(test)]
    pub(super) fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// What is wrong.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Whether a provider says that the conversation is too long.
    pub(super) fn is_too_long(&self) -> bool {
        let words = || self.message.to_ascii_lowercase();
        matches!(&*self.code, "invalid_request" | "too_large" | "provider_error")
            && TOO_LONG.iter().any(|said| words().contains(said))
    }

    /// OpenAI's code for what it has one for and tools act on; else the gateway's.
    fn openais_code(&self) -> &str {
        // A provider's code stands in brackets behind the status.
        let says = |code: &str| self.message.contains(&format!("({code})"));
        match &*self.code {
            _ if self.is_too_long() => "context_length_exceeded",
            "billing" => "insufficient_quota",
            "not_found" if says("model_not_found") => "model_not_found",
            "invalid_request" | "provider_error" if says("content_filter") => "content_filter",
            // By a word such as `unsupported_parameter` tools change what they ask for.
            "invalid_request" => providers_code(&self.message).unwrap_or(&self.code),
            code => code,
        }
    }

    pub(super) fn anthropic(&self) -> Anthropic<'_> {
        let kind = match self.status {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 | 529 => "overloaded_error",
            408 | 504 => "timeout_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        };
        // By these words tools know what to do.
        let message: Cow<'_, str> = match self.is_too_long() && !self.message.starts_with(PROMPT_TOO_LONG) {
            true => format!("{PROMPT_TOO_LONG}: {}", self.message).into(),
            false => (&*self.message).into(),
        };
        let error = AnthropicError { r#type: kind, message };
        Anthropic { r#type: "error", error, request_id: format!("req_{}", serial()) }
    }

    fn openai(&self) -> OpenAiError<'_> {
        let kind = match self.status {
            401 => "authentication_error",
            403 => "permission_error",
            404 if !self.is_openais => "not_found_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        OpenAiError {
            message: &self.message,
            r#type: kind,
            param: self.param.as_deref(),
            code: Some(self.openais_code()).filter(|code| !code.is_empty()),
        }
    }

    fn of(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        let (code, mut message) = (code.into(), message.into());
        // It may hold what a request said.
        message.truncate(boundary(&message, MAX_MESSAGE));
        Self { status, retryable: false, retry_after: None, allow: None, code, message, param: None, is_openais: false }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// An id that a tool sent, fit to be said again.
fn shown(id: &str) -> String {
    id.chars().filter(|c| c.is_ascii_graphic()).take(64).collect()
}

#[derive(Serialize)]
struct OpenAi<'a> {
    error: OpenAiError<'a>,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct Anthropic<'a> {
    r#type: &'static str,
    error: AnthropicError<'a>,
    request_id: String,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    r#type: &'static str,
    message: Cow<'a, str>,
}

impl From<ErrorInfo> for Fault {
    fn from(info: ErrorInfo) -> Self {
        let ErrorInfo { code, message, retryable, .. } = info;
        let param =
            if code == "invalid_request" { named_field(&message).map(|name| name.to_owned().into()) } else { None };
        Self { retryable, param, ..Self::of(status(&code), code, message) }
    }
}

impl From<ProviderError> for Fault {
    fn from(error: ProviderError) -> Self {
        Self::from(error.info()).after(error.retry_after())
    }
}

/// The status that goes with one of the gateway's codes. One that is not known here is no fault of the request.
fn status(code: &str) -> u16 {
    match code {
        "invalid_request" | "unsupported_version" => 400,
        "authentication" => 401,
        "billing" => 402,
        "permission" => 403,
        "not_found" | "unknown_provider" => 404,
        "too_large" => 413,
        "rate_limited" | "budget_exceeded" => 429,
        "overloaded" | "unavailable" => 503,
        "timeout" => 504,
        "not_configured" => 500,
        _ => 502,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_act_on_has_the_code_and_the_words_that_they_know() {
        for (code, message, openais, words) in [
            (
                "invalid_request",
                "the provider answered 400 (context_length_exceeded): long",
                "context_length_exceeded",
                true,
            ),
            (
                "provider_error",
                "the provider answered 400: Prompt is too long: 210 > 200",
                "context_length_exceeded",
                true,
            ),
            ("billing", "the provider answered 429 (insufficient_quota): no", "insufficient_quota", false),
            ("not_found", "the provider answered 404 (model_not_found): no", "model_not_found", false),
            ("invalid_request", "the provider answered 400 (content_filter): no", "content_filter", false),
            (
                "invalid_request",
                "the provider answered 400 (unsupported_parameter): use another (max_tokens): no",
                "unsupported_parameter",
                false,
            ),
            ("invalid_request", "the provider answered 400 (invalid_request_error): no", "invalid_request", false),
            ("invalid_request", "the provider answered 400: no (really): no", "invalid_request", false),
            ("not_found", "there is no such path", "not_found", false),
            (
                "invalid_request",
                "the provider answered 400 (exceed_context_size_error): the request exceeds the available context size",
                "context_length_exceeded",
                true,
            ),
            (
                "invalid_request",
                "the provider answered 400: input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000",
                "context_length_exceeded",
                true,
            ),
            (
                "invalid_request",
                "the provider answered 400: This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
                "context_length_exceeded",
                true,
            ),
            (
                "invalid_request",
                "the provider answered 400: The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
                "context_length_exceeded",
                true,
            ),
            ("rate_limited", "slow down: context length", "rate_limited", false),
        ] {
            let info = ErrorInfo { code: code.into(), message: message.into(), retryable: false, not_sent: false };
            let fault = Fault::from(info);
            let body = |form| serde_json::from_slice::<serde_json::Value>(&fault.body(form)).unwrap();
            assert_eq!(body(ErrorForm::OpenAi)["error"]["code"], openais);
            let said = body(ErrorForm::Anthropic)["error"]["message"].as_str().unwrap().to_owned();
            assert!(said.starts_with("prompt is too long: ") == words && said.ends_with(message), "{said}");
        }
    }

    #[test]
    fn an_error_has_openais_form_and_its_status() {
        let error = ProviderError::UnknownProvider { name: "delphi".into(), known: vec!["embedded".into()] };
        let fault = Fault::from(error);
        assert_eq!((fault.status, fault.retryable), (404, false));
        let body: serde_json::Value = serde_json::from_slice(&fault.body(ErrorForm::OpenAi)).unwrap();
        let expected = serde_json::json!({"error": {
            "message": "there is no provider `delphi`; known: embedded",
            "type": "not_found_error",
            "param": null,
            "code": "unknown_provider",
        }});
        assert_eq!(body, expected);
        let large = Fault::from(ProviderError::TooLarge { what: "the answer", limit: 9 });
        assert_eq!(large.status, 502, "it is no fault of the request");
    }

    #[test]
    fn what_is_not_kept_is_not_found_in_openais_own_words() {
        let body = |fault: Fault| serde_json::from_slice::<serde_json::Value>(&fault.body(ErrorForm::OpenAi)).unwrap();
        let expected = serde_json::json!({"error": {
            "message": "Response with id 'resp_7' not found.", "type": "invalid_request_error", "param": null, "code": null,
        }});
        assert_eq!((body(Fault::no_response("resp_7")), Fault::no_response("x").status), (expected, 404));
        let missing = body(Fault::missing("previous_response_not_found", Some("previous_response_id"), "No."));
        assert_eq!(missing["error"]["type"], "invalid_request_error");
        assert_eq!(missing["error"]["code"], "previous_response_not_found");
    }

    #[test]
    fn the_kind_of_an_error_goes_by_its_status() {
        for (code, status, kind, anthropic) in [
            ("invalid_request", 400, "invalid_request_error", "invalid_request_error"),
            ("authentication", 401, "authentication_error", "authentication_error"),
            ("billing", 402, "invalid_request_error", "billing_error"),
            ("permission", 403, "permission_error", "permission_error"),
            ("not_found", 404, "not_found_error", "not_found_error"),
            ("too_large", 413, "invalid_request_error", "request_too_large"),
            ("rate_limited", 429, "rate_limit_error", "rate_limit_error"),
            ("budget_exceeded", 429, "rate_limit_error", "rate_limit_error"),
            ("overloaded", 503, "server_error", "overloaded_error"),
            ("timeout", 504, "server_error", "timeout_error"),
            ("unheard_of", 502, "server_error", "api_error"),
        ] {
            let info = ErrorInfo { code: code.into(), message: "no".into(), retryable: false, ..ErrorInfo::default() };
            let fault = Fault::from(info);
            let body: serde_json::Value = serde_json::from_slice(&fault.body(ErrorForm::OpenAi)).unwrap();
            assert_eq!((fault.status, body["error"]["type"].as_str()), (status, Some(kind)), "{code}");
            let body: serde_json::Value = serde_json::from_slice(&fault.body(ErrorForm::Anthropic)).unwrap();
            assert_eq!((&body["type"], &body["error"]["type"]), (&"error".into(), &anthropic.into()), "{code}");
            assert!(body["request_id"].as_str().unwrap().starts_with("req_"), "{body}");
        }
    }

    #[test]
    fn what_a_request_said_makes_no_long_error() {
        let fault = Fault::invalid(None, "é".repeat(100_000));
        assert!(fault.body(ErrorForm::OpenAi).len() < 2 * MAX_MESSAGE);
    }

    #[test]
    fn what_may_succeed_later_says_when() {
        let refused = ProviderError::Refused {
            status: 429,
            code: None,
            message: "slow down".into(),
            retry_after: Some(Duration::from_millis(2500)),
            retryable: true,
            fix: None,
        };
        let fault = Fault::from(refused);
        assert_eq!((fault.status, fault.retryable, fault.retry_after), (429, true, Some(3)));

        let retry_after = Duration::from_millis(200);
        let fault = Fault::from(ProviderError::Suspended { provider: "openai".into(), retry_after });
        assert_eq!((fault.status, fault.retryable, fault.retry_after), (503, true, Some(1)));
    }
}
