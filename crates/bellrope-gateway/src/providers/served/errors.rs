//! How calls fail, in the words of a provider's errors.

use std::time::Duration;

use bellrope::CallError;
use bellrope::client::ConnectError;

use crate::client::ChatError;
use crate::error::{Excerpt, ProviderError};
use crate::message::ErrorInfo;

/// What a request hears that is proven not to have run.
const NOT_EXECUTED: &str =
    "no server has taken the request, so it has not run: no instance of the fleet is there, or the way to it is lost";
/// What a request hears that may have run.
const UNKNOWN: &str =
    "the server that had the request is lost, or the way to it: it may have run, in part or to its end";

/// An error as whoever answers has told it.
pub(super) fn forwarded(info: &ErrorInfo) -> ProviderError {
    let code = ProviderError::CODES.into_iter().find(|code| *code == info.code).unwrap_or("provider_error");
    ProviderError::Forwarded {
        code,
        message: Excerpt::new(&info.message),
        retryable: info.retryable,
        retry_after: None,
        // Older servers do not say it.
        sent: !info.not_sent && is_sent(code),
    }
}

/// Whether a request that was refused with this code may have reached a provider.
fn is_sent(code: &str) -> bool {
    !matches!(code, "budget_exceeded" | "unavailable" | "not_configured" | "unknown_provider" | "unsupported_version")
}

pub(super) fn unreachable(error: &ConnectError) -> ProviderError {
    not_run("connect", &format!("this server cannot be reached at its own socket: {error}"), None)
}

/// The error of a call that has no answer.
pub(super) fn in_words(error: &ChatError) -> ProviderError {
    match error {
        ChatError::Call(error) => of_call(error),
        ChatError::Truncated | ChatError::Gap { .. } => told("truncated", &error.to_string(), false),
        _ => told("malformed", &error.to_string(), false),
    }
}

fn of_call(error: &CallError) -> ProviderError {
    match error {
        CallError::NotExecuted | CallError::ClosedByServer { may_have_run: false, .. } => {
            not_run("connect", NOT_EXECUTED, None)
        }
        // It is for the one who asks to say whether it may run once more.
        CallError::Unknown | CallError::ClosedByServer { .. } => told("disconnected", UNKNOWN, false),
        CallError::UnknownMessageType { name, .. } => {
            not_run("unavailable", &format!("no instance of the fleet has offered {name} yet"), None)
        }
        CallError::Rejected { retry_after, .. } => not_run("overloaded", &error.to_string(), *retry_after),
        CallError::Exhausted { text } => told("overloaded", text, true),
        CallError::DeadlineExceeded => told("timeout", &error.to_string(), false),
        CallError::Cancelled => ProviderError::Cancelled,
        CallError::MessageTooLarge { .. } => told("too_large", &error.to_string(), false),
        CallError::Handler { text, .. } | CallError::InvalidRequest { text } => of_handler(text),
        CallError::Connect(error) => unreachable(error),
        _ => told("provider_error", &error.to_string(), false),
    }
}

/// A whole answer has its error as `code: message`.
fn of_handler(text: &str) -> ProviderError {
    let told_code = |(code, words): (&str, &'_ str)| {
        let code = ProviderError::CODES.into_iter().find(|known| *known == code)?;
        Some(told(code, words, matches!(code, "overloaded" | "unavailable" | "rate_limited" | "connect")))
    };
    let said = text.split_once(": ").and_then(|(code, words)| told_code((code, words)));
    said.unwrap_or_else(|| told("provider_error", text, false))
}

fn told(code: &'static str, words: &str, retryable: bool) -> ProviderError {
    ProviderError::Forwarded { code, message: Excerpt::new(words), retryable, retry_after: None, sent: is_sent(code) }
}

/// Of what is proven not to have run: it may be sent again.
fn not_run(code: &'static str, words: &str, retry_after: Option<Duration>) -> ProviderError {
    ProviderError::Forwarded { code, message: Excerpt::new(words), retryable: true, retry_after, sent: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_proven_not_to_have_run_asks_to_be_sent_again() {
        let said = |error| {
            let error = of_call(&error);
            // What has run, or may have, counts.
            assert_eq!(error.was_not_sent(), error.retryable(), "{error}");
            (error.code(), error.retryable())
        };
        assert_eq!(said(CallError::NotExecuted), ("connect", true));
        assert_eq!(said(CallError::Unknown), ("disconnected", false));
        assert_eq!(said(CallError::DeadlineExceeded), ("timeout", false));
        let closed = |may_have_run| CallError::ClosedByServer { reason: "r".into(), may_have_run };
        assert_eq!((said(closed(true)), said(closed(false))), (("disconnected", false), ("connect", true)));
    }

    #[test]
    fn an_error_of_theirs_keeps_its_code_and_its_words() {
        let handler = |text: &str| of_call(&CallError::Handler { code: 0, text: text.into() });
        let error = handler("budget_exceeded: the budget `few` allows no more");
        assert_eq!((error.code(), error.to_string().as_str()), ("budget_exceeded", "the budget `few` allows no more"));
        assert!(error.was_not_sent(), "{error:?}");
        let error = handler("something: else");
        assert_eq!((error.code(), error.to_string().as_str()), ("provider_error", "something: else"));
        let info = ErrorInfo {
            code: "of a later version".into(),
            message: "m".into(),
            retryable: true,
            ..ErrorInfo::default()
        };
        assert_eq!((forwarded(&info).code(), forwarded(&info).retryable()), ("provider_error", true));
        // The caller's mistake may have been found before anybody was asked, or by the provider.
        for not_sent in [false, true] {
            let info = ErrorInfo { code: "invalid_request".into(), not_sent, ..ErrorInfo::default() };
            assert_eq!(forwarded(&info).was_not_sent(), not_sent);
        }
    }
}
