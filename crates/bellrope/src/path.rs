//! Where the socket lies when nobody says so.

use std::path::PathBuf;

use bellrope_shm::process;

/// The socket path when none is given: `$XDG_RUNTIME_DIR/bellrope/bellrope.sock`, else a directory of the user's own
/// under the temporary directory.
#[must_use]
pub fn default_socket_path() -> PathBuf {
    let directory = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) if !runtime.is_empty() => PathBuf::from(runtime).join("bellrope"),
        _ => std::env::temp_dir().join(format!("bellrope-{}", process::user_id())),
    };
    directory.join("bellrope.sock")
}
