//! Errors in an event, or in a document that came with success: in a field of its own, or in the place of an answer.

use serde_json::value::RawValue;

use super::{MAX_DEPTH, MAX_ERROR_BODY, StatedFault, status_of, with_metadata};
use crate::json::{self, each, fields, is_nothing, number, words};
use crate::providers::formats::reason::Reason;

impl StatedFault {
    /// The fault that an event reports; `None` if it reports none. Text that is only called `message` counts as a fault
    /// where nothing says what else it is, so what may be an answer has to be looked at first.
    pub(crate) fn in_event(event: &RawValue) -> Option<Self> {
        nested(event, MAX_DEPTH)
    }

    /// The fault in the value of a field called `error`; `None` if it says nothing.
    pub(crate) fn in_field(error: &RawValue) -> Option<Self> {
        in_error(error, None, MAX_DEPTH)
    }
}

fn nested(event: &RawValue, depth: usize) -> Option<StatedFault> {
    let depth = depth.checked_sub(1)?;
    if event.get().starts_with('[') {
        let mut first = None;
        // Only the first is looked at.
        let _ = each(event, |_, element| {
            first = nested(element, depth);
            Err(())
        });
        return first;
    }
    let names = [
        "error",
        "errors",
        "message",
        "msg",
        "detail",
        "code",
        "status",
        "type",
        "object",
        "success",
        "error_type",
        "error_code",
        "error_message",
        "error_msg",
        "base_resp",
        "statusCode",
    ];
    let [
        error,
        errors,
        message,
        msg,
        detail,
        code,
        status,
        kind,
        object,
        success,
        error_type,
        error_code,
        error_message,
        error_msg,
        base,
        status_code,
    ] = fields(event, names)?;
    let (base_code, base_message) = base.and_then(base_of).unzip();
    // Of a message that is no text, the parts are what is said.
    let [message, msg] = [message, msg].map(|text| text.filter(|text| !text.get().starts_with(['{', '['])));
    let text = [error_message, error_msg, message, msg, base_message.flatten(), detail];
    let message = text.into_iter().flatten().filter(|text| !is_nothing(text)).find_map(text_of);
    if let Some(fault) = error.or(errors).and_then(|error| in_error(error, message.as_deref(), depth)) {
        return Some(fault);
    }
    let is_plain = [kind, object, status, code].iter().all(Option::is_none);
    let of_error = [error_code, error_type].into_iter().flatten().find(|code| !is_nothing(code));
    let code =
        of_error.or_else(|| [code, base_code, status_code, status].into_iter().flatten().find(|code| is_bad(code)));
    let is_marked = [kind, object].into_iter().flatten().filter_map(words).any(|word| word == "error");
    let is_fault = code.is_some()
        || is_marked
        || [error_message, error_msg, detail].into_iter().flatten().any(|text| !is_nothing(text))
        || success.is_some_and(|success| success.get() == "false")
        // Nothing says what the words are, so they are no news of a request that goes well.
        || message.is_some() && is_plain;
    // The code of a failure may be in words, or be a type.
    let code = code.and_then(words).or_else(|| kind.and_then(words).filter(|kind| kind != "error"));
    is_fault.then(|| fault(code, None, message.unwrap_or_else(|| event.get().to_owned())))
}

/// The fault in the value of `error`, with the words beside it.
fn in_error(error: &RawValue, beside: Option<&str>, depth: usize) -> Option<StatedFault> {
    if is_nothing(error) {
        return None;
    }
    if let Some(word) = words(error) {
        let is_text = error.get().starts_with('"');
        return Some(match beside {
            Some(message) => fault(Some(word).filter(|word| word != "true"), None, message.to_owned()),
            None if is_text => StatedFault::of_message(word),
            None => fault(Some(word.clone()), None, word),
        });
    }
    let [message, detail, msg, code, kind, status, inner, error_type, metadata] =
        fields(error, ["message", "detail", "msg", "code", "type", "status", "error", "error_type", "metadata"])
            .unwrap_or_default();
    let message = [message, detail, msg].into_iter().flatten().filter(|text| !is_nothing(text)).find_map(text_of);
    if message.is_none()
        && let Some(fault) = inner.filter(|_| depth > 0).and_then(|inner| in_error(inner, beside, depth - 1))
    {
        return Some(fault);
    }
    if message.is_none() && error.get().starts_with('[') {
        return nested(error, depth);
    }
    let codes = [code, kind, error_type, status].map(|code| code.filter(|code| !is_nothing(code)).and_then(words));
    let [code, kind, error_type, status] = codes;
    let message = message.or_else(|| beside.map(str::to_owned)).unwrap_or_else(|| error.get().to_owned());
    let metadata = metadata.filter(|metadata| metadata.get().len() <= MAX_ERROR_BODY);
    let metadata = metadata.and_then(|metadata| json::from_str::<serde_json::Value>(metadata.get()).ok());
    let message = with_metadata(message, metadata.as_ref());
    let other = kind.clone().or(error_type).or(status);
    Some(fault(code.or(kind), other.as_deref(), message))
}

/// `other`: another word that may give the status away.
fn fault(code: Option<String>, other: Option<&str>, message: String) -> StatedFault {
    let status = code.as_deref().and_then(status_of).or_else(|| other.and_then(status_of));
    StatedFault { code, message, status }
}

/// Code and words of a field such as `base_resp`.
fn base_of(base: &RawValue) -> Option<(&RawValue, Option<&RawValue>)> {
    let [code, message] = fields(base, ["status_code", "status_msg"])?;
    Some((code.filter(|code| is_bad(code))?, message))
}

/// Whether a code or a status is one of a failure: a number or a word, but no success.
fn is_bad(code: &RawValue) -> bool {
    if is_nothing(code) {
        return false;
    }
    match number(code) {
        Some(number) => !(0.0..400.0).contains(&number) || number < 200.0,
        None => {
            words(code).is_some_and(|word| status_of(&word).is_some() || Reason::of(&word) == Some(Reason::Failure))
        }
    }
}

/// The words of a value; JSON for an object.
fn text_of(value: &RawValue) -> Option<String> {
    words(value).or_else(|| Some(value.get().to_owned()).filter(|text| text.starts_with(['[', '{'])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::raw;

    // Fault 72.
    #[test]
    fn every_field_by_which_a_server_says_that_it_failed_is_known() {
        for (event, code, message, status) in [
            (r#"{"error":{"message":"Slow","code":429}}"#, Some("429"), "Slow", Some(429)),
            (r#"{"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}"#, Some("503"), "m", Some(503)),
            (r#"{"error":"gone"}"#, None, "gone", None),
            (
                r#"{"error":{"code":502,"message":"Provider returned error","metadata":{"raw":"boom","provider_name":"Acme"}}}"#,
                Some("502"),
                "Provider returned error: boom (Acme)",
                Some(502),
            ),
            (r#"{"error":"rate_limit_exceeded","message":"Slow"}"#, Some("rate_limit_exceeded"), "Slow", Some(429)),
            (r#"{"error":true,"message":"m"}"#, None, "m", None),
            (
                r#"{"error":{"error":{"message":"deep","type":"overloaded_error"}}}"#,
                Some("overloaded_error"),
                "deep",
                Some(529),
            ),
            (r#"[{"error":{"message":"m","code":400}}]"#, Some("400"), "m", Some(400)),
            (
                r#"{"choices":null,"error_type":"BadRequestError","error_message":"too long"}"#,
                Some("BadRequestError"),
                "too long",
                Some(400),
            ),
            (r#"{"object":"error","message":"m","type":"NotFoundError","code":404}"#, Some("404"), "m", Some(404)),
            (r#"{"type":"error","error":{"type":"api_error","message":"m"}}"#, Some("api_error"), "m", Some(500)),
            (
                r#"{"type":"error","code":"rate_limit_exceeded","message":"m"}"#,
                Some("rate_limit_exceeded"),
                "m",
                Some(429),
            ),
            (r#"{"detail":"Not authenticated"}"#, None, "Not authenticated", None),
            (r#"{"detail":[{"loc":["body"]}]}"#, None, r#"[{"loc":["body"]}]"#, None),
            (r#"{"base_resp":{"status_code":1004,"status_msg":"login fail"}}"#, Some("1004"), "login fail", None),
            (r#"{"success":false,"message":"m"}"#, None, "m", None),
            (r#"{"status":"failed","message":"m"}"#, Some("failed"), "m", None),
            (
                r#"{"statusCode":429,"message":"m","error":"Too Many Requests"}"#,
                Some("Too Many Requests"),
                "m",
                Some(429),
            ),
            (r#"{"code":"1301","msg":"m"}"#, Some("1301"), "m", None),
            (r#"{"message":"m \ud83d"}"#, None, "m \u{fffd}", None),
        ] {
            let expected = StatedFault { code: code.map(str::to_owned), message: message.to_owned(), status };
            assert_eq!(raw(event, StatedFault::in_event).unwrap(), Some(expected), "{event}");
        }
    }

    #[test]
    fn what_says_nothing_or_goes_well_is_no_fault() {
        for event in [
            "{}",
            "[]",
            "7",
            r#"{"error":null,"id":"x","usage":{}}"#,
            r#"{"error":{},"error_message":"","detail":[]}"#,
            r#"{"base_resp":{"status_code":0,"status_msg":"success"}}"#,
            r#"{"status":"queued","message":"you are the third"}"#,
            r#"{"code":0,"object":"chat.completion.chunk"}"#,
            r#"{"message":{"role":"assistant"}}"#,
        ] {
            assert_eq!(raw(event, StatedFault::in_event).unwrap(), None, "{event}");
        }
    }
}
