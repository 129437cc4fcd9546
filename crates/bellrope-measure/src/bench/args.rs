//! What measurements let one choose.

use std::time::Duration;

use clap::Args;

/// What every measurement lets one choose.
#[derive(Debug, Clone, Args)]
pub(super) struct RunArgs {
    /// Measure for a moment only, if less exactly.
    #[arg(long)]
    pub(super) quick: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(super) json: bool,
}

/// What is measured for a time. How long by default, each measurement says.
#[derive(Debug, Clone, Args)]
pub(super) struct SpanArgs {
    /// Seconds to measure.
    #[arg(long, value_parser = seconds, conflicts_with = "quick")]
    pub(super) seconds: f64,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

impl SpanArgs {
    /// How long to measure.
    pub(super) fn time(&self) -> Duration {
        self.time_or(QUICK_SECONDS)
    }

    /// How long to measure, where it takes so many seconds if it must be quick.
    pub(super) fn time_or(&self, quick_seconds: f64) -> Duration {
        Duration::from_secs_f64(if self.run.quick { quick_seconds } else { self.seconds })
    }
}

/// What is measured for a time, between a client and a server that have a CPU each.
#[derive(Debug, Clone, Args)]
pub(super) struct TimedArgs {
    #[command(flatten)]
    pub(super) span: SpanArgs,
    /// Leave client and server where the scheduler puts them, instead of on one CPU each.
    #[arg(long)]
    no_pin: bool,
}

impl TimedArgs {
    /// How long to measure.
    pub(super) fn time(&self) -> Duration {
        self.span.time()
    }

    /// Whether client and server have a CPU each.
    pub(super) fn pin(&self) -> bool {
        !self.no_pin
    }

    /// Whether to print JSON instead of a table.
    pub(super) fn json(&self) -> bool {
        self.span.run.json
    }
}

/// Reads how long to measure.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.01..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("it must be from 0.01 to 3600".to_owned()) }
}

/// Seconds that are measured when it must be quick.
const QUICK_SECONDS: f64 = 1.0;

/// What a call carries.
#[derive(Debug, Clone, Args)]
pub(super) struct SizeArgs {
    /// Payload bytes of a call, and of its echo.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=65536))]
    pub(super) size: u32,
}
