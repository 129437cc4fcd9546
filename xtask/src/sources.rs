//! Finds the files of the repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// Every file below a folder whose name has this end, sorted. Leaves out hidden folders and build output: any `target`
/// beside a `Cargo.toml`.
///
/// # Errors
/// A folder cannot be read.
pub fn files(folder: &Path, end: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(folder, end, &mut found)?;
    found.sort();
    Ok(found)
}

/// Every file in a folder itself whose name has this end, sorted.
pub(crate) fn files_in(folder: &Path, end: &str) -> anyhow::Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read the folder {}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == end) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, end: &str, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let unreadable = || format!("cannot read the folder {}", folder.display());
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().with_context(unreadable)?.is_dir() {
            let hidden = name.to_string_lossy().starts_with('.');
            let built = name == "target" && folder.join("Cargo.toml").exists();
            if !hidden && !built {
                collect(&path, end, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == end) {
            found.push(path);
        }
    }
    Ok(())
}

/// The text of a file.
pub(crate) fn text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
