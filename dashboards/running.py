"""A real server under a known load, for the tests of this folder."""

import json
import re
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

PATIENCE = 60  # seconds that any one thing may take


def programs(folder):
    """The paths of `bellrope` and of its example `load` in a folder of built programs."""
    return Path(folder) / "bellrope", Path(folder) / "examples" / "load"


def wait_for(what, holds):
    """Waits until something is true, and returns it."""
    deadline = time.monotonic() + PATIENCE
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {PATIENCE} s")
        time.sleep(0.1)
    return found


class Server:
    """`bellrope serve` on a private socket and a free port. Use it in a `with` statement."""

    def __init__(self, folder):
        program, self.load_program = programs(folder)
        self.home = tempfile.TemporaryDirectory()
        self.socket = Path(self.home.name) / "run" / "bell.sock"
        self.log = Path(self.home.name) / "log"
        with open(self.log, "wb") as log:
            arguments = [program, "serve", "--socket", self.socket, "--health", "127.0.0.1:0"]
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.url = wait_for("the server's address", self._address)

    def _address(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the server has ended: {self.log.read_text()}")
        found = re.search(r"health on (http://\S+)", self.log.read_text())
        return found and found.group(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.home.cleanup()

    def start_load(self, seconds, echoes=None):
        """Starts the example `load`."""
        arguments = [self.load_program, self.socket, str(seconds)] + ([str(echoes)] if echoes else [])
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)

    def load(self, seconds, echoes):
        """Runs it to its end, and returns what it has called."""
        with self.start_load(seconds, echoes) as load:
            said, _ = load.communicate(timeout=seconds + PATIENCE)
        if load.returncode != 0:
            raise RuntimeError("the load failed")
        return json.loads(said)

    def read(self, path):
        """What a path answers, as text."""
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return answer.read().decode()

    def metrics(self):
        """The samples of /metrics: name with labels as it stands there, to value."""
        lines = (line.rsplit(" ", 1) for line in self.read("/metrics").splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}
