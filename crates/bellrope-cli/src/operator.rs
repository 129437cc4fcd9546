//! The message types for whoever runs a server: `bellrope.stats` and `bellrope.breaker`. docs/protocol.md has their
//! JSON.
//!
//! Whoever can open the socket may call them, as everything else. They steer nothing but breakers, and never their own.

use std::sync::{Arc, OnceLock};

use bellrope::{Breaker, BreakerState, CallError, Client, HandlerError, Metrics, ServerBuilder};
use serde::{Deserialize, Serialize};

use crate::socket::{self, SocketArg};

/// All there is to know about the server at one moment.
pub(crate) const STATS: &str = "bellrope.stats";
/// The circuit breakers, to be seen and to be steered.
pub(crate) const BREAKER: &str = "bellrope.breaker";
/// What the names of these types begin with. Their breakers are not steered: it would lock the operator out.
const OURS: &str = "bellrope.";

/// What the handlers know of the server, once there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operator(Arc<OnceLock<Arc<Metrics>>>);

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

impl Operator {
    /// The number of message types that [`Operator::register`] adds.
    pub(crate) const TYPES: usize = 2;

    pub(crate) fn register(&self, builder: ServerBuilder) -> ServerBuilder {
        let (stats, breaker) = (self.clone(), self.clone());
        builder
            .unary_async(STATS, move |_| {
                let metrics = stats.metrics();
                async move { Ok(metrics?.overview().await.into_bytes()) }
            })
            .unary(BREAKER, move |call, reply| {
                let request = match call.payload() {
                    b"" => BreakerRequest::default(),
                    payload => serde_json::from_slice(payload).map_err(|error| refuse(error.to_string()))?,
                };
                let breakers = steer(&*breaker.metrics()?, &request)?;
                reply.write(&serde_json::to_vec(&breakers).map_err(|error| HandlerError::new(error.to_string()))?);
                Ok(())
            })
    }

    /// Tells the handlers of the server that they belong to.
    pub(crate) fn attach(&self, metrics: Arc<Metrics>) {
        let _ = self.0.set(metrics);
    }

    fn metrics(&self) -> Result<Arc<Metrics>, HandlerError> {
        self.0.get().map(Arc::clone).ok_or_else(|| HandlerError::invalid_request("the server is starting; try again"))
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

/// A client for an operator's questions, which must not take long.
pub(crate) fn connect(server: &SocketArg) -> anyhow::Result<Client> {
    let mut config = server.config();
    config.call_timeout = std::time::Duration::from_secs(3);
    socket::connect(config)
}

fn steer(metrics: &Metrics, request: &BreakerRequest) -> Result<Breakers, HandlerError> {
    let turn: Option<fn(&Breaker)> = match request.action {
        Action::List => None,
        Action::Open => Some(Breaker::force_open),
        Action::Close => Some(Breaker::force_close),
        Action::Reset => Some(Breaker::reset),
    };
    if let Some(turn) = turn {
        let name = request.name.as_deref().ok_or_else(|| refuse("name a message type whose breaker it is for"))?;
        if name.starts_with(OURS) {
            return Err(refuse(format!("the breakers of {OURS}* are not steered: that would lock you out")));
        }
        let known = || metrics.snapshot().breakers.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
        let Some(breaker) = metrics.breaker(name) else {
            return Err(refuse(format!("no breaker is called {name:?}; known: {}", known())));
        };
        turn(&breaker);
        tracing::warn!(message_type = name, action = ?request.action, "a breaker was steered by hand");
    }
    let row = |(name, breaker): (String, bellrope::BreakerSnapshot)| {
        let opened = breaker.transitions.iter().filter(|(_, to, _)| *to == BreakerState::Open);
        BreakerRow {
            name,
            state: breaker.state.name().to_owned(),
            forced: breaker.forced,
            opened: opened.map(|(.., count)| count).sum(),
            rejections: breaker.rejections,
        }
    };
    Ok(Breakers { breakers: metrics.snapshot().breakers.into_iter().map(row).collect() })
}

fn refuse(text: impl Into<String>) -> HandlerError {
    HandlerError::invalid_request(text.into())
}
