// Servers that clients start. BELLROPE_OWN_SERVER names the program of crates/bellrope/examples/own_server.rs, which hands out
// tickets from 1 on: callers with different tickets have one server. Skipped without it. That programs in Rust, Python and
// Node which race have one server is tried by the tests of the client in Python.

import assert from 'node:assert/strict';
import { spawn as spawnProcess } from 'node:child_process';
import { chmodSync, closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Connect, connectOrSpawn, decodeText, SpawnError } from '../index.js';
import { atEnd, remove } from './at-end.js';
import { encodeAnswer, startFake } from './fake-server.js';

const PROGRAM = process.env.BELLROPE_OWN_SERVER;
const ROUNDS = Number(process.env.BELLROPE_SPAWN_ROUNDS ?? 2);
const CLIENT = fileURLToPath(new URL('../index.js', import.meta.url));
const options = { timeout: 120_000, skip: PROGRAM ? false : 'BELLROPE_OWN_SERVER names no program' };

// The server that was started here ends with the test.
class Home {
  started = [];

  constructor(t, name = '') {
    const folder = mkdtempSync(join(tmpdir(), 'bellrope-spawn-'));
    this.folder = join(folder, name);
    mkdirSync(this.folder, { recursive: true });
    this.socket = join(this.folder, 'run', 'tickets.sock');
    atEnd(t, async () => {
      await this.end();
      remove(folder);
    });
  }

  path(name) {
    return join(this.folder, name);
  }

  spawn(of = {}) {
    return { program: PROGRAM, args: ['serve', this.socket], onStart: (started) => this.started.push(started), ...of };
  }

  // A server of the shell's: $0 is the program, $1 the socket, $2 the folder.
  script(script, of = {}) {
    return this.spawn({ program: '/bin/sh', args: ['-c', script, PROGRAM, this.socket, this.folder], ...of });
  }

  server() {
    try {
      const pid = Number(readFileSync(`${this.socket}.lock`, 'utf8'));
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(this.socket) ? pid : 0;
    } catch {
      return 0;
    }
  }

  // Ends the server, and waits until it is gone: until then it may write into the folder. It may be anybody's child.
  async end() {
    for (const until = Date.now() + 60_000; ; ) {
      const pid = this.server();
      if (pid === 0) return;
      assert.ok(Date.now() < until, `the server ${pid} does not end`);
      try {
        process.kill(pid, 'SIGKILL');
      } catch (error) {
        if (error.code !== 'ESRCH') throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async ticket(spawn = this.spawn(), of = {}) {
    const client = await connectOrSpawn({ path: this.socket, connectTimeout: 60_000, ...of }, spawn);
    const ticket = Number(decodeText(await client.call('ticket')));
    client.close();
    return ticket;
  }

  async fails(spawn) {
    const error = await this.ticket(spawn).then(() => null, (failed) => failed);
    assert.ok(error instanceof Connect, error?.stack);
    return error;
  }
}

function variables(t, values) {
  const before = { ...process.env };
  Object.assign(process.env, values);
  atEnd(t, () => {
    for (const name of Object.keys(values)) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  });
}

function homeOf(t) {
  const home = new Home(t);
  variables(t, { XDG_STATE_HOME: home.path('state'), BELLROPE_NO_SPAWN: '' });
  return home;
}

async function output(command, args, of = {}) {
  const child = spawnProcess(command, args, { stdio: ['ignore', 'pipe', 'inherit'], ...of });
  let text = '';
  child.stdout.on('data', (bytes) => (text += bytes));
  const code = await new Promise((resolve) => child.once('close', resolve));
  return { code, text };
}

test('of 50 clients from cold one starts the server and all are answered', options, async (t) => {
  for (let round = 0; round < ROUNDS; round += 1) {
    const home = homeOf(t);
    const tickets = await Promise.all(Array.from({ length: 50 }, () => home.ticket()));
    assert.deepEqual(tickets.sort((a, b) => a - b), Array.from({ length: 50 }, (_, i) => i + 1));
    assert.equal(home.started.length, 1);
    assert.equal(home.started[0].log, home.path('state/bellrope/own_server.log'));
  }
});

test('of ten processes from cold one starts the server and all are answered', options, async (t) => {
  const home = homeOf(t);
  const script = `import(${JSON.stringify(CLIENT)}).then(async ({ connectOrSpawn }) => {
    const [path, program] = process.argv.slice(1);
    const client = await connectOrSpawn({ path, connectTimeout: 60_000 }, { program, args: ['serve', path] });
    console.log(String(await client.call('ticket')));
    client.close();
  })`;
  const all = await Promise.all(Array.from({ length: 10 }, () => output(process.execPath, ['-e', script, home.socket, PROGRAM])));
  assert.deepEqual(all.map(({ text }) => Number(text)).sort((a, b) => a - b), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  // One that had to give way to another one would have said so there.
  assert.equal(readFileSync(home.path('state/bellrope/own_server.log'), 'utf8'), '');
});

test('a server that cannot start is told by its exit code and its last line', options, async (t) => {
  const home = homeOf(t);
  const error = await home.fails(home.script('echo the licence has expired >&2; echo; exit 3'));
  assert.ok(error instanceof SpawnError);
  assert.deepEqual([error.code, error.reason, error.exitCode, error.lastLine], ['Connect', 'Ended', 3, 'the licence has expired']);
  assert.equal(error.log, home.path('state/bellrope/sh.log'));
  assert.match(error.message, /\(exit status: 3\); its last line is: the licence has expired \(its log is \//);
  // Behind the reason there may be hints.
  const hints = await home.fails(home.script("echo early; echo 'error: no such flag'; echo; echo 'try --help'; exit 2"));
  assert.equal(hints.lastLine, 'error: no such flag');
  // A server that says nothing has said nothing, whatever stands in the log before.
  assert.equal((await home.fails(home.script('exit 1'))).lastLine, null);
  assert.match((await home.fails(home.script('kill -9 $$'))).message, /\(signal: SIGKILL\)/);
});

test('a program that is none is named', options, async (t) => {
  const home = homeOf(t);
  writeFileSync(home.path('text'), 'no program');
  for (const [program, what] of [[home.path('nothing'), 'ENOENT'], [home.path('text'), 'EACCES'], ['no-program-has-this-name', 'ENOENT']]) {
    const error = await home.fails({ program });
    assert.deepEqual([error.reason, error.program], ['Start', program]);
    assert.ok(error.message.includes(`${program} cannot be started as a server: `) && error.message.includes(what), error.message);
  }
});

test('a server that never answers is ended when its time is over', options, async (t) => {
  const home = homeOf(t);
  const error = await home.fails(home.script('echo waiting; exec sleep 60', { timeout: 500 }));
  assert.deepEqual([error.reason, error.lastLine], ['TimedOut', 'waiting']);
  assert.ok(error.message.startsWith(`no server answered at ${home.socket} within 500 ms; its last line is: waiting`), error.message);
  assert.ok(!existsSync(`/proc/${home.started[0].pid}`));
});

test('a search that is given up ends, and what it has started is left', options, async (t) => {
  const home = homeOf(t);
  const abort = new AbortController();
  const search = home.ticket(home.script('exec sleep 60', { onStart: (started) => (home.started.push(started), abort.abort()) }), { signal: abort.signal });
  await assert.rejects(search, { code: 'Cancelled' });
  process.kill(home.started[0].pid, 'SIGKILL');
});

test('a place where no server could be is refused before anything is started', options, async (t) => {
  const home = homeOf(t);
  mkdirSync(home.path('run'));
  chmodSync(home.path('run'), 0o777);
  assert.match((await home.fails(home.spawn())).message, /can be written by others/);
  rmdirSync(home.path('run'));
  mkdirSync(home.path('elsewhere'), 0o700);
  symlinkSync(home.path('elsewhere'), home.path('run'));
  assert.match((await home.fails(home.spawn())).message, /is not a directory/);
  assert.equal(home.started.length, 0);
});

test('a server of another version is named with both and left alone', options, async (t) => {
  const home = homeOf(t);
  mkdirSync(home.path('run'), 0o700);
  const other = (bytes) => {
    bytes.writeUInt16LE(2, 8);
    return bytes;
  };
  const text = 'this server speaks version 2.0, the client 1.1';
  const terms = { capacity: 262_144, maxMessage: 10_485_760, maxInFlight: 1_024, streamWindow: 65_536 };
  const answers = [encodeAnswer(terms, [], { status: 1, text }), encodeAnswer(terms, [])];
  await startFake(t, {
    path: home.socket,
    onPeer(peer) {
      peer.manual = true;
      peer.socket.end(other(answers.shift()));
    },
  });
  for (const versions of [text, 'version 2.1, this client 1.1']) {
    const error = await home.fails(home.spawn());
    assert.equal(error.reason, 'OtherVersion');
    for (const part of [home.socket, versions, 'bring both to one version and end that server']) assert.ok(error.message.includes(part), error.message);
  }
  assert.equal(home.started.length, 0);
});

test('a server that leaves is waited for and followed by the next', options, async (t) => {
  const home = homeOf(t);
  mkdirSync(home.path('run'), 0o700);
  let seen = 0;
  const leaving = await startFake(t, {
    path: home.socket,
    status: 4,
    text: 'going away',
    onPeer() {
      seen += 1;
      if (seen === 3) {
        assert.equal(home.started.length, 0);
        void leaving.close();
      }
    },
  });
  assert.equal(await home.ticket(), 1);
  assert.ok(seen >= 3);
});

test('a variable forbids to start a server', options, async (t) => {
  const home = homeOf(t);
  process.env.BELLROPE_NO_SPAWN = '1';
  const error = await home.fails(home.spawn());
  assert.equal(error.reason, 'Forbidden');
  assert.match(error.message, /no connection to .*; BELLROPE_NO_SPAWN is set, so that none is started/);
  assert.deepEqual([home.started, existsSync(home.path('run'))], [[], false]);
  process.env.BELLROPE_NO_SPAWN = '';
  assert.equal(await home.ticket(), 1);
  process.env.BELLROPE_NO_SPAWN = '1';
  assert.equal(await home.ticket(), 2);
});

test('where there is no program to take the lock, that is said', options, async (t) => {
  const home = homeOf(t);
  variables(t, { PATH: home.path('empty') });
  const error = await home.fails(home.spawn());
  assert.equal(error.reason, 'Lock');
  assert.match(error.message, /the program flock, of util-linux or BusyBox, is needed/);
});

test('a server has nothing of its starter, and whoever reads its output sees the end', options, async (t) => {
  const home = homeOf(t);
  const facts = 'cd /proc/$$ && cat stat && echo "$was" && ls -l fd && tr "\\\\0" "\\\\n" < environ';
  const script = `was=$(pwd -P); { ${facts}; } > "$2/facts"; exec "$0" serve "$1"`.replaceAll('\\\\', '\\');
  writeFileSync(
    home.path('child.mjs'),
    `import { connectOrSpawn } from ${JSON.stringify(CLIENT)};
    const args = ['-c', ${JSON.stringify(script)}, ...process.argv.slice(2)];
    const spawn = { program: '/bin/sh', args, inherit: ['KEY_OF_A_PROVIDER'], env: { RUST_LOG: 'warn' } };
    (await connectOrSpawn({ path: process.argv[3], connectTimeout: 60_000 }, spawn)).close();
    console.log('done');`,
  );
  const marker = home.path('marker');
  writeFileSync(marker, '');
  const gone = home.path('worktree');
  mkdirSync(gone);
  const opened = [3, 4, 5, 6, 7, 8, 9].map((number) => `${number}<"$MARKER"`).join(' ');
  const kept = { HOME: '/h', LC_ALL: 'C', https_proxy: 'p', KEY_OF_A_PROVIDER: 'k', XDG_DATA_HOME: '/d', XDG_STATE_HOME: home.path('state'), PATH: process.env.PATH };
  const others = { SECRET: 's', TMPDIR: '/t', LD_LIBRARY_PATH: '/l', NOTIFY_SOCKET: '/n', MARKER: marker };
  const file = openSync(marker, 'r');
  // Number 100 too, which Node itself would hand on.
  const stdio = ['ignore', 'pipe', 'inherit', ...Array.from({ length: 97 }, () => 'ignore'), file];
  const args = ['-c', `exec ${opened}; exec 2>&1 "$0" "$@"`, process.execPath, home.path('child.mjs'), PROGRAM, home.socket, home.folder];
  const said = await output('sh', args, { cwd: gone, env: { ...kept, ...others }, stdio });
  closeSync(file);
  assert.deepEqual(said, { code: 0, text: 'done\n' });
  rmdirSync(gone);
  const pid = String(home.server());
  const [stat, cwd, ...rest] = readFileSync(home.path('facts'), 'utf8').split('\n');
  const fields = stat.split(') ').at(-1).split(' ');
  assert.deepEqual([fields[2], fields[3], fields[4], cwd], [pid, pid, '0', '/'], 'group, session, terminal, directory');
  const targets = new Set(rest.filter((line) => line.includes(' -> ')).map((line) => line.split(' -> ')[1]));
  assert.deepEqual([...targets].sort(), ['/dev/null', home.path('facts'), home.path('state/bellrope/sh.log')].sort());
  const names = new Set(rest.filter((line) => line.includes('=') && !line.includes(' -> ')).map((line) => line.split('=')[0]));
  for (const name of ['PWD', 'OLDPWD', '_', 'SHLVL']) names.delete(name);
  assert.deepEqual([...names].sort(), [...Object.keys(kept), 'RUST_LOG'].sort());
  assert.equal(await home.ticket(), 1);
});

test('signals to its starters group do not reach a server', options, async (t) => {
  const home = homeOf(t);
  const script = `import(${JSON.stringify(CLIENT)}).then(async ({ connectOrSpawn }) => {
    const [path, program] = process.argv.slice(1);
    const client = await connectOrSpawn({ path, connectTimeout: 60_000 }, { program, args: ['serve', path] });
    console.log(String(await client.call('ticket')));
  })`;
  const starter = spawnProcess(process.execPath, ['-e', script, home.socket, PROGRAM], { detached: true, stdio: ['ignore', 'pipe', 'ignore'] });
  const gone = new Promise((resolve) => starter.once('exit', resolve));
  await new Promise((resolve) => starter.stdout.once('data', resolve));
  const pid = home.server();
  for (const signal of ['SIGTSTP', 'SIGCONT', 'SIGHUP', 'SIGINT']) process.kill(-starter.pid, signal);
  await gone;
  for (let ticket = 2; ticket < 50; ticket += 1) assert.equal(await home.ticket(), ticket);
  assert.equal(home.server(), pid);
});

test('a home may be odd or not be there', options, async (t) => {
  const home = homeOf(t);
  writeFileSync(home.path('file'), '');
  // Below /proc every new directory is said to be missing, as in automounted homes.
  for (const values of [{ HOME: '', XDG_STATE_HOME: '' }, { HOME: '/proc', XDG_STATE_HOME: '' }, { HOME: home.path('file'), XDG_STATE_HOME: 'relative' }]) {
    const odd = new Home(t, "a b's 🔔 $(x) %s");
    variables(t, values);
    assert.equal(await odd.ticket(), 1);
    // The log lies beside the socket.
    assert.equal(odd.started[0].log, `${odd.socket}.log`);
    assert.deepEqual(readdirSync(odd.path('run')).sort(), ['tickets.sock', 'tickets.sock.lock', 'tickets.sock.log', 'tickets.sock.spawn']);
    assert.equal(statSync(`${odd.socket}.spawn`).mode & 0o777, 0o600);
  }
  assert.equal((await home.fails(home.spawn({ log: home.path('file/log') }))).reason, 'Log');
});

test('the log stays within its bytes however often a server fails', options, async (t) => {
  const home = homeOf(t);
  const log = home.path('logs/server.log');
  const script = 'i=0; while [ $i -lt 40 ]; do echo "line $i of a server that cannot start"; i=$((i + 1)); done; exit 1';
  for (let n = 0; n < 12; n += 1) {
    await home.fails(home.script(script, { log, logBytes: 8_192 }));
    const size = (path) => statSync(path, { throwIfNoEntry: false })?.size ?? 0;
    assert.ok(size(log) + size(`${log}.1`) <= 8_192);
  }
  assert.ok(existsSync(`${log}.1`));
  assert.deepEqual([statSync(log).mode & 0o777, statSync(home.path('logs')).mode & 0o777], [0o600, 0o700]);
});
