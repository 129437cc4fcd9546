//! The id of the answer that was asked for last, so that it can be gone on with by who does not know it.

use anyhow::Context;

use crate::state;

/// The file that holds it.
const FILE: &str = "last_answer";

/// Keeps the id. What to say if that fails: the id can be noted by hand.
pub(super) fn note(id: &str) -> Option<String> {
    let path = state::file(FILE)?;
    let error = state::write(&path, id.as_bytes()).err()?;
    Some(format!("its id cannot be kept in {}: {error}", path.display()))
}

/// The id that was kept last.
pub(super) fn last() -> anyhow::Result<String> {
    let path = state::file(FILE).context("there is no place for state here; name the answer, as in `--resume ID`")?;
    let id = std::fs::read_to_string(&path)
        .with_context(|| format!("no answer was asked for with --resumable: {}", path.display()))?;
    Ok(id.trim().to_owned())
}
