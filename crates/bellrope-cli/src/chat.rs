//! `bellrope chat`: one question, and the answer as it comes.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};
use bellrope_gateway::{ChatRequest, Chunk, SequencedChunk, StopReason};
use clap::{Args, builder::NonEmptyStringValueParser};
use signal_hook::consts::SIGINT;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Interrupted, Outcome, call::read_input, logging, output, signals, socket, socket::SocketArg};

/// How long a stream may take to end after its last chunk.
const PARTING: Duration = Duration::from_secs(1);

const HELP: &str = r#"Examples:
  bellrope chat 'Who is there?'
  git diff | bellrope chat --provider openai --model gpt-5-mini -

The answer alone goes to standard output, with a line break after it if it does not end in one; everything else goes to
standard error. The exit code is 0 only if the answer came whole. Ctrl-C cancels the answer at the server, too."#;

/// What to ask whom.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    server: SocketArg,
    /// The AI provider to ask [default: the server's own choice].
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// The model to ask, as its provider calls it [default: the provider's own choice].
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The question; `-` reads it from standard input.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    text: String,
}

/// Asks, and prints the answer as it comes.
pub(crate) fn run(args: ChatArgs) -> Outcome {
    logging::init("warn")?;
    let ChatArgs { server, provider, model, text } = args;
    let request = ChatRequest { provider, model, ..ChatRequest::user(question(text)?) };
    let request = serde_json::to_vec(&request)?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut screen = Screen::new();
    let outcome = runtime.block_on(async {
        let mut interrupts = signal(SignalKind::interrupt()).context("waiting for Ctrl-C")?;
        signals::second_ends_at_once(&[SIGINT]).context("waiting for Ctrl-C")?;
        tokio::select! {
            outcome = converse(&server, &request, &mut screen) => outcome,
            // The stream is dropped, and so cancelled at the server.
            _ = interrupts.recv() => Err(Interrupted.into()),
        }
    });
    runtime.shutdown_background();
    let ended = screen.end_line();
    outcome.and(ended)
}

fn question(text: String) -> anyhow::Result<String> {
    if text != "-" {
        return Ok(text);
    }
    let text = String::from_utf8(read_input()?).context("standard input is not UTF-8")?;
    ensure!(!text.trim().is_empty(), "standard input is empty; write the question there");
    Ok(text)
}

/// Asks the server. Fails unless the answer comes whole.
async fn converse(server: &SocketArg, request: &[u8], screen: &mut Screen) -> Outcome {
    let client = socket::connect_async(server.config()).await?;
    let mut stream = client.stream("ai.chat_stream", request).await?;
    let mut due = 0;
    while let Some(bytes) = stream.next().await {
        let piece: SequencedChunk =
            serde_json::from_slice(&bytes?).context("the server sent a chunk that cannot be read")?;
        ensure!(piece.seq == due, "chunk {} came where {due} was due; a part of the answer is missing", piece.seq);
        due += 1;
        if screen.show(piece.chunk)? {
            // A stream that ends by itself does not count as cancelled.
            let _ = tokio::time::timeout(PARTING, stream.next()).await;
            return Ok(());
        }
    }
    bail!("the answer broke off: the server ended it without saying that it is whole");
}

/// Where the answer goes.
struct Screen {
    /// Whether control characters must not get through.
    terminal: bool,
    /// Whether something stands in the last line of standard output.
    line_begun: bool,
    /// Whether reasoning stands in the last line of standard error.
    thinking: bool,
}

impl Screen {
    fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), line_begun: false, thinking: false }
    }

    /// Shows a chunk where it belongs. Answers whether it was the last.
    fn show(&mut self, chunk: Chunk) -> anyhow::Result<bool> {
        match chunk {
            Chunk::Text { text } => {
                self.end_thought();
                let mut stdout = io::stdout().lock();
                stdout.write_all(shown(&text, self.terminal).as_bytes())?;
                stdout.flush()?;
                if !text.is_empty() {
                    self.line_begun = !text.ends_with('\n');
                }
            }
            Chunk::Reasoning { text } => self.think(&text),
            Chunk::ToolCall(delta) => {
                if let Some(name) = delta.name {
                    self.note(&format!("the model wants to call the tool {name:?}, and there is none"))?;
                }
            }
            Chunk::Usage(usage) => {
                self.note(&format!("usage: {} tokens read, {} written", usage.input_tokens, usage.output_tokens))?;
            }
            Chunk::Done { stop_reason } => {
                if stop_reason != StopReason::EndTurn {
                    self.note(&format!("the model stopped early: {}", word(stop_reason)))?;
                }
                return Ok(true);
            }
            Chunk::Error(info) => {
                let again = if info.retryable { "; it may succeed when it is asked again" } else { "" };
                return Err(anyhow!("{}: {}{again}", info.code, info.message));
            }
            // A kind of a later version.
            _ => {}
        }
        Ok(false)
    }

    fn think(&mut self, text: &str) {
        let begin = if self.thinking { "" } else { "reasoning: " };
        self.thinking = true;
        // What is no answer may be lost.
        let _ = write!(io::stderr(), "{begin}{}", shown(text, true));
    }

    fn end_thought(&mut self) {
        if std::mem::take(&mut self.thinking) {
            let _ = writeln!(io::stderr());
        }
    }

    /// Says something that is not part of the answer.
    fn note(&mut self, text: &str) -> Outcome {
        if self.terminal {
            self.end_line()?;
        }
        self.end_thought();
        output::note(format_args!("{}", shown(text, true)));
        Ok(())
    }

    /// Ends the line that the answer stopped in.
    fn end_line(&mut self) -> Outcome {
        self.end_thought();
        if std::mem::take(&mut self.line_begun) {
            output::line(format_args!(""))?;
        }
        Ok(())
    }
}

/// Text from outside, without the control characters that would steer a terminal.
fn shown(text: &str, terminal: bool) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !terminal || !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().map(|c| if steers(c) { c.escape_default().to_string() } else { c.to_string() });
    Cow::Owned(escaped.collect())
}

/// The word that a reason to stop has on the wire.
fn word(reason: StopReason) -> String {
    serde_json::to_value(reason).ok().and_then(|word| Some(word.as_str()?.to_owned())).unwrap_or_default()
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
    fn an_error_ends_the_answer_with_code_and_advice() {
        let info = bellrope_gateway::ErrorInfo {
            code: "overloaded".into(),
            message: "the provider answered 503".into(),
            retryable: true,
        };
        let error = Screen::new().show(Chunk::Error(info)).unwrap_err().to_string();
        assert_eq!(error, "overloaded: the provider answered 503; it may succeed when it is asked again");
        assert_eq!(word(StopReason::MaxTokens), "max_tokens");
    }
}
