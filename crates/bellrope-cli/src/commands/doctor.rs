//! `bellrope doctor`: what stands in the way of a server on this machine, and what fixes it.
//!
//! It looks and asks, and changes nothing: no file is written, no provider is sent a request unless `--providers` says so.

mod files;
mod finding;
#[cfg(feature = "fleet")]
mod fleet;
mod machine;
mod place;

use bellrope_terminal::{Failed, Outcome, output};
use clap::Args;
use finding::{Finding, Level};

use crate::{
    local_models, logging,
    settings::{Faults, Settings, SettingsArgs},
};

const HELP: &str = "\
Examples:
  bellrope doctor
  bellrope doctor --config bellrope.toml --json

Exit codes: 0 nothing failed, 1 something did. A warning is no failure.";

/// For which settings.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Ask every provider whether it can be reached; without it only a running server is asked, which asks its own.
    #[arg(long)]
    providers: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Looks at everything; ends with 0 if nothing failed.
pub(crate) fn run(args: &DoctorArgs) -> Outcome {
    logging::init("error")?;
    let settings = Settings::load(&args.settings);
    let memfd = machine::memfd(settings.as_ref().ok().map(|settings| &settings.server));
    let mut findings = vec![memfd, machine::pidfd(), machine::clock()];
    match &settings {
        Ok(settings) => {
            let gateway = settings.providers();
            findings.push(match &gateway {
                Ok(gateway) => match settings.check_keys(gateway) {
                    Ok(()) => {
                        Finding::ok("configuration", format!("no fault; providers: {}", gateway.names().join(", ")))
                    }
                    Err(faults) => configuration(&faults),
                },
                Err(faults) => configuration(faults),
            });
            findings.push(machine::descriptors(settings.server.max_connections));
            findings.push(machine::memory(&settings.server, settings.memory_bound(), settings.api_port.is_some()));
            findings.push(machine::cpus(&settings.server));
            findings.push(place::directory(&settings.socket));
            findings.extend(place::server(&settings.socket));
            findings.extend(files(settings));
            #[cfg(feature = "fleet")]
            findings.extend(fleet::reached(&settings.fleet));
            let found = gateway.as_ref().map(local_models::look).unwrap_or_default();
            findings.extend(found.iter().map(|found| Finding::ok("local models", found.words())));
            if let (true, Ok(gateway)) = (args.providers, &gateway) {
                findings.extend(place::providers(gateway, place::PROVIDERS_PATIENCE));
            }
        }
        Err(faults) => findings.push(configuration(faults)),
    }
    if args.json {
        output::json(&findings)?;
    } else {
        print(&findings)?;
    }
    match findings.iter().any(|finding| finding.level == Level::Fail) {
        true => Err(Failed.into()),
        false => Ok(()),
    }
}

/// What is wrong with the files that a server with these settings writes or reads.
fn files(settings: &Settings) -> Vec<Finding> {
    let (books, tokens) = (settings.books().path, settings.tokens());
    let written = |key, path, or_device| files::Wanted { key, path, or_device, is_written: true };
    let wanted = [
        books.as_deref().map(|path| written("books.path", path, false)),
        settings.log_file.as_deref().map(|path| written("log_file", path, true)),
        tokens.as_ref().map(|tokens| files::Wanted {
            key: "tokens.path",
            path: tokens.path(),
            or_device: false,
            is_written: false,
        }),
    ];
    wanted.iter().flatten().filter_map(files::look).collect()
}

fn configuration(faults: &Faults) -> Finding {
    Finding::fail(
        "configuration",
        faults.to_string(),
        "fix what is named; `bellrope config show` shows where values come from",
    )
}

fn print(findings: &[Finding]) -> Outcome {
    for Finding { check, level, found, fix } in findings {
        let word = match level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        output::line(format_args!("{word:4}  {check:13}  {}", found.replace('\n', "\n                     ")))?;
        if let Some(fix) = fix {
            output::line(format_args!("                     fix: {fix}"))?;
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (ok, warned, failed) = (count(Level::Ok), count(Level::Warn), count(Level::Fail));
    output::line(format_args!("\n{ok} ok, {warned} to look at, {failed} failed"))
}
