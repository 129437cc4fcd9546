//! Anthropic's messages.

mod answer;
mod blocks;
mod request;

use super::asked::Asked;
use super::fault::Fault;
use answer::Script;
pub(super) use request::without_mark;

/// Reads a request.
pub(super) fn read(body: &[u8], providers: &[String]) -> Result<Asked, Fault> {
    let request::Turn { chat, model, stream } = request::read(body, providers)?;
    let writer = Box::new(Script::new(model, &chat.stop));
    Ok(Asked { chat, stream, writer, stored: None })
}
