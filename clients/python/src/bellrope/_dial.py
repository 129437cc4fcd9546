"""Connecting: the socket, and who listens at its other end."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import struct
import sys
import termios
import time
from typing import NamedTuple, Optional

from ._config import Config
from ._errors import CallError, Connect, Violation
from ._handshake import Answer, Welcome, hello

LONGEST_PATH = 107
#: Between two tries where so many wait for the server that the kernel takes no more.
BACKLOG_PAUSE = 0.001
_CREDENTIALS = struct.Struct("3i")
# A server whose clock differs by less than this, in microseconds, has ours: the rest is the way of its answer.
_SAME_CLOCK_US = 5_000_000
_CLOCK_END_US = 1 << 64
# Refusals that pass by themselves.
_PASSING = ("full", "draining")


class Dialled(NamedTuple):
    """A connection that a server has agreed to."""

    socket: socket.socket
    welcome: Welcome
    clock_offset_us: int

    def moment_us(self, moment: float) -> int:
        """A moment of our own clock, `time.monotonic`, as the server's clock will show it."""
        moment_us = int(moment * 1_000_000) + self.clock_offset_us
        return moment_us if 0 < moment_us < _CLOCK_END_US else min(moment_us, _CLOCK_END_US - 1) & _CLOCK_END_US - 1


class Dialling:
    """A connection that is being made, without ever waiting."""

    def __init__(self, config: Config) -> None:
        self.config = config
        if len(os.fsencode(config.path)) > LONGEST_PATH:
            text = f"the socket path {config.path} is longer than {LONGEST_PATH} bytes; choose another"
            raise Connect("PathTooLong", text)
        try:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise self.failed(str(error)) from error
        self.socket.setblocking(False)
        self._answer = Answer(config.max_message_bytes)

    def connect(self) -> bool:
        """Connects and says hello. Answers False where the kernel takes no more clients now."""
        path = self.config.path
        try:
            self.socket.connect(path)
        except BlockingIOError:
            return False
        except OSError as error:
            raise Connect("NoServer", f"no server listens at {path} ({error.strerror})") from error
        _check_owner(self.socket, path)
        greeting = hello(self.config.name, self.config.priority)
        try:
            # A fresh socket takes a hello whole.
            if self.socket.send(greeting) != len(greeting):
                raise self.failed("the socket does not take the hello")
        except BrokenPipeError:
            pass  # it may refuse before it is told anything: its answer says why
        except OSError as error:
            raise self.failed(str(error)) from error
        return True

    def read(self) -> Optional[Dialled]:
        """Reads what there is of the answer. None: it is not whole yet."""
        while True:
            try:
                data = self.socket.recv(self._answer.due)
            except BlockingIOError:
                return None
            except OSError as error:
                raise self.failed(str(error)) from error
            if not data:
                raise self.failed("the server hung up in mid-handshake") from EOFError()
            welcome = self._answer.feed(data)
            if welcome is not None:
                offset = welcome.clock_us - time.monotonic_ns() // 1000
                return Dialled(self.socket, welcome, 0 if abs(offset) < _SAME_CLOCK_US else offset)

    def failed(self, reason: str) -> Connect:
        """What the caller learns."""
        return Connect("Io", f"the handshake with {self.config.path} failed: {reason}")


def pause(away: float, error: Optional[CallError]) -> float:
    """How long to wait for the next try at a server that has been away for so long; `error` is why the last try failed,
    or why the connection was given up."""
    shortest = 0.002 if away < 2.0 else 0.008 if away < 30.0 else 0.1
    if (
        isinstance(error, Violation)
        or isinstance(error, Connect)
        and error.reason == "Handshake"
        and error.status not in _PASSING
    ):
        shortest = 0.5
    return shortest * random.uniform(1.0, 2.0)


def arrived(sock: socket.socket) -> int:
    """Bytes that have come and were not read."""
    count = fcntl.ioctl(sock, termios.FIONREAD, bytes(4))
    return int.from_bytes(count, sys.byteorder)


def _check_owner(sock: socket.socket, path: str) -> None:
    """A server of another user could give us anything: only our own and root's are trusted."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    if uid != 0 and (uid != os.geteuid() or uid == _overflow_user()):
        raise Connect(
            "ForeignServer", f"the server at {path} runs as user {uid}, neither you nor root; it was not trusted"
        )


def _overflow_user() -> Optional[int]:
    """The number that stands for every user that our user namespace does not map, unless it maps that very number."""
    try:
        with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
            overflow = int(file.read())
        with open("/proc/self/uid_map", encoding="ascii") as file:
            spans = [[int(number) for number in line.split()] for line in file]
    except (OSError, ValueError):
        return None
    return None if any(first <= overflow < first + count for first, _, count in spans) else overflow
