"""Both clients before a real server, which is killed now and then. Needs BELLROPE_STYLES."""

from __future__ import annotations

import asyncio
import importlib
import os
import pickle
import signal
import threading
import time
import unittest
from typing import Any, Callable, Coroutine, List

import bellrope
from bellrope import State

from .double import RESPONSE, record
from .styles import PATIENCE, PROGRAM, Server, counts, wait_for

BELL = "\U0001f514"
SIZES = (0, 1, 65535, 65536, 65537, 1 << 20, 10 << 20)


def pattern(size: int) -> bytes:
    """What `repeat` answers with."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a test, and fails if the loop had to report something."""
    reports: List[Any] = []

    async def watched() -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 60  # the machine may be busy
        loop.set_exception_handler(lambda _, context: reports.append(context))
        await asyncio.wait_for(main, 120)

    asyncio.run(watched())
    assert not reports, reports


async def nothing_runs(client: bellrope.AsyncClient) -> None:
    """Waits until the server has dropped every handler that was cancelled."""
    until = time.monotonic() + PATIENCE
    while counts(await client.call("calls"))["running"]:
        assert time.monotonic() < until, "a handler goes on"
        await asyncio.sleep(0.001)


@unittest.skipUnless(PROGRAM, "BELLROPE_STYLES names no server")
class WithServer(unittest.TestCase):
    server: Server

    def setUp(self) -> None:
        self.server = Server()
        self.addCleanup(self.server.__exit__, None, None, None)


class Blocking(WithServer):
    def test_every_style_is_called(self) -> None:
        with bellrope.Client(self.server.path) as client:
            styles = {known.name: known.style for known in client.types()}
            self.assertEqual(
                (styles["echo"], styles["count"], styles["join"]), ("unary", "server_stream", "client_stream")
            )
            self.assertEqual(client.call("echo", b"ding"), b"ding")
            self.assertEqual(list(client.stream("count", b"1000")), [b"%d" % number for number in range(1000)])
            with client.client_stream("join") as upload:
                for number in range(1000):
                    self.assertTrue(upload.send(b"%d," % number))
                self.assertEqual(upload.finish(), b"".join(b"%d," % number for number in range(1000)))
            with client.duplex("shout") as duplex:
                for word in (b"ding", b"", b"dong"):
                    duplex.send(word)
                duplex.end()
                self.assertEqual([word for word in duplex if word], [b"DING", b"DONG"])

    def test_messages_of_every_size_come_whole_both_ways(self) -> None:
        with bellrope.Client(self.server.path) as client:
            for size in SIZES:
                self.assertEqual(client.call("repeat", b"%d" % size), pattern(size))
                self.assertEqual(client.call("echo", pattern(size)), pattern(size))
            with self.assertRaises(bellrope.MessageTooLarge):
                client.call("echo", bytes((10 << 20) + 1))
            with self.assertRaises(bellrope.MessageTooLarge) as caught:
                client.call("repeat", b"%d" % ((10 << 20) + 1))
            self.assertEqual(caught.exception.size, (10 << 20) + 1)

    def test_letters_that_are_cut_between_chunks_come_whole(self) -> None:
        with bellrope.Client(self.server.path) as client:
            self.assertEqual("".join(client.stream("drip", (BELL * 50).encode()).text()), BELL * 50)

    def test_every_failure_has_its_outcome(self) -> None:
        with bellrope.Client(self.server.path) as client:
            with self.assertRaises(bellrope.Handler) as failed:
                client.call("fail", b"hoarse")
            self.assertEqual((failed.exception.code, failed.exception.text), (7, "hoarse"))
            with self.assertRaises(bellrope.InvalidRequest):
                client.call("refuse", b"no")
            with self.assertRaises(bellrope.HandlerPanic):
                client.call("panic", b"oh")
            with self.assertRaises(bellrope.UnknownMessageType) as unknown:
                client.call("ecko")
            self.assertEqual(unknown.exception.nearest[0], "echo")
            with self.assertRaises(bellrope.WrongStyle) as style:
                client.call("count")
            self.assertIn("stream()", str(style.exception))
            with self.assertRaises(bellrope.DeadlineExceeded):
                client.call("never", timeout=0.02)
            stream = client.stream("break")
            self.assertEqual(next(stream), b"half")
            with self.assertRaises(bellrope.Handler):
                next(stream)
            with self.assertRaises(TypeError):
                client.call("echo", "text")  # type: ignore[arg-type]

    def test_a_client_that_is_put_out_learns_which_rule_it_broke(self) -> None:
        ends: List[bellrope.CallError] = []

        def call() -> None:
            try:
                client.call("never")
            except bellrope.CallError as error:
                ends.append(error)

        with bellrope.Client(self.server.path) as client:
            calls = [threading.Thread(target=call) for _ in range(3)]
            for thread in calls:
                thread.start()
            wait_for(lambda: counts(client)["running"] == 3)
            assert client._link is not None
            client._link._socket.sendall(record(RESPONSE, 0, 1))
            for thread in calls:
                thread.join(PATIENCE)
            self.assertEqual([error.kind for error in ends], ["ClosedByServer"] * 3)
            for error in ends:
                assert isinstance(error, bellrope.ClosedByServer)
                self.assertIn("broke the protocol (bad_direction)", error.reason)
                self.assertTrue(error.may_have_run)
            self.assertEqual(client.call("echo", b"again"), b"again")

    def test_an_upload_that_is_answered_early_learns_it(self) -> None:
        with bellrope.Client(self.server.path) as client, client.client_stream("first") as upload:
            self.assertTrue(upload.send(b"one"))
            wait_for(lambda: not upload.send(b"more"))
            self.assertEqual(upload.finish(), b"one")

    def test_an_upload_that_nobody_reads_stops_and_ends_with_its_time(self) -> None:
        with bellrope.Client(self.server.path) as client:
            upload = client.client_stream("ignore", timeout=0.2)
            with self.assertRaises(bellrope.DeadlineExceeded):
                # The server watches the time as well; then sending is over, and `finish` tells why.
                while upload.send(bytes(1000)):
                    pass
                upload.finish()
            wait_for(lambda: counts(client)["running"] == 0)
            self.assertEqual(counts(client)["dropped"], 1)

    def test_leaving_a_stream_drops_its_handler(self) -> None:
        with bellrope.Client(self.server.path) as client:
            for _ in client.stream("count"):
                break
            with client.stream("count") as stream:
                next(stream)
            token = bellrope.CancelToken()
            stream = client.stream("count", cancel=token)
            next(stream)
            token.cancel()
            with self.assertRaises(bellrope.Cancelled):
                list(stream)
            wait_for(lambda: counts(client)["dropped"] == 3 and counts(client)["running"] == 0)

    def test_many_threads_share_a_client_and_each_gets_its_own(self) -> None:
        wrong: List[str] = []

        def work(thread: int) -> None:
            for number in range(50):
                text = b"%d %d" % (thread, number)
                if client.call("echo", text) != text:
                    wrong.append("echo")
                if number % 10 == 0 and client.call("repeat", b"%d" % (70_000 + thread)) != pattern(70_000 + thread):
                    wrong.append("repeat")
                if number % 10 == 5 and list(client.stream("count", b"20")) != [b"%d" % step for step in range(20)]:
                    wrong.append("count")

        with bellrope.Client(self.server.path) as client:
            threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
                self.assertFalse(thread.is_alive())
        self.assertEqual(wrong, [])

    def test_a_killed_server_leaves_every_call_with_one_outcome_and_is_found_again(self) -> None:
        ended: List[str] = []

        def call(what: Callable[[], Any]) -> None:
            try:
                what()
                ended.append("ok")
            except bellrope.CallError as error:
                ended.append(error.kind)

        with bellrope.Client(self.server.path, reconnect_timeout=PATIENCE) as client:
            calls: List[Callable[[], Any]] = [lambda: client.call("never"), lambda: list(client.stream("count"))]
            threads = [threading.Thread(target=call, args=(what,)) for what in calls]
            for thread in threads:
                thread.start()
            wait_for(lambda: counts(client)["running"] == 2)
            self.server.kill()
            for thread in threads:
                thread.join(PATIENCE)
            self.assertEqual(ended, ["Unknown", "Unknown"])
            wait_for(lambda: client.state is State.RECONNECTING)
            self.server.again()
            self.assertEqual(client.call("echo", b"again"), b"again")

    def test_killed_at_any_moment_no_call_hangs_or_gets_a_wrong_answer(self) -> None:
        with bellrope.Client(self.server.path, reconnect_timeout=PATIENCE) as client:
            stop = threading.Event()
            kinds: List[str] = []

            def work(thread: int) -> None:
                number = 0
                while not stop.is_set():
                    number += 1
                    text = b"%d %d " % (thread, number) + bytes(number % 3 * 100_000)
                    try:
                        kinds.append("ok" if client.call("echo", text) == text else "wrong")
                    except bellrope.CallError as error:
                        kinds.append(error.kind)

            threads = [threading.Thread(target=work, args=(thread,)) for thread in range(3)]
            for thread in threads:
                thread.start()
            for _ in range(5):
                seen = len(kinds)
                wait_for(lambda: len(kinds) > seen + 20)
                self.server.kill()
                self.server.again()
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
                self.assertFalse(thread.is_alive())
            self.assertLessEqual(set(kinds), {"ok", "Unknown", "NotExecuted"})

    def test_a_server_that_leaves_says_what_it_has_not_run(self) -> None:
        with bellrope.Client(self.server.path) as client:
            kinds: List[str] = []

            def never() -> None:
                try:
                    client.call("never")
                except bellrope.CallError as error:
                    kinds.append(error.kind)

            thread = threading.Thread(target=never)
            thread.start()
            wait_for(lambda: counts(client)["running"] == 1)
            self.server.leave()
            thread.join(PATIENCE)
            self.assertEqual(kinds, ["Unknown"], "it was taken")

    def test_a_stopped_server_holds_no_call_beyond_its_time(self) -> None:
        with bellrope.Client(self.server.path) as client:
            self.server.process.send_signal(signal.SIGSTOP)
            try:
                with self.assertRaises(bellrope.DeadlineExceeded):
                    client.call("echo", bytes(10 << 20), timeout=0.1)
                with self.assertRaises(bellrope.CallError):
                    bellrope.Client(self.server.path, connect_timeout=0.1)
            finally:
                self.server.process.send_signal(signal.SIGCONT)
            for number in range(100):
                self.assertEqual(client.call("echo", b"%d" % number), b"%d" % number)


class Forking(WithServer):
    def in_child(self, what: Callable[[], None]) -> None:
        """Runs something in a forked child, which must end well."""
        child = os.fork()
        if child == 0:
            try:
                what()
            except BaseException:
                os._exit(1)
            os._exit(0)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_a_child_can_neither_use_nor_harm_its_parents_client(self) -> None:
        def uses() -> None:
            try:
                client.call("echo")
            except bellrope.Closed:
                return
            os._exit(2)

        with bellrope.Client(self.server.path) as client:
            stream = client.stream("count")
            self.assertEqual(next(stream), b"0")
            for what in (uses, client.close, lambda: client.__exit__(None, None, None), stream.close, stream.__del__):
                self.in_child(what)
                self.assertEqual(client.call("echo", b"parent"), b"parent")
            self.assertEqual(next(stream), b"1")
            stream.close()
            wait_for(lambda: counts(client)["running"] == 0)

    def test_a_child_has_a_client_of_its_own(self) -> None:
        def calls() -> None:
            with bellrope.Client(self.server.path) as own:
                assert own.call("echo", b"child") == b"child"

        with bellrope.Client(self.server.path) as client:
            self.in_child(calls)
            self.assertEqual(client.call("echo", b"parent"), b"parent")

    def test_a_child_that_lives_on_does_not_keep_the_connection(self) -> None:
        with bellrope.Client(self.server.path) as observer:
            client = bellrope.Client(self.server.path)
            stream = client.stream("count")
            next(stream)
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(writer)
                os.read(reader, 1)
                os._exit(0)
            client.close()
            wait_for(lambda: counts(observer)["running"] == 0)
            os.close(writer)
            os.close(reader)
            os.waitpid(child, 0)

    def test_clients_are_not_pickled(self) -> None:
        with bellrope.Client(self.server.path) as client:
            for what in (client, bellrope.AsyncClient(self.server.path)):
                with self.assertRaises(TypeError) as caught:
                    pickle.dumps(what)
                self.assertIn("cannot be pickled", str(caught.exception))


class Asynchronous(WithServer):
    def test_every_style_is_called(self) -> None:
        async def main() -> None:
            async with bellrope.AsyncClient(self.server.path) as client:
                self.assertIn("echo", [known.name for known in await client.types()])
                self.assertEqual(await client.call("echo", b"ding"), b"ding")
                self.assertEqual(
                    [chunk async for chunk in client.stream("count", b"1000")],
                    [b"%d" % number for number in range(1000)],
                )
                async with await client.client_stream("join") as upload:
                    for number in range(1000):
                        self.assertTrue(await upload.send(b"%d," % number))
                    self.assertEqual(await upload.finish(), b"".join(b"%d," % number for number in range(1000)))
                async with await client.duplex("shout") as duplex:
                    await duplex.send(b"ding")
                    await duplex.end()
                    self.assertEqual([word async for word in duplex], [b"DING"])

        run(main())

    def test_messages_of_every_size_come_whole_side_by_side(self) -> None:
        async def main() -> None:
            async with bellrope.AsyncClient(self.server.path) as client:
                answers = await asyncio.gather(*[client.call("repeat", b"%d" % size) for size in SIZES])
                self.assertEqual(answers, [pattern(size) for size in SIZES])
                answers = await asyncio.gather(*[client.call("echo", pattern(size)) for size in SIZES])
                self.assertEqual(answers, [pattern(size) for size in SIZES])
                text = "".join([part async for part in client.stream("drip", (BELL * 50).encode()).text()])
                self.assertEqual(text, BELL * 50)

        run(main())

    def test_cancelled_at_every_await_point_the_next_thousand_calls_get_their_own_answers(self) -> None:
        async def main() -> None:
            async with bellrope.AsyncClient(self.server.path) as client:
                for name, payload in (("echo", b"x"), ("echo", bytes(3 << 20)), ("repeat", b"3000000"), ("never", b"")):
                    for steps in range(12):
                        task = asyncio.create_task(client.call(name, payload))
                        for _ in range(steps):
                            await asyncio.sleep(0)
                        task.cancel()
                        try:
                            await task
                        except asyncio.CancelledError:
                            pass
                for number in range(1000):
                    self.assertEqual(await client.call("echo", b"%d" % number), b"%d" % number)
                await nothing_runs(client)

        run(main())

    def test_every_way_to_leave_a_stream_drops_its_handler(self) -> None:
        async def reads(client: bellrope.AsyncClient) -> None:
            async for _ in client.stream("count"):
                await asyncio.sleep(0)

        async def main() -> None:
            async with bellrope.AsyncClient(self.server.path) as client:
                async for _ in client.stream("count"):
                    break
                task = asyncio.create_task(reads(client))
                await asyncio.sleep(0.01)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(reads(client), 0.01)
                await nothing_runs(client)

        run(main())

    def test_anyio_scopes_cancel_calls_and_streams(self) -> None:
        try:
            anyio: Any = importlib.import_module("anyio")
        except ImportError:
            self.skipTest("there is no anyio")

        async def main() -> None:
            async with bellrope.AsyncClient(self.server.path) as client:
                with anyio.move_on_after(0.01):
                    await client.call("never")
                with anyio.move_on_after(0.01):
                    async for _ in client.stream("count"):
                        pass
                async with anyio.create_task_group() as group:
                    group.start_soon(client.call, "never")
                    group.start_soon(client.call, "never")
                    await anyio.sleep(0.01)
                    group.cancel_scope.cancel()
                await nothing_runs(client)

        run(main())

    def test_a_killed_server_ends_each_call_once_and_is_found_again(self) -> None:
        states: List[State] = []

        async def outcome(what: Coroutine[Any, Any, object]) -> str:
            try:
                await what
                return "ok"
            except bellrope.CallError as error:
                return error.kind

        async def read(client: bellrope.AsyncClient) -> None:
            async for _ in client.stream("count"):
                pass

        async def main() -> None:
            path = self.server.path
            async with bellrope.AsyncClient(path, reconnect_timeout=PATIENCE, on_state_change=states.append) as client:
                for _ in range(3):
                    tasks = [asyncio.create_task(outcome(client.call("never"))) for _ in range(5)]
                    tasks.append(asyncio.create_task(outcome(read(client))))
                    while counts(await client.call("calls"))["running"] < 6:
                        await asyncio.sleep(0.001)
                    self.server.kill()
                    self.assertEqual(await asyncio.gather(*tasks), ["Unknown"] * 6)
                    call = asyncio.create_task(client.call("echo", b"again"))
                    await asyncio.get_running_loop().run_in_executor(None, self.server.again)
                    self.assertEqual(await call, b"again")

        run(main())
        self.assertEqual(states[:2], [State.RECONNECTING, State.CONNECTED])

    def test_a_client_that_is_put_out_learns_which_rule_it_broke(self) -> None:
        async def main() -> None:
            async with bellrope.AsyncClient(self.server.path) as client:
                calls = [asyncio.create_task(client.call("never")) for _ in range(3)]
                while counts(await client.call("calls"))["running"] < 3:
                    await asyncio.sleep(0.001)
                assert client._link is not None
                client._link._socket.sendall(record(RESPONSE, 0, 1))
                for error in await asyncio.gather(*calls, return_exceptions=True):
                    assert isinstance(error, bellrope.ClosedByServer), error
                    self.assertIn("broke the protocol (bad_direction)", error.reason)
                    self.assertTrue(error.may_have_run)
                self.assertEqual(await client.call("echo", b"again"), b"again")

        run(main())

    def test_a_thousand_calls_at_a_time(self) -> None:
        async def main() -> None:
            async with bellrope.AsyncClient(self.server.path) as client:
                calls = [client.call("echo", b"%d" % number) for number in range(1000)]
                self.assertEqual(await asyncio.gather(*calls), [b"%d" % number for number in range(1000)])

        run(main())


if __name__ == "__main__":
    unittest.main()
