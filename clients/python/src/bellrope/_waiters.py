"""Tasks that wait for something to change."""

from __future__ import annotations

import asyncio
from typing import Callable, Dict, Optional, Set


class Waiters:
    """The tasks that wait for one thing. All is done on their event loop."""

    __slots__ = ("_loop", "_expiry", "_futures")

    def __init__(self, loop: asyncio.AbstractEventLoop, expiry: "Optional[Expiry]" = None) -> None:
        self._loop = loop
        self._expiry = Expiry(loop) if expiry is None else expiry
        self._futures: Set["asyncio.Future[None]"] = set()

    def wake(self) -> None:
        """Has all of them look again."""
        for future in self._futures:
            if not future.done():
                future.set_result(None)

    async def wait(self, ready: Callable[[], bool], until: Optional[float]) -> bool:
        """Waits until something is ready. Answers False if that is not so at the moment `until` of the loop's clock."""
        while not ready():
            if until is not None and self._loop.time() >= until:
                return False
            future = self._loop.create_future()
            self._futures.add(future)
            if until is not None:
                self._expiry.add(future, until)
            try:
                await future
            finally:
                self._futures.discard(future)
                if until is not None:
                    self._expiry.discard(future)
        return True


class Expiry:
    """Wakes what waits when its time is over. However much waits, it has one timer, which most calls never touch."""

    __slots__ = ("_loop", "_until", "_timer", "_at")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._until: Dict["asyncio.Future[None]", float] = {}
        self._timer: Optional[asyncio.TimerHandle] = None
        # When the timer fires.
        self._at = 0.0

    def add(self, future: "asyncio.Future[None]", until: float) -> None:
        """Has a future end at this moment at the latest."""
        self._until[future] = until
        if self._timer is None or until < self._at:
            self._arm(until)

    def discard(self, future: "asyncio.Future[None]") -> None:
        """It has ended, or nobody waits for it any more."""
        self._until.pop(future, None)

    def close(self) -> None:
        """Leaves no timer behind, once nothing waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        for future, until in list(self._until.items()):
            if until <= now:
                del self._until[future]
                if not future.done():
                    future.set_result(None)
        if self._until:
            self._arm(min(self._until.values()))
