"""The blocking client. Any number of threads may call at once."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Any, Callable, NoReturn, Optional, Type, TypeVar, Union

from ._cancel import NO_REGISTRATION, CancelToken, Registration
from ._config import Config, Default, Payload, Retry, State, Timeout, as_bytes
from ._core import Call
from ._dial import Dialled
from ._errors import LOST, Cancelled, Connect, DeadlineExceeded, NotExecuted
from ._items import ItemDuplex, Items, ItemUpload
from ._link import Link
from ._method import Method
from ._search import Search
from ._shared import Shared, moment
from ._spawn import Spawn
from ._streams import Duplex, Stream, Upload
from ._table import CLIENT_STREAM, DUPLEX, SERVER_STREAM, UNARY, MessageType

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")
_Sent = TypeVar("_Sent")


class Client(Shared):
    """A connection to a server that many threads may share, and that connects again by itself.

    Times are in seconds. `call_timeout` is for calls that say nothing else; None is for ever. `reconnect_timeout` is
    how long a call waits for a server that went away.
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
        _spawn: Optional[Spawn] = None,
    ) -> None:
        """Connects. Raises Connect if that fails."""
        super().__init__(
            Config(path, name, priority, connect_timeout, reconnect_timeout, call_timeout, max_message_bytes)
        )
        if on_state_change is not None:
            self._watcher.listen(on_state_change)
        try:
            self._link = Link(self._dial(None) if _spawn is None else self._find_or_start(_spawn), self._nudge)
        except BaseException:
            self._release()
            raise
        self._watcher.start(self)

    @classmethod
    def connect_or_spawn(
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
    ) -> "Client":
        """Connects to the server, or starts it and connects then. Of any number of clients that do so at once, in any
        language, one starts it. Raises Connect, or a SpawnError, which is one.

        A server that ends later is waited for, as by every client, and not started again.
        """
        return cls(
            path,
            name=name,
            priority=priority,
            connect_timeout=connect_timeout,
            reconnect_timeout=reconnect_timeout,
            call_timeout=call_timeout,
            max_message_bytes=max_message_bytes,
            on_state_change=on_state_change,
            _spawn=spawn,
        )

    # What users call.

    def call(
        self,
        name: str,
        payload: Payload = b"",
        *,
        timeout: Timeout = Default.TIMEOUT,
        retry: Retry = Retry.NEVER,
        cancel: Optional[CancelToken] = None,
    ) -> bytes:
        """Calls a unary message type and returns its response. Raises a CallError if there is none."""
        return self._call(name, None, as_bytes(payload), timeout, retry, cancel)

    def stream(
        self,
        name: str,
        payload: Payload = b"",
        *,
        timeout: Optional[float] = None,
        retry: Retry = Retry.NEVER,
        cancel: Optional[CancelToken] = None,
    ) -> Stream:
        """Calls a message type that answers with a stream, and returns an iterator of its chunks. `timeout` is for all
        of it.

        Closing the iterator, or dropping it, cancels what is left. `retry` is for what happens before the first chunk.
        """
        return self._stream(name, None, as_bytes(payload), timeout, retry, cancel)

    def client_stream(
        self,
        name: str,
        payload: Payload = b"",
        *,
        timeout: Optional[float] = None,
        cancel: Optional[CancelToken] = None,
    ) -> Upload:
        """Calls a message type that takes a stream: `send` chunks, then `finish` for the response. `timeout` is for all
        of it."""
        return self._upload(name, None, as_bytes(payload), timeout, cancel)

    def duplex(
        self,
        name: str,
        payload: Payload = b"",
        *,
        timeout: Optional[float] = None,
        cancel: Optional[CancelToken] = None,
    ) -> Duplex:
        """Calls a message type with streams both ways: `send` chunks and `end`, and iterate. Two threads may share
        it."""
        return self._duplex(name, None, as_bytes(payload), timeout, cancel)

    def call_typed(
        self,
        method: "Method[_Request, _Answer, Any]",
        value: _Request,
        *,
        timeout: Timeout = Default.TIMEOUT,
        retry: Retry = Retry.NEVER,
        cancel: Optional[CancelToken] = None,
    ) -> _Answer:
        """As `call`, of a method of a typed service: values both ways. Raises ServiceError if it answers with its own
        error."""
        return method.answer(self._call(method.name, method, method.request(value), timeout, retry, cancel))

    def stream_typed(
        self,
        method: "Method[_Request, _Answer, Any]",
        value: _Request,
        *,
        timeout: Optional[float] = None,
        retry: Retry = Retry.NEVER,
        cancel: Optional[CancelToken] = None,
    ) -> "Items[_Answer]":
        """As `stream`, of a method of a typed service."""
        return Items(method, self._stream(method.name, method, method.request(value), timeout, retry, cancel))

    def client_stream_typed(
        self,
        method: "Method[_Request, _Answer, _Sent]",
        value: _Request,
        *,
        timeout: Optional[float] = None,
        cancel: Optional[CancelToken] = None,
    ) -> "ItemUpload[_Sent, _Answer]":
        """As `client_stream`, of a method of a typed service."""
        return ItemUpload(method, self._upload(method.name, method, method.request(value), timeout, cancel))

    def duplex_typed(
        self,
        method: "Method[_Request, _Answer, _Sent]",
        value: _Request,
        *,
        timeout: Optional[float] = None,
        cancel: Optional[CancelToken] = None,
    ) -> "ItemDuplex[_Sent, _Answer]":
        """As `duplex`, of a method of a typed service."""
        return ItemDuplex(method, self._duplex(method.name, method, method.request(value), timeout, cancel))

    def call_json(
        self,
        name: str,
        value: Any,
        *,
        timeout: Timeout = Default.TIMEOUT,
        retry: Retry = Retry.NEVER,
        cancel: Optional[CancelToken] = None,
    ) -> Any:
        """As `call`, with JSON both ways."""
        method: "Method[Any, Any, Any]" = Method(name)
        return self.call_typed(method, value, timeout=timeout, retry=retry, cancel=cancel)

    def stream_json(
        self,
        name: str,
        value: Any,
        *,
        timeout: Optional[float] = None,
        retry: Retry = Retry.NEVER,
        cancel: Optional[CancelToken] = None,
    ) -> "Items[Any]":
        """As `stream`, with JSON both ways."""
        method: "Method[Any, Any, Any]" = Method(name)
        return self.stream_typed(method, value, timeout=timeout, retry=retry, cancel=cancel)

    def client_stream_json(
        self, name: str, value: Any, *, timeout: Optional[float] = None, cancel: Optional[CancelToken] = None
    ) -> "ItemUpload[Any, Any]":
        """As `client_stream`, with JSON both ways."""
        method: "Method[Any, Any, Any]" = Method(name)
        return self.client_stream_typed(method, value, timeout=timeout, cancel=cancel)

    def duplex_json(
        self, name: str, value: Any, *, timeout: Optional[float] = None, cancel: Optional[CancelToken] = None
    ) -> "ItemDuplex[Any, Any]":
        """As `duplex`, with JSON both ways."""
        method: "Method[Any, Any, Any]" = Method(name)
        return self.duplex_typed(method, value, timeout=timeout, cancel=cancel)

    def types(self) -> list[MessageType]:
        """The message types that the server offers now."""
        self._check_caller()
        with self._lock:
            link = self._connected(moment(self._config.connect_timeout), None)
            self._hear(link)
            return list(link.core.welcome.table.types.values())

    @property
    def state(self) -> State:
        """Whether there is a server at the moment."""
        if self._closed or self._is_parents:
            return State.CLOSED
        return State.RECONNECTING if self._link is None else State.CONNECTED

    def on_state_change(self, listener: Callable[[State], object]) -> None:
        """Calls the listener, on a thread of the client's and with the context variables of now, after each change."""
        self._watcher.listen(listener)

    def close(self) -> None:
        """Hangs up. Calls under way end as Closed. In a forked child it does nothing, since the connection is the
        parent's."""
        if not self._is_parents:
            self._check_caller()
            with self._lock:
                if not self._shut():
                    return
            self._watcher.stop(True)
            self._release()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Nobody uses it any more; but other threads may be frozen by now, as the interpreter ends, so that nothing is
        # waited for.
        if not hasattr(self, "_watcher") or self._is_parents or self._lock._is_owned():
            return
        if self._lock.acquire(blocking=False):
            shut = self._shut()
            self._lock.release()
            if shut:
                self._watcher.stop(False)
                self._release()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a bellrope.Client belongs to its process and cannot be pickled; make one in the other process")

    # How calls begin.

    def _find_or_start(self, spawn: Spawn) -> Dialled:
        search = Search(self._config, spawn)
        try:
            while True:
                search.look()
                try:
                    return self._dial(None)
                except Connect as error:
                    pause = search.failed(error)
                time.sleep(pause)
        finally:
            search.end()

    def _call(
        self,
        name: str,
        method: "Optional[Method[Any, Any, Any]]",
        request: bytes,
        timeout: Timeout,
        retry: Retry,
        cancel: Optional[CancelToken],
    ) -> bytes:
        until = moment(self._config.seconds(timeout))
        while True:
            try:
                return self._call_once(name, method, request, until, cancel)
            except LOST as error:
                if not retry.allows(error) or until is not None and time.monotonic() >= until:
                    raise

    def _stream(
        self,
        name: str,
        method: "Optional[Method[Any, Any, Any]]",
        request: bytes,
        timeout: Optional[float],
        retry: Retry,
        cancel: Optional[CancelToken],
    ) -> Stream:
        until = moment(self._config.seconds(timeout))
        while True:
            stream = Stream(self, *self._begin(name, method, SERVER_STREAM, request, until, cancel), until)
            if retry is Retry.NEVER:
                return stream
            try:
                stream._first()
                return stream
            except LOST as error:
                if not retry.allows(error) or until is not None and time.monotonic() >= until:
                    raise

    def _upload(
        self,
        name: str,
        method: "Optional[Method[Any, Any, Any]]",
        request: bytes,
        timeout: Optional[float],
        cancel: Optional[CancelToken],
    ) -> Upload:
        until = moment(self._config.seconds(timeout))
        return Upload(self, *self._begin(name, method, CLIENT_STREAM, request, until, cancel), until)

    def _duplex(
        self,
        name: str,
        method: "Optional[Method[Any, Any, Any]]",
        request: bytes,
        timeout: Optional[float],
        cancel: Optional[CancelToken],
    ) -> Duplex:
        until = moment(self._config.seconds(timeout))
        return Duplex(self, *self._begin(name, method, DUPLEX, request, until, cancel), until)

    def _call_once(
        self,
        name: str,
        method: "Optional[Method[Any, Any, Any]]",
        payload: bytes,
        until: Optional[float],
        token: Optional[CancelToken],
    ) -> bytes:
        """One try, called without the lock."""
        self._check_caller()
        begun: list[tuple[Link, Call]] = []
        registration = NO_REGISTRATION
        if token is not None:
            registration = Registration(token, lambda: self._token_cancelled(begun))
        lock = self._lock
        try:
            lock.acquire()
            link, call = self._begin_locked(name, method, UNARY, payload, until, registration, begun)
            if not self._wait_done(link, call, until):
                raise DeadlineExceeded
            if not call.unlocked:
                lock.release()
        except BaseException as error:
            if not lock._is_owned():
                lock.acquire()
            self._interrupted(begun, error)
            lock.release()
            raise
        finally:
            registration.end()
        return call.outcome()

    def _begin(
        self,
        name: str,
        method: "Optional[Method[Any, Any, Any]]",
        style: int,
        payload: bytes,
        until: Optional[float],
        token: Optional[CancelToken],
    ) -> tuple[Link, Call, Registration]:
        """Sends a request. Called without the lock."""
        self._check_caller()
        begun: list[tuple[Link, Call]] = []
        registration = Registration(token, lambda: self._token_cancelled(begun))
        try:
            with self._lock:
                link, call = self._begin_locked(name, method, style, payload, until, registration, begun)
            return link, call, registration
        except BaseException as error:
            registration.end()
            with self._lock:
                self._interrupted(begun, error)
            raise

    def _begin_locked(
        self,
        name: str,
        method: "Optional[Method[Any, Any, Any]]",
        style: int,
        payload: bytes,
        until: Optional[float],
        registration: Registration,
        begun: list[tuple[Link, Call]],
    ) -> tuple[Link, Call]:
        """The same with the lock held. What is `begun` is noted, so that an interrupt does not leave it behind."""
        if registration.cancelled():
            raise Cancelled
        link = self._link
        if link is None or link.is_mute or link.broken or self._closed:
            link = self._connected(until, registration)
        core = link.core
        table = core.welcome.table
        number = table.find(name, style, method)
        if number is None:
            self._hear(link)
            number = table.find(name, style, method)
            if number is None and not link.broken:
                raise table.fault(name, style, method)
        if not core.has_room and not self._wait(
            link, lambda: link.broken or core.has_room or registration.cancelled(), until, self._changed
        ):
            raise DeadlineExceeded
        if registration.cancelled():
            raise Cancelled
        if link.broken or number is None:
            raise NotExecuted
        if until is not None and until <= time.monotonic():
            raise DeadlineExceeded
        call = core.begin(number, style, payload, None if until is None else link.dialled.moment_us(until))
        begun.append((link, call))
        self._flush(link, waits=style == UNARY)
        return link, call
