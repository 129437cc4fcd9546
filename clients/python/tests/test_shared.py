"""Streams that two threads or tasks share: what one does, the other one that waits learns at once."""

from __future__ import annotations

import asyncio
import threading
import unittest
from typing import Callable, Dict, List, Tuple

import bellrope

from .double import PATIENCE, Double, Peer
from .test_async_double import run
from .test_double import wait_for

# A stream without credit beyond its first chunk, of a server that says nothing.
WINDOW = 10


def silent(peer: Peer) -> None:
    peer.welcome(window=WINDOW)
    peer.heard_hang_up()


def next_of_stream(client: bellrope.Client) -> Tuple[Callable[[], object], Callable[[], object]]:
    stream = client.stream("stream")
    return lambda: next(stream), stream.close


def next_of_duplex(client: bellrope.Client) -> Tuple[Callable[[], object], Callable[[], object]]:
    duplex = client.duplex("duplex")
    return lambda: next(duplex), duplex.close


def finish(client: bellrope.Client) -> Tuple[Callable[[], object], Callable[[], object]]:
    upload = client.client_stream("upload")
    return upload.finish, upload.close


def send(client: bellrope.Client) -> Tuple[Callable[[], object], Callable[[], object]]:
    upload = client.client_stream("upload")
    upload.send(b"x" * WINDOW)
    return lambda: upload.send(b"y"), upload.close


def send_and_end(client: bellrope.Client) -> Tuple[Callable[[], object], Callable[[], object]]:
    duplex = client.duplex("duplex")
    duplex.send(b"x" * WINDOW)
    return lambda: duplex.send(b"y"), duplex.end


def next_and_a_send_in_vain(client: bellrope.Client) -> Tuple[Callable[[], object], Callable[[], object]]:
    duplex = client.duplex("duplex", timeout=0.2)
    duplex.send(b"x" * WINDOW)

    def in_vain() -> None:
        try:
            duplex.send(b"y")
        except bellrope.DeadlineExceeded:
            pass

    return lambda: next(duplex), in_vain


OUTCOMES: Dict[Callable[[bellrope.Client], Tuple[Callable[[], object], Callable[[], object]]], List[str]] = {
    next_of_stream: ["Cancelled"],
    next_of_duplex: ["Cancelled"],
    finish: ["Cancelled"],
    send: ["False", "Cancelled"],
    send_and_end: ["False"],
    next_and_a_send_in_vain: ["DeadlineExceeded"],
}


class Threads(unittest.TestCase):
    def test_what_one_thread_ends_another_one_does_not_wait_for(self) -> None:
        for beside_another in (False, True):
            for of, outcomes in OUTCOMES.items():
                with self.subTest(of.__name__, beside_another=beside_another):
                    self.ends(of, outcomes, beside_another)

    def ends(
        self,
        of: Callable[[bellrope.Client], Tuple[Callable[[], object], Callable[[], object]]],
        outcomes: List[str],
        beside_another: bool,
    ) -> None:
        found: List[str] = []

        def waits(action: Callable[[], object]) -> None:
            try:
                found.append(str(action()))
            except bellrope.CallError as error:
                found.append(error.kind)

        with Double(silent) as double, bellrope.Client(double.path) as client:
            token = bellrope.CancelToken()
            threads: List[threading.Thread] = []

            def begin(action: Callable[[], object], waiting: Callable[[], bool]) -> None:
                threads.append(threading.Thread(target=waits, args=(action,)))
                threads[-1].start()
                wait_for(waiting)

            link = client._link
            assert link is not None
            # The first one that waits reads for all.
            if beside_another:
                begin(lambda: client.call("unary", cancel=token), lambda: link.leader is not None)
            action, other = of(client)
            begin(action, lambda: bool(link.followers) if beside_another else link.leader is not None)
            other()
            threads[-1].join(PATIENCE / 2)
            self.assertFalse(threads[-1].is_alive(), "it still waits")
            self.assertIn(found[0], outcomes)
            token.cancel()
            for thread in threads:
                thread.join(PATIENCE)


class Tasks(unittest.TestCase):
    def test_what_one_task_ends_another_one_does_not_wait_for(self) -> None:
        async def main() -> None:
            async with bellrope.AsyncClient(double.path) as client:
                for ends in ("close", "end"):
                    duplex = await client.duplex("duplex")
                    await duplex.send(b"x" * WINDOW)
                    sending = asyncio.ensure_future(duplex.send(b"y"))
                    reading = asyncio.ensure_future(duplex.__anext__())
                    await asyncio.sleep(0)
                    await (duplex.aclose() if ends == "close" else duplex.end())
                    self.assertIs(await asyncio.wait_for(sending, PATIENCE), False)
                    await duplex.aclose()
                    with self.assertRaises(bellrope.Cancelled):
                        await asyncio.wait_for(reading, PATIENCE)

        with Double(silent) as double:
            run(main())
