//! The errors of providers, in the several shapes in which they come.

mod event;

use serde_json::Value;

use crate::error::AT;
use crate::json;

/// What is read of the body of an error, in bytes.
pub(crate) const MAX_ERROR_BODY: usize = 64 * 1024;

/// How deep an error may lie in errors.
const MAX_DEPTH: usize = 4;

/// What providers say, in small letters, when an account has nothing left, whatever status and code they give it.
const SPENT: [&str; 4] =
    ["credit balance is too low", "insufficient balance", "insufficient credits", "billing hard limit"];
/// The longest code or type of error that is looked at, in characters.
const MAX_CODE: usize = 64;

/// What a provider says went wrong. Not fit to be shown before it went through an excerpt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StatedFault {
    /// The provider's own code, else its type of error.
    pub(crate) code: Option<String>,
    /// The provider's own words.
    pub(crate) message: String,
    /// The HTTP status that the error would have as a response, where code or type give it away.
    pub(crate) status: Option<u16>,
}

impl StatedFault {
    /// A fault of words alone.
    pub(crate) fn of_message(message: String) -> Self {
        Self { code: None, message, status: None }
    }

    /// The fault in a body or an event: JSON in one of the known shapes, else whatever the text says. `None` for an empty
    /// one. What goes beyond [`MAX_ERROR_BODY`] is left out.
    pub(crate) fn in_body(body: &[u8]) -> Option<Self> {
        let body = &body[..body.len().min(MAX_ERROR_BODY)];
        let text = String::from_utf8_lossy(body);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
        // Some servers frame an error as an event of the stream that was asked for.
        let framed = text.starts_with("data:") || text.starts_with("event:");
        let data = framed.then(|| text.lines().find_map(|line| line.strip_prefix("data:"))).flatten();
        let said = json::from_str(data.unwrap_or(text)).ok().and_then(|json| Self::in_json(&json));
        said.or_else(|| Some(text.to_owned()).filter(|text| !text.is_empty()).map(Self::of_message))
    }

    /// The fault in a document: `{"error":{...}}`, `{"error":"..."}`, `{"message":...}`, `{"detail":...}`, a list of one of
    /// them, or one within another.
    fn in_json(json: &Value) -> Option<Self> {
        Self::within(json, MAX_DEPTH)
    }

    fn within(json: &Value, depth: usize) -> Option<Self> {
        let json = json.as_array().map_or(Some(json), |list| list.first())?;
        let error = json.get("error").unwrap_or(json);
        if let Some(message) = error.as_str() {
            return Some(Self::of_message(message.to_owned()));
        }
        let Some(message) = ["message", "detail"].iter().find_map(|key| error.get(key).and_then(words)) else {
            return error.get("error").filter(|_| depth > 0).and_then(|_| Self::within(error, depth - 1));
        };
        let [code, kind] = ["code", "type"].map(|key| error.get(key).and_then(words));
        let status = [&code, &kind].into_iter().flatten().find_map(|name| status_of(name));
        // Google says so with 400.
        let status = if names_bad_key(error) { Some(401) } else { status };
        let message = at_place(with_metadata(message, error.get("metadata")), error.get("param"));
        Some(Self { code: code.or(kind), message, status })
    }

    /// Whether it may go away by itself.
    pub(crate) fn is_retryable(&self) -> bool {
        self.status.is_some_and(is_retryable) && !self.is_out_of_money()
    }

    /// Whether it says that the account has nothing left, which providers report with the status of a rate limit.
    pub(crate) fn is_out_of_money(&self) -> bool {
        let words = || self.message.to_ascii_lowercase();
        matches!(self.code.as_deref(), Some("insufficient_quota" | "billing_error" | "billing_hard_limit_reached"))
            || SPENT.iter().any(|said| words().contains(said))
    }
}

/// A message with what a server that asks others tells of theirs: their own words, and their name.
pub(super) fn with_metadata(mut message: String, metadata: Option<&Value>) -> String {
    let Some(metadata) = metadata else { return message };
    let theirs = |raw: &str| {
        let json = json::from_str::<Value>(raw).ok();
        json.and_then(|json| StatedFault::within(&json, 1)).map_or_else(|| raw.to_owned(), |fault| fault.message)
    };
    let raw = metadata.get("raw").and_then(words).map(|raw| theirs(&raw));
    let reasons = metadata.get("reasons").and_then(Value::as_array);
    let reasons = reasons.map(|list| list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
    for more in raw.into_iter().chain(reasons).filter(|more| !more.trim().is_empty()) {
        if !message.contains(&more) {
            message = format!("{message}: {more}");
        }
    }
    match metadata.get("provider_name").and_then(Value::as_str).filter(|name| !name.is_empty()) {
        Some(name) => format!("{message} ({name})"),
        None => message,
    }
}

/// A message that names the place in the request that is at fault, unless it does already.
fn at_place(message: String, param: Option<&Value>) -> String {
    let place = param.and_then(Value::as_str).filter(|place| !place.is_empty() && !place.contains('`'));
    match place.filter(|place| !message.contains(&format!("'{place}'"))) {
        Some(place) => format!("{message}{AT}{place}`)"),
        None => message,
    }
}

/// Whether the details of an error say that the key is wrong.
fn names_bad_key(error: &Value) -> bool {
    let details = error.get("details").and_then(Value::as_array);
    details.into_iter().flatten().any(|detail| detail.get("reason").is_some_and(|reason| reason == "API_KEY_INVALID"))
}

/// Whether a request refused with this HTTP status may succeed when it is sent again.
pub(crate) fn is_retryable(status: u16) -> bool {
    matches!(status, 408 | 409 | 429 | 500..)
}

fn words(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other => Some(other.to_string()),
    }
}

/// The status that belongs to an error's code or type, however it is spelt: `rate_limit_error`, `RateLimitError`.
fn status_of(name: &str) -> Option<u16> {
    let letters = name.chars().filter(char::is_ascii_alphanumeric).take(MAX_CODE).collect::<String>();
    let letters = letters.to_ascii_lowercase();
    Some(match letters.strip_suffix("error").unwrap_or(&letters) {
        "invalidrequest" | "badrequest" | "contextlengthexceeded" | "invalidargument" => 400,
        "authentication" | "invalidapikey" | "unauthenticated" | "unauthorized" => 401,
        "billing" => 402,
        "permission" | "permissiondenied" | "forbidden" => 403,
        "notfound" | "modelnotfound" => 404,
        "unprocessableentity" => 422,
        "ratelimit" | "ratelimited" | "ratelimitexceeded" | "insufficientquota" | "toomanyrequests"
        | "resourceexhausted" => 429,
        "api" | "server" | "internal" | "internalserver" => 500,
        "unavailable" | "serviceunavailable" | "slowdown" => 503,
        "timeout" | "deadlineexceeded" => 504,
        "overloaded" | "serverisoverloaded" | "engineoverloaded" => 529,
        other => other.parse().ok().filter(|status| (400..600).contains(status))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, code: Option<&str>, message: &str, status: Option<u16>) {
        let expected = StatedFault { code: code.map(str::to_owned), message: message.to_owned(), status };
        assert_eq!(StatedFault::in_body(body.as_bytes()), Some(expected));
    }

    #[test]
    fn every_known_shape_is_understood() {
        check(
            r#"{"error":{"message":"No","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#,
            Some("invalid_api_key"),
            "No",
            Some(401),
        );
        check(r#"{"error":{"message":"Slow","code":429}}"#, Some("429"), "Slow", Some(429));
        check(r#"[{"error":{"message":"Listed","code":null}}]"#, None, "Listed", None);
        check(r#"{"error":"model not found"}"#, None, "model not found", None);
        check(r#"{"object":"error","message":"Flat","type":"BadRequest"}"#, Some("BadRequest"), "Flat", Some(400));
        check(r#"{"detail":[{"loc":["body"]}]}"#, None, r#"[{"loc":["body"]}]"#, None);
        let nested = r#"{"error":{"error":{"message":"deep","type":"overloaded_error"}}}"#;
        check(nested, Some("overloaded_error"), "deep", Some(529));
        check("\u{feff}{\"error\":{\"message\":\"a \\ud83d\nb\"}}", None, "a \u{fffd}\nb", None);
        check("event: error\ndata: {\"error\":{\"message\":\"m\",\"code\":429}}\n\n", Some("429"), "m", Some(429));
        check("data: [DONE]", None, "data: [DONE]", None);
        check(
            r#"{"error":{"message":"No","param":"messages[1].role","code":"invalid_value"}}"#,
            Some("invalid_value"),
            "No (at `messages[1].role`)",
            None,
        );
        check(r#"{"error":{"message":"not 'n'","param":"n"}}"#, None, "not 'n'", None);
        check(
            r#"[{"error":{"code":400,"message":"No","details":[{"@type":"x"},{"reason":"API_KEY_INVALID"}]}}]"#,
            Some("400"),
            "No",
            Some(401),
        );
        let raw = r#"{"error":{"message":"Provider returned error","code":400,"metadata":{"raw":"{\"error\":{\"message\":\"too hot\"}}","provider_name":"Acme"}}}"#;
        check(raw, Some("400"), "Provider returned error: too hot (Acme)", Some(400));
        let flagged = r#"{"error":{"message":"flagged","code":403,"metadata":{"reasons":["a","b"],"raw":null}}}"#;
        check(flagged, Some("403"), "flagged: a, b", Some(403));
        check("<h1>502</h1>\n", None, "<h1>502</h1>", None);
        check(r#"{"no":"error"}"#, None, r#"{"no":"error"}"#, None);
        assert_eq!(StatedFault::in_body(b" \n"), None);
        assert_eq!(StatedFault::in_json(&serde_json::json!([])), None);
    }

    #[test]
    fn an_empty_account_is_no_rate_limit() {
        let fault =
            |code: &str| StatedFault::in_json(&serde_json::json!({"error": {"message": "m", "code": code}})).unwrap();
        assert!(fault("rate_limit_exceeded").is_retryable());
        assert!(!fault("insufficient_quota").is_retryable());
        let said = |message: &str| StatedFault::of_message(message.to_owned()).is_out_of_money();
        assert!(said("Your credit balance is too low to access the Anthropic API.") && said("Insufficient Balance"));
        assert!(!said("You sent too many requests"));
    }
}
