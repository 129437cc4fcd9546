#!/usr/bin/env python3
"""What a call costs beside a plain socket, in the same run: python bench.py [--json] COMMAND...

COMMAND starts a server with a unary `echo` at the socket that {} stands for: `target/release/bellrope serve --socket {}`. The
plain socket is a Unix socket of Python, to an echo of Python in a process of its own, with a length of four bytes ahead of each
message: of blocking sockets beside the blocking client, one for each thread, and of asyncio's protocols beside the one for
asyncio. Rounds alternate. It prints, and judges nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from functools import partial
from typing import Any, Awaitable, Callable, Deque, Dict, List, Sequence, Tuple

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "src"))

import bellrope  # noqa: E402

BYTES = 64
ROUNDS = 7
ROUND_SECONDS = 0.5
DEPTH = 64
BURST = 22
PATIENCE = 30.0
_LENGTH = struct.Struct("<I")


# The plain sockets.


def serve_blocking(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(2 * DEPTH)
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=echo, args=(peer,), daemon=True).start()


def echo(peer: socket.socket) -> None:
    plain = Plain(peer)
    while True:
        peer.sendall(plain.frame(plain.receive()))


class Plain:
    """A blocking socket with a length ahead of each message."""

    def __init__(self, peer: socket.socket) -> None:
        self._socket = peer
        self._rest = b""

    @staticmethod
    def frame(message: bytes) -> bytes:
        return _LENGTH.pack(len(message)) + message

    def receive(self) -> bytes:
        data = self._rest
        while len(data) < 4 or len(data) < 4 + _LENGTH.unpack_from(data)[0]:
            more = self._socket.recv(65536)
            if not more:
                sys.exit(0)
            data += more
        end: int = 4 + _LENGTH.unpack_from(data)[0]
        self._rest = data[end:]
        return data[4:end]

    def call(self, message: bytes) -> bytes:
        self._socket.sendall(self.frame(message))
        return self.receive()


class Framed(asyncio.Protocol):
    """The same on an event loop."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        at = 0
        while len(data) - at >= 4:
            end = at + 4 + _LENGTH.unpack_from(data, at)[0]
            if len(data) < end:
                break
            self.message(data[at + 4 : end])
            at = end
        self._rest = data[at:]

    def message(self, message: bytes) -> None:
        raise NotImplementedError

    def send(self, message: bytes) -> None:
        self.transport.write(_LENGTH.pack(len(message)) + message)


class Echo(Framed):
    def message(self, message: bytes) -> None:
        self.send(message)

    def connection_lost(self, exc: Any) -> None:
        asyncio.get_running_loop().stop()


class Caller(Framed):
    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._waiting: Deque["asyncio.Future[bytes]"] = deque()

    def message(self, message: bytes) -> None:
        self._waiting.popleft().set_result(message)

    async def call(self, message: bytes) -> bytes:
        future: "asyncio.Future[bytes]" = self._loop.create_future()
        self._waiting.append(future)
        self.send(message)
        return await future


def serve_async(path: str) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(loop.create_unix_server(Echo, path))
    loop.run_forever()


# What waking costs by itself.


def waking() -> float:
    """Microseconds for each time that one of several threads is woken, where nothing else happens: each waits for a lock of its
    own, and as many are woken at once as answers come with one read. A client that many threads share cannot do better."""
    waiting: Deque[Any] = deque()
    counts = [0] * DEPTH
    began = time.perf_counter()

    def thread(number: int) -> None:
        while time.perf_counter() < began + ROUND_SECONDS:
            lock = threading.Lock()
            lock.acquire()
            waiting.append(lock)
            lock.acquire()
            counts[number] += 1

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(DEPTH)]
    for running in threads:
        running.start()
    while any(running.is_alive() for running in threads):
        if len(waiting) >= BURST or time.perf_counter() > began + ROUND_SECONDS:
            for _ in range(min(BURST, len(waiting))):
                waiting.popleft().release()
        else:
            time.sleep(0)
    return (time.perf_counter() - began) / sum(counts) * 1e6


# How it is measured.


def one_at_a_time(call: Callable[[bytes], bytes]) -> float:
    """Microseconds of each call, their median."""
    message = bytes(BYTES)
    times: List[float] = []
    until = time.perf_counter() + ROUND_SECONDS
    while True:
        began = time.perf_counter()
        if began > until:
            return statistics.median(times) * 1e6
        call(message)
        times.append(time.perf_counter() - began)


def many_threads(calls: Sequence[Callable[[bytes], bytes]]) -> float:
    """Microseconds for each call with one under way in each of several threads, their mean."""
    message, counts = bytes(BYTES), [0] * len(calls)
    began = time.perf_counter()

    def thread(number: int) -> None:
        while time.perf_counter() < began + ROUND_SECONDS:
            calls[number](message)
            counts[number] += 1

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(len(calls))]
    for running in threads:
        running.start()
    for running in threads:
        running.join()
    return (time.perf_counter() - began) / sum(counts) * 1e6


async def one_task(call: Callable[[bytes], Awaitable[bytes]]) -> float:
    message = bytes(BYTES)
    times: List[float] = []
    until = time.perf_counter() + ROUND_SECONDS
    while True:
        began = time.perf_counter()
        if began > until:
            return statistics.median(times) * 1e6
        await call(message)
        times.append(time.perf_counter() - began)


async def many_tasks(call: Callable[[bytes], Awaitable[bytes]]) -> float:
    """Microseconds for each call with several under way, their mean."""
    message, calls = bytes(BYTES), 0
    began = time.perf_counter()

    async def task() -> None:
        nonlocal calls
        while time.perf_counter() < began + ROUND_SECONDS:
            await call(message)
            calls += 1

    await asyncio.gather(*(task() for _ in range(DEPTH)))
    return (time.perf_counter() - began) / calls * 1e6


def rounds(measures: Dict[str, Callable[[], float]]) -> Dict[str, float]:
    """Each in turn, again and again; of each its median."""
    results: Dict[str, List[float]] = {name: [] for name in measures}
    for number in range(ROUNDS + 1):
        for name, measure in measures.items():
            time_ = measure()
            if number:  # the first one warms up
                results[name].append(time_)
    return {name: statistics.median(of) for name, of in results.items()}


def retried(action: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return action()
        except (OSError, bellrope.Connect):
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def plain_socket(path: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        peer.connect(path)
    except OSError:
        peer.close()
        raise
    return peer


def measure(server: str, blocking: str, on_loop: str) -> List[Tuple[str, Dict[str, float]]]:
    figures: List[Tuple[str, Dict[str, float]]] = []
    peers = [retried(lambda: plain_socket(blocking)) for _ in range(DEPTH)]
    plain = [Plain(peer).call for peer in peers]
    with retried(lambda: bellrope.Client(server)) as client:
        call = partial(client.call, "echo")
        sides: Dict[str, Callable[[], float]] = {
            "bellrope": lambda: one_at_a_time(call),
            "plain socket": lambda: one_at_a_time(plain[0]),
        }
        figures.append(("blocking, one at a time, median", rounds(sides)))
        sides = {
            "bellrope": lambda: many_threads([call] * DEPTH),
            "plain socket": lambda: many_threads(plain),
        }
        figures.append((f"blocking, {DEPTH} threads, mean", rounds(sides)))
        alone = statistics.median(waking() for _ in range(ROUNDS))
        print(f"waking {DEPTH} threads, {BURST} at once, and nothing else: {alone:.1f} us each", file=sys.stderr)
    for peer in peers:
        peer.close()
    loop = asyncio.new_event_loop()

    async def connected() -> Tuple[bellrope.AsyncClient, Caller]:
        client = bellrope.AsyncClient(server)
        await client.connect()
        _, caller = await asyncio.get_running_loop().create_unix_connection(Caller, on_loop)
        return client, caller

    async_client, caller = retried(lambda: loop.run_until_complete(connected()))
    for what, many in (("asyncio, one at a time, median", one_task), (f"asyncio, {DEPTH} under way, mean", many_tasks)):
        sides = {
            "bellrope": lambda: loop.run_until_complete(many(partial(async_client.call, "echo"))),
            "plain socket": lambda: loop.run_until_complete(many(caller.call)),
        }
        figures.append((what, rounds(sides)))
    loop.run_until_complete(async_client.aclose())
    caller.transport.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    return figures


def main(arguments: List[str]) -> int:
    if len(arguments) == 2 and arguments[0] in ("--serve-blocking", "--serve-async"):
        (serve_blocking if arguments[0] == "--serve-blocking" else serve_async)(arguments[1])
        return 0
    as_json = arguments[:1] == ["--json"]
    command = arguments[as_json:]
    if not any("{}" in part for part in command):
        print("usage: bench.py [--json] COMMAND...    {} in it stands for the socket", file=sys.stderr)
        return 2
    folder = tempfile.mkdtemp(prefix="bellrope-bench-")
    server, blocking, on_loop = (os.path.join(folder, name) for name in ("private/s", "blocking", "async"))
    echo = [sys.executable, os.path.abspath(__file__)]
    starts = [
        [part.replace("{}", server) for part in command],
        [*echo, "--serve-blocking", blocking],
        [*echo, "--serve-async", on_loop],
    ]
    running = [
        subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for start in starts
    ]
    try:
        figures = measure(server, blocking, on_loop)
    finally:
        for process in running:
            process.kill()
            process.communicate()
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        rows = [{"bytes": BYTES, "what": what, **_figures(times)} for what, times in figures]
        print(json.dumps({"python": sys.version.split()[0], "rounds": ROUNDS, "rows": rows}))
        return 0
    for what, times in figures:
        row = _figures(times)
        print(f"{BYTES} bytes, {what}: bellrope {row['bellrope_us']} us, plain socket {row['plain_us']} us ({row['ratio']} x)")
    return 0


def _figures(times: Dict[str, float]) -> Dict[str, float]:
    client, plain = times["bellrope"], times["plain socket"]
    return {"bellrope_us": round(client, 1), "plain_us": round(plain, 1), "ratio": round(client / plain, 2)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
