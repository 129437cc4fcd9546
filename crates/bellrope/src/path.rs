//! Where the socket, the log and other files of the user lie when nobody says so.

use std::{
    ffi::OsString,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use bellrope_shm::process;

/// The socket path when none is given: `$XDG_RUNTIME_DIR/bellrope/bellrope.sock`; without that variable the same below
/// `/run/user/UID`, if this user has such a directory, else `/tmp/bellrope-UID/bellrope.sock`.
///
/// `TMPDIR` plays no part: programs of one user that are given different ones must find the same server.
#[must_use]
pub fn default_socket_path() -> PathBuf {
    let uid = process::user_id();
    let of_user = PathBuf::from(format!("/run/user/{uid}"));
    let is_ours = std::fs::symlink_metadata(&of_user).is_ok_and(|found| found.is_dir() && found.uid() == uid);
    socket_path(|name| std::env::var_os(name), is_ours.then_some(of_user), uid)
}

/// The log of a server of this name when none is given: `NAME.log` [where the user keeps state](default_state_path).
///
/// ```
/// if let Some(path) = bellrope::default_log_path("my-editor") {
///     assert!(path.ends_with("bellrope/my-editor.log"));
/// }
/// ```
#[must_use]
pub fn default_log_path(name: &str) -> Option<PathBuf> {
    default_state_path(&format!("{name}.log"))
}

/// Where a program that belongs to a server keeps a file of its user's: `$XDG_STATE_HOME/bellrope/FILE`, or the same below
/// `~/.local/state`. `None`: neither `XDG_STATE_HOME` nor `HOME` is set to an absolute path.
///
/// ```
/// if let Some(path) = bellrope::default_state_path("recent.json") {
///     assert!(path.is_absolute() && path.ends_with("bellrope/recent.json"));
/// }
/// ```
#[must_use]
pub fn default_state_path(file: &str) -> Option<PathBuf> {
    state_path(|name| std::env::var_os(name), file)
}

/// A variable, unless it is empty.
fn set(vars: &impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    vars(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn socket_path(vars: impl Fn(&str) -> Option<OsString>, of_user: Option<PathBuf>, uid: u32) -> PathBuf {
    let directory = match set(&vars, "XDG_RUNTIME_DIR").or(of_user) {
        Some(runtime) => runtime.join("bellrope"),
        None => Path::new("/tmp").join(format!("bellrope-{uid}")),
    };
    directory.join("bellrope.sock")
}

fn state_path(vars: impl Fn(&str) -> Option<OsString>, file: &str) -> Option<PathBuf> {
    let state = set(&vars, "XDG_STATE_HOME").filter(|state| state.is_absolute());
    let state = state.or_else(|| Some(set(&vars, "HOME")?.join(".local/state")).filter(|state| state.is_absolute()))?;
    Some(state.join("bellrope").join(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(of: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name| of.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    }

    #[test]
    fn programs_of_one_user_find_one_socket_whatever_temporary_directory_they_are_given() {
        let path = |of: &'static [(&str, &str)], of_user: Option<&str>| {
            socket_path(vars(of), of_user.map(PathBuf::from), 1000).display().to_string()
        };
        let in_run = "/run/user/1000/bellrope/bellrope.sock";
        assert_eq!(
            path(&[("XDG_RUNTIME_DIR", "/r"), ("TMPDIR", "/x")], Some("/run/user/1000")),
            "/r/bellrope/bellrope.sock"
        );
        // One that was started with cron or in a sandbox has no such variable.
        assert_eq!(path(&[("XDG_RUNTIME_DIR", "")], Some("/run/user/1000")), in_run);
        for of in [&[("TMPDIR", "/sandbox/1")][..], &[("TMPDIR", "/sandbox/2")], &[]] {
            assert_eq!(path(of, None), "/tmp/bellrope-1000/bellrope.sock");
        }
    }

    #[test]
    fn files_are_where_the_user_keeps_state_and_never_in_the_current_folder() {
        let path = |of: &'static [(&str, &str)]| state_path(vars(of), "s.log").map(|path| path.display().to_string());
        assert_eq!(path(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]).as_deref(), Some("/s/bellrope/s.log"));
        assert_eq!(path(&[("XDG_STATE_HOME", "s"), ("HOME", "/h")]).as_deref(), Some("/h/.local/state/bellrope/s.log"));
        assert_eq!(path(&[("XDG_STATE_HOME", ""), ("HOME", "/h")]).as_deref(), Some("/h/.local/state/bellrope/s.log"));
        assert_eq!((path(&[("HOME", "h")]), path(&[])), (None, None));
    }
}
