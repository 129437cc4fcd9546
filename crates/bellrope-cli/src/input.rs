//! What comes from standard input, within bounds.

use std::io::{self, BufRead as _, Read as _};

use anyhow::{Context as _, ensure};

/// The most bytes that are read from standard input: far more than any server takes in one message.
pub(crate) const MAX_INPUT: u64 = 64 * 1024 * 1024;

/// All of standard input.
pub(crate) fn read_input() -> anyhow::Result<Vec<u8>> {
    let mut input = Vec::new();
    io::stdin().lock().take(MAX_INPUT + 1).read_to_end(&mut input).context("cannot read standard input")?;
    ensure!(input.len() as u64 <= MAX_INPUT, "standard input holds more than {MAX_INPUT} bytes; send less at a time");
    Ok(input)
}

/// The next line of standard input, without what ends it.
pub(crate) fn next_line() -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    io::stdin().lock().take(MAX_INPUT + 1).read_until(b'\n', &mut line).context("cannot read standard input")?;
    ensure!(line.len() as u64 <= MAX_INPUT, "a line of standard input has more than {MAX_INPUT} bytes");
    if line.is_empty() {
        return Ok(None);
    }
    line.truncate(line.trim_ascii_end().len());
    Ok(Some(line))
}
