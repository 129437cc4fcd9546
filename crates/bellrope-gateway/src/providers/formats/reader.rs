//! What a provider says, put into errors.

use super::fault::StatedFault;
use crate::error::{Excerpt, ProviderError};
use crate::json::raw;
use crate::secret::Secret;

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
            status: fault.status,
            retryable: fault.is_retryable(),
        }
    }

    pub(super) fn excerpt(&self, text: &str) -> Excerpt {
        Secret::excerpt(self.key.as_ref(), text)
    }
}
