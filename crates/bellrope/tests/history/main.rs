//! Real processes and real kills. A server and its clients are killed with SIGKILL at random moments, again and again,
//! and started anew at once. The survivors must notice in time, serve and be served again, and hold nothing of the dead;
//! what all of them noted before they died is put together, and must keep every rule of the ledger.
//!
//! A run says its seed. `BELLROPE_KILL_SEED=n` kills in the same order again, though not to the microsecond;
//! `BELLROPE_KILLS=n` asks for at least so many kills.

use std::time::{Duration, Instant};

use bellrope_testkit::{
    cluster::{CLIENTS, Cluster, Reactions, SEED, number, percentile, ran_as_member},
    ledger::Tally,
};
use fastrand::Rng;

const KILLS: u64 = 300;
/// Kills in the life of one cluster, whose history is checked as a whole.
const KILLS_A_CLUSTER: u64 = 500;
/// This test's name.
const TEST: &str = "after_any_kill_every_call_has_one_outcome_and_it_is_true";
/// How soon the other side knows, nearly always: far above what it takes, so that a busy machine fails nobody.
const SOON_US: u64 = 1_000_000;

// Faults 11, 30, 37.
#[test]
#[expect(clippy::print_stderr, reason = "a run says how it can be repeated, and what it has seen")]
fn after_any_kill_every_call_has_one_outcome_and_it_is_true() {
    if ran_as_member() {
        return;
    }
    let seed = number(SEED).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{SEED}={seed}");
    let mut rng = Rng::with_seed(seed);
    let (began, due) = (Instant::now(), number("BELLROPE_KILLS").unwrap_or(KILLS));
    let (mut servers, mut clients, mut slowest) = (0, 0, Duration::ZERO);
    let (mut reactions, mut tally) = (Reactions::default(), Tally::default());
    while servers + clients < due {
        let mut cluster = Cluster::start(TEST, rng.u64(0..2), None);
        let killed = kill_about(&mut cluster, &mut rng, KILLS_A_CLUSTER.min(due - servers - clients));
        (servers, clients) = (servers + killed.0, clients + killed.1);
        slowest = slowest.max(cluster.slowest);
        let (seen, noticed) = cluster.end();
        tally += seen;
        reactions.append(noticed);
    }
    let took = began.elapsed();
    eprintln!(
        "{servers} kills of the server, {clients} of clients in {took:.1?}; all served again within {slowest:.1?}"
    );
    eprintln!("{tally:?}");
    report("clients knew that their server was killed", reactions.of_clients);
    report("the server knew that a client was killed", reactions.of_servers);
    assert!(
        tally.acknowledged > due && tally.not_executed + tally.unknown > 0 && tally.callers_died > 0,
        "too little happened: {tally:?}"
    );
}

/// Kills the server or some of its clients, at moments left to chance, until at least so many have died; now and then a
/// server retires instead. Answers how many servers and how many clients were killed.
fn kill_about(cluster: &mut Cluster, rng: &mut Rng, due: u64) -> (u64, u64) {
    let (mut servers, mut clients) = (0, 0);
    while servers + clients < due {
        // Half of them die at work, others while they come to it.
        if rng.bool() {
            cluster.wait_until_all_are_served();
        }
        // When, is a matter of chance: nothing is waited for.
        std::thread::sleep(Duration::from_micros(rng.u64(0..5_000)));
        cluster.check_that_all_live();
        if rng.u32(0..10) == 0 {
            cluster.retire_server();
        } else if rng.bool() {
            cluster.kill_server();
            servers += 1;
        } else {
            let mut places: Vec<usize> = (0..CLIENTS).collect();
            rng.shuffle(&mut places);
            places.truncate(rng.usize(1..=CLIENTS));
            cluster.kill_clients(&places);
            clients += places.len() as u64;
        }
    }
    cluster.wait_until_all_are_served();
    (servers, clients)
}

#[expect(clippy::print_stderr, reason = "figures are for people")]
fn report(what: &str, mut took_us: Vec<u64>) {
    took_us.sort_unstable();
    let [p50, p99, max] = [500, 990, 1000].map(|per_mille| percentile(&took_us, per_mille));
    eprintln!("{what}: p50 {p50} us, p99 {p99} us, max {max} us, seen {} times", took_us.len());
    assert!(p99 < SOON_US, "{what} too late");
}
