//! A client's own breaker: who may call, and how it went.

use std::{sync::Arc, time::Instant};

use crate::{
    breaker::{Breaker, Permit},
    error::CallError,
};

/// The leave of a client's own breaker to make a call, and since when. `None` where it has no breaker.
pub(crate) type Leave = Option<(Permit<Arc<Breaker>>, Instant)>;

/// Tells a breaker how a call has ended.
pub(crate) fn settle_permit<T>(leave: Leave, outcome: &Result<T, CallError>) {
    let Some((permit, since)) = leave else { return };
    match outcome {
        Ok(_) => permit.succeed(Instant::now),
        Err(error) if error.is_failure(since.elapsed() >= permit.slow_call()) => permit.fail(Instant::now),
        Err(_) => drop(permit),
    }
}
