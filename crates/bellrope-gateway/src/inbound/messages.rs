//! Anthropic's messages.

mod answer;
mod blocks;
mod request;

use super::asked::Asked;
use super::count::estimate_tokens;
use super::fault::Fault;
use answer::Script;
pub(super) use request::without_mark;

/// Reads a request.
pub(super) fn read(body: &[u8], providers: &[String]) -> Result<Asked, Fault> {
    let request::Turn { chat, model, stream } = request::read(body, providers)?;
    // What the tool shows until the provider has counted.
    let writer = Script::new(model, estimate_tokens(&chat));
    Ok(Asked { chat, stream, writer: Box::new(writer), stored: None })
}
