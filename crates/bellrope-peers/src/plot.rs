//! Two plots: horizontal bars on a logarithmic axis, readable on light and dark pages.

use std::fmt::Write;

use clap::ValueEnum;

use crate::{
    plan::{Mode, Peer, SIZES, WINDOW},
    report::Report,
    units::{rate, us},
};

const WIDTH: f64 = 860.0;
/// Room for names, and behind the longest bar for its figure.
const LEFT: f64 = 230.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 58.0;
const ROW: f64 = 26.0;
const BAR: f64 = 16.0;
/// Between two groups.
const GROUP: f64 = 34.0;
const BOTTOM: f64 = 34.0;

const STYLE: &str = "
    svg { font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif; }
    .page { fill: #ffffff; } .text { fill: #1f2328; } .faint { fill: #59636e; }
    .grid { stroke: #d1d9e0; stroke-width: 1; } .tail { stroke: #59636e; stroke-width: 2; }
    .ours { fill: #0969da; } .theirs { fill: #818b98; } .limit { fill: #bf8700; }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117; } .text { fill: #f0f6fc; } .faint { fill: #9198a1; }
      .grid { stroke: #3d444d; } .tail { stroke: #b7bdc8; }
      .ours { fill: #4493f8; } .theirs { fill: #656c76; } .limit { fill: #d29922; }
    }
  ";

/// One bar.
struct Bar {
    label: String,
    class: &'static str,
    value: f64,
    /// The end of a thin line that goes on from the bar.
    tail: Option<f64>,
    shown: String,
}

/// Round trips of the smallest size, shorter is better.
pub(crate) fn round_trips(report: &Report) -> String {
    let bar = |peer: Peer| {
        let figures = report.round_trip(peer, SIZES[0])?;
        let shown = format!("{} us (p99 {})", us(figures.p50_us), us(figures.p99_us));
        Some(Bar { tail: Some(figures.p99_us), ..named(peer, figures.p50_us, shown) })
    };
    let title = "Round trip of 64 B in microseconds: bar p50, line p99";
    svg(title, "shorter is better; each step of the axis is ten times", &groups(bar, f64::total_cmp))
}

/// Calls a second of the smallest size, longer is better.
pub(crate) fn throughputs(report: &Report) -> String {
    let bar = |peer: Peer| {
        let figures = report.throughput(peer, SIZES[0], 1)?;
        Some(named(peer, figures.calls_per_s, rate(figures.calls_per_s)))
    };
    let title = format!("Calls a second of 64 B, {WINDOW} under way on one connection");
    svg(&title, "longer is better; each step of the axis is ten times", &groups(bar, |a, b| b.total_cmp(a)))
}

fn named(peer: Peer, value: f64, shown: String) -> Bar {
    let class = match peer {
        _ if peer.is_bellrope() => "ours",
        _ if peer.is_limit() => "limit",
        _ => "theirs",
    };
    Bar { label: peer.label().replace('`', ""), class, value, tail: None, shown }
}

/// The bars of each mode, best first.
fn groups(
    bar: impl Fn(Peer) -> Option<Bar>,
    order: fn(&f64, &f64) -> std::cmp::Ordering,
) -> Vec<(&'static str, Vec<Bar>)> {
    let of = |mode: Mode| {
        let peers = Peer::value_variants().iter().copied().filter(move |peer| peer.mode() == mode);
        let mut bars: Vec<Bar> = peers.filter_map(&bar).collect();
        bars.sort_by(|a, b| order(&a.value, &b.value));
        bars
    };
    let groups = [("spinning", of(Mode::Spinning)), ("sleeping", of(Mode::Sleeping))];
    groups.into_iter().filter(|(_, bars)| !bars.is_empty()).collect()
}

fn svg(title: &str, note: &str, groups: &[(&'static str, Vec<Bar>)]) -> String {
    let bars = || groups.iter().flat_map(|(_, bars)| bars);
    let least = bars().map(|bar| bar.value).fold(f64::INFINITY, f64::min);
    let most = bars().map(|bar| bar.tail.unwrap_or(0.0).max(bar.value)).fold(0.0, f64::max);
    let (from, to) = if least <= most && least > 0.0 {
        ((least * 0.7).log10().floor() as i32, most.log10().ceil() as i32)
    } else {
        (0, 1)
    };
    let to = to.max(from + 1);
    let at = |value: f64| {
        let share = (value.log10() - f64::from(from)) / f64::from(to - from);
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    };
    let rows: usize = groups.iter().map(|(_, bars)| bars.len()).sum();
    let bottom = TOP + GROUP * groups.len() as f64 + ROW * rows as f64;
    let height = bottom + BOTTOM;

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n  <style>{STYLE}</style>\n"
    );
    let mut put = |text: String| {
        // Writing into a string cannot fail.
        let _ = writeln!(out, "  {text}");
    };
    put(format!("<rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\"/>"));
    put(format!("<text class=\"text\" x=\"16\" y=\"26\" font-size=\"16\" font-weight=\"600\">{title}</text>"));
    put(format!("<text class=\"faint\" x=\"16\" y=\"46\">{note}</text>"));
    for power in from..=to {
        let value = 10_f64.powi(power);
        let x = at(value);
        put(format!("<line class=\"grid\" x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>", TOP + 8.0));
        let y = bottom + 18.0;
        put(format!("<text class=\"faint\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>", tick(value)));
    }
    let mut y = TOP;
    for (group, bars) in groups {
        put(format!("<text class=\"faint\" x=\"16\" y=\"{:.1}\" font-style=\"italic\">{group}</text>", y + 24.0));
        y += GROUP;
        for bar in bars {
            bar.draw(y, at, &mut put);
            y += ROW;
        }
    }
    out.push_str("</svg>\n");
    out
}

impl Bar {
    fn draw(&self, y: f64, at: impl Fn(f64) -> f64, put: &mut impl FnMut(String)) {
        let Self { label, class, value, tail, shown } = self;
        let (end, middle) = (at(*value), y + BAR / 2.0);
        let base = middle + 4.5;
        let weight = if *class == "ours" { " font-weight=\"600\"" } else { "" };
        put(format!(
            "<text class=\"text\" x=\"{}\" y=\"{base:.1}\" text-anchor=\"end\"{weight}>{label}</text>",
            LEFT - 10.0
        ));
        let width = (end - LEFT).max(1.0);
        put(format!(
            "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"/>"
        ));
        let mut after = end;
        if let Some(tail) = tail {
            after = at(*tail).max(end);
            put(format!(
                "<line class=\"tail\" x1=\"{end:.1}\" y1=\"{middle:.1}\" x2=\"{after:.1}\" y2=\"{middle:.1}\"/>"
            ));
        }
        put(format!("<text class=\"text\" x=\"{:.1}\" y=\"{base:.1}\">{shown}</text>", after + 8.0));
    }
}

/// A power of ten at the axis.
fn tick(value: f64) -> String {
    match value {
        1e6.. => format!("{} M", value / 1e6),
        1e3.. => format!("{} k", value / 1e3),
        _ => format!("{value}"),
    }
}
