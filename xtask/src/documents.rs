//! The documents of the repository.

use std::path::{Path, PathBuf};

use crate::sources;

/// Every document: those at the root, in `docs/`, and a crate's README.
pub(crate) fn all(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folders = [root.join("docs"), root.join("crates"), root.join("fuzz"), root.join("xtask")];
    let mut found: Vec<PathBuf> = sources::files_in(root, "md")?;
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        found.extend(sources::files(folder, "md")?);
    }
    Ok(found)
}
