//! What signals do beyond ending a program.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    ffi::c_int,
    io,
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use signal_hook::{
    consts::{SIGXFSZ, TERM_SIGNALS},
    flag,
    iterator::Signals,
};

use crate::stderr;

/// Lets every one of `signals` after the first end the program at once, with 128 plus its number. The flag says that the
/// first has come; lowering it makes the next one the first again.
///
/// # Errors
/// A signal cannot be caught.
pub fn second_ends_at_once(signals: &[c_int]) -> io::Result<Arc<AtomicBool>> {
    let first_came = Arc::new(AtomicBool::new(false));
    for &signal in signals {
        // In this order: the first signal finds the flag down, and raises it.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&first_came))?;
        flag::register(signal, Arc::clone(&first_came))?;
    }
    Ok(first_came)
}

/// Keeps a limit on the size of files (`RLIMIT_FSIZE`) from ending the program: a write beyond it fails as others do.
///
/// # Errors
/// The signal cannot be caught.
pub fn outlive_file_size_limit() -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Writes a panic's message as everything else is written that goes to standard error: the thread that panicked must not wait
/// for whoever should read it.
pub fn write_panics_in_turn() {
    std::panic::set_hook(Box::new(|info| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("<unnamed>");
        let place = info.location().map_or_else(String::new, ToString::to_string);
        let mut text = told(name, &place, words_of(info.payload()));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            text.push_str(&format!("{backtrace}\n"));
        }
        stderr::write(text.as_bytes());
    }));
}

/// What a panic was given to say.
fn words_of(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("something that is no text")
}

/// Most characters of a panic's words that are written.
const MOST_WORDS: usize = 1024;

/// What is said of a panic, in one line: its words may be those of whoever caused it, and are not to begin lines of their own.
fn told(thread: &str, place: &str, words: &str) -> String {
    let words: String = words.chars().take(MOST_WORDS).collect();
    format!("thread '{thread}' panicked at {place}: {}\n", words.escape_debug())
}

/// The signal that is about to end this program, or 0.
static ENDED_BY: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Lets a signal that ends the program remove `directory` first.
///
/// # Errors
/// A signal cannot be caught, or a thread cannot be started.
pub fn remove_when_ended(directory: PathBuf) -> io::Result<()> {
    let mut signals = Signals::new(TERM_SIGNALS)?;
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            let _ = std::fs::remove_dir_all(&directory);
            std::process::exit(128 + signal);
        }
    };
    thread::Builder::new().name("bellrope-signals".to_owned()).spawn(wait)?;
    // Last, so that whoever waits for the end knows that there is a thread that brings it.
    for &signal in TERM_SIGNALS {
        flag::register_usize(signal, Arc::clone(&ENDED_BY), signal.unsigned_abs() as usize)?;
    }
    Ok(())
}

/// Leaves the end of this program to the signal that came, if one did. What the main thread has to say then is only that
/// its directory, or its server, went away below it.
pub fn let_one_end_us() {
    while ENDED_BY.load(Ordering::Relaxed) != 0 {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 48.
    #[test]
    fn a_panics_words_are_one_line_without_end_or_steering() {
        let words = format!("bad\n\u{1b}[2JERROR forged=\"yes\"{}", "é".repeat(10_000));
        let line = told("worker", "a.rs:1:2", &words);
        assert!(line.starts_with("thread 'worker' panicked at a.rs:1:2: bad\\n\\u{1b}[2JERROR forged="), "{line}");
        assert!(line.lines().count() == 1 && line.len() < 3 * MOST_WORDS && line.ends_with("é\n"));
    }
}
