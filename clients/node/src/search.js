// Looking for a server, starting one, and waiting for it. Of any number of clients that do so at once, in whatever language,
// one starts a server: whoever holds the lock beside its socket. docs/spawning.md has the rules.

import { dial } from './dial.js';
import { Connect, SpawnError } from './errors.js';
import { OTHER_VERSIONS } from './handshake.js';
import { pause } from './socket.js';
import { SpawnLock } from './spawn-lock.js';
import { StartedServer } from './started.js';

const NO_SPAWN = 'BELLROPE_NO_SPAWN';
/** Between two looks for a server, at first and after some, in milliseconds. */
const FIRST_PAUSE_MS = 2;
const LONGEST_PAUSE_MS = 20;
/** Between two tries to get the lock, each of which runs a program. */
const LOCK_PAUSE_MS = 250;

/** Resolves to a Connection, or rejects with a Connect, of which SpawnErrors are a kind. `stop` ends the search. */
export async function findOrStart(options, spawn, stop) {
  const search = new Search(options, spawn, stop);
  try {
    return await search.run();
  } finally {
    search.end();
  }
}

class Search {
  #options;
  #path;
  #spawn;
  #stop;
  #until;
  #lock = null;
  #lockAgain = 0;
  #started = null;

  constructor(options, spawn, stop) {
    this.#options = options;
    this.#path = options.path;
    this.#spawn = spawn;
    this.#stop = stop;
    this.#until = performance.now() + spawn.timeout;
  }

  async run() {
    for (let wait = FIRST_PAUSE_MS; ; ) {
      // Before the look: what has ended by now, and leaves nobody there, will never answer.
      const ended = this.#started?.ended ?? null;
      try {
        return await dial(this.#options, this.#stop);
      } catch (error) {
        if (this.#stop.aborted) throw error;
        if (await this.#looksAgain(error, ended)) continue;
      }
      if (performance.now() >= this.#until) throw await this.#timedOut();
      await pause(wait, this.#stop);
      wait = Math.min(wait * 2, LONGEST_PAUSE_MS);
    }
  }

  /** Gives the lock back. A server that was started lives on. */
  end() {
    this.#lock?.close();
    this.#started?.leave();
  }

  // After a try that failed: starts a server if it is time for that. Resolves to whether to try again at once.
  async #looksAgain(error, ended) {
    const leaving = isLeaving(error);
    if (!leaving && !isNobody(error)) throw otherVersion(this.#path, error) ?? error;
    if (process.env[NO_SPAWN]) throw new SpawnError('Forbidden', `${error.message}; ${NO_SPAWN} is set, so that none is started`);
    if (this.#lock === null) {
      this.#lock = new SpawnLock(this.#path);
      return true;
    }
    if (this.#started !== null && ended !== null) {
      if (!leaving) throw this.#started.hasEnded(ended);
      // It found another server at its path, and that one is leaving.
      this.#started = null;
    } else if (this.#started === null && !leaving) {
      // With the lock it is looked again: whoever had it before may have started a server.
      if (!this.#lock.isHeld) return this.#takesLock();
      this.#started = await StartedServer.start(this.#spawn, this.#path);
      this.#spawn.onStart?.(this.#started.told);
    }
    return false;
  }

  async #takesLock() {
    const now = performance.now();
    if (now < this.#lockAgain) return false;
    this.#lockAgain = now + LOCK_PAUSE_MS;
    return this.#lock.tryTake();
  }

  async #timedOut() {
    const text = `no server answered at ${this.#path} within ${this.#spawn.timeout} ms`;
    const started = this.#started;
    this.#started = null;
    return started === null ? new SpawnError('TimedOut', text) : started.giveUp(text);
  }
}

// Whether nobody listens, and not that we may not ask.
function isNobody(error) {
  return error instanceof Connect && (error.cause?.code === 'ENOENT' || error.cause?.code === 'ECONNREFUSED');
}

// Whether a server says that it ends, or ended between the connection and its answer.
function isLeaving(error) {
  return error.refusal?.name === 'draining' || ['EOF', 'ECONNRESET', 'EPIPE'].includes(error.cause?.code);
}

function otherVersion(path, error) {
  if (!OTHER_VERSIONS.includes(error.refusal?.name)) return null;
  return new SpawnError(
    'OtherVersion',
    `the server at ${path} is of another version: ${error.message}. It was left as it is, because other programs may be ` +
      'using it: bring both to one version and end that server, or give this program a socket path of its own',
  );
}
