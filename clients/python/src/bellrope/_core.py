"""One connection without a socket, a clock or a thread: what is under way on it, and what each record does to that.

The client tells it what came in (`receive`, `lose`) and writes what is to go out (`pending`, `sent`). Nothing here
waits. Where something changes for a call, its `wake` is called.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Callable, Optional, Union

from . import _records as records
from ._credit import Inflow, Outflow
from ._errors import (
    CallError,
    ClosedByServer,
    MessageTooLarge,
    NotExecuted,
    Unknown,
    Violation,
    from_record,
    too_many_in_flight,
)
from ._handshake import Welcome
from ._table import CLIENT_STREAM, DUPLEX, SERVER_STREAM

# Bytes that wait for the socket: parts of large messages are made up to the lower mark, and above the higher one nobody
# may queue more.
_LOW = 128 * 1024
_HIGH = 256 * 1024
# A payload from this size on is not copied to stand behind its header.
_APART = 4096
_BUFFERS = 64
# As much of a text as travels.
_MAX_ERROR_TEXT = 1024


# Of calls that stream nothing to us: nothing is ever put in.
_NO_CHUNKS: deque[bytes] = deque(maxlen=0)


def _nobody() -> None:
    """What a call wakes for which nobody waits."""


class Call:
    """A call under way, or how it ended."""

    __slots__ = (
        "id",
        "streams",
        "uploads",
        "inflow",
        "outflow",
        "chunks",
        "done",
        "error",
        "response",
        "bell",
        "wake",
        "unlocked",
        "number",
        "end",
        "partial",
        "size",
    )

    def __init__(self, call: int, style: int, window: int) -> None:
        self.id = call
        self.streams = style in (SERVER_STREAM, DUPLEX)
        self.inflow = Inflow(window) if self.streams else None
        self.uploads = style in (CLIENT_STREAM, DUPLEX)
        self.outflow = Outflow(window) if self.uploads else None
        #: Chunks that came and were not taken.
        self.chunks: deque[bytes] = deque() if self.streams else _NO_CHUNKS
        self.done = False
        self.error: Optional[CallError] = None
        self.response = b""
        self.wake: Callable[[], object] = _nobody
        #: Where threads wait for it.
        self.bell: Optional[threading.Condition] = None
        #: Whether the thread that waited for it has not taken the lock again.
        self.unlocked = False
        #: Which of the connection's request records it is, and where that ends among all bytes sent. None: it is not
        # queued.
        self.number: Optional[int] = None
        self.end: Optional[int] = None
        #: What came of a response in parts, and the size of the whole.
        self.partial: Optional[bytearray] = None
        self.size = 0

    def outcome(self) -> bytes:
        """The response of a call that is done. Raises its error."""
        if self.error is not None:
            raise self.error
        return self.response


class _Large:
    """A request that travels in parts."""

    __slots__ = ("call", "message_type", "payload", "deadline_us", "at")

    def __init__(self, call: Call, message_type: int, payload: bytes, deadline_us: Optional[int]) -> None:
        self.call = call
        self.message_type = message_type
        self.payload = memoryview(payload)
        self.deadline_us = deadline_us
        self.at = 0


class Core:
    """The state of one connection."""

    def __init__(self, welcome: Welcome) -> None:
        self.welcome = welcome
        self._max_message = welcome.max_message
        self._max_record = welcome.max_record
        self._reader = records.Reader(welcome.capacity // 4, welcome.table.changes)
        self._calls: dict[int, Call] = {}
        self._last_id = 0
        self._out: deque[Union[bytes, memoryview]] = deque()
        self._waiting = 0
        self._queued = 0
        # Of those that wait: bytes that somebody is about to send.
        self._handed_over = 0
        self._requests = 0
        self._large: deque[_Large] = deque()
        self._receiving: Optional[Call] = None
        self._admitted: Optional[int] = None
        # Why the server closes the connection, if it said so.
        self._closed_because = ""
        #: Set while something is changed. Who finds it set was interrupted in the middle of that: the connection is to be
        # given up.
        self.torn = False

    # What the application does.

    def begin(self, message_type: int, style: int, payload: bytes, deadline_us: Optional[int]) -> Call:
        """Begins a call. Raises what forbids it; nothing was sent then."""
        if len(payload) > self._max_message:
            raise MessageTooLarge(len(payload), self._max_message)
        if len(self._calls) >= self.welcome.max_in_flight:
            raise too_many_in_flight(self.welcome.max_in_flight)
        self.torn = True
        self._last_id += 1
        call = Call(self._last_id, style, self.welcome.stream_window)
        self._calls[call.id] = call
        if len(payload) <= self._max_record:
            self._request(call, message_type, payload, deadline_us)
        else:
            self._large.append(_Large(call, message_type, payload, deadline_us))
        self.torn = False
        return call

    def may_send(self, call: Call) -> bool:
        """Whether a chunk may be sent, or why not shows at once."""
        return call.done or call.outflow is None or call.outflow.available and call.end is not None and self.has_room

    def send_chunk(self, call: Call, payload: bytes) -> bool:
        """Sends a chunk, once it may be sent. Answers False if the call or its upload has ended."""
        if call.done or call.outflow is None:
            return False
        if len(payload) > self.welcome.max_record:
            raise MessageTooLarge(len(payload), self.welcome.max_record)
        self.torn = True
        self._queue(records.CHUNK, 0, call.id, call.outflow.number, payload)
        call.outflow.spend(len(payload))
        self.torn = False
        return True

    def end_upload(self, call: Call) -> None:
        """Ends the stream to the server. The call goes on."""
        if not call.done and call.outflow is not None:
            self.torn = True
            self._queue(records.END, 0, call.id, call.outflow.number)
            call.outflow = None
            call.wake()  # somebody may wait to send more
            self.torn = False

    def take_chunk(self, call: Call) -> bytes:
        """Takes the next chunk that came, and returns credit for it in time."""
        self.torn = True
        chunk = call.chunks.popleft()
        if not call.done and call.inflow is not None:
            credit = call.inflow.consumed(len(chunk))
            if credit:
                self._queue(records.CREDIT, 0, call.id, credit)
        self.torn = False
        return chunk

    def cancel(self, call: Call, error: CallError) -> None:
        """Ends a call on this side with this error, and tells the server. Chunks that were not taken are dropped. One that
        has ended is left alone: without them the rest of it would look like the whole."""
        if call.done:
            return
        call.chunks.clear()
        self.torn = True
        if self._finish(call, error):
            self._queue(records.CANCEL, 0, call.id, None)
        self.torn = False

    def wake_uploads(self) -> None:
        """Has those look again that send chunks: there is room to queue more."""
        for call in list(self._calls.values()):
            if call.uploads:
                call.wake()

    @property
    def under_way(self) -> int:
        """Calls that have not ended."""
        return len(self._calls)

    @property
    def has_room(self) -> bool:
        """Whether more may be queued."""
        return self._waiting < _HIGH

    # What the socket takes and brings.

    @property
    def wants_write(self) -> bool:
        """Whether something is to be written."""
        return self._waiting > 0 or bool(self._large)

    def pending(self, hands_over: bool = False) -> list[Union[bytes, memoryview]]:
        """What is to be written next. What is handed over counts as sent until `sent` says how much was."""
        while self._large and self._waiting < _LOW:
            self._part(self._large[0])
        if len(self._out) == 1:
            buffers = [self._out[0]]
        elif len(self._out) <= _BUFFERS:
            buffers = list(self._out)
        else:
            buffers = [self._out[index] for index in range(_BUFFERS)]
        if hands_over:
            self._handed_over = sum(map(len, buffers))
        return buffers

    def sent(self, count: int) -> None:
        """Notes that the socket took so many bytes."""
        self._handed_over = 0
        self._waiting -= count
        if not self._waiting:
            self._out.clear()
            return
        while count:
            first = self._out[0]
            if len(first) > count:
                self._out[0] = memoryview(first)[count:]
                return
            count -= len(first)
            self._out.popleft()

    def doubt(self) -> None:
        """After an interrupt where nobody knows how much was sent: nothing is sent again, and all of it may have run. The
        connection is to be given up."""
        self._out.clear()
        self._large.clear()
        self._waiting = self._handed_over = 0

    def receive(self, data: bytes) -> None:
        """Takes what came. Raises Violation, after which the connection is to be given up."""
        for record in self._reader.feed(data):
            self._take(record)

    def lose(self, violation: Optional[Violation] = None) -> None:
        """Ends every call, as the connection is gone and all that came was taken."""
        flushed = self._queued - self._waiting + self._handed_over
        for call in list(self._calls.values()):
            error: CallError = violation or Unknown()
            if violation is None:
                unsent = call.end is None or call.end > flushed
                untaken = self._admitted is not None and (call.number or 0) > self._admitted
                certain = unsent or untaken
                if self._closed_because:
                    error = ClosedByServer(self._closed_because, not certain)
                elif certain:
                    error = NotExecuted()
            self._finish(call, error)

    def close(self, error: Callable[[], CallError]) -> None:
        """Ends every call with an error of this side."""
        for call in list(self._calls.values()):
            call.chunks.clear()
            self._finish(call, error())

    # How it is done.

    def _queue(
        self, kind: int, message_type: int, call: int, extension: Optional[int], payload: Union[bytes, memoryview] = b""
    ) -> None:
        length = len(payload)
        head = records.head(kind, message_type, call, extension, length)
        if length < _APART:
            self._out.append(head + payload if length else head)
        else:
            self._out.append(head)
            self._out.append(payload)
        size = len(head) + length
        self._waiting += size
        self._queued += size

    def _request(
        self, call: Call, message_type: int, payload: Union[bytes, memoryview], deadline_us: Optional[int]
    ) -> None:
        self._queue(records.REQUEST, message_type, call.id, deadline_us, payload)
        self._requests += 1
        call.number = self._requests
        call.end = self._queued

    def _part(self, large: _Large) -> None:
        rest = large.payload[large.at :]
        part = self.welcome.part
        if len(rest) <= part:
            self._large.popleft()
            self._request(large.call, large.message_type, rest, large.deadline_us)
            large.call.wake()  # it may upload now
            return
        self._queue(records.FRAGMENT, 0, large.call.id, len(large.payload), rest[:part])
        large.at += part

    def _finish(self, call: Call, error: Optional[CallError]) -> bool:
        """Ends a call. Answers whether any of its request was sent or queued. If that is interrupted, it is done again."""
        if not call.done:
            call.error = error
            call.done = True
        call.partial = None
        call.inflow = call.outflow = None
        if self._receiving is call:
            self._receiving = None
        large = None
        if self._large:
            large = next((large for large in self._large if large.call is call), None)
            if large is not None:
                self._large.remove(large)
        call.wake()
        self._calls.pop(call.id, None)
        return large is None or large.at > 0

    def _take(self, record: records.Record) -> None:
        kind, _, number, _, payload = record
        if kind == records.ADMITTED or self._admitted is not None:
            return self._note_admitted(record)
        call = self._calls.get(number)
        if call is None:
            return self._take_stray(record)
        if kind == records.RESPONSE:
            self._respond(call, payload)
        elif kind == records.CHUNK:
            inflow = _needs(call.inflow, kind)
            inflow.take(record.extension, len(record.payload))
            call.chunks.append(record.payload)
            call.wake()
        elif kind == records.END:
            _needs(call.inflow, kind).check(record.extension)
            self._finish(call, None)
        elif kind == records.ERROR:
            self._fail(call, record)
        elif kind == records.CREDIT:
            self._credit(call, record.extension)
        elif kind == records.FRAGMENT:
            self._fragment(call, record)
        else:
            raise _bad_form(kind)

    def _take_stray(self, record: records.Record) -> None:
        """What belongs to no call has crossed with its end, but for what is said of the connection."""
        if record.kind == records.TYPES:
            if record.call or record.message_type:
                raise _bad_form(record.kind)
            self.welcome.table.change(record.payload, record.extension)
        elif record.kind == records.ERROR and record.call == 0:
            self._closed_because = record.payload[:_MAX_ERROR_TEXT].decode("utf-8", "replace")

    def _note_admitted(self, record: records.Record) -> None:
        over = record.kind != records.ADMITTED or self._admitted is not None
        if over or record.call or record.message_type or record.extension > self._requests:
            raise _bad_form(record.kind)
        self._admitted = record.extension

    def _respond(self, call: Call, payload: bytes) -> None:
        if call.streams:
            raise _bad_form(records.RESPONSE)
        if call.partial is not None:
            if len(call.partial) + len(payload) != call.size:
                raise _bad_size(call)
            payload = bytes(call.partial + payload)
        call.response = payload
        if self._large:
            self._answered(call, None)
        else:
            self._finish(call, None)

    def _fail(self, call: Call, record: records.Record) -> None:
        error = from_record(record.message_type, record.extension, record.payload, self.welcome.max_message)
        self._answered(call, error)

    def _answered(self, call: Call, error: Optional[CallError]) -> None:
        # Of a large request that was answered in the middle, mostly refused, no more is sent, and the server is told
        # so.
        in_parts = any(large.call is call and large.at > 0 for large in self._large)
        self._finish(call, error)
        if in_parts:
            self._queue(records.CANCEL, 0, call.id, None)

    def _credit(self, call: Call, amount: int) -> None:
        if call.outflow is not None:
            call.outflow.refill(amount)
            call.wake()
        elif not call.uploads:
            raise _bad_form(records.CREDIT)

    def _fragment(self, call: Call, record: records.Record) -> None:
        if call.streams:
            raise _bad_form(record.kind)
        if self._receiving is None:
            self._receiving, call.size, call.partial = call, record.extension, bytearray()
        elif self._receiving is not call:
            raise Violation("interleaved", f"a part of message {call.id} came before another message was whole")
        assert call.partial is not None
        filled = len(call.partial) + len(record.payload)
        if record.extension != call.size or call.size > self.welcome.max_message or filled >= call.size:
            raise _bad_size(call)
        call.partial += record.payload


def _needs(inflow: Optional[Inflow], kind: int) -> Inflow:
    if inflow is None:
        raise _bad_form(kind)
    return inflow


def _bad_form(kind: int) -> Violation:
    return Violation("bad_form", f"record kind {kind} has the wrong form")


def _bad_size(call: Call) -> Violation:
    return Violation("bad_size", f"the parts of message {call.id} do not add up to the {call.size} bytes announced")
