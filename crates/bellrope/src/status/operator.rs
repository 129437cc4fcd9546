//! The message types by which an operator asks a server, and what they carry. docs/protocol.md has their JSON.
//!
//! `ServerBuilder::operator` gives them to a server; any client may call them.

use serde::{Deserialize, Serialize};

use super::report::BreakerRow;

/// All there is to know about the server at one moment: nothing in, a [`Status`](super::Status) out.
pub const STATS: &str = "bellrope.stats";
/// The circuit breakers, to be seen and to be steered: a [`BreakerRequest`] in, [`Breakers`] out.
pub const BREAKER: &str = "bellrope.breaker";
/// What the names of an operator's message types begin with.
pub const OPERATOR: &str = "bellrope.";
/// All of them.
pub const OPERATOR_TYPES: [&str; 2] = [STATS, BREAKER];

/// A request of [`BREAKER`]. No payload at all asks for the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerRequest {
    /// What to do.
    #[serde(default)]
    pub action: BreakerAction,
    /// Whose breaker; a list needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What to do with a breaker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerAction {
    /// Nothing.
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
pub struct Breakers {
    /// One row each.
    pub breakers: Vec<BreakerRow>,
}
