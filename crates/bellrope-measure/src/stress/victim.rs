//! A client in a process of its own, which floods its server until it is killed, or its parent ends.

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};
use bellrope::client::{ClientConfig, Connection, MessageType, Transport};
use bellrope_terminal::{Outcome, output};
use clap::Args;

use super::over::Over;

/// Calls in flight.
const DEPTH: usize = 16;

/// Whom to flood.
#[derive(Debug, Args)]
pub struct StressClientArgs {
    #[arg(long)]
    socket: PathBuf,
    #[arg(long, value_enum)]
    transport: Over,
    /// Payload bytes of a call.
    #[arg(long)]
    size: usize,
}

/// Floods until somebody ends it.
///
/// # Errors
/// The server cannot be reached, or refuses a call.
pub fn run(args: &StressClientArgs) -> Outcome {
    let mut connection = Connection::with(&ClientConfig::new(&args.socket).transport(args.transport.into()))?;
    let echo = connection.message_type("echo")?;
    let (payload, mut reply) = (vec![0x5A; args.size], Vec::new());
    flood_once(&mut connection, echo, &payload, &mut reply)?;
    output::line(format_args!("flooding"))?;
    // The parent may be killed, too: then standard input ends.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    loop {
        flood_once(&mut connection, echo, &payload, &mut reply)?;
    }
}

/// Takes an answer, with as many calls in flight as there may be.
fn flood_once(connection: &mut Connection, echo: MessageType, payload: &[u8], reply: &mut Vec<u8>) -> Outcome {
    while connection.in_flight() < DEPTH {
        connection.submit(echo, payload)?;
    }
    connection.wait(reply)?.outcome?;
    Ok(())
}

/// Such a client. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Victim(Child);

impl Victim {
    /// Starts it. When this returns, it floods.
    pub(super) fn start(config: &ClientConfig, size: usize) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding the path of this program")?;
        let mut command = Command::new(program);
        command.arg("stress-client").arg("--socket").arg(&config.path).arg("--size").arg(size.to_string());
        command.args(["--transport", if config.transport == Transport::Stream { "stream" } else { "shm" }]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut victim = Self(child.context("starting a client")?);
        let mut said = String::new();
        BufReader::new(victim.0.stdout.take().expect("it was piped")).read_line(&mut said)?;
        ensure!(said == "flooding\n", "a client did not start: {said:?}");
        Ok(victim)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both fail if it has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
