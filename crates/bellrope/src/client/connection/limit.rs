//! How long a call of an exclusive connection waits.

use std::time::{Duration, Instant};

use bellrope_proto::metadata::Metadata;

use super::super::{
    deadline::from_now,
    options::{CallOptions, CancelToken},
};
use crate::error::CallError;

/// How long a wait may last between two looks at a cancel token.
const TOKEN_PAUSE: Duration = Duration::from_millis(5);

/// How long something is waited for.
#[derive(Debug, Default)]
pub(super) struct Limit<'a> {
    /// What the caller gave. It travels with the request.
    pub(super) given: Option<Instant>,
    /// What holds: what was given, or else the configuration's, from the first time that somebody looks at the clock.
    deadline: Option<Instant>,
    pub(super) token: Option<&'a CancelToken>,
    /// What is said of the call.
    pub(super) said: Option<&'a Metadata>,
}

impl<'a> Limit<'a> {
    pub(super) fn of(options: &'a CallOptions) -> Self {
        let given = options.deadline();
        Self { given, deadline: given, token: options.cancel.as_ref(), said: options.said() }
    }

    /// Time left until something else must be looked at: `next` is the first moment at which another call has to be over.
    pub(super) fn left(&mut self, call_timeout: Duration, next: Option<Instant>) -> Result<Duration, CallError> {
        if self.token.is_some_and(CancelToken::is_cancelled) {
            return Err(CallError::Cancelled);
        }
        let deadline = *self.deadline.get_or_insert_with(|| from_now(call_timeout));
        let now = Instant::now();
        if now >= deadline {
            return Err(CallError::DeadlineExceeded);
        }
        let left = next.map_or(deadline, |next| deadline.min(next)).saturating_duration_since(now);
        Ok(if self.token.is_some() { left.min(TOKEN_PAUSE) } else { left })
    }
}
