"""Looking for a server, starting one, and waiting for it. Of any number of clients that do so at once, in whatever language,
one starts a server: whoever holds the lock beside its socket."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from typing import Optional

from ._config import Config
from ._errors import Connect, SpawnError
from ._spawn import Spawn
from ._started import StartedServer, no_answer

NO_SPAWN = "BELLROPE_NO_SPAWN"
# Between two looks for a server, at first and after some.
_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.02


class Search:
    """A search for a server. Before each try to connect call `look`, and `failed` if there was none."""

    def __init__(self, config: Config, spawn: Spawn) -> None:
        self._path = config.path
        self._spawn = spawn
        self._until = time.monotonic() + spawn.timeout
        self._pause = _FIRST_PAUSE
        self._lock: Optional[SpawnLock] = None
        self._started: Optional[StartedServer] = None
        self._ended: Optional[int] = None

    def look(self) -> None:
        """Before a try: what has ended by now, and leaves nobody there, will never answer."""
        self._ended = None if self._started is None else self._started.ended()

    def failed(self, error: Connect) -> float:
        """After a try that failed: starts a server if it is time for that. Answers how long to wait for the next try."""
        leaving = _is_leaving(error)
        if not leaving and not _is_nobody(error):
            raise _other_version(self._path, error) or error
        if os.environ.get(NO_SPAWN):
            raise SpawnError("Forbidden", f"{error}; {NO_SPAWN} is set, so that none is started") from error
        if self._lock is None:
            self._lock = SpawnLock(self._path)
            return 0.0
        if self._started is not None and self._ended is not None:
            if not leaving:
                raise self._started.has_ended(self._ended)
            # It found another server at its path, and that one is leaving.
            self._started = None
        elif self._started is None and not leaving:
            if not self._lock.is_held:
                # With the lock it is looked again: whoever had it before may have started a server.
                if self._lock.try_take():
                    return 0.0
            else:
                self._started = StartedServer(self._spawn, self._path)
                if self._spawn.on_start is not None:
                    self._spawn.on_start(self._started.started())
        if time.monotonic() >= self._until:
            started, self._started = self._started, None
            if started is None:
                raise SpawnError("TimedOut", no_answer(self._path, self._spawn.timeout)) from error
            raise started.give_up(self._path, self._spawn.timeout)
        self._pause, pause = min(self._pause * 2, _LONGEST_PAUSE), self._pause
        return pause

    def end(self) -> None:
        """Gives the lock back. A server that was started lives on."""
        if self._lock is not None:
            self._lock.close()
        if self._started is not None:
            self._started.leave()


class SpawnLock:
    """Who may start the server of a socket. It goes with the process that holds it, however that ends, and lies beside the
    socket, so it is one of this machine, as the socket is, even where the user's home is shared with others."""

    def __init__(self, socket: str) -> None:
        _prepare(os.path.dirname(socket) or ".")
        self._path = f"{socket}.spawn"
        self.is_held = False
        try:
            # The file stays for ever: unlinking it would let two lock two files of one name.
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _io("locking", self._path, error) from error

    def try_take(self) -> bool:
        """Takes the lock if nobody has it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise _io("locking", self._path, error) from error
        self.is_held = True
        return True

    def close(self) -> None:
        """Gives it back."""
        os.close(self._file)


def _prepare(directory: str) -> None:
    """Makes the directory of a socket, and makes sure that nobody else can put anything into it."""
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise _io("creating the directory", directory, error) from error
    try:
        found = os.lstat(directory)
    except OSError as error:
        raise _io("looking at the directory", directory, error) from error
    fault = ""
    if not stat.S_ISDIR(found.st_mode):
        fault = "is not a directory"
    elif found.st_uid != os.geteuid():
        fault = "belongs to another user"
    elif found.st_mode & 0o022:
        fault = "can be written by others"
    if fault:
        text = f"the directory {directory} {fault}, so no server can have its socket there; choose another socket path"
        raise SpawnError("Directory", text)


def _io(what: str, path: str, error: OSError) -> SpawnError:
    return SpawnError("Io", f"{what} {path}: {error.strerror}")


def _is_nobody(error: Connect) -> bool:
    """Whether nobody listens, and not that we may not ask."""
    cause = error.__cause__
    return isinstance(cause, OSError) and error.reason == "NoServer" and cause.errno in (errno.ENOENT, errno.ECONNREFUSED)


def _is_leaving(error: Connect) -> bool:
    """Whether a server says that it ends, or ended between the connection and its answer."""
    gone = isinstance(error.__cause__, (EOFError, ConnectionResetError, BrokenPipeError)) and error.reason == "Io"
    return gone or error.status == "draining"


def _other_version(path: str, error: Connect) -> Optional[SpawnError]:
    if error.status != "version mismatch":
        return None
    return SpawnError(
        "OtherVersion",
        f"the server at {path} is of another version: {error}. It was left as it is, because other programs may be using "
        "it: bring both to one version and end that server, or give this program a socket path of its own",
    )
