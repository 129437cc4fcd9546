"""A client for Bellrope in pure Python: calls and streams over a Unix socket.

>>> import bellrope
>>> with bellrope.Client("/run/user/1000/bellrope/bellrope.sock") as client:  # doctest: +SKIP
...     client.call("echo", b"ding")
b'ding'
"""

from ._async import AsyncClient
from ._async_streams import AsyncDuplex, AsyncStream, AsyncUpload
from ._blocking import Client
from ._cancel import CancelToken
from ._config import Retry, State, default_socket_path
from ._errors import (
    CallError,
    Cancelled,
    Closed,
    Connect,
    DeadlineExceeded,
    Exhausted,
    Handler,
    HandlerPanic,
    InvalidRequest,
    MessageTooLarge,
    NotExecuted,
    Other,
    Rejected,
    Unknown,
    UnknownMessageType,
    UnusableOption,
    Violation,
    WrongStyle,
)
from ._handshake import MessageType
from ._streams import Duplex, Stream, Upload

__all__ = [
    "AsyncClient",
    "AsyncDuplex",
    "AsyncStream",
    "AsyncUpload",
    "CallError",
    "CancelToken",
    "Cancelled",
    "Client",
    "Closed",
    "Connect",
    "DeadlineExceeded",
    "Duplex",
    "Exhausted",
    "Handler",
    "HandlerPanic",
    "InvalidRequest",
    "MessageTooLarge",
    "MessageType",
    "NotExecuted",
    "Other",
    "Rejected",
    "Retry",
    "State",
    "Stream",
    "Unknown",
    "UnknownMessageType",
    "UnusableOption",
    "Upload",
    "Violation",
    "WrongStyle",
    "default_socket_path",
]
