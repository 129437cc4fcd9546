"""A real server: the example `styles` of the crate `bellrope`, with message types of every style, named by BELLROPE_STYLES,
or the example `typed`, with typed services, named by BELLROPE_TYPED."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Callable, Dict, Optional, Sequence, Type, Union

import bellrope

PROGRAM = os.environ.get("BELLROPE_STYLES", "")
TYPED = os.environ.get("BELLROPE_TYPED", "")
PATIENCE = 20.0


class Server:
    """The process. It ends with this one, as its standard input does."""

    def __init__(
        self, folder: Optional[str] = None, program: str = PROGRAM, arguments: Sequence[str] = ()
    ) -> None:
        self._program = program
        self._arguments = arguments
        self._own = folder is None
        self.folder = tempfile.mkdtemp(prefix="bellrope-styles-") if folder is None else folder
        self.path = os.path.join(self.folder, "private", "s")
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        """Starts it, and waits until it listens."""
        # Of what it says elsewhere, such as that a handler panicked, some is meant to happen.
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        command = [self._program, self.path, *self._arguments]
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing)
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        assert ready and process.stdout.readline() == b"ready\n", "the server did not come up"
        return process

    def kill(self) -> None:
        """Kills it, wherever it is."""
        self.process.send_signal(signal.SIGKILL)
        self._reap()

    def leave(self) -> None:
        """Has it end in good order."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._reap()

    def again(self) -> None:
        """Starts it anew, after it has ended."""
        self.process = self.start()

    def _reap(self) -> None:
        self.process.wait(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)


def counts(client: Union[bellrope.Client, bytes]) -> Dict[str, int]:
    """What the server says of its handlers."""
    import json

    answer = client if isinstance(client, bytes) else client.call("calls")
    return dict(json.loads(answer))


def wait_for(what: Callable[[], bool]) -> None:
    """Waits until something holds."""
    until = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > until:
            raise AssertionError("it did not come in time")
        time.sleep(0.001)
