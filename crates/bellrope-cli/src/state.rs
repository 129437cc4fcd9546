//! What the commands keep for their user from one run to the next: files that the user alone can read, in a folder of its
//! own below `$XDG_STATE_HOME` or `~/.local/state`.

use std::{
    ffi::OsString,
    fs::{DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::socket::environment;

/// Where a file of this name is, or would be. `None` where the user has no place for it.
pub(crate) fn file(name: &str) -> Option<PathBuf> {
    path(environment, name)
}

/// Makes a folder, and those above it, readable by its user alone.
///
/// # Errors
/// What the system says.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file as a whole: whoever reads it finds what it held before, or all that it holds then. Makes its folder.
///
/// # Errors
/// What the system says; the file is as it was.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}-{}.new", std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed)));
    let unfinished = PathBuf::from(unfinished);
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(&unfinished, path)
    };
    written().inspect_err(|_| drop(std::fs::remove_file(&unfinished)))
}

fn path(vars: impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    let state = vars("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(vars("HOME")?).join(".local/state")))?;
    state.is_absolute().then(|| state.join("bellrope").join(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_where_the_user_keeps_state_and_never_in_the_current_folder() {
        let path = |vars: &'static [(&str, &str)]| {
            path(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()), "chat_history")
        };
        assert_eq!(path(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]), Some("/s/bellrope/chat_history".into()));
        assert_eq!(path(&[("HOME", "/h")]), Some("/h/.local/state/bellrope/chat_history".into()));
        assert_eq!(path(&[("XDG_STATE_HOME", "s")]), None);
        assert_eq!(path(&[]), None);
    }

    #[test]
    fn a_file_is_written_whole_for_its_user_alone_and_leaves_nothing_beside_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("folder").join("file");
        for text in ["long text", "short"] {
            write(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // A folder stands in its place.
        std::fs::create_dir(home.path().join("folder").join("taken")).unwrap();
        assert!(write(&home.path().join("folder").join("taken"), b"x").is_err());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
    }
}
