"""A signal's handler that raises, at any moment of a call: Ctrl-C, or a time-out of the application's. Needs BELLROPE_STYLES."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import unittest
import warnings
from typing import Any, List

import bellrope

from .styles import PROGRAM, Server

SECONDS = float(os.environ.get("BELLROPE_SIGNAL_SECONDS", "2"))
# Most signals come while a call is under way, wherever it is then.
LONGEST = 0.002


class Interrupt(BaseException):
    """What the handler raises."""


@unittest.skipUnless(PROGRAM, "BELLROPE_STYLES names no program")
class Signals(unittest.TestCase):
    def setUp(self) -> None:
        self.armed = False
        self.random = random.Random(7)
        before = signal.signal(signal.SIGALRM, self.handle)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        # One that comes while an object goes is printed by the interpreter.
        hook, sys.unraisablehook = sys.unraisablehook, self.unraisable
        self.addCleanup(setattr, sys, "unraisablehook", hook)
        # So is a socket that was being connected.
        caught = warnings.catch_warnings()
        caught.__enter__()
        self.addCleanup(caught.__exit__, None, None, None)
        warnings.simplefilter("ignore", ResourceWarning)

    def handle(self, *_: object) -> None:
        if self.armed:
            raise Interrupt

    @staticmethod
    def unraisable(of: Any) -> None:
        if of.exc_type is not Interrupt:
            sys.__unraisablehook__(of)

    def interrupted(self, action: Any) -> bool:
        """Does something, which a signal may interrupt. Answers whether it came to its end."""
        try:
            try:
                self.armed = True
                signal.setitimer(signal.ITIMER_REAL, self.random.uniform(0.00001, LONGEST))
                action()
                return True
            finally:
                self.armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupt:
            return False

    def test_interrupted_anywhere_later_calls_get_their_own_answers_and_nothing_hangs(self) -> None:
        ends: List[bool] = []
        with Server() as server, bellrope.Client(server.path, call_timeout=20) as client:

            def call() -> None:
                payload = os.urandom(8) * self.random.choice((1, 700, 9000, 40_000))
                self.assertEqual(client.call("echo", payload), payload)

            def stream() -> None:
                with client.stream("count", b"20", timeout=20) as chunks:
                    self.assertEqual([int(chunk) for chunk in chunks], list(range(20)))

            def upload() -> None:
                payload = os.urandom(8) * 700
                with client.client_stream("join", timeout=20) as joined:
                    for _ in range(5):
                        joined.send(payload)
                    self.assertEqual(joined.finish(), payload * 5)

            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                try:
                    ends.append(self.interrupted(self.random.choice((call, call, stream, upload))))
                except RuntimeError as error:
                    # It came while a Condition of the standard library gave the lock back.
                    self.assertIn("un-acquired lock", str(error))
                except (bellrope.NotExecuted, bellrope.Unknown):
                    pass  # an interrupt before had left the connection half changed
            for number in range(1000):
                self.assertEqual(client.call("echo", b"%d" % number), b"%d" % number)
            assert client._link is not None
            self.assertEqual(client._link.core.under_way, 0)
        self.assertGreater(ends.count(False), 20)


if __name__ == "__main__":
    unittest.main()
