//! A server in a unit test's own process.

use std::path::PathBuf;

use bellrope::{Server, server::ServerBuilder};

/// It ends when this is dropped.
pub struct LocalServer {
    server: Server,
    /// Removed with all that is in it.
    home: tempfile::TempDir,
}

impl LocalServer {
    /// Starts a server on a private socket, with what `register` adds.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(register: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let home = tempfile::tempdir().unwrap();
        let server = register(Server::builder()).bind(socket_in(&home)).unwrap();
        Self { server, home }
    }

    /// As [`Self::start`], with the echo that every server of ours has.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn echo() -> Self {
        Self::start(|builder| builder.in_place("echo", |_| Ok(())))
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.home)
    }

    /// Closes every connection, and leaves nobody who listens.
    pub fn stop(&self) {
        self.server.shutdown();
    }
}

fn socket_in(home: &tempfile::TempDir) -> PathBuf {
    home.path().join("run").join("bell.sock")
}
