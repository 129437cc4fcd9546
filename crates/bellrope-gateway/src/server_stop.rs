//! Whether the server has to end before its answers do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::error::ProviderError;

/// Whether the server ends before its answers do. Clones say the same. It wakes nobody: whoever sets it has those polled that
/// wait.
///
/// ```
/// use bellrope_gateway::ServerStop;
///
/// let end = ServerStop::default();
/// let seen = end.clone();
/// assert!(!seen.has_come());
/// end.come();
/// assert!(seen.has_come());
/// ```
#[derive(Debug, Clone, Default)]
pub struct ServerStop(Arc<AtomicBool>);

impl ServerStop {
    /// The server ends now.
    pub fn come(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether it does.
    #[must_use]
    pub fn has_come(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// The error of an answer that ends with it.
    #[must_use]
    pub fn error() -> ProviderError {
        ProviderError::Truncated { reason: "the server stops; ask again when it is back".into() }
    }
}
