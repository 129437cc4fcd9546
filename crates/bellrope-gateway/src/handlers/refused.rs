//! The errors of calls.

use bellrope::HandlerError;

use crate::apart::no_thread;
use crate::error::{Blame, ProviderError};

/// The error of a call, whose own words hold its fix.
pub(super) fn refused(error: &ProviderError) -> HandlerError {
    let text = format!("{}: {error}", error.code());
    match error {
        ProviderError::NoRoom(_) => HandlerError::exhausted(text),
        error if error.blame() == Blame::Caller => HandlerError::invalid_request(text),
        // Each provider has a breaker of its own: one that fails must not close the way to the others.
        _ => HandlerError::upstream(text).guarded(),
    }
}

/// The error of a call for which there is no thread now.
pub(super) fn without_thread(fault: String) -> HandlerError {
    refused(&no_thread(fault))
}
