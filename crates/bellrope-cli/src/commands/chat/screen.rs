//! Where the answer goes.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::anyhow;
use bellrope_gateway::Chunk;
use bellrope_terminal::{Outcome, output};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::answer::Piece;

/// Standard output for the answer, standard error for everything else.
#[derive(Debug)]
pub(super) struct Screen {
    /// Whether the chunks are wanted as they come.
    json: bool,
    /// Whether control characters must not get through.
    terminal: bool,
    /// Whether a person reads standard error, in colour.
    dims: bool,
    /// Whether something stands in the last line of standard output.
    line_begun: bool,
    /// Whether reasoning stands in the last line of standard error.
    thinking: bool,
    waiting: Option<ProgressBar>,
}

impl Screen {
    pub(super) fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            json,
            terminal: io::stdout().is_terminal(),
            dims: io::stderr().is_terminal() && !plain,
            line_begun: false,
            thinking: false,
            waiting: None,
        }
    }

    /// Says to a person that the answer takes its time: so long by now.
    pub(super) fn wait(&mut self, so_far: Duration) {
        if !io::stderr().is_terminal() || self.line_begun || self.thinking {
            return;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_elapsed(so_far);
        if let Ok(style) = ProgressStyle::with_template("{spinner} waiting for the answer, {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(125));
        self.waiting = Some(bar);
    }

    /// Shows a piece where it belongs.
    ///
    /// # Errors
    /// Standard output is gone, or the piece says that the answer failed.
    pub(super) fn show(&mut self, piece: Piece) -> Outcome {
        self.end_wait();
        let Piece { chunk, json } = piece;
        if self.json {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&json)?;
            stdout.write_all(b"\n")?;
            stdout.flush()?;
        }
        match chunk {
            Chunk::Error(info) => {
                let again = if info.retryable { "; it may succeed when it is asked again" } else { "" };
                return Err(anyhow!("{}: {}{again}", info.code, info.message));
            }
            _ if self.json => {}
            Chunk::Text { text } => {
                self.end_thought();
                let mut stdout = io::stdout().lock();
                stdout.write_all(shown(&text, self.terminal).as_bytes())?;
                stdout.flush()?;
                if !text.is_empty() {
                    self.line_begun = !text.ends_with('\n');
                }
            }
            Chunk::Reasoning { text } => self.think(&text)?,
            Chunk::Notice { text } => self.aside(&text)?,
            Chunk::Resumable { id } => {
                self.aside(&format!("if this is cut off, `bellrope chat --resume {id}` goes on with it"))?;
            }
            Chunk::ToolCall(delta) => {
                if let Some(name) = delta.name {
                    self.note(&format!("the model wants to call the tool {name:?}, and there is none"))?;
                }
            }
            // The others are told of by whoever asked; or they are of a later version.
            _ => {}
        }
        Ok(())
    }

    /// Says something that is not part of the answer.
    pub(super) fn note(&mut self, text: &str) -> Outcome {
        self.make_room()?;
        output::note(format_args!("{}", shown(text, true)));
        Ok(())
    }

    /// Says something that is less important than everything else.
    pub(super) fn aside(&mut self, text: &str) -> Outcome {
        self.make_room()?;
        let (begin, end) = self.dimmed();
        output::note(format_args!("{begin}{}{end}", shown(text, true)));
        Ok(())
    }

    /// Ends the line that the answer stopped in.
    pub(super) fn end_line(&mut self) -> Outcome {
        self.end_wait();
        self.end_thought();
        if std::mem::take(&mut self.line_begun) {
            output::line(format_args!(""))?;
        }
        Ok(())
    }

    /// Makes sure that what comes next on standard error has a line of its own.
    fn make_room(&mut self) -> Outcome {
        self.end_wait();
        if self.terminal {
            self.end_line()?;
        }
        self.end_thought();
        Ok(())
    }

    fn think(&mut self, text: &str) -> Outcome {
        if !self.thinking {
            self.make_room()?;
        }
        let (begin, end) = self.dimmed();
        let label = if self.thinking { "" } else { "reasoning: " };
        self.thinking = true;
        // What is no answer may be lost.
        let _ = write!(io::stderr(), "{begin}{label}{}{end}", shown(text, true));
        Ok(())
    }

    fn end_thought(&mut self) {
        if std::mem::take(&mut self.thinking) {
            let _ = writeln!(io::stderr());
        }
    }

    fn end_wait(&mut self) {
        if let Some(bar) = self.waiting.take() {
            bar.finish_and_clear();
        }
    }

    /// What begins and ends faint text.
    fn dimmed(&self) -> (&'static str, &'static str) {
        if self.dims { ("\x1b[2m", "\x1b[0m") } else { ("", "") }
    }
}

/// Text from outside, without the control characters that would steer a terminal.
fn shown(text: &str, terminal: bool) -> Cow<'_, str> {
    if terminal { output::unsteered(text) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters_and_a_pipe_gets_all() {
        let text = "a\tb\n\x1b[2J\r";
        assert_eq!(shown(text, true), "a\tb\n\\u{1b}[2J\\r");
        assert_eq!(shown(text, false), text);
    }

    #[test]
    fn that_an_answer_is_waited_for_is_said_in_no_line_that_is_begun() {
        let begun: [fn(&mut Screen); 2] = [|screen| screen.line_begun = true, |screen| screen.thinking = true];
        for begin in begun {
            let mut screen = Screen::new(false);
            begin(&mut screen);
            screen.wait(Duration::from_secs(1));
            assert!(screen.waiting.is_none());
        }
    }

    #[test]
    fn an_error_ends_the_answer_with_code_and_advice() {
        let info = bellrope_gateway::ErrorInfo {
            code: "overloaded".into(),
            message: "the provider answered 503".into(),
            retryable: true,
            ..bellrope_gateway::ErrorInfo::default()
        };
        let piece = Piece { chunk: Chunk::Error(info), json: Vec::new() };
        let error = Screen::new(false).show(piece).unwrap_err().to_string();
        assert_eq!(error, "overloaded: the provider answered 503; it may succeed when it is asked again");
    }
}
