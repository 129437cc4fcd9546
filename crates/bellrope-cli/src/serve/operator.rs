//! The server's half of [`crate::operator`]: the message types for whoever runs it, `bellrope.stats` and
//! `bellrope.breaker`. docs/protocol.md has their JSON.
//!
//! Whoever can open the socket may call them, as everything else. They steer nothing but breakers, and never their own.

use std::sync::{Arc, OnceLock};

use bellrope::{
    HandlerError,
    breaker::{Breaker, BreakerState},
    server::ServerBuilder,
    status::Metrics,
};

use crate::operator::{Action, BREAKER, BreakerRequest, BreakerRow, Breakers, OURS, STATS};

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope::operator";

/// What the handlers know of the server, once there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operator(Arc<OnceLock<Arc<Metrics>>>);

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
                reply.put(&serde_json::to_vec(&breakers).map_err(|error| HandlerError::new(error.to_string()))?);
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
        tracing::warn!(target: TARGET, message_type = name, action = ?request.action, "a breaker was steered by hand");
    }
    let row = |(name, breaker): (String, bellrope::breaker::BreakerSnapshot)| {
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
