//! The message types for whoever runs a server, as a client asks them: `bellrope.stats` and `bellrope.breaker`.
//! docs/protocol.md has their JSON.

use std::time::Duration;

use bellrope::{
    CallError, Client,
    breaker::BreakerState,
    status::{BreakerRow, CallerRow, OPERATOR},
};

use crate::socket::{self, SocketArg};

/// What the names of the providers' breakers begin with, beside those of message types.
pub(crate) const PROVIDER: &str = "provider:";

/// A caller that is refused, and its state, in words.
pub(crate) fn caller_in_words(row: &CallerRow) -> String {
    let seconds = row.retry_after.as_secs_f64().ceil();
    let left = if seconds > 0.0 { format!(", {seconds} s left") } else { String::new() };
    format!("{} for {}{left}", row.state.name(), row.caller.escape_debug())
}

/// Whether a breaker is anything but closed by itself for everybody.
pub(crate) fn is_noteworthy(row: &BreakerRow) -> bool {
    row.state != BreakerState::Closed || row.forced || !row.callers.is_empty()
}

/// For whom alone a breaker is not closed: the first of them, and how many more.
pub(crate) fn for_whom(row: &BreakerRow) -> String {
    match &*row.callers {
        [] => String::new(),
        [one] => format!(", {}", caller_in_words(one)),
        [first, more @ ..] => format!(", {}, and for {} more", caller_in_words(first), more.len()),
    }
}

/// The state of a breaker in words.
pub(crate) fn state_in_words(row: &BreakerRow) -> String {
    let forced = if row.forced { ", by hand" } else { "" };
    format!("{}{forced}", row.state.name())
}

/// Connects to a server that has these types, and asks one of them. Answers with what it said.
pub(crate) fn ask(client: &Client, message_type: &str, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    match client.call(message_type, request) {
        Ok(answer) => Ok(answer),
        Err(CallError::UnknownMessageType { .. }) if message_type.starts_with(OPERATOR) => anyhow::bail!(
            "the server has no {message_type}: it was built without `ServerBuilder::operator`, or is older than this program"
        ),
        Err(error) => Err(socket::explain_call(error)),
    }
}

/// How long a server may take to let an operator in, and to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A client for an operator's questions, which must not take long.
pub(crate) fn connect(server: &SocketArg) -> anyhow::Result<Client> {
    let mut config = server.config();
    // A server that is stopped takes connections, and answers nothing.
    (config.connect_timeout, config.call_timeout) = (PATIENCE, PATIENCE);
    socket::connect(config)
}
