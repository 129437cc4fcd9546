"""The blocking client before a server that does what no honest one would."""

from __future__ import annotations

import signal
import threading
import time
import unittest
from typing import Callable, List, Tuple

import bellrope
from bellrope import State

from .double import (
    ADMITTED,
    CANCEL,
    CHUNK,
    CREDIT,
    END,
    ERROR,
    FRAGMENT,
    PATIENCE,
    RESPONSE,
    Double,
    Peer,
    answer,
    record,
)

SIZES = (0, 1, 65535, 65536, 65537, 10 << 20)
BELL = "\U0001f514"


def wait_for(what: Callable[[], bool]) -> None:
    """Waits until something holds."""
    until = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > until:
            raise AssertionError("it did not come in time")
        time.sleep(0.001)


def echo(peer: Peer) -> None:
    peer.welcome()
    peer.echo()


class Whole(unittest.TestCase):
    """Nothing is lost or cut, however the bytes come."""

    def test_messages_of_every_size_come_whole(self) -> None:
        with Double(echo) as double, bellrope.Client(double.path) as client:
            for size in SIZES:
                payload = bytes(range(251)) * (size // 251 + 1)
                # Responses of the double are single records, so that large ones are too long for one.
                if size <= 65536:
                    self.assertEqual(client.call("unary", payload[:size]), payload[:size])

    def test_a_large_request_waits_for_a_server_that_reads_late(self) -> None:
        go_on = threading.Event()

        def slow(peer: Peer) -> None:
            peer.welcome()
            go_on.wait(PATIENCE)
            got = peer.request()
            peer.respond(got.call, b"%d" % len(got.payload))

        with Double(slow) as double, bellrope.Client(double.path) as client:
            threading.Timer(0.05, go_on.set).start()
            self.assertEqual(client.call("unary", b"x" * (10 << 20)), b"%d" % (10 << 20))

    def test_bytes_that_come_one_by_one_make_the_same_answers(self) -> None:
        text = (BELL * 3).encode()

        def drip(peer: Peer) -> None:
            for at in range(0, len(answer()), 9):
                peer.socket.sendall(answer()[at : at + 9])
            got = peer.request()
            peer.drip(record(FRAGMENT, 0, got.call, 900, b"a" * 500) + record(RESPONSE, 0, got.call, None, b"b" * 400))
            got = peer.request()
            for at in range(len(text)):
                peer.drip(record(CHUNK, 0, got.call, at, text[at : at + 1]))
            peer.drip(record(END, 0, got.call, len(text)))

        with Double(drip) as double, bellrope.Client(double.path) as client:
            self.assertEqual(client.call("unary"), b"a" * 500 + b"b" * 400)
            self.assertEqual("".join(client.stream("stream").text()), BELL * 3)

    def test_records_that_come_at_once_are_told_apart(self) -> None:
        def all_at_once(peer: Peer) -> None:
            peer.welcome()
            calls = [peer.request().call for _ in range(2)]
            peer.socket.sendall(b"".join(record(RESPONSE, 0, call, None, b"%d" % call) for call in reversed(calls)))
            peer.heard_hang_up()

        with Double(all_at_once) as double, bellrope.Client(double.path) as client:
            found: List[bytes] = []
            threads = [threading.Thread(target=lambda: found.append(client.call("unary"))) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(sorted(found), [b"1", b"2"])


class Lost(unittest.TestCase):
    """How calls end whose server goes away."""

    def outcome(self, script: Callable[[Peer], None], payload: bytes = b"x") -> str:
        with Double(script) as double, bellrope.Client(double.path) as client:
            with self.assertRaises(bellrope.CallError) as caught:
                client.call("unary", payload)
            return caught.exception.kind

    def test_a_call_whose_request_was_not_sent_whole_has_not_run(self) -> None:
        def gone(peer: Peer) -> None:
            peer.welcome()
            peer.record()  # one part of many

        self.assertEqual(self.outcome(gone, b"x" * (4 << 20)), "NotExecuted")

    def test_without_a_word_from_the_server_it_may_have_run(self) -> None:
        def gone(peer: Peer) -> None:
            peer.welcome()
            peer.request()

        self.assertEqual(self.outcome(gone), "Unknown")

    def test_the_admitted_record_tells_which_calls_have_run(self) -> None:
        for taken, kind in ((0, "NotExecuted"), (1, "Unknown")):

            def leaves(peer: Peer, taken: int = taken) -> None:
                peer.welcome()
                peer.request()
                peer.send(ADMITTED, 0, 0, taken)

            self.assertEqual(self.outcome(leaves), kind)

    def test_why_the_server_closes_the_connection_is_shown(self) -> None:
        words = "for 50 ms, the limit stall_timeout_ms, " + BELL
        for taken, ran in ((0, False), (1, True)):

            def put_out(peer: Peer, taken: int = taken) -> None:
                peer.welcome()
                peer.request()
                peer.socket.sendall(record(ERROR, 9, 0, 0, words.encode()) + record(ADMITTED, 0, 0, taken))

            with Double(put_out, echo) as double, bellrope.Client(double.path) as client:
                with self.assertRaises(bellrope.ClosedByServer) as caught:
                    client.call("unary", b"x")
                error = caught.exception
                self.assertEqual((error.reason, error.may_have_run, error.retryable), (words, ran, not ran))
                self.assertEqual((error.kind, error.blame), ("ClosedByServer", "caller"))
                self.assertEqual(client.call("unary", b"again"), b"again")
            retry = bellrope.Retry.IDEMPOTENT if ran else bellrope.Retry.NOT_EXECUTED
            with Double(put_out, echo) as double, bellrope.Client(double.path) as client:
                self.assertEqual(client.call("unary", b"x", retry=retry), b"x")

    def test_an_answer_before_the_hang_up_counts(self) -> None:
        def answers(peer: Peer) -> None:
            peer.welcome()
            got = peer.request()
            peer.socket.sendall(record(RESPONSE, 0, got.call, None, b"yes") + record(ADMITTED, 0, 0, 1))

        with Double(answers) as double, bellrope.Client(double.path) as client:
            self.assertEqual(client.call("unary"), b"yes")

    def test_a_hang_up_in_the_middle_of_any_record_is_no_answer(self) -> None:
        whole = record(RESPONSE, 0, 1, None, b"answer")
        for cut in range(len(whole)):

            def dies(peer: Peer, cut: int = cut) -> None:
                peer.welcome()
                peer.request()
                peer.socket.sendall(whole[:cut])

            self.assertEqual(self.outcome(dies), "Unknown")

    def test_a_hang_up_in_the_middle_of_the_answer_to_the_hello_is_said(self) -> None:
        for cut in (0, 1, 63, 64, 70, len(answer()) - 1):
            with Double(lambda peer, cut=cut: peer.socket.sendall(answer()[:cut])) as double:  # type: ignore[misc]
                with self.assertRaises(bellrope.Connect) as caught:
                    bellrope.Client(double.path)
                self.assertEqual(caught.exception.reason, "Io")

    def test_a_retry_is_made_only_where_it_is_allowed(self) -> None:
        def leaves(peer: Peer) -> None:
            peer.welcome()
            peer.request()

        for retry, kind in ((bellrope.Retry.NOT_EXECUTED, "Unknown"), (bellrope.Retry.IDEMPOTENT, "")):
            with Double(leaves, echo) as double, bellrope.Client(double.path) as client:
                if kind:
                    with self.assertRaises(bellrope.Unknown):
                        client.call("unary", b"x", retry=retry)
                else:
                    self.assertEqual(client.call("unary", b"x", retry=retry), b"x")

    def test_a_stream_is_called_again_only_before_its_first_chunk(self) -> None:
        def leaves(peer: Peer) -> None:
            peer.welcome()
            peer.request()
            peer.send(ADMITTED, 0, 0, 0)

        def half(peer: Peer) -> None:
            peer.welcome()
            got = peer.request()
            peer.send(CHUNK, 0, got.call, 0, b"half")

        with Double(leaves, half) as double, bellrope.Client(double.path) as client:
            stream = client.stream("stream", retry=bellrope.Retry.IDEMPOTENT)
            self.assertEqual(next(stream), b"half")
            with self.assertRaises(bellrope.Unknown):
                next(stream)


class Broken(unittest.TestCase):
    """A server that breaks the protocol."""

    def test_a_violation_ends_the_calls_and_the_connection(self) -> None:
        cases: List[Tuple[str, Callable[[int], bytes]]] = [
            ("bad_header", lambda call: bytes(16)),
            ("bad_header", lambda call: b"\xff" * 16),
            ("bad_length", lambda call: record(RESPONSE, 0, call, None, b"")[:0] + b"\1\0\1\0\0\0\5\0" + bytes(8)),
            ("bad_direction", lambda call: record(2, 1, call)),
            ("bad_form", lambda call: record(CHUNK, 0, call, 0)),
            ("bad_size", lambda call: record(FRAGMENT, 0, call, (10 << 20) + 1, b"x")),
            ("bad_form", lambda call: record(ADMITTED, 0, 0, 2)),
            ("bad_form", lambda call: record(ADMITTED, 0, 0, 1) + record(RESPONSE, 0, call)),
        ]
        for name, bad in cases:
            hung_up: List[bool] = []

            def breaks(peer: Peer, bad: Callable[[int], bytes] = bad, hung_up: List[bool] = hung_up) -> None:
                peer.welcome()
                peer.socket.sendall(bad(peer.request().call))
                hung_up.append(peer.heard_hang_up())

            with Double(breaks, echo) as double, bellrope.Client(double.path) as client:
                with self.assertRaises(bellrope.Violation) as caught:
                    client.call("unary")
                self.assertEqual(caught.exception.name, name)
                wait_for(lambda: bool(hung_up))
                self.assertEqual(client.call("unary", b"again"), b"again")

    def test_refusals_and_silence_are_told_apart(self) -> None:
        with Double(lambda peer: peer.socket.sendall(answer(3, b"2000 connections"))) as double:
            with self.assertRaises(bellrope.Connect) as caught:
                bellrope.Client(double.path)
            self.assertEqual(caught.exception.status, "full")
            self.assertIn("2000 connections", str(caught.exception))

        def silent(peer: Peer) -> None:
            peer.heard_hang_up()

        with Double(silent) as double:
            with self.assertRaises(bellrope.Connect):
                bellrope.Client(double.path, connect_timeout=0.05)
        with self.assertRaises(bellrope.Connect) as caught:
            bellrope.Client(double.path)
        self.assertEqual(caught.exception.reason, "NoServer")
        with self.assertRaises(bellrope.Connect) as caught:
            bellrope.Client("/tmp/" + "x" * 200)
        self.assertEqual(caught.exception.reason, "PathTooLong")


class GivenUp(unittest.TestCase):
    """Calls that end on this side."""

    def test_a_deadline_cancels_at_the_server_and_a_late_answer_is_passed_over(self) -> None:
        heard: List[int] = []

        def late(peer: Peer) -> None:
            peer.welcome()
            got = peer.request()
            assert got.extension is not None
            heard.append(peer.record().kind)
            peer.respond(got.call, b"late")
            peer.send(ERROR, 6, got.call)
            peer.echo()

        with Double(late) as double, bellrope.Client(double.path) as client:
            with self.assertRaises(bellrope.DeadlineExceeded):
                client.call("unary", b"first", timeout=0.03)
            for number in range(100):
                self.assertEqual(client.call("unary", b"%d" % number), b"%d" % number)
            self.assertEqual(heard, [CANCEL])

    def test_a_refused_large_request_is_given_up(self) -> None:
        kinds: List[int] = []

        def refuses(peer: Peer) -> None:
            peer.welcome()
            got = peer.record()
            peer.send(ERROR, 7, got.call, 1, b"no room")
            while not kinds or kinds[-1] == FRAGMENT:
                kinds.append(peer.record().kind)
            peer.echo()

        with Double(refuses) as double, bellrope.Client(double.path) as client:
            with self.assertRaises(bellrope.Rejected) as caught:
                client.call("unary", b"x" * (10 << 20))
            self.assertEqual((caught.exception.reason, caught.exception.retryable), ("busy", True))
            self.assertEqual(client.call("unary", b"next"), b"next")
            self.assertEqual(kinds[-1], CANCEL)
            self.assertLess(len(kinds), 300)

    def test_a_signal_ends_a_call_and_its_handler_may_call_or_is_told_that_it_may_not(self) -> None:
        done: List[object] = []
        entered = threading.Event()

        def slow(peer: Peer) -> None:
            peer.welcome()
            while True:
                got = peer.request()
                if got.payload == b"interrupt":
                    main = threading.main_thread().ident
                    assert main is not None
                    signal.pthread_kill(main, signal.SIGALRM)
                    # A signal that comes right before the poll is seen only after it.
                    while not entered.wait(0.005):
                        peer.respond(999, b"to nobody")
                else:
                    peer.respond(got.call, got.payload)

        with Double(slow) as double, bellrope.Client(double.path) as client:

            def calls(*_: object) -> None:
                entered.set()
                try:
                    done.append(client.call("unary", b"handler"))
                except RuntimeError as error:
                    done.append(error)
                    raise KeyboardInterrupt from None
                raise KeyboardInterrupt

            before = signal.signal(signal.SIGALRM, calls)
            try:
                with self.assertRaises(KeyboardInterrupt):
                    client.call("unary", b"interrupt")
            finally:
                signal.signal(signal.SIGALRM, before)
            self.assertEqual(len(done), 1)
            if done != [b"handler"]:
                self.assertIn("signal's handler", str(done[0]))
            self.assertEqual(client.call("unary", b"x"), b"x")

    def test_as_many_calls_as_the_server_allows(self) -> None:
        def one(peer: Peer) -> None:
            peer.welcome(max_in_flight=1)
            peer.heard_hang_up()

        with Double(one) as double, bellrope.Client(double.path) as client, client.stream("stream"):
            with self.assertRaises(bellrope.Rejected) as caught:
                client.call("unary")
            self.assertIn("max_in_flight", str(caught.exception))

    def test_an_upload_waits_for_credit_and_no_longer_than_its_time(self) -> None:
        got: List[bytes] = []

        def stingy(peer: Peer) -> None:
            peer.welcome(window=100)
            peer.request()
            first = peer.record()
            got.append(first.payload)
            peer.send(CREDIT, 0, first.call, 164)
            got.append(peer.record().payload)
            got.append(b"cancel" if peer.record().kind == CANCEL else b"?")

        with Double(stingy) as double, bellrope.Client(double.path) as client:
            with client.client_stream("upload", timeout=0.5) as upload:
                self.assertTrue(upload.send(b"a" * 100))
                self.assertTrue(upload.send(b"b" * 100))
                with self.assertRaises(bellrope.DeadlineExceeded):
                    upload.send(b"c")
            wait_for(lambda: len(got) == 3)
            self.assertEqual([part[:1] for part in got], [b"a", b"b", b"c"])
            self.assertEqual(got[2], b"cancel")

    def test_dropping_a_stream_cancels_it(self) -> None:
        kinds: List[int] = []

        def endless(peer: Peer) -> None:
            peer.welcome()
            for _ in range(4):
                got = peer.request()
                peer.send(CHUNK, 0, got.call, 0, b"x")
                kinds.append(peer.record().kind)
            peer.echo()

        with Double(endless) as double, bellrope.Client(double.path) as client:
            for _ in client.stream("stream"):
                break
            with client.stream("stream") as stream:
                next(stream)
            stream = client.stream("stream")
            next(stream)
            del stream
            try:
                for _ in client.stream("stream"):
                    raise KeyError
            except KeyError:
                pass
            self.assertEqual(client.call("unary", b"x"), b"x")
            self.assertEqual(kinds, [CANCEL] * 4)


class States(unittest.TestCase):
    def test_a_client_connects_again_by_itself_and_says_so(self) -> None:
        go = threading.Event()
        states: List[State] = []

        def leaves(peer: Peer) -> None:
            peer.welcome()
            go.wait(PATIENCE)

        with Double(leaves, echo) as double:
            with bellrope.Client(double.path, on_state_change=states.append) as client:
                self.assertEqual(client.state, State.CONNECTED)
                go.set()
                wait_for(lambda: len(states) == 2)
                self.assertEqual(client.call("unary", b"x"), b"x")
        self.assertEqual(states, [State.RECONNECTING, State.CONNECTED, State.CLOSED])
        self.assertEqual(client.state, State.CLOSED)
        with self.assertRaises(bellrope.Closed):
            client.call("unary")

    def test_closing_ends_every_call_and_every_thread(self) -> None:
        def silent(peer: Peer) -> None:
            peer.welcome()
            peer.heard_hang_up()

        before = threading.active_count()
        with Double(silent) as double:
            client = bellrope.Client(double.path)
            ended: List[str] = []

            def calls() -> None:
                try:
                    client.call("unary")
                except bellrope.CallError as error:
                    ended.append(error.kind)

            threads = [threading.Thread(target=calls) for _ in range(4)]
            for thread in threads:
                thread.start()
            wait_for(lambda: client._link is not None and len(client._link.core._calls) == 4)
            client.close()
            for thread in threads:
                thread.join(PATIENCE)
            self.assertEqual(ended, ["Closed"] * 4)
        self.assertEqual(threading.active_count(), before)

    def test_closing_while_the_server_is_away_ends_the_search(self) -> None:
        with Double(lambda peer: peer.welcome()) as double:
            client = bellrope.Client(double.path, reconnect_timeout=60)
        wait_for(lambda: client.state is State.RECONNECTING)
        ended: List[str] = []

        def calls() -> None:
            try:
                client.call("unary")
            except bellrope.CallError as error:
                ended.append(error.kind)

        thread = threading.Thread(target=calls)
        thread.start()
        client.close()
        thread.join(PATIENCE)
        self.assertEqual(ended, ["Closed"])
        self.assertFalse(any(thread.name == "bellrope-watch" for thread in threading.enumerate()))

    def test_a_dropped_client_lets_go_of_everything(self) -> None:
        hung_up: List[bool] = []

        def waits(peer: Peer) -> None:
            peer.welcome()
            hung_up.append(peer.heard_hang_up())

        with Double(waits) as double:
            client = bellrope.Client(double.path)
            del client
            wait_for(lambda: bool(hung_up))
            wait_for(lambda: not any(thread.name == "bellrope-watch" for thread in threading.enumerate()))


if __name__ == "__main__":
    unittest.main()
