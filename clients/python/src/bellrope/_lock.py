"""A lock that tells its own holder, who would wait for ever, so instead."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Optional, Type

_me = threading.get_ident
#: What such a thread is told.
IN_THE_MIDDLE = "a bellrope.Client was used by a signal's handler in the middle of a call of its thread"


class Lock:
    """As `threading.Lock`; but a thread that holds it, and asks again in a signal's handler, gets an error."""

    __slots__ = ("_lock", "holder")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: The thread that has it.
        self.holder: Optional[int] = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Takes the lock."""
        me = _me()
        # The first try is the usual case, and the only one if this thread has it already.
        if self._lock.acquire(False):
            self.holder = me
            return True
        if not blocking:
            return False
        if self.holder == me:
            raise RuntimeError(IN_THE_MIDDLE)
        taken = self._lock.acquire(blocking, timeout)
        if taken:
            self.holder = me
        return taken

    def release(self) -> None:
        """Gives it back."""
        self.holder = None
        self._lock.release()

    def __enter__(self) -> bool:
        if self._lock.acquire(False):
            self.holder = _me()
            return True
        return self.acquire()

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.holder = None
        self._lock.release()
