//! The conversation at the terminal.
//!
//! The line editor has the terminal while a question is written, the runtime has the thread while an answer comes:
//! never both, so what an editor does to the terminal cannot disturb an answer.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Context;
use bellrope::AsyncClient;
use bellrope_terminal::{Outcome, in_words, is_closed_pipe, output, signals};
use rustyline::{Config, Editor, error::ReadlineError, history::FileHistory};
use signal_hook::consts::SIGINT;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use super::{conversation::Conversation, screen::Screen, turn::turn};
use crate::{spawn::ServerArg, state};

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope::chat::prompt";

/// What is said about the prompt.
const HELP: &str = "/help shows this; /exit, /quit, exit, quit and Ctrl-D leave; Ctrl-C cancels an answer; with a space \
                    before it any line is a question";

/// Questions that the arrow keys bring back.
const HISTORY: usize = 1000;

/// Asks what is written at the prompt, turn by turn, until whoever writes leaves.
pub(super) fn converse(
    runtime: &Runtime,
    server: &ServerArg,
    mut client: AsyncClient,
    mut conversation: Conversation,
) -> Outcome {
    // Raised by Ctrl-C during an answer; one more, should the program be stuck, ends it.
    let cancelled = signals::second_ends_at_once(&[SIGINT]).context("waiting for Ctrl-C")?;
    let mut prompt = Prompt::open()?;
    let mut screen = Screen::new(false);
    screen.aside("Ctrl-C cancels an answer, Ctrl-D leaves. /help says what else there is.")?;
    // Whether the last thing that was pressed is Ctrl-C.
    let mut interrupted = false;
    loop {
        match prompt.question()? {
            Written::Question(question) if local(&question) == Some(Local::Leave) => return Ok(()),
            Written::Question(question) if local(&question).is_some() => {
                interrupted = false;
                if local(&question) == Some(Local::Unknown) {
                    screen.aside(&format!("there is no {}", question.trim_end()))?;
                }
                screen.aside(HELP)?;
            }
            Written::Question(question) => {
                conversation.ask(question);
                let asked = Asked { server, client: &mut client, conversation: &mut conversation };
                interrupted = answer(runtime, asked, &mut screen, &cancelled)?;
            }
            Written::Nothing => interrupted = false,
            Written::Interrupt if !interrupted => {
                interrupted = true;
                screen.aside("Ctrl-C once more, or Ctrl-D, leaves.")?;
            }
            Written::Interrupt | Written::End => return Ok(()),
        }
    }
}

/// Who is asked, and what.
struct Asked<'a> {
    server: &'a ServerArg,
    client: &'a mut AsyncClient,
    conversation: &'a mut Conversation,
}

/// Shows an answer. Returns whether it was cancelled. That it fails is no reason to end the conversation.
fn answer(
    runtime: &Runtime,
    Asked { server, client, conversation }: Asked<'_>,
    screen: &mut Screen,
    cancelled: &AtomicBool,
) -> anyhow::Result<bool> {
    cancelled.store(false, Ordering::SeqCst);
    let outcome = runtime.block_on(async {
        // A new one for every answer: it hears nothing of what was pressed before.
        let mut interrupts = signal(SignalKind::interrupt()).context("waiting for Ctrl-C")?;
        let asked = async {
            match turn(client, conversation, screen).await {
                Err(error) => *client = server.connect_after(error).await?,
                outcome => return outcome,
            }
            turn(client, conversation, screen).await
        };
        tokio::select! {
            outcome = asked => outcome.map(|_whole| false),
            // The stream is dropped, and so cancelled at the server.
            _ = interrupts.recv() => Ok(true),
        }
    });
    screen.end_line()?;
    match outcome {
        Ok(was_cancelled) => {
            if was_cancelled {
                screen.aside("cancelled")?;
            }
            conversation.settle();
            Ok(was_cancelled)
        }
        Err(error) if is_closed_pipe(&error) => Err(error),
        Err(error) => {
            conversation.take_back();
            screen.note(&format!("error: {}", in_words(&error)))?;
            Ok(false)
        }
    }
}

/// What a line at the prompt means that is no question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Local {
    Leave,
    Help,
    Unknown,
}

/// A slash and a single word is for this program, and so is a bare `exit` or `quit`. All else is for the model: a path, a
/// word of the model's own with something after it, and whatever begins with a space.
fn local(line: &str) -> Option<Local> {
    match line.trim_end() {
        "exit" | "quit" | "/exit" | "/quit" => Some(Local::Leave),
        "/help" => Some(Local::Help),
        line => {
            let word = line.strip_prefix('/')?;
            (!word.is_empty() && word.chars().all(char::is_alphabetic)).then_some(Local::Unknown)
        }
    }
}

/// What was written at the prompt.
enum Written {
    Question(String),
    Nothing,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D, or the terminal is gone.
    End,
}

struct Prompt {
    editor: Editor<(), FileHistory>,
    /// Where questions are kept; nowhere if there is no place for them.
    history: Option<PathBuf>,
}

impl Prompt {
    fn open() -> anyhow::Result<Self> {
        let config = Config::builder().max_history_size(HISTORY)?.history_ignore_space(true).auto_add_history(false);
        let mut editor = Editor::with_config(config.build()).context("opening the prompt")?;
        let history = state::file("chat_history").filter(|path| make_home(path));
        if let Some(path) = &history {
            // The first time there is none.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, history })
    }

    fn question(&mut self) -> anyhow::Result<Written> {
        match self.editor.readline("> ") {
            Ok(line) if line.trim().is_empty() => Ok(Written::Nothing),
            Ok(line) => {
                self.keep(&line);
                Ok(Written::Question(line))
            }
            Err(ReadlineError::Interrupted) => Ok(Written::Interrupt),
            Err(ReadlineError::Eof) => Ok(Written::End),
            Err(error) => Err(error).context("reading at the prompt"),
        }
    }

    fn keep(&mut self, line: &str) {
        let kept = match (self.editor.add_history_entry(line), &self.history) {
            (Ok(true), Some(path)) => self.editor.append_history(path),
            (added, _) => added.map(drop),
        };
        if let Err(error) = kept {
            tracing::warn!(target: TARGET, %error, "the question cannot be kept for the arrow keys");
        }
    }
}

/// Makes the folder of a file, readable by its user alone. Whether it is there.
fn make_home(path: &Path) -> bool {
    let made = path.parent().map_or(Ok(()), state::make_folder);
    if let Err(error) = &made {
        output::note(format_args!("questions are not kept: {}: {error}", path.display()));
    }
    made.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_command_is_for_the_prompt_and_everything_else_for_the_model() {
        for line in ["exit", "quit ", "/exit", "/quit"] {
            assert_eq!(local(line), Some(Local::Leave), "{line}");
        }
        assert_eq!((local("/help"), local("/hlep")), (Some(Local::Help), Some(Local::Unknown)));
        for line in ["exit the loop", " exit", " /help", "/tokens 4", "/etc/passwd", "/", "help", "Exit"] {
            assert_eq!(local(line), None, "{line}");
        }
    }
}
