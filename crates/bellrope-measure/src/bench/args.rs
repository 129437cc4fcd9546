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

impl RunArgs {
    /// How long to measure where `seconds` are asked for.
    pub(super) fn time(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(if self.quick { QUICK_SECONDS } else { seconds })
    }
}

/// What is measured for a time, between a client and a server that have a CPU each. How long by default, each measurement says.
#[derive(Debug, Clone, Args)]
pub(super) struct TimedArgs {
    /// Seconds to measure.
    #[arg(long, value_parser = seconds)]
    pub(super) seconds: f64,
    /// Leave client and server where the scheduler puts them, instead of on one CPU each.
    #[arg(long)]
    no_pin: bool,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

impl TimedArgs {
    /// How long to measure.
    pub(super) fn time(&self) -> Duration {
        self.run.time(self.seconds)
    }

    /// Whether client and server have a CPU each.
    pub(super) fn pin(&self) -> bool {
        !self.no_pin
    }
}

/// Reads how long to measure.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.01..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("it must be from 0.01 to 3600".to_owned()) }
}

/// Seconds that are measured when it must be quick.
const QUICK_SECONDS: f64 = 1.0;

/// How to measure.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Payload bytes of a call, and of its echo.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=65536))]
    pub(super) size: u32,
    /// Calls in flight on each connection (throughput only).
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) depth: u32,
    /// Connections (throughput only).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20000))]
    pub(super) connections: u32,
    /// Seconds to measure.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(super) seconds: f64,
    /// Measure for a second only, if less exactly.
    #[arg(long, conflicts_with = "seconds")]
    quick: bool,
    /// Leave client and server where the scheduler puts them, instead of on one CPU each.
    #[arg(long)]
    pub(super) no_pin: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(super) json: bool,
}

impl BenchArgs {
    /// With the seconds that are really measured.
    pub(super) fn settled(&self) -> Self {
        Self { seconds: if self.quick { QUICK_SECONDS } else { self.seconds }, ..self.clone() }
    }
}
