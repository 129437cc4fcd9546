"""What the threads that share a blocking client share: its connection, and who of them waits how.

Of the threads that wait on a connection the first one leads: it polls and reads for all, and passes the role on when it
has what it waited for. So a lone caller pays no other thread.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
import weakref
from collections import deque
from typing import Callable, Optional

from ._cancel import Registration
from ._config import Config, State
from ._core import Call
from ._dial import BACKLOG_PAUSE, Dialled, Dialling, pause
from ._doorbell import Doorbell, forget
from ._errors import CallError, Cancelled, Closed, Connect, DeadlineExceeded, Violation, interrupted
from ._link import Link
from ._lock import IN_THE_MIDDLE, is_interrupting, new_lock, once
from ._seat import Place, Seat
from ._watcher import Watcher

# How often to look for what has arrived: a server may go on sending.
_LOOKS = 100

_all: "weakref.WeakSet[Shared]" = weakref.WeakSet()


class Shared:
    """The state of a blocking client. What is here is called with the lock held, unless it says otherwise."""

    def __init__(self, config: Config) -> None:
        self._config = config
        # Whether this is a child that was forked, and the client its parent's.
        self._is_parents = False
        self._lock = new_lock()
        # Of the connection, of room to queue, of tokens.
        self._changed = self._bell()
        self._link: Optional[Link] = None
        # Why the last connection was given up, if its server broke the protocol.
        self._violation: Optional[Violation] = None
        self._connecting = False
        self._dialling: Optional[Dialling] = None
        self._closed = False
        # Interrupts the thread that leads.
        self._nudge = Doorbell()
        # Calls that were dropped where the lock could not be taken.
        self._dropped: deque[tuple[Link, Call]] = deque()
        self._watcher = Watcher()
        _all.add(self)

    def _bell(self) -> threading.Condition:
        """Something to wait for with the lock held."""
        return threading.Condition(self._lock)  # type: ignore[arg-type]  # it is one of those

    def _wait_for(self, link: Link, call: Call, ready: Callable[[], bool], until: Optional[float]) -> bool:
        """Waits for something of a call, which holds at the latest when the call is done. Answers False if time is
        over."""
        if ready():
            return True
        if link.leader in (None, threading.get_ident()):
            return self._wait(link, ready, until, self._changed)
        if call.bell is None:
            call.bell = self._bell()
            call.wake = call.bell.notify_all
        return self._wait(link, ready, until, call.bell)

    def _wait_done(self, link: Link, call: Call, until: Optional[float]) -> bool:
        """Waits for the end of a call of this thread alone. Answers False if time is over. The lock may have been given back
        where the call is done: then it is `unlocked`."""
        me = threading.get_ident()
        while not call.done:
            if link.leader in (None, me):
                return self._wait(link, lambda: call.done, until, self._changed)
            left = -1.0 if until is None else until - time.monotonic()
            if until is not None and left <= 0:
                return False
            seat = Seat(link.followers)
            call.wake = seat.wake
            at_ease = False
            saved = once()
            try:
                try:
                    call.unlocked = True
                    self._lock.release()
                    seat.wait(left)
                    at_ease = True
                finally:
                    if not call.done or seat.called:
                        call.unlocked = False
                        self._lock._acquire_restore(saved)
            finally:
                if not call.unlocked:
                    seat.leave()
                    # One that was woken to lead, and does not, passes the role on.
                    if not at_ease or call.done or until is not None and time.monotonic() >= until:
                        self._pass_on(link)
        return True

    def _pass_on(self, link: Link) -> None:
        """Has one lead that waits, if nobody does: the one that came last, as the others have their answers sooner."""
        if link.leader is None and link.followers:
            next(reversed(link.followers)).call()

    def _wait(self, link: Link, ready: Callable[[], bool], until: Optional[float], bell: threading.Condition) -> bool:
        """Waits until something is ready that a record or room to write may bring, as leader or as follower."""
        leads = False
        me = threading.get_ident()
        # A signal's handler that calls interrupts its own thread, which may lead; it leads in its place meanwhile.
        before = me if link.leader == me else None
        try:
            while not ready():
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return False
                if leads or link.leader in (None, me):
                    leads, link.leader = True, me
                    self._lead(link, left, before is not None)
                else:
                    place = Place(bell)
                    link.followers[place] = None
                    try:
                        bell.wait(left)
                    finally:
                        del link.followers[place]
            return True
        finally:
            if leads:
                link.leader = before
                if link.broken and before is None:
                    if not link.writing:
                        link.close()
                    self._changed.notify_all()
            # Also one that was woken to lead, and need not any more, passes the role on.
            self._pass_on(link)

    def _lead(self, link: Link, left: Optional[float], nested: bool) -> None:
        """Waits for the socket without the lock, then reads and writes."""
        if link.writing and nested:
            raise RuntimeError(IN_THE_MIDDLE)
        if link.is_mute:
            return self._exchange(link)
        if not link.followers and link.reads_first():
            self._exchange(link)
            if link.broken or link.has_read_first():
                return
        if self._is_read_from(link):
            return
        poller = link.poller(nested)
        patience = None if left is None else int(left * 1000) + 1
        over = True
        try:
            saved = once()
            try:
                self._lock.release()
                ready = poller.poll(patience)
                link.reading = True
                # Here, too, others would wait for the lock one after the other.
                data = link.fetch() if ready else None
            finally:
                self._lock._acquire_restore(saved)
            if len(ready) > 1 or ready and ready[0][0] != link.descriptor:
                self._nudge.clear()
            if link.core.wants_write:
                self._flush(link, waits=True)
            over = not link.broken and not link.take(data)
        finally:
            # Also where an interrupt came in the middle: nobody knows what was read then. Before that nothing was.
            over &= link.reading
            link.reading = False
            if over:
                self._lose(link)

    def _exchange(self, link: Link) -> None:
        """Writes and reads as far as that goes without waiting."""
        if self._is_read_from(link):
            return
        over = True
        try:
            if link.core.wants_write:
                self._flush(link, waits=True)
            # Behind a failed write there is what has arrived, and nothing else.
            over = not link.read_rest() or link.is_mute if link.is_mute else not link.read()
        finally:
            # Also where an interrupt came in the middle: nobody knows what was read then.
            if over:
                self._lose(link)

    def _is_read_from(self, link: Link) -> bool:
        """Whether nothing can be read: in a handler, in the middle of reading, which is an error; and where an interrupt has left
        that behind, which ends the connection."""
        if link.reading:
            if is_interrupting():
                raise RuntimeError(IN_THE_MIDDLE)
            link.reading = False
            self._lose(link)
            return True
        return False

    def _hear(self, link: Link) -> None:
        """Takes what has arrived, such as a change of the message types, before somebody is told what there is not."""
        for _ in range(_LOOKS):
            if link.broken or not (link.unread or link.reading):
                return
            if link.leader in (None, threading.get_ident()):
                self._exchange(link)
            else:
                # Whoever leads takes it in a moment.
                self._changed.wait(0.001)

    def _flush(self, link: Link, waits: bool = False) -> None:
        """Writes what the socket takes, and lets somebody care for the rest: the leader if there is one, else the
        caller if it `waits` next, else the watcher."""
        core = link.core
        if link.writing:
            return  # Whoever writes takes it along.
        had_room = core.has_room
        if link.followers:
            had_room &= not link.flush_without(self._lock)
        else:
            link.flush()
        if not core.wants_write and had_room and not link.is_mute:
            return
        if not had_room and core.has_room:
            self._changed.notify_all()
            core.wake_uploads()
        if not (link.wants_write or link.is_mute) or link.leader == threading.get_ident():
            return
        if link.leader is not None:
            self._nudge.ring()
        elif not waits:
            self._watcher.ring()

    def _cancel(self, link: Link, call: Call, error: CallError) -> None:
        """Gives a call up, if it is still under way."""
        if link.core.torn:
            return self._lose(link)
        was_done = call.done
        link.core.cancel(call, error)
        if not (was_done or link.broken):
            self._flush(link)
            self._rouse(link)

    def _interrupted(self, begun: "list[tuple[Link, Call]]", error: BaseException) -> None:
        """Gives up what was begun of a call that ends so on this side."""
        link = self._link
        if link is not None and link.core.torn:
            self._lose(link)
        for link, call in begun:
            self._cancel(link, call, interrupted(error))

    def _rouse(self, link: Link) -> None:
        """Has the thread that leads look again, as it may be the one that waits for what was done just now."""
        if link.leader not in (None, threading.get_ident()):
            self._nudge.ring()

    def _token_cancelled(self, begun: list[tuple[Link, Call]]) -> None:
        """Called by a token, without the lock."""
        if self._is_parents:
            return
        if self._lock._is_owned():
            return self._later(*begun)
        with self._lock:
            for link, call in begun:
                self._cancel(link, call, Cancelled())
            self._changed.notify_all()
            self._nudge.ring()

    def _give_up(self, link: Link, call: Call) -> None:
        """Gives a call up. Called without the lock."""
        if self._is_parents or call.done:
            return
        if self._lock._is_owned():
            return self._later((link, call))
        with self._lock:
            self._cancel(link, call, Cancelled())

    def _drop(self, link: Link, call: Call) -> None:
        """Gives a call up that nobody refers to any more. Called without the lock, or by a garbage collector that may
        hold it."""
        if self._is_parents or call.done:
            return
        if self._lock._is_owned():
            return self._later((link, call))
        try:
            if not self._lock.acquire(blocking=False):
                return self._later((link, call))
            self._cancel(link, call, Cancelled())
            self._lock.release()
        except BaseException:
            if self._lock._is_owned():
                self._lock.release()
            raise

    def _later(self, *begun: "tuple[Link, Call]") -> None:
        """Has calls given up where the lock cannot be waited for: in the middle of what its holder does."""
        self._dropped.extend(begun)
        self._watcher.ring()

    # The connection.

    def _connected(self, until: Optional[float], registration: Optional[Registration]) -> Link:
        """The connection, made anew if there is none. Waits for a server that went away, but not for long."""
        began = time.monotonic()
        patience = began + self._config.reconnect_timeout
        while True:
            if self._closed:
                raise Closed
            if registration is not None and registration.cancelled():
                raise Cancelled
            link = self._link
            if link is not None and link.broken:
                self._lose(link)
                continue
            if link is not None and link.is_mute and link.leader in (None, threading.get_ident()):
                self._exchange(link)
                continue
            if link is not None and not link.is_mute:
                return link
            # The one who leads reads such a connection to its end.
            error = None if self._connecting or link is not None else self._connect(until)
            if link is None and self._link is not None:
                continue
            now = time.monotonic()
            if until is not None and now >= until:
                raise DeadlineExceeded
            if error is not None and now >= patience:
                raise error
            self._changed.wait(0.05 if error is None else min(pause(now - began, error), max(patience - now, 0.001)))

    def _connect(self, until: Optional[float]) -> Optional[Connect]:
        """Tries to connect once, without the lock. Answers why it failed, unless the client was closed meanwhile."""
        dialled: Optional[Dialled] = None
        failed: Optional[Connect] = None
        saved = once()
        try:
            try:
                self._connecting = True
                self._lock.release()
                dialled = self._dial(until)
            except Connect as error:
                failed = error
            finally:
                self._lock._acquire_restore(saved)
        finally:
            self._connecting = False
            self._changed.notify_all()
        if dialled is not None and self._closed:
            dialled.socket.close()
        elif dialled is not None:
            self._link = Link(dialled, self._nudge)
            self._watcher.tell(State.CONNECTED)
        return failed

    def _dial(self, until: Optional[float]) -> Dialled:
        """Connects, within the time for it. Called without the lock."""
        latest = time.monotonic() + self._config.connect_timeout
        until = latest if until is None else min(until, latest)
        dialling = self._dialling = Dialling(self._config)
        try:
            while not dialling.connect():
                if time.monotonic() >= until:
                    raise dialling.failed("no answer came in time")
                time.sleep(BACKLOG_PAUSE)
            poller = select.poll()
            poller.register(dialling.socket, select.POLLIN)
            while True:
                dialled = dialling.read()
                if dialled is not None:
                    return dialled
                left = until - time.monotonic()
                if left <= 0:
                    raise dialling.failed("no answer came in time")
                poller.poll(math.ceil(left * 1000))
        except BaseException:
            dialling.socket.close()
            raise
        finally:
            self._dialling = None

    def _lose(self, link: Link) -> None:
        """Ends every call of a connection that is over. If that is interrupted, it is done again."""
        if link.lost:
            return
        link.hang_up()
        if link.leader is None and not link.writing:
            link.close()
        link.core.lose(link.violation)
        if self._link is link:
            self._link = None
            self._violation = link.violation
            self._watcher.tell(State.RECONNECTING)
        link.lost = True
        self._changed.notify_all()

    def _shut(self) -> bool:
        """Ends the connection for good. Answers False if that was done."""
        if self._closed:
            return False
        self._closed = True
        link, self._link = self._link, None
        if link is not None:
            link.hang_up()
            link.core.close(Closed)
            self._nudge.ring()
            # Its descriptor may be given back once nobody polls it.
            while link.leader not in (None, threading.get_ident()):
                self._changed.wait(1.0)
            if link.leader is None and not link.writing:
                link.close()
        self._changed.notify_all()
        self._watcher.tell(State.CLOSED)
        return True

    def _check_caller(self) -> None:
        """Raises what forbids the calling thread to use the client."""
        if self._is_parents:
            raise Closed("this client belongs to the process that was forked; make a new one here")
        if self._lock._is_owned():
            if is_interrupting():
                raise RuntimeError(IN_THE_MIDDLE)
            # Nobody knows what was interrupted.
            if self._link is not None:
                self._lose(self._link)
            self._connecting = False
            self._lock.release()

    def _release(self) -> None:
        """Gives the descriptors back that outlive a connection."""
        self._nudge.close()
        self._watcher.close()

    def _abandon_in_child(self) -> None:
        """Lets go, after a fork, of what is the parent's. No lock is taken: its holder may not exist here."""
        self._is_parents = True
        if self._link is not None:
            self._link.close_in_child()
        if self._dialling is not None:
            forget(self._dialling.socket)
        self._nudge.close_in_child()
        self._watcher.close_in_child()


def moment(seconds: Optional[float]) -> Optional[float]:
    """A moment so far ahead."""
    return None if seconds is None else time.monotonic() + seconds


def _abandon_all_in_child() -> None:
    for client in list(_all):
        client._abandon_in_child()


os.register_at_fork(after_in_child=_abandon_all_in_child)
