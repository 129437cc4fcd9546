//! A view of something that changes, live in a terminal.
//!
//! A thread of its own looks, so that the keys are heard also while nobody answers. It keeps at most one look ahead of the
//! screen.

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
use bellrope_terminal::{Outcome, in_words};
use clap::Args;
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use signal_hook::{consts::TERM_SIGNALS, flag};

/// How soon a key is heard, and a signal.
const LISTEN: Duration = Duration::from_millis(100);

/// How often to look, and whether to show it at all.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Milliseconds between two samples.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(100..=60_000))]
    interval: u32,
    /// Take two samples one interval apart, print the result, and exit.
    #[arg(long)]
    pub(crate) once: bool,
    /// Print it as JSON; only with --once.
    #[arg(long, requires = "once")]
    pub(crate) json: bool,
}

impl WatchArgs {
    /// The time between two looks.
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_millis(self.interval.into())
    }
}

/// What is shown.
pub(crate) trait View {
    /// What is learned by looking once.
    type Look: Send + 'static;

    /// Takes what was learned, or why nothing could be.
    fn hear(&mut self, look: Result<Self::Look, String>);

    fn draw(&self, frame: &mut Frame<'_>);
}

/// Fails where there is no terminal to show anything in.
pub(crate) fn ensure_terminal(command: &str) -> Outcome {
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    ensure!(terminal, "{command} needs a terminal; `bellrope {command} --once` prints what there is to see");
    Ok(())
}

/// Shows a view and looks once an interval, until a key ends it. A signal ends it, and the program.
pub(crate) fn show<V: View>(
    view: V,
    interval: Duration,
    look: impl FnMut() -> anyhow::Result<V::Look> + Send + 'static,
) -> Outcome {
    // The signal that ends it, so that the terminal is given back first; 0 for none.
    let ended = Arc::new(AtomicUsize::new(0));
    for &signal in TERM_SIGNALS {
        let number = usize::try_from(signal).unwrap_or_default();
        flag::register_usize(signal, Arc::clone(&ended), number).context("waiting for signals")?;
    }
    let (sender, looks) = mpsc::sync_channel(1);
    let looking = move || look_on(look, interval, &sender);
    std::thread::Builder::new().name("bellrope-look".to_owned()).spawn(looking).context("starting a thread")?;

    // This takes the terminal, and gives it back also on a panic.
    let terminal = ratatui::try_init().context("the terminal cannot be used")?;
    let watched = watch(terminal, view, &looks, &ended);
    ratatui::restore();
    watched?;
    match ended.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => std::process::exit(128 + signal as i32),
    }
}

/// Looks once an interval, until nobody listens any more.
fn look_on<L>(mut look: impl FnMut() -> anyhow::Result<L>, interval: Duration, sender: &SyncSender<Result<L, String>>) {
    let mut due = Instant::now() + interval;
    loop {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due = Instant::now() + interval;
        let look = look().map_err(|error| in_words(&error));
        if let Err(TrySendError::Disconnected(_)) = sender.try_send(look) {
            return;
        }
    }
}

fn watch<V: View>(
    mut terminal: DefaultTerminal,
    mut view: V,
    looks: &Receiver<Result<V::Look, String>>,
    ended: &AtomicUsize,
) -> Outcome {
    while ended.load(Ordering::Relaxed) == 0 {
        while let Ok(look) = looks.try_recv() {
            view.hear(look);
        }
        terminal.draw(|frame| view.draw(frame)).context("writing to the terminal")?;
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
