"""Methods of typed services, of both clients and a real server. Needs BELLROPE_TYPED."""

from __future__ import annotations

import asyncio
import unittest
from typing import Any, Callable, List

import bellrope
from bellrope import Method, ServiceError

from .styles import PROGRAM, TYPED, Server, counts, wait_for
from .test_server import run

M = Method[Any, Any, Any]

SIZE: M = Method("Files.size", result=True)
TOUCH: M = Method("Files.touch")
SAME: M = Method("Files.same")
LINES: M = Method("Files.lines", result=True)
UPLOAD: M = Method("Files.upload", result=True)
EDIT: M = Method("Files.edit")
PART = {"name": "\U0001f514", "bytes": "ZGluZyE=", "at": [-7, 0.5]}


class Postcard:
    """As far as a text and a Result of one byte go."""

    name = "postcard"
    number = 2
    named = False

    def encode(self, value: Any, place: str) -> bytes:
        path: bytes = value["path"].encode()
        return bytes([len(path)]) + path

    def decode(self, data: bytes, place: str) -> Any:
        return {"Ok" if data[0] == 0 else "Err": data[1]}


@unittest.skipUnless(TYPED, "BELLROPE_TYPED names no server")
class Typed(unittest.TestCase):
    def setUp(self) -> None:
        self.server = Server(program=TYPED)
        self.addCleanup(self.server.__exit__, None, None, None)

    def client(self) -> bellrope.Client:
        client = bellrope.Client(self.server.path)
        self.addCleanup(client.close)
        return client

    def fails(self, kind: Any, call: Callable[[], Any]) -> Any:
        with self.assertRaises(kind) as caught:
            call()
        return caught.exception

    def test_methods_of_every_style_are_called_with_values(self) -> None:
        client = self.client()
        self.assertEqual(client.call_typed(SIZE, {"path": "ding"}), 4)
        self.assertIsNone(client.call_typed(TOUCH, {}))
        self.assertEqual(client.call_typed(SAME, {"part": PART}), PART)
        with client.stream_typed(LINES, {"path": "a/b"}) as items:
            self.assertEqual([next(items), next(items)], ["a", "b"])
        with client.client_stream_typed(UPLOAD, {"name": "abc"}) as upload:
            self.assertTrue(upload.send(PART) and upload.send(PART))
            self.assertEqual(upload.finish(), 13)
        with client.duplex_typed(EDIT, {}) as both:
            both.send("ding")
            both.send("dong")
            both.end()
            self.assertEqual(list(both), ["DING", "DONG"])
        self.assertEqual(client.call_json("Files.size", {"path": ""}), {"Err": "Missing"})
        self.assertEqual(next(client.stream_json("Files.lines", {"path": "a"})), {"Ok": "a"})
        self.assertEqual(client.client_stream_json("Files.upload", {"name": "a"}).finish(), {"Ok": 1})

    def test_an_error_of_the_application_is_a_value_and_no_failed_call(self) -> None:
        client = self.client()
        denied = self.fails(ServiceError, lambda: client.call_typed(SIZE, {"path": "/root"}))
        self.assertNotIsInstance(denied, bellrope.CallError)
        self.assertEqual((denied.method, denied.error), ("Files.size", {"Denied": {"path": "/root"}}))
        self.assertEqual(str(denied), 'Files.size: {"Denied": {"path": "/root"}}')
        missing = self.fails(ServiceError, client.client_stream_typed(UPLOAD, {"name": ""}).finish)
        self.assertEqual(missing.error, "Missing")
        broken: M = Method("Files.broken", result=True)
        self.assertEqual(self.fails(bellrope.Handler, lambda: client.call_typed(broken, {})).code, 7)
        named: M = Method("Files.size", result=True, read_error=lambda error: KeyError(error))
        self.assertIsInstance(self.fails(ServiceError, lambda: client.call_typed(named, {"path": ""})).error, KeyError)

    def test_a_stream_ends_with_an_error_in_a_loop_and_goes_on_behind_it_in_its_results(self) -> None:
        client = self.client()
        seen: List[Any] = []

        def loop() -> None:
            for line in client.stream_typed(LINES, {"path": "a/b"}):
                seen.append(line)

        self.assertEqual(self.fails(ServiceError, loop).error, "Missing")
        self.assertEqual(seen, ["a", "b"])
        first, error, last = client.stream_typed(LINES, {"path": "a"}).results()
        assert isinstance(error, ServiceError)
        self.assertEqual((first, error.error, last), ("a", "Missing", "after it"))

    def test_whole_numbers_are_exact_and_what_json_cannot_say_is_refused_before_it_is_sent(self) -> None:
        client = self.client()
        self.assertEqual(client.call_typed(SIZE, {"path": "huge"}), 2**64 - 1)
        part = {"name": '"12345678901234567890\\', "bytes": "", "at": [-(2**63), 1e300]}
        self.assertEqual(client.call_typed(SAME, {"part": part}), part)
        for value, what in ((float("nan"), "nan"), (float("inf"), "inf"), (b"bytes", "of type bytes")):
            at = [1, value]
            text = str(self.fails(bellrope.Unwritable, lambda: client.call_typed(SAME, {"part": {**part, "at": at}})))
            expected = f"Files.same: the arguments cannot be written: part.at[1] is {what}, which JSON cannot say"
            self.assertEqual(text, expected)
        circle: List[Any] = []
        circle += [circle, circle]
        for odd in (circle, {"a": [[[float("-inf")]]]}):
            self.fails(bellrope.Unwritable, lambda: client.call_typed(SAME, {"part": odd}))
        with self.assertRaises(bellrope.Unwritable):
            client.call_typed(SAME, {"part": {**part, "name": "\ud800"}})
        text = str(self.fails(bellrope.InvalidRequest, lambda: client.call_typed(SAME, {"part": {**part, "at": [0.5, 1]}})))
        self.assertIn("Files.same: the arguments cannot be read: ", text)

    def test_an_answer_that_is_none_is_unreadable(self) -> None:
        client = self.client()
        wrong: M = Method("Files.touch", result=True)
        self.assertIn("Ok", str(self.fails(bellrope.Unreadable, lambda: client.call_typed(wrong, {}))))
        odd: M = Method("Files.touch", read=lambda value: value.x)
        self.assertIn("'x'", str(self.fails(bellrope.Unreadable, lambda: client.call_typed(odd, {}))))

    def test_a_client_of_another_codec_or_of_other_types_without_names_is_refused_before_anything_is_sent(self) -> None:
        client = self.client()
        (known,) = (known for known in client.types() if known.name == "Places.size")
        self.assertEqual(known.codec, 2)
        self.assertNotEqual(known.schema, 0)

        def places(schema: int) -> M:
            return Method("Places.size", codec=Postcard(), schema=schema, result=True)

        self.assertEqual(client.call_typed(places(known.schema), {"path": "ding"}), 4)
        self.assertEqual(client.call_typed(places(0), {"path": "dong"}), 4)
        self.assertEqual(self.fails(ServiceError, lambda: client.call_typed(places(0), {"path": ""})).error, 0)
        stale = self.fails(bellrope.Incompatible, lambda: client.call_typed(places(known.schema ^ 1), {"path": "x"}))
        self.assertRegex(stale.differences, "^its types differ \\(0x[0-9a-f]{16} here, 0x[0-9a-f]{16} there\\)")
        self.assertFalse(stale.retryable)
        other: M = Method("Places.size", result=True)
        codec = self.fails(bellrope.Incompatible, lambda: client.call_typed(other, {"path": "x"}))
        self.assertEqual(codec.differences, "its codec is json here and postcard there")
        # With names, fields may have been added.
        named: M = Method("Files.size", schema=1, result=True)
        self.assertEqual(client.call_typed(named, {"path": "ding"}), 4)

    @unittest.skipUnless(PROGRAM, "BELLROPE_STYLES names no server")
    def test_every_way_to_leave_a_stream_of_values_drops_its_handler(self) -> None:
        with Server() as server, bellrope.Client(server.path) as client:
            for item in client.stream_json("count", 10**9):
                if item == 3:
                    break
            with client.stream_json("count", 10**9) as items:
                self.assertEqual(next(items.results()), 0)
            with self.assertRaises(KeyError):
                for item in client.stream_json("count", 10**9).results():
                    raise KeyError(item)
            with self.assertRaises(bellrope.DeadlineExceeded):
                for item in client.stream_json("count", 10**9, timeout=0.02):
                    pass
            unreadable: M = Method("count", read=lambda number: 1 // (3 - number))
            with self.assertRaises(bellrope.Unreadable):
                list(client.stream_typed(unreadable, 10**9))
            wait_for(lambda: counts(client)["running"] == 0)
            self.assertEqual(counts(client)["dropped"], 5)

            async def main() -> None:
                async with bellrope.AsyncClient(server.path) as other:
                    async for item in other.stream_json("count", 10**9):
                        if item == 3:
                            break
                    async with other.stream_json("count", 10**9) as items:
                        async for item in items.results():
                            break
                    with self.assertRaises(asyncio.TimeoutError):
                        await asyncio.wait_for(drain(other.stream_json("count", 10**9)), 0.02)
                    while counts(await other.call("calls"))["running"]:
                        await asyncio.sleep(0.001)
                    self.assertEqual(counts(await other.call("calls"))["dropped"], 8)

            async def drain(items: "bellrope.AsyncItems[Any]") -> None:
                async for _ in items:
                    pass

            run(main())

    def test_tasks_call_with_values(self) -> None:
        async def main() -> None:
            async with bellrope.AsyncClient(self.server.path) as client:
                sizes = await asyncio.gather(*(client.call_typed(SIZE, {"path": "x" * n}) for n in range(1, 9)))
                self.assertEqual(sizes, list(range(1, 9)))
                with self.assertRaises(ServiceError):
                    await client.call_typed(SIZE, {"path": ""})
                seen: List[Any] = []
                with self.assertRaises(ServiceError):
                    async for line in client.stream_typed(LINES, {"path": "a/b"}):
                        seen.append(line)
                async with client.stream_typed(LINES, {"path": "a"}) as items:
                    seen += [outcome async for outcome in items.results()]
                self.assertEqual((seen[:3], seen[3].error, seen[4]), (["a", "b", "a"], "Missing", "after it"))
                async with await client.client_stream_typed(UPLOAD, {"name": "abc"}) as upload:
                    await upload.send(PART)
                    self.assertEqual(await upload.finish(), 8)
                async with await client.duplex_typed(EDIT, {}) as both:
                    await both.send("ding")
                    await both.end()
                    self.assertEqual([said async for said in both], ["DING"])
                self.assertEqual(await client.call_json("Files.size", {"path": "a"}), {"Ok": 1})
                stale: M = Method("Places.size", codec=Postcard(), schema=1)
                with self.assertRaises(bellrope.Incompatible):
                    await client.call_typed(stale, {"path": "x"})

        run(main())
