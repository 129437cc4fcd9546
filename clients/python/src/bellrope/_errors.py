"""How calls end, if not with a response. The names are those of docs/wire.md."""

from __future__ import annotations

import json
from typing import Any, Optional, Sequence

_CODES = {
    1: "handler_error",
    2: "handler_panic",
    3: "unknown_message_type",
    4: "message_too_large",
    5: "deadline_exceeded",
    6: "cancelled",
    7: "rejected",
    8: "invalid_request",
    9: "exhausted",
    10: "upstream_error",
    11: "not_executed",
    12: "unknown",
}
_REASONS = {1: "busy", 2: "breaker", 3: "draining"}


class CallError(Exception):
    """A call that ended without its response. Every call ends exactly once."""

    #: Whether the same call may be sent again without the risk that it runs twice.
    retryable: bool = False
    #: Who can fix it: "caller", "handler", "server" or "system".
    blame: str = "server"

    @property
    def kind(self) -> str:
        """The name of the outcome, the same in every language."""
        return type(self).__name__


class Handler(CallError):
    """The handler answered with an error of its own."""

    blame = "handler"

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"handler_error: {text}")
        self.code = code
        self.text = text


class InvalidRequest(CallError):
    """The handler refused the contents of the request."""

    blame = "caller"

    def __init__(self, text: str) -> None:
        super().__init__(text if text.startswith("invalid_request: ") else f"invalid_request: {text}")
        self.text = text


class HandlerPanic(CallError):
    """The handler panicked. Connection and server go on."""

    blame = "handler"

    def __init__(self, text: str) -> None:
        super().__init__(f"handler_panic: {text}")
        self.text = text


class UnknownMessageType(CallError):
    """The server offers no such message type; nothing was sent."""

    blame = "caller"

    def __init__(self, name: str, nearest: Sequence[str]) -> None:
        known = f"nearest known: {', '.join(nearest)}" if nearest else "it offers none"
        super().__init__(f'the server knows no message type "{name}"; {known}')
        self.name = name
        self.nearest = list(nearest)


class WrongStyle(CallError):
    """The message type is called in another way; nothing was sent."""

    blame = "caller"

    def __init__(self, name: str, method: str) -> None:
        super().__init__(f'the message type "{name}" is called with {method}()')
        self.name = name
        self.method = method


class UnusableOption(CallError):
    """An option makes no sense for this form of call; nothing was sent."""

    blame = "caller"


class MessageTooLarge(CallError):
    """The message is larger than a message may be. If it is the request, nothing has run; if it is the reply, the
    handler has."""

    blame = "caller"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the message of {size} bytes exceeds the limit of {limit} bytes")
        self.size = size
        self.limit = limit


class DeadlineExceeded(CallError):
    """The deadline passed. The call was cancelled at the server, but may have run."""

    def __init__(self) -> None:
        super().__init__("the deadline passed before the answer came")


class Cancelled(CallError):
    """The caller cancelled it. It may have run in part."""

    blame = "caller"

    def __init__(self) -> None:
        super().__init__("the call was cancelled")


class Rejected(CallError):
    """It was refused before its handler ran. `retry_after` is in seconds, None if it is not known."""

    retryable = True

    def __init__(self, reason: str, retry_after: Optional[float], text: str) -> None:
        super().__init__(f"rejected ({reason}): {text}")
        self.reason = reason
        self.retry_after = retry_after
        self.text = text


class Exhausted(CallError):
    """The handler has run, but the server's memory had no room for its reply."""

    def __init__(self, text: str) -> None:
        super().__init__(f"exhausted: {text}")
        self.text = text


class NotExecuted(CallError):
    """The server is gone and has not run the call: it is safe to send it again."""

    retryable = True

    def __init__(self) -> None:
        super().__init__("the server went away before it took the call; it is safe to send it again")


class Unknown(CallError):
    """The server is gone and may have run the call, once."""

    def __init__(self) -> None:
        super().__init__("the server went away while the call was under way; it may have run")


class ClosedByServer(CallError):
    """The server has closed the connection on account of this client, and has said why. Other calls get a new connection.

    `reason` is the server's own words: which limit or rule, its value, and what to do. `may_have_run` says whether the call
    may have run, once; if not, it is safe to send it again.
    """

    blame = "caller"

    def __init__(self, reason: str, may_have_run: bool) -> None:
        what = "may have run" if may_have_run else "has not run"
        super().__init__(f"the server closed the connection: {reason}; the call {what}")
        self.reason = reason
        self.may_have_run = may_have_run
        self.retryable = not may_have_run


#: How calls end whose connection is lost.
LOST = (NotExecuted, Unknown, ClosedByServer)


class Violation(CallError):
    """The server broke the protocol, and the connection was closed. `name` is that of the rule."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"the server broke the protocol: {text}")
        self.name = name


class Connect(CallError):
    """There is no connection and none could be made; nothing was sent.

    `reason` is "NoServer", "PathTooLong", "ForeignServer", "Handshake" or "Io". Where a server refused, `status` is its
    reason: "full", "draining", "paced", ...
    """

    retryable = True

    def __init__(self, reason: str, text: str, status: Optional[str] = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.status = status


class SpawnError(Connect):
    """There is no server, though one might have been started.

    `reason` is "OtherVersion", "Start", "Ended", "TimedOut", "Directory", "Log", "Io" or "Forbidden". Of a program that was
    started: `exit_code` (a signal's number below 0), the `last_line` that it wrote, and where its `log` is.
    """

    blame = "system"

    def __init__(
        self,
        reason: str,
        text: str,
        program: Optional[str] = None,
        exit_code: Optional[int] = None,
        last_line: Optional[str] = None,
        log: Optional[str] = None,
    ) -> None:
        super().__init__(reason, text)
        self.program = program
        self.exit_code = exit_code
        self.last_line = last_line
        self.log = log


class Closed(CallError):
    """The client was closed on this side, or belongs to the process that this one was forked from."""

    blame = "caller"

    def __init__(self, text: str = "the client was closed") -> None:
        super().__init__(text)


class Unwritable(CallError):
    """A value cannot be written as what travels, of which `__cause__` is the reason; nothing was sent."""

    blame = "caller"

    def __init__(self, method: str, what: str, cause: Exception) -> None:
        super().__init__(f"{method}: {what} cannot be written: {cause}")
        self.method = method


class Unreadable(CallError):
    """What a method has answered with cannot be read, of which `__cause__` is the reason. It has run."""

    def __init__(self, method: str, what: str, cause: Exception) -> None:
        super().__init__(f"{method}: {what} cannot be read: {cause}")
        self.method = method


class Incompatible(CallError):
    """The server's method is another one than this client was made for; nothing was sent."""

    blame = "caller"

    def __init__(self, method: str, differences: str) -> None:
        super().__init__(f"{method} is another method at the server: {differences}")
        self.method = method
        self.differences = differences


class ServiceError(Exception):
    """The method has answered with its own error, which is `error`: a value of the application's. The call has succeeded,
    so that this is no CallError."""

    def __init__(self, method: str, error: Any) -> None:
        super().__init__(f"{method}: {_shown(error)}")
        self.method = method
        self.error = error


class Other(CallError):
    """Anything else that the server answered with."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{_CODES.get(code, f'error code {code}')}: {text}")
        self.code = code
        self.text = text


def _shown(error: Any) -> str:
    if isinstance(error, (str, Exception)):
        text = str(error)
    else:
        try:
            text = json.dumps(error, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            text = repr(error)
    return text if len(text) <= 300 else f"{text[:300]}..."


def from_record(code: int, detail: int, payload: bytes, limit: int) -> CallError:
    """The outcome that an error record means. `limit` is that on the size of messages."""
    text = payload.decode("utf-8", "replace")
    if code in (1, 10):
        return Handler(detail if detail < 1 << 32 else 0, text)
    if code == 2:
        return HandlerPanic(text)
    if code == 4:
        return MessageTooLarge(detail, limit)
    if code == 5:
        return DeadlineExceeded()
    if code == 6:
        return Cancelled()
    if code == 7:
        after = detail >> 8
        return Rejected(_REASONS.get(detail & 0xFF, "other"), after / 1000 if after else None, text)
    if code == 8:
        return InvalidRequest(text)
    if code == 9:
        return Exhausted(text)
    if code == 11:
        return NotExecuted()
    if code == 12:
        return Unknown()
    return Other(code, text)


def too_many_in_flight(limit: int) -> Rejected:
    """Refused on this side."""
    return Rejected("busy", None, f"{limit} calls are under way on this connection, the limit max_in_flight")


def interrupted(error: BaseException) -> CallError:
    """How a call ends whose caller was interrupted by this."""
    return error if isinstance(error, CallError) else Cancelled()
