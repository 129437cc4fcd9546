//! Death at every step. A server or a client kills itself at each point that the code names, once it has come there for the
//! first or for a later time; then the other side must notice, everybody must be served again, nothing of the dead may be
//! left, and what was noted must keep every rule of the ledger.
//!
//! The points come from the code's own tables, so a new one is tested as soon as it is there. One that is never reached
//! fails the test. Run with `cargo test -p bellrope --features kill-points --test kill_points`.

use std::time::{Duration, Instant};

use bellrope_proto::KillPoint;
use bellrope_testkit::{
    cluster::{Cluster, PATIENCE, Reactions, Role, percentile, ran_as_member},
    ledger::Tally,
};

/// This test's name.
const TEST: &str = "death_at_any_step_leaves_the_other_side_whole";
/// How long a process may take to come to a point that it comes to while it lives, and then to one at its end.
const ON_THE_WAY: Duration = Duration::from_secs(20);
/// For the how manieth time a process that comes to a point dies there: points of a connection, and those of rings, which
/// are come to all the time, in every state that a ring can have.
const TIMES: &[u64] = &[1, 3];
const RING_TIMES: &[u64] = &[1, 2, 10, 100];

#[test]
#[expect(clippy::print_stderr, reason = "figures are for people")]
fn death_at_any_step_leaves_the_other_side_whole() {
    if ran_as_member() {
        return;
    }
    let began = Instant::now();
    let (mut reactions, mut tally, mut deaths) = (Reactions::default(), Tally::default(), 0);
    let mut unreached = Vec::new();
    let names = KillPoint::ALL
        .map(KillPoint::name)
        .into_iter()
        .chain(bellrope::internal::KillPoint::ALL.map(bellrope::internal::KillPoint::name));
    for (name, role) in names.flat_map(|name| sides(name).iter().map(move |role| (name, *role))) {
        for count in times(name) {
            // Large rings, in which hardly anybody waits, for one of the times, and if nobody comes there, small ones.
            let first = u64::from(*count == 10);
            match die(name, *count, role, first).or_else(|| die(name, *count, role, 0)) {
                Some((seen, noticed)) => {
                    tally += seen;
                    reactions.append(noticed);
                    deaths += 1;
                }
                None => unreached.push((name, role, *count)),
            }
        }
    }
    eprintln!("{deaths} deaths, each at a step of its own, in {:.1?}: {tally:?}", began.elapsed());
    assert!(unreached.is_empty(), "no process came to these points, so nothing is known of them: {unreached:?}");
    for (what, mut took) in [("clients", reactions.of_clients), ("servers", reactions.of_servers)] {
        took.sort_unstable();
        let [p50, max] = [500, 1000].map(|per_mille| percentile(&took, per_mille));
        // The kill is only known to have been before it was seen, so these are the least that it can have been.
        eprintln!("{what} noticed at least {p50} us (p50), {max} us (max) after it, seen {} times", took.len());
    }
}

/// One cluster in which a process dies there, whose first server has this number: those with an even one have small rings, in
/// which everybody waits for room and credit all the time. `None` if no process ever came to it.
fn die(name: &str, count: u64, role: Role, first: u64) -> Option<(Tally, Reactions)> {
    let mut cluster = Cluster::start(TEST, first, Some((role, &format!("{name}:{count}"))));
    if !at_the_end(name) && !cluster.replace_armed(role, ON_THE_WAY) {
        return None;
    }
    if at_the_end(name) {
        cluster.wait_until_all_are_served();
        cluster.dismiss_armed(role);
        assert!(cluster.replace_armed(role, PATIENCE), "{name} is on the way of whoever ends");
    }
    cluster.wait_until_all_are_served();
    cluster.check_that_all_live();
    Some(cluster.end())
}

/// Who comes to a point: its name says so.
fn sides(name: &str) -> &'static [Role] {
    match name.split_once('.') {
        Some(("server", _)) => &[Role::Server],
        Some(("client", _)) => &[Role::Client],
        _ => &[Role::Server, Role::Client],
    }
}

fn times(name: &str) -> &'static [u64] {
    match name {
        name if name.starts_with("ring.") => RING_TIMES,
        name if at_the_end(name) => &[1],
        _ => TIMES,
    }
}

/// Whether a process comes to this point only when it ends by itself.
fn at_the_end(name: &str) -> bool {
    name.starts_with("server.shutdown.")
}
