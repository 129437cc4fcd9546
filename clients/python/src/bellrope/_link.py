"""A connection with its socket, as the blocking client's threads share it. Everything here is called with the client's
lock held."""

from __future__ import annotations

import select
import socket
from typing import Optional, Union

from ._core import Core
from ._dial import Dialled, arrived
from ._doorbell import Doorbell, forget
from ._errors import Violation
from ._lock import Lock, once
from ._seat import Followers

# Bytes of a read: more while they come.
_READ = 64 * 1024
_LARGE_READ = 256 * 1024
_NO_SIGNAL = socket.MSG_NOSIGNAL
_IN = select.POLLIN
_IN_AND_OUT = select.POLLIN | select.POLLOUT


class Link:
    """One connection. One of the threads that wait leads: it alone reads and polls."""

    def __init__(self, dialled: Dialled, nudge: Doorbell) -> None:
        self.dialled = dialled
        self.core = Core(dialled.welcome)
        #: The thread that leads, if one does.
        self.leader: Optional[int] = None
        #: Those who wait and do not lead, in the order in which they came.
        self.followers: Followers = {}
        #: Whether a thread writes without the lock; and whether the leader has read something that was not taken yet.
        self.writing = False
        self.reading = False
        #: Whether the connection is over, and whether its calls have learned that.
        self.broken = False
        self.lost = False
        self.violation: Optional[Violation] = None
        self._socket = dialled.socket
        #: The socket's descriptor, as long as it is open.
        self.descriptor = self._socket.fileno()
        #: Whether the last read brought something.
        self.came = False
        self._read = _READ
        self._nudge = nudge
        # How often an answer was there at once, lately; and how often there was a look.
        self._luck = 0
        self._looks = 0
        #: Whether nothing can be written any more, so that only what has arrived is left to be read.
        self.is_mute = False
        self._events = select.POLLIN
        self._poller = select.poll()
        self._poller.register(self._socket, self._events)
        self._poller.register(nudge, select.POLLIN)

    @property
    def wants_write(self) -> bool:
        """Whether something is to be written, and can be."""
        return not self.is_mute and not self.broken and self.core.wants_write

    def poller(self, nested: bool) -> "select.poll":
        """What the leader polls without the lock. One that is `nested` interrupts its own thread in the middle of that."""
        events = _IN_AND_OUT if self.core.wants_write and not (self.writing or self.is_mute or self.broken) else _IN
        if nested:
            poller = select.poll()
            poller.register(self._socket, events)
            poller.register(self._nudge, select.POLLIN)
            return poller
        if events != self._events:
            self._events = events
            self._poller.modify(self._socket, events)
        return self._poller

    def fileno(self) -> int:
        """The socket's descriptor, -1 once it is closed."""
        return self._socket.fileno()

    def flush(self) -> None:
        """Writes as much as the socket takes."""
        if self.is_mute or self.broken:
            return
        core = self.core
        try:
            while core.wants_write:
                count = self.send(core.pending())
                if count < 0:
                    return
                core.sent(count)
        except BaseException:
            self.doubt()
            raise

    def flush_without(self, lock: Lock) -> bool:
        """The same, but for the system calls gives the lock back: while these run other threads do, which would wait for it
        one after the other. What they queue goes along. Answers whether there was no room to queue more meanwhile."""
        core = self.core
        self.writing = True
        unsure = lacked_room = False
        saved = once()
        try:
            while self.wants_write:
                buffers = core.pending(hands_over=True)
                unsure = True
                try:
                    lock.release()
                    count = self.send(buffers)
                finally:
                    lock._acquire_restore(saved)
                lacked_room |= not core.has_room
                core.sent(max(count, 0))
                unsure = False
                if count < 0:
                    break
            return lacked_room
        finally:
            self.writing = False
            if unsure:
                self.doubt()
            if self.broken and self.leader is None:
                self.close()

    def send(self, buffers: "list[Union[bytes, memoryview]]") -> int:
        """Writes once. Answers how many bytes the socket took; -1: none, for now or for ever. Needs no lock."""
        try:
            if len(buffers) == 1:
                return self._socket.send(buffers[0], _NO_SIGNAL)
            return self._socket.sendmsg(buffers, (), _NO_SIGNAL)
        except BlockingIOError:
            return -1
        except OSError:
            self.is_mute = not self.broken
            return -1

    def doubt(self) -> None:
        """After an interrupt in the middle of a write."""
        self.is_mute = not self.broken
        self.core.doubt()

    def reads_first(self) -> bool:
        """Whether to read before polling: where a server answers while it is written to, that saves a system call."""
        self._looks += 1
        return self._luck > 0 or self._looks % 32 == 0

    def has_read_first(self) -> bool:
        """Notes how that went. Answers whether something came."""
        self._luck = min(self._luck + 1, 4) if self.came else max(self._luck - 1, 0)
        return self.came

    def read(self) -> bool:
        """Reads once. Answers False if the connection is over, because of a violation if there is one."""
        return self.take(self.fetch())

    def read_rest(self) -> bool:
        """Reads what has arrived by now, and no more, as the server may go on sending. Answers as `read`."""
        left = arrived(self._socket)
        while True:
            data = self.fetch()
            if not self.take(data):
                return False
            left -= len(data or b"")
            if left <= 0:
                return True

    @property
    def unread(self) -> int:
        """Bytes that have arrived and were not read."""
        return 0 if self.broken else arrived(self._socket)

    def fetch(self) -> Optional[bytes]:
        """What has come: nothing at the end, None if there is nothing yet. For whoever leads; needs no lock."""
        try:
            return self._socket.recv(self._read)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def take(self, data: Optional[bytes]) -> bool:
        """Takes what was fetched. Answers as `read`."""
        self.came = bool(data)
        if data is None:
            return not self.is_mute
        if not data:
            return False
        self._read = _LARGE_READ if len(data) == self._read else _READ
        try:
            self.core.receive(data)
        except Violation as violation:
            self.violation = violation
            return False
        return True

    def hang_up(self) -> None:
        """Ends the connection, also where a child process has the socket. The descriptor stays, as somebody may poll
        it."""
        self.broken, self.is_mute = True, False
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        """Gives the descriptor back, once nobody leads."""
        self._socket.close()

    def close_in_child(self) -> None:
        """Lets go of the socket, which the parent goes on using."""
        self.broken, self.is_mute = True, False
        forget(self._socket)
