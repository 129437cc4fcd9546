//! The message types for whoever runs a server, as a client asks them: `bellrope.stats` and `bellrope.breaker`.
//! docs/protocol.md has their JSON.

use std::time::Duration;

use bellrope::{CallError, Client};
use serde::{Deserialize, Serialize};

use crate::socket::{self, SocketArg};

/// All there is to know about the server at one moment.
pub(crate) const STATS: &str = "bellrope.stats";
/// The circuit breakers, to be seen and to be steered.
pub(crate) const BREAKER: &str = "bellrope.breaker";

/// What the names of these types begin with.
pub(crate) const OURS: &str = "bellrope.";

/// A request of [`BREAKER`]. No payload at all asks for the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BreakerRequest {
    #[serde(default)]
    pub(crate) action: Action,
    /// Whose breaker; a list needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
}

/// What to do with a breaker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    #[default]
    List,
    /// Admit nothing until it is closed or reset by hand.
    Open,
    /// Admit everything until it is opened or reset by hand.
    Close,
    /// Close it, forget every failure, and let it work by itself.
    Reset,
}

/// The answer of [`BREAKER`]: the breakers as they are now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Breakers {
    pub(crate) breakers: Vec<BreakerRow>,
}

/// One breaker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BreakerRow {
    pub(crate) name: String,
    /// `closed`, `open` or `half_open`.
    pub(crate) state: String,
    /// Whether it was put into this state by hand and stays there.
    pub(crate) forced: bool,
    /// Times it has opened.
    pub(crate) opened: u64,
    /// Calls it did not admit.
    pub(crate) rejections: u64,
}

impl BreakerRow {
    /// The state in words.
    pub(crate) fn state_in_words(&self) -> String {
        let forced = if self.forced { ", by hand" } else { "" };
        format!("{}{forced}", self.state.escape_debug())
    }
}

/// Connects to a server that has these types, and asks one of them. Answers with what it said.
pub(crate) fn ask(client: &Client, message_type: &str, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    match client.call(message_type, request) {
        Ok(answer) => Ok(answer),
        Err(CallError::UnknownMessageType { .. }) => anyhow::bail!(
            "the server does not offer {message_type}: it is older than this program, or is not `bellrope serve`"
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
