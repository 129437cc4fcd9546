//! How a server takes a socket path for itself, or a listener that somebody else has opened.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bellrope_shm::{
    process,
    socket::{LONGEST_PATH, Socket},
};

use super::error::BindError;
use crate::private_directory::{self, Unfit, directory_of};

/// Tries to take a lock whose file was replaced meanwhile.
const LOCK_TRIES: u32 = 100;
/// How long a server may hold its lock when it listens no more.
const LEAVING: Duration = Duration::from_secs(5);
/// Between two looks whether it is gone.
const LEAVING_PAUSE: Duration = Duration::from_millis(2);

/// The listener that a service manager opened for this process (socket activation, `LISTEN_FDS`), if it did. It can be
/// taken once.
///
/// # Errors
/// More than one descriptor was handed over, or one that is no listening Unix socket.
pub fn inherited_listener() -> Result<Option<UnixListener>, BindError> {
    let refuse = |source| BindError::Io { what: "taking the socket of the service manager".to_owned(), source };
    let mut inherited = process::inherited().map_err(refuse)?;
    let Some(last) = inherited.pop() else { return Ok(None) };
    let listener = last.into_unix_listener().filter(|_| inherited.is_empty());
    if listener.is_none() {
        let fault = "it must hand over exactly one socket, of the kind ListenStream=/a/path";
        return Err(refuse(io::Error::new(io::ErrorKind::InvalidInput, fault)));
    }
    Ok(listener)
}

/// A socket path that belongs to one server: its lock is held as long as this lives.
#[derive(Debug)]
pub(crate) struct OwnedPath {
    path: PathBuf,
    /// What stands there, by which it is told from another server's socket when we go.
    socket: Identity,
    /// Locked. The file stays when we go: unlinking it would let two servers lock two files of one name.
    lock: Arc<File>,
}

impl OwnedPath {
    /// Takes the path and listens there: directory, lock, probe, unlink, bind.
    pub(crate) fn bind(path: &Path) -> Result<(Self, UnixListener), BindError> {
        let length = path.as_os_str().len();
        if length > LONGEST_PATH {
            return Err(BindError::PathTooLong { path: path.to_owned(), length, limit: LONGEST_PATH });
        }
        let directory = directory_of(path);
        private_directory::prepare(&directory).map_err(|unfit| match unfit {
            Unfit::Fault(fault) => BindError::Directory { path: directory.clone(), fault },
            Unfit::Io(what, source) => io_error(what, &directory, source),
        })?;
        let lock = lock(path)?;
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(|source| io_error("binding", path, source))?;
        let bound = fs::set_permissions(path, fs::Permissions::from_mode(0o600)).and_then(|()| Identity::of(path));
        let socket = bound.map_err(|source| io_error("setting the mode of", path, source))?;
        Ok((Self { path: path.to_owned(), socket, lock: Arc::new(lock) }, listener))
    }

    /// The same path, for whoever is to see that it is lost.
    pub(crate) fn watch(&self) -> WatchedPath {
        WatchedPath { path: self.path.clone(), socket: self.socket, lock: Arc::clone(&self.lock) }
    }
}

/// A socket path that a server has, and may lose.
#[derive(Debug)]
pub(crate) struct WatchedPath {
    pub(crate) path: PathBuf,
    socket: Identity,
    lock: Arc<File>,
}

impl WatchedPath {
    /// Whether something else stands there now, or nothing. A path that cannot be looked at says neither.
    pub(crate) fn is_lost(&self) -> bool {
        match Identity::of(&self.path) {
            Ok(there) => there != self.socket,
            Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        }
    }

    /// Lets another server have the path.
    pub(crate) fn give_up(&self) {
        // If this fails, the next server waits until this one has ended.
        let _ = process::unlock(&self.lock);
    }
}

impl Drop for OwnedPath {
    fn drop(&mut self) {
        // The directory may have been moved or removed, and another server may have taken the path since: its socket stays.
        // Nobody takes the path between the two calls, unless its lock file went as well.
        if Identity::of(&self.path).is_ok_and(|there| there == self.socket) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What tells one file from another that later has its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// That of what stands at a path; a symbolic link is not followed.
    fn of(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&fs::Metadata> for Identity {
    fn from(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Locks `PATH.lock` and writes our process id into it, for whoever comes second. A server that is about to end, or about to
/// begin, holds it and does not listen: it is waited for.
fn lock(path: &Path) -> Result<File, BindError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let until = Instant::now() + LEAVING;
    let mut tries = 0;
    while tries < LOCK_TRIES {
        if fs::symlink_metadata(&lock_path).is_ok_and(|there| !there.is_file()) {
            let reason = "it is no ordinary file; move it away, or choose another socket path";
            return Err(io_error("locking", &lock_path, io::Error::new(io::ErrorKind::InvalidInput, reason)));
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|source| io_error("opening the lock file", &lock_path, source))?;
        let locked = process::try_lock(&file).map_err(|source| io_error("locking", &lock_path, source))?;
        if !locked {
            if is_free(path) && Instant::now() < until {
                std::thread::sleep(LEAVING_PAUSE);
                continue;
            }
            let mut holder = String::new();
            let _ = file.take(32).read_to_string(&mut holder);
            return Err(BindError::InUse { path: path.to_owned(), holder: holder.trim().parse().ok() });
        }
        tries += 1;
        // The file that we locked may be gone from its path by now, and then others lock another one there.
        let locked = file.metadata().map_err(|source| io_error("looking at", &lock_path, source))?;
        if !Identity::of(&lock_path).is_ok_and(|there| there == Identity::from(&locked)) {
            continue;
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        written.map_err(|source| io_error("writing", &lock_path, source))?;
        return Ok(file);
    }
    let source = io::Error::other("it was replaced each time we had locked it");
    Err(io_error("locking", &lock_path, source))
}

/// Whether nobody listens at a path.
fn is_free(path: &Path) -> bool {
    let error = Socket::connect(path).err();
    error.is_some_and(|error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused))
}

/// Removes the socket that a dead server left. We hold the lock, so a living one is no server of ours.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let stale = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error("looking at", path, source)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(metadata) => Identity::from(&metadata),
    };
    match Socket::connect(path) {
        // Only this says that nobody listens. One who is too busy to take us, or has another kind of socket, is there.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(_) => return Err(BindError::InUse { path: path.to_owned(), holder: None }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(BindError::InUse { path: path.to_owned(), holder: None });
        }
        Err(source) => return Err(io_error("asking who listens at", path, source)),
    }
    match Identity::of(path) {
        Ok(there) if there == stale => {}
        Ok(_) => return Err(BindError::InUse { path: path.to_owned(), holder: None }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error("looking at", path, source)),
    }
    fs::remove_file(path).map_err(|source| io_error("removing the stale socket", path, source))
}

fn io_error(what: &str, path: &Path, source: io::Error) -> BindError {
    BindError::Io { what: format!("{what} {}", path.display()), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    // Fault 24.
    #[test]
    fn a_path_has_one_server_at_a_time_and_the_second_learns_who() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run").join("bell.sock");
        let (owned, _listener) = OwnedPath::bind(&path).unwrap();
        let error = OwnedPath::bind(&path).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(owned);
        assert!(!path.exists());
        OwnedPath::bind(&path).unwrap();
    }

    // Fault 24.
    #[test]
    fn of_many_servers_that_race_for_a_path_one_wins_and_the_others_say_who() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run").join("bell.sock");
        for _ in 0..50 {
            let start = std::sync::Barrier::new(4);
            let race = || {
                start.wait();
                OwnedPath::bind(&path)
            };
            let outcomes: Vec<_> = std::thread::scope(|scope| {
                let racers: Vec<_> = (0..4).map(|_| scope.spawn(race)).collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).collect()
            });
            assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
            for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
                assert!(matches!(error, BindError::InUse { .. }), "{error}");
            }
        }
    }

    // Fault 24.
    #[test]
    fn a_socket_left_by_a_dead_server_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("bell.sock");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        let (_owned, _listener) = OwnedPath::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    /// A directory that a server takes, with a path in it.
    fn place(home: &Path, name: &str) -> PathBuf {
        let directory = home.join(name);
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        directory.join("bell.sock")
    }

    // Fault 67.
    #[test]
    fn a_server_whose_directory_was_moved_leaves_the_socket_of_the_next_one_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = place(home.path(), "run");
        let (first, _listener) = OwnedPath::bind(&path).unwrap();
        fs::rename(home.path().join("run"), home.path().join("moved")).unwrap();
        let (second, listener) = OwnedPath::bind(&path).unwrap();
        drop(first);
        drop(UnixStream::connect(&path).unwrap());
        listener.accept().unwrap();
        drop(second);
        assert!(!path.exists());
    }

    // Fault 67.
    #[test]
    fn a_socket_or_lock_file_that_was_replaced_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = place(home.path(), "run");
        let (first, _listener) = OwnedPath::bind(&path).unwrap();
        // Somebody cleared the directory, and others came: with another socket, with a file, with nothing.
        fs::remove_file(&path).unwrap();
        let stranger = UnixListener::bind(&path).unwrap();
        drop(first);
        drop(UnixStream::connect(&path).unwrap());
        stranger.accept().unwrap();
        fs::remove_file(&path).unwrap();

        let (first, _listener) = OwnedPath::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(first);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();

        // A lock on a file that is not there any more keeps nobody off, and takes nothing from whoever came then.
        let (first, _first_listener) = OwnedPath::bind(&path).unwrap();
        fs::remove_file(home.path().join("run").join("bell.sock.lock")).unwrap();
        fs::remove_file(&path).unwrap();
        let (_second, listener) = OwnedPath::bind(&path).unwrap();
        drop(first);
        drop(UnixStream::connect(&path).unwrap());
        listener.accept().unwrap();
        assert!(home.path().join("run").join("bell.sock.lock").exists());
    }

    // Fault 67.
    #[test]
    fn a_socket_that_is_not_known_to_be_stale_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = place(home.path(), "run");
        // It listens, and is so busy that it takes nobody: a stopped server with its queue full.
        let listener = UnixListener::bind(&path).unwrap();
        let mut waiting = Vec::new();
        loop {
            match Socket::connect(&path) {
                Ok(socket) => waiting.push(socket),
                Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(matches!(OwnedPath::bind(&path).unwrap_err(), BindError::InUse { holder: None, .. }));
        assert!(path.exists());
        drop((listener, waiting));
        fs::remove_file(&path).unwrap();
        // Another kind of socket refuses us too, in other words.
        let _datagrams = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let error = OwnedPath::bind(&path).unwrap_err().to_string();
        assert!(error.starts_with("asking who listens at "), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_refused_once_with_the_limit() {
        let home = tempfile::tempdir().unwrap();
        let bind = |length: usize| {
            let name = "x".repeat(length - home.path().as_os_str().len() - "/".len());
            fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
            OwnedPath::bind(&home.path().join(name))
        };
        bind(LONGEST_PATH).unwrap();
        let error = bind(LONGEST_PATH + 1).unwrap_err();
        assert!(matches!(error, BindError::PathTooLong { length: 108, limit: 107, .. }));
        let fix = " is longer than 107 bytes, the most that a socket's may have; choose another (--socket)";
        assert!(error.to_string().ends_with(fix), "{error}");
    }

    // Fault 25.
    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let open = home.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let error = OwnedPath::bind(&open.join("bell.sock")).unwrap_err();
        assert!(error.to_string().contains("can be written by others"), "{error}");
        let link = home.path().join("link");
        std::os::unix::fs::symlink(home.path(), &link).unwrap();
        let error = OwnedPath::bind(&link.join("bell.sock")).unwrap_err();
        assert!(error.to_string().contains("is not a directory"), "{error}");
    }

    #[test]
    fn a_living_socket_that_holds_no_lock_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("bell.sock");
        let stranger = UnixListener::bind(&path).unwrap();
        let error = OwnedPath::bind(&path).unwrap_err();
        assert!(error.to_string().starts_with("another server (process unknown) holds "), "{error}");
        stranger.accept().unwrap(); // we knocked
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_path_without_a_directory_is_one_in_the_current_directory() {
        let here = "BELLROPE_BIND_HERE";
        if std::env::var_os(here).is_some() {
            let (_owned, _listener) = OwnedPath::bind(Path::new("bell.sock")).unwrap();
            return fs::write("bound", if Path::new("bell.sock").exists() { "yes" } else { "no" }).unwrap();
        }
        let home = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["server::path::tests::a_path_without_a_directory_is_one_in_the_current_directory", "--exact"]);
        let ended = command.current_dir(home.path()).env(here, "1").output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
        assert_eq!(fs::read_to_string(home.path().join("bound")).unwrap(), "yes");
    }

    // Fault 25.
    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("bell.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(OwnedPath::bind(&path).unwrap_err(), BindError::NotASocket(_)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    // Fault 25.
    #[test]
    fn what_stands_in_the_place_of_the_lock_file_is_left_alone_and_named() {
        let home = tempfile::tempdir().unwrap();
        let (path, precious) = (home.path().join("bell.sock"), home.path().join("precious"));
        let lock = home.path().join("bell.sock.lock");
        let make: [(&str, &dyn Fn()); 3] = [
            ("a link", &|| std::os::unix::fs::symlink(&precious, &lock).unwrap()),
            ("a directory", &|| fs::create_dir(&lock).unwrap()),
            ("a pipe", &|| assert!(std::process::Command::new("mkfifo").arg(&lock).status().unwrap().success())),
        ];
        for (what, make) in make {
            make();
            let error = OwnedPath::bind(&path).unwrap_err();
            let words = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
            assert!(format!("{error}{words}").contains("it is no ordinary file; move it away"), "{what}: {error}");
            assert!(fs::symlink_metadata(&lock).is_ok() && !precious.exists(), "{what}");
            fs::remove_file(&lock).or_else(|_| fs::remove_dir(&lock)).unwrap();
        }
    }
}
