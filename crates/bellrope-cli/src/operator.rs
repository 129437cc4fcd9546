//! The message types for whoever runs a server, as a client asks them: `bellrope.stats` and `bellrope.breaker`.
//! docs/protocol.md has their JSON.

use bellrope::{CallError, Client, status::BreakerRow};

use crate::socket::{self, SocketArg};

/// The state of a breaker in words.
pub(crate) fn state_in_words(row: &BreakerRow) -> String {
    let forced = if row.forced { ", by hand" } else { "" };
    format!("{}{forced}", row.state.name())
}

/// Connects to a server that has these types, and asks one of them. Answers with what it said.
pub(crate) fn ask(client: &Client, message_type: &str, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    match client.call(message_type, request) {
        Ok(answer) => Ok(answer),
        Err(CallError::UnknownMessageType { .. }) => anyhow::bail!(
            "the server does not offer {message_type}: it is older than this program, or was built without `ServerBuilder::operator`"
        ),
        Err(error) => Err(socket::explain_call(error)),
    }
}

/// A client for an operator's questions, which must not take long.
pub(crate) fn connect(server: &SocketArg) -> anyhow::Result<Client> {
    let mut config = server.config();
    config.call_timeout = std::time::Duration::from_secs(3);
    socket::connect(config)
}
