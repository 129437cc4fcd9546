//! `bellrope chat`: a question and the answer as it comes, or a conversation at the terminal.
//!
//! | module | what it holds |
//! |---|---|
//! | [`answer`] | an answer on its way from a server, checked to be without gaps |
//! | [`conversation`] | what was said so far, within what a server takes |
//! | [`figures`] | what an answer took |
//! | [`kept`] | the id of the answer that can be gone on with |
//! | [`prompt`] | the conversation at the terminal |
//! | [`question`] | the question, from the command line and from standard input |
//! | [`screen`] | where the answer goes |
//! | [`turn`] | a question asked, and its answer shown and remembered |

mod answer;
mod conversation;
mod figures;
mod kept;
mod prompt;
mod question;
mod screen;
mod turn;

use std::io::{self, IsTerminal};

use anyhow::{Context, bail};
use bellrope_gateway::ChatRequest;
use bellrope_terminal::{Failed, Interrupted, Outcome, signals};
use clap::{Args, builder::NonEmptyStringValueParser};
use signal_hook::consts::SIGINT;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use conversation::{AskArgs, Conversation};
use screen::Screen;
use turn::turn;

use crate::{logging, socket, spawn::ServerArg};

const HELP: &str = r#"Examples:
  bellrope chat 'Who is there?'
  cat main.rs | bellrope chat 'explain'
  git diff | bellrope chat --provider openai --model gpt-5-mini -
  bellrope chat
  bellrope chat --resumable 'Write a long story'; bellrope chat --resume

Without a question, at a terminal, it opens a conversation: Ctrl-C cancels an answer; Ctrl-D, `exit`, `quit`, `/exit`,
`/quit` or Ctrl-C twice at the prompt leave; `/help` says what there is. The questions are kept for the arrow keys in
$XDG_STATE_HOME/bellrope/chat_history, readable by you alone.

Where no server runs it starts one in the background, which all programs of this user share: `bellrope serve` with the
settings of the environment around it (BELLROPE_CONFIG names a file). It ends when it has had no client for ten minutes, and
logs to $XDG_STATE_HOME/bellrope/bellrope.log, or below ~/.local/state.

What a pipe or a file holds on standard input is sent after the question. The answer alone goes to standard output, with
a line break after it if it does not end in one; everything else goes to standard error: reasoning, and in the end what
the answer took. The exit code is 0 only if the answer came whole, and 1 where the most tokens or a
content filter cut it. Ctrl-C cancels the answer at the server, too.

With --resumable an answer survives this program: the server keeps it for a while (gateway.answers.keep_s, 60 seconds), and
`bellrope chat --resume` prints all of it from its beginning, what is still to come too. The id of the last one is kept in
$XDG_STATE_HOME/bellrope/last_answer, readable by you alone."#;

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
    /// Let the server keep the answer for a while, so that `--resume` can go on with it if this program ends.
    #[arg(long)]
    resumable: bool,
    /// Print an answer that is kept, the last one if no ID is given, in place of asking.
    #[arg(long, value_name = "ID", num_args = 0..=1, conflicts_with_all = ["resumable", "text"])]
    resume: Option<Option<String>>,
    /// The question; `-`, or none where standard input is no terminal, takes it from standard input.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    text: Option<String>,
}

/// Asks, and prints the answer as it comes.
pub(crate) fn run(args: ChatArgs) -> Outcome {
    logging::init("warn")?;
    let ChatArgs { server, ask, json, resumable, resume, text } = args;
    let conversation = Conversation::new(ChatRequest { resumable, ..ask.into_request() });
    let runtime = socket::runtime()?;
    let outcome = if let Some(id) = resume {
        let id = id.map_or_else(kept::last, Ok)?;
        runtime.block_on(show(json, async |screen| {
            // A server that is started now has no answer.
            let client = server.find().await.context("the answer cannot be gone on with")?;
            turn::resume(&client, &id, screen).await
        }))
    } else if text.is_none() && io::stdin().is_terminal() {
        if json || !io::stdout().is_terminal() {
            bail!("there is no question; give one, as in `bellrope chat 'Who is there?'`");
        }
        let client = runtime.block_on(server.connect())?;
        prompt::converse(&runtime, &server, client, conversation)
    } else {
        let question = question::from_outside(text)?;
        runtime.block_on(show(json, async |screen| {
            let mut conversation = conversation;
            conversation.ask(question);
            let client = server.connect().await?;
            turn(&client, &mut conversation, screen).await
        }))
    };
    runtime.shutdown_background();
    outcome
}

/// Shows an answer that `asked` asks for.
async fn show(json: bool, asked: impl AsyncFnOnce(&mut Screen) -> anyhow::Result<bool>) -> Outcome {
    let mut interrupts = signal(SignalKind::interrupt()).context("waiting for Ctrl-C")?;
    signals::second_ends_at_once(&[SIGINT]).context("waiting for Ctrl-C")?;
    let mut screen = Screen::new(json);
    let asked = async {
        // What cut the answer is said already.
        if asked(&mut screen).await? { Ok(()) } else { Err(Failed.into()) }
    };
    let outcome = tokio::select! {
        outcome = asked => outcome,
        // The stream is dropped, and so cancelled at the server.
        _ = interrupts.recv() => Err(Interrupted.into()),
    };
    let ended = screen.end_line();
    outcome.and(ended)
}
