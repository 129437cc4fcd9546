//! What `bellrope top` shows.

use std::path::Path;

use bellrope::status::{OPERATOR, Status};
use bellrope_terminal::{Outcome, output};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table},
};

use super::status::{Latency, TopReport, TypeView, since};
use crate::{
    live,
    operator::{for_whom, is_noteworthy, state_in_words},
    units::{duration, micros, rate},
};

/// The server as it was last seen.
#[derive(Debug)]
pub(super) struct Screen {
    socket: String,
    last: Status,
    view: TopReport,
    lost: Option<String>,
}

const GOOD: Color = Color::Green;
const BAD: Color = Color::Red;

impl Screen {
    pub(super) fn new(socket: &Path, first: Status) -> Self {
        let view = since(&first, None);
        Self { socket: socket.to_string_lossy().escape_debug().to_string(), last: first, view, lost: None }
    }
}

impl live::View for Screen {
    type Look = Box<Status>;

    fn hear(&mut self, look: Result<Box<Status>, String>) {
        match look {
            Ok(status) => {
                self.view = since(&status, Some(&self.last));
                self.last = *status;
                self.lost = None;
            }
            Err(reason) => self.lost = Some(reason),
        }
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let figures = figures(&self.view);
        let tripped: Vec<_> = self.view.breakers.iter().filter(|row| is_noteworthy(row)).collect();
        let rows = [1, 1, figures.len() as u16, 1, tripped.len().clamp(1, 4) as u16, 1];
        let [head, lost, middle, _, breakers, _, table, foot] = Layout::vertical(
            rows.map(Constraint::Length).into_iter().chain([Constraint::Min(2), Constraint::Length(1)]),
        )
        .areas(frame.area());
        frame.render_widget(self.head(), head);
        if let Some(reason) = &self.lost {
            let text = format!("LOST, trying again: {reason}");
            frame.render_widget(Paragraph::new(text).style(Style::new().fg(BAD).bold()), lost);
        }
        let figures: Vec<_> = figures.iter().map(|line| Line::from(fitted(line, usize::from(middle.width)))).collect();
        frame.render_widget(Paragraph::new(figures), middle);
        let text: Vec<Line<'_>> = match tripped.is_empty() {
            true => vec![Line::from(format!("Breakers     {} closed", self.view.breakers.len()))],
            false => tripped
                .iter()
                .map(|row| {
                    let (name, state) = (&row.name, state_in_words(row));
                    let state = format!("Breaker      {name} is {state}{}, {} rejected", for_whom(row), row.rejections);
                    Line::from(state).style(Style::new().fg(BAD))
                })
                .collect(),
        };
        frame.render_widget(Paragraph::new(text), breakers);
        self.types(frame, table);
        frame.render_widget(Paragraph::new("q quits").style(Style::new().add_modifier(Modifier::DIM)), foot);
    }
}

impl Screen {
    fn head(&self) -> Paragraph<'_> {
        let colour = if self.view.status == "healthy" && self.lost.is_none() { GOOD } else { BAD };
        let status = if self.lost.is_some() { "lost" } else { &self.view.status };
        let reason = self.view.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        Paragraph::new(Line::from(vec![
            Span::from("bellrope ").bold(),
            Span::from(format!("{} ", self.view.version)),
            Span::styled(format!("{status}{reason}"), Style::new().fg(colour).bold()),
            Span::from(format!(", up {}, {}", duration(self.view.uptime_seconds), self.socket)),
        ]))
    }

    fn types(&self, frame: &mut Frame<'_>, area: Rect) {
        let columns = if area.width < WIDE { &NARROW[..] } else { &ALL[..] };
        let header = Row::new(columns.iter().map(|column| COLUMNS[*column].0));
        let rows = by_traffic(&self.view).into_iter().map(|cells| {
            let cell = |column: &usize| match (*column, cells[*column].clone()) {
                (0, name) => Cell::from(name),
                (_, number) => Cell::from(Line::from(number).right_aligned()),
            };
            Row::new(columns.iter().map(cell).collect::<Vec<_>>())
        });
        let widths = columns.iter().map(|column| COLUMNS[*column].1);
        let header = header.style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_widget(Table::new(rows, widths).header(header), area);
    }
}

/// From this width on all columns have room.
const WIDE: u16 = 80;
const ALL: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
const NARROW: [usize; 4] = [0, 1, 5, 7];
const COLUMNS: [(&str, Constraint); 8] = [
    ("TYPE", Constraint::Min(12)),
    ("   CALLS/S", Constraint::Length(10)),
    ("      CALLS", Constraint::Length(11)),
    ("  FAILED", Constraint::Length(8)),
    ("RUNNING", Constraint::Length(7)),
    ("     P50", Constraint::Length(8)),
    ("     P95", Constraint::Length(8)),
    ("     P99", Constraint::Length(8)),
];

/// Prints the same without a terminal.
pub(super) fn print(view: &TopReport) -> Outcome {
    output::line(format_args!("bellrope {} {}, up {}", view.version, view.status, duration(view.uptime_seconds)))?;
    figures(view).iter().try_for_each(|line| output::line(format_args!("{line}")))?;
    for row in &view.breakers {
        let (name, state) = (row.name.escape_debug(), state_in_words(row));
        output::line(format_args!("Breaker      {name} is {state}{}", for_whom(row)))?;
    }
    let [name, ..] = COLUMNS;
    let wide = view.types.iter().map(|row| row.name.escape_debug().count()).max().unwrap_or(0);
    let header: Vec<_> = COLUMNS[1..].iter().map(|(name, _)| *name).collect();
    output::line(format_args!("\n{:wide$}  {}", name.0, header.join(" ")))?;
    by_traffic(view).into_iter().try_for_each(|[name, rate, calls, failed, running, p50, p95, p99]| {
        let name = name.escape_debug().to_string();
        output::line(format_args!(
            "{name:wide$}  {rate:>10} {calls:>11} {failed:>8} {running:>7} {p50:>8} {p95:>8} {p99:>8}"
        ))
    })
}

/// As much of a line as fits, up to the end of one of its parts: half a number would be read as another one.
fn fitted(line: &str, width: usize) -> String {
    const MORE: &str = " …";
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let fits = |end: &usize| line[..*end].chars().count() + MORE.chars().count() <= width;
    let end = line.rmatch_indices([',', ':', '(']).map(|(at, _)| at).find(fits).unwrap_or(0);
    format!("{}{MORE}", line[..end].trim_end())
}

fn figures(view: &TopReport) -> Vec<String> {
    let Latency { p50_us, p95_us, p99_us } = view.latency;
    let memory = &view.memory;
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let mut lines = vec![
        format!(
            "Calls        {}/s, {} in all, {}/s failed",
            rate(view.calls_per_second),
            view.calls,
            rate(view.errors_per_second)
        ),
        format!("Latency      p50 {}, p95 {}, p99 {} (on workers)", micros(p50_us), micros(p95_us), micros(p99_us)),
        format!(
            "Memory       {} KiB: {} heap and stacks, {} program, {} rings",
            memory.rss_kb, memory.anon_kb, memory.file_kb, memory.shmem_kb
        ),
        format!(
            "Connections  {} of {} ({} shm, {} stream), {} requests queued",
            view.active_connections,
            view.max_connections,
            view.transports.shm,
            view.transports.stream,
            view.queued_requests
        ),
    ];
    if let Some(buffers) = &view.buffers {
        lines.push(format!("Budget       {:.1} of {:.0} MiB", mib(buffers.used_bytes), mib(buffers.limit_bytes)));
    }
    lines
}

/// The table's cells, the busiest type first. The operator's own come last: most of their calls are those of this command.
fn by_traffic(view: &TopReport) -> Vec<[String; 8]> {
    let mut types: Vec<_> = view.types.iter().collect();
    let is_ours = |row: &TypeView| row.name.starts_with(OPERATOR);
    types.sort_by(|a, b| is_ours(a).cmp(&is_ours(b)).then(b.calls_per_second.total_cmp(&a.calls_per_second)));
    let cells = types.into_iter().map(|row| {
        let Latency { p50_us, p95_us, p99_us } = row.latency;
        let [p50, p95, p99] = [p50_us, p95_us, p99_us].map(micros);
        let running = row.running.to_string();
        [
            row.name.clone(),
            rate(row.calls_per_second),
            row.calls.to_string(),
            row.failed.to_string(),
            running,
            p50,
            p95,
            p99,
        ]
    });
    cells.collect()
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::live::View as _;

    fn drawn(screen: &Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn it_fits_any_terminal_and_says_when_the_server_is_lost() {
        let json = r#"{"at_ms":1,"bounds_us":[1,10],"buckets":[[1,1,0]],"health":{"status":"healthy","max_connections":9,
            "breakers":[{"name":"echo","state":"open","rejections":3}],
            "types":[{"name":"echo","total":2,"runs_on_worker":true,"outcomes":{"ok":2}}]}}"#;
        let mut screen = Screen::new(Path::new("/run/bell.sock"), serde_json::from_str(json).unwrap());
        for (width, height) in [(1, 1), (20, 5), (80, 24), (200, 60)] {
            drawn(&screen, width, height);
        }
        let text = drawn(&screen, 80, 24);
        for part in [
            "healthy",
            "/run/bell.sock",
            "p50 1 us, p95 10 us",
            "0 of 9 (0 shm, 0 stream)",
            "echo is open, 3 rejected",
            "CALLS/S",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        screen.hear(Err("no server listens".to_owned()));
        assert!(drawn(&screen, 80, 24).contains("LOST, trying again: no server listens"));
        screen.hear(Ok(Box::new(serde_json::from_str(json).unwrap())));
        assert!(!drawn(&screen, 80, 24).contains("LOST"));
    }

    #[test]
    fn a_line_that_does_not_fit_ends_behind_a_part_of_it() {
        let line = "Memory       4820 KiB: 1704 heap and stacks, 3092 program, 24 rings";
        for (width, fitted_line) in [
            (67, line),
            (66, "Memory       4820 KiB: 1704 heap and stacks, 3092 program …"),
            (45, "Memory       4820 KiB: 1704 heap and stacks …"),
            (30, "Memory       4820 KiB …"),
            (10, " …"),
        ] {
            assert_eq!(fitted(line, width), fitted_line);
        }
        assert_eq!(line.chars().count(), 67);
    }

    #[test]
    fn the_busiest_type_comes_first_and_the_operators_own_last() {
        let row =
            |name: &str, calls_per_second| TypeView { name: name.to_owned(), calls_per_second, ..TypeView::default() };
        let types =
            vec![row("bellrope.stats", 9.0), row("ai.chat", 1.0), row("echo", 5.0), row("bellrope.breaker", 0.0)];
        let rows = by_traffic(&TopReport { types, ..TopReport::default() });
        let names: Vec<_> = rows.into_iter().map(|[name, ..]| name).collect();
        assert_eq!(names, ["echo", "ai.chat", "bellrope.stats", "bellrope.breaker"]);
    }
}
