//! The files that a server writes or reads beside its socket. Only what is wrong with them is told.

use std::{fs, io, os::unix::fs::FileTypeExt, path::Path};

use rustix::fs::{Access, access};

use super::finding::Finding;

/// A file, by the setting that names it.
pub(super) struct Wanted<'a> {
    pub(super) key: &'static str,
    pub(super) path: &'a Path,
    /// Whether a device will do, as `/dev/null` for the log.
    pub(super) or_device: bool,
    pub(super) is_written: bool,
}

/// What is wrong with it, if anything is.
pub(super) fn look(Wanted { key, path, or_device, is_written }: &Wanted<'_>) -> Option<Finding> {
    let (shown, other) = (path.display(), format!("or name another as {key}"));
    let fail = |found: String, fix: &str| Some(Finding::fail("files", found, format!("{fix}, {other}")));
    match fs::metadata(path) {
        Ok(found) if !(found.is_file() || *or_device && found.file_type().is_char_device()) => {
            fail(format!("{shown} ({key}) is no ordinary file"), "move it away")
        }
        Ok(_) => {
            let (needed, word) =
                if *is_written { (Access::READ_OK | Access::WRITE_OK, "written") } else { (Access::READ_OK, "read") };
            let error = access(*path, needed).err()?;
            fail(format!("{shown} ({key}) cannot be {word}: {}", io::Error::from(error)), "allow that")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && *is_written => {
            // The server makes it, and folders above it.
            let above = path.ancestors().skip(1).find(|above| fs::symlink_metadata(above).is_ok())?;
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            let error = match fs::metadata(above) {
                Ok(found) if found.is_dir() => {
                    access(above, Access::WRITE_OK | Access::EXEC_OK).err().map(io::Error::from)?
                }
                Ok(_) => io::ErrorKind::NotADirectory.into(),
                Err(error) => error,
            };
            fail(format!("{shown} ({key}) cannot be made in {}: {error}", above.display()), "allow that")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => fail(format!("{shown} ({key}): {error}"), "fix that"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_way_of_a_file_is_named_with_its_setting() {
        let home = tempfile::tempdir().unwrap();
        let found = |path: &str, or_device, is_written| {
            let path = home.path().join(path);
            look(&Wanted { key: "books.path", path: &path, or_device, is_written }).map(|finding| finding.found)
        };
        fs::write(home.path().join("file"), "x").unwrap();
        fs::create_dir(home.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("loop", home.path().join("loop")).unwrap();
        for fine in ["file", "new", "folder/new", "some/new/folder/file"] {
            assert_eq!(found(fine, false, true), None, "{fine}");
        }
        assert_eq!((found("/dev/null", true, true), found("new", false, false)), (None, None));
        for (path, words) in [
            ("folder", "folder (books.path) is no ordinary file"),
            ("/dev/null", "/dev/null (books.path) is no ordinary file"),
            ("file/under", "file/under (books.path): Not a directory (os error 20)"),
            ("loop", "loop (books.path): Too many levels of symbolic links (os error 40)"),
        ] {
            let found = found(path, false, true).unwrap();
            assert!(found.ends_with(words), "{found}");
        }
        let finding = look(&Wanted { key: "log_file", path: home.path(), or_device: true, is_written: true }).unwrap();
        assert_eq!(finding.fix.as_deref(), Some("move it away, or name another as log_file"));
    }
}
