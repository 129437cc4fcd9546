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

/// What the names of the providers' breakers begin with, beside those of message types.
pub(crate) const PROVIDER: &str = "provider:";

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
    /// Those of them that were refused to one caller, while others were admitted.
    pub(crate) caller_rejections: u64,
    /// For whom alone it is not closed. A bounded list.
    pub(crate) callers: Vec<CallerRow>,
}

/// A caller that is refused while others are admitted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CallerRow {
    /// As in `process 42`.
    pub(crate) caller: String,
    /// `open` or `half_open`.
    pub(crate) state: String,
    /// How long its calls are still refused.
    pub(crate) retry_after_ms: u64,
}

impl CallerRow {
    /// The caller and its state in words.
    pub(crate) fn in_words(&self) -> String {
        let seconds = self.retry_after_ms.div_ceil(1_000);
        let left = if seconds > 0 { format!(", {seconds} s left") } else { String::new() };
        format!("{} for {}{left}", self.state.escape_debug(), self.caller.escape_debug())
    }
}

impl BreakerRow {
    /// Whether it is anything but closed by itself for everybody.
    pub(crate) fn is_noteworthy(&self) -> bool {
        self.state != "closed" || self.forced || !self.callers.is_empty()
    }

    /// For whom alone it is not closed: the first of them, and how many more.
    pub(crate) fn for_whom(&self) -> String {
        match &*self.callers {
            [] => String::new(),
            [one] => format!(", {}", one.in_words()),
            [first, more @ ..] => format!(", {}, and for {} more", first.in_words(), more.len()),
        }
    }

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
