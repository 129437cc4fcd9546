"""How clients connect and call."""

from __future__ import annotations

import enum
import math
import os
import stat
import sys
from typing import Final, Optional, Union

from ._errors import LOST, CallError

Payload = Union[bytes, bytearray, memoryview]


class Retry(enum.Enum):
    """Which calls a client sends again by itself, within the call's time."""

    #: None.
    NEVER = "never"
    #: Those of which it is certain that they have not run.
    NOT_EXECUTED = "not_executed"
    #: Also those that may have run: for calls that do no harm when they run twice.
    IDEMPOTENT = "idempotent"

    def allows(self, error: CallError) -> bool:
        """Whether a call that ended so is sent again."""
        if not isinstance(error, LOST):
            return False
        return self is Retry.IDEMPOTENT or self is Retry.NOT_EXECUTED and error.retryable


class State(enum.Enum):
    """Whether a client has a server."""

    CONNECTED = "Connected"
    #: It went away and is looked for.
    RECONNECTING = "Reconnecting"
    #: The client was closed, and will have none any more.
    CLOSED = "Closed"


class Default(enum.Enum):
    """The value of an option that the caller left out."""

    TIMEOUT = "the client's call_timeout"


#: Seconds, None for ever, or that of the client.
Timeout = Union[float, None, Default]
#: The client's call_timeout.
DEFAULT_TIMEOUT: Final = Default.TIMEOUT


class Config:
    """What a client was made with. Times are in seconds."""

    __slots__ = (
        "path",
        "name",
        "priority",
        "connect_timeout",
        "reconnect_timeout",
        "call_timeout",
        "max_message_bytes",
    )

    def __init__(
        self,
        path: Union[str, "os.PathLike[str]", None],
        name: Optional[str],
        priority: bool,
        connect_timeout: float,
        reconnect_timeout: float,
        call_timeout: Optional[float],
        max_message_bytes: int,
    ) -> None:
        self.path = default_socket_path() if path is None else os.fspath(path)
        self.name = os.path.basename(sys.argv[0] if sys.argv else "") if name is None else name
        self.priority = priority
        self.connect_timeout = connect_timeout
        self.reconnect_timeout = reconnect_timeout
        self.call_timeout = call_timeout
        self.max_message_bytes = max_message_bytes

    def seconds(self, timeout: Timeout) -> Optional[float]:
        """The time that a call may take. None: any."""
        seconds = self.call_timeout if isinstance(timeout, Default) else timeout
        return None if seconds == math.inf else seconds


def default_socket_path() -> str:
    """Where the server's socket lies when nobody says so: `$XDG_RUNTIME_DIR/bellrope/bellrope.sock`, else the same
    below `/run/user/UID` if this user has that directory, else `/tmp/bellrope-UID/bellrope.sock`."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return os.path.join(runtime, "bellrope", "bellrope.sock")
    # Programs that are given other temporary directories must find the same server, so TMPDIR plays no part.
    uid = os.geteuid()
    of_user = f"/run/user/{uid}"
    try:
        found = os.lstat(of_user)
        own = stat.S_ISDIR(found.st_mode) and found.st_uid == uid
    except OSError:
        own = False
    return f"{of_user}/bellrope/bellrope.sock" if own else f"/tmp/bellrope-{uid}/bellrope.sock"


def as_bytes(payload: Payload) -> bytes:
    """The payload, which nobody else can change."""
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, (bytearray, memoryview)):
        return bytes(payload)
    raise TypeError(
        f"a payload is bytes, not {type(payload).__name__}; encode it first, as with json.dumps(...).encode()"
    )
