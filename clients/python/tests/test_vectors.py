"""What docs/wire.md says, held against docs/vectors."""

from __future__ import annotations

import json
import struct
import unittest
from pathlib import Path
from typing import Any, Dict, List, Optional
from unittest import mock

import bellrope
from bellrope import _handshake, _records, _table
from bellrope._core import Call, Core
from bellrope._credit import Inflow, Outflow
from bellrope._errors import from_record
from bellrope._table import MessageType, Table

VECTORS = Path(__file__).resolve().parents[3] / "docs" / "vectors"
STYLE_OF = {1: 0, 2: 1, 3: 2, 4: 3}


def vectors(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def decode(data: bytes, limit: int = 1 << 30) -> Optional[_handshake.Welcome]:
    """Reads an answer as it would come, a few bytes at a time."""
    answer = _handshake.Answer(limit)
    welcome = None
    while welcome is None and answer.due:
        step = min(answer.due, 7)
        welcome = answer.feed(data[:step])
        data = data[step:]
    assert not data
    return welcome


def number(text: Optional[str]) -> Optional[int]:
    return None if text is None else int(text)


class Handshake(unittest.TestCase):
    def test_a_hello_has_the_bytes_of_the_vectors(self) -> None:
        for case in vectors("handshake.json")["hellos"]:
            (expected,) = (bytes.fromhex(of["bytes"]) for of in case["transports"] if of["transport"] == 1)
            self.assertEqual(_handshake.hello(case["name"], case["class"] == 1, int(case["features"])), expected)

    def test_an_answer_means_what_the_vectors_say(self) -> None:
        for case in vectors("handshake.json")["answers"]:
            welcome = decode(bytes.fromhex(case["bytes"]))
            assert welcome is not None
            for field in ("capacity", "max_message", "max_in_flight", "stream_window", "max_record"):
                self.assertEqual(getattr(welcome, field), case[field])
            self.assertEqual((welcome.connection, welcome.clock_us), (int(case["connection"]), int(case["clock_us"])))
            types = [
                {
                    "type": known.number,
                    "style": known.style,
                    "name": known.name,
                    "codec": known.codec,
                    "schema": str(known.schema),
                }
                for known in welcome.table.types.values()
            ]
            self.assertEqual(types, case["types"])

    def test_a_refusal_shows_its_text(self) -> None:
        for case in vectors("handshake.json")["refusals"]:
            with self.assertRaises(bellrope.Connect) as caught:
                decode(bytes.fromhex(case["bytes"]))
            self.assertEqual(caught.exception.status, case["name"])
            self.assertTrue(str(caught.exception).endswith(case["text"]))

    def test_an_invalid_answer_is_refused(self) -> None:
        words = {"magic": "does not speak Bellrope", "version": "speaks version"}
        for case in vectors("handshake.json")["invalid_answers"]:
            with self.assertRaises(bellrope.Connect) as caught:
                decode(bytes.fromhex(case["bytes"]))
            self.assertIn(words.get(case["wrong"], f"the field {case['wrong']} "), str(caught.exception))


class Tables(unittest.TestCase):
    def test_a_table_comes_whole_with_its_pages(self) -> None:
        for case in vectors("table.json")["answers"]:
            answer = bytes.fromhex(case["answer"]) if "answer" in case else made_answer(case)
            welcome = decode(answer)
            assert welcome is not None
            self.assertEqual(welcome.table.changes, case["entries"] is not None)
            found = list(welcome.table.types.values())
            if "made" in case:
                self.assertEqual(found, [made(number, case) for number in range(1, case["known"] + 1)])
            else:
                self.assertEqual([shown(of, case) for of in found], case["types"])

    def test_an_answer_whose_table_is_wrong_is_refused(self) -> None:
        everything = vectors("table.json")
        for case in everything["invalid_answers"]:
            with self.assertRaises(bellrope.Connect, msg=case["what"]) as caught:
                decode(bytes.fromhex(case["answer"]))
            self.assertIn(f"the field {case['wrong']} ", str(caught.exception), case["what"])
        pages = everything["invalid_pages"]
        (of,) = (answer for answer in everything["answers"] if answer.get("made") == pages["made"] and answer["entries"])
        whole = made_answer(of)
        begin = whole.index(bytes.fromhex(of["page_heads"][0]))
        for case in pages["cases"]:
            head = bytes.fromhex(case["head"])
            with self.assertRaises(bellrope.Connect, msg=case["what"]) as caught:
                decode(whole[:begin] + head + whole[begin + len(head) :])
            self.assertIn(f"the field {case['wrong']} ", str(caught.exception), case["what"])

    def test_changes_are_followed_and_what_does_not_fit_is_a_violation(self) -> None:
        for group in vectors("table.json")["changes"]:
            for case in group["cases"]:
                core = Core(welcome(65536, 1 << 20, 8, 65536, table_of(group)))
                call = core.begin(1, 0, b"", None)
                if "rule" in case:
                    with self.assertRaises(bellrope.Violation, msg=case["record"]) as caught:
                        core.receive(bytes.fromhex(case["record"]))
                    self.assertEqual(caught.exception.name, case["rule"])
                    continue
                core.receive(bytes.fromhex(case["record"]))
                found = core.welcome.table.types.values()
                self.assertEqual([shown(of, group) for of in found], case["types"])
                self.assertFalse(call.done, "calls under way go on")

    def test_a_change_that_nobody_asked_for_or_that_is_none_is_a_violation(self) -> None:
        of = {"entries": 1, "features": "32", "before": [{"name": "echo", "style": "unary", "type": 1}]}
        change = bytes.fromhex("0400000000000c01000000000000000000000000000000000100ff00")
        for what, record, hears, rule in (
            ("nobody asked", change, False, "bad_direction"),
            ("a call id", change[:8] + b"\1" + change[9:], True, "bad_form"),
            ("another call id", change[:8] + b"\x63" + change[9:], True, "bad_form"),
            ("a type", change[:4] + b"\1" + change[5:], True, "bad_form"),
            ("no extension", change[:7] + b"\0" + change[8:16] + change[24:], True, "bad_form"),
            ("nothing in it", b"\0" + change[1:24], True, "bad_form"),
        ):
            core = Core(welcome(65536, 1 << 20, 8, 65536, table_of(of) if hears else Table()))
            core.begin(1, 0, b"", None)
            with self.assertRaises(bellrope.Violation, msg=what) as caught:
                core.receive(record)
            self.assertEqual(caught.exception.name, rule, what)


class Records(unittest.TestCase):
    def test_records_have_the_bytes_of_the_vectors(self) -> None:
        for case in vectors("records.json")["valid"]:
            payload = bytes.fromhex(case["payload"])
            head = _records.head(case["kind"], case["type"], int(case["call"]), number(case["extension"]), len(payload))
            self.assertEqual((head + payload).hex(), case["bytes"])

    def test_records_are_cut_anywhere(self) -> None:
        of_server = [case for case in vectors("records.json")["valid"] if case["kind"] > 3]
        whole = b"".join(bytes.fromhex(case["bytes"]) for case in of_server)
        for step in (1, 2, 7, 16, 17, len(whole)):
            reader = _records.Reader(65536)
            found = [got for at in range(0, len(whole), step) for got in reader.feed(whole[at : at + step])]
            self.assertEqual([got.payload.hex() for got in found], [case["payload"] for case in of_server])
            self.assertEqual([got.call for got in found], [int(case["call"]) for case in of_server])

    def test_invalid_headers_are_refused_by_name(self) -> None:
        for case in vectors("records.json")["invalid_headers"]:
            with self.assertRaises(bellrope.Violation) as caught:
                list(_records.Reader(65536).feed(bytes.fromhex(case["bytes"]) + bytes(8)))
            self.assertEqual(caught.exception.name, case["rule"], case["what"])

    def test_error_records_mean_the_outcomes_of_the_vectors(self) -> None:
        for case in vectors("errors.json")["errors"]:
            (got,) = _records.Reader(65536).feed(bytes.fromhex(case["bytes"]))
            error = from_record(got.message_type, got.extension, got.payload, 10 << 20)
            self.assertEqual(error.kind, case["outcome"])
            if isinstance(error, bellrope.Rejected):
                after = case["retry_after_ms"]
                self.assertEqual((error.reason, error.retry_after), (case["reason"], after and after / 1000))
            if isinstance(error, bellrope.MessageTooLarge):
                self.assertEqual(error.size, int(case["detail"]))
            elif isinstance(error, bellrope.Handler):
                self.assertEqual((error.code, error.text), (int(case["detail"]), case["text"]))
            self.assertEqual(error.retryable, case["outcome"] in ("Rejected", "NotExecuted", "Connect"))


class Streams(unittest.TestCase):
    def test_credit_runs_as_in_the_vectors(self) -> None:
        for run in vectors("credit.json")["runs"]:
            sender, receiver = Outflow(run["window"]), Inflow(run["window"])
            returned = 0
            for step in run["steps"]:
                if "send" in step:
                    self.assertEqual(sender.available, step["allowed"])
                    if step["allowed"]:
                        receiver.take(sender.number, step["send"])
                        sender.spend(step["send"])
                elif "consume" in step:
                    self.consume(run, step, receiver)
                    returned = step["owed"]
                elif "return" in step and step["return"]:
                    self.assertEqual(step["return"], returned)
                    sender.refill(returned)
                elif "add" in step:
                    self.add(sender, step)
                self.assertEqual(sender._balance, step["balance"])

    def consume(self, run: Dict[str, Any], step: Dict[str, Any], receiver: Inflow) -> None:
        # A client returns credit at once when it is due; the vectors may wait with it.
        probe = Inflow(run["window"])
        probe._owed = step["owed"] - step["consume"] - 64
        self.assertEqual(probe.consumed(step["consume"]), step["owed"] if step["due"] else 0)
        receiver.consumed(step["consume"])

    def add(self, sender: Outflow, step: Dict[str, Any]) -> None:
        if step["allowed"]:
            sender.refill(int(step["add"]))
            return
        with self.assertRaises(bellrope.Violation) as caught:
            sender.refill(int(step["add"]))
        self.assertEqual(caught.exception.name, "credit_overflow")

    def test_messages_are_cut_as_in_the_vectors(self) -> None:
        for case in vectors("parts.json")["messages"]:
            core = Core(welcome(case["capacity"], case["max_message"], 1, 1))
            core.begin(1, 0, bytes(case["size"]), None)
            lengths = [len(got["payload"]) for got in sent(core)]
            self.assertEqual(lengths, [case["part"]] * case["fragments"] + [case["last"]])


class Connections(unittest.TestCase):
    def test_every_rule_that_a_server_breaks_has_its_name(self) -> None:
        terms = vectors("violations.json")
        for case in terms["from_server"]["cases"]:
            core = Core(of_terms(terms))
            for message_type in (1, 2, 3, 4, 1):
                core.begin(message_type, STYLE_OF[message_type], b"", None)
            sent(core)
            found = None
            try:
                for got in case["records"]:
                    self.assertIsNone(found)
                    core.receive(bytes.fromhex(got))
            except bellrope.Violation as violation:
                found = violation.name
            self.assertEqual(found, case["rule"], case["what"])

    def test_calls_of_a_lost_server_end_as_in_the_vectors(self) -> None:
        terms = vectors("lost.json")
        for case in terms["cases"]:
            core = Core(of_terms(terms))
            calls = []
            for size in terms["requests"]:
                calls.append(core.begin(1, 0, bytes(size), None))
                core.pending()  # or a small request would overtake the parts of a large one
            left = case["sent"]
            while left:
                count = min(left, sum(len(part) for part in core.pending()))
                core.sent(count)
                left -= count
            if case["admitted"] is not None:
                core.receive(_records.head(_records.ADMITTED, 0, 0, case["admitted"]))
            core.lose()
            self.assertEqual([call.error and call.error.kind for call in calls], case["outcomes"], case["what"])

    def test_whole_calls_travel_as_in_the_vectors(self) -> None:
        everything = vectors("conversations.json")
        for name, steps in everything["conversations"].items():
            # One part at a time, as the vectors were made.
            with self.subTest(name), mock.patch("bellrope._core._LOW", 1):
                Replay(Core(of_terms(everything)), steps).run(self)


class Replay:
    """Does as a client what the client of a conversation did."""

    def __init__(self, core: Core, steps: List[Dict[str, Any]]) -> None:
        self.core = core
        self.steps = steps
        self.calls: Dict[int, Call] = {}
        self.out = b""

    def run(self, test: unittest.TestCase) -> None:
        for step in self.steps:
            data = bytes.fromhex(step["bytes"])
            if step["from"] == "server":
                test.assertEqual(self.out, b"")
                for at in range(len(data)):
                    self.core.receive(data[at : at + 1])
                continue
            if not self.out:
                self.out = self.drain()
            if not self.out:
                self.act(step)
                self.out = self.drain()
            test.assertEqual(self.out[: len(data)].hex(), data.hex())
            self.out = self.out[len(data) :]
        test.assertTrue(all(call.done for call in self.calls.values()))

    def act(self, step: Dict[str, Any]) -> None:
        call, payload = self.calls.get(int(step["call"])), bytes.fromhex(step["payload"])
        if call is None:
            deadline = number(step["extension"])
            if step["kind"] == "fragment":
                payload = payload[:1] * int(step["extension"])
                deadline = None
            # Only unary requests are large in the vectors.
            message_type = step["type"] or 1
            self.calls[int(step["call"])] = self.core.begin(message_type, STYLE_OF[message_type], payload, deadline)
        elif step["kind"] == "chunk":
            assert self.core.may_send(call) and self.core.send_chunk(call, payload)
        elif step["kind"] == "end":
            self.core.end_upload(call)
        elif step["kind"] == "cancel":
            self.core.cancel(call, bellrope.Cancelled())
        elif step["kind"] == "credit":
            while call.chunks and not self.core.wants_write:
                self.core.take_chunk(call)

    def drain(self) -> bytes:
        data = b"".join(self.core.pending())
        self.core.sent(len(data))
        return data


def welcome(
    capacity: int, max_message: int, max_in_flight: int, window: int, table: Optional[Table] = None
) -> _handshake.Welcome:
    return _handshake.Welcome(1, capacity, max_message, max_in_flight, window, 0, table or Table())


def made(number: int, case: Dict[str, Any]) -> MessageType:
    """A type by the rule `made` of table.json."""
    marked = int(case["features"]) & _handshake.SCHEMAS
    return MessageType(f"{number:0250}", "unary", number, 1 if marked else 0, (1 << 64) - 1 - number if marked else 0)


def made_answer(case: Dict[str, Any]) -> bytes:
    """The answer with such types, of which the file has the heads."""
    types = [entry(made(number, case), case) for number in range(1, case["made"] + 1)]
    assert b"".join(types).hex().startswith(case["first"])
    data = bytes.fromhex(case["head"]) + b"".join(types[: case["in_body"]])
    for head in map(bytes.fromhex, case["page_heads"]):
        first, count, length = struct.unpack("<HHI", head)
        page = b"".join(types[first : first + count])
        assert len(page) == length
        data += head + page
    return data


def entry(of: MessageType, case: Dict[str, Any]) -> bytes:
    name = of.name.encode()
    mark = struct.pack("<BQ", of.codec, of.schema) if int(case["features"]) & _handshake.SCHEMAS else b""
    return struct.pack("<HBB", of.number, _table.STYLES.index(of.style), len(name)) + name + mark


def shown(of: MessageType, case: Dict[str, Any]) -> Dict[str, Any]:
    """A type as table.json shows it."""
    plain = {"name": of.name, "style": of.style, "type": of.number}
    return {**plain, "codec": of.codec, "hash": str(of.schema)} if int(case["features"]) & 1 else plain


def table_of(group: Dict[str, Any]) -> Table:
    """The table before a change."""
    types = [
        MessageType(of["name"], of["style"], of["type"], of.get("codec", 0), int(of.get("hash", 0)))
        for of in group["before"]
    ]
    table = Table(bool(int(group["features"]) & 1), len(types))
    table.body(b"".join(entry(of, group) for of in types))
    return table


def of_terms(terms: Dict[str, Any]) -> _handshake.Welcome:
    return welcome(terms["capacity"], terms["max_message"], terms["max_in_flight"], terms["stream_window"])


def sent(core: Core) -> List[Dict[str, Any]]:
    """The records that a connection wants to send."""
    data = b""
    while core.wants_write:
        more = b"".join(core.pending())
        core.sent(len(more))
        data += more
    found = []
    while data:
        length, begin = int.from_bytes(data[:4], "little"), 24 if data[7] else 16
        found.append({"kind": data[6], "payload": data[begin : begin + length]})
        data = data[begin + length :]
    return found


if __name__ == "__main__":
    unittest.main()
