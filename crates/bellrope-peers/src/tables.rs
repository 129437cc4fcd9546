//! The report for people, in Markdown.

use std::fmt::Write;

use clap::ValueEnum;

use crate::{
    goals,
    meter::{Latency, Throughput},
    plan::{GAP, MANY, Mode, Peer, Placed, SIZES, SIZES_OF_MANY, WINDOW},
    report::{Report, many},
    units::{bytes, rate, us},
};

pub(crate) fn markdown(report: &Report) -> String {
    let mut text = String::new();
    machine(&mut text, report);
    round_trips(&mut text, report);
    apart(&mut text, report);
    throughput(&mut text, report);
    use_of_machine(&mut text, report);
    judged(&mut text, report);
    text
}

fn machine(text: &mut String, report: &Report) {
    let m = &report.machine;
    let peers: Vec<String> = m.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let node = m.node.as_deref().unwrap_or("not there");
    let rounds = report.pace.rounds;
    line(text, format_args!("```sh\n{}\n```\n", report.command()));
    line(
        text,
        format_args!(
            "{}, commit {}; {} CPUs ({}), Linux {}; {}, profile `{}`{}; {}; Node {node}. {}.\n",
            m.date,
            m.commit,
            m.cpus,
            m.cpu,
            m.kernel,
            m.rustc,
            m.profile,
            if m.static_libc { ", static C library" } else { "" },
            peers.join(", "),
            if rounds == 1 {
                "One round".to_owned()
            } else {
                format!("Medians of the {} quiet ones of {rounds} rounds", report.quiet_rounds())
            },
        ),
    );
    rounds_of(text, report);
    for said in report.skipped.iter().chain(&report.failed) {
        line(text, format_args!("- {said}"));
    }
}

/// How quick the machine was in each round.
fn rounds_of(text: &mut String, report: &Report) {
    line(
        text,
        format_args!(
            "Every client copies its payload in and reads each byte of the answer; every server reads each byte of a \
             request and writes each byte of its answer, in one copy where memory is lent. A round is quiet if the limit around it, \
             a cache-line ping-pong, is at most 1.5 times that of the best round; the others are left out.\n"
        ),
    );
    head(text, &["round", "ping-pong before, us", "after, us", "quiet"]);
    for (round, limit) in report.limits.iter().enumerate() {
        let quiet = if report.is_quiet(round) { "yes" } else { "no" };
        line(text, format_args!("| {} | {} | {} | {quiet} |", round + 1, us(limit.before_us), us(limit.after_us)));
    }
    text.push('\n');
}

fn round_trips(text: &mut String, report: &Report) {
    heading(text, "Round trips");
    line(text, format_args!("Microseconds: p50 / p99 / p99.9 of full round trips, one call after the other.\n"));
    for mode in [Mode::Spinning, Mode::Sleeping] {
        let sizes: Vec<String> = SIZES.iter().map(|size| bytes(*size)).collect();
        head(text, &[&[mode_name(mode)], &sizes.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
        for peer in measured(report, |report, peer| report.round_trip(peer, SIZES[0]).is_some(), mode) {
            let cells = SIZES.iter().map(|size| cell(report.round_trip(peer, *size), three));
            row(text, peer, cells);
        }
        text.push('\n');
    }
}

fn apart(text: &mut String, report: &Report) {
    heading(text, &format!("Calls {} ms apart", GAP.as_millis()));
    let size = bytes(SIZES[0]);
    line(
        text,
        format_args!(
            "{size} with a pause before each call, so that whoever sleeps is asleep when it comes, by where both sides run. \
             Microseconds; CPU: seconds for a million calls, both processes.\n"
        ),
    );
    by_place(text, report, &[Mode::Spinning, Mode::Sleeping], Report::apart);
    heading(text, "Sleeping sides without a pause");
    line(text, format_args!("{size}, one call after the other, by where both sides run.\n"));
    by_place(text, report, &[Mode::Sleeping], Report::without_pause);
}

fn by_place(text: &mut String, report: &Report, modes: &[Mode], figures: fn(&Report, Peer, Placed) -> Option<Latency>) {
    let head_of = |placed: Placed| [format!("{}: p50 / p99", placed.name()), "CPU".to_owned()];
    let columns: Vec<String> =
        std::iter::once(String::new()).chain(Placed::ALL.into_iter().flat_map(head_of)).collect();
    head(text, &columns.iter().map(String::as_str).collect::<Vec<_>>());
    for mode in modes {
        let is = |report: &Report, peer| figures(report, peer, Placed::Apart).is_some();
        for peer in measured(report, is, *mode) {
            let cells = Placed::ALL.into_iter().flat_map(|placed| {
                let figures = figures(report, peer, placed);
                let times = cell(figures, |figures| format!("{} / {}", us(figures.p50_us), us(figures.p99_us)));
                [times, cell(figures, |figures| us(figures.cpu_us_per_call))]
            });
            row(text, peer, cells);
        }
    }
    text.push('\n');
}

fn throughput(text: &mut String, report: &Report) {
    heading(text, "Calls a second");
    line(
        text,
        format_args!(
            "One connection with {WINDOW} calls under way; {MANY} connections with one each. One client process.\n"
        ),
    );
    for mode in [Mode::Spinning, Mode::Sleeping] {
        let ones = SIZES.iter().map(|size| bytes(*size));
        let manys = SIZES_OF_MANY.iter().map(|size| format!("{MANY} x {}", bytes(*size)));
        let columns: Vec<String> = std::iter::once(mode_name(mode).to_owned()).chain(ones).chain(manys).collect();
        head(text, &columns.iter().map(String::as_str).collect::<Vec<_>>());
        for peer in measured(report, |report, peer| report.throughput(peer, SIZES[0], 1).is_some(), mode) {
            let ones = SIZES.iter().map(|size| cell(report.throughput(peer, *size, 1), per_second));
            let manys = SIZES_OF_MANY.iter().map(|size| cell(many(report, peer, *size), per_second));
            row(text, peer, ones.chain(manys));
        }
        text.push('\n');
    }
}

fn use_of_machine(text: &mut String, report: &Report) {
    heading(text, "CPU and memory");
    line(
        text,
        format_args!(
            "CPU: seconds for a million calls, both processes (whoever spins uses two CPUs whatever happens). Memory: \
             resident (VmRSS) of server + client at the end of all calls of a size on one connection, in MB.\n"
        ),
    );
    let (small, large) = (SIZES[0], SIZES[3]);
    head(
        text,
        &[
            "",
            &format!("CPU, round trips of {}", bytes(small)),
            &format!("CPU, {WINDOW} under way"),
            &format!("CPU, {MANY} connections"),
            &format!("memory, {}", bytes(small)),
            &format!("memory, {}", bytes(large)),
        ],
    );
    let cpu_of = |figures: Throughput| us(figures.cpu_us_per_call);
    let memory = |(server, client): (f64, f64)| format!("{:.1} + {:.1}", server / 1024.0, client / 1024.0);
    for mode in [Mode::Spinning, Mode::Sleeping] {
        for peer in measured(report, |report, peer| report.throughput(peer, SIZES[0], 1).is_some(), mode) {
            let cells = [
                cell(report.round_trip(peer, small), |figures| us(figures.cpu_us_per_call)),
                cell(report.throughput(peer, small, 1), cpu_of),
                cell(many(report, peer, small), cpu_of),
                cell(report.memory(peer, small), memory),
                cell(report.memory(peer, large), memory),
            ];
            row(text, peer, cells.into_iter());
        }
    }
    text.push('\n');
}

fn judged(text: &mut String, report: &Report) {
    let goals = goals::judge(report);
    if goals.is_empty() {
        return;
    }
    heading(text, "Against the goals");
    head(text, &["goal", "Bellrope", "the other", "ratio", ""]);
    for goal in goals {
        let verdict = if goal.passed { "PASS" } else { "FAIL" };
        line(text, format_args!("| {} | {} | {} | {:.2} | {verdict} |", goal.text, goal.ours, goal.theirs, goal.ratio));
    }
}

/// The peers of a mode of which something was measured.
fn measured(report: &Report, is: impl Fn(&Report, Peer) -> bool, mode: Mode) -> impl Iterator<Item = Peer> {
    Peer::value_variants().iter().copied().filter(move |peer| peer.mode() == mode && is(report, *peer))
}

fn heading(text: &mut String, title: &str) {
    line(text, format_args!("### {title}\n"));
}

fn head(text: &mut String, columns: &[&str]) {
    line(text, format_args!("| {} |", columns.join(" | ")));
    line(text, format_args!("|---|{}", "---:|".repeat(columns.len() - 1)));
}

fn row(text: &mut String, peer: Peer, cells: impl Iterator<Item = String>) {
    let name = if peer.is_bellrope() { format!("**{}**", peer.label()) } else { peer.label().to_owned() };
    line(text, format_args!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | ")));
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _ = writeln!(text, "{arguments}");
}

fn cell<T>(figure: Option<T>, shown: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(|| "-".to_owned(), shown)
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Spinning => "spinning",
        Mode::Sleeping => "sleeping",
    }
}

/// A percentile that fewer calls than ten beyond it would decide is left out.
fn three(figures: Latency) -> String {
    let rare = |share: f64, value| if figures.calls as f64 * share >= 10.0 { us(value) } else { "-".to_owned() };
    format!("{} / {} / {}", us(figures.p50_us), rare(0.01, figures.p99_us), rare(0.001, figures.p999_us))
}

fn per_second(figures: Throughput) -> String {
    rate(figures.calls_per_s)
}
