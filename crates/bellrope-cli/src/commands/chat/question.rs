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
    let input = in_words(read_with_a_word()?);
    match given {
        Some(question) if input.trim().is_empty() => Ok(question),
        Some(question) => Ok(format!("{question}\n\n{input}")),
        None => {
            ensure!(!input.trim().is_empty(), "standard input is empty; write the question there");
            Ok(input)
        }
    }
}

/// Input as text. Source files in Latin-1 and the like are text, too, and a model can read nearly all of it.
fn in_words(input: Vec<u8>) -> String {
    String::from_utf8(input).unwrap_or_else(|error| {
        output::note(format_args!("standard input is not all UTF-8; what is not is sent as \u{fffd}"));
        String::from_utf8_lossy(error.as_bytes()).into_owned()
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_another_encoding_is_sent_as_far_as_it_is_text() {
        assert_eq!(in_words("Größe".into()), "Größe");
        assert_eq!(in_words(b"Gr\xf6\xdfe = 1".to_vec()), "Gr\u{fffd}\u{fffd}e = 1");
    }
}
