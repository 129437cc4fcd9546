"""Hello and answer: what docs/wire.md calls "The handshake"."""

from __future__ import annotations

import struct
from typing import Callable, NamedTuple, Optional

from ._errors import CallError, Connect
from ._table import PAGE_HEAD, Table, Unfit, plain

MAGIC = b"BELLROPE"
MAJOR = 1
MINOR = 1
STREAM = 1
#: The feature bits by which codec and schema come with each message type, and the table comes whole, with its changes.
SCHEMAS = 1
TABLE = 32
FEATURES = SCHEMAS | TABLE
ANSWER_HEAD = 64
MAX_BODY = 65536
PART = 32768

_HELLO = struct.Struct("<8sHHBBBBQ64s")
_ANSWER = struct.Struct("<8sHHHHQQIIIIIIQ")
_STATUSES = (
    "accepted",
    "version mismatch",
    "malformed hello",
    "full",
    "draining",
    "forbidden",
    "paced",
    "transport not available",
)


class Welcome(NamedTuple):
    """What an accepted answer says. `max_message` is the smaller of the server's limit and our own."""

    connection: int
    capacity: int
    max_message: int
    max_in_flight: int
    stream_window: int
    clock_us: int
    table: Table

    @property
    def max_record(self) -> int:
        return min(self.capacity // 4, self.max_message)

    @property
    def part(self) -> int:
        return min(self.max_record, PART)


def hello(name: str, priority: bool, features: int = FEATURES) -> bytes:
    """The hello as it travels. A longer name is cut between two characters; control characters are left out."""
    cut = plain(name).encode("utf-8", "replace")[:64].decode("utf-8", "ignore").encode()
    return _HELLO.pack(MAGIC, MAJOR, MINOR, STREAM, int(priority), len(cut), 0, features, cut)


class Answer:
    """The server's answer as it comes in. Ask for `due` bytes and feed them, until there is a welcome."""

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self.due = ANSWER_HEAD
        # What came of the part that is read, and what to do with all of it.
        self._bytes = bytearray()
        self._whole: Callable[[bytes], Optional[Welcome]] = self._head
        self._numbers: tuple[int, ...] = ()
        self._table = Table()

    def feed(self, data: bytes) -> Optional[Welcome]:
        """Takes at most `due` bytes. Raises Connect for a refusal and for what is no answer."""
        self._bytes += data
        self.due -= len(data)
        welcome = None
        try:
            while self.due == 0 and welcome is None:
                part, self._bytes = bytes(self._bytes), bytearray()
                welcome = self._whole(part)
        except Unfit as fault:
            raise _out_of_range(str(fault)) from None
        return welcome

    def _expect(self, count: int, whole: "Callable[[bytes], Optional[Welcome]]") -> None:
        self.due, self._whole = count, whole

    def _head(self, data: bytes) -> None:
        self._numbers = self._check(data)
        _, _, status, _, features, _, _, _, _, _, body, entries, _ = self._numbers
        if status == 0:
            self._table = Table(bool(features & SCHEMAS), entries if features & TABLE else None)
        self._expect(body, self._body)

    def _body(self, data: bytes) -> Optional[Welcome]:
        _, _, status, *_ = self._numbers
        if status != 0:
            name = _STATUSES[status] if status < len(_STATUSES) else f"status {status}"
            text = plain(data.decode("utf-8", "replace"))[:512]
            raise Connect("Handshake", f"the server refused the connection ({name}): {text}", name)
        self._table.body(data)
        return self._next()

    def _page_head(self, data: bytes) -> None:
        self._expect(self._table.page_head(data), self._page)

    def _page(self, data: bytes) -> Optional[Welcome]:
        self._table.page(data)
        return self._next()

    def _next(self) -> Optional[Welcome]:
        if not self._table.is_whole:
            self._expect(PAGE_HEAD, self._page_head)
            return None
        _, _, _, _, _, connection, capacity, max_message, in_flight, window, _, _, clock_us = self._numbers
        limit = min(max_message, self._max_message)
        return Welcome(connection, capacity, limit, in_flight, window, clock_us, self._table)

    @staticmethod
    def _check(head: bytes) -> tuple[int, ...]:
        magic, *numbers = _ANSWER.unpack(head)
        major, minor, status, _, _, _, capacity, max_message, in_flight, window, body, _, _ = numbers
        if magic != MAGIC:
            raise _invalid(f"the peer does not speak Bellrope (its first bytes are {magic.hex(' ')})")
        # A refusal has the same form in every version, so that its text can be read.
        if major != MAJOR and status == 0:
            text = f"the peer speaks version {major}.{minor}, this side {MAJOR}.{MINOR}"
            raise Connect("Handshake", text, _STATUSES[1])
        if body > MAX_BODY:
            raise _out_of_range("body_len")
        if status == 0:
            if not 4096 <= capacity <= 1 << 24 or capacity & capacity - 1:
                raise _out_of_range("capacity")
            if not 1 <= max_message <= 1 << 30:
                raise _out_of_range("max_message")
            if in_flight == 0:
                raise _out_of_range("max_in_flight")
            if window == 0:
                raise _out_of_range("stream_window")
        return tuple(numbers)


def _out_of_range(field: str) -> CallError:
    return _invalid(f"the field {field} of the handshake is out of range")


def _invalid(text: str) -> CallError:
    return Connect("Handshake", text)
