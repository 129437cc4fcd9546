//! How long a provider may take.

use std::time::Duration;

use crate::error::{Phase, ProviderError};

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// For a connection, from the name's resolution to the TLS handshake.
    pub(super) connect: Duration,
    /// For the head of the response, from the start.
    pub(super) first_byte: Duration,
    /// For each next byte of the body, once something of the answer has come. Before that a model may think or read a long prompt for
    /// minutes behind a head that came at once, and `event` holds.
    pub(super) idle: Duration,
    /// For each next piece of the answer, however many keep-alives come.
    pub(super) event: Duration,
}

impl Timeouts {
    /// How long nothing at all may come. `has_begun`: whether something of the answer has.
    pub(super) fn silence(&self, has_begun: bool) -> Duration {
        if has_begun { self.idle } else { self.idle.max(self.event) }
    }

    /// The error of such a silence.
    pub(super) fn silent(&self, has_begun: bool) -> ProviderError {
        let phase = if has_begun || self.idle >= self.event { Phase::Idle } else { Phase::Event };
        ProviderError::TimedOut { phase, after: self.silence(has_begun) }
    }
}
