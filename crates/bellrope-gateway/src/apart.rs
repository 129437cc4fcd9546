//! Work that takes long, apart from the threads that serve others.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::error::ProviderError;
use crate::room::NoRoom;

/// Larger requests are read and written apart. In bytes.
pub const LARGE: usize = 64 * 1024;
/// Larger ones are looked through apart, which takes about a millisecond for each megabyte. In bytes.
pub const LONG: usize = 512 * 1024;

const NO_THREAD: &str = "the system has no thread to work on a large request with";

/// Does work on a thread of its own, one at a time in this process. What is given up meanwhile goes on to its end, with all
/// that it holds. Inside a tokio runtime.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// assert_eq!(bellrope_gateway::apart::apart(|| 6 * 7).await, Ok(42));
/// # });
/// ```
///
/// # Errors
/// There is no thread for it, or it panicked, in words.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    static ONE: Semaphore = Semaphore::const_new(1);
    let turn = ONE.acquire().await;
    // tokio panics where the system has no thread for it, and keeps the task for when there is one: what it was to do is taken out
    // of it then, so that nothing keeps the turn.
    let work = Arc::new(Mutex::new(Some((turn, work))));
    let taken = Arc::clone(&work);
    let run = move || {
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.map(|(_turn, work)| work())
    };
    let running = std::panic::catch_unwind(AssertUnwindSafe(|| tokio::task::spawn_blocking(run)));
    let running = running.map_err(|_| {
        drop(work.lock().unwrap_or_else(PoisonError::into_inner).take());
        NO_THREAD.to_owned()
    })?;
    let done = running.await.map_err(|error| format!("working on a large request: {error}"))?;
    done.ok_or_else(|| NO_THREAD.to_owned())
}

/// The error of a request for which there is no thread now.
pub(crate) fn no_thread(fault: String) -> ProviderError {
    NoRoom(fault).into()
}
