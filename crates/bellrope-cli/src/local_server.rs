//! A server in a unit test's own process.

use std::path::PathBuf;

use bellrope::{Server, ServerBuilder};

/// It ends when this is dropped.
pub(crate) struct LocalServer {
    _server: Server,
    /// Removed with all that is in it.
    home: tempfile::TempDir,
}

impl LocalServer {
    /// Starts a server on a private socket, with what `register` adds.
    pub(crate) fn start(register: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let home = tempfile::tempdir().unwrap();
        let server = register(Server::builder()).bind(socket_in(&home)).unwrap();
        Self { _server: server, home }
    }

    /// As [`Self::start`], with the echo that every server of ours has.
    pub(crate) fn echo() -> Self {
        Self::start(|builder| builder.in_place("echo", |_| Ok(())))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(&self.home)
    }
}

fn socket_in(home: &tempfile::TempDir) -> PathBuf {
    home.path().join("run").join("bell.sock")
}
