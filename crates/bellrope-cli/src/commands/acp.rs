//! `bellrope acp`: the Agent Client Protocol over standard input and output, so that an editor which speaks it needs no
//! plugin. The agent is a client of `bellrope serve`, which it starts if none runs, and outlives it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`agent`] | what is answered to which request, and the turn of a prompt |
//! | [`files`] | files that a prompt links to, read through the editor |
//! | [`introduction`] | what the agent says of itself |
//! | [`keeping`], [`store`] | sessions on disk: what is done with them, and their files |
//! | [`models`] | the models to choose from |
//! | [`passing`] | an answer on its way to the editor |
//! | [`prompt`] | what an editor sends as a prompt, as a message to a model |
//! | [`questions`] | what the editor is asked |
//! | [`rpc`] | what a line means, and the lines that answer it: JSON-RPC |
//! | [`setup`] | the key of a provider, asked for in a terminal |
//! | [`sessions`] | the conversations, and which of them waits for an answer |
//! | [`wire`] | the lines on standard input and output, with their bounds |
//!
//! It knows no tools, and of the editor's files it reads those that a prompt links to, through the editor.

mod agent;
mod files;
mod introduction;
mod keeping;
mod models;
mod passing;
mod prompt;
mod questions;
mod rpc;
mod sessions;
mod setup;
mod store;
mod wire;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use bellrope_terminal::{Outcome, in_words, output, signals, stderr};
use clap::Args;
use tokio::io::BufReader;

use crate::{commands::chat::AskArgs, logging, socket, spawn::ServerArg};

/// How long what is still to be said may take once the editor has closed standard input.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long the editor waits for the server at first.
const FIRST_SERVER: Duration = Duration::from_secs(2);

const HELP: &str = r#"Examples:
  bellrope acp
  bellrope acp --provider openai --model gpt-5-mini --system 'Answer briefly.'

Editors start it themselves: docs/editors.md has the settings for each editor. It speaks the Agent Client Protocol,
version 1, on standard input and output, and writes nothing else there; it logs to standard error. Where no server runs it
starts one in the background, as `bellrope chat` does, and it reconnects to a server that is restarted. It ends when
standard input does.

Sessions are kept in $XDG_STATE_HOME/bellrope/acp_sessions, readable by you alone: at most 200, 128 MiB, 90 days. Editors list,
load and delete them; --no-store keeps none. Keys of --setup are in $XDG_STATE_HOME/bellrope/keys."#;

/// Whom to ask for an editor.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct AcpArgs {
    #[command(flatten)]
    server: ServerArg,
    #[command(flatten)]
    ask: AskArgs,
    /// Keep no sessions on disk, and know of none.
    #[arg(long)]
    no_store: bool,
    /// Ask for the key of a provider in this terminal and keep it, in place of being an agent.
    #[arg(long)]
    setup: bool,
}

/// Serves one editor until it closes standard input.
pub(crate) fn run(args: AcpArgs) -> Outcome {
    if args.setup {
        return setup::run();
    }
    // An editor may read nothing of what its agent says beside the protocol.
    stderr::start().context("starting the thread that writes the log")?;
    signals::write_panics_in_turn();
    logging::init("warn")?;
    let AcpArgs { server, ask, no_store, .. } = args;
    let store = if no_store { store::Store::none() } else { store::Store::of_user() };
    let runtime = socket::runtime()?;
    let outcome = runtime.block_on(async {
        let flow = Arc::new(wire::Flow::new());
        let agent = Arc::new(agent::Agent::new(server, ask.into_request(), store, Arc::clone(&flow)));
        // Where that takes longer, the editor must not wait for it.
        if let Ok(Err(error)) = tokio::time::timeout(FIRST_SERVER, agent.client()).await {
            // No reason to end: it is asked for again with the first session.
            output::note(format_args!("warning: {}", in_words(&error)));
        }
        tokio::select! {
            outcome = agent::serve(agent, BufReader::new(tokio::io::stdin()), tokio::io::stdout()) => outcome,
            () = flow.ended_for(LAST_WORDS) => Ok(()),
        }
    });
    // Standard input may still be read by a thread of the runtime's.
    runtime.shutdown_background();
    outcome.map_err(|error| {
        anyhow!("the connection to the editor is lost: Internal error ({})", serde_json::Value::from(error.to_string()))
    })
}
