//! `cargo xtask`: checks the rules that the sources, the documents and the builds of this repository keep.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use xtask::{
    api, arrows, budgets, circles, dependencies, durations, examples, faults, found::Found, lengths, links, names,
    promises, wording,
};

const HELP: &str = "\
Examples:
  cargo xtask check
  cargo xtask circles
  cargo xtask faults --write
  cargo xtask budgets --program target/x86_64-unknown-linux-gnu/release/bellrope

The exit code is 0 if everything keeps its rules, 1 if something does not, and 2 for a wrong command line.";

/// Checks the rules that the sources, the documents and the builds of this repository keep.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", after_help = HELP)]
struct Cli {
    /// The repository to look at.
    #[arg(long, global = true, value_name = "DIR", default_value_os_t = repository())]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything that needs no build: all of the below, and of the budgets the number of crates.
    Check,
    /// No file names what a file defines that names, perhaps through others, what the first one defines.
    Circles,
    /// Which crate may import which, where unsafe code stands, how long a file may be.
    Arrows,
    /// Each promise names tests that are there.
    Promises,
    /// Each fault has a test, and docs/faults.md names it.
    Faults(FaultsArgs),
    /// Each dependency has its reason in CONTRIBUTING.md.
    Dependencies,
    /// Each link in a document leads somewhere.
    Links,
    /// README.md, ARCHITECTURE.md and docs/plugins.md are no longer than they may be.
    Lengths,
    /// Types that more than one file may name have names of their own.
    Names,
    /// Words that comments, documents and tests do not have.
    Wording,
    /// The public paths of the libraries are those of docs/api.txt.
    Api(ApiArgs),
    /// Each method of `bellrope` is shown in an example.
    Examples,
    /// No public name of the libraries says a unit of time.
    Durations,
    /// What the program costs, held against budgets.toml.
    Budgets(BudgetsArgs),
}

#[derive(Debug, Args)]
struct FaultsArgs {
    /// Write docs/faults.md anew.
    #[arg(long)]
    write: bool,
}

#[derive(Debug, Args)]
struct ApiArgs {
    /// Write docs/api.txt anew.
    #[arg(long)]
    write: bool,
}

#[derive(Debug, Args)]
struct BudgetsArgs {
    /// The program of a release build [default: where `cargo build --release` puts it].
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Fail where something cannot be measured: without a release build, strip or valgrind.
    #[arg(long)]
    require: bool,
    /// Time a release build from nothing, too: minutes. Its seconds are printed and have no budget.
    #[arg(long)]
    cold_build: bool,
}

/// Looks at the repository in this folder.
type Check = fn(&Path) -> anyhow::Result<Found>;

/// The repository that this program was built in.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the command. Whether everything keeps its rules.
fn run(cli: &Cli) -> anyhow::Result<bool> {
    let root = &cli.root;
    match &cli.command {
        Command::Check => {
            let checks: [(&str, Check); 13] = [
                ("circles", circles::check),
                ("arrows", arrows::check),
                ("promises", promises::check),
                ("faults", faults::check),
                ("dependencies", dependencies::check),
                ("links", links::check),
                ("lengths", lengths::check),
                ("names", names::check),
                ("wording", wording::check),
                ("api", api::check),
                ("examples", examples::check),
                ("durations", durations::check),
                ("budgets", crates_alone),
            ];
            let mut fine = true;
            for (name, check) in checks {
                // One that cannot be made does not keep the others from being made.
                let found = check(root).unwrap_or_else(|error| Found::new(String::new(), vec![format!("{error:#}")]));
                fine &= tell(name, &found)?;
            }
            Ok(fine)
        }
        Command::Circles => tell("circles", &circles::check(root)?),
        Command::Arrows => tell("arrows", &arrows::check(root)?),
        Command::Promises => tell("promises", &promises::check(root)?),
        Command::Faults(FaultsArgs { write }) => {
            if *write {
                faults::write(root)?;
            }
            tell("faults", &faults::check(root)?)
        }
        Command::Dependencies => tell("dependencies", &dependencies::check(root)?),
        Command::Links => tell("links", &links::check(root)?),
        Command::Lengths => tell("lengths", &lengths::check(root)?),
        Command::Names => tell("names", &names::check(root)?),
        Command::Wording => tell("wording", &wording::check(root)?),
        Command::Api(ApiArgs { write }) => {
            if *write {
                api::write(root)?;
            }
            tell("api", &api::check(root)?)
        }
        Command::Examples => tell("examples", &examples::check(root)?),
        Command::Durations => tell("durations", &durations::check(root)?),
        Command::Budgets(BudgetsArgs { program, require, cold_build }) => {
            let measure = budgets::Measure { program: program.clone(), require: *require, cold_build: *cold_build };
            tell("budgets", &budgets::check(root, &measure)?)
        }
    }
}

fn crates_alone(root: &Path) -> anyhow::Result<Found> {
    Ok(Found::new("the trees of crates".to_owned(), budgets::crates_within(root)?))
}

/// Prints what a check found. Whether nothing is wrong.
fn tell(name: &str, found: &Found) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    let verdict = if found.faults.is_empty() { "ok" } else { "FAILED" };
    writeln!(out, "{verdict:<6}  {name}: {}", found.summary)?;
    for note in &found.notes {
        writeln!(out, "        {note}")?;
    }
    for fault in &found.faults {
        writeln!(out, "  {}", fault.replace('\n', "\n  "))?;
    }
    Ok(found.faults.is_empty())
}
