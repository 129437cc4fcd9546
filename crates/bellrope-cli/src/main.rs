//! The command `bellrope`.
#![forbid(unsafe_code)]

mod commands;
mod input;
mod live;
mod local_models;
mod logging;
mod operator;
mod percent;
mod schemas;
mod serve;
mod settings;
mod socket;
mod spawn;
mod state;
mod units;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use bellrope_books::TokenError;
#[cfg(feature = "fleet")]
use bellrope_fleet::FleetError;
use bellrope_measure::{bench, bench_server, demo, stress};
use bellrope_shm::{CountingAllocator, process};
use bellrope_terminal::{Outcome, WrongSettings, apart, in_words, signals, stderr};
use clap::{CommandFactory as _, Parser, Subcommand};

use commands::{
    acp, breaker, call, chat, config, doctor, generate, health, list, manual, models, stop, token, top, usage,
};

/// Counts allocations while a measurement asks for that; otherwise it costs an allocation one load.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

const HELP: &str = "\
Examples:
  bellrope demo
  bellrope serve &
  bellrope chat 'Who is there?'

Exit codes: 0 success, 1 failure, 2 wrong usage or settings, 3 an application's own error,
130 or 143 ended by a signal. Results go to standard output,
everything else to standard error. `bellrope help COMMAND` has an example of every command.";

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
    /// Stop a server gracefully, however it was started.
    Stop(stop::StopArgs),
    /// Ask an AI provider through a server, and print the answer as it comes.
    Chat(chat::ChatArgs),
    /// Act as an editor's agent: the Agent Client Protocol on standard input and output.
    Acp(acp::AcpArgs),
    /// Call a method of a typed service with JSON, or any message type with raw bytes.
    Call(call::CallArgs),
    /// List the message types that a server offers.
    List(list::ListArgs),
    /// List the models that can be asked, and those of servers of models on this machine.
    Models(models::ModelsArgs),
    /// Make clients in other languages, or a page, from the schemas of typed services.
    Generate(generate::GenerateArgs),
    /// See it work: a chat, 100 clients, and the criteria as a table of PASS and FAIL.
    Demo(demo::DemoArgs),
    /// Watch a server live: rates, latencies, memory, breakers, message types.
    Top(top::TopArgs),
    /// Check this machine for what prevents a server from working, and say how to fix it.
    Doctor(doctor::DoctorArgs),
    /// Show a server's health. Exit code 0 if it is healthy.
    Health(health::HealthArgs),
    /// Show the circuit breakers of a server, and open, close or reset them by hand.
    #[command(subcommand)]
    Breaker(breaker::BreakerCommand),
    /// The instances of a fleet, and what a fleet of a given size needs.
    #[cfg(feature = "fleet")]
    #[command(subcommand)]
    Fleet(commands::fleet::FleetCommand),
    /// Not in this program.
    #[cfg(not(feature = "fleet"))]
    #[command(hide = true)]
    Fleet(commands::no_fleet::AnyArgs),
    /// Show what AI requests took and cost, by day, model, provider or client.
    Usage(usage::UsageArgs),
    /// Make, list and remove tokens, by which the API port tells tools apart, each with its budget.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Show the settings and where they come from, or check a configuration file.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a completion script for a shell.
    Completions(manual::CompletionsArgs),
    /// Write the manual, a page a command, into a directory.
    Man(manual::ManArgs),
    /// Run a benchmark.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Put a server under more load and more faults than in use, and check what it promises.
    Stress(stress::StressArgs),
    /// The server half of a measurement.
    #[command(hide = true)]
    BenchServer(Box<bench_server::BenchServerArgs>),
    /// A client that is there to be killed.
    #[command(hide = true)]
    StressClient(stress::StressClientArgs),
}

/// How long lines of the log may take to be written at the end. Whoever reads them takes them at once; where nobody does, it
/// is no use to wait.
const FLUSH: Duration = Duration::from_secs(1);

/// Memory that has to be there for any command.
const LEAST_MEMORY: usize = 4 << 20;

fn main() -> ExitCode {
    // Whatever this fails with, the program works without it.
    let _ = signals::outlive_file_size_limit();
    // With less, whatever asks for the last of it would end the process, or hang where it says so.
    let outcome = process::check_memory(LEAST_MEMORY).context("starting").and_then(|()| run(apart(Cli::parse).command));
    signals::let_one_end_us();
    let code = bellrope_terminal::exit_code(outcome.map_err(as_wrong_settings));
    stderr::flush(FLUSH);
    code
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Stop(args) => stop::run(&args),
        Command::Chat(args) => chat::run(args),
        Command::Acp(args) => acp::run(args),
        Command::Call(args) => call::run(args),
        Command::List(args) => list::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Demo(args) => demo::run(&args, &ALLOCATOR),
        Command::Top(args) => top::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Breaker(command) => breaker::run(command),
        #[cfg(feature = "fleet")]
        Command::Fleet(command) => commands::fleet::run(&command),
        #[cfg(not(feature = "fleet"))]
        Command::Fleet(_) => commands::no_fleet::run(),
        Command::Usage(args) => usage::run(&args),
        Command::Token(command) => token::run(command),
        Command::Config(command) => config::run(command),
        Command::Completions(args) => manual::completions(&args, Cli::command()),
        Command::Man(args) => manual::man(&args, Cli::command()),
        Command::Bench(command) => bench::run(&command, &ALLOCATOR),
        Command::Stress(args) => stress::run(&args),
        Command::BenchServer(args) => bench_server::run(&args, &ALLOCATOR),
        Command::StressClient(args) => stress::run_client(&args),
    }
}

/// Wrong settings end a command as wrong usage does.
fn as_wrong_settings(error: anyhow::Error) -> anyhow::Error {
    let is_wrong = error.is::<settings::Faults>()
        || error.is::<logging::Unusable>()
        || matches!(error.downcast_ref(), Some(TokenError::Name { .. } | TokenError::Budget(_)));
    #[cfg(feature = "fleet")]
    let is_wrong = is_wrong || matches!(error.downcast_ref(), Some(FleetError::Setting(_) | FleetError::File { .. }));
    match is_wrong {
        true => WrongSettings(Some(in_words(&error))).into(),
        false => error,
    }
}
