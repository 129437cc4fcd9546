//! The question, from the command line and from standard input.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileTypeExt},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context, ensure};
use bellrope_terminal::output;

use crate::input::read_input;

/// How long standard input may take to end before whoever waits is told what is waited for.
const SILENCE: Duration = Duration::from_secs(2);

/// The question: what was given, with what a pipe or a file holds on standard input after it.
pub(super) fn from_outside(text: Option<String>) -> anyhow::Result<String> {
    let given = text.filter(|text| text != "-");
    if given.is_some() && !holds_text(&io::stdin())? {
        return Ok(given.unwrap_or_default());
    }
    let input = String::from_utf8(read_with_a_word()?).context("standard input is not UTF-8")?;
    match given {
        Some(question) if input.trim().is_empty() => Ok(question),
        Some(question) => Ok(format!("{question}\n\n{input}")),
        None => {
            ensure!(!input.trim().is_empty(), "standard input is empty; write the question there");
            Ok(input)
        }
    }
}

/// Whether somebody may have put something there for us: a pipe or a file, no terminal and nothing like `/dev/null`.
fn holds_text(stdin: &impl AsFd) -> anyhow::Result<bool> {
    let stdin = File::from(stdin.as_fd().try_clone_to_owned().context("looking at standard input")?);
    let kind = stdin.metadata().context("looking at standard input")?.file_type();
    Ok(kind.is_fifo() || kind.is_file())
}

/// All of standard input. A pipe that nobody closes would be waited for without end, so that is said.
fn read_with_a_word() -> anyhow::Result<Vec<u8>> {
    let (done, wait) = mpsc::channel::<()>();
    // Where no thread is to be had nobody says so.
    let _ = std::thread::Builder::new().spawn(move || {
        if wait.recv_timeout(SILENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            output::note(format_args!(
                "waiting for the end of standard input; if nothing is to come from there, add </dev/null"
            ));
        }
    });
    let input = read_input();
    drop(done);
    input
}
