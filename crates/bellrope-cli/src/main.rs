//! The command `bellrope`.
#![forbid(unsafe_code)]

mod acp;
mod bench;
mod bench_server;
mod breaker;
mod call;
mod chat;
mod config;
mod criterion;
mod demo;
mod doctor;
mod health_cmd;
mod ingress;
mod list;
#[cfg(test)]
mod local_server;
mod logging;
mod manual;
mod operator;
#[cfg(feature = "otlp")]
mod otlp;
mod output;
mod reload;
mod serve;
mod service_manager;
mod settings;
mod signals;
mod socket;
mod stress;
mod top;

use std::{io, process::ExitCode};

use bellrope::shm::CountingAllocator;
use clap::{Parser, Subcommand};

/// Counts allocations while a measurement asks for that; otherwise it costs an allocation one load.
#[global_allocator]
pub(crate) static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// What a command comes to.
pub(crate) type Outcome = anyhow::Result<()>;

/// Somebody pressed Ctrl-C. Nothing has to be said about it.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// What is wrong has been said already, as a result.
#[derive(Debug, thiserror::Error)]
#[error("failed")]
pub(crate) struct Failed;

const HELP: &str = "\
Examples:
  bellrope demo
  bellrope serve &
  bellrope chat 'Who is there?'

Exit codes: 0 success, 1 failure, 2 wrong usage, 130 or 143 ended by a signal. Results go to standard output, everything
else to standard error. `bellrope help COMMAND` has an example of every command.";

/// Local RPC over shared memory, with an AI gateway for editors.
#[derive(Debug, Parser)]
#[command(name = "bellrope", version, after_help = HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve `echo` and the AI gateway until a signal comes.
    Serve(serve::ServeArgs),
    /// Ask an AI provider through a server, and print the answer as it comes.
    Chat(chat::ChatArgs),
    /// Be the agent of an editor: the Agent Client Protocol on standard input and output.
    Acp(acp::AcpArgs),
    /// Call any message type with raw bytes.
    Call(call::CallArgs),
    /// List the message types that a server offers.
    List(list::ListArgs),
    /// See it work: a chat, 100 clients, and the criteria as a table of PASS and FAIL.
    Demo(demo::DemoArgs),
    /// Watch a server live: rates, latencies, memory, breakers, message types.
    Top(top::TopArgs),
    /// Say what stands in the way of a server here, and what mends it.
    Doctor(doctor::DoctorArgs),
    /// Say how a server is. Exit code 0 if it is healthy.
    Health(health_cmd::HealthArgs),
    /// See the circuit breakers of a server, and open, close or reset them by hand.
    #[command(subcommand)]
    Breaker(breaker::BreakerCommand),
    /// What the settings are and where they come from, or what is wrong with a configuration file.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a completion script for a shell.
    Completions(manual::CompletionsArgs),
    /// Write the manual, a page a command, into a directory.
    Man(manual::ManArgs),
    /// Measure.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Put a server under more load and more harm than it will ever see, and check what it promises.
    Stress(stress::StressArgs),
    /// The server half of a measurement.
    #[command(hide = true)]
    BenchServer(bench_server::BenchServerArgs),
    /// A client that is there to be killed.
    #[command(hide = true)]
    StressClient(stress::StressClientArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Chat(args) => chat::run(args),
        Command::Acp(args) => acp::run(args),
        Command::Call(args) => call::run(args),
        Command::List(args) => list::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Health(args) => health_cmd::run(&args),
        Command::Breaker(command) => breaker::run(command),
        Command::Config(command) => config::run(command),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
        Command::Bench(command) => bench::run(&command),
        Command::Stress(args) => stress::run(&args),
        Command::BenchServer(args) => bench_server::run(&args),
        Command::StressClient(args) => stress::run_client(&args),
    };
    signals::let_one_end_us();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => ExitCode::from(130),
        Err(error) if error.is::<Failed>() => ExitCode::FAILURE,
        Err(error) if is_closed_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            output::note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether nobody reads standard output any more. Only writing there fails with a bare system error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
