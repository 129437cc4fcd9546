//! Ratios that Bellrope wants to reach, each judged where both of its sides were measured in this run.

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    plan::{Mode, Peer, Placed, SIZES},
    report::Report,
    units::{rate, us},
};

/// A ratio and what it should be.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) text: String,
    /// Bellrope's figure, with its unit.
    pub(crate) ours: String,
    /// What it is compared with.
    pub(crate) theirs: String,
    pub(crate) ratio: f64,
    pub(crate) passed: bool,
}

/// All goals of which both sides were measured.
pub(crate) fn judge(report: &Report) -> Vec<Goal> {
    let (small, medium) = (SIZES[0], SIZES[1]);
    let (spinning, adaptive) = (Peer::BellropeSpinning, Peer::Bellrope);
    let mut goals = Vec::new();

    let round_trip = |peer| report.round_trip(peer, small).map(|figures| figures.p50_us);
    let text = "round trip 64 B, `always`, at most 2 times the cache-line ping-pong";
    goals.extend(at_most(text, 2.0, round_trip(spinning), round_trip(Peer::CacheLine)));
    let text = "round trip 64 B, both spinning, at least 5 times faster than iceoryx2";
    goals.extend(times_faster(text, 5.0, round_trip(spinning), round_trip(Peer::IceoryxPolling)));
    let node = least([round_trip(Peer::NodeJson), round_trip(Peer::NodeAdvanced)]);
    for ours in [spinning, adaptive] {
        let text =
            format!("round trip 64 B, {}, at least 100 times faster than Node's child_process at its best", name(ours));
        goals.extend(times_faster(&text, 100.0, round_trip(ours), node));
    }

    for (size, shown) in [(small, "64 B"), (medium, "1 KB")] {
        let calls = |peer| report.throughput(peer, size, 1).map(|figures| figures.calls_per_s);
        let node = most([calls(Peer::NodeJson), calls(Peer::NodeAdvanced)]);
        for ours in [spinning, adaptive] {
            let text = format!(
                "calls a second of {shown}, {}, at least 50 times those of Node's child_process at its best",
                name(ours)
            );
            goals.extend(times_more(&text, 50.0, calls(ours), node));
        }
    }

    let lending = [Peer::IceoryxPolling, Peer::IceoryxEvents, Peer::Shmipc];
    for (size, shown) in [(SIZES[2], "64 KB"), (SIZES[3], "1 MB")] {
        let took = |peer| report.round_trip(peer, size).map(|figures| figures.p50_us);
        let theirs = lending.into_iter().filter_map(took).min_by(f64::total_cmp);
        let text = format!("round trip {shown}, `always`, as fast as the better of iceoryx2 and shmipc");
        goals.extend(times_faster(&text, 1.0, took(spinning), theirs));
        let calls = |peer| report.throughput(peer, size, 1).map(|figures| figures.calls_per_s);
        let theirs = lending.into_iter().filter_map(calls).max_by(f64::total_cmp);
        let text = format!("calls a second of {shown}, `always`, as many as the better of iceoryx2 and shmipc");
        goals.extend(times_more(&text, 1.0, calls(spinning), theirs));
    }

    for typed in [Peer::Tarpc, Peer::Tonic] {
        let text = format!("round trip 64 B, typed, `always`, at least 20 times faster than {}", typed.label());
        goals.extend(times_faster(&text, 20.0, round_trip(Peer::BellropeTypedSpinning), round_trip(typed)));
        // Where the scheduler puts sleeping sides is a matter of chance, so like is compared with like.
        for placed in [Placed::Together, Placed::Apart] {
            let took = |peer| report.without_pause(peer, placed).map(|figures| figures.p50_us);
            let text = format!("round trip 64 B, typed, `never`, {}, faster than {}", placed.name(), typed.label());
            goals.extend(times_faster(&text, 1.0, took(Peer::BellropeTypedSleeping), took(typed)));
        }
    }

    for at in [Placed::ByScheduler, Placed::Apart] {
        let placed = at.name();
        let apart = |peer| report.apart(peer, at).map(|figures| figures.p50_us);
        let text = format!("1 ms apart, {placed}, `adaptive`, at most 1.3 times the futex ping-pong");
        goals.extend(at_most(&text, 1.3, apart(adaptive), apart(Peer::Futex)));
        let others = Peer::value_variants().iter().filter(|peer| !peer.is_bellrope() && !peer.is_limit());
        for peer in others.filter(|peer| peer.mode() == Mode::Sleeping) {
            let text = format!("1 ms apart, {placed}, `adaptive`, faster than {}", peer.label());
            goals.extend(times_faster(&text, 1.0, apart(adaptive), apart(*peer)));
        }
    }
    goals
}

fn name(peer: Peer) -> &'static str {
    if peer == Peer::BellropeSpinning { "`always`" } else { "`adaptive`" }
}

/// Our time over theirs is at most this.
fn at_most(text: &str, wanted: f64, ours: Option<f64>, theirs: Option<f64>) -> Option<Goal> {
    let ratio = ours? / theirs?;
    Some(times(text, ours?, theirs?, ratio, ratio <= wanted))
}

/// Their time over ours is at least this.
fn times_faster(text: &str, wanted: f64, ours: Option<f64>, theirs: Option<f64>) -> Option<Goal> {
    let ratio = theirs? / ours?;
    Some(times(text, ours?, theirs?, ratio, ratio >= wanted))
}

fn times(text: &str, ours: f64, theirs: f64, ratio: f64, passed: bool) -> Goal {
    let shown = |value| format!("{} us", us(value));
    Goal { text: text.to_owned(), ours: shown(ours), theirs: shown(theirs), ratio, passed }
}

/// Our calls a second over theirs are at least this.
fn times_more(text: &str, wanted: f64, ours: Option<f64>, theirs: Option<f64>) -> Option<Goal> {
    let ratio = ours? / theirs?;
    let shown = |value| format!("{}/s", rate(value));
    Some(Goal { text: text.to_owned(), ours: shown(ours?), theirs: shown(theirs?), ratio, passed: ratio >= wanted })
}

fn least(values: [Option<f64>; 2]) -> Option<f64> {
    values.into_iter().flatten().min_by(f64::total_cmp)
}

fn most(values: [Option<f64>; 2]) -> Option<f64> {
    values.into_iter().flatten().max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_judged_only_where_both_sides_were_measured() {
        assert!(at_most("", 2.0, Some(1.0), None).is_none());
        assert!(times_more("", 2.0, None, Some(1.0)).is_none());
        assert!(times_faster("", 5.0, Some(1.0), Some(5.0)).unwrap().passed);
        assert!(!times_faster("", 5.0, Some(1.1), Some(5.0)).unwrap().passed);
        assert!(!at_most("", 1.3, Some(1.4), Some(1.0)).unwrap().passed);
    }
}
