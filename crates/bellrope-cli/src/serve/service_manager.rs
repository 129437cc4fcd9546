//! What is told to a service manager such as systemd, where one asks to be told.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use bellrope::status::Metrics;
use bellrope_terminal::Outcome;
use sd_notify::NotifyState;

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope::service_manager";

/// The server is ready: `status` is for whoever looks at the service.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The settings are being read again, until the next [`ready`].
pub(crate) fn reloading() {
    tell(&[NotifyState::Reloading, NotifyState::monotonic_usec_now().unwrap_or(NotifyState::MonotonicUsec(0))]);
}

/// The server is going away.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the service manager's watchdog, if it has one, for as long as the loop of every worker answers.
pub(crate) fn feed_watchdog(metrics: Arc<Metrics>) -> Outcome {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| *limit > Duration::ZERO) else { return Ok(()) };
    let feed = move || {
        loop {
            let wedged = metrics.wedged_workers(limit / 4);
            if wedged.is_empty() {
                tell(&[NotifyState::Watchdog]);
            } else {
                tracing::error!(target: TARGET, ?wedged, "workers do not answer; the watchdog is not fed");
            }
            std::thread::sleep(limit / 4);
        }
    };
    let thread = std::thread::Builder::new().name("bellrope-watch".to_owned()).stack_size(64 * 1024).spawn(feed);
    thread.map(drop).context("starting a thread")
}

fn tell(state: &[NotifyState]) {
    // Without NOTIFY_SOCKET there is nobody to tell, and that is no error.
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(target: TARGET, %error, "the service manager was not told");
    }
}
