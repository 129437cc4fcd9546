//! Where the files are, and who may read them.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The ledger where no setting names one: `$XDG_STATE_HOME/bellrope/books.db`, or the same below `~/.local/state`. `None`:
/// neither `XDG_STATE_HOME` nor `HOME` is set to an absolute path.
#[must_use]
pub fn default_books_path() -> Option<PathBuf> {
    bellrope::default_state_path("books.db")
}

/// The tokens where no setting names a file: `tokens.json` in the same place.
#[must_use]
pub fn default_tokens_path() -> Option<PathBuf> {
    bellrope::default_state_path("tokens.json")
}

/// Makes the folder of a file if it is missing, for its user alone.
pub(crate) fn prepare(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => DirBuilder::new().recursive(true).mode(0o700).create(folder),
        None => Ok(()),
    }
}

/// Makes the file if it is missing, readable by its user alone.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    prepare(path)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// What tells a file from another one at the same path later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity(u64, u64);

impl FileIdentity {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self(metadata.dev(), metadata.ino()))
    }
}
