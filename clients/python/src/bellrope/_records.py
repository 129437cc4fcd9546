"""Records as bytes: what docs/wire.md calls "Records"."""

from __future__ import annotations

import struct
from typing import Iterator, NamedTuple, Optional, Union

from ._errors import Violation

Buffer = Union[bytes, bytearray, memoryview]

REQUEST = 2
CANCEL = 3
CREDIT = 4
RESPONSE = 5
ERROR = 6
CHUNK = 7
END = 8
FRAGMENT = 9
ADMITTED = 10

_EXTENDED = 1
_HEAD = struct.Struct("<IHBBQ")
_EXTENDED_HEAD = struct.Struct("<IHBBQQ")
_WORD = struct.Struct("<Q")
_PADDING = (b"", b"\0" * 7, b"\0" * 6, b"\0" * 5, b"\0" * 4, b"\0" * 3, b"\0" * 2, b"\0")

# What a server may send: kind -> (extension, payload), each True for "needs", False for "must not have", None for "may have".
_FORMS: dict[int, tuple[Optional[bool], Optional[bool]]] = {
    CREDIT: (True, False),
    RESPONSE: (False, None),
    ERROR: (None, None),
    CHUNK: (True, None),
    END: (True, False),
    FRAGMENT: (True, True),
    ADMITTED: (True, False),
}
_KINDS = range(REQUEST, ADMITTED + 1)


class Record(NamedTuple):
    """A record from the server whose form was checked."""

    kind: int
    message_type: int
    call: int
    extension: int
    payload: bytes


def encode(kind: int, message_type: int, call: int, extension: Optional[int], payload: Buffer = b"") -> bytes:
    """The record as it travels."""
    length = len(payload)
    if extension is None:
        head = _HEAD.pack(length, message_type, kind, 0, call)
    else:
        head = _EXTENDED_HEAD.pack(length, message_type, kind, _EXTENDED, call, extension)
    return b"".join((head, payload, _PADDING[length & 7])) if length else head


class Reader:
    """Cuts what comes from the server into records. Holds at most one record that is not whole."""

    def __init__(self, max_payload: int) -> None:
        self._max_payload = max_payload
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Record]:
        """The records that are whole with these bytes. Raises Violation at the first that cannot be one."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, end = 0, len(data)
        while end - at >= 16:
            length, message_type, kind, flags, call = _HEAD.unpack_from(data, at)
            self._check(length, kind, flags, data[at : at + 8])
            head = 24 if flags else 16
            size = head + (length + 7 & ~7)
            if end - at < size:
                break
            extension = _WORD.unpack_from(data, at + 16)[0] if flags else 0
            yield Record(kind, message_type, call, extension, data[at + head : at + head + length])
            at += size
        self._rest = data[at:]

    def _check(self, length: int, kind: int, flags: int, header: bytes) -> None:
        if flags > _EXTENDED or kind not in _KINDS:
            raise Violation("bad_header", f"record header {int.from_bytes(header, 'little'):#018x} is not valid")
        form = _FORMS.get(kind)
        if form is None:
            raise Violation("bad_direction", f"record kind {kind} does not travel in this direction")
        if length > self._max_payload:
            raise Violation("bad_length", f"record of {length} bytes is larger than {self._max_payload}")
        extended, filled = form
        if extended not in (None, flags == _EXTENDED) or filled not in (None, length > 0):
            raise Violation("bad_form", f"record kind {kind} has the wrong form")
