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

/// Settings are wrong, in these words. Without any it has been said already, as a result.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.0.as_deref().unwrap_or("wrong settings"))]
pub struct WrongSettings(pub Option<String>);

/// A call was answered with its application's own error, in these words. Without any it has been said already, as a result.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.0.as_deref().unwrap_or("an application's error"))]
pub struct ApplicationError(pub Option<String>);

/// What failed, with every cause that is not in the words before it already.
#[must_use]
pub fn in_words(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        _ if said.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    })
}

/// Whether nobody reads standard output any more. Only writing there fails with a bare system error.
#[must_use]
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("binding /run/bell.sock: {0}")]
    struct Bind(#[from] io::Error);

    #[test]
    fn no_cause_is_told_twice() {
        let error = anyhow::Error::from(Bind(io::Error::other("no room"))).context("starting");
        assert_eq!(in_words(&error), "starting: binding /run/bell.sock: no room");
        let error = Err::<(), _>(io::Error::other("no room")).context("writing").unwrap_err();
        assert_eq!(in_words(&error), "writing: no room");
    }
}
