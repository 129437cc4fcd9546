//! Failures of calls that the server answers with by itself, and which failures a handler is to blame for.

use std::{any::Any, panic::AssertUnwindSafe};

use bellrope_proto::{
    connection::Failure,
    frame::{ErrorCode, Rejection},
};
use bellrope_shm::clock;

use crate::breaker::Rejected;

/// Whether a failure counts against the service: a panic, or what its handler marked as failure. What the caller chose
/// or did never counts: a marked error that comes when the caller's deadline has passed may well come of that.
pub(crate) fn is_of_service(failure: &Failure, deadline_us: Option<u64>) -> bool {
    let is_late = || deadline_us.is_some_and(|deadline| clock::monotonic_us() >= deadline);
    failure.of_service && (failure.code == ErrorCode::HandlerPanic || !is_late())
}

#[cold]
pub(crate) fn open_breaker(rejected: &Rejected) -> Failure {
    let retry_after_ms = rejected.retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1));
    let detail = Rejection::Breaker.to_detail(retry_after_ms);
    let text = format!("{rejected}; the call has not run");
    Failure { code: ErrorCode::Rejected, detail, text: text.into(), of_service: false }
}

#[cold]
pub(crate) fn draining() -> Failure {
    Failure::rejected(Rejection::Draining, "the server is going away; the call has not run")
}

/// The system gives the server less memory than its settings allow calls to take.
#[cold]
pub(crate) fn no_memory(bytes: u64) -> Failure {
    let text = format!(
        "the system gives the server no {bytes} bytes of memory (a limit on data or address space, or a machine without any); \
         the call has not run"
    );
    Failure::rejected(Rejection::Busy, text)
}

/// What a caller learns of a panic.
pub(crate) fn panic_failure(panic: Box<dyn Any + Send>) -> Failure {
    let text = panic
        .downcast_ref::<&'static str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "the handler panicked".to_owned());
    // A payload may panic when it is dropped, and what comes of that as well: the first is caught, the second leaked.
    if let Err(again) = std::panic::catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
    Failure { of_service: true, ..Failure::new(ErrorCode::HandlerPanic, text) }
}

/// What is left of an error of which the text found no room.
#[cfg(feature = "tokio")]
pub(crate) const NO_ROOM_FOR_TEXT: &str =
    "(the text of this error found no room in the buffer budget, buffer_budget_bytes)";

/// A reply that found no room.
pub(crate) fn no_room_for_reply(size: u64, limit: u64) -> Failure {
    let text = format!(
        "the reply of {size} bytes found no room in the buffer budget of {limit} bytes (buffer_budget_bytes); the handler \
         has run"
    );
    Failure::new(ErrorCode::Exhausted, text)
}
