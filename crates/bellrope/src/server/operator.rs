//! The handlers of the message types for whoever runs a server.
//!
//! Whoever can open the socket may call them, as everything else. They steer nothing but breakers, and never their own.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use super::{
    error::HandlerError,
    handler::registry::{Handler, Registry},
};
use crate::{
    breaker::Breaker,
    rate::{Debt, Rate},
    status::{BREAKER, BreakerAction, BreakerRequest, BreakerRow, Breakers, Metrics, OPERATOR, STATS},
};

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope::operator";
/// Lines about breakers that were steered: so many at once, and then one in so long. Anybody may steer them without end.
const LINES: Rate = Rate { burst: 50, period: Duration::from_millis(200) };

/// What the handlers know of the server, once there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operator(Arc<OnceLock<Arc<Metrics>>>);

impl Operator {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let (stats, breaker, lines) = (self.clone(), self.clone(), Mutex::new((Debt::none(Instant::now()), 0)));
        registry.add(
            STATS,
            Handler::UnaryAsync(Box::new(move |_| {
                let metrics = stats.metrics();
                Box::pin(async move { Ok(metrics?.overview().await.into_bytes()) })
            })),
        );
        registry.add(
            BREAKER,
            Handler::Unary(Box::new(move |call, reply| {
                let request = match call.payload() {
                    b"" => BreakerRequest::default(),
                    payload => serde_json::from_slice(payload).map_err(|error| refuse(error.to_string()))?,
                };
                let breakers = steer(&*breaker.metrics()?, &request, |name| {
                    let left_out = admits(&mut lines.lock().unwrap_or_else(PoisonError::into_inner));
                    // Whoever takes the lines may take long, or have a breaker steered.
                    if let Some(left_out) = left_out {
                        log(name, &request, call.connection(), left_out);
                    }
                })?;
                serde_json::to_writer(reply, &breakers).map_err(std::io::Error::from)?;
                Ok(())
            })),
        );
    }

    /// Tells the handlers of the server that they belong to. To be done before it serves.
    pub(crate) fn attach(&self, metrics: Arc<Metrics>) {
        let _ = self.0.set(metrics);
    }

    fn metrics(&self) -> Result<Arc<Metrics>, HandlerError> {
        self.0.get().map(Arc::clone).ok_or_else(|| HandlerError::invalid_request("the server is starting; try again"))
    }
}

/// Does what is asked for, and says the name of the breaker that was steered.
fn steer(metrics: &Metrics, request: &BreakerRequest, steered: impl FnOnce(&str)) -> Result<Breakers, HandlerError> {
    let turn: Option<fn(&Breaker)> = match request.action {
        BreakerAction::List => None,
        BreakerAction::Open => Some(Breaker::force_open),
        BreakerAction::Close => Some(Breaker::force_close),
        BreakerAction::Reset => Some(Breaker::reset),
    };
    if let Some(turn) = turn {
        let name = request
            .name
            .as_deref()
            .ok_or_else(|| refuse("name a message type or a provider whose breaker it is for"))?;
        if name.starts_with(OPERATOR) {
            return Err(refuse(format!("the breakers of {OPERATOR}* are not steered: that would lock you out")));
        }
        let known = || metrics.snapshot().breakers.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
        let Some(breaker) = metrics.breaker(name) else {
            return Err(refuse(format!("no breaker is called {name:?}; known: {}", known())));
        };
        turn(&breaker);
        steered(name);
    }
    Ok(Breakers { breakers: metrics.snapshot().breakers.into_iter().map(BreakerRow::from).collect() })
}

/// Whether a line may come now, and how many were left out before it. Else it counts as left out.
fn admits((debt, left_out): &mut (Debt, u64)) -> Option<u64> {
    if debt.take(LINES, Instant::now()).is_err() {
        *left_out += 1;
        return None;
    }
    Some(std::mem::take(left_out))
}

/// Logs who steered a breaker.
fn log(name: &str, request: &BreakerRequest, connection: u64, left_out: u64) {
    if left_out > 0 {
        tracing::warn!(target: TARGET, left_out, "lines about steered breakers were left out");
    }
    let action = &request.action;
    tracing::warn!(target: TARGET, connection, message_type = name, ?action, "a breaker was steered by hand");
}

fn refuse(text: impl Into<String>) -> HandlerError {
    HandlerError::invalid_request(text.into())
}
