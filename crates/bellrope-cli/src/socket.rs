//! Which server to talk to, and what to say when it is not there.

use std::{
    ffi::OsString,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use bellrope::{
    CallError, Client,
    client::{ClientConfig, ConnectError, HandshakeError, HandshakeStatus},
    default_socket_path,
    server::BindError,
};
use bellrope_gateway::MESSAGE_TYPES;
use bellrope_shm::wait::Poller;
use clap::Args;
use tokio::runtime::Runtime;

/// The variable that names the socket where no `--socket` does.
pub(crate) const VARIABLE: &str = "BELLROPE_SOCKET";

/// The runtime of a command that talks to a server.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    // tokio panics where it may not wait, or says nothing of what is denied.
    Poller::check_runtime_waits().context("starting")?;
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Where the server is.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SocketArg {
    /// The server's socket [default: $BELLROPE_SOCKET, else bellrope/bellrope.sock in $XDG_RUNTIME_DIR or /run/user/UID, else /tmp/bellrope-UID/bellrope.sock].
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

impl SocketArg {
    /// The path that was given, or else the default one.
    pub(crate) fn path(&self) -> PathBuf {
        let given = self.socket.clone().or_else(|| environment(VARIABLE).map(PathBuf::from));
        given.unwrap_or_else(default_socket_path)
    }

    /// The settings of a client of this server.
    pub(crate) fn config(&self) -> ClientConfig {
        ClientConfig::new(self.path())
    }
}

/// Nobody listens, with how to start a server. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoServer(String);

/// Connects a client that needs no runtime.
pub(crate) fn connect(config: ClientConfig) -> anyhow::Result<Client> {
    Client::with(config).map_err(explain)
}

/// A call that found no server, or one without an AI gateway, with what to do.
pub(crate) fn explain_call(error: CallError) -> anyhow::Error {
    match error {
        CallError::Connect(error) => explain(error),
        CallError::UnknownMessageType { name, .. } if MESSAGE_TYPES.contains(&name.as_str()) => anyhow!(
            "the server has no {name}: it is a program without an AI gateway, or older than this one; `bellrope serve` has one"
        ),
        error => error.into(),
    }
}

/// A variable of the environment, unless it is empty.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Says what to do about a server that was not there, or is of another version.
pub(crate) fn explain(error: ConnectError) -> anyhow::Error {
    let path = match &error {
        ConnectError::NoServer { path, .. } if is_another_file(path) => {
            return anyhow!("{} is not a socket; give a server's socket with --socket or {VARIABLE}", path.display());
        }
        ConnectError::NoServer { path, .. } => path,
        ConnectError::Handshake(
            HandshakeError::Version { .. } | HandshakeError::Refused { status: HandshakeStatus::Version, .. },
        ) => return anyhow!("{error}; bring both to one version, and start the server anew"),
        _ => return error.into(),
    };
    NoServer(format!("{error}; start one with `{}`", command("serve", path))).into()
}

/// Whether something else than a socket is at the path, where no server can be started.
fn is_another_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket())
}

/// Says what to do about a path that another server has.
pub(crate) fn explain_bind(error: BindError) -> anyhow::Error {
    let BindError::InUse { path, holder } = &error else { return error.into() };
    let holder = holder.map_or("unknown".to_owned(), |pid| pid.to_string());
    let (shown, command) = (path.display(), command("stop", path));
    anyhow!("another server (process {holder}) holds {shown}; end it with `{command}`, or choose another socket path")
}

/// How to run a command of this program for the server at a path.
fn command(name: &str, path: &Path) -> String {
    match path {
        path if *path == default_socket_path() => format!("bellrope {name}"),
        path => format!("bellrope {name} --socket {}", quoted(path)),
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c)) && !text.is_empty() {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn explained(path: PathBuf) -> String {
        let source = io::Error::from(io::ErrorKind::NotFound);
        explain(ConnectError::NoServer { path, source }).to_string()
    }

    #[test]
    fn a_dead_socket_is_named_with_how_to_start_its_server() {
        let text = explained(default_socket_path());
        assert!(text.contains(&default_socket_path().display().to_string()), "{text}");
        assert!(text.ends_with("start one with `bellrope serve`"), "{text}");
        let text = explained("/etc/passwd".into());
        assert_eq!(text, "/etc/passwd is not a socket; give a server's socket with --socket or BELLROPE_SOCKET");
        let text = explained("/run/o'hara/my bell.sock".into());
        assert!(text.ends_with(r"start one with `bellrope serve --socket '/run/o'\''hara/my bell.sock'`"), "{text}");
    }
}
