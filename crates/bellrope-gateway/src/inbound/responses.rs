//! OpenAI's responses.

mod answer;
mod echo;
mod items;
mod request;
mod tools;

use super::asked::Asked;
use super::fault::Fault;
use answer::Script;

/// Reads a request.
pub(super) fn read(body: &[u8], providers: &[String]) -> Result<Asked, Fault> {
    let request::Turn { chat, stream, echo, names } = request::read(body, providers)?;
    Ok(Asked { chat, stream, writer: Box::new(Script::new(echo, names)) })
}
