"""Streams of the asyncio client."""

from __future__ import annotations

import codecs
from types import TracebackType
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Optional, Type

from ._async_link import AsyncLink
from ._config import Payload, Retry, as_bytes
from ._core import Call
from ._errors import LOST, Cancelled, DeadlineExceeded, MessageTooLarge, interrupted
from ._waiters import Waiters

if TYPE_CHECKING:
    from ._async import AsyncClient
    from ._method import Method


class _Streaming:
    """A call that is not over with one answer. Leaving its `async with` block, closing it or dropping it cancels what
    is left."""

    def __init__(
        self,
        client: "AsyncClient",
        style: int,
        name: str,
        method: "Optional[Method[Any, Any, Any]]",
        payload: bytes,
        timeout: Optional[float],
        retry: Retry,
    ) -> None:
        self._client = client
        self._style = style
        self._name = name
        self._method = method
        self._payload = payload
        self._timeout = timeout
        self._retry = retry
        self._until: Optional[float] = None
        self._begun: Optional["tuple[AsyncLink, Call, Waiters]"] = None
        self._closed = False

    async def aclose(self) -> None:
        """Cancels the call, if it has not ended."""
        self._closed = True
        if self._begun is None or self._client._is_parents:
            return
        link, call, _ = self._begun
        if not link.loop.is_closed():
            self._client._running_loop()
            link.cancel(call, Cancelled())

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        begun, loop = self._begun, self._client._loop
        if begun is None or begun[1].done or loop is None or loop.is_closed() or self._client._is_parents:
            return
        # Not at once: a garbage collector runs in the middle of anything, on any thread.
        loop.call_soon_threadsafe(_drop, begun[0], begun[1])

    async def _begin(self) -> "tuple[AsyncLink, Call, Waiters]":
        """Sends the request, if that was not done. With a retry, waits for the first chunk as well."""
        if self._begun is not None:
            return self._begun
        if self._closed:
            raise Cancelled
        client = self._client
        self._until = client._moment(client._config.seconds(self._timeout))
        while True:
            try:
                self._begun = await client._begin(self._name, self._method, self._style, self._payload, self._until)
                if self._retry is not Retry.NEVER:
                    _, call, _ = self._begun
                    await self._wait(lambda: bool(call.chunks) or call.done)
                    if call.error is not None and not call.chunks:
                        raise call.error
                return self._begun
            except LOST as error:
                if not self._retry.allows(error) or client._is_over(self._until):
                    raise

    async def _wait(self, ready: Callable[[], bool], until: Optional[float] = None) -> None:
        """Waits for something of a call that was begun; gives the call up if that is interrupted."""
        assert self._begun is not None
        link, call, waiters = self._begun
        try:
            if not await waiters.wait(ready, self._until if until is None else until):
                raise DeadlineExceeded
        except BaseException as error:
            link.cancel(call, interrupted(error))
            raise

    async def _receive(self) -> Optional[bytes]:
        """The next chunk. None: the stream has ended well."""
        self._client._running_loop()
        link, call, _ = await self._begin()
        await self._wait(lambda: bool(call.chunks) or call.done)
        if call.chunks:
            chunk = link.core.take_chunk(call)
            link.flush()
            return chunk
        call.outcome()
        return None

    async def _send(self, payload: Payload) -> bool:
        self._client._running_loop()
        chunk = as_bytes(payload)
        link, call, _ = await self._begin()
        limit = link.core.welcome.max_record
        if len(chunk) > limit:
            raise MessageTooLarge(len(chunk), limit)
        await self._wait(lambda: link.core.may_send(call))
        sent = link.core.send_chunk(call, chunk)
        link.flush()
        return sent

    async def _end(self) -> None:
        self._client._running_loop()
        link, call, _ = await self._begin()
        link.core.end_upload(call)
        link.flush()


class AsyncStream(_Streaming):
    """The chunks of a stream from the server."""

    def __aiter__(self) -> "AsyncStream":
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._receive()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def __aenter__(self) -> "AsyncStream":
        await self._begin()
        return self

    async def text(self) -> AsyncIterator[str]:
        """The stream as text. A character that is cut between two chunks comes whole."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        async for chunk in self:
            yield decoder.decode(chunk)
        rest = decoder.decode(b"", True)
        if rest:
            yield rest


class AsyncUpload(_Streaming):
    """A stream to the server, which answers it with one response."""

    async def __aenter__(self) -> "AsyncUpload":
        return self

    async def send(self, chunk: Payload) -> bool:
        """Sends a chunk, once there is credit for it. False if the server has answered already, which `finish`
        tells."""
        return await self._send(chunk)

    async def finish(self, timeout: Optional[float] = None) -> bytes:
        """Ends the stream and returns the response. `timeout` is for waiting for it."""
        await self._end()
        _, call, _ = await self._begin()
        loop = self._client._running_loop()
        await self._wait(lambda: call.done, None if timeout is None else loop.time() + timeout)
        return call.outcome()


class AsyncDuplex(AsyncStream):
    """Streams both ways. One task may send while another one iterates."""

    async def __aenter__(self) -> "AsyncDuplex":
        return self

    async def send(self, chunk: Payload) -> bool:
        """Sends a chunk, once there is credit for it. False if the call has ended, of which the iteration tells how."""
        return await self._send(chunk)

    async def end(self) -> None:
        """Ends the stream to the server. Its own stream goes on."""
        await self._end()


def _drop(link: AsyncLink, call: Call) -> None:
    link.cancel(call, Cancelled())
