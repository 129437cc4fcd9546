"""Hello and answer: what docs/wire.md calls "The handshake"."""

from __future__ import annotations

import difflib
import struct
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ._errors import CallError, Connect, UnknownMessageType, WrongStyle

if TYPE_CHECKING:
    from ._method import Method

MAGIC = b"BELLROPE"
MAJOR = 1
MINOR = 1
STREAM = 1
#: The feature bit by which codec and schema come with each message type.
SCHEMAS = 1
ANSWER_HEAD = 64
MAX_BODY = 65536
PART = 32768

UNARY = 0
SERVER_STREAM = 1
CLIENT_STREAM = 2
DUPLEX = 3
STYLES = ("unary", "server_stream", "client_stream", "duplex")
_METHODS = ("call", "stream", "client_stream", "duplex")

_HELLO = struct.Struct("<8sHHBBBBQ64s")
_MARK = struct.Struct("<BQ")
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


class MessageType(NamedTuple):
    """A message type that the server offers. `style` is "unary", "server_stream", "client_stream" or "duplex"; `codec` is
    1 for JSON, 2 for postcard; `schema` is the hash of its types. Both are 0 if that is not known."""

    name: str
    style: str
    number: int
    codec: int = 0
    schema: int = 0


class Welcome(NamedTuple):
    """What an accepted answer says. `max_message` is the smaller of the server's limit and our own."""

    connection: int
    capacity: int
    max_message: int
    max_in_flight: int
    stream_window: int
    clock_us: int
    types: dict[str, MessageType]

    @property
    def max_record(self) -> int:
        return min(self.capacity // 4, self.max_message)

    @property
    def part(self) -> int:
        return min(self.max_record, PART)

    def find(self, name: str, style: int, method: "Optional[Method[Any, Any, Any]]") -> int:
        """The number of a message type, which must be called in this style, and be this method if there is one."""
        found = self.types.get(name)
        if found is None:
            raise UnknownMessageType(name, difflib.get_close_matches(name, self.types, 3, 0))
        if found.style != STYLES[style]:
            raise WrongStyle(name, _METHODS[STYLES.index(found.style)])
        if method is not None:
            method.check(found)
        return found.number


def hello(name: str, priority: bool, features: int = SCHEMAS) -> bytes:
    """The hello as it travels. A longer name is cut between two characters; control characters are left out."""
    cut = _plain(name).encode("utf-8", "replace")[:64].decode("utf-8", "ignore").encode()
    return _HELLO.pack(MAGIC, MAJOR, MINOR, STREAM, int(priority), len(cut), 0, features, cut)


class Answer:
    """The server's answer as it comes in. Ask for `due` bytes and feed them, until there is a welcome."""

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._bytes = b""
        self._head: Optional[tuple[int, ...]] = None
        self.due = ANSWER_HEAD

    def feed(self, data: bytes) -> Optional[Welcome]:
        """Takes at most `due` bytes. Raises Connect for a refusal and for what is no answer."""
        self._bytes += data
        self.due -= len(data)
        if self.due == 0 and self._head is None:
            self._head = self._check(self._bytes)
            self.due = self._head[10]
        if self.due > 0 or self._head is None:
            return None
        return self._finish(self._head, self._bytes[ANSWER_HEAD:])

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

    def _finish(self, head: tuple[int, ...], body: bytes) -> Welcome:
        _, _, status, _, features, connection, capacity, max_message, in_flight, window, _, _, clock_us = head
        if status != 0:
            name = _STATUSES[status] if status < len(_STATUSES) else f"status {status}"
            text = _plain(body.decode("utf-8", "replace"))[:512]
            raise Connect("Handshake", f"the server refused the connection ({name}): {text}", name)
        limit = min(max_message, self._max_message)
        return Welcome(connection, capacity, limit, in_flight, window, clock_us, _table(body, bool(features & SCHEMAS)))


def _table(body: bytes, marked: bool) -> dict[str, MessageType]:
    types: dict[str, MessageType] = {}
    at = 0
    while at < len(body):
        entry = body[at : at + 4]
        length = entry[3] if len(entry) == 4 else 0
        raw = body[at + 4 : at + 4 + length]
        at += 4 + length
        mark = body[at : at + _MARK.size] if marked else _MARK.pack(0, 0)
        at += _MARK.size if marked else 0
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            name = ""
        if len(raw) != length or len(mark) != _MARK.size or not name or _plain(name) != name:
            raise _out_of_range("types")
        if entry[2] < len(STYLES):
            number = int.from_bytes(entry[:2], "little")
            types.setdefault(name, MessageType(name, STYLES[entry[2]], number, *_MARK.unpack(mark)))
    return types


def _plain(text: str) -> str:
    """The text without control characters."""
    return "".join(letter for letter in text if not (letter < " " or "\x7f" <= letter <= "\x9f"))


def _out_of_range(field: str) -> CallError:
    return _invalid(f"the field {field} of the handshake is out of range")


def _invalid(text: str) -> CallError:
    return Connect("Handshake", text)
