//! `bellrope acp --setup`: the key of a provider, asked for in a terminal and kept for servers of this user.

use std::io::{self, BufRead, IsTerminal};

use anyhow::{Context, bail, ensure};
use bellrope_gateway::{Gateway, GatewaySettings};
use bellrope_terminal::{Outcome, output};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::settings::{Settings, SettingsArgs, kept_key};

/// The longest key.
const MAX_KEY: usize = 8 * 1024;

/// Asks for a provider and its key.
pub(super) fn run() -> Outcome {
    let settings = Settings::load(&SettingsArgs::default())?;
    let gateway = settings.providers()?;
    for name in gateway.names() {
        let state = gateway.missing(name).map_or_else(|| "is set up".to_owned(), |missing| missing.to_string());
        output::note(format_args!("{name}: {state}"));
    }
    output::note(format_args!("Provider whose key is to be kept, as in `openai`:"));
    let name = line()?;
    let preset = GatewaySettings { provider: name.clone(), ..GatewaySettings::default() };
    let known = Gateway::from_settings_and_vars(preset, |_| None).is_ok() && name != "embedded";
    ensure!(known, "there is no provider {name:?} that takes a key; docs/providers.md lists them");
    let path = kept_key(&name).context("there is no place for state here; set XDG_STATE_HOME or HOME")?;
    output::note(format_args!("Its key, which is not shown:"));
    let key = hidden(line)?;
    if key.is_empty() || key.len() > MAX_KEY || key.chars().any(|c| c.is_control() || c.is_whitespace()) {
        bail!("that is no key; nothing was changed");
    }
    crate::state::write(&path, key.as_bytes())
        .with_context(|| format!("the key cannot be kept in {}", path.display()))?;
    output::note(format_args!(
        "The key is in {}, readable by you alone. A server that runs takes it with its next start, or on SIGHUP.",
        path.display()
    ));
    Ok(())
}

fn line() -> anyhow::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("reading standard input")?;
    Ok(line.trim().to_owned())
}

/// Reads while a terminal shows nothing of it.
fn hidden(read: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<String> {
    let stdin = io::stdin();
    let before = stdin.is_terminal().then(|| tcgetattr(&stdin)).transpose().context("asking the terminal")?;
    let Some(before) = before else { return read() };
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent).context("silencing the terminal")?;
    let read = read();
    tcsetattr(&stdin, OptionalActions::Now, &before).context("restoring the terminal")?;
    read
}
