"""Tokens that cancel calls of the blocking client, before a server by hand."""

from __future__ import annotations

import asyncio
import threading
import unittest
from typing import List
from unittest import mock

import bellrope

from .double import CANCEL, CHUNK, END, ERROR, PATIENCE, Double, Peer, record


class Tokens(unittest.TestCase):
    def test_a_token_cancels_wherever_the_call_is(self) -> None:
        sent = threading.Event()

        def never(peer: Peer) -> None:
            peer.welcome()
            peer.record()
            sent.set()
            while peer.record().kind != CANCEL:
                pass
            peer.echo()

        for size in (1, 8 << 20):
            sent.clear()
            with Double(never) as double, bellrope.Client(double.path) as client:
                token = bellrope.CancelToken()

                def cancel(token: bellrope.CancelToken = token) -> None:
                    sent.wait(PATIENCE)
                    token.cancel()

                canceller = threading.Thread(target=cancel)
                canceller.start()
                with self.assertRaises(bellrope.Cancelled):
                    client.call("unary", b"x" * size, cancel=token)
                canceller.join()
                self.assertEqual(token._calls, {})
                for number in range(100):
                    self.assertEqual(client.call("unary", b"%d" % number), b"%d" % number)

    def test_a_token_that_was_cancelled_sends_nothing(self) -> None:
        kinds: List[bytes] = []

        def listens(peer: Peer) -> None:
            peer.welcome()
            kinds.append(peer.request().payload)

        with Double(listens) as double, bellrope.Client(double.path) as client:
            token = bellrope.CancelToken()
            token.cancel()
            with self.assertRaises(bellrope.Cancelled):
                client.call("unary", b"no", cancel=token)
            with self.assertRaises(bellrope.CallError):
                client.call("unary", b"yes")
            self.assertEqual(kinds, [b"yes"])

    def test_a_thousand_calls_on_one_token_leave_nothing_with_it(self) -> None:
        def script(peer: Peer) -> None:
            peer.welcome()
            while True:
                got = peer.request()
                if got.payload == b"fail":
                    peer.send(ERROR, 1, got.call, None, b"no")
                elif got.message_type == 2:
                    peer.send(END, 0, got.call, 0)
                else:
                    peer.respond(got.call, got.payload)

        token = bellrope.CancelToken()
        with Double(script) as server, bellrope.Client(server.path) as client:
            for number in range(1000):
                client.call("unary", b"%d" % number, cancel=token)
            with self.assertRaises(bellrope.Handler):
                client.call("unary", b"fail", cancel=token)
            with self.assertRaises(bellrope.UnknownMessageType):
                client.call("none", cancel=token)
            self.assertEqual(list(client.stream("stream", cancel=token)), [])
        self.assertEqual(token._calls, {})


class Interrupt(BaseException):
    """What a signal's handler raises."""


class Ended(unittest.TestCase):
    """A stream whose end has come is whole, whatever cancels it then: it never ends early without an error."""

    CHUNKS = [b"%d" % number for number in range(10)]

    def script(self, peer: Peer) -> None:
        peer.welcome()
        while True:
            call = peer.request().call
            chunks = [record(CHUNK, 0, call, at, chunk) for at, chunk in enumerate(self.CHUNKS)]
            peer.socket.sendall(b"".join(chunks) + record(END, 0, call, len(chunks)))

    def test_a_token_that_is_cancelled_then_takes_nothing_of_it(self) -> None:
        with Double(self.script) as double, bellrope.Client(double.path) as client:
            for taken in range(1, 11):
                token = bellrope.CancelToken()
                stream = client.stream("stream", cancel=token)
                seen = [next(stream) for _ in range(taken)]
                token.cancel()
                self.assertEqual(seen + list(stream), self.CHUNKS)
                token = bellrope.CancelToken()
                text = client.stream("stream", cancel=token).text()
                words = [next(text) for _ in range(taken)]
                token.cancel()
                self.assertEqual("".join([*words, *text]), "0123456789")

    def test_what_interrupts_a_wait_takes_nothing_of_it(self) -> None:
        with Double(self.script) as double, bellrope.Client(double.path) as client:
            for taken in range(1, 11):
                stream = client.stream("stream")
                seen = [next(stream) for _ in range(taken)]
                with mock.patch.object(type(stream._client), "_wait_for", side_effect=Interrupt):
                    with self.assertRaises(Interrupt):
                        next(stream)
                self.assertEqual(seen + list(stream), self.CHUNKS)

    def test_a_task_that_is_cancelled_takes_nothing_of_it(self) -> None:
        async def main(path: str) -> None:
            async with bellrope.AsyncClient(path) as client:
                for taken in range(1, 11):
                    stream = client.stream("stream")
                    seen = [await stream.__anext__() for _ in range(taken)]
                    assert stream._begun is not None
                    with mock.patch.object(type(stream._begun[2]), "wait", side_effect=asyncio.CancelledError):
                        with self.assertRaises(asyncio.CancelledError):
                            await stream.__anext__()
                    self.assertEqual(seen + [chunk async for chunk in stream], self.CHUNKS)

        with Double(self.script) as double:
            asyncio.run(main(double.path))
