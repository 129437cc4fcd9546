"""The lock of a blocking client.

A signal's handler interrupts its own thread anywhere, and may raise. So the lock is taken and given back by what the interpreter
does in one step: `with`, and what a Condition uses for a wait. It knows its owner, so that whoever would wait for itself in a
handler is told so instead, and whoever was interrupted knows whether there is something to give back.
"""

from __future__ import annotations

import sys
import threading
from typing import Any, Protocol, Tuple, cast

#: What a thread is told that would wait for itself.
IN_THE_MIDDLE = "a bellrope.Client was used by a signal's handler in the middle of a call of its thread"


class Lock(Protocol):
    """What is used of an RLock. No thread takes it twice."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...

    def __enter__(self) -> bool: ...

    def __exit__(self, *_: Any) -> None: ...

    def _is_owned(self) -> bool:
        """Whether this thread has it."""

    def _acquire_restore(self, saved: "Tuple[int, int]") -> None:
        """Takes it again after a wait. No signal's handler runs before it has it."""


def is_interrupting() -> bool:
    """Whether this thread's stack has others' frames, those of a handler, between ours. If it has none, and the lock is ours all the
    same, an interrupt has left it behind: Python before 3.10 has places for that even in `with`."""
    frame, left = sys._getframe(1), False
    while frame is not None:
        ours = str(frame.f_globals.get("__name__")).startswith("bellrope.")
        if ours and left:
            return True
        left |= not ours
        frame = frame.f_back  # type: ignore[assignment]  # the last one has none
    return False


def once() -> "Tuple[int, int]":
    """What this thread has of a lock that it took once, as `_acquire_restore` wants it."""
    return 1, threading.get_ident()


def new_lock() -> Lock:
    """A lock that nobody has."""
    return cast(Lock, threading.RLock() if sys.version_info >= (3, 10) else _Cautious())


_PLAIN: Any = type(threading.RLock())


class _Cautious(_PLAIN):  # type: ignore[misc]  # nothing is known of its methods
    """For Python 3.9. There an interrupt may come between `try` and the first thing done in it: who takes the lock again has it
    then."""

    def _acquire_restore(self, saved: "Tuple[int, int]") -> None:
        if not self._is_owned():
            super()._acquire_restore(saved)
