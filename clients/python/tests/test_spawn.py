"""Servers that clients start. Needs BELLROPE_OWN_SERVER, the example `own_server` of the crate `bellrope`, which hands out
tickets from 1 on: callers with different tickets have one server. Its programs in Rust and Node are tried where they are."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import unittest
from typing import Any, List
from unittest import mock

import bellrope
from bellrope import Spawn, SpawnError, Started

from .double import Double, Peer, answer
from .styles import PATIENCE, wait_for

PROGRAM = os.environ.get("BELLROPE_OWN_SERVER", "")
ROUNDS = int(os.environ.get("BELLROPE_SPAWN_ROUNDS", "2"))
NODE = shutil.which("node") or ""
NODE_CLIENT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "node", "index.js"))

# Finds or starts the server in a process of its own, prints its ticket, and stays until its standard input ends.
CHILD = """
import sys, bellrope
program, path = sys.argv[1:]
with bellrope.Client.connect_or_spawn(path, bellrope.Spawn(program, ["serve", path])) as client:
    print(int(client.call("ticket")), flush=True)
    sys.stdin.read()
"""
NODE_CHILD = """
const [client, program, path] = process.argv.slice(1);
import(client).then(async ({ connectOrSpawn }) => {
  const found = await connectOrSpawn(path, { program, args: ['serve', path] });
  console.log(String(await found.call('ticket')));
  found.close();
});
"""


class Home:
    """Where a test has its files. The server that was started here ends with it."""

    def __init__(self, name: str = "home") -> None:
        self._folder = tempfile.mkdtemp(prefix="bellrope-spawn-")
        self.folder = os.path.join(self._folder, name)
        os.mkdir(self.folder)
        self.socket = os.path.join(self.folder, "run", "tickets.sock")
        self.started: List[Started] = []

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def spawn(self, **options: Any) -> Spawn:
        return Spawn(PROGRAM, ["serve", self.socket], on_start=self.started.append, **options)

    def script(self, script: str, **options: Any) -> Spawn:
        """A server of the shell's: $0 is the program, $1 the socket, $2 the folder."""
        arguments = ["-c", script, PROGRAM, self.socket, self.folder]
        return Spawn("/bin/sh", arguments, on_start=self.started.append, **options)

    def server(self) -> int:
        """The process that serves here, 0 if none does."""
        try:
            with open(f"{self.socket}.lock", encoding="ascii") as file:
                pid = int(file.read())
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return pid if os.fsencode(self.socket) in file.read().split(b"\0") else 0
        except (OSError, ValueError):
            return 0

    def close(self) -> None:
        pid = self.server()
        if pid:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not self.server())
        shutil.rmtree(self._folder, ignore_errors=True)


def contents(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


@unittest.skipUnless(PROGRAM, "BELLROPE_OWN_SERVER names no program")
class Spawning(unittest.TestCase):
    def setUp(self) -> None:
        self.home = self.another()
        state = {"XDG_STATE_HOME": self.home.path("state"), "BELLROPE_NO_SPAWN": ""}
        patched = mock.patch.dict(os.environ, state)
        patched.start()
        self.addCleanup(patched.stop)

    def another(self, name: str = "home") -> Home:
        home = Home(name)
        self.addCleanup(home.close)
        return home

    def ticket(self, home: Home, spawn: Spawn) -> int:
        with bellrope.Client.connect_or_spawn(home.socket, spawn) as client:
            return int(client.call("ticket"))

    def fails(self, spawn: Spawn, kind: Any = SpawnError) -> Any:
        with self.assertRaises(kind) as caught:
            bellrope.Client.connect_or_spawn(self.home.socket, spawn)
        return caught.exception

    # Races.

    def test_of_50_threads_from_cold_one_starts_the_server_and_all_are_answered(self) -> None:
        for _ in range(ROUNDS):
            home = self.another()
            tickets: List[int] = []
            begin = threading.Barrier(50)

            def ask(home: Home = home, begin: threading.Barrier = begin, tickets: List[int] = tickets) -> None:
                begin.wait()
                tickets.append(self.ticket(home, home.spawn()))

            threads = [threading.Thread(target=ask) for _ in range(50)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(sorted(tickets), list(range(1, 51)))
            self.assertEqual(len(home.started), 1)

    def test_of_50_tasks_from_cold_one_starts_the_server_and_all_are_answered(self) -> None:
        async def ask(home: Home) -> int:
            client = await bellrope.AsyncClient.connect_or_spawn(home.socket, home.spawn())
            async with client:
                return int(await client.call("ticket"))

        async def main(home: Home) -> None:
            self.assertEqual(sorted(await asyncio.gather(*(ask(home) for _ in range(50)))), list(range(1, 51)))

        for _ in range(ROUNDS):
            home = self.another()
            asyncio.run(main(home))
            self.assertEqual(len(home.started), 1)

    def test_of_ten_programs_in_three_languages_one_starts_the_server(self) -> None:
        programs = [[PROGRAM, self.home.socket]] * 4
        programs += [[sys.executable, "-c", CHILD, PROGRAM, self.home.socket]] * 3
        if NODE and os.path.exists(NODE_CLIENT):
            programs += [[NODE, "-e", NODE_CHILD, NODE_CLIENT, PROGRAM, self.home.socket]] * 3
        for _ in range(ROUNDS):
            running = [
                subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                for program in programs
            ]
            said = [process.communicate(timeout=60) for process in running]
            self.assertEqual({error for _, error in said}, {b""})
            tickets = [int("".join(filter(str.isdigit, out.decode()))) for out, _ in said]
            self.assertEqual(sorted(tickets), list(range(1, len(programs) + 1)))
            # One that had to give way to another one would have said so there.
            self.assertEqual(contents(self.home.path("state/bellrope/own_server.log")), "")
            os.kill(self.home.server(), signal.SIGKILL)
            wait_for(lambda: not self.home.server())

    def test_a_starter_that_is_killed_while_its_server_begins_leaves_nobody_waiting(self) -> None:
        child = """
import sys, bellrope
bellrope.Client.connect_or_spawn(sys.argv[1], bellrope.Spawn("/bin/sh", ["-c", 'echo $$ > "$0"; exec sleep 60', sys.argv[2]]))
"""
        starter = subprocess.Popen([sys.executable, "-c", child, self.home.socket, self.home.path("begun")])
        wait_for(lambda: os.path.exists(self.home.path("begun")) and contents(self.home.path("begun")).endswith("\n"))
        starter.kill()
        starter.wait()
        self.assertEqual(self.ticket(self.home, self.home.spawn()), 1)
        os.kill(int(contents(self.home.path("begun"))), signal.SIGKILL)

    def test_a_server_that_leaves_is_waited_for_and_followed_by_the_next(self) -> None:
        def leave(peer: Peer) -> None:
            peer.welcome(status=4, body=b"going away")

        os.mkdir(self.home.path("run"), 0o700)
        with Double(leave, path=self.home.socket) as leaving:
            found: List[int] = []
            thread = threading.Thread(target=lambda: found.append(self.ticket(self.home, self.home.spawn())))
            thread.start()
            wait_for(lambda: leaving.connections >= 3)
            self.assertEqual(self.home.started, [])
        thread.join(PATIENCE)
        self.assertEqual(found, [1])

    def test_a_server_that_ends_later_is_not_started_again_by_a_client_that_reconnects(self) -> None:
        with bellrope.Client.connect_or_spawn(self.home.socket, self.home.spawn(), reconnect_timeout=0.05) as client:
            os.kill(self.home.server(), signal.SIGKILL)
            wait_for(lambda: client.state is bellrope.State.RECONNECTING)
            with self.assertRaises(bellrope.Connect):
                client.call("ticket")
            self.assertEqual(len(self.home.started), 1)
            self.assertEqual(self.ticket(self.home, self.home.spawn()), 1)
            self.assertEqual(int(client.call("ticket", timeout=PATIENCE)), 2)

    def test_an_asyncio_client_of_a_started_server_connects_again(self) -> None:
        async def main() -> None:
            client = await bellrope.AsyncClient.connect_or_spawn(self.home.socket, self.home.spawn(), reconnect_timeout=20)
            async with client:
                os.kill(self.home.server(), signal.SIGKILL)
                while client.state is not bellrope.State.RECONNECTING:
                    await asyncio.sleep(0.001)
                second = await bellrope.AsyncClient.connect_or_spawn(self.home.socket, self.home.spawn())
                async with second:
                    self.assertEqual(int(await client.call("ticket")), 1)

        asyncio.run(main())

    # What goes wrong.

    def test_a_server_that_cannot_start_is_told_by_its_exit_code_and_its_last_line(self) -> None:
        error = self.fails(self.home.script("echo the licence has expired >&2; echo; exit 3"))
        self.assertEqual((error.reason, error.exit_code, error.last_line), ("Ended", 3, "the licence has expired"))
        self.assertEqual(error.log, self.home.path("state/bellrope/sh.log"))
        self.assertIn("(exit status: 3); its last line is: the licence has expired (its log is /", str(error))
        # Behind the reason there may be hints.
        hints = self.fails(self.home.script("echo early; echo 'error: no such flag'; echo; echo 'try --help'; exit 2"))
        self.assertEqual(hints.last_line, "error: no such flag")
        # A server that says nothing has said nothing, whatever stands in the log before.
        self.assertIsNone(self.fails(self.home.script("exit 1")).last_line)
        self.assertIn("(signal: 9)", str(self.fails(self.home.script("kill -9 $$"))))
        self.assertIsInstance(error, bellrope.Connect)

    def test_a_program_that_is_none_is_named(self) -> None:
        with open(self.home.path("text"), "w", encoding="ascii") as file:
            file.write("no program")
        for program, what in (
            (self.home.path("nothing"), "No such file or directory"),
            (self.home.path("text"), "Permission denied"),
            ("no-program-has-this-name", "No such file or directory"),
        ):
            error = self.fails(Spawn(program))
            self.assertEqual((error.reason, error.program), ("Start", program))
            self.assertIn(f"{program} cannot be started as a server: {what}", str(error))

    def test_where_the_current_directory_is_gone_only_what_lies_in_it_cannot_be_had(self) -> None:
        before = os.getcwd()
        gone = self.home.path("gone")
        os.mkdir(gone)
        os.chdir(gone)
        try:
            os.rmdir(gone)
            self.assertEqual(self.ticket(self.home, self.home.spawn()), 1)
            self.home = self.another()
            self.assertEqual(self.fails(Spawn("./program")).reason, "Start")
            self.assertEqual(self.fails(self.home.spawn(log="log")).reason, "Log")
            with self.assertRaises(SpawnError) as caught:
                bellrope.Client.connect_or_spawn("run/s", self.home.spawn())
            self.assertEqual(caught.exception.reason, "Io")
        finally:
            os.chdir(before)

    def test_a_server_that_never_answers_is_ended_when_its_time_is_over(self) -> None:
        error = self.fails(self.home.script("echo waiting; exec sleep 60", timeout=0.5))
        self.assertEqual((error.reason, error.last_line), ("TimedOut", "waiting"))
        self.assertIn(f"no server answered at {self.home.socket} within 0.5 s; its last line is: waiting", str(error))
        self.assertFalse(os.path.exists(f"/proc/{self.home.started[0].pid}"))

    def test_a_place_where_no_server_could_be_is_refused_before_anything_is_started(self) -> None:
        run = self.home.path("run")
        os.mkdir(run)
        os.chmod(run, 0o777)
        self.assertIn("can be written by others", str(self.fails(self.home.spawn())))
        os.rmdir(run)
        os.mkdir(self.home.path("elsewhere"), 0o700)
        os.symlink(self.home.path("elsewhere"), run)
        self.assertIn("is not a directory", str(self.fails(self.home.spawn())))
        os.unlink(run)
        with open(run, "w", encoding="ascii"):
            pass
        self.assertIn(run, str(self.fails(self.home.spawn(), bellrope.Connect)))
        self.assertEqual(self.home.started, [])

    def test_a_server_of_another_version_is_named_with_both_and_left_alone(self) -> None:
        text = b"this server speaks version 2.0, the client 1.1"
        two = (2).to_bytes(2, "little")

        def refuse(peer: Peer) -> None:
            refusal = answer(status=1, body=text, capacity=0, max_message=0, max_in_flight=0, window=0)
            peer.socket.sendall(refusal[:8] + two + refusal[10:])

        def accept(peer: Peer) -> None:
            peer.socket.sendall(answer()[:8] + two + answer()[10:])

        os.mkdir(self.home.path("run"), 0o700)
        with Double(refuse, accept, path=self.home.socket):
            for versions in ("version 2.0, the client 1.1", "version 2.1, this side 1.1"):
                error = self.fails(self.home.spawn())
                self.assertEqual(error.reason, "OtherVersion")
                for part in (self.home.socket, versions, "bring both to one version and end that server"):
                    self.assertIn(part, str(error))
        self.assertEqual(self.home.started, [])

    def test_what_is_there_and_is_no_server_is_left_alone(self) -> None:
        def stranger(peer: Peer) -> None:
            peer.socket.sendall(b"x" * 64)

        os.mkdir(self.home.path("run"), 0o700)
        with Double(stranger, path=self.home.socket):
            error = self.fails(self.home.spawn(), bellrope.Connect)
        self.assertNotIsInstance(error, SpawnError)
        self.assertEqual(self.home.started, [])

    def test_a_variable_forbids_to_start_a_server(self) -> None:
        with mock.patch.dict(os.environ, {"BELLROPE_NO_SPAWN": "1"}):
            error = self.fails(self.home.spawn())
            self.assertEqual(error.reason, "Forbidden")
            self.assertIn("no server listens at", str(error))
            self.assertIn("BELLROPE_NO_SPAWN is set", str(error))
        self.assertEqual((self.home.started, os.path.exists(self.home.path("run"))), ([], False))
        self.assertEqual(self.ticket(self.home, self.home.spawn()), 1)
        with mock.patch.dict(os.environ, {"BELLROPE_NO_SPAWN": "1"}):
            self.assertEqual(self.ticket(self.home, self.home.spawn()), 2)

    # What a server has of its starter.

    def test_a_server_has_nothing_of_its_starter_and_whoever_reads_its_output_sees_the_end(self) -> None:
        facts = 'cd /proc/$$ && cat stat && echo "$was" && ls -l fd && tr "\\0" "\\n" < environ'
        script = f'was=$(pwd -P); {{ {facts}; }} > "$2/facts"; exec "$0" serve "$1"'
        child = f"""
import os, sys, bellrope
arguments = ["-c", {script!r}, *sys.argv[1:]]
spawn = bellrope.Spawn("/bin/sh", arguments, inherit=["KEY_OF_A_PROVIDER"], env={{"RUST_LOG": "warn"}})
bellrope.Client.connect_or_spawn(sys.argv[2], spawn).close()
print("done")
"""
        with open(self.home.path("child.py"), "w", encoding="utf-8") as file:
            file.write(child)
        gone = self.home.path("worktree")
        os.mkdir(gone)
        with open(self.home.path("marker"), "w", encoding="ascii"):
            pass
        opened = " ".join(f'{number}<"$MARKER"' for number in range(3, 10))
        shell = f'exec {opened}; exec 2>&1 "$0" "$@"'
        kept = {"HOME": "/h", "LC_ALL": "C", "https_proxy": "p", "KEY_OF_A_PROVIDER": "k", "XDG_DATA_HOME": "/d"}
        others = {"SECRET": "s", "TMPDIR": "/t", "LD_LIBRARY_PATH": "/l", "NOTIFY_SOCKET": "/n", "MARKER": self.home.path("marker")}
        state = {"XDG_STATE_HOME": self.home.path("state"), "PYTHONPATH": os.pathsep.join(sys.path)}
        inherited = os.open(self.home.path("marker"), os.O_RDONLY)
        os.dup2(inherited, 100, inheritable=True)
        try:
            # This waits for the end of the output, which would not come if the server held it.
            said = subprocess.run(
                ["sh", "-c", shell, sys.executable, self.home.path("child.py"), PROGRAM, self.home.socket, self.home.folder],
                env={**kept, **others, **state},
                cwd=gone,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=[100],
                timeout=60,
                check=False,
            )
        finally:
            os.close(100)
            os.close(inherited)
        self.assertEqual(said.stdout, b"done\n")
        os.rmdir(gone)
        pid = self.home.server()
        line, cwd, *rest = contents(self.home.path("facts")).splitlines()
        fields = line.rsplit(") ", 1)[1].split()
        self.assertEqual((fields[2], fields[3], fields[4]), (str(pid), str(pid), "0"), "group, session, terminal")
        self.assertEqual(cwd, "/")
        # Of the shell: what it reads, its standard error (the output goes to the file of these facts), and what it keeps.
        targets = {entry.split(" -> ")[1] for entry in rest if " -> " in entry}
        log = self.home.path("state/bellrope/sh.log")
        self.assertEqual(targets, {"/dev/null", log, self.home.path("facts")})
        names = {entry.split("=")[0] for entry in rest if "=" in entry and " -> " not in entry}
        self.assertEqual(names - {"PWD", "OLDPWD", "_", "SHLVL"}, {*kept, "XDG_STATE_HOME", "RUST_LOG"})
        self.assertEqual(self.ticket(self.home, self.home.spawn()), 1)

    def test_signals_to_its_starters_group_do_not_reach_a_server(self) -> None:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTSTP):
            home = self.another()
            starter = subprocess.Popen(
                [sys.executable, "-c", CHILD, PROGRAM, home.socket],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            assert starter.stdin is not None and starter.stdout is not None
            self.assertEqual(starter.stdout.readline(), b"1\n")
            with bellrope.Client(home.socket) as other:
                pid = home.server()
                os.killpg(starter.pid, number)
                if number != signal.SIGTSTP:
                    starter.wait(PATIENCE)
                self.assertEqual([int(other.call("ticket")) for _ in range(100)], list(range(2, 102)))
                self.assertEqual(home.server(), pid)
            starter.kill()
            starter.wait(PATIENCE)
            starter.stdin.close()
            starter.stdout.close()

    # Places.

    def test_a_home_may_be_odd_or_not_be_there(self) -> None:
        odd = self.another("a b's \U0001f514 $(x) %s")
        self.assertEqual(self.ticket(odd, odd.spawn()), 1)
        # No home, or one that cannot be written to, as one that is shared and read-only: the log lies beside the socket.
        with open(self.home.path("file"), "w", encoding="ascii"):
            pass
        for variables in (
            {"HOME": "", "XDG_STATE_HOME": ""},
            {"HOME": "/proc", "XDG_STATE_HOME": ""},
            {"HOME": self.home.path("file"), "XDG_STATE_HOME": "relative"},
        ):
            home = self.another()
            with mock.patch.dict(os.environ, variables):
                self.assertEqual(self.ticket(home, home.spawn()), 1)
            self.assertEqual(home.started[0].log, f"{home.socket}.log")
        error = self.fails(self.home.spawn(log=self.home.path("file/log")))
        self.assertEqual(error.reason, "Log")

    def test_the_default_socket_is_that_of_the_user_whatever_temporary_directory_there_is(self) -> None:
        with mock.patch.dict(os.environ, {"XDG_RUNTIME_DIR": "/r", "TMPDIR": "/x"}):
            self.assertEqual(bellrope.default_socket_path(), "/r/bellrope/bellrope.sock")
        found = set()
        for temporary in ("/sandbox/1", "/sandbox/2", ""):
            with mock.patch.dict(os.environ, {"XDG_RUNTIME_DIR": "", "TMPDIR": temporary}):
                found.add(bellrope.default_socket_path())
        uid = os.geteuid()
        self.assertEqual(len(found), 1)
        self.assertLessEqual(found, {f"/run/user/{uid}/bellrope/bellrope.sock", f"/tmp/bellrope-{uid}/bellrope.sock"})

    def test_the_lock_lies_beside_the_socket_whatever_home_and_temporary_directory_are(self) -> None:
        for variables in ({"TMPDIR": self.home.path("t")}, {"HOME": self.home.path("shared over NFS")}):
            with mock.patch.dict(os.environ, variables):
                self.ticket(self.home, self.home.spawn())
        self.assertEqual(len(self.home.started), 1)
        files = {name for name in os.listdir(self.home.path("run"))}
        self.assertEqual(files, {"tickets.sock", "tickets.sock.lock", "tickets.sock.spawn"})
        self.assertEqual(stat.S_IMODE(os.stat(f"{self.home.socket}.spawn").st_mode), 0o600)

    def test_the_log_stays_within_its_bytes_however_often_a_server_fails(self) -> None:
        log = self.home.path("logs/server.log")
        script = 'i=0; while [ $i -lt 40 ]; do echo "line $i of a server that cannot start"; i=$((i + 1)); done; exit 1'
        for _ in range(12):
            self.fails(self.home.script(script, log=log, log_bytes=8192))
            sizes = [os.path.getsize(path) for path in (log, f"{log}.1") if os.path.exists(path)]
            self.assertLessEqual(sum(sizes), 8192)
        self.assertEqual(len(sizes), 2)
        self.assertEqual(stat.S_IMODE(os.stat(log).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.dirname(log)).st_mode), 0o700)

    def test_a_started_server_that_ends_leaves_no_zombie(self) -> None:
        self.ticket(self.home, self.home.spawn())
        pid = self.home.server()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"))

