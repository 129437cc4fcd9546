//! The words of errors that depend on more than one field.

use std::time::Duration;

/// The fix of a refusal because nothing is left to spend: that is what tells it apart from a rate limit.
pub(crate) const CHECK_BALANCE: &str = "check the plan and the balance of the account";

/// The fix of a refusal of a key that is not set here: no other key is to stand in for it.
pub(crate) const CHECK_TOOLS_KEY: &str = "check the key that the tool sends";

/// What stands in an error before the place in the request that a provider names.
pub(crate) const AT: &str = " (at `";

pub(super) fn status_code(status: u16) -> &'static str {
    match status {
        401 => "authentication",
        402 => "billing",
        403 => "permission",
        404 => "not_found",
        408 | 504 => "timeout",
        413 => "too_large",
        429 => "rate_limited",
        503 | 529 => "overloaded",
        300..=399 => "unexpected_content",
        400..=499 => "invalid_request",
        _ => "provider_error",
    }
}

/// Whole seconds, at least one.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64().ceil().max(1.0))
}

/// What a status means, where that says more than the provider's own words may.
pub(super) fn cause(status: u16, fix: Option<&str>) -> &'static str {
    match status {
        _ if fix == Some(CHECK_BALANCE) => ", nothing left to spend",
        429 => ", too many requests",
        503 | 529 => ", overloaded",
        _ => "",
    }
}

pub(super) fn again(retryable: bool, retry_after: Option<Duration>) -> String {
    let worth = retry_after.filter(|_| retryable);
    worth.map(|after| format!("; try again in {}", seconds(after))).unwrap_or_default()
}

pub(super) fn suspended(provider: &str, retry_after: Duration) -> String {
    if retry_after.is_zero() {
        let fix = format!("`bellrope breaker reset provider:{provider}` lets it be asked again");
        return format!("`{provider}` is not asked, as its breaker was opened by hand; {fix}");
    }
    format!("`{provider}` failed too often lately and is not asked for another {}", seconds(retry_after))
}

pub(super) fn in_brackets(code: Option<&str>) -> String {
    code.map(|code| format!(" ({code})")).unwrap_or_default()
}

pub(super) fn after_semicolon(fix: Option<&str>) -> String {
    fix.map(|fix| format!("; {fix}")).unwrap_or_default()
}
