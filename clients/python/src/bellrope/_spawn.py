"""Which program is the server, and what it is given: for `connect_or_spawn`. docs/spawning.md has the rules."""

from __future__ import annotations

import os
from typing import Callable, Mapping, NamedTuple, Optional, Sequence, Union

Path = Union[str, "os.PathLike[str]"]


class Started(NamedTuple):
    """A server that was started just now. It may be starting still."""

    pid: int
    #: Where its standard output and error go, if anywhere.
    log: Optional[str]


class Spawn:
    """How to start the server that a client does not find: see `Client.connect_or_spawn`.

    The server outlives whoever started it, and belongs to all clients alike, so it has nothing of its starter: a session of
    its own, `/` as current directory, no descriptors, and of the environment only `HOME`, `USER`, `LOGNAME`, `PATH`, `LANG`,
    `LANGUAGE`, `LC_*`, `TZ`, `XDG_*`, the proxies, `SSL_CERT_FILE`, `SSL_CERT_DIR` and what `inherit` and `env` name. Give
    it absolute paths, and let it end when nobody needs it.

    >>> spawn = Spawn("bellrope", ["serve", "--exit-when-idle", "10m"], env={"RUST_LOG": "warn"})

    `program` is a path, or a name that is looked up in `PATH`. `log` is where its output goes; without it
    `$XDG_STATE_HOME/bellrope/PROGRAM.log` or the same below `~/.local/state`, or beside the socket. It is begun anew, and the
    one before it kept as `.1`, when it has a quarter of `log_bytes` at a start. `timeout` is how many seconds to wait until a
    server answers. `on_start` is called when a server was started, before it is waited for.
    """

    def __init__(
        self,
        program: Path,
        arguments: "Sequence[Path]" = (),
        *,
        inherit: Sequence[str] = (),
        env: Optional[Mapping[str, str]] = None,
        log: Optional[Path] = None,
        log_bytes: int = 16 * 1024 * 1024,
        timeout: float = 30.0,
        on_start: Optional[Callable[[Started], object]] = None,
    ) -> None:
        if isinstance(arguments, (str, bytes)):
            raise TypeError("arguments is a list of them, not one text")
        self.program = os.fspath(program)
        if not self.program:
            raise ValueError("program is a path, or a name in PATH")
        self.arguments = [os.fspath(argument) for argument in arguments]
        self.inherit = list(inherit)
        self.env = dict(env or {})
        self.log = None if log is None else os.fspath(log)
        self.log_bytes = log_bytes
        self.timeout = timeout
        self.on_start = on_start


def default_log_path(name: str) -> Optional[str]:
    """Where the log of a server of this name lies: `$XDG_STATE_HOME/bellrope/NAME.log`, or the same below
    `~/.local/state`. None: neither `XDG_STATE_HOME` nor `HOME` is set to an absolute path."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(os.environ.get("HOME", ""), ".local", "state")
    return os.path.join(state, "bellrope", f"{name}.log") if os.path.isabs(state) else None
