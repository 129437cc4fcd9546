//! Errors in OpenAI's form, each with its status.

use bellrope_gateway::{ErrorInfo, ProviderError};
use hyper::StatusCode;
use serde::Serialize;

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    /// Whether the same request may succeed when it is sent again. OpenAI's own clients ask for this.
    pub(super) retryable: bool,
    /// How long to wait before that, in seconds.
    pub(super) retry_after: Option<u64>,
    code: String,
    message: String,
    /// The field of the request that is at fault.
    param: Option<&'static str>,
}

impl Fault {
    /// The request is at fault.
    pub(super) fn invalid(param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { param, ..Self::of(StatusCode::BAD_REQUEST, "invalid_request", message) }
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::of(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::of(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::of(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    pub(super) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::of(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub(super) fn too_slow(message: impl Into<String>) -> Self {
        Self::of(StatusCode::REQUEST_TIMEOUT, "timeout", message)
    }

    /// There is no room now.
    pub(super) fn busy(message: impl Into<String>) -> Self {
        let busy = Self::of(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message);
        Self { retryable: true, retry_after: Some(1), ..busy }
    }

    /// As JSON in OpenAI's form.
    pub(super) fn body(&self) -> serde_json::Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Body<'a> {
            error: Error<'a>,
        }

        #[derive(Serialize)]
        struct Error<'a> {
            message: &'a str,
            r#type: &'static str,
            param: Option<&'static str>,
            code: &'a str,
        }

        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        serde_json::to_vec(&Body {
            error: Error { message: &self.message, r#type: kind, param: self.param, code: &self.code },
        })
    }

    fn of(status: StatusCode, code: impl Into<String>, message: impl Into<String>) -> Self {
        let (code, message) = (code.into(), message.into());
        Self { status, retryable: false, retry_after: None, code, message, param: None }
    }
}

impl From<ErrorInfo> for Fault {
    fn from(info: ErrorInfo) -> Self {
        let ErrorInfo { code, message, retryable, .. } = info;
        Self { retryable, ..Self::of(status(&code), code, message) }
    }
}

impl From<ProviderError> for Fault {
    fn from(error: ProviderError) -> Self {
        let retry_after =
            error.retry_after().map(|after| after.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX));
        Self { retry_after, ..error.info().into() }
    }
}

/// The status that goes with one of the gateway's codes. One that is not known here is no fault of the request.
fn status(code: &str) -> StatusCode {
    match code {
        "invalid_request" | "unsupported_version" => StatusCode::BAD_REQUEST,
        "authentication" => StatusCode::UNAUTHORIZED,
        "billing" => StatusCode::PAYMENT_REQUIRED,
        "permission" => StatusCode::FORBIDDEN,
        "not_found" | "unknown_provider" => StatusCode::NOT_FOUND,
        "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "rate_limited" => StatusCode::TOO_MANY_REQUESTS,
        "overloaded" | "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "timeout" => StatusCode::GATEWAY_TIMEOUT,
        "not_configured" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_GATEWAY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_openais_form_and_its_status() {
        let error = ProviderError::UnknownProvider { name: "delphi".into(), known: vec!["embedded".into()] };
        let fault = Fault::from(error);
        assert_eq!((fault.status.as_u16(), fault.retryable), (404, false));
        let body: serde_json::Value = serde_json::from_slice(&fault.body().unwrap()).unwrap();
        let expected = serde_json::json!({"error": {
            "message": "there is no provider `delphi`; known: embedded",
            "type": "not_found_error",
            "param": null,
            "code": "unknown_provider",
        }});
        assert_eq!(body, expected);
    }

    #[test]
    fn the_kind_of_an_error_goes_by_its_status() {
        for (code, status, kind) in [
            ("authentication", 401, "authentication_error"),
            ("rate_limited", 429, "rate_limit_error"),
            ("unheard_of", 502, "server_error"),
        ] {
            let info = ErrorInfo { code: code.into(), message: "no".into(), retryable: false };
            let fault = Fault::from(info);
            let body: serde_json::Value = serde_json::from_slice(&fault.body().unwrap()).unwrap();
            assert_eq!((fault.status.as_u16(), body["error"]["type"].as_str()), (status, Some(kind)), "{code}");
        }
    }

    #[test]
    fn what_may_succeed_later_says_when() {
        let refused = ProviderError::Refused {
            status: 429,
            code: None,
            message: "slow down".into(),
            retry_after: Some(std::time::Duration::from_millis(2500)),
            retryable: true,
            mend: None,
        };
        let fault = Fault::from(refused);
        assert_eq!((fault.status.as_u16(), fault.retryable, fault.retry_after), (429, true, Some(3)));

        let retry_after = std::time::Duration::from_millis(200);
        let fault = Fault::from(ProviderError::Suspended { provider: "openai".into(), retry_after });
        assert_eq!((fault.status.as_u16(), fault.retryable, fault.retry_after), (503, true, Some(1)));
    }
}
