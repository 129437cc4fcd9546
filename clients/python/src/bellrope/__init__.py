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
from ._config import DEFAULT_TIMEOUT, Retry, State, Timeout, default_socket_path
from ._errors import (
    CallError,
    Cancelled,
    Closed,
    ClosedByServer,
    Connect,
    DeadlineExceeded,
    Exhausted,
    Handler,
    HandlerPanic,
    Incompatible,
    InvalidRequest,
    MessageTooLarge,
    NotExecuted,
    Other,
    Rejected,
    ServiceError,
    SpawnError,
    Unknown,
    UnknownMessageType,
    Unreadable,
    UnusableOption,
    Unwritable,
    Violation,
    WrongStyle,
)
from ._items import AsyncItemDuplex, AsyncItems, AsyncItemUpload, ItemDuplex, Items, ItemUpload
from ._method import Codec, Json, Method
from ._spawn import Spawn, Started, default_log_path
from ._streams import Duplex, Stream, Upload
from ._table import MessageType

__all__ = [
    "DEFAULT_TIMEOUT",
    "AsyncClient",
    "AsyncDuplex",
    "AsyncItemDuplex",
    "AsyncItemUpload",
    "AsyncItems",
    "AsyncStream",
    "AsyncUpload",
    "CallError",
    "CancelToken",
    "Cancelled",
    "Client",
    "Closed",
    "ClosedByServer",
    "Codec",
    "Connect",
    "DeadlineExceeded",
    "Duplex",
    "Exhausted",
    "Handler",
    "HandlerPanic",
    "Incompatible",
    "InvalidRequest",
    "ItemDuplex",
    "ItemUpload",
    "Items",
    "Json",
    "MessageTooLarge",
    "MessageType",
    "Method",
    "NotExecuted",
    "Other",
    "Rejected",
    "Retry",
    "ServiceError",
    "Spawn",
    "SpawnError",
    "Started",
    "State",
    "Stream",
    "Timeout",
    "Unknown",
    "UnknownMessageType",
    "Unreadable",
    "UnusableOption",
    "Unwritable",
    "Upload",
    "Violation",
    "WrongStyle",
    "default_log_path",
    "default_socket_path",
]
