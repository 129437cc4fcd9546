"""What a client knows of a method of a typed service, and how values become what travels. docs/services.md has the rules."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, Protocol, Set, TypeVar, Union

from ._errors import ServiceError, Unreadable, Unwritable

if TYPE_CHECKING:
    from ._table import MessageType


class Codec(Protocol):
    """How values travel."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def number(self) -> int:
        """1 is JSON, 2 postcard."""

    @property
    def named(self) -> bool:
        """Whether fields travel with their names. Otherwise both sides must have the same schema."""

    def encode(self, value: Any, place: str) -> bytes:
        """Writes a value: a "request", or an item to be "sent". Raises what cannot be written."""

    def decode(self, data: bytes, place: str) -> Any:
        """Reads an "answer". Raises what cannot be read. A Result comes as {"Ok": value} or {"Err": error}."""


Request = TypeVar("Request")
Answer = TypeVar("Answer")
Sent = TypeVar("Sent")

_CODEC_NAMES = {1: "json", 2: "postcard"}
# As deep as a service reads.
_DEEPEST = 128


class Json:
    """The codec of services that name none. Whole numbers are exact, and what JSON cannot say is an error."""

    name = "json"
    number = 1
    named = True

    def encode(self, value: Any, place: str) -> bytes:
        """Writes a value."""
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            fault = _fault(value, "", 0, set())
            if fault is None:
                raise
            raise ValueError(fault) from error
        return text.encode()

    def decode(self, data: bytes, place: str) -> Any:
        """Reads a value."""
        return json.loads(data.decode(), parse_constant=_no_constant)


def _fault(value: Any, place: str, depth: int, seen: Set[int]) -> Optional[str]:
    """What of a value JSON cannot say, and where it stands; nothing is looked at twice, as a value may hold itself."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{place or 'it'} is {value}, which JSON cannot say"
    if value is None or isinstance(value, (str, int, float)) or depth > _DEEPEST:
        return None
    if id(value) in seen:
        return None
    seen.add(id(value))
    if isinstance(value, dict):
        parts = ((f"{place}.{key}" if place else str(key), part) for key, part in value.items())
    elif isinstance(value, (list, tuple)):
        parts = ((f"{place}[{index}]", part) for index, part in enumerate(value))
    else:
        return f"{place or 'it'} is of type {type(value).__name__}, which JSON cannot say"
    faults = (_fault(part, inside, depth + 1, seen) for inside, part in parts)
    return next((fault for fault in faults if fault is not None), None)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_JSON = Json()


class Method(Generic[Request, Answer, Sent]):
    """A method of a typed service. Generated clients have one for each.

    `schema` is the hash of its types, 0 if that is not known: with a codec that sends no names, a server with another one
    is refused. `result` says that it answers with Ok or Err, of which Err becomes a ServiceError. `write` and `write_item`
    turn what callers give into what the codec takes; `read` and `read_error` what the codec gives into what callers get.
    """

    __slots__ = ("name", "codec", "schema", "result", "_write", "_write_item", "_read", "_read_error")

    def __init__(
        self,
        name: str,
        *,
        codec: Codec = _JSON,
        schema: int = 0,
        result: bool = False,
        write: Optional[Callable[[Request], Any]] = None,
        write_item: Optional[Callable[[Sent], Any]] = None,
        read: Optional[Callable[[Any], Answer]] = None,
        read_error: Optional[Callable[[Any], Any]] = None,
    ) -> None:
        self.name = name
        self.codec = codec
        self.schema = schema
        self.result = result
        self._write = write
        self._write_item = write_item
        self._read = read
        self._read_error = read_error

    def differences(self, theirs: "MessageType") -> Optional[str]:
        """How the server's is another method than this one, if it is."""
        if theirs.codec not in (0, self.codec.number):
            there = _CODEC_NAMES.get(theirs.codec, f"number {theirs.codec}")
            return f"its codec is {self.codec.name} here and {there} there"
        # Fields that travel with their names may be added.
        if not self.codec.named and self.schema and theirs.schema not in (0, self.schema):
            return (
                f"its types differ ({self.schema:#018x} here, {theirs.schema:#018x} there), and {self.codec.name} sends no"
                " names; make this client anew from that server, as with bellrope generate"
            )
        return None

    def request(self, value: Request) -> bytes:
        """The arguments of a call."""
        return self._written("the arguments", "request", self._write, value)

    def item(self, value: Sent) -> bytes:
        """An item for the server."""
        data = self._written("an item", "sent", self._write_item, value)
        if not data:
            raise Unwritable(self.name, "an item", ValueError("an item of a stream takes at least a byte"))
        return data

    def answer(self, data: bytes) -> Answer:
        """What it has answered with. Raises a ServiceError if that is its own error."""
        outcome = self.outcome(data, "the answer")
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome

    def outcome(self, data: bytes, what: str = "an item") -> Union[Answer, ServiceError]:
        """The same, or an item, with a ServiceError as a value."""
        try:
            value = self.codec.decode(data, "answer")
            if self.result:
                if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= {"Ok", "Err"}:
                    raise ValueError('neither {"Ok": ...} nor {"Err": ...}')
                if "Err" in value:
                    error = value["Err"]
                    return ServiceError(self.name, error if self._read_error is None else self._read_error(error))
                value = value["Ok"]
            answer: Answer = value if self._read is None else self._read(value)
            return answer
        except Exception as error:
            raise Unreadable(self.name, what, error) from error

    def _written(self, what: str, place: str, write: Optional[Callable[[Any], Any]], value: Any) -> bytes:
        try:
            return self.codec.encode(value if write is None else write(value), place)
        except Exception as error:
            raise Unwritable(self.name, what, error) from error

    def __repr__(self) -> str:
        return f"Method({self.name!r})"
