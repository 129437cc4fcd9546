"""Tokens that cancel calls of the blocking client, before a server by hand."""

from __future__ import annotations

import threading
import unittest
from typing import List

import bellrope

from .double import CANCEL, END, ERROR, PATIENCE, Double, Peer


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
