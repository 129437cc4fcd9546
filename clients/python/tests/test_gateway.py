"""The example asks a real gateway, and the README does what it says. The first needs BELLROPE_PROGRAM."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import bellrope

from .double import CANCEL, CHUNK, CREDIT, END, RESPONSE, Double, Peer

PROGRAM = os.environ.get("BELLROPE_PROGRAM", "")
HOME = Path(__file__).resolve().parent.parent
PATIENCE = 30.0


@unittest.skipUnless(PROGRAM, "BELLROPE_PROGRAM names no program")
class Gateway(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.mkdtemp(prefix="bellrope-gateway-")
        self.addCleanup(shutil.rmtree, folder, True)
        self.socket = os.path.join(folder, "private", "s")
        self.environment = dict(os.environ, BELLROPE_SOCKET=self.socket, HOME=folder, XDG_CONFIG_HOME=folder)
        command = [PROGRAM, "serve", "--socket", self.socket]
        self.server = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.addCleanup(self.server.wait, PATIENCE)
        self.addCleanup(self.server.kill)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                bellrope.Client(self.socket).close()
                return
            except bellrope.Connect:
                self.assertIsNone(self.server.poll(), "the server has ended")
                self.assertLess(time.monotonic(), until, "the server did not come up")
                time.sleep(0.01)

    def test_the_example_prints_an_answer(self) -> None:
        command = [sys.executable, str(HOME / "examples" / "chat.py"), "Hello?"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertGreater(len(done.stdout.strip()), 10)

    def test_every_message_type_is_listed(self) -> None:
        with bellrope.Client(self.socket) as client:
            names = {known.name for known in client.types()}
        self.assertLessEqual({"echo", "ai.chat", "ai.chat_stream", "ai.models", "ai.health"}, names)

    def test_an_answer_that_is_left_in_the_middle_leaves_the_connection_whole(self) -> None:
        request = b'{"messages":[{"role":"user","content":"Hello"}]}'
        with bellrope.Client(self.socket) as client:
            for _ in range(20):
                for _ in client.stream("ai.chat_stream", request):
                    break
                self.assertEqual(client.call("echo", b"ding"), b"ding")


class Readme(unittest.TestCase):
    def test_its_code_runs(self) -> None:
        types = (("echo", 0), ("ai.chat_stream", 1), ("join", 2), ("shout", 3), ("Files.size", 0))

        def serve(peer: Peer) -> None:
            table = b"".join(
                number.to_bytes(2, "little") + bytes((style, len(name))) + name.encode()
                for number, (name, style) in enumerate(types, 1)
            )
            peer.welcome(body=table)
            style = 0
            while True:
                got = peer.record()
                if got.kind in (CANCEL, CREDIT):
                    continue
                if got.message_type == 1:
                    peer.respond(got.call, got.payload)
                elif got.message_type == 2:
                    peer.send(CHUNK, 0, got.call, 0, b"{}")
                    peer.send(END, 0, got.call, 1)
                elif got.kind == END:
                    # Of "join" it ends what is waited for, of "shout" as well.
                    peer.send(RESPONSE if style == 3 else END, 0, got.call, None if style == 3 else 0)
                elif got.message_type == 5:
                    peer.respond(got.call, b'{"Ok":2}')
                elif got.message_type:
                    style = got.message_type

        folder = tempfile.mkdtemp(prefix="bellrope-readme-")
        self.addCleanup(shutil.rmtree, folder, True)
        os.mkdir(os.path.join(folder, "bellrope"))
        text = (HOME / "README.md").read_text(encoding="utf-8")
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        self.assertEqual(len(blocks), 4)
        with Double(serve, path=os.path.join(folder, "bellrope", "bellrope.sock")):
            for block in blocks:
                environment = dict(os.environ, XDG_RUNTIME_DIR=folder)
                done = subprocess.run(
                    [sys.executable, "-c", block], env=environment, capture_output=True, text=True, timeout=PATIENCE
                )
                self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
