//! What a provider says, put into errors.

use super::fault::{MAX_ERROR_BODY, StatedFault};
use crate::error::{Excerpt, ProviderError};
use crate::json::{fields, is_nothing, raw};
use crate::secret::Secret;

/// The error in a body that came with success, and has no list `data`. A longer one than errors are is none.
pub(crate) fn reported(body: &[u8], key: Option<Secret>) -> Option<ProviderError> {
    let text = std::str::from_utf8(body).ok().filter(|text| text.len() <= MAX_ERROR_BODY)?;
    let fault = raw(text, |document| {
        let data = fields(document, ["data"]).and_then(|[data]| data);
        let is_there = data.is_some_and(|data| data.get().starts_with('[') && !is_nothing(data));
        if is_there { None } else { StatedFault::in_event(document) }
    });
    fault.ok().flatten().map(|fault| EventReader::new(key).failed(&fault))
}

/// Puts what a provider says into errors, and keeps its key out of them.
#[derive(Debug, Default)]
pub(super) struct EventReader {
    key: Option<Secret>,
}

impl EventReader {
    pub(super) fn new(key: Option<Secret>) -> Self {
        Self { key }
    }

    /// The error of an event that is not what the format says.
    pub(super) fn malformed(&self, reason: &str, data: &str) -> ProviderError {
        ProviderError::Malformed { reason: self.excerpt(&format!("{reason} in {data}")) }
    }

    /// The error that a provider reports in an event that is nothing else.
    pub(super) fn reported(&self, event: &str) -> ProviderError {
        let fault = raw(event, StatedFault::in_event).ok().flatten();
        self.failed(&fault.or_else(|| StatedFault::in_body(event.as_bytes())).unwrap_or_default())
    }

    /// The error that a provider reports.
    pub(super) fn failed(&self, fault: &StatedFault) -> ProviderError {
        ProviderError::Reported {
            code: fault.code.as_deref().map(|code| self.excerpt(code)),
            message: if fault.message.is_empty() { "no message".into() } else { self.excerpt(&fault.message) },
            // Providers say of an empty account what they say of too many requests.
            status: if fault.is_out_of_money() { Some(402) } else { fault.status },
            retryable: fault.is_retryable(),
        }
    }

    pub(super) fn excerpt(&self, text: &str) -> Excerpt {
        Secret::excerpt(self.key.as_ref(), text)
    }
}
