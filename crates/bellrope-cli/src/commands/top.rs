//! `bellrope top`: a server, live in a terminal.
//!
//! A thread of its own asks the server, so that the keys are heard also while nobody answers. It keeps at most one answer
//! ahead of the screen.

mod screen;
mod status;

use std::{
    io::IsTerminal,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bellrope::{
    Client,
    status::{STATS, Status},
};
use bellrope_terminal::{Outcome, in_words, output};
use clap::Args;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use screen::Screen;
use signal_hook::{consts::TERM_SIGNALS, flag};
use status::{News, since};

use crate::{logging, operator, socket::SocketArg};

/// How soon a key is heard, and a signal.
const LISTEN: Duration = Duration::from_millis(100);

const HELP: &str = "\
Examples:
  bellrope top
  bellrope top --once --json

Keys: q, Esc and Ctrl-C end it. Rates and quantiles are of the last interval; a quantile is the upper bound of its bucket.
The operator's own types (bellrope.*) come last in the table. When the server goes away, what was last seen stays on the
screen until it is back.";

/// Whom to watch, and how.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    server: SocketArg,
    /// Milliseconds between two looks.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(100..=60_000))]
    interval: u32,
    /// Print what two looks, one interval apart, make, and end.
    #[arg(long)]
    once: bool,
    /// Print it as JSON; only with --once.
    #[arg(long, requires = "once")]
    json: bool,
}

/// Watches until a key ends it.
pub(crate) fn run(args: &TopArgs) -> Outcome {
    logging::init("error")?;
    let interval = Duration::from_millis(args.interval.into());
    if args.once {
        return once(args, interval);
    }
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    ensure!(terminal, "top needs a terminal; `bellrope top --once` prints what there is to see");
    let client = operator::connect(&args.server)?;
    // The first answer comes before the terminal is touched: a server that cannot be watched is said so in plain text.
    let first = look(&client)?;
    // The signal that ends it, so that the terminal is given back first; 0 for none.
    let ended = Arc::new(AtomicUsize::new(0));
    for &signal in TERM_SIGNALS {
        let number = usize::try_from(signal).unwrap_or_default();
        flag::register_usize(signal, Arc::clone(&ended), number).context("waiting for signals")?;
    }
    let (sender, news) = mpsc::sync_channel(1);
    let asking = move || ask_on(&client, interval, &sender);
    std::thread::Builder::new().name("bellrope-ask".to_owned()).spawn(asking).context("starting a thread")?;

    // This takes the terminal, and gives it back also on a panic.
    let terminal = ratatui::try_init().context("the terminal cannot be used")?;
    let watched = watch(terminal, Screen::new(&args.server.path(), first), &news, &ended);
    ratatui::restore();
    watched?;
    match ended.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => std::process::exit(128 + signal as i32),
    }
}

fn once(args: &TopArgs, interval: Duration) -> Outcome {
    let client = operator::connect(&args.server)?;
    let before = look(&client)?;
    std::thread::sleep(interval);
    let view = since(&look(&client)?, Some(&before));
    if args.json { output::json(&view) } else { screen::print(&view) }
}

/// One question.
fn look(client: &Client) -> anyhow::Result<Status> {
    let answer = operator::ask(client, STATS, b"")?;
    serde_json::from_slice(&answer).context("the server's answer cannot be read")
}

/// Asks once an interval, until nobody listens any more.
fn ask_on(client: &Client, interval: Duration, sender: &SyncSender<News>) {
    let mut due = Instant::now() + interval;
    loop {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due = Instant::now() + interval;
        let news = match look(client) {
            Ok(status) => News::Status(Box::new(status)),
            Err(error) => News::Lost(in_words(&error)),
        };
        if let Err(TrySendError::Disconnected(_)) = sender.try_send(news) {
            return;
        }
    }
}

fn watch(mut terminal: DefaultTerminal, mut screen: Screen, news: &Receiver<News>, ended: &AtomicUsize) -> Outcome {
    while ended.load(Ordering::Relaxed) == 0 {
        while let Ok(news) = news.try_recv() {
            screen.hear(news);
        }
        terminal.draw(|frame| screen.draw(frame)).context("writing to the terminal")?;
        if event::poll(LISTEN).context("reading the terminal")?
            && let Event::Key(key) = event::read().context("reading the terminal")?
            && ends(key)
        {
            break;
        }
    }
    Ok(())
}

fn ends(key: KeyEvent) -> bool {
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}
