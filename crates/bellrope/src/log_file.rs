//! A log that cannot grow without bound.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The fewest bytes that a log may be given: two files of one long line each.
const FEWEST_BYTES: u64 = 8 * 1024;

/// A log file that is followed by a fresh one when it is full. The one before it is kept as `FILE.1`, and both together
/// never have more bytes than they are given. It is readable by its user alone, and so is its directory if that is made.
///
/// Each write is a whole line, or several; one that is longer than half of the log is cut. Several processes may write into
/// one log, and somebody else may move it away or remove it: the next line finds, or makes, what stands at the path then.
///
/// ```
/// use std::io::Write as _;
///
/// use bellrope::LogFile;
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("state").join("server.log");
/// let mut log = LogFile::open(&path, 64 * 1024)?;
/// for n in 0..10_000 {
///     log.write_all(format!("line {n}\n").as_bytes())?;
/// }
/// let bytes = |path: &std::path::Path| Ok::<_, std::io::Error>(std::fs::metadata(path)?.len());
/// assert!(bytes(&path)? + bytes(&path.with_extension("log.1"))? <= 64 * 1024);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// Bytes of each of the two files, at most.
    each: u64,
    file: Option<File>,
}

impl LogFile {
    /// Opens the log at `path`, or makes it and its directory. `bytes` is the most that both files together may have, 8 KiB
    /// at the least.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: impl Into<PathBuf>, bytes: u64) -> io::Result<Self> {
        let mut log = Self { path: path.into(), each: bytes.max(FEWEST_BYTES) / 2, file: None };
        log.with_room(0)?;
        Ok(log)
    }

    /// The file that is written to now, for a program that is to have it as an output. It is full when this says so, and
    /// not before.
    #[cfg(feature = "client")]
    pub(crate) fn into_file(mut self) -> io::Result<File> {
        // At most half full, so that a program that says a little before it opens the log itself does not fill it.
        self.with_room(self.each / 2)?.try_clone()
    }

    /// The file to write this many bytes to.
    fn with_room(&mut self, bytes: u64) -> io::Result<&File> {
        let there = self.file.take().filter(|file| stands_at(&self.path, file));
        let mut file = match there {
            Some(file) => file,
            None => open(&self.path)?,
        };
        let filled = file.metadata()?.len();
        if filled > 0 && filled.saturating_add(bytes) > self.each {
            fs::rename(&self.path, before(&self.path))?;
            file = open(&self.path)?;
        }
        Ok(self.file.insert(file))
    }
}

impl Write for LogFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let most = usize::try_from(self.each).unwrap_or(usize::MAX);
        let kept = &lines[..lines.len().min(most)];
        let mut file = self.with_room(kept.len() as u64)?;
        file.write_all(kept)?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    // To open a pipe is to wait for its reader, and so is to write into it.
    if fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo() || found.file_type().is_socket()) {
        let reason = "it is a pipe or a socket, which whoever reads it could hold up; name an ordinary file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Whether nobody has moved a file away from its path.
fn stands_at(path: &Path, file: &File) -> bool {
    let identity = |found: io::Result<fs::Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
    identity(file.metadata()).is_some_and(|ours| identity(fs::metadata(path)) == Some(ours))
}

/// Where the lines go that came before those of the file.
fn before(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const BYTES: u64 = 16 * 1024;

    fn both(path: &Path) -> (u64, u64) {
        let bytes = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        (bytes(path), bytes(&before(path)))
    }

    #[test]
    fn a_log_never_has_more_bytes_than_it_is_given_and_keeps_the_last_lines() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state").join("a.log");
        // Two processes at it, as far as the files can tell.
        let mut logs = [LogFile::open(&path, BYTES).unwrap(), LogFile::open(&path, BYTES).unwrap()];
        for n in 0..5_000 {
            logs[n % 2].write_all(format!("line {n}\n").as_bytes()).unwrap();
            let (now, before) = both(&path);
            assert!(now + before <= BYTES, "{now} + {before}");
        }
        assert!(fs::read_to_string(&path).unwrap().ends_with("line 4999\n"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.log");
        let mut log = LogFile::open(&path, BYTES).unwrap();
        for _ in 0..3 {
            log.write_all(&[b'x'; 100_000]).unwrap();
        }
        assert_eq!(both(&path), (BYTES / 2, BYTES / 2));
    }

    // Fault 48.
    #[test]
    fn a_pipe_that_nobody_reads_is_refused_in_words_and_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.log");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = LogFile::open(&path, BYTES).unwrap_err().to_string();
        assert!(error.contains("name an ordinary file"), "{error}");
    }

    #[test]
    fn a_log_that_was_moved_or_removed_begins_anew_at_its_path() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state").join("a.log");
        let mut log = LogFile::open(&path, BYTES).unwrap();
        log.write_all(b"one\n").unwrap();
        fs::rename(&path, home.path().join("moved")).unwrap();
        log.write_all(b"two\n").unwrap();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        log.write_all(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(home.path().join("moved")).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }
}
