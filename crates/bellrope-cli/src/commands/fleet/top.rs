//! `bellrope fleet top`: the instances of a fleet, live in a terminal.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bellrope_fleet::Onlooker;
use bellrope_terminal::{Outcome, output};
use clap::Args;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table},
};

use super::{
    asked,
    seen::{FleetView, InstanceView, Memory, Seen, State},
};
use crate::{
    live::{self, View, WatchArgs},
    logging,
    units::{micros, rate},
};

/// Answers are collected for half of an interval, and no longer than this.
const MOST_WAIT: Duration = Duration::from_millis(500);

const HELP: &str = "\
Examples:
  bellrope fleet top --fleet nats://127.0.0.1:4222
  bellrope fleet top --once --json

Keys: q, Esc and Ctrl-C end it. Rates and quantiles are of the last interval; a quantile is the upper bound of its bucket, a power
of two of microseconds. LINK is how long the answer of an instance took, and which of its connections to NATS this is, if not the
first. An instance that answers no more is shown as gone for half a minute.";

/// Whom to watch, and how.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct TopArgs {
    /// The NATS servers [default: as the settings say].
    #[arg(long, value_name = "URLS")]
    fleet: Option<String>,
    /// A configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Watches until a key ends it.
pub(super) fn run(args: &TopArgs) -> Outcome {
    logging::init("error")?;
    let interval = args.watch.interval();
    if !args.watch.once {
        live::ensure_terminal("fleet top")?;
    }
    let settings = asked::settings(args.fleet.clone(), args.config.clone())?;
    let mut onlooker = Onlooker::connect(&settings).context("the fleet cannot be asked")?;
    let wait = (interval / 2).min(MOST_WAIT);
    let mut look = move || -> anyhow::Result<Seen> {
        let at = Instant::now();
        Ok(Seen { at, listed: onlooker.look(wait).context("the fleet cannot be asked")? })
    };
    let mut memory = Memory::new(look()?);
    if args.watch.once {
        std::thread::sleep(interval.saturating_sub(wait));
        let view = memory.hear(look()?);
        return if args.watch.json { output::json(&view) } else { print(&view) };
    }
    let servers = settings.shown_servers().escape_debug().to_string();
    let view = memory.at_first();
    live::show(Screen { servers, memory, view, lost: None }, interval, look)
}

const GOOD: Color = Color::Green;
const WARN: Color = Color::Yellow;
const BAD: Color = Color::Red;

/// The fleet as it was last seen.
#[derive(Debug)]
struct Screen {
    servers: String,
    memory: Memory,
    view: FleetView,
    lost: Option<String>,
}

impl View for Screen {
    type Look = Seen;

    fn hear(&mut self, look: Result<Seen, String>) {
        match look {
            Ok(seen) => {
                self.view = self.memory.hear(seen);
                self.lost = None;
            }
            Err(reason) => self.lost = Some(reason),
        }
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let rows = [1, 1, 2, 1].map(Constraint::Length);
        let rows = rows.into_iter().chain([Constraint::Min(2), Constraint::Length(1)]);
        let [head, lost, figures, _, table, foot] = Layout::vertical(rows).areas(frame.area());
        frame.render_widget(self.head(), head);
        if let Some(reason) = &self.lost {
            let text = format!("LOST, trying again: {reason}");
            frame.render_widget(Paragraph::new(text).style(Style::new().fg(BAD).bold()), lost);
        }
        let lines: Vec<_> = self.view.figures().into_iter().map(Line::from).collect();
        frame.render_widget(Paragraph::new(lines), figures);
        self.instances(frame, table);
        frame.render_widget(Paragraph::new("q quits").style(Style::new().add_modifier(Modifier::DIM)), foot);
    }
}

impl Screen {
    fn head(&self) -> Paragraph<'_> {
        let count = |state| self.view.instances.iter().filter(|row| row.state == state).count();
        let [serve, drain, gone] = [State::Serves, State::Drains, State::Gone].map(count);
        let (text, colour) = match (self.lost.is_some(), serve) {
            (true, _) => ("lost".to_owned(), BAD),
            (false, 0) => ("no instance serves".to_owned(), BAD),
            (false, 1) => ("1 instance".to_owned(), GOOD),
            (false, many) => (format!("{many} instances"), GOOD),
        };
        let mut spans = vec![Span::from("fleet ").bold(), Span::styled(text, Style::new().fg(colour).bold())];
        if drain > 0 {
            spans.push(Span::styled(format!(", {drain} drain"), Style::new().fg(WARN)));
        }
        if gone > 0 {
            spans.push(Span::styled(format!(", {gone} gone"), Style::new().fg(BAD)));
        }
        spans.push(Span::from(format!(", {}", self.servers)));
        Paragraph::new(Line::from(spans))
    }

    fn instances(&self, frame: &mut Frame<'_>, area: Rect) {
        let columns = if area.width < WIDE { &NARROW[..] } else { &ALL[..] };
        let header = Row::new(columns.iter().map(|column| COLUMNS[*column].0));
        let rows = self.view.instances.iter().map(|one| {
            let cells = one.cells();
            let cell = |column: &usize| match (*column, cells[*column].clone()) {
                (..FIRST_NUMBER, text) => Cell::from(text),
                (_, number) => Cell::from(Line::from(number).right_aligned()),
            };
            let colour = match one.state {
                State::Serves => Style::new(),
                State::Drains => Style::new().fg(WARN),
                State::Gone => Style::new().fg(BAD),
            };
            Row::new(columns.iter().map(cell).collect::<Vec<_>>()).style(colour)
        });
        let widths = columns.iter().map(|column| COLUMNS[*column].1);
        let header = header.style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_widget(Table::new(rows, widths).header(header), area);
    }
}

/// From this width on all columns have room.
const WIDE: u16 = 80;
const ALL: [usize; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
const NARROW: [usize; 4] = [0, 2, 3, 4];
/// The column of the first number.
const FIRST_NUMBER: usize = 3;
const COLUMNS: [(&str, Constraint); 9] = [
    ("SERVER", Constraint::Min(12)),
    ("ID", Constraint::Length(8)),
    ("STATE", Constraint::Length(6)),
    ("RUNNING", Constraint::Length(7)),
    (" CALLS/S", Constraint::Length(8)),
    ("ERRORS/S", Constraint::Length(8)),
    ("    P50", Constraint::Length(7)),
    ("    P99", Constraint::Length(7)),
    ("   LINK", Constraint::Length(7)),
];

impl InstanceView {
    fn cells(&self) -> [String; 9] {
        let link = match (self.state, self.link.made) {
            (State::Gone, _) => "-".to_owned(),
            (_, ..=1) => micros(Some(self.link.answered_us)),
            (_, made) => format!("{} #{made}", micros(Some(self.link.answered_us))),
        };
        let server = if self.server.is_empty() { "unnamed" } else { &self.server };
        [
            server.escape_debug().to_string(),
            self.id.chars().take(8).collect::<String>().escape_debug().to_string(),
            self.state.name().to_owned(),
            self.running.to_string(),
            rate(self.calls_per_second),
            rate(self.errors_per_second),
            micros(self.p50_us),
            micros(self.p99_us),
            link,
        ]
    }
}

impl FleetView {
    fn figures(&self) -> [String; 2] {
        let Self { calls_per_second, errors_per_second, running, p50_us, p99_us, .. } = self;
        [
            format!(
                "Calls        {}/s, {}/s failed, {running} running",
                rate(*calls_per_second),
                rate(*errors_per_second)
            ),
            format!("Latency      p50 {}, p99 {} (at the instances)", micros(*p50_us), micros(*p99_us)),
        ]
    }
}

/// Prints the same without a terminal.
fn print(view: &FleetView) -> Outcome {
    view.figures().iter().try_for_each(|line| output::line(format_args!("{line}")))?;
    let rows: Vec<_> = view.instances.iter().map(InstanceView::cells).collect();
    let wide = rows.iter().map(|[server, ..]| server.chars().count()).max().unwrap_or(0).max(6);
    let row = |[server, id, state, running, calls, errors, p50, p99, link]: &[String; 9]| {
        output::line(format_args!(
            "{server:wide$}  {id:8}  {state:6} {running:>7} {calls:>8} {errors:>8} {p50:>7} {p99:>7} {link:>8}"
        ))
    };
    output::line(format_args!(""))?;
    row(&COLUMNS.map(|(name, _)| name.trim_start().to_owned()))?;
    rows.iter().try_for_each(row)
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    #[test]
    fn it_fits_any_terminal_and_shows_no_steering_characters() {
        let listed = |id: &str, draining: bool| {
            serde_json::from_value(serde_json::json!({
                "id": id, "server": "\u{1b}[2J a name that is longer than its column", "version": "1", "started": "then",
                "running": 12345, "draining": draining, "nats": "n", "links": 3, "answered_us": 1234, "types": [],
            }))
            .unwrap()
        };
        let seen = |listed| Seen { at: Instant::now(), listed };
        let memory = Memory::new(seen(vec![listed("0123456789abcdef", false), listed("fedcba9876543210", false)]));
        let view = memory.at_first();
        let mut screen = Screen { servers: "127.0.0.1:4222".to_owned(), memory, view, lost: None };
        let drawn = |screen: &Screen, width, height| {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| screen.draw(frame)).unwrap();
            terminal.backend().to_string()
        };
        for (width, height) in [(1, 1), (20, 5), (40, 12), (80, 24), (200, 60)] {
            assert!(!drawn(&screen, width, height).contains('\u{1b}'));
        }
        assert!(drawn(&screen, 80, 24).contains("2 instances"));
        screen.hear(Ok(seen(vec![listed("fedcba9876543210", true)])));
        let shown = drawn(&screen, 80, 24);
        assert!(shown.contains("no instance serves, 1 drain, 1 gone") && shown.contains("fedcba98 drains"), "{shown}");
        assert!(shown.contains("1 ms #3"), "{shown}");
        screen.hear(Err("no NATS server answers".to_owned()));
        assert!(drawn(&screen, 80, 24).contains("LOST, trying again: no NATS server answers"));
    }
}
