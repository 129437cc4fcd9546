"""Records as bytes: what docs/wire.md calls "Records"."""

from __future__ import annotations

import struct
from typing import Iterator, NamedTuple, Optional

from ._errors import Violation

REQUEST = 2
CANCEL = 3
CREDIT = 4
RESPONSE = 5
ERROR = 6
CHUNK = 7
END = 8
FRAGMENT = 9
ADMITTED = 10
TYPES = 12
_DESCRIBED = 13

_EXTENDED = 1
_HEAD = struct.Struct("<IHBBQ")
_EXTENDED_HEAD = struct.Struct("<IHBBQQ")
_WORD = struct.Struct("<Q")

# What a server may send: kind -> (extension, payload), each True for "needs", False for "must not have", None for "may
# have".
_FORMS: dict[int, tuple[Optional[bool], Optional[bool]]] = {
    CREDIT: (True, False),
    RESPONSE: (False, None),
    ERROR: (None, None),
    CHUNK: (True, None),
    END: (True, False),
    FRAGMENT: (True, True),
    ADMITTED: (True, False),
    TYPES: (True, True),
}
_KINDS = frozenset((*range(REQUEST, ADMITTED + 1), TYPES, _DESCRIBED))
# The same as one look: flags and kind -> 0 no payload, 1 a payload, 2 either.
_RULES_WITH_TYPES = {
    flags << 8 | kind: 2 if filled is None else int(filled)
    for kind, (extended, filled) in _FORMS.items()
    for flags in (0, _EXTENDED)
    if extended in (None, bool(flags))
}
_RULES = {form: rule for form, rule in _RULES_WITH_TYPES.items() if form & 0xFF != TYPES}


class Record(NamedTuple):
    """A record from the server whose form was checked."""

    kind: int
    message_type: int
    call: int
    extension: int
    payload: bytes


_new = tuple.__new__


def head(kind: int, message_type: int, call: int, extension: Optional[int], length: int = 0) -> bytes:
    """The record as it travels, up to its payload of so many bytes."""
    if extension is None:
        return _HEAD.pack(length, message_type, kind, 0, call)
    return _EXTENDED_HEAD.pack(length, message_type, kind, _EXTENDED, call, extension)


class Reader:
    """Cuts what comes from the server into records. Holds at most one record that is not whole."""

    def __init__(self, max_payload: int, hears_types: bool = False) -> None:
        self._max_payload = max_payload
        self._hears_types = hears_types
        self._rules = _RULES_WITH_TYPES if hears_types else _RULES
        # Of a record that is not whole: what came, and how many bytes make sense of it.
        self._rest = bytearray()
        self._due = 0

    def feed(self, data: bytes) -> Iterator[Record]:
        """The records that are whole with these bytes. Raises Violation at the first that cannot be one."""
        if self._rest:
            # Not put together anew with each piece that comes: that would cost the square of a record's size.
            if len(self._rest) + len(data) < self._due:
                self._rest += data
                return
            data = bytes(self._rest) + data
            self._rest.clear()
        at, end = 0, len(data)
        due = _HEAD.size
        while end - at >= 16:
            length, message_type, kind, flags, call = _HEAD.unpack_from(data, at)
            rule = self._rules.get(flags << 8 | kind)
            if rule is None or length > self._max_payload or rule != 2 and rule != (length > 0):
                raise self._fault(length, message_type, kind, flags)
            begin = at + (24 if flags else 16)
            if end - begin < length:
                due = begin - at + length
                break
            extension = _WORD.unpack_from(data, at + 16)[0] if flags else 0
            at = begin + length
            yield _new(Record, (kind, message_type, call, extension, data[begin:at]))
        if at < end:
            self._rest += data[at:]
            self._due = due

    def _fault(self, length: int, message_type: int, kind: int, flags: int) -> Violation:
        """Which rule such a header breaks."""
        if flags > _EXTENDED or kind not in _KINDS:
            word = length | message_type << 32 | kind << 48 | flags << 56
            return Violation("bad_header", f"record header {word:#018x} is not valid")
        if length > self._max_payload:
            return Violation("bad_length", f"record of {length} bytes is larger than {self._max_payload}")
        if kind not in _FORMS or kind == TYPES and not self._hears_types:
            return Violation("bad_direction", f"record kind {kind} does not travel in this direction")
        return Violation("bad_form", f"record kind {kind} has the wrong form")
