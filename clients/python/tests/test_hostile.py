"""Servers that mean harm: bytes of every kind, what goes on for ever, and what is announced and does not come."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import sys
import threading
import time
import unittest
from typing import Any, Callable, List

import bellrope
from bellrope import _handshake, _records
from bellrope._core import Core
from bellrope._table import Table

from .double import CHUNK, FRAGMENT, PATIENCE, RESPONSE, Double, Peer, answer, entry, record
from .test_double import echo, wait_for
from .test_vectors import VECTORS

ROUNDS = 3000


class Bytes(unittest.TestCase):
    """Whatever comes means something or is refused by a typed error."""

    def test_mangled_records_are_violations_or_mean_something(self) -> None:
        chance = random.Random(15)
        records = [bytes.fromhex(case["bytes"]) for case in json.loads((VECTORS / "records.json").read_text())["valid"]]
        for _ in range(ROUNDS):
            table = Table(False, 1)
            table.body(entry(1, 0, "unary"))
            core = Core(_handshake.Welcome(1, 16384, 16000, 16, 1000, 0, table))
            calls = [core.begin(style + 1, style, b"x", None) for style in (0, 1, 2, 3)]
            core.sent(sum(map(len, core.pending())))
            data = bytearray(b"".join(chance.choice(records) for _ in range(6)))
            for _ in range(chance.randrange(8)):
                # Mostly where headers, call ids and extensions are.
                data[chance.randrange(min(len(data), 64))] = chance.choice((0, 1, 2, 9, 12, 255, chance.randrange(256)))
            at = 0
            try:
                while at < len(data):
                    step = chance.randrange(1, 40)
                    core.receive(bytes(data[at : at + step]))
                    at += step
            except bellrope.Violation as violation:
                core.lose(violation)
            core.lose()
            self.assertTrue(all(call.done for call in calls))
            self.assertEqual(core.under_way, 0)

    def test_mangled_answers_are_refused_or_mean_something(self) -> None:
        chance = random.Random(16)
        table = json.loads((VECTORS / "table.json").read_text())
        answers = [bytes.fromhex(case["answer"]) for case in table["answers"] if "answer" in case]
        for _ in range(ROUNDS):
            data = bytearray(chance.choice(answers) + bytes(chance.randrange(40)))
            for _ in range(chance.randrange(1, 6)):
                data[chance.randrange(len(data))] = chance.choice((0, 1, 255, chance.randrange(256)))
            reader = _handshake.Answer(1 << 20)
            try:
                while data and reader.due:
                    part = bytes(data[: min(reader.due, 50)])
                    del data[: len(part)]
                    reader.feed(part)
            except bellrope.Connect:
                pass
            self.assertLessEqual(reader.due, 65536)

    def test_what_was_announced_takes_no_memory_before_it_comes_and_no_time_when_it_does(self) -> None:
        reader = _records.Reader(1 << 22)
        head = _records.head(RESPONSE, 0, 1, None, 1 << 22)
        began = time.process_time()
        self.assertEqual(list(reader.feed(head)), [])
        self.assertLess(len(reader._rest), 100)
        payload = bytes(range(256)) * (1 << 14)
        found: List[Any] = []
        # Put together anew with each piece, this would take minutes.
        for at in range(0, len(payload), 16):
            found += reader.feed(payload[at : at + 16])
        self.assertEqual([got.payload for got in found], [payload])
        self.assertLess(time.process_time() - began, 30)
        core = Core(_handshake.Welcome(1, 16384, 1 << 30, 16, 1000, 0, Table()))
        call = core.begin(1, 0, b"", None)
        core.receive(record(FRAGMENT, 0, call.id, 1 << 30, b"x"))
        assert call.partial is not None
        self.assertEqual(len(call.partial), 1)


# In a process of its own, as a thread of ours would send no faster than we read.
FLOOD = """
import socket, sys
peer, record = socket.socket(fileno=int(sys.argv[1])), bytes.fromhex(sys.argv[2])
print(flush=True)
try:
    while True:
        peer.sendall(record * 500)
except OSError:
    pass
"""


def flood(peer: Peer) -> None:
    """Hears nothing any more, and sends answers that nobody asked for, as fast as it can."""
    peer.welcome()
    stray = record(CHUNK, 0, 1 << 60, 0, bytes(1000)).hex()
    command = [sys.executable, "-c", FLOOD, str(peer.socket.fileno()), stray]
    peer.socket.setblocking(True)
    with subprocess.Popen(command, pass_fds=[peer.socket.fileno()], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        peer.record()
        peer.socket.shutdown(socket.SHUT_RD)
        process.wait()


class Endless(unittest.TestCase):
    """What goes on for ever holds up nobody."""

    def setUp(self) -> None:
        self.stop = threading.Event()
        self.addCleanup(self.stop.set)

    def ends(self, action: Callable[[], None]) -> None:
        thread = threading.Thread(target=action, daemon=True)
        thread.start()
        thread.join(2 * PATIENCE)
        self.assertFalse(thread.is_alive(), "it goes on for ever")

    def test_a_server_that_hears_nothing_and_sends_without_end_is_left(self) -> None:
        outcomes: List[str] = []

        def blocking() -> None:
            with bellrope.Client(double.path) as client:
                for _ in range(2):
                    try:
                        outcomes.append(client.call("unary", bytes(1 << 20)).decode())
                    except bellrope.CallError as error:
                        outcomes.append(error.kind)
                outcomes.append(client.call("unary", b"ding").decode())

        def tasks() -> None:
            async def main() -> None:
                async with bellrope.AsyncClient(double.path) as client:
                    try:
                        await client.call("unary", bytes(1 << 20))
                    except bellrope.CallError as error:
                        outcomes.append(error.kind)
                    outcomes.append((await client.call("unary", b"ding")).decode())

            asyncio.run(main())

        for action in (blocking, tasks):
            outcomes.clear()
            with Double(flood, echo) as double:
                self.ends(action)
                self.assertEqual(outcomes[-1], "ding")
                self.assertIn(outcomes[0], ("NotExecuted", "Unknown"))

    def test_strays_without_end_hold_up_no_deadline(self) -> None:
        def strays(peer: Peer) -> None:
            peer.welcome()
            try:
                while not self.stop.is_set():
                    peer.socket.sendall(record(RESPONSE, 0, 1 << 60, None, b"x") * 500)
            except OSError:
                pass

        with Double(strays) as double:

            def blocking() -> None:
                with bellrope.Client(double.path) as client:
                    with self.assertRaises(bellrope.DeadlineExceeded):
                        client.call("unary", timeout=0.2)
                    with self.assertRaises(bellrope.UnknownMessageType):
                        client.call("nothing", timeout=5)

            def tasks() -> None:
                async def main() -> None:
                    async with bellrope.AsyncClient(double.path) as client:
                        with self.assertRaises(bellrope.DeadlineExceeded):
                            await client.call("unary", timeout=0.2)
                        with self.assertRaises(bellrope.UnknownMessageType):
                            await client.call("nothing", timeout=5)

                asyncio.run(main())

            self.ends(blocking)
            self.ends(tasks)

    def test_an_answer_that_comes_byte_by_byte_without_end_ends_with_its_time(self) -> None:
        def drips(peer: Peer) -> None:
            data = answer(body=bytes(60000))
            try:
                for at in range(len(data)):
                    peer.socket.sendall(data[at : at + 1])
                    if self.stop.wait(0.001):
                        return
            except OSError:
                pass

        with Double(drips) as double:
            began = time.monotonic()
            with self.assertRaises(bellrope.Connect):
                bellrope.Client(double.path, connect_timeout=0.2)

            async def main() -> None:
                with self.assertRaises(bellrope.Connect):
                    await bellrope.AsyncClient(double.path, connect_timeout=0.2).connect()

            asyncio.run(main())
            self.assertLess(time.monotonic() - began, PATIENCE)

    def test_a_server_that_reads_nothing_bounds_what_is_queued(self) -> None:
        def deaf(peer: Peer) -> None:
            peer.welcome()
            self.stop.wait(2 * PATIENCE)

        with Double(deaf) as double, bellrope.Client(double.path) as client:
            for _ in range(200):
                with self.assertRaises((bellrope.DeadlineExceeded, bellrope.Rejected)):
                    client.call("unary", bytes(60000), timeout=0.001)
            assert client._link is not None
            self.assertLess(client._link.core._waiting, 1 << 20)
            self.assertEqual(client._link.core.under_way, 0)
            self.stop.set()
            wait_for(lambda: client.state is not bellrope.State.CONNECTED or double.connections > 1)


if __name__ == "__main__":
    unittest.main()
