"""Who is told of the state of a connection."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Callable

from ._config import State

_log = logging.getLogger("bellrope")


class Listeners:
    """Each is called with the context variables of when it came. What one raises harms nobody."""

    def __init__(self) -> None:
        self._all: list[tuple[contextvars.Context, Callable[[State], object]]] = []

    def add(self, listener: Callable[[State], object]) -> None:
        """One more."""
        self._all.append((contextvars.copy_context(), listener))

    def call(self, state: State) -> None:
        """Calls all of them."""
        for context, listener in self._all:
            context.run(_call, listener, state)

    def schedule(self, state: State, loop: asyncio.AbstractEventLoop) -> None:
        """Has the loop call all of them."""
        for context, listener in self._all:
            loop.call_soon(_call, listener, state, context=context)


def _call(listener: Callable[[State], object], state: State) -> None:
    try:
        listener(state)
    except Exception:
        _log.exception("a listener for the state of a connection failed")
