//! Thousands of random lives of a server and its clients, in one thread and under a simulated clock. Each connection is one
//! over shared memory, compact or not, or over a socket. Whatever they do, and whichever process dies, the history of their
//! calls keeps every rule of the ledger, nobody sleeps over a message, and nothing is left behind.
//!
//! A failure names its seed. `BELLROPE_SIM_SEED=n` replays just that one; `BELLROPE_SIM_SEEDS=n` runs so many.

mod client;
mod server;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bellrope_testkit::ledger::{self, Tally};
use world::World;

const SEEDS: u64 = 15_000;
const STEPS: u32 = 300;

// Faults 13, 37, 38, 40.
#[test]
fn every_call_ends_exactly_once_and_as_it_was_run_whoever_dies() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    if let Some(seed) = number("BELLROPE_SIM_SEED") {
        ledger::check(&World::new(seed).run(STEPS)).unwrap_or_else(|fault| panic!("{fault}"));
        return;
    }
    let mut sum = Tally::default();
    for seed in 0..number("BELLROPE_SIM_SEEDS").unwrap_or(SEEDS) {
        let checked = catch_unwind(AssertUnwindSafe(|| {
            ledger::check(&World::new(seed).run(STEPS)).unwrap_or_else(|fault| panic!("{fault}"))
        }));
        let Ok(tally) = checked else { panic!("seed {seed} fails; BELLROPE_SIM_SEED={seed} replays it alone") };
        sum += tally;
    }
    // A simulation in which nothing happens proves nothing.
    let Tally { calls, runs, chunks, acknowledged, refused, not_executed, unknown, .. } = sum;
    let rarest = [calls, runs, chunks, acknowledged, refused, not_executed, unknown, sum.unknown_but_run, sum.given_up]
        .into_iter()
        .min();
    assert!(rarest > Some(100) && sum.callers_died > 100, "too little happened: {sum:?}");
}
