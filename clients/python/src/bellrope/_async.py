"""The client for asyncio. Everything happens on one event loop; nothing here waits but by `await`."""

from __future__ import annotations

import asyncio
import os
import weakref
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Callable, NoReturn, Optional, Type, TypeVar, Union

from ._async_link import AsyncLink, dial
from ._async_streams import AsyncDuplex, AsyncStream, AsyncUpload
from ._config import Config, Default, Payload, Retry, State, Timeout, as_bytes
from ._core import Call
from ._dial import Dialled, pause
from ._errors import LOST, Closed, Connect, DeadlineExceeded, NotExecuted, interrupted
from ._items import AsyncItemDuplex, AsyncItems, AsyncItemUpload
from ._listeners import Listeners
from ._method import Method
from ._search import Search
from ._spawn import Spawn
from ._table import CLIENT_STREAM, DUPLEX, SERVER_STREAM, UNARY, MessageType
from ._waiters import Waiters

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")
_Sent = TypeVar("_Sent")

_clients: "weakref.WeakSet[AsyncClient]" = weakref.WeakSet()


class AsyncClient:
    """A connection to a server that the tasks of one event loop share, and that connects again by itself.

    It connects with `async with`, with `connect`, or with the first call. Cancelling a task cancels its call at the
    server. Times are in seconds, as for `Client`.
    """

    def __init__(
        self,
        path: Union[str, "os.PathLike[str]", None] = None,
        *,
        name: Optional[str] = None,
        priority: bool = False,
        connect_timeout: float = 5.0,
        reconnect_timeout: float = 1.0,
        call_timeout: Optional[float] = 30.0,
        max_message_bytes: int = 10 * 1024 * 1024,
        on_state_change: Optional[Callable[[State], object]] = None,
    ) -> None:
        self._config = Config(path, name, priority, connect_timeout, reconnect_timeout, call_timeout, max_message_bytes)
        # Whether this is a child that was forked, and the client its parent's.
        self._is_parents = False
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._link: Optional[AsyncLink] = None
        # Of the connection.
        self._changed: Optional[Waiters] = None
        self._connector: Optional["asyncio.Task[None]"] = None
        self._tries = 0
        # A call waits for a connection, so that the next try is not put off.
        self._wanted = False
        self._error: Optional[Connect] = None
        self._was_connected = False
        self._closed = False
        self._listeners = Listeners()
        if on_state_change is not None:
            self.on_state_change(on_state_change)
        _clients.add(self)

    # What users call.

    async def connect(self) -> None:
        """Connects, unless it is connected. Raises Connect if that fails."""
        await self._connected(None)

    @classmethod
    async def connect_or_spawn(
        cls,
        path: Union[str, "os.PathLike[str]", None],
        spawn: Spawn,
        *,
        name: Optional[str] = None,
        priority: bool = False,
        connect_timeout: float = 5.0,
        reconnect_timeout: float = 1.0,
        call_timeout: Optional[float] = 30.0,
        max_message_bytes: int = 10 * 1024 * 1024,
        on_state_change: Optional[Callable[[State], object]] = None,
    ) -> "AsyncClient":
        """As of Client: connects to the server, or starts it and connects then."""
        client = cls(
            path,
            name=name,
            priority=priority,
            connect_timeout=connect_timeout,
            reconnect_timeout=reconnect_timeout,
            call_timeout=call_timeout,
            max_message_bytes=max_message_bytes,
            on_state_change=on_state_change,
        )
        await client._find_or_start(spawn)
        return client

    async def call(
        self,
        name: str,
        payload: Payload = b"",
        *,
        timeout: Timeout = Default.TIMEOUT,
        retry: Retry = Retry.NEVER,
        _method: "Optional[Method[Any, Any, Any]]" = None,
    ) -> bytes:
        """Calls a unary message type and returns its response. Raises a CallError if there is none."""
        request = as_bytes(payload)
        loop = self._running_loop()
        seconds = self._config.seconds(timeout)
        until, left = None if seconds is None else loop.time() + seconds, seconds
        while True:
            try:
                begun = self._at_once(name, _method, UNARY, request, left)
                link, call = begun or await self._request(name, _method, UNARY, request, until)
                try:
                    while not call.done:
                        future = loop.create_future()
                        call.wake = partial(_settle, future)
                        if until is None:
                            await future
                            continue
                        link.expiry.add(future, until)
                        try:
                            await future
                        finally:
                            link.expiry.discard(future)
                        if not call.done and loop.time() >= until:
                            raise DeadlineExceeded
                except BaseException as error:
                    link.cancel(call, interrupted(error))
                    raise
                return call.outcome()
            except LOST as error:
                if not retry.allows(error) or self._is_over(until):
                    raise
                left = None if until is None else until - loop.time()

    def stream(
        self, name: str, payload: Payload = b"", *, timeout: Optional[float] = None, retry: Retry = Retry.NEVER
    ) -> AsyncStream:
        """Calls a message type that answers with a stream: an async iterator of its chunks, which begins with the first
        one asked for.

        Leaving its `async with` block, closing it or dropping it cancels what is left. `timeout` is for all of it,
        `retry` for what happens before the first chunk.
        """
        return AsyncStream(self, SERVER_STREAM, name, None, as_bytes(payload), timeout, retry)

    async def client_stream(self, name: str, payload: Payload = b"", *, timeout: Optional[float] = None) -> AsyncUpload:
        """Calls a message type that takes a stream: `send` chunks, then `finish` for the response. `timeout` is for all
        of it."""
        upload = AsyncUpload(self, CLIENT_STREAM, name, None, as_bytes(payload), timeout, Retry.NEVER)
        await upload._begin()
        return upload

    async def duplex(self, name: str, payload: Payload = b"", *, timeout: Optional[float] = None) -> AsyncDuplex:
        """Calls a message type with streams both ways: `send` chunks and `end`, and iterate. Two tasks may share it."""
        duplex = AsyncDuplex(self, DUPLEX, name, None, as_bytes(payload), timeout, Retry.NEVER)
        await duplex._begin()
        return duplex

    async def call_typed(
        self,
        method: "Method[_Request, _Answer, Any]",
        value: _Request,
        *,
        timeout: Timeout = Default.TIMEOUT,
        retry: Retry = Retry.NEVER,
    ) -> _Answer:
        """As `call`, of a method of a typed service: values both ways. Raises ServiceError if it answers with its own
        error."""
        request = method.request(value)
        return method.answer(await self.call(method.name, request, timeout=timeout, retry=retry, _method=method))

    def stream_typed(
        self,
        method: "Method[_Request, _Answer, Any]",
        value: _Request,
        *,
        timeout: Optional[float] = None,
        retry: Retry = Retry.NEVER,
    ) -> "AsyncItems[_Answer]":
        """As `stream`, of a method of a typed service."""
        request = method.request(value)
        return AsyncItems(method, AsyncStream(self, SERVER_STREAM, method.name, method, request, timeout, retry))

    async def client_stream_typed(
        self, method: "Method[_Request, _Answer, _Sent]", value: _Request, *, timeout: Optional[float] = None
    ) -> "AsyncItemUpload[_Sent, _Answer]":
        """As `client_stream`, of a method of a typed service."""
        request = method.request(value)
        upload = AsyncUpload(self, CLIENT_STREAM, method.name, method, request, timeout, Retry.NEVER)
        await upload._begin()
        return AsyncItemUpload(method, upload)

    async def duplex_typed(
        self, method: "Method[_Request, _Answer, _Sent]", value: _Request, *, timeout: Optional[float] = None
    ) -> "AsyncItemDuplex[_Sent, _Answer]":
        """As `duplex`, of a method of a typed service."""
        duplex = AsyncDuplex(self, DUPLEX, method.name, method, method.request(value), timeout, Retry.NEVER)
        await duplex._begin()
        return AsyncItemDuplex(method, duplex)

    async def call_json(
        self, name: str, value: Any, *, timeout: Timeout = Default.TIMEOUT, retry: Retry = Retry.NEVER
    ) -> Any:
        """As `call`, with JSON both ways."""
        method: "Method[Any, Any, Any]" = Method(name)
        return await self.call_typed(method, value, timeout=timeout, retry=retry)

    def stream_json(
        self, name: str, value: Any, *, timeout: Optional[float] = None, retry: Retry = Retry.NEVER
    ) -> "AsyncItems[Any]":
        """As `stream`, with JSON both ways."""
        method: "Method[Any, Any, Any]" = Method(name)
        return self.stream_typed(method, value, timeout=timeout, retry=retry)

    async def client_stream_json(
        self, name: str, value: Any, *, timeout: Optional[float] = None
    ) -> "AsyncItemUpload[Any, Any]":
        """As `client_stream`, with JSON both ways."""
        method: "Method[Any, Any, Any]" = Method(name)
        return await self.client_stream_typed(method, value, timeout=timeout)

    async def duplex_json(self, name: str, value: Any, *, timeout: Optional[float] = None) -> "AsyncItemDuplex[Any, Any]":
        """As `duplex`, with JSON both ways."""
        method: "Method[Any, Any, Any]" = Method(name)
        return await self.duplex_typed(method, value, timeout=timeout)

    async def types(self) -> "list[MessageType]":
        """The message types that the server offers now."""
        link = await self._connected(None)
        link.hear()
        return list(link.core.welcome.table.types.values())

    @property
    def state(self) -> State:
        """Whether there is a server at the moment."""
        if self._closed or self._is_parents:
            return State.CLOSED
        return State.RECONNECTING if self._link is None else State.CONNECTED

    def on_state_change(self, listener: Callable[[State], object]) -> None:
        """Calls the listener, on the event loop and with the context variables of now, after each change."""
        self._listeners.add(listener)

    def close(self) -> None:
        """Hangs up. Calls under way end as Closed. In a forked child it does nothing, since the connection is the
        parent's. Another thread only has it done, by the event loop."""
        if self._closed or self._is_parents:
            return
        if self._loop is not None and self._loop.is_running() and asyncio._get_running_loop() is not self._loop:
            self._loop.call_soon_threadsafe(self.close)
            return
        self._closed = True
        if self._connector is not None:
            self._connector.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.close()
            link.core.close(Closed)
        if self._changed is not None:
            self._changed.wake()
        self._tell(State.CLOSED)

    async def aclose(self) -> None:
        """The same, and waits until nothing of the client runs any more."""
        self.close()
        connector = self._connector
        if connector is not None and connector is not asyncio.current_task():
            await asyncio.gather(connector, return_exceptions=True)

    async def __aenter__(self) -> "AsyncClient":
        await self.connect()
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        await self.aclose()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a bellrope.AsyncClient belongs to its process and cannot be pickled; make one in the other process"
        )

    # Calls.

    async def _begin(
        self,
        name: str,
        method: "Optional[Method[Any, Any, Any]]",
        style: int,
        payload: bytes,
        until: Optional[float],
    ) -> "tuple[AsyncLink, Call, Waiters]":
        """Sends the request of a stream, as soon as there are a connection and room."""
        link, call = await self._request(name, method, style, payload, until)
        waiters = Waiters(link.loop, link.expiry)
        call.wake = waiters.wake
        return link, call, waiters

    async def _request(
        self,
        name: str,
        method: "Optional[Method[Any, Any, Any]]",
        style: int,
        payload: bytes,
        until: Optional[float],
    ) -> "tuple[AsyncLink, Call]":
        """Sends a request, as soon as there are a connection and room."""
        while True:
            left = None if until is None else until - self._running_loop().time()
            begun = self._at_once(name, method, style, payload, left)
            if begun is not None:
                return begun
            link = await self._connected(until)
            core = link.core
            if not await link.room.wait(lambda: link.broken or core.has_room, until):
                raise DeadlineExceeded
            if link.broken:
                raise Closed if self._closed else NotExecuted

    def _at_once(
        self,
        name: str,
        method: "Optional[Method[Any, Any, Any]]",
        style: int,
        payload: bytes,
        left: Optional[float],
    ) -> "Optional[tuple[AsyncLink, Call]]":
        """Sends a request for which so many seconds are left, if that waits for nothing."""
        link = self._link
        if link is None:
            return None
        core = link.core
        table = core.welcome.table
        number = table.find(name, style, method)
        if number is None:
            link.hear()
            if self._link is not link:
                return None
            number = table.find(name, style, method)
            if number is None:
                raise table.fault(name, style, method)
        if not core.has_room:
            return None
        if link.broken:
            raise Closed if self._closed else NotExecuted
        if left is not None and left <= 0:
            raise DeadlineExceeded
        # The loop's clock may be another one than the server's.
        deadline = None if left is None else link.dialled.moment_us(monotonic() + left)
        call = core.begin(number, style, payload, deadline)
        link.flush()
        return link, call

    # The connection.

    async def _connected(self, until: Optional[float]) -> AsyncLink:
        """The connection, made anew if there is none. Waits for a server that went away, but not for long."""
        loop = self._running_loop()
        if self._link is not None:
            return self._link
        changed = self._changed
        if changed is None:
            changed = self._changed = Waiters(loop)
        patience = loop.time() + (self._config.reconnect_timeout if self._was_connected else 0)
        asked = False
        while True:
            if self._closed:
                raise Closed
            if self._link is not None:
                return self._link
            if self._connector is None:
                self._connector = loop.create_task(self._keep_connecting(loop, changed))
            elif not asked:
                self._wanted = asked = True
                changed.wake()
            tries = self._tries
            if not await changed.wait(lambda: self._closed or self._link is not None or self._tries != tries, until):
                raise DeadlineExceeded
            if self._link is None and self._error is not None and not self._closed and loop.time() >= patience:
                raise self._error

    async def _find_or_start(self, spawn: Spawn) -> None:
        loop = self._running_loop()
        search = Search(self._config, spawn)
        try:
            while self._link is None:
                search.look()
                try:
                    self._install(await dial(self._config, loop), loop)
                except Connect as error:
                    # Starting a program takes a millisecond or two, once; nothing of this waits.
                    await asyncio.sleep(search.failed(error))
        finally:
            search.end()

    def _install(self, dialled: Dialled, loop: asyncio.AbstractEventLoop) -> None:
        if self._changed is None:
            self._changed = Waiters(loop)
        self._link = AsyncLink(loop, dialled, self._lost)
        if self._was_connected:
            self._tell(State.CONNECTED)
        self._was_connected = True

    async def _keep_connecting(self, loop: asyncio.AbstractEventLoop, changed: Waiters, first: float = 0.0) -> None:
        """Tries, after the first pause, until there is a connection; but only once where there never was one."""
        away_since = loop.time()
        try:
            await changed.wait(lambda: self._wanted, loop.time() + first)
            while not self._closed and self._link is None:
                self._wanted = False
                try:
                    dialled = await dial(self._config, loop)
                except Connect as error:
                    self._error = error
                    self._tries += 1
                    changed.wake()
                    if not self._was_connected:
                        return
                    await changed.wait(lambda: self._wanted, loop.time() + pause(loop.time() - away_since, error))
                    continue
                self._install(dialled, loop)
        finally:
            self._connector = None
            changed.wake()

    def _lost(self, link: AsyncLink) -> None:
        """Told by a connection that is over, once its calls have ended."""
        if self._link is not link or self._loop is None or self._changed is None:
            return
        self._link = None
        self._tell(State.RECONNECTING)
        if not self._closed and self._connector is None:
            # A server that hangs up on everybody is not asked without end.
            first = pause(0.0, link.violation)
            self._connector = self._loop.create_task(self._keep_connecting(self._loop, self._changed, first))

    def _tell(self, state: State) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._listeners.schedule(state, self._loop)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop, which is that of the first call."""
        loop = asyncio._get_running_loop()
        if loop is None or loop is not self._loop or self._is_parents:
            return self._check_loop()
        return loop

    def _check_loop(self) -> asyncio.AbstractEventLoop:
        if self._is_parents:
            raise Closed("this client belongs to the process that was forked; make a new one here")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError(
                "this AsyncClient belongs to another event loop; make one for each loop, use "
                "asyncio.run_coroutine_threadsafe, or a Client, which any thread may use"
            )
        return loop

    def _moment(self, seconds: Optional[float]) -> Optional[float]:
        """A moment so far ahead on the loop's clock."""
        loop = self._running_loop()
        return None if seconds is None else loop.time() + seconds

    def _is_over(self, until: Optional[float]) -> bool:
        return until is not None and self._running_loop().time() >= until

    def _abandon_in_child(self) -> None:
        """Lets go, after a fork, of what is the parent's."""
        self._is_parents = True
        if self._link is not None:
            self._link.close_in_child()


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _abandon_all_in_child() -> None:
    for client in list(_clients):
        client._abandon_in_child()


os.register_at_fork(after_in_child=_abandon_all_in_child)
