//! OpenAI's responses: the successor of chat completions, with an event for everything that happens.

mod request;
mod translate;

pub(crate) use request::body;
pub use translate::Translator;
