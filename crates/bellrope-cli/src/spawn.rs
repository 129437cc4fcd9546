//! The server that `chat` and `acp` start where none runs: one for all programs of this user.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use bellrope::{
    AsyncClient,
    client::{Spawn, SpawnError},
    default_log_path,
};
use bellrope_terminal::output;
use clap::Args;

use crate::{
    settings::{self, CONFIG, NO_SPAWN, Origin, Settings, SettingsArgs},
    socket::{self, NoServer, SocketArg, environment},
};

/// How long such a server goes on without a client.
const IDLE: &str = "10m";

/// What of our own environment such a server has beside what every started server has: its settings. What the providers
/// take their keys from comes with them.
const OWN: [&str; 3] = ["RUST_LOG", "OTEL_EXPORTER_OTLP_ENDPOINT", "LLVM_PROFILE_FILE"];

/// Where the server is, and whether it may be started.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServerArg {
    #[command(flatten)]
    socket: SocketArg,
    /// Start no server where none runs. $BELLROPE_NO_SPAWN, if it is set, means the same.
    #[arg(long)]
    no_spawn: bool,
}

impl ServerArg {
    /// Connects to the server, and starts it if none runs and that is not forbidden.
    pub(crate) async fn connect(&self) -> anyhow::Result<AsyncClient> {
        match self.find().await {
            Ok(client) => Ok(client),
            Err(error) if self.may_not_spawn() => Err(error),
            // Whether it means that one is to be started is known to those who start one.
            Err(_) => {
                let spawn = spawn(&self.socket.path())?;
                AsyncClient::connect_or_spawn(self.socket.config(), &spawn).await.map_err(explain)
            }
        }
    }

    /// Connects to the server if one runs.
    pub(crate) async fn find(&self) -> anyhow::Result<AsyncClient> {
        AsyncClient::with(self.socket.config()).await.map_err(socket::explain)
    }

    /// A client of the next server, where one was gone for good, as this error says. Any other error comes back, and so does
    /// this one where no server may be started.
    pub(crate) async fn connect_after(&self, error: anyhow::Error) -> anyhow::Result<AsyncClient> {
        if self.may_not_spawn() || !error.is::<NoServer>() {
            return Err(error);
        }
        self.connect().await
    }

    fn may_not_spawn(&self) -> bool {
        self.no_spawn || environment(NO_SPAWN).is_some()
    }
}

fn explain(error: SpawnError) -> anyhow::Error {
    match error {
        SpawnError::Connect(error) => socket::explain(error),
        error => error.into(),
    }
}

/// How to start a server at this path: `bellrope serve` with the settings that it would have if it were started here.
fn spawn(socket: &Path) -> anyhow::Result<Spawn> {
    // What is wrong with them is for the server to say.
    let settings = Settings::load(&SettingsArgs::default()).ok();
    let is_default = |key: &str| settings.as_ref().is_none_or(|settings| settings.origin(key) == Origin::Default);
    let socket = std::path::absolute(socket).context("finding the socket's place")?;
    let mut spawn = Spawn::program(program()).arg("serve").arg("--socket").arg(&socket);
    if is_default("server.exit_when_idle_ms") {
        spawn = spawn.args(["--exit-when-idle", IDLE]);
    }
    let chosen = settings.as_ref().and_then(|settings| settings.log_file.clone());
    let log = chosen.or_else(|| default_log_path("bellrope")).unwrap_or_else(|| beside(&socket));
    if is_default("log_file") {
        spawn = spawn.arg("--log-file").arg(&log);
    }
    for (name, value) in settings::variables(std::env::vars_os()) {
        // It runs in another directory.
        let value = if name == CONFIG { std::path::absolute(value)?.into_os_string() } else { value };
        spawn = spawn.env(name, value);
    }
    for name in settings.iter().flat_map(Settings::provider_variables).chain(OWN.map(str::to_owned)) {
        spawn = spawn.inherit(name);
    }
    for (key, file) in settings.iter().flat_map(Settings::relative_files) {
        let mut assignment = OsString::from(format!("{key}="));
        assignment.push(std::path::absolute(file)?);
        spawn = spawn.arg("--set").arg(assignment);
    }
    Ok(spawn.log(Some(log)).on_start(|started| {
        let log = started.log.map(|log| format!(", and logs to {}", log.display())).unwrap_or_default();
        output::note(format_args!(
            "no server ran, so one was started: process {}, which ends when no client uses it any more{log}",
            started.pid
        ));
    }))
}

/// This program, even if its file was replaced since it began.
fn program() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "bellrope".into())
}

/// The log of a server whose user has no place for logs.
fn beside(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".log");
    name.into()
}
