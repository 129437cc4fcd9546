"""Streams of values, of both clients: what callers hold of a call to a typed service."""

from __future__ import annotations

from types import TracebackType
from typing import Any, AsyncIterator, Generic, Iterator, Optional, Type, TypeVar, Union

from ._async_streams import AsyncDuplex, AsyncStream, AsyncUpload
from ._errors import ServiceError
from ._method import Method
from ._streams import Duplex, Stream, Upload

T = TypeVar("T")
Sent = TypeVar("Sent")


class Items(Generic[T]):
    """Items from the server. Leaving its `with` block, closing it or dropping it cancels what is left."""

    def __init__(self, method: "Method[Any, T, Any]", stream: Stream) -> None:
        self._method = method
        #: The stream of bytes below.
        self.stream = stream

    def __iter__(self) -> "Items[T]":
        return self

    def __next__(self) -> T:
        """The next item. An error of the application's is raised as a ServiceError and cancels the call, as a loop ends
        with it."""
        outcome = self._outcome()
        if isinstance(outcome, ServiceError):
            self.close()
            raise outcome
        return outcome

    def results(self) -> "Iterator[Union[T, ServiceError]]":
        """The same stream, in which an error of the application's is an item: a ServiceError. It goes on behind it."""
        return _Results(self)

    def _outcome(self) -> Union[T, ServiceError]:
        chunk = next(self.stream)
        try:
            return self._method.outcome(chunk)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Cancels the call, if it has not ended."""
        self.stream.close()

    def __enter__(self) -> "Items[T]":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()


class _Results(Iterator[Union[T, ServiceError]]):
    def __init__(self, items: Items[T]) -> None:
        self._items = items

    def __next__(self) -> Union[T, ServiceError]:
        return self._items._outcome()


class ItemUpload(Generic[Sent, T]):
    """Items to the server, which answers once. Leaving its `with` block, closing it or dropping it cancels what is left."""

    def __init__(self, method: "Method[Any, T, Sent]", stream: Upload) -> None:
        self._method = method
        self.stream = stream

    def send(self, item: Sent) -> bool:
        """Sends an item, once there is credit for it. False if the server has answered already, which `finish` tells."""
        return self.stream.send(self._method.item(item))

    def finish(self, timeout: Optional[float] = None) -> T:
        """Ends the stream and returns the answer. `timeout` is for waiting for it."""
        return self._method.answer(self.stream.finish(timeout))

    def close(self) -> None:
        """Cancels the call, if it has not ended."""
        self.stream.close()

    def __enter__(self) -> "ItemUpload[Sent, T]":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()


class ItemDuplex(Items[T], Generic[Sent, T]):
    """Items both ways. One thread may send while another one iterates."""

    stream: Duplex

    def __init__(self, method: "Method[Any, T, Sent]", stream: Duplex) -> None:
        super().__init__(method, stream)

    def __enter__(self) -> "ItemDuplex[Sent, T]":
        return self

    def send(self, item: Sent) -> bool:
        """Sends an item, once there is credit for it. False if the call has ended, of which the iteration tells how."""
        return self.stream.send(self._method.item(item))

    def end(self) -> None:
        """Ends the stream to the server. Its own stream goes on."""
        self.stream.end()


class AsyncItems(Generic[T]):
    """Items from the server, for asyncio. Leaving its `async with` block, closing it or dropping it cancels what is left."""

    def __init__(self, method: "Method[Any, T, Any]", stream: AsyncStream) -> None:
        self._method = method
        #: The stream of bytes below.
        self.stream = stream

    def __aiter__(self) -> "AsyncItems[T]":
        return self

    async def __anext__(self) -> T:
        """As of Items."""
        outcome = await self._outcome()
        if isinstance(outcome, ServiceError):
            await self.aclose()
            raise outcome
        return outcome

    def results(self) -> "AsyncIterator[Union[T, ServiceError]]":
        """As of Items."""
        return _AsyncResults(self)

    async def _outcome(self) -> Union[T, ServiceError]:
        chunk = await self.stream.__anext__()
        try:
            return self._method.outcome(chunk)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Cancels the call, if it has not ended."""
        await self.stream.aclose()

    async def __aenter__(self) -> "AsyncItems[T]":
        await self.stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        await self.aclose()


class _AsyncResults(AsyncIterator[Union[T, ServiceError]]):
    """No generator: one that is left in the middle is closed by nobody, or too late."""

    def __init__(self, items: AsyncItems[T]) -> None:
        self._items = items

    async def __anext__(self) -> Union[T, ServiceError]:
        return await self._items._outcome()


class AsyncItemUpload(Generic[Sent, T]):
    """Items to the server, which answers once, for asyncio."""

    def __init__(self, method: "Method[Any, T, Sent]", stream: AsyncUpload) -> None:
        self._method = method
        self.stream = stream

    async def send(self, item: Sent) -> bool:
        """As of ItemUpload."""
        return await self.stream.send(self._method.item(item))

    async def finish(self, timeout: Optional[float] = None) -> T:
        """As of ItemUpload."""
        return self._method.answer(await self.stream.finish(timeout))

    async def aclose(self) -> None:
        """Cancels the call, if it has not ended."""
        await self.stream.aclose()

    async def __aenter__(self) -> "AsyncItemUpload[Sent, T]":
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        await self.aclose()


class AsyncItemDuplex(AsyncItems[T], Generic[Sent, T]):
    """Items both ways, for asyncio. One task may send while another one iterates."""

    stream: AsyncDuplex

    def __init__(self, method: "Method[Any, T, Sent]", stream: AsyncDuplex) -> None:
        super().__init__(method, stream)

    async def __aenter__(self) -> "AsyncItemDuplex[Sent, T]":
        return self

    async def send(self, item: Sent) -> bool:
        """As of ItemDuplex."""
        return await self.stream.send(self._method.item(item))

    async def end(self) -> None:
        """As of ItemDuplex."""
        await self.stream.end()
