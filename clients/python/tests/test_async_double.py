"""The asyncio client before a server that does what no honest one would."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import unittest
from typing import Any, Awaitable, Callable, Coroutine, List

import bellrope
from bellrope import State

from .double import ADMITTED, CANCEL, CHUNK, END, FRAGMENT, PATIENCE, RESPONSE, Double, Peer, answer, record

BELL = "\U0001f514"
where: "contextvars.ContextVar[str]" = contextvars.ContextVar("where", default="nowhere")


async def wait_for(what: Callable[[], bool]) -> None:
    """Waits until something holds."""
    until = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > until:
            raise AssertionError("it did not come in time")
        await asyncio.sleep(0.001)


def echo(peer: Peer) -> None:
    peer.welcome()
    peer.echo()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a test, and fails if the loop had to report something."""
    reports: List[Any] = []

    async def watched() -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 60  # the machine may be busy
        loop.set_exception_handler(lambda _, context: reports.append(context))
        await asyncio.wait_for(main, 60)

    asyncio.run(watched(), debug=True)
    gc.collect()
    assert not reports, reports


async def kind_of(call: Awaitable[object]) -> str:
    try:
        await call
    except bellrope.CallError as error:
        return error.kind
    return "ok"


class Whole(unittest.TestCase):
    def test_bytes_that_come_one_by_one_make_the_same_answers(self) -> None:
        text = (BELL * 3).encode()

        def drip(peer: Peer) -> None:
            peer.drip(answer())
            got = peer.request()
            peer.drip(record(FRAGMENT, 0, got.call, 900, b"a" * 500) + record(RESPONSE, 0, got.call, None, b"b" * 400))
            got = peer.request()
            for at in range(len(text)):
                peer.drip(record(CHUNK, 0, got.call, at, text[at : at + 1]))
            peer.drip(record(END, 0, got.call, len(text)))

        async def main() -> None:
            async with bellrope.AsyncClient(double.path) as client:
                self.assertEqual(await client.call("unary"), b"a" * 500 + b"b" * 400)
                self.assertEqual("".join([part async for part in client.stream("stream").text()]), BELL * 3)

        with Double(drip) as double:
            run(main())

    def test_messages_around_64_KiB_and_of_10_MiB_come_whole_while_the_server_reads_late(self) -> None:
        go_on = threading.Event()

        def slow(peer: Peer) -> None:
            peer.welcome()
            go_on.wait(PATIENCE)
            while True:
                got = peer.request()
                peer.respond(got.call, b"%d %d" % (len(got.payload), sum(got.payload) % 997))

        async def main() -> None:
            async with bellrope.AsyncClient(double.path) as client:
                sizes = (65535, 65536, 65537, 10 << 20)
                calls = [
                    asyncio.create_task(client.call("unary", bytes(range(250)) * (size // 250) + b"x" * (size % 250)))
                    for size in sizes
                ]
                await asyncio.sleep(0)
                go_on.set()
                for size, call in zip(sizes, calls):
                    expected = (sum(range(250)) * (size // 250) + 120 * (size % 250)) % 997
                    self.assertEqual(await call, b"%d %d" % (size, expected))

        with Double(slow) as double:
            run(main())


class Cancelling(unittest.TestCase):
    def test_cancelled_at_every_await_point_nobody_gets_anothers_answer(self) -> None:
        """The task is cancelled at its first, second, ... suspension, until it is done before that."""
        heard: List[int] = []

        def slow(peer: Peer) -> None:
            # Answers in two halves, so that a call is also cancelled while half of its answer is there.
            peer.welcome()
            while True:
                got = peer.record()
                heard.append(got.kind)
                if got.kind == 2:
                    whole = record(RESPONSE, 0, got.call, None, got.payload)
                    peer.socket.sendall(whole[:20])
                    peer.socket.sendall(whole[20:])

        async def main() -> None:
            for payload in (b"small", b"x" * (3 << 20)):
                async with bellrope.AsyncClient(double.path) as client:
                    for steps in range(40):
                        task = asyncio.create_task(client.call("unary", payload))
                        for _ in range(steps):
                            await asyncio.sleep(0)
                        task.cancel()
                        try:
                            await task
                        except asyncio.CancelledError:
                            pass
                        self.assertEqual(await client.call("unary", b"%d" % steps), b"%d" % steps)
                    for number in range(100):
                        self.assertEqual(await client.call("unary", b"%d" % number), b"%d" % number)

        with Double(slow) as double:
            run(main())
        self.assertIn(CANCEL, heard)

    def test_cancelled_before_and_during_the_handshake(self) -> None:
        def silent(peer: Peer) -> None:
            peer.heard_hang_up()

        async def main() -> None:
            before = len(asyncio.all_tasks())
            for steps in range(6):
                client = bellrope.AsyncClient(double.path, connect_timeout=60)
                task = asyncio.create_task(client.call("unary"))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task
                await client.aclose()
            self.assertEqual(len(asyncio.all_tasks()), before)

        with Double(silent) as double:
            run(main())

    def test_a_timeout_around_a_call_and_one_of_its_own(self) -> None:
        kinds: List[int] = []

        def never(peer: Peer) -> None:
            peer.welcome()
            for _ in range(2):
                peer.request()
                kinds.append(peer.record().kind)
            peer.echo()

        async def main() -> None:
            async with bellrope.AsyncClient(double.path) as client:
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(client.call("unary"), 0.02)
                with self.assertRaises(bellrope.DeadlineExceeded):
                    await client.call("unary", timeout=0.02)
                self.assertEqual(await client.call("unary", b"x"), b"x")

        with Double(never) as double:
            run(main())
        self.assertEqual(kinds, [CANCEL, CANCEL])

    def test_every_way_to_leave_a_stream_cancels_it_and_prints_nothing(self) -> None:
        cancelled: List[int] = []

        def endless(peer: Peer) -> None:
            peer.welcome()
            while True:
                got = peer.record()
                if got.kind == CANCEL:
                    cancelled.append(got.call)
                elif got.message_type == 2:
                    peer.send(CHUNK, 0, got.call, 0, b"x")
                else:
                    peer.respond(got.call, got.payload)

        async def raises(client: bellrope.AsyncClient) -> None:
            async for _ in client.stream("stream"):
                raise KeyError

        async def waits(client: bellrope.AsyncClient) -> None:
            async for _ in client.stream("stream"):
                pass

        async def main() -> None:
            async with bellrope.AsyncClient(double.path) as client:
                async for _ in client.stream("stream"):
                    break
                with self.assertRaises(KeyError):
                    await raises(client)
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(waits(client), 0.02)
                async with client.stream("stream") as stream:
                    await stream.__anext__()
                abandoned = client.stream("stream")
                await abandoned.__anext__()
                del abandoned
                with self.assertRaises(bellrope.DeadlineExceeded):
                    async for _ in client.stream("stream", timeout=0.02):
                        pass
                await wait_for(lambda: len(cancelled) == 6)
                self.assertEqual(await client.call("unary", b"x"), b"x")

        with Double(endless) as double:
            run(main())
        self.assertEqual(sorted(cancelled), list(range(1, 7)))

    def test_a_stream_that_nobody_asked_for_sends_nothing(self) -> None:
        async def main() -> None:
            async with bellrope.AsyncClient(double.path) as client:
                client.stream("stream")
                stream = client.stream("stream")
                await stream.aclose()
                with self.assertRaises(bellrope.Cancelled):
                    await stream.__anext__()
                self.assertEqual(await client.call("unary", b"first"), b"first")

        with Double(echo) as double:
            run(main())


class Lost(unittest.TestCase):
    def test_each_call_ends_once_with_its_outcome(self) -> None:
        def leaves(peer: Peer) -> None:
            peer.welcome()
            first, _ = peer.request(), peer.request()
            peer.respond(first.call, b"yes")
            peer.send(ADMITTED, 0, 0, 1)

        async def main() -> None:
            async with bellrope.AsyncClient(double.path) as client:
                kinds = await asyncio.gather(*[kind_of(client.call("unary")) for _ in range(2)])
                self.assertEqual(kinds, ["ok", "NotExecuted"])
                self.assertEqual(await client.call("unary", b"again"), b"again")

        with Double(leaves, echo) as double:
            run(main())

    def test_a_half_sent_request_has_not_run_and_a_sent_one_may_have(self) -> None:
        def gone(peer: Peer) -> None:
            peer.welcome()
            peer.record()

        async def main() -> None:
            for payload, kind in ((b"x" * (4 << 20), "NotExecuted"), (b"x", "Unknown")):
                async with bellrope.AsyncClient(double.path) as client:
                    self.assertEqual(await kind_of(client.call("unary", payload)), kind)

        with Double(gone) as double:
            run(main())

    def test_a_violation_ends_the_connection(self) -> None:
        def breaks(peer: Peer) -> None:
            peer.welcome()
            got = peer.request()
            peer.send(CHUNK, 0, got.call, 0)
            peer.heard_hang_up()

        async def main() -> None:
            async with bellrope.AsyncClient(double.path) as client:
                self.assertEqual(await kind_of(client.call("unary")), "Violation")
                self.assertEqual(await client.call("unary", b"x"), b"x")

        with Double(breaks, echo) as double:
            run(main())

    def test_closing_while_calls_wait_or_the_server_is_away_ends_them_all(self) -> None:
        async def main() -> None:
            before = len(asyncio.all_tasks())
            client = bellrope.AsyncClient(double.path, reconnect_timeout=60)
            calls = [asyncio.create_task(kind_of(client.call("unary"))) for _ in range(3)]
            await wait_for(lambda: client._link is not None and len(client._link.core._calls) == 3)
            await client.aclose()
            self.assertEqual([await call for call in calls], ["Closed"] * 3)

            away = bellrope.AsyncClient(double.path, reconnect_timeout=60)
            await away.connect()
            double.stop()
            await wait_for(lambda: away.state is State.RECONNECTING)
            call = asyncio.create_task(kind_of(away.call("unary")))
            await asyncio.sleep(0.01)
            await away.aclose()
            self.assertEqual(await call, "Closed")
            self.assertEqual(len(asyncio.all_tasks()), before)

        def silent(peer: Peer) -> None:
            peer.welcome()
            peer.heard_hang_up()

        with Double(silent) as double:
            run(main())

    def test_without_a_server_the_first_call_says_so(self) -> None:
        async def main() -> None:
            with self.assertRaises(bellrope.Connect) as caught:
                await bellrope.AsyncClient("/tmp/nobody/listens/here.sock").call("unary")
            self.assertEqual(caught.exception.reason, "NoServer")

        run(main())


class Contexts(unittest.TestCase):
    def test_listeners_see_the_context_of_whoever_registered_them(self) -> None:
        seen: List[str] = []

        async def main() -> None:
            client = bellrope.AsyncClient(double.path)
            where.set("here")
            client.on_state_change(lambda state: seen.append(f"{state.value} {where.get()}"))
            where.set("elsewhere")
            await client.connect()
            await wait_for(lambda: len(seen) == 2)
            await client.aclose()
            await wait_for(lambda: len(seen) == 3)

        with Double(lambda peer: peer.welcome(), echo) as double:
            run(main())
        self.assertEqual(seen, ["Reconnecting here", "Connected here", "Closed here"])

    def test_listeners_of_the_blocking_client_do_so_too(self) -> None:
        seen: List[str] = []
        where.set("here")
        with Double(lambda peer: peer.welcome(), echo) as double:
            with bellrope.Client(double.path, on_state_change=lambda state: seen.append(where.get())) as client:
                where.set("elsewhere")
                until = time.monotonic() + PATIENCE
                while len(seen) < 2 and time.monotonic() < until:
                    time.sleep(0.001)
                self.assertEqual(client.call("unary", b"x"), b"x")
        self.assertEqual(seen, ["here"] * 3)

    def test_another_thread_may_close_and_what_waits_ends(self) -> None:
        def script(peer: Peer) -> None:
            peer.welcome()
            peer.heard_hang_up()

        async def main() -> None:
            with Double(script) as server:
                client = bellrope.AsyncClient(server.path)
                call = asyncio.ensure_future(client.call("unary", b"x"))
                while client.state is not State.CONNECTED:
                    await asyncio.sleep(0.001)
                thread = threading.Thread(target=client.close)
                thread.start()
                with self.assertRaises(bellrope.Closed):
                    await asyncio.wait_for(call, PATIENCE)
                thread.join()
                await client.aclose()
                self.assertIs(client.state, State.CLOSED)

        run(main())

    def test_another_loop_is_told_that_it_is_the_wrong_one(self) -> None:
        async def call() -> None:
            with self.assertRaises(RuntimeError) as caught:
                await client.call("unary", timeout=None)
            self.assertIn("another event loop", str(caught.exception))

        async def main() -> None:
            await client.connect()
            thread = threading.Thread(target=lambda: asyncio.run(call()))
            thread.start()
            await asyncio.get_running_loop().run_in_executor(None, thread.join)
            loop = asyncio.get_running_loop()
            threadsafe = lambda: asyncio.run_coroutine_threadsafe(client.call("unary", b"x"), loop).result(
                PATIENCE
            )  # noqa: E731
            self.assertEqual(await loop.run_in_executor(None, threadsafe), b"x")
            await client.aclose()

        with Double(echo) as double:
            client = bellrope.AsyncClient(double.path)
            run(main())

    def test_streams_that_nobody_refers_to_any_more_are_cancelled_from_any_thread(self) -> None:
        kinds: List[int] = []

        def endless(peer: Peer) -> None:
            peer.welcome()
            got = peer.request()
            peer.send(CHUNK, 0, got.call, 0, b"x")
            kinds.append(peer.record().kind)

        async def main() -> None:
            async with bellrope.AsyncClient(double.path) as client:
                kept = [client.stream("stream")]
                await kept[0].__anext__()
                thread = threading.Thread(target=kept.clear)
                thread.start()
                thread.join()
                await wait_for(lambda: bool(kinds))

        with Double(endless) as double:
            run(main())
        self.assertEqual(kinds, [CANCEL])


class Credit(unittest.TestCase):
    def test_two_tasks_share_a_duplex_call(self) -> None:
        def turns(peer: Peer) -> None:
            peer.welcome(window=2000)
            call = peer.request().call
            for number in range(20):
                got = peer.record()
                peer.send(CHUNK, 0, call, number, got.payload.upper())
            while got.kind != END:
                got = peer.record()
            peer.send(END, 0, call, 20)

        async def main() -> None:
            async with bellrope.AsyncClient(double.path) as client, await client.duplex("duplex") as duplex:

                async def send() -> None:
                    for number in range(20):
                        self.assertTrue(await duplex.send(b"n%d" % number))
                    await duplex.end()

                sending = asyncio.create_task(send())
                self.assertEqual([chunk async for chunk in duplex], [b"N%d" % number for number in range(20)])
                await sending

        with Double(turns) as double:
            run(main())


if __name__ == "__main__":
    unittest.main()
