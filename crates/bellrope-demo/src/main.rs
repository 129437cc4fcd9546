//! `bellrope demo` as a program of its own, for a first look: see README.md.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use bellrope_measure::{
    bench_server::{self, BenchServerArgs},
    demo::{self, DemoArgs},
};
use bellrope_shm::CountingAllocator;
use clap::{Parser, Subcommand};

/// Counts allocations while a measurement asks for that; otherwise it costs an allocation one load.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// See Bellrope work: a chat, 100 clients, and the criteria as a table of PASS and FAIL.
#[derive(Debug, Parser)]
#[command(name = "bellrope-demo", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    demo: DemoArgs,
    #[command(subcommand)]
    half: Option<Half>,
}

#[derive(Debug, Subcommand)]
enum Half {
    /// The server half of a measurement.
    #[command(hide = true)]
    BenchServer(BenchServerArgs),
}

fn main() -> ExitCode {
    let cli = bellrope_terminal::apart(Cli::parse);
    let outcome = match cli.half {
        Some(Half::BenchServer(args)) => bench_server::run(&args, &ALLOCATOR),
        None => demo::run(&cli.demo, &ALLOCATOR),
    };
    bellrope_terminal::signals::let_one_end_us();
    bellrope_terminal::exit_code(outcome)
}
