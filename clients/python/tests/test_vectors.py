"""What docs/wire.md says, held against docs/vectors."""

from __future__ import annotations

import json
import unittest
from pathlib import Path
from typing import Any, Dict, List, Optional
from unittest import mock

import bellrope
from bellrope import _handshake, _records
from bellrope._core import Call, Core
from bellrope._credit import Inflow, Outflow
from bellrope._errors import from_record

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
                for known in welcome.types.values()
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


def welcome(capacity: int, max_message: int, max_in_flight: int, window: int) -> _handshake.Welcome:
    return _handshake.Welcome(1, capacity, max_message, max_in_flight, window, 0, {})


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
