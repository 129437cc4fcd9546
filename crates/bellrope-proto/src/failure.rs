//! How a call fails.

use std::borrow::Cow;

use crate::frame::{ErrorCode, Rejection};

/// Longest text that travels with an error, in bytes.
pub const MAX_ERROR_TEXT: usize = 1024;

/// Why a call failed, and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The code that travels.
    pub code: ErrorCode,
    /// A number that says more, 0 for none: of a handler's error its own code, of a rejection its
    /// [reason](Rejection::to_detail), of a message too large its size in bytes.
    pub detail: u64,
    /// The text that travels, cut to [`MAX_ERROR_TEXT`] bytes.
    pub text: Cow<'static, str>,
    /// Whether the service is to blame, so that a breaker counts it. Known to this side alone: it does not travel.
    pub of_service: bool,
}

impl Failure {
    /// A failure with this code and text, and no detail.
    #[must_use]
    pub fn new(code: ErrorCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: 0, text: text.into(), of_service: false }
    }

    /// A refusal before the handler ran, for this reason.
    #[must_use]
    pub fn rejected(reason: Rejection, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::Rejected, detail: reason.to_detail(None), text: text.into(), of_service: false }
    }

    /// A `what` of `size` bytes where `limit` is the most there may be.
    #[cold]
    #[must_use]
    pub fn too_large(what: &str, size: u64, limit: u64) -> Self {
        let text = format!("the {what} of {size} bytes exceeds the limit of {limit} bytes");
        Self { code: ErrorCode::MessageTooLarge, detail: size, text: text.into(), of_service: false }
    }

    /// The same with no more text than may travel, to be kept until there is room for it.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        // What a text was cut from, or written into, may have more room than it has bytes.
        let room = if let Cow::Owned(text) = &self.text { text.capacity() } else { 0 };
        if self.text.len() > MAX_ERROR_TEXT || room > MAX_ERROR_TEXT {
            self.text = self.bounded_text().to_owned().into();
        }
        self
    }

    /// The text, cut at a character boundary to what may travel.
    #[must_use]
    pub fn bounded_text(&self) -> &str {
        beginning(&self.text, MAX_ERROR_TEXT)
    }
}

/// The text as far as it fits into so many bytes, cut between two characters.
pub(crate) fn beginning(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
