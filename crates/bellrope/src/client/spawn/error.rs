//! Why there is no connection, though a server might have been started.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use bellrope_proto::handshake::{HandshakeError, HandshakeStatus};

use crate::error::ConnectError;

/// Why a client neither found a server nor has one that it started.
///
/// ```
/// use bellrope::Client;
/// use bellrope::client::{ClientConfig, Spawn, SpawnError};
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("echo.sock");
/// # let log = Some(directory.path().join("log"));
/// let spawn = Spawn::program("sh").args(["-c", "echo the licence has expired >&2; exit 3"]);
/// # let spawn = spawn.log(log);
/// let error = Client::connect_or_spawn(ClientConfig::new(&path), &spawn).unwrap_err();
/// assert!(matches!(&error, SpawnError::Ended { status, .. } if status.code() == Some(3)));
/// assert!(error.to_string().contains("the licence has expired"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// A server is there, or was, and refuses a connection; or the path cannot be that of a server. Nothing was started.
    #[error(transparent)]
    Connect(ConnectError),
    /// The server that is there speaks another version of the protocol. It is left alone, and so are its clients.
    #[error(
        "the server at {path} is of another version: {source}. It was left as it is, because other programs may be using \
         it: bring both to one version and end that server, or give this program a socket path of its own"
    )]
    OtherVersion {
        /// The socket path.
        path: PathBuf,
        /// Both versions.
        source: HandshakeError,
    },
    /// The program cannot be started.
    #[error("{} cannot be started as a server: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program was started, and ended before it answered.
    #[error("{} was started as a server and ended before it answered ({status}){}", program.display(), said(last_line.as_deref(), log.as_deref()))]
    Ended {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The last line that it wrote, or the last one that begins with `error:`, if it wrote any.
        last_line: Option<String>,
        /// Where all that it wrote is found.
        log: Option<PathBuf>,
    },
    /// No server answered in time. If this client had started one, it was ended.
    #[error("no server answered at {path} within {waited:?}{}", said(last_line.as_deref(), log.as_deref()))]
    TimedOut {
        /// The socket path.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
        /// As in [`SpawnError::Ended`], of the program that this client had started.
        last_line: Option<String>,
        /// Where all that it wrote is found.
        log: Option<PathBuf>,
    },
    /// Others can put something into the directory of the socket, so no server would lie there.
    #[error("the directory {path} {fault}, so no server can have its socket there; choose another socket path")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The system does not let a file be used that is needed to start a server.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SpawnError {
    /// What it means that the server at `path` could not be connected to.
    pub(super) fn of_connecting(path: &Path, error: ConnectError) -> Self {
        match error {
            ConnectError::Handshake(
                source @ (HandshakeError::Version { .. }
                | HandshakeError::Refused { status: HandshakeStatus::Version, .. }),
            ) => Self::OtherVersion { path: path.to_owned(), source },
            error => Self::Connect(error),
        }
    }
}

/// What a program said at last, and where the rest is.
fn said(last_line: Option<&str>, log: Option<&Path>) -> String {
    let last_line = last_line.map(|line| format!("; it said: {line}")).unwrap_or_default();
    let log = log.map(|log| format!(" (its log is {})", log.display())).unwrap_or_default();
    format!("{last_line}{log}")
}
