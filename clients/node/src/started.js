// A program that was started as a server, and what it said.

import { spawn as spawnProcess } from 'node:child_process';
import { closeSync, existsSync, fstatSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, renameSync, statSync } from 'node:fs';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import { SpawnError } from './errors.js';

const NAMES = new Set(['HOME', 'USER', 'LOGNAME', 'PATH', 'LANG', 'LANGUAGE', 'TZ', 'SSL_CERT_FILE', 'SSL_CERT_DIR']);
// In capital letters or in small ones.
const PROXIES = new Set(['HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'NO_PROXY'].flatMap((name) => [name, name.toLowerCase()]));
/** The fewest bytes of a log, as everywhere in Bellrope. */
const FEWEST_BYTES = 8_192;
/** Bytes at the end of what a program wrote in which its last line is looked for, and characters of it that are shown. */
const TAIL_BYTES = 16_384;
const LONGEST_LINE = 500;
/** Descriptors above this are not looked for. */
const HIGHEST_DESCRIPTOR = 1_023;
const CLOSE_ON_EXEC = 0o2000000;

/** A server that this process started. It lives on when this is forgotten. */
export class StartedServer {
  /** How it ended, if it has: `{ code, signal }`. */
  ended = null;
  #program;
  #child;
  #output;

  constructor(program, child, output) {
    this.#program = program;
    this.#child = child;
    this.#output = output;
    child.once('exit', (code, signal) => (this.ended = { code, signal }));
  }

  static async start(spawn, socket) {
    const { program } = spawn;
    const output = outputOf(spawn, socket);
    const nothing = openSync('/dev/null', 'r+');
    try {
      const written = output?.file ?? nothing;
      // A path is one of our directory, and the program runs in another one. A name is looked up.
      const child = spawnProcess(program.includes('/') ? resolve(program) : program, spawn.arguments, {
        cwd: '/',
        detached: true,
        env: chosen(process.env, spawn),
        stdio: ['ignore', written, written, ...covers(nothing)],
      });
      child.unref();
      const started = new StartedServer(program, child, output);
      await new Promise((done, fail) => child.once('spawn', done).once('error', fail));
      return started;
    } catch (error) {
      throw new SpawnError('Start', `${program} cannot be started as a server: ${error.message}`, { program, cause: error });
    } finally {
      closeSync(nothing);
      if (output !== null) closeSync(output.file);
    }
  }

  /** What its starter is told. */
  get told() {
    return { pid: this.#child.pid, log: this.#output?.path ?? null };
  }

  /** The error that its end means. */
  hasEnded({ code, signal }) {
    const how = signal === null ? `exit status: ${code}` : `signal: ${signal}`;
    return this.#failed('Ended', `${this.#program} was started as a server and ended before it answered (${how})`, code, signal);
  }

  /** Ends it, as it did not answer. */
  async giveUp(text) {
    if (this.ended === null) {
      const gone = new Promise((done) => this.#child.once('exit', done));
      this.#child.ref();
      this.#child.kill('SIGKILL');
      await gone;
    }
    return this.#failed('TimedOut', text);
  }

  /** Lets it live on. */
  leave() {
    this.#child.unref();
  }

  #failed(reason, text, exitCode = null, signal = null) {
    const lastLine = this.#output === null ? null : lastLineOf(this.#output);
    const log = this.#output?.path ?? null;
    const said = lastLine === null ? '' : `; its last line is: ${lastLine}`;
    const where = log === null ? '' : ` (its log is ${log})`;
    return new SpawnError(reason, text + said + where, { program: this.#program, exitCode, signal, lastLine, log });
  }
}

/** Where the log of a server of this name lies, or null if neither XDG_STATE_HOME nor HOME is an absolute path. */
export function defaultLogPath(name) {
  let state = process.env.XDG_STATE_HOME ?? '';
  if (!isAbsolute(state)) state = join(process.env.HOME ?? '', '.local', 'state');
  return isAbsolute(state) ? join(state, 'bellrope', `${name}.log`) : null;
}

// Those of the variables that a server has.
function chosen(variables, { inherit, env }) {
  const kept = Object.entries(variables).filter(([name]) => isKnown(name) || inherit.includes(name));
  return { ...Object.fromEntries(kept), ...env };
}

function isKnown(name) {
  return NAMES.has(name) || PROXIES.has(name) || name.startsWith('LC_') || name.startsWith('XDG_');
}

// Node closes its own descriptors in a program that it starts, but not all that it was itself given by its starter. Such
// a one is covered with /dev/null, so that the server holds nobody's pipe open.
function covers(nothing) {
  const covered = [];
  for (const number of openDescriptors()) {
    if (number <= 2 || number > HIGHEST_DESCRIPTOR || !isInherited(number)) continue;
    while (covered.length < number - 3) covered.push('ignore');
    covered[number - 3] = nothing;
  }
  return covered;
}

function openDescriptors() {
  try {
    return readdirSync('/proc/self/fd').map(Number).sort((a, b) => a - b);
  } catch {
    return [];
  }
}

function isInherited(number) {
  try {
    const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${number}`, 'utf8'));
    return flags !== null && (parseInt(flags[1], 8) & CLOSE_ON_EXEC) === 0;
  } catch {
    return false; // the one with which the list was read
  }
}

// Opens what the program is to write to: { path, file, begin }, or null.
function outputOf(spawn, socket) {
  if (spawn.log !== null) {
    const path = resolve(spawn.log);
    try {
      return openLog(path, spawn.logBytes);
    } catch (error) {
      throw new SpawnError('Log', `opening the log ${path}: ${error.message}`, { program: spawn.program, cause: error });
    }
  }
  for (const place of [defaultLogPath(basename(spawn.program)), resolve(`${socket}.log`)]) {
    try {
      if (place !== null) return openLog(place, spawn.logBytes);
    } catch {
      // A home that cannot be written to is no reason to have no server.
    }
  }
  return null;
}

// A log is begun anew when it is half full, so that it and the one before it stay within their bytes.
function openLog(path, bytes) {
  makePrivate(dirname(path));
  const half = Math.floor(Math.max(bytes, FEWEST_BYTES) / 2);
  const found = statSync(path, { throwIfNoEntry: false });
  if (found !== undefined && found.size > Math.floor(half / 2)) renameSync(path, `${path}.1`);
  const file = openSync(path, 'a', 0o600);
  return { path, file, begin: fstatSync(file).size };
}

// Not with `recursive`: where the system says of a directory that it is there, and of a new one in it that nothing is, as below
// /proc and in some automounted homes, Node tries for ever.
function makePrivate(directory) {
  if (existsSync(directory)) return;
  makePrivate(dirname(directory));
  try {
    mkdirSync(directory, 0o700);
  } catch (error) {
    if (error.code !== 'EEXIST') throw error; // another one made it
  }
}

// The line that says most: the last one that begins with `error:`, behind which there may be hints, else the last one that is
// not empty. Or null.
function lastLineOf({ path, begin }) {
  try {
    const file = openSync(path, 'r');
    try {
      const end = fstatSync(file).size;
      const tail = Buffer.alloc(TAIL_BYTES);
      const length = readSync(file, tail, 0, TAIL_BYTES, Math.min(Math.max(begin, end - TAIL_BYTES), end));
      const lines = tail.toString('utf8', 0, length).split(/\r?\n/).map((line) => line.trim());
      const line = lines.filter((text) => /^error:/i.test(text)).at(-1) ?? lines.filter((text) => text !== '').at(-1);
      return line === undefined ? null : line.replace(/[\u0000-\u001f\u007f-\u009f]/gu, '').slice(0, LONGEST_LINE);
    } finally {
      closeSync(file);
    }
  } catch {
    return null;
  }
}
