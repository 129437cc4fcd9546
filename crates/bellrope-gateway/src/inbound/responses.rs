//! OpenAI's responses.

mod answer;
mod echo;
mod ending;
mod input_items;
mod items;
mod kept_items;
mod logprobs;
mod request;
mod stored;
mod tools;

use super::asked::Asked;
use super::fault::Fault;
use answer::Script;
pub use input_items::ItemsPage;
pub use kept_items::KeptItems;
#[cfg(test)]
pub(super) use request::KNOWN;
pub use stored::{Replay, StoredRequest, StoredResponse};

/// Reads a request.
pub(super) fn read(body: &[u8], providers: &[String]) -> Result<Asked, Fault> {
    let request::Turn { chat, stream, echo, names } = request::read(body, providers)?;
    let script = Script::new(echo, names);
    let stored = StoredRequest::of(&script);
    Ok(Asked { chat, stream, writer: Box::new(script), stored })
}
