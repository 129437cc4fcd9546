"""Where threads wait that do not lead."""

from __future__ import annotations

import threading
from typing import Union


class Seat:
    """Where one thread waits for its call, without the client's lock, which it need not take once its call is done. Whoever
    wakes it holds that lock, and takes it off the list of those who wait."""

    __slots__ = ("_followers", "_lock", "called")

    def __init__(self, followers: "Followers") -> None:
        self._followers = followers
        self._lock = threading.Lock()
        self._lock.acquire()
        #: Whether it was woken to lead.
        self.called = False
        followers[self] = None

    def wait(self, seconds: float) -> None:
        """Waits, at most so long; -1 is for ever."""
        self._lock.acquire(True, seconds)

    def wake(self) -> None:
        """Has it look again."""
        if self in self._followers:
            del self._followers[self]
            self._lock.release()

    def call(self) -> None:
        """Has it lead."""
        self.called = True
        self.wake()

    def leave(self) -> None:
        """It does not wait any more."""
        self._followers.pop(self, None)


class Place:
    """The same for a thread that waits at a condition, maybe with others."""

    __slots__ = ("_bell",)

    def __init__(self, bell: threading.Condition) -> None:
        self._bell = bell

    def call(self) -> None:
        """Has it lead."""
        self._bell.notify_all()


Followers = dict[Union[Seat, Place], None]
