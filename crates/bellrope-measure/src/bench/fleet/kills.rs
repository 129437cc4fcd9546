//! How soon a call succeeds after an instance was killed.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bellrope::client::{CallOptions, Metadata};
use bellrope_terminal::{Outcome, ProgressBar, output};
use serde::Serialize;

use super::{
    served::ECHO,
    stage::{PATIENCE, Stage},
};
use crate::bench::samples::{Percentiles, Samples};

/// Sessions that call before and after each kill: some of them live at the instance that is killed.
const SESSIONS: u32 = 12;
const GOAL_MS: f64 = 200.0;

/// How long it took from the kill of an instance to the next answer.
#[derive(Debug, Serialize)]
pub(super) struct Kills {
    kills: u32,
    sessions: u32,
    /// Of the first session that called after each kill, from the kill on.
    next_p50_ms: f64,
    next_max_ms: f64,
    /// Of any session, from its first try after a kill to its answer.
    session_max_ms: f64,
    goal_ms: f64,
}

/// Kills one instance after the other, and starts another in its place.
pub(super) fn measure(stage: &mut Stage, kills: u32, bar: &ProgressBar) -> anyhow::Result<Kills> {
    let mut next = Samples::with_capacity(kills as usize);
    let mut slowest = Duration::ZERO;
    for kill in 0..kills {
        for session in 0..SESSIONS {
            call(stage, session)?;
        }
        let place = kill as usize % stage.instances.len();
        let killed = Instant::now();
        stage.instances[place].kill()?;
        for session in 0..SESSIONS {
            let began = if session == 0 { killed } else { Instant::now() };
            while call(stage, session).is_err() {
                ensure!(began.elapsed() < PATIENCE, "no call was answered within {PATIENCE:?} of a kill");
            }
            let took = began.elapsed();
            slowest = slowest.max(took);
            if session == 0 {
                next.add_us(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            }
        }
        stage.instances[place].restart()?;
        stage.wait_for_instances()?;
        bar.step();
    }
    let Percentiles { p50_us, max_us, .. } = next.percentiles();
    Ok(Kills {
        kills,
        sessions: SESSIONS,
        next_p50_ms: p50_us / 1000.0,
        next_max_ms: max_us / 1000.0,
        session_max_ms: slowest.as_secs_f64() * 1000.0,
        goal_ms: GOAL_MS,
    })
}

fn call(stage: &Stage, session: u32) -> Outcome {
    let metadata = Metadata::new().session(&format!("window {session}"))?;
    stage.client.call_with(ECHO, b"again", &CallOptions::new().metadata(metadata))?;
    Ok(())
}

impl Kills {
    pub(super) fn print(&self) -> Outcome {
        let Self { kills, next_p50_ms, next_max_ms, session_max_ms, .. } = self;
        output::line(format_args!(
            "{kills} kills of an instance: the next answer after {next_p50_ms:.1} ms at p50, {next_max_ms:.1} at most, of any session {session_max_ms:.1} (goal: at most {GOAL_MS})"
        ))
    }
}
