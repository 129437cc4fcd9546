"""Calls the example `typed` through the client that `bellrope generate python` makes of it. mypy checks it, too: it warns
of a `type: ignore` that ignores nothing."""

import asyncio
import math
import sys
from typing import List

import bellrope
from typed_client import (
    AsyncFilesClient,
    AsyncOddClient,
    FileError,
    FilesClient,
    OddClient,
    Page,
    Part,
    Tree,
    Wide,
    Words,
)

PART: Part = {"name": "a", "bytes": "ZGluZyE=", "at": (-7, 0.5)}
BACK = {"name": "a", "bytes": "ZGluZyE=", "at": [-7, 0.5]}
WORDS: Words = {"from": "a", "class": 1, "constructor": True, "__proto__": "b", "with-dash": "🔔", "str": None}
TREE: Tree = {"Branch": {"left": {"Both": [1, -2]}, "right": {"Named": "x"}}}


def blocking(path: str) -> None:
    with bellrope.Client(path) as client:
        files, odd = FilesClient(client), OddClient(client)
        size: int = files.size("ding", timeout=30.0)
        assert size == 4
        assert files.size(path="huge") == 2**64 - 1
        files.touch()
        part: Part = files.same(PART)
        assert part == BACK, part
        part = files.same({"name": "a", "bytes": ""})
        assert part == {"name": "a", "bytes": "", "at": None}
        lines: List[str] = []
        for line in files.lines("a/b").results():
            if isinstance(line, bellrope.ServiceError):
                error: FileError = line.error
                assert error == "Missing"
            else:
                lines.append(line)
        assert lines == ["a", "b", "after it"]
        with files.upload("abc") as upload:
            upload.send(PART)
            total: int = upload.finish()
        assert total == 8
        with files.edit() as edit:
            edit.send("ding")
            edit.end()
            assert list(edit) == ["DING"]
        try:
            files.size("/root")
            raise AssertionError
        except bellrope.ServiceError as denied:
            assert denied.error == {"Denied": {"path": "/root"}}
        try:
            files.broken()
            raise AssertionError
        except bellrope.Handler:
            pass

        # Names that Python has for itself, and types of every form.
        assert odd.call(7, "here") == 7
        assert odd.call(from_="here", class_=7) == 7
        assert odd.close(WORDS) == WORDS
        assert odd.then(TREE) == TREE
        assert odd.then("Leaf") == "Leaf"
        assert odd.new({"7": 0.5}, ("a", None)) == [{"7": 0.5}, ["a", None]]
        page: Page = odd.constructor()
        assert page == {"items": [], "next": None}
        assert odd.constructor(timeout_=3, timeout=30.0) == {"items": [3], "next": None}
        assert odd.str_()["items"] == [{"items": [7], "next": 2**64 - 1}]
        try:
            odd.new({"1": math.nan}, ("a", True))
            raise AssertionError
        except bellrope.Unwritable:
            pass
        numbers(odd)


def numbers(odd: OddClient) -> None:
    """At the ends of their types: whole numbers are exact, and what JSON cannot say is an error at the sender."""
    wide: Wide = {
        "unsigned": 2**64 - 1,
        "signed": -(2**63),
        "widest": (2**128 - 1, -(2**127)),
        "float": 1e300,
        "by_number": {"18446744073709551615": 2**53 + 1, "0": 0},
    }
    assert odd.wide(wide) == {**wide, "widest": [2**128 - 1, -(2**127)]}
    for beyond in (2**64, -1):
        try:
            odd.wide({**wide, "unsigned": beyond})
            raise AssertionError
        except bellrope.InvalidRequest:
            pass
    for unsaid in (math.nan, math.inf, -math.inf):
        try:
            odd.wide({**wide, "float": unsaid})
            raise AssertionError
        except bellrope.Unwritable:
            pass
    try:
        odd.nowhere()
        raise AssertionError
    except bellrope.Handler:
        pass


def refused(files: FilesClient, odd: OddClient) -> None:
    """What the types refuse."""
    files.size()  # type: ignore[call-arg]
    files.size(path=1)  # type: ignore[arg-type]
    odd.call("seven", "a")  # type: ignore[arg-type]
    odd.then("Leef")  # type: ignore[arg-type]


async def asynchronous(path: str) -> None:
    async with bellrope.AsyncClient(path) as client:
        files, odd = AsyncFilesClient(client), AsyncOddClient(client)
        assert await files.size("ding") == 4
        await files.touch()
        lines: List[str] = []
        async with files.lines("a/b") as items:
            async for line in items.results():
                if not isinstance(line, bellrope.ServiceError):
                    lines.append(line)
        assert lines == ["a", "b", "after it"]
        upload = await files.upload("abc")
        await upload.send(PART)
        assert await upload.finish() == 8
        edit = await files.edit()
        await edit.send("ding")
        await edit.end()
        assert [text async for text in edit] == ["DING"]
        assert await odd.close(WORDS) == WORDS


blocking(sys.argv[1])
asyncio.run(asynchronous(sys.argv[1]))
