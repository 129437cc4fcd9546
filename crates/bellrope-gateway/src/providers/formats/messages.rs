//! Anthropic's messages.

mod request;
mod translate;

pub(crate) use request::body;
pub use translate::Translator;

/// The version of the format, sent with every request.
pub(crate) const VERSION: &str = "2023-06-01";

/// The most tokens of an answer where the request says nothing: the format demands a number.
pub(crate) const DEFAULT_MAX_TOKENS: u32 = 4096;
