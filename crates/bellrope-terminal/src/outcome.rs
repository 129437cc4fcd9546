//! What a command comes to.

use std::io;

/// What a command comes to.
pub type Outcome = anyhow::Result<()>;

/// Somebody pressed Ctrl-C. Nothing has to be said about it.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// What is wrong has been said already, as a result.
#[derive(Debug, thiserror::Error)]
#[error("failed")]
pub struct Failed;

/// Whether nobody reads standard output any more. Only writing there fails with a bare system error.
#[must_use]
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
