//! The directory of a socket, which nobody else may write to.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use bellrope_shm::process;

/// Why a directory cannot be used.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// What it is, as in "is not a directory".
    Fault(&'static str),
    /// What was tried, and what the system said.
    Io(&'static str, io::Error),
}

/// The directory that a socket lies in.
pub(crate) fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes the directory if it is missing, and makes sure that nobody else can put anything into it.
pub(crate) fn prepare(directory: &Path) -> Result<(), Unfit> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(Unfit::Io("creating the directory", source)),
    }
    let metadata = fs::symlink_metadata(directory).map_err(|source| Unfit::Io("looking at the directory", source))?;
    if metadata.file_type().is_symlink() || !metadata.is_dir() {
        return Err(Unfit::Fault("is not a directory"));
    }
    if metadata.uid() != process::user_id() {
        return Err(Unfit::Fault("belongs to another user"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(Unfit::Fault("can be written by others"));
    }
    Ok(())
}
