//! What is noted of a link from outside of it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_nats::Event;
use tokio::sync::Notify;

/// What is noted of a link from outside of it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) lost: AtomicBool,
    pub(super) changed: Notify,
    pub(super) said: Mutex<String>,
    /// When it was said last that messages were lost.
    warned: Mutex<Option<Instant>>,
}

pub(super) fn note(watch: &Watch, event: &Event) {
    match event {
        Event::Disconnected | Event::Closed => {
            watch.lost.store(true, Relaxed);
            watch.changed.notify_waiters();
        }
        Event::ServerError(error) => {
            tracing::warn!(target: "bellrope::fleet", "the NATS server says: {error}");
            *watch.said.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
        }
        Event::SlowConsumer(_) if is_to_be_warned(watch) => {
            tracing::warn!(target: "bellrope::fleet", "messages came faster than they could be taken, and some were lost");
        }
        _ => {}
    }
}

/// Messages are lost one by one, and that is said once a second.
fn is_to_be_warned(watch: &Watch) -> bool {
    let (now, mut warned) = (Instant::now(), watch.warned.lock().unwrap_or_else(PoisonError::into_inner));
    let is_new = warned.is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_secs(1));
    if is_new {
        *warned = Some(now);
    }
    is_new
}
