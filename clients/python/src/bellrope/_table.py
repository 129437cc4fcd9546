"""The table of message types: what the answer to the hello has of it, the pages behind that, and its later changes. See "The
handshake" and "A table in pages" in docs/wire.md."""

from __future__ import annotations

import heapq
import struct
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ._errors import CallError, Incompatible, UnknownMessageType, Violation, WrongStyle

if TYPE_CHECKING:
    from ._method import Method

UNARY = 0
SERVER_STREAM = 1
CLIENT_STREAM = 2
DUPLEX = 3
STYLES = ("unary", "server_stream", "client_stream", "duplex")
#: Most entries of a table, and most bytes of those of a page.
MAX_TYPES = 4096
MAX_PAGE = 65536
PAGE_HEAD = 8

_METHODS = ("call", "stream", "client_stream", "duplex")
_ENTRY = struct.Struct("<HBB")
_MARK = struct.Struct("<BQ")
_PAGE = struct.Struct("<HHI")
_LONGEST_ENTRY = _ENTRY.size + 255 + _MARK.size
# In place of style and length: the type is there no longer.
_REMOVED = b"\xff\x00"
# Letters of names that are compared to find similar ones. The server chooses how many names there are, and how long.
_COMPARED = 64


class MessageType(NamedTuple):
    """A message type that the server offers. `style` is "unary", "server_stream", "client_stream" or "duplex"; `codec` is
    1 for JSON, 2 for postcard; `schema` is the hash of its types. Both are 0 if that is not known."""

    name: str
    style: str
    number: int
    codec: int = 0
    schema: int = 0


class Unfit(Exception):
    """What does not make a table, named by the field that is wrong."""


class Table:
    """The message types of one connection. With `marked`, codec and schema travel with each."""

    def __init__(self, marked: bool = False, entries: Optional[int] = None) -> None:
        """`entries` is how many the whole table has; None if the server does not say so, and tells of no changes."""
        if entries is not None and entries > MAX_TYPES:
            raise Unfit("entries")
        #: Whether the server tells of changes.
        self.changes = entries is not None
        self._marked = marked
        self._entries = entries
        self._came = 0
        # Entries of the page that is read.
        self._page = 0
        # By number, in the order of the table. Those of a style of a newer version count, and have no type.
        self._numbers: dict[int, list[MessageType]] = {}
        self._names: Optional[dict[str, MessageType]] = None

    # As it comes.

    @property
    def is_whole(self) -> bool:
        """Whether no page is to come."""
        return self._entries is None or self._came == self._entries

    def body(self, data: bytes) -> None:
        """Takes the body of the answer."""
        at = 0
        while at < len(data):
            at = self._take(data, at)

    def page_head(self, head: bytes) -> int:
        """Takes the head of a page. Answers how many bytes of entries follow."""
        first, self._page, length = _PAGE.unpack(head)
        fits = 1 <= self._page <= (self._entries or 0) - self._came and 1 <= length <= MAX_PAGE
        if first != self._came or not fits or length > self._page * _LONGEST_ENTRY:
            raise Unfit("page")
        return int(length)

    def page(self, data: bytes) -> None:
        """Takes the entries of the page."""
        at = 0
        for _ in range(self._page):
            at = self._take(data, at)
        if at != len(data):
            raise Unfit("page")

    def change(self, data: bytes, entries: int) -> None:
        """Takes a change, after which there are so many entries. Raises Violation, after which the connection is to be given
        up."""
        self._names = None
        at = 0
        try:
            while at < len(data):
                at = self._change(data, at)
            if self._came != entries:
                raise Unfit("entries")
        except Unfit as fault:
            raise Violation("bad_types", f"the change of the message types does not fit the table: {fault}") from None

    # As it is asked.

    @property
    def types(self) -> dict[str, MessageType]:
        """The types by their names. If a name stands there twice, the first counts."""
        names = self._names
        if names is None:
            names = {}
            for entries in self._numbers.values():
                for entry in entries:
                    names.setdefault(entry.name, entry)
            self._names = names
        return names

    def find(self, name: str, style: int, method: "Optional[Method[Any, Any, Any]]") -> Optional[int]:
        """The number of a message type that can be called in this style, and is this method if there is one."""
        found = (self._names or self.types).get(name)
        if found is None or found.style != STYLES[style] or method is not None and method.differences(found):
            return None
        return found.number

    def fault(self, name: str, style: int, method: "Optional[Method[Any, Any, Any]]") -> CallError:
        """Why it finds none."""
        found = self.types.get(name)
        if found is None:
            return UnknownMessageType(name, _nearest(name, self.types))
        if found.style != STYLES[style]:
            return WrongStyle(name, _METHODS[STYLES.index(found.style)])
        return Incompatible(name, method and method.differences(found) or "")

    # How it is done.

    def _take(self, data: bytes, at: int) -> int:
        if self._entries is not None and self.is_whole:
            raise Unfit("entries")
        return self._add(data, at)

    def _change(self, data: bytes, at: int) -> int:
        if len(data) - at < _ENTRY.size:
            raise Unfit("types")
        number = int.from_bytes(data[at : at + 2], "little")
        if data[at + 2 : at + 4] == _REMOVED:
            if self._numbers.pop(number, None) is None:
                raise Unfit(f"there is no number {number} to take out")
            self._came -= 1
            return at + _ENTRY.size
        if number in self._numbers:
            raise Unfit(f"the number {number} is there already")
        if self._came == MAX_TYPES:
            raise Unfit("entries")
        return self._add(data, at)

    def _add(self, data: bytes, at: int) -> int:
        """Adds the entry that stands there. Answers where it ends."""
        if len(data) - at < _ENTRY.size:
            raise Unfit("types")
        number, style, length = _ENTRY.unpack_from(data, at)
        begin = at + _ENTRY.size
        end = begin + length
        at = end + _MARK.size if self._marked else end
        try:
            name = data[begin:end].decode("utf-8")
        except UnicodeDecodeError:
            name = ""
        if at > len(data) or not name or plain(name) != name:
            raise Unfit("types")
        known = self._numbers.setdefault(number, [])
        if style < len(STYLES):
            codec, schema = _MARK.unpack_from(data, end) if self._marked else (0, 0)
            known.append(MessageType(name, STYLES[style], number, codec, schema))
        self._came += 1
        return at


def plain(text: str) -> str:
    """The text without control characters."""
    return "".join(letter for letter in text if not (letter < " " or "\x7f" <= letter <= "\x9f"))


def _nearest(name: str, names: "dict[str, MessageType]") -> "list[str]":
    """Up to three names, the most similar first: those that share most pairs of letters."""
    wanted = _pairs(name)

    def likeness(other: str) -> float:
        pairs = _pairs(other)
        return len(wanted & pairs) / (len(wanted) + len(pairs))

    return heapq.nlargest(3, names, likeness)


def _pairs(name: str) -> "set[str]":
    padded = f" {name[:_COMPARED]} "
    return {padded[at : at + 2] for at in range(len(padded) - 1)}
