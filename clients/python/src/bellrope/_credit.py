"""Credit: how much the sender of a stream may send. See "Credit" in docs/wire.md."""

from __future__ import annotations

from ._errors import Violation

_OVERHEAD = 64


class Inflow:
    """The receiving end of a stream."""

    __slots__ = ("_window", "_balance", "_next", "_owed")

    def __init__(self, window: int) -> None:
        self._window = window
        self._balance = window
        self._next = 0
        self._owed = 0

    def check(self, number: int) -> None:
        """Checks the number of a chunk or end."""
        if number != self._next:
            raise Violation("bad_sequence", f"chunk {number} came where {self._next} was due")

    def take(self, number: int, length: int) -> None:
        """Notes a chunk that came."""
        self.check(number)
        if self._balance <= 0:
            raise Violation("credit_exceeded", "a stream was sent beyond its credit")
        self._balance -= length + _OVERHEAD
        self._next = (self._next + 1) & 0xFFFFFFFF

    def consumed(self, length: int) -> int:
        """Notes a chunk that the application took. The credit to return now, 0 for none."""
        self._owed += length + _OVERHEAD
        if self._owed < self._window // 2:
            return 0
        owed, self._owed = self._owed, 0
        self._balance += owed
        return owed


class Outflow:
    """The sending end of a stream."""

    __slots__ = ("_window", "_balance", "number")

    def __init__(self, window: int) -> None:
        self._window = window
        self._balance = window
        #: Of the next chunk, or of the end.
        self.number = 0

    @property
    def available(self) -> bool:
        """Whether a chunk may be sent."""
        return self._balance > 0

    def spend(self, length: int) -> None:
        """Notes a chunk that is sent."""
        self._balance -= length + _OVERHEAD
        self.number = (self.number + 1) & 0xFFFFFFFF

    def refill(self, amount: int) -> None:
        """Takes credit that the receiver returned."""
        if self._balance + amount > self._window:
            raise Violation("credit_overflow", "credit for a stream exceeds its window")
        self._balance += amount
