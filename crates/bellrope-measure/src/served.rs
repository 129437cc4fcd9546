//! What `bellrope serve` serves and how it keeps its memory small, here because every program that is measured has to do
//! the very same.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use bellrope::{server::ServerBuilder, status::Metrics};
use bellrope_gateway::LiveGateway;
use bellrope_shm::process;
use bellrope_terminal::Outcome;

/// See [`stay_small`].
const QUIET_LOOKS: u32 = 2;
/// See [`stay_small`].
const TRIM_EVERY: Duration = Duration::from_secs(1);

/// Registers everything that `bellrope serve` offers beside the operator's message types.
pub fn register(builder: ServerBuilder, gateway: LiveGateway) -> ServerBuilder {
    // What came is the reply as it stands.
    let builder = builder.in_place("echo", |_| Ok(()));
    bellrope_gateway::register(builder, gateway)
}

/// Keeps resident what is in use: once after starting up, and then after every second in which calls were answered,
/// gives back the program's pages. Those in use come back at some 20 us a second; what a rare call needed does not stay.
/// In the second second without an answer the workers have let go of what they keep for the next call: what is free of the
/// heap is given back, and the program's pages once more, so that what starting up or the last call needed does not stay.
pub fn stay_small(metrics: Arc<Metrics>) -> Outcome {
    let trim = move || {
        let mut seen = u64::MAX;
        let mut quiet = 0_u32;
        loop {
            let answered = metrics.total_requests();
            if answered != seen {
                process::drop_program_pages();
                seen = answered;
                quiet = 0;
            } else {
                quiet = quiet.saturating_add(1);
            }
            if quiet == QUIET_LOOKS {
                process::trim_heap();
                process::drop_program_pages();
            }
            std::thread::sleep(TRIM_EVERY);
        }
    };
    let thread = std::thread::Builder::new().name("bellrope-trim".to_owned()).stack_size(64 * 1024).spawn(trim);
    thread.map(drop).context("starting a thread")
}
