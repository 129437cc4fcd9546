"""Cancelling calls of a blocking client from another thread."""

from __future__ import annotations

import threading
from typing import Callable, Optional


class CancelToken:
    """Cancels calls from any thread. It may be given to any number of calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._last = 0
        self._calls: dict[int, Callable[[], None]] = {}

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled; it stays so, for later calls, too."""
        return self._cancelled

    def cancel(self) -> None:
        """Ends every call that was given this token, and every one that will be, as `Cancelled`."""
        with self._lock:
            self._cancelled = True
            calls = list(self._calls.values())
        for cancel in calls:
            cancel()

    def _register(self, cancel: Callable[[], None]) -> int:
        with self._lock:
            self._last += 1
            self._calls[self._last] = cancel
            return self._last

    def _unregister(self, number: int) -> None:
        with self._lock:
            self._calls.pop(number, None)


class Registration:
    """What a token cancels, as long as this was not ended."""

    __slots__ = ("token", "_number")

    def __init__(self, token: Optional[CancelToken], cancel: Callable[[], None]) -> None:
        self.token = token
        self._number = token._register(cancel) if token is not None else 0

    def cancelled(self) -> bool:
        """Whether the token was cancelled."""
        return self.token is not None and self.token.cancelled

    def end(self) -> None:
        """Forgets the call."""
        if self.token is not None:
            self.token._unregister(self._number)
            self.token = None


#: That of a call without a token.
NO_REGISTRATION = Registration(None, lambda: None)
