//! What is said of a request that is not what its message type takes.

use bellrope::HandlerError;

use crate::error::Excerpt;
use crate::json;

/// The error of a request that cannot be read, with what is wrong with it.
pub(super) fn unreadable(fault: &str) -> HandlerError {
    HandlerError::invalid_request(format!("the request cannot be read: {}", Excerpt::new(&json::plain_words(fault))))
}
