//! OpenAI's chat completions.

mod answer;
mod in_turn;
mod request;

use super::asked::Asked;
use super::fault::Fault;
use answer::{Heading, Script};
#[cfg(test)]
pub(super) use request::KNOWN;

/// Reads a request.
pub(super) fn read(body: &[u8], providers: &[String]) -> Result<Asked, Fault> {
    let request::Completion { chat, model, stream, include_usage } = request::read(body, providers)?;
    Ok(Asked { chat, stream, writer: Box::new(Script::new(Heading::new(model), include_usage)), stored: None })
}
