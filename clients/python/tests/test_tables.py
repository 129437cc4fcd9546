"""Tables of message types that come in pages, and change while a client is connected."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
import unittest
from typing import Callable, List

import bellrope

from .double import TYPES, Double, Peer, answer, entry
from .styles import PROGRAM, Server, wait_for

ADDED = entry(9, 0, "later")
TAKEN_OUT = struct.pack("<HBB", 9, 255, 0)


class Changing:
    """A server that adds a type, and takes it out, when it is told to. It answers each unary request with itself."""

    def __init__(self) -> None:
        self.numbers: List[int] = []
        self._peers: List[Peer] = []

    def __call__(self, peer: Peer) -> None:
        peer.welcome(entries=4)
        self._peers.append(peer)
        while True:
            got = peer.request()
            self.numbers.append(got.message_type)
            if got.payload != b"never":
                peer.respond(got.call, got.payload)

    def change(self, entries: int, change: bytes) -> None:
        """Has it said. What was sent has arrived."""
        wait_for(lambda: bool(self._peers))
        self._peers[-1].send(TYPES, 0, 0, entries, change)


class Tables(unittest.TestCase):
    def test_a_table_of_4096_types_comes_whole_however_it_is_cut(self) -> None:
        entries = [entry(number, 0, f"{number:0200}") for number in range(4096)]

        def large(peer: Peer) -> None:
            body, at = b"".join(entries[:300]), 300
            data = answer(body=body, entries=len(entries))
            while at < len(entries):
                page = entries[at : at + 317]
                data += struct.pack("<HHI", at, len(page), len(b"".join(page))) + b"".join(page)
                at += len(page)
            for begin in range(0, len(data), 997):
                peer.socket.sendall(data[begin : begin + 997])
            peer.echo()

        with Double(large) as double, bellrope.Client(double.path) as client:
            self.assertEqual([of.number for of in client.types()], list(range(4096)))
            self.assertEqual(client.call(f"{4095:0200}", b"ding"), b"ding")
            began = time.monotonic()
            with self.assertRaises(bellrope.UnknownMessageType) as caught:
                client.call("x" * 100_000)
            # Names are compared, of which the server chooses how many and how long they are.
            self.assertLess(time.monotonic() - began, 5)
            self.assertEqual(len(caught.exception.nearest), 3)

    def test_a_page_that_is_none_is_refused_and_nothing_more_is_read(self) -> None:
        self.refuses(struct.pack("<HHI", 4, 1, 65536), 60, "the field page of the handshake")

    def test_pages_that_do_not_come_end_the_try_in_time(self) -> None:
        self.refuses(struct.pack("<HHI", 4, 1, 20), 0.05, "no answer came in time")

    def refuses(self, page: bytes, connect_timeout: float, words: str) -> None:
        def server(peer: Peer) -> None:
            peer.socket.sendall(answer(entries=5) + page)
            peer.heard_hang_up()

        with Double(server) as double, self.assertRaises(bellrope.Connect) as caught:
            bellrope.Client(double.path, connect_timeout=connect_timeout)
        self.assertIn(words, str(caught.exception))


class Changes(unittest.TestCase):
    def test_a_client_that_was_idle_knows_what_has_arrived(self) -> None:
        server = Changing()
        with Double(server) as double, bellrope.Client(double.path) as client:
            with self.assertRaises(bellrope.UnknownMessageType):
                client.call("later")
            server.change(5, ADDED)
            self.assertEqual(client.call("later", b"ding"), b"ding")
            server.change(4, TAKEN_OUT)
            self.assertNotIn("later", [of.name for of in client.types()])
            with self.assertRaises(bellrope.UnknownMessageType):
                client.call("later")
            # It may come back under its number, with another style.
            server.change(5, entry(9, 1, "later"))
            with self.assertRaises(bellrope.WrongStyle):
                client.call("later")
            server.change(5, TAKEN_OUT + ADDED)
            self.assertEqual(client.call("later", b"dong"), b"dong")
            self.assertEqual(server.numbers, [9, 9])

    def test_a_client_whose_connection_another_thread_reads_knows_it_too(self) -> None:
        server = Changing()
        with Double(server) as double, bellrope.Client(double.path) as client:
            stream = client.stream("stream", b"never")

            def read() -> None:
                with self.assertRaises(bellrope.Cancelled):
                    next(stream)

            waiting = threading.Thread(target=read)
            waiting.start()
            wait_for(lambda: client._link is not None and client._link.leader is not None)
            for _ in range(50):
                server.change(5, ADDED)
                self.assertEqual(client.call("later", b"ding"), b"ding")
                server.change(4, TAKEN_OUT)
                self.assertNotIn("later", [of.name for of in client.types()])
            stream.close()
            waiting.join()

    def test_a_change_that_does_not_fit_ends_calls_and_connection(self) -> None:
        server = Changing()
        with Double(server) as double, bellrope.Client(double.path) as client:
            stream = client.stream("stream", b"never")
            server.change(7, ADDED)
            with self.assertRaises(bellrope.Violation) as caught:
                next(stream)
            self.assertEqual(caught.exception.name, "bad_types")
            wait_for(lambda: double.connections == 2)
            self.assertEqual(client.call("unary", b"again"), b"again")

    def test_tasks_know_what_has_arrived(self) -> None:
        server = Changing()

        async def main() -> None:
            async with bellrope.AsyncClient(double.path) as client:
                with self.assertRaises(bellrope.UnknownMessageType):
                    await client.call("later")
                for _ in range(50):
                    # The loop does not run in between.
                    server.change(5, ADDED)
                    self.assertEqual(await client.call("later", b"ding"), b"ding")
                    server.change(4, TAKEN_OUT)
                    self.assertNotIn("later", [of.name for of in await client.types()])
                    with self.assertRaises(bellrope.UnknownMessageType):
                        await client.call("later")
                server.change(9, ADDED)
                with self.assertRaises((bellrope.UnknownMessageType, bellrope.Violation, bellrope.Connect)):
                    await client.call("later", timeout=5)
                self.assertEqual(await client.call("unary", b"again"), b"again")

        with Double(server) as double:
            asyncio.run(main())


@unittest.skipUnless(PROGRAM, "BELLROPE_STYLES names no program")
class OfARealServer(unittest.TestCase):
    """Types that a server adds and takes out while it runs."""

    def call(self, client: bellrope.Client, ready: Callable[[str], bool]) -> str:
        """How calls of `late` end, once they end so."""
        outcomes: List[str] = []

        def called() -> bool:
            try:
                outcomes.append(client.call("late", b"ding").decode())
            except bellrope.CallError as error:
                outcomes.append(error.kind)
            return ready(outcomes[-1])

        wait_for(called)
        return outcomes[-1]

    def test_a_type_can_be_called_once_it_is_there_and_is_refused_in_words_once_it_is_not(self) -> None:
        with Server() as server, bellrope.Client(server.path) as client, bellrope.Client(server.path) as other:
            for _ in range(5):
                other.call("add", b"late")
                self.assertEqual(self.call(client, lambda outcome: outcome == "ding"), "ding")
                other.call("remove", b"late")
                # The server says so, as long as this side has not heard of it.
                self.call(client, lambda outcome: outcome == "UnknownMessageType")

    def test_a_table_above_64_kib_comes_whole(self) -> None:
        with Server(arguments=["1000"]) as server, bellrope.Client(server.path) as client:
            names = [of.name for of in client.types()]
            self.assertEqual(len([name for name in names if name.startswith("more.")]), 1000)
            self.assertGreater(sum(map(len, names)), 65536)
            self.assertEqual(client.call(names[-1], b"ding"), b"ding")

        async def main() -> None:
            async with bellrope.AsyncClient(server.path) as client:
                self.assertEqual([of.name for of in await client.types()], names)
                self.assertEqual(await client.call(names[-1], b"dong"), b"dong")

        with Server(arguments=["1000"]) as server:
            asyncio.run(main())
