"""Many threads that share one blocking client, in every style and with every kind of end, while its server is killed.
Needs BELLROPE_STYLES."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
import unittest
from typing import List

import bellrope

from .styles import PATIENCE, PROGRAM, Server, counts, wait_for

THREADS = 48
KILLS = 6


class _Worker:
    """One thread's calls, each compared with what must come of it."""

    def __init__(self, client: bellrope.Client, seed: int) -> None:
        self._client = client
        self._random = random.Random(seed)
        self.kinds: List[str] = []

    def run(self, stop: threading.Event) -> None:
        styles = [self._echo] * 7 + [self._late, self._download, self._upload]
        while not stop.is_set():
            try:
                self.kinds.append("ok" if self._random.choice(styles)() else "wrong")
            except bellrope.CallError as error:
                self.kinds.append(error.kind)

    def _echo(self) -> bool:
        message = os.urandom(self._random.choice((0, 8, 64, 3000, 100_000)))
        return self._client.call("echo", message, timeout=self._random.choice((PATIENCE, PATIENCE, 0.001))) == message

    def _late(self) -> bool:
        self._client.call("never", timeout=0.01)
        return False

    def _download(self) -> bool:
        count = self._random.randrange(50)
        return [int(chunk) for chunk in self._client.stream("count", b"%d" % count)] == list(range(count))

    def _upload(self) -> bool:
        chunks = [os.urandom(self._random.randrange(2000)) for _ in range(10)]
        upload = self._client.client_stream("join")
        for chunk in chunks:
            upload.send(chunk)
        return upload.finish() == b"".join(chunks)


UPLOADS = 24
CHUNKS = [bytes([number]) * 60_000 for number in range(30)]


@unittest.skipUnless(PROGRAM, "BELLROPE_STYLES names no server")
class Room(unittest.TestCase):
    """More is uploaded at once than may be queued, beside a call that hears nothing and so lets nobody else look."""

    def test_threads_that_wait_for_room_go_on_as_soon_as_there_is_some(self) -> None:
        uploaded: List[bool] = []

        def upload() -> None:
            stream = client.client_stream("join")
            for chunk in CHUNKS:
                stream.send(chunk)
            uploaded.append(stream.finish() == b"".join(CHUNKS))

        with Server() as server, bellrope.Client(server.path) as client:
            token = bellrope.CancelToken()
            quiet = threading.Thread(target=_never, args=(client, token), daemon=True)
            quiet.start()
            wait_for(lambda: counts(client)["running"] == 1)
            for _ in range(3):
                threads = [threading.Thread(target=upload, daemon=True) for _ in range(UPLOADS)]
                for thread in threads:
                    thread.start()
                until = time.monotonic() + PATIENCE
                for thread in threads:
                    thread.join(max(until - time.monotonic(), 0.0))
                    self.assertFalse(thread.is_alive(), "an upload waits for room that is there")
            self.assertTrue(quiet.is_alive())
            token.cancel()
            quiet.join(PATIENCE)
        self.assertEqual(uploaded, [True] * (3 * UPLOADS))

    def test_tasks_that_wait_for_room_go_on_as_soon_as_there_is_some(self) -> None:
        async def upload(client: bellrope.AsyncClient) -> bool:
            stream = await client.client_stream("join", timeout=PATIENCE)
            for chunk in CHUNKS:
                await stream.send(chunk)
            return await stream.finish() == b"".join(CHUNKS)

        async def main(path: str) -> None:
            async with bellrope.AsyncClient(path) as client:
                for _ in range(3):
                    self.assertTrue(all(await asyncio.gather(*(upload(client) for _ in range(UPLOADS)))))

        with Server() as server:
            asyncio.run(main(server.path))


def _never(client: bellrope.Client, token: bellrope.CancelToken) -> None:
    try:
        client.call("never", timeout=None, cancel=token)
    except bellrope.Cancelled:
        pass


@unittest.skipUnless(PROGRAM, "BELLROPE_STYLES names no server")
class Threads(unittest.TestCase):
    def test_every_call_ends_with_its_own_answer_or_a_stated_outcome_however_many_threads_share_a_client(self) -> None:
        with Server() as server, bellrope.Client(server.path, reconnect_timeout=PATIENCE) as client:
            stop = threading.Event()
            workers = [_Worker(client, seed) for seed in range(THREADS)]
            threads = [threading.Thread(target=worker.run, args=(stop,), daemon=True) for worker in workers]
            for thread in threads:
                thread.start()
            try:
                for _ in range(KILLS):
                    seen = [worker.kinds.count("ok") for worker in workers]
                    wait_for(lambda: all(worker.kinds.count("ok") > ok for worker, ok in zip(workers, seen)))
                    server.kill()
                    server.again()
            finally:
                stop.set()
            until = time.monotonic() + PATIENCE
            for thread in threads:
                thread.join(max(until - time.monotonic(), 0.0))
                self.assertFalse(thread.is_alive(), "a call does not end")
            kinds = {kind for worker in workers for kind in worker.kinds}
            self.assertLessEqual({"ok", "DeadlineExceeded"}, kinds)
            self.assertLessEqual(kinds, {"ok", "DeadlineExceeded", "Unknown", "NotExecuted"})
