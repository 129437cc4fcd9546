//! Who may start a server: whoever holds the lock beside its socket. All others wait for the server, or for the lock.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bellrope_shm::process;

use super::error::SpawnError;
use crate::private_directory::{self, Unfit, directory_of};

/// The lock of a socket path. It goes with the process that holds it, however that ends.
///
/// It lies beside the socket, so it is one of this machine, as the socket is, even where the user's home is shared with others.
#[derive(Debug)]
pub(super) struct SpawnLock {
    file: File,
    path: PathBuf,
    pub(super) is_held: bool,
}

impl SpawnLock {
    /// Opens the lock of the server at `socket`. The file stays for ever, as that of the server does: unlinking it would let
    /// two lock two files of one name.
    pub(super) fn of(socket: &Path) -> Result<Self, SpawnError> {
        let directory = directory_of(socket);
        private_directory::prepare(&directory).map_err(|unfit| match unfit {
            Unfit::Fault(fault) => SpawnError::Directory { path: directory, fault },
            Unfit::Io(what, source) => SpawnError::Io { what, path: directory, source },
        })?;
        let mut path = socket.as_os_str().to_owned();
        path.push(".spawn");
        let path = PathBuf::from(path);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        match opened {
            Ok(file) => Ok(Self { file, path, is_held: false }),
            Err(source) => Err(failed(path, source)),
        }
    }

    /// Takes the lock if nobody has it.
    pub(super) fn try_take(&mut self) -> Result<bool, SpawnError> {
        self.is_held = process::try_lock(&self.file).map_err(|source| failed(self.path.clone(), source))?;
        Ok(self.is_held)
    }
}

fn failed(path: PathBuf, source: io::Error) -> SpawnError {
    SpawnError::Io { what: "locking", path, source }
}
