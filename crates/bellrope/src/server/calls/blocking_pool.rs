//! Threads for handlers that block.

use std::{panic::resume_unwind, sync::Arc};

use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};

use crate::server::error::HandlerError;

/// The threads that handlers may block.
#[derive(Debug, Clone)]
pub(crate) struct BlockingPool {
    /// One for each handler that may run.
    pub(crate) permits: Arc<Semaphore>,
}

impl Default for BlockingPool {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(0)) }
    }
}

impl BlockingPool {
    /// Lets so many handlers run at once.
    pub(crate) fn open(&self, threads: usize) {
        self.permits.add_permits(threads);
    }

    /// Runs a handler when it is its turn. A call that ends while it waits never runs.
    pub(crate) async fn run<T: Send + 'static>(
        permits: Arc<Semaphore>,
        handler: impl FnOnce() -> Result<T, HandlerError> + Send + 'static,
    ) -> Result<T, HandlerError> {
        let permit = permits.acquire_owned().await.expect("the permits are never closed");
        let ran = spawn_blocking(move || {
            let outcome = handler();
            drop(permit);
            outcome
        });
        match ran.await.map_err(JoinError::try_into_panic) {
            Ok(outcome) => outcome,
            // To be caught like that of any handler.
            Err(Ok(panic)) => resume_unwind(panic),
            Err(Err(_)) => Err(HandlerError::failure("the runtime is going away")),
        }
    }
}
