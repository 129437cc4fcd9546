"""The thread that looks after a blocking client while nobody waits: it notices that the server went away, connects
again, writes what could not be written at once, and calls the listeners of the connection's state.
"""

from __future__ import annotations

import math
import select
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Callable, Optional

from ._config import State
from ._dial import pause
from ._doorbell import Doorbell
from ._errors import Cancelled
from ._listeners import Listeners

if TYPE_CHECKING:
    from ._shared import Shared
    from ._link import Link

# Only a hang-up is listened for: what comes in is for whoever waits.
_HANG_UP = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Watcher:
    """The thread, as its client sees it."""

    def __init__(self) -> None:
        self._bell = Doorbell()
        self._stopped = False
        self._closed = False
        self._thread: Optional[threading.Thread] = None
        self._listeners = Listeners()
        self._news: deque[State] = deque()

    def start(self, client: "Shared") -> None:
        """Begins to watch. The thread does not keep the client alive."""
        self._thread = threading.Thread(
            target=_watch, args=(self, weakref.ref(client)), name="bellrope-watch", daemon=True
        )
        self._thread.start()

    def listen(self, listener: Callable[[State], object]) -> None:
        """Calls the listener after each change, in the context of now."""
        self._listeners.add(listener)

    def tell(self, state: State) -> None:
        """Has the listeners called."""
        self._news.append(state)
        self._bell.ring()

    def ring(self) -> None:
        """Has the thread look after its client."""
        self._bell.ring()

    def stop(self, wait: bool) -> None:
        """Ends the thread, and waits for that if asked to, unless it is the thread that asks."""
        self._stopped = True
        self._bell.ring()
        if wait and self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def close(self) -> None:
        """Gives the descriptors back, once the thread has ended."""
        self._closed = True
        if self._thread is None or not self._thread.is_alive():
            self._bell.close()

    def close_in_child(self) -> None:
        """The same in a forked child, where there is no thread."""
        self._bell.close_in_child()

    def call_listeners(self) -> None:
        """Calls the listeners with the news, without any lock."""
        while self._news:
            self._listeners.call(self._news.popleft())


def _watch(watcher: Watcher, reference: "weakref.ref[Shared]") -> None:
    away_since: Optional[float] = None
    while True:
        watcher.call_listeners()
        client = reference()
        if client is None or watcher._stopped:
            break
        link, patience, away_since = _look_after(client, away_since)
        descriptor = -1 if link is None else link.fileno()
        del client, link
        poller = select.poll()
        poller.register(watcher._bell, select.POLLIN)
        if descriptor >= 0:
            poller.register(descriptor, _HANG_UP)
        poller.poll(None if patience is None else math.ceil(patience * 1000))
        watcher._bell.clear()
    watcher.call_listeners()
    if watcher._closed:
        watcher._bell.close()


def _look_after(
    client: "Shared", away_since: Optional[float]
) -> "tuple[Optional[Link], Optional[float], Optional[float]]":
    """Does what is to be done now. Answers with the connection, how long there is nothing else to do, and since when
    there has been no connection."""
    with client._lock:
        if client._closed:
            return None, None, None
        while client._dropped:
            client._cancel(*client._dropped.popleft(), Cancelled())
            client._changed.notify_all()
        link = client._link
        if link is not None:
            _serve(client, link)
            link = client._link
        if link is not None:
            # Somebody who leads sees the hang-up as well, or polls for room soon.
            return link, 0.001 if link.leader is not None and _has_hung_up(link) else None, None
        now = time.monotonic()
        if away_since is None:
            # A server that hangs up on everybody is not asked without end.
            return None, pause(0.0, client._violation), now
        if client._connecting:
            return None, 0.005, away_since
        error = client._connect(now + client._config.connect_timeout)
        if error is None:
            return client._link, None, None
        return None, pause(now - away_since, error), away_since


def _serve(client: "Shared", link: "Link") -> None:
    """Reads and writes where nobody leads: after a hang-up, or while something is to be written."""
    if link.leader is not None:
        return
    if link.wants_write:
        client._wait(link, lambda: not link.wants_write, time.monotonic() + 1.0, client._changed)
    if link.is_mute:
        client._exchange(link)
    while not link.broken and link.leader is None and _has_hung_up(link):
        client._exchange(link)


def _has_hung_up(link: "Link") -> bool:
    poller = select.poll()
    poller.register(link.fileno(), _HANG_UP)
    return bool(poller.poll(0))
