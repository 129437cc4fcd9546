"""Something that wakes a thread out of poll()."""

from __future__ import annotations

import os
import socket


class Doorbell:
    """A socket pair: one end is rung, the other one is polled."""

    __slots__ = ("_poll", "_ring")

    def __init__(self) -> None:
        self._poll, self._ring = socket.socketpair()
        self._poll.setblocking(False)
        self._ring.setblocking(False)

    def fileno(self) -> int:
        """What to poll."""
        return self._poll.fileno()

    def ring(self) -> None:
        """Wakes the other side, or does nothing if it has rings enough or is gone."""
        try:
            self._ring.send(b"\1")
        except OSError:
            pass

    def clear(self) -> None:
        """Takes the rings that came."""
        try:
            while len(self._poll.recv(256)) == 256:
                pass
        except OSError:
            pass

    def close(self) -> None:
        """Gives both ends back."""
        self._poll.close()
        self._ring.close()

    def close_in_child(self) -> None:
        """The same in a forked child, whatever other threads of its parent were doing."""
        for end in (self._poll, self._ring):
            forget(end)


def forget(end: socket.socket) -> None:
    """Closes a descriptor without a word to the other side, to which the parent still speaks."""
    descriptor = end.detach()
    if descriptor >= 0:
        os.close(descriptor)
