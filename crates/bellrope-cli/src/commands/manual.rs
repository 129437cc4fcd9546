//! `bellrope completions` and `bellrope man`: what packages put beside the program, made from the command line itself.

use std::{io::Write as _, path::PathBuf};

use anyhow::Context as _;
use bellrope_terminal::{Outcome, output};
use clap::{Args, Command};
use clap_complete::Shell;

const COMPLETIONS_HELP: &str = "\
Examples:
  bellrope completions bash > ~/.local/share/bash-completion/completions/bellrope
  bellrope completions zsh > ~/.zfunc/_bellrope
  bellrope completions fish > ~/.config/fish/completions/bellrope.fish";

const MAN_HELP: &str = "\
Examples:
  bellrope man ~/.local/share/man/man1
  man bellrope-serve";

/// For which shell.
#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_HELP)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Where to put the pages.
#[derive(Debug, Args)]
#[command(after_help = MAN_HELP)]
pub(crate) struct ManArgs {
    /// The directory, which is made if it is missing. Files of the same names are replaced.
    directory: PathBuf,
}

/// Prints a completion script for `program`.
pub(crate) fn completions(args: &CompletionsArgs, mut program: Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "bellrope", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(())
}

/// Writes a page for `program` and one for every command that is not hidden.
pub(crate) fn man(args: &ManArgs, program: Command) -> Outcome {
    let directory = &args.directory;
    std::fs::create_dir_all(directory).with_context(|| format!("making the directory {}", directory.display()))?;
    clap_mangen::generate_to(program, directory)
        .with_context(|| format!("writing pages into {}", directory.display()))?;
    output::note(format_args!("the manual is in {}; read it with man -l {0}/bellrope.1", directory.display()));
    Ok(())
}
