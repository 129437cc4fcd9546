//! How long a provider may take.

use std::time::Duration;

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// For a connection, from the name's resolution to the TLS handshake.
    pub(super) connect: Duration,
    /// For the head of the response, from the start.
    pub(super) first_byte: Duration,
    /// For each next byte of the body.
    pub(super) idle: Duration,
    /// For each next piece of the answer, however many keep-alives come.
    pub(super) event: Duration,
}
