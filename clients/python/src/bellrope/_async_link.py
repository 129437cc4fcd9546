"""A connection with its socket on an event loop."""

from __future__ import annotations

import asyncio
import socket
from typing import Callable, Optional

from ._core import Call, Core
from ._config import Config
from ._dial import BACKLOG_PAUSE, Dialled, Dialling, arrived
from ._doorbell import forget
from ._errors import CallError, Violation
from ._waiters import Expiry, Waiters

# Bytes of a read: more while they come.
_READ = 64 * 1024
_LARGE_READ = 256 * 1024


class AsyncLink:
    """One connection. It reads and writes from callbacks of the loop, and never waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, dialled: Dialled, lost: Callable[["AsyncLink"], None]) -> None:
        self.dialled = dialled
        self.core = Core(dialled.welcome)
        self.broken = False
        self.violation: Optional[Violation] = None
        #: Ends what waits for too long.
        self.expiry = Expiry(loop)
        #: Who waits for room to queue.
        self.room = Waiters(loop, self.expiry)
        # The first flush after something came writes at once if there is one call alone: it waits for nothing. Others write
        # together, as do those that come behind it.
        self._eager = True
        self._scheduled = False
        self._read_size = _READ
        self.loop = loop
        self._lost = lost
        self._socket = dialled.socket
        # After a failed write there is nothing left to do but read.
        self._mute = False
        self._writing = False
        loop.add_reader(self._socket, self._readable)

    def flush(self) -> None:
        """Has what is queued written: at once, or together with what others queue before the loop goes on."""
        if self._scheduled or self.broken or not self.core.wants_write:
            return
        if self._eager and self.core.under_way < 2:
            self._eager = False
            self._write()
        else:
            self._scheduled = True
            self.loop.call_soon(self._write)

    def _write(self) -> None:
        """Writes what the socket takes now, and the rest as soon as there is room."""
        self._scheduled = False
        had_room = self.core.has_room
        while self.core.wants_write and not self._mute and not self.broken:
            buffers = self.core.pending()
            try:
                if len(buffers) == 1:
                    count = self._socket.send(buffers[0], socket.MSG_NOSIGNAL)
                else:
                    count = self._socket.sendmsg(buffers, (), socket.MSG_NOSIGNAL)
                self.core.sent(count)
            except BlockingIOError:
                break
            except OSError:
                # Not at once, as the caller is in the middle of something.
                self._mute = True
                self.loop.call_soon(self._read_rest)
                break
            except BaseException:
                self._mute = True
                self.core.doubt()
                self.loop.call_soon(self._read_rest)
                raise
        self._watch_room(self.core.wants_write and not self._mute and not self.broken)
        if not had_room and self.core.has_room:
            self.room.wake()
            self.core.wake_uploads()

    def cancel(self, call: Call, error: CallError) -> None:
        """Gives a call up, if it is still under way."""
        self.core.cancel(call, error)
        self.flush()

    def close(self) -> None:
        """Hangs up, also where a child process has the socket."""
        if self.broken:
            return
        self.broken = True
        if not self.loop.is_closed():
            self.loop.remove_reader(self._socket)
            self._watch_room(False)
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()
        self.room.wake()
        self.expiry.close()

    def close_in_child(self) -> None:
        """Lets go of the socket, which the parent goes on using."""
        self.broken = True
        forget(self._socket)

    def _watch_room(self, wanted: bool) -> None:
        if wanted == self._writing:
            return
        self._writing = wanted
        if wanted:
            self.loop.add_writer(self._socket, self._write)
        else:
            self.loop.remove_writer(self._socket)

    def hear(self) -> None:
        """Takes what has arrived, such as a change of the message types, before somebody is told what there is not."""
        left = 0 if self.broken else arrived(self._socket)
        while left > 0:
            count = self._read()
            left = left - count if count else 0
        self.flush()

    def _readable(self) -> None:
        self._eager = True
        if self._read() and self.core.wants_write:
            self._write()

    def _read(self) -> int:
        """Reads once, and ends the connection if it is over. Answers how many bytes came."""
        try:
            data = self._socket.recv(self._read_size)
            self._read_size = _LARGE_READ if len(data) == self._read_size else _READ
            self.core.receive(data)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        except Violation as error:
            data, self.violation = b"", error
        if not data:
            self._end()
        return len(data)

    def _read_rest(self) -> None:
        """After a failed write: takes what has arrived, and no more, as the server may go on sending."""
        self.hear()
        if not self.broken:
            self._end()

    def _end(self) -> None:
        self.close()
        self.core.lose(self.violation)
        self._lost(self)


async def dial(config: Config, loop: asyncio.AbstractEventLoop) -> Dialled:
    """Connects, within the time for it."""
    until = loop.time() + config.connect_timeout
    dialling = Dialling(config)
    try:
        while not dialling.connect():
            if loop.time() >= until:
                raise dialling.failed("no answer came in time")
            await asyncio.sleep(BACKLOG_PAUSE)
        readable = Waiters(loop)
        loop.add_reader(dialling.socket, readable.wake)
        try:
            found: list[Dialled] = []
            if not await readable.wait(lambda: _arrived(dialling, found), until):
                raise dialling.failed("no answer came in time")
            return found[0]
        finally:
            loop.remove_reader(dialling.socket)
    except BaseException:
        dialling.socket.close()
        raise


def _arrived(dialling: Dialling, found: "list[Dialled]") -> bool:
    dialled = dialling.read()
    if dialled is not None:
        found.append(dialled)
    return dialled is not None
