"""A program that was started as a server, and what it said."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

from ._errors import SpawnError
from ._spawn import Spawn, Started, default_log_path

_NAMES = ("HOME", "USER", "LOGNAME", "PATH", "LANG", "LANGUAGE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
# In capital letters or in small ones.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_PREFIXES = ("LC_", "XDG_")
# The fewest bytes of a log, as everywhere in Bellrope.
_FEWEST_BYTES = 8 * 1024
# Bytes at the end of what a program wrote in which its last line is looked for, and characters of it that are shown.
_TAIL = 16 * 1024
_LONGEST_LINE = 500


class StartedServer:
    """A server that this process started. It lives on when this is forgotten."""

    def __init__(self, spawn: Spawn, socket: str) -> None:
        program = self._program = spawn.program
        self._output, descriptor = _output(spawn, socket)
        try:
            # A path is one of our directory, and the program runs in another one. A name is looked up.
            found = os.path.abspath(program) if os.sep in program else program
            self._child = subprocess.Popen(
                [found, *spawn.arguments],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                close_fds=True,
                cwd="/",
                env=_chosen(os.environ, spawn.inherit, spawn.env),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            text = f"{program} cannot be started as a server: {getattr(error, 'strerror', None) or error}"
            raise SpawnError("Start", text, program) from error
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def started(self) -> Started:
        """What its starter is told."""
        return Started(self._child.pid, self._output.path if self._output else None)

    def ended(self) -> Optional[int]:
        """How it ended, if it has: its exit code, or a signal's number below 0."""
        return self._child.poll()

    def has_ended(self, code: int) -> SpawnError:
        """The error that its end means."""
        line, log = self._said()
        how = f"exit status: {code}" if code >= 0 else f"signal: {-code}"
        text = f"{self._program} was started as a server and ended before it answered ({how}){_shown(line, log)}"
        return SpawnError("Ended", text, self._program, code, line, log)

    def give_up(self, socket: str, waited: float) -> SpawnError:
        """Ends it, as it did not answer."""
        self._child.kill()
        self._child.wait()
        line, log = self._said()
        return SpawnError("TimedOut", no_answer(socket, waited) + _shown(line, log), self._program, None, line, log)

    def leave(self) -> None:
        """Lets it live on. A process that nobody waits for is a zombie from its end to ours, and we may live longer."""
        if self._child.poll() is None:
            threading.Thread(target=self._child.wait, name="bellrope-spawned", daemon=True).start()

    def _said(self) -> "Tuple[Optional[str], Optional[str]]":
        return (self._output.last_line(), self._output.path) if self._output else (None, None)


def no_answer(socket: str, waited: float) -> str:
    """What it means that nobody answered."""
    return f"no server answered at {socket} within {waited:g} s"


def _shown(line: Optional[str], log: Optional[str]) -> str:
    said = f"; its last line is: {line}" if line else ""
    return f"{said} (its log is {log})" if log else said


def _chosen(variables: Mapping[str, str], inherit: List[str], given: Mapping[str, str]) -> Dict[str, str]:
    """Those of the variables that a server has."""
    kept = {name: value for name, value in variables.items() if _is_known(name) or name in inherit}
    return {**kept, **given}


def _is_known(name: str) -> bool:
    proxy = name.upper() in _PROXIES and name in (name.upper(), name.lower())
    return name in _NAMES or proxy or name.startswith(_PREFIXES)


class _Output(NamedTuple):
    """Where a program writes, and where what it says begins."""

    path: str
    begin: int

    def last_line(self) -> Optional[str]:
        """The line that says most: the last one that begins with `error:`, behind which there may be hints, else the last one
        that is not empty."""
        try:
            with open(self.path, "rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(min(max(self.begin, end - _TAIL), end))
                text = file.read(_TAIL).decode("utf-8", "replace")
        except OSError:
            return None
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if line[:6].lower() == "error:"]
        for line in (errors or lines)[-1:]:
            return "".join(letter for letter in line if letter.isprintable())[:_LONGEST_LINE]
        return None


def _output(spawn: Spawn, socket: str) -> "Tuple[Optional[_Output], int]":
    """Opens what the program is to write to."""
    if spawn.log is not None:
        try:
            return _open(spawn.log, spawn.log_bytes)
        except OSError as error:
            raise SpawnError("Log", f"opening the log {spawn.log}: {error.strerror}", spawn.program) from error
    for place in (default_log_path(os.path.basename(spawn.program)), f"{socket}.log"):
        try:
            if place is not None:
                return _open(place, spawn.log_bytes)
        except OSError:
            pass  # a home that cannot be written to is no reason to have no server
    return None, subprocess.DEVNULL


def _open(path: str, log_bytes: int) -> "Tuple[_Output, int]":
    """A log that is begun anew when it is half full, so that it and the one before it stay within their bytes."""
    path = os.path.abspath(path)
    _make_private(os.path.dirname(path))
    half = max(log_bytes, _FEWEST_BYTES) // 2
    try:
        if os.stat(path).st_size > half // 2:
            os.rename(path, f"{path}.1")
    except FileNotFoundError:
        pass
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return _Output(path, os.fstat(descriptor).st_size), descriptor


def _make_private(directory: str) -> None:
    if directory and not os.path.isdir(directory):
        _make_private(os.path.dirname(directory))
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            pass  # another one made it
