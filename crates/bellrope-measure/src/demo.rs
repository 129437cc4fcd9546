//! `bellrope demo`: the main job and the criteria, in one command.

use anyhow::{Context, ensure};
use bellrope::Client;
use bellrope_gateway::{ChatRequest, Chunk, SequencedChunk};
use bellrope_shm::CountingAllocator;
use bellrope_terminal::{Outcome, output};
use clap::Args;

use crate::{
    bench,
    server_process::{ServerProcess, two_cpus},
};

const HELP: &str = "\
Examples:
  bellrope demo
  bellrope demo --json

Starts a server on a private socket in a process of its own, streams a chat through it, and then measures the criteria as \
`bellrope bench criteria` does, among them 100 clients with 1,000 calls each. Ends by itself within 30 seconds, and leaves \
nothing behind. The exit code is 0 only if no criterion fails. Criteria that this machine cannot measure are printed as \
`not measured` and fail nothing.";

/// How to show the outcome.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct DemoArgs {
    /// Print JSON instead of a table; everything else goes to standard error.
    #[arg(long)]
    json: bool,
}

/// Shows it. `allocator` is the one that this program allocates with.
///
/// # Errors
/// The server or a call failed, or a criterion is not met.
pub fn run(args: &DemoArgs, allocator: &CountingAllocator) -> Outcome {
    let mut server = ServerProcess::start(two_cpus())?;
    output::note(format_args!(
        "server on {}; health on http://{}/health, /metrics, /ready and /live while this runs",
        server.socket().display(),
        server.health()
    ));
    chat(&server)?;
    bench::show_criteria(args.json, &bench::criteria(&mut server, allocator, false, true)?)
}

/// Streams an answer through the server, as an editor would.
fn chat(server: &ServerProcess) -> Outcome {
    let client = Client::connect(server.socket())?;
    let request = ChatRequest::user("What is a bell rope for?");
    let (mut answer, mut chunks, mut done) = (String::new(), 0_u32, false);
    for chunk in client.stream("ai.chat_stream", &serde_json::to_vec(&request)?)? {
        let piece = SequencedChunk::read(&chunk?).context("reading a chunk")?;
        chunks += 1;
        match piece.chunk {
            Chunk::Text { text } => answer.push_str(&text),
            Chunk::Done { .. } => done = true,
            _ => {}
        }
    }
    ensure!(done, "the answer broke off");
    output::note(format_args!("chat, {chunks} chunks over shared memory: {answer}"));
    Ok(())
}
