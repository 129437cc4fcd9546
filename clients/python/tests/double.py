"""A server by hand: it does what a script says, byte by byte, which no honest server would do."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import tempfile
import threading
from types import TracebackType
from typing import Any, Callable, List, NamedTuple, Optional, Tuple, Type

_HEAD = struct.Struct("<IHBBQ")
_ANSWER = struct.Struct("<8sHHHHQQIIIIIIQ")
PATIENCE = 10.0
STYLES = ((1, 0, "unary"), (2, 1, "stream"), (3, 2, "upload"), (4, 3, "duplex"))
REQUEST, CANCEL, CREDIT, RESPONSE, ERROR, CHUNK, END, FRAGMENT, ADMITTED = range(2, 11)
TYPES = 12
TABLE = 32


class Received(NamedTuple):
    kind: int
    message_type: int
    call: int
    extension: Optional[int]
    payload: bytes


def record(kind: int, message_type: int, call: int, extension: Optional[int] = None, payload: bytes = b"") -> bytes:
    head = _HEAD.pack(len(payload), message_type, kind, extension is not None, call)
    return head + (b"" if extension is None else struct.pack("<Q", extension)) + payload


def entry(number: int, style: int, name: str) -> bytes:
    """A message type, as it stands in the table."""
    return struct.pack("<HBB", number, style, len(name.encode())) + name.encode()


def answer(
    status: int = 0,
    body: Optional[bytes] = None,
    capacity: int = 262144,
    max_message: int = 10 << 20,
    max_in_flight: int = 1024,
    window: int = 65536,
    entries: Optional[int] = None,
) -> bytes:
    """`entries` is of the whole table, with the bit TABLE."""
    if body is None:
        body = b"".join(entry(*of) for of in STYLES)
    features = 0 if entries is None else TABLE
    terms = (capacity, max_message, max_in_flight, window, len(body), entries or 0)
    return _ANSWER.pack(b"BELLROPE", 1, 1, status, 0, features, 7, *terms, 0) + body


class Peer:
    """One connection, as the script sees it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.socket = sock
        self.hello = self.exactly(88)

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def record(self) -> Received:
        """The next record of the client."""
        length, message_type, kind, flags, call = _HEAD.unpack(self.exactly(16))
        extension = struct.unpack("<Q", self.exactly(8))[0] if flags & 1 else None
        return Received(kind, message_type, call, extension, self.exactly(length))

    def request(self) -> Received:
        """The next request, put together if it comes in parts."""
        whole = b""
        while True:
            got = self.record()
            whole += got.payload
            if got.kind == REQUEST:
                return got._replace(payload=whole)

    def welcome(self, **terms: Any) -> None:
        self.socket.sendall(answer(**terms))

    def send(
        self, kind: int, message_type: int, call: int, extension: Optional[int] = None, payload: bytes = b""
    ) -> None:
        self.socket.sendall(record(kind, message_type, call, extension, payload))

    def respond(self, call: int, payload: bytes) -> None:
        self.send(RESPONSE, 0, call, None, payload)

    def drip(self, data: bytes) -> None:
        """Sends each byte by itself."""
        for at in range(len(data)):
            self.socket.sendall(data[at : at + 1])

    def echo(self) -> None:
        """Answers each unary request with itself, until the client hangs up."""
        while True:
            got = self.request()
            self.respond(got.call, got.payload)

    def heard_hang_up(self) -> bool:
        """Whether the client hangs up now; what it sends before that is passed over."""
        while self.socket.recv(65536):
            pass
        return True


Script = Callable[[Peer], None]


class Double:
    """Listens, and runs one script a connection, the last one for all that follow."""

    def __init__(self, *scripts: Script, path: Optional[str] = None) -> None:
        self._scripts = scripts
        self._folder = tempfile.mkdtemp(prefix="bellrope-double-")
        self.path = path or os.path.join(self._folder, "s")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._threads: List[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        self._sockets: List[socket.socket] = []
        self.failures: List[BaseException] = []
        self.connections = 0

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            self._sockets.append(sock)
            thread = threading.Thread(target=self._run, args=(sock, script), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket, script: Script) -> None:
        with sock:
            try:
                script(Peer(sock))
            except (EOFError, ConnectionError):
                pass
            except BaseException as error:  # shown by the test
                self.failures.append(error)

    def stop(self) -> None:
        """Hangs up everywhere."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self._accepting.join(PATIENCE)
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(PATIENCE)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "Double":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.stop()
        if error is None and self.failures:
            raise self.failures[0]


def pairs(data: bytes) -> List[Tuple[bytes, bytes]]:
    """All ways to cut some bytes in two."""
    return [(data[:at], data[at:]) for at in range(len(data) + 1)]
