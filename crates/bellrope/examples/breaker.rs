//! What a closed circuit breaker costs a call. Run with
//! `cargo run --release -p bellrope --example breaker`; add `--json` for a program to read.
#![expect(clippy::print_stdout, reason = "an example prints what it found")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bellrope::breaker::{Breaker, BreakerConfig};

const CALLS: u32 = 20_000_000;
/// Each figure is the best of this many runs: what is measured is the code, not the neighbours.
const RUNS: u32 = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let breaker = Arc::new(Breaker::new(BreakerConfig::default())?);
    let mut slow_calls = BreakerConfig::default();
    slow_calls.slow_rate_percent = 50;
    let watching = Breaker::new(slow_calls)?;

    let empty = ns_a_call(|| black_box(()));
    let figures = [
        ("acquire", ns_a_call(|| _ = black_box(black_box(&*breaker).acquire(Instant::now).is_ok()))),
        ("acquire_succeed", ns_a_call(|| call(black_box(&breaker)))),
        ("acquire_owned_succeed", ns_a_call(|| call_owned(black_box(&breaker)))),
        ("acquire_succeed_slow_rate_on", ns_a_call(|| call(black_box(&watching)))),
        ("rejected", {
            breaker.force_open();
            ns_a_call(|| _ = black_box(black_box(&*breaker).acquire(Instant::now).is_ok()))
        }),
    ];
    let figures = figures.map(|(name, ns)| (name, (ns - empty).max(0.0)));
    if std::env::args().any(|arg| arg == "--json") {
        let map: serde_json::Map<_, _> =
            figures.iter().map(|(name, ns)| (format!("{name}_ns"), (*ns).into())).collect();
        println!("{}", serde_json::Value::from(map));
    } else {
        for (name, ns) in figures {
            println!("{name:<30} {ns:>6.2} ns");
        }
    }
    Ok(())
}

fn call(breaker: &Breaker) {
    if let Ok(permit) = breaker.acquire(Instant::now) {
        black_box(());
        permit.succeed(Instant::now);
    }
}

fn call_owned(breaker: &Arc<Breaker>) {
    if let Ok(permit) = breaker.acquire_owned(Instant::now) {
        black_box(&permit);
        permit.succeed(Instant::now);
    }
}

fn ns_a_call(mut one: impl FnMut()) -> f64 {
    let run = |one: &mut dyn FnMut(u32)| {
        let began = Instant::now();
        one(CALLS);
        began.elapsed()
    };
    let mut all = |calls: u32| (0..calls).for_each(|_| one());
    let best = (0..RUNS).map(|_| run(&mut all)).min().unwrap_or(Duration::ZERO);
    best.as_nanos() as f64 / f64::from(CALLS)
}
