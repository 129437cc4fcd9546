//! Work on large requests, apart from the threads of the port.

use bellrope_gateway::{apart::apart, inbound::Fault};

/// Does work that takes long on a thread that serves nobody, in turn with what providers are to be sent.
pub(super) async fn on_its_own<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    apart(work).await.map_err(|reason| Fault::busy(format!("{reason}; try again")))
}
