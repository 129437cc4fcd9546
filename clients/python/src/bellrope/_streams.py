"""Streams of the blocking client."""

from __future__ import annotations

import codecs
import time
from types import TracebackType
from typing import TYPE_CHECKING, Iterator, Optional, Type

from ._cancel import Registration
from ._config import Payload, as_bytes
from ._core import Call
from ._errors import DeadlineExceeded, MessageTooLarge, interrupted
from ._link import Link

if TYPE_CHECKING:
    from ._shared import Shared


class _Streaming:
    """A call that is not over with one answer. Leaving its `with` block, closing it or dropping it cancels what is
    left."""

    def __init__(
        self, client: "Shared", link: Link, call: Call, registration: Registration, until: Optional[float]
    ) -> None:
        self._client = client
        self._link = link
        self._call = call
        self._registration = registration
        self._until = until

    def close(self) -> None:
        """Cancels the call, if it has not ended."""
        if not self._client._is_parents:
            self._registration.end()
            self._client._give_up(self._link, self._call)

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Not there if the call could not be begun.
        if hasattr(self, "_until") and not self._client._is_parents:
            self._registration.end()
            self._client._drop(self._link, self._call)

    def _give_up(self, error: BaseException) -> None:
        """Called with the lock held."""
        self._client._cancel(self._link, self._call, interrupted(error))
        self._registration.end()

    def _receive(self) -> Optional[bytes]:
        """The next chunk. None: the stream has ended well."""
        client, link, call = self._client, self._link, self._call
        client._check_caller()
        with client._lock:
            try:
                if not client._wait_for(link, call, lambda: bool(call.chunks) or call.done, self._until):
                    raise DeadlineExceeded
                if call.chunks:
                    chunk = link.core.take_chunk(call)
                    if not link.broken:
                        client._flush(link)
                    return chunk
            except BaseException as error:
                self._give_up(error)
                raise
        self._registration.end()
        call.outcome()
        return None

    def _send(self, payload: Payload) -> bool:
        client, link, call = self._client, self._link, self._call
        chunk = as_bytes(payload)
        if len(chunk) > link.core.welcome.max_record:
            raise MessageTooLarge(len(chunk), link.core.welcome.max_record)
        client._check_caller()
        with client._lock:
            try:
                if not client._wait_for(link, call, lambda: link.core.may_send(call), self._until):
                    raise DeadlineExceeded
                sent = link.core.send_chunk(call, chunk)
                if sent:
                    client._flush(link)
                return sent
            except BaseException as error:
                self._give_up(error)
                raise

    def _end(self) -> None:
        client, link = self._client, self._link
        client._check_caller()
        with client._lock:
            link.core.end_upload(self._call)
            if not link.broken:
                client._flush(link)
                client._rouse(link)


class Stream(_Streaming):
    """The chunks of a stream from the server."""

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> bytes:
        chunk = self._receive()
        if chunk is None:
            raise StopIteration
        return chunk

    def __enter__(self) -> "Stream":
        return self

    def text(self) -> Iterator[str]:
        """The stream as text. A character that is cut between two chunks comes whole."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for chunk in self:
            yield decoder.decode(chunk)
        rest = decoder.decode(b"", True)
        if rest:
            yield rest

    def _first(self) -> None:
        """Waits for the first chunk without taking it."""
        client, link, call = self._client, self._link, self._call
        with client._lock:
            try:
                if not client._wait_for(link, call, lambda: bool(call.chunks) or call.done, self._until):
                    raise DeadlineExceeded
            except BaseException as error:
                self._give_up(error)
                raise
        if not call.chunks:
            call.outcome()


class Upload(_Streaming):
    """A stream to the server, which answers it with one response."""

    def __enter__(self) -> "Upload":
        return self

    def send(self, chunk: Payload) -> bool:
        """Sends a chunk, once there is credit for it. False if the server has answered already, which `finish`
        tells."""
        return self._send(chunk)

    def finish(self, timeout: Optional[float] = None) -> bytes:
        """Ends the stream and returns the response. `timeout` is for waiting for it."""
        self._end()
        client, link, call = self._client, self._link, self._call
        until = self._until if timeout is None else time.monotonic() + timeout
        with client._lock:
            try:
                if not client._wait_for(link, call, lambda: call.done, until):
                    raise DeadlineExceeded
            except BaseException as error:
                self._give_up(error)
                raise
        self._registration.end()
        return call.outcome()


class Duplex(Stream):
    """Streams both ways. One thread may send while another one iterates."""

    def __enter__(self) -> "Duplex":
        return self

    def send(self, chunk: Payload) -> bool:
        """Sends a chunk, once there is credit for it. False if the call has ended, of which the iteration tells how."""
        return self._send(chunk)

    def end(self) -> None:
        """Ends the stream to the server. Its own stream goes on."""
        self._end()
