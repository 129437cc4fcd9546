//! `bellrope chat`: a question and the answer as it comes, or a conversation at the terminal.
//!
//! | module | what it holds |
//! |---|---|
//! | [`answer`] | an answer on its way from a server, checked to be without gaps |
//! | [`conversation`] | what was said so far, within what a server takes |
//! | [`figures`] | what an answer took |
//! | [`prompt`] | the conversation at the terminal |
//! | [`question`] | the question, from the command line and from standard input |
//! | [`screen`] | where the answer goes |
//! | [`turn`] | a question asked, and its answer shown and remembered |

mod answer;
mod conversation;
mod figures;
mod prompt;
mod question;
mod screen;
mod turn;

use std::io::{self, IsTerminal};

use anyhow::{Context, bail};
use bellrope_terminal::{Failed, Interrupted, Outcome, signals};
use clap::{Args, builder::NonEmptyStringValueParser};
use signal_hook::consts::SIGINT;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use conversation::{AskArgs, Conversation};
use screen::Screen;
use turn::turn;

use crate::{logging, spawn::ServerArg};

const HELP: &str = r#"Examples:
  bellrope chat 'Who is there?'
  cat main.rs | bellrope chat 'explain'
  git diff | bellrope chat --provider openai --model gpt-5-mini -
  bellrope chat

Without a question, at a terminal, it opens a conversation: Ctrl-C cancels an answer; Ctrl-D, `exit`, `quit`, `/exit`,
`/quit` or Ctrl-C twice at the prompt leave; `/help` says what there is. The questions are kept for the arrow keys in
$XDG_STATE_HOME/bellrope/chat_history, readable by you alone.

Where no server runs it starts one in the background, which all programs of this user share: `bellrope serve` with the
settings of the environment around it (BELLROPE_CONFIG names a file). It ends when it has had no client for ten minutes, and
logs to $XDG_STATE_HOME/bellrope/bellrope.log, or below ~/.local/state.

What a pipe or a file holds on standard input is sent after the question. The answer alone goes to standard output, with
a line break after it if it does not end in one; everything else goes to standard error: reasoning, and in the end what
the answer took. The exit code is 0 only if the answer came whole, and 1 where the most tokens or a
content filter cut it. Ctrl-C cancels the answer at the server, too."#;

/// What to ask whom.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    server: ServerArg,
    #[command(flatten)]
    ask: AskArgs,
    /// Print the chunks of the answer as they come from the server, a line of JSON each.
    #[arg(long)]
    json: bool,
    /// The question; `-`, or none where standard input is no terminal, takes it from standard input.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    text: Option<String>,
}

/// Asks, and prints the answer as it comes.
pub(crate) fn run(args: ChatArgs) -> Outcome {
    logging::init("warn")?;
    let ChatArgs { server, ask, json, text } = args;
    let conversation = Conversation::new(ask.into_request());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = if text.is_none() && io::stdin().is_terminal() {
        if json || !io::stdout().is_terminal() {
            bail!("there is no question; give one, as in `bellrope chat 'Who is there?'`");
        }
        let client = runtime.block_on(server.connect())?;
        prompt::converse(&runtime, &server, client, conversation)
    } else {
        let question = question::from_outside(text)?;
        runtime.block_on(ask_once(&server, conversation, question, json))
    };
    runtime.shutdown_background();
    outcome
}

async fn ask_once(server: &ServerArg, mut conversation: Conversation, question: String, json: bool) -> Outcome {
    let mut interrupts = signal(SignalKind::interrupt()).context("waiting for Ctrl-C")?;
    signals::second_ends_at_once(&[SIGINT]).context("waiting for Ctrl-C")?;
    let mut screen = Screen::new(json);
    conversation.ask(question);
    let asked = async {
        let client = server.connect().await?;
        // What cut the answer is said already.
        if turn(&client, &mut conversation, &mut screen).await? { Ok(()) } else { Err(Failed.into()) }
    };
    let outcome = tokio::select! {
        outcome = asked => outcome,
        // The stream is dropped, and so cancelled at the server.
        _ = interrupts.recv() => Err(Interrupted.into()),
    };
    let ended = screen.end_line();
    outcome.and(ended)
}
