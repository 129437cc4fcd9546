//! Which program is the server, and what it is given.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::settings::setters;

/// How to start the server that a client does not find: see
/// [`Client::connect_or_spawn`](crate::Client::connect_or_spawn).
///
/// The server outlives whoever started it, and belongs to all clients alike, so it has nothing of its starter:
/// - It has a session of its own. Ctrl-C, a hang-up or the end of the terminal do not reach it.
/// - Its current directory is `/`. Give it absolute paths.
/// - Of the starter's descriptors it has none. It reads nothing, and writes to [`log`](Self#structfield.log).
/// - Of the starter's environment it has `HOME`, `USER`, `LOGNAME`, `PATH`, `LANG`, `LANGUAGE`, `LC_*`, `TZ`, `XDG_*`,
///   `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` (also in lower case), `SSL_CERT_FILE` and `SSL_CERT_DIR`, and what
///   [`inherit`](Self::inherit) and [`env`](Self::env) name. All clients have the server that the first of them started, with
///   its variables.
///
/// A server that a client starts should end when nobody needs it: see
/// [`ServerConfig::exit_when_idle`](crate::server::ServerConfig#structfield.exit_when_idle).
///
/// ```
/// use std::time::Duration;
///
/// use bellrope::client::Spawn;
///
/// let spawn = Spawn::program("bellrope")
///     .args(["serve", "--socket", "/run/user/1000/editor/bell.sock", "--exit-when-idle", "10m"])
///     .inherit("EDITOR_KEY")
///     .env("RUST_LOG", "warn")
///     .timeout(Duration::from_secs(10));
/// assert_eq!(spawn.timeout, Duration::from_secs(10));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Spawn {
    /// Where the server's standard output and error go. Default: [`default_log_path`](crate::default_log_path) of the
    /// program's name, or beside the socket where there is none. A server that runs for long writes its log there by
    /// itself, through a [`LogFile`](crate::LogFile), so that it stays bounded.
    pub log: Option<PathBuf>,
    /// Most bytes of the log and the one before it together when a server is started. Default 16 MiB.
    pub log_bytes: u64,
    /// How long to wait until a server answers. Default 30 s: a machine that is busy may take that long to start a program.
    pub timeout: Duration,
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    pub(super) inherited: Vec<OsString>,
    pub(super) variables: Vec<(OsString, OsString)>,
    on_start: Option<OnStart>,
}

/// A server that was started just now. It may be starting still.
#[derive(Debug)]
#[non_exhaustive]
pub struct Started<'a> {
    /// Its process id.
    pub pid: u32,
    /// Where its standard output and error go, if anywhere.
    pub log: Option<&'a Path>,
}

#[derive(Clone)]
struct OnStart(Arc<dyn Fn(&Started<'_>) + Send + Sync>);

impl fmt::Debug for OnStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnStart")
    }
}

impl Spawn {
    /// Starts this program: a path, or a name that is looked up in `PATH`. [Example](Self).
    #[must_use]
    pub fn program(program: impl Into<OsString>) -> Self {
        Self {
            log: None,
            log_bytes: 16 * 1024 * 1024,
            timeout: Duration::from_secs(30),
            program: program.into(),
            arguments: Vec::new(),
            inherited: Vec::new(),
            variables: Vec::new(),
            on_start: None,
        }
    }

    /// Adds an argument. [Example](Self).
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments. [Example](Self).
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Gives the server this variable of the starter's environment too, if it is set. [Example](Self).
    #[must_use]
    pub fn inherit(mut self, name: impl Into<OsString>) -> Self {
        self.inherited.push(name.into());
        self
    }

    /// Gives the server this variable. [Example](Self).
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Has `tell` called when a server is started, before it is waited for. Where one is found it is not called.
    ///
    /// ```
    /// use bellrope::client::Spawn;
    ///
    /// let spawn = Spawn::program("bellrope").on_start(|started| eprintln!("started a server, process {}", started.pid));
    /// ```
    #[must_use]
    pub fn on_start(mut self, tell: impl Fn(&Started<'_>) + Send + Sync + 'static) -> Self {
        self.on_start = Some(OnStart(Arc::new(tell)));
        self
    }

    pub(super) fn tell(&self, started: &Started<'_>) {
        self.on_start.iter().for_each(|on_start| (on_start.0)(started));
    }
}

setters!(Spawn {
    log: Option<PathBuf>,
    log_bytes: u64,
    timeout: Duration,
});
