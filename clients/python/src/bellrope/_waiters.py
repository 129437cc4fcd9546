"""Tasks that wait for something to change."""

from __future__ import annotations

import asyncio
from typing import Callable, Optional, Set


class Waiters:
    """The tasks that wait for one thing. All is done on their event loop."""

    __slots__ = ("_loop", "_futures")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
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
            timer = None if until is None else self._loop.call_at(until, _expire, future)
            try:
                await future
            finally:
                self._futures.discard(future)
                if timer is not None:
                    timer.cancel()
        return True


def _expire(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
