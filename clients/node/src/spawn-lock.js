// Who may start the server of a socket: whoever holds the lock beside it.
//
// It goes with the process that holds it, however that ends, and lies beside the socket, so it is one of this machine, as the
// socket is, even where the user's home is shared with others.

import { spawn } from 'node:child_process';
import { closeSync, lstatSync, mkdirSync, openSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { SpawnError } from './errors.js';

const OTHERS_WRITE = 0o022;

export class SpawnLock {
  isHeld = false;
  #path;
  #file;

  constructor(socket) {
    prepare(dirname(resolve(socket)));
    this.#path = `${socket}.spawn`;
    try {
      // The file stays for ever: unlinking it would let two lock two files of one name.
      this.#file = openSync(this.#path, 'a+', 0o600);
    } catch (error) {
      throw failed('locking', this.#path, error);
    }
  }

  /** Takes the lock if nobody has it. Resolves to whether it is ours. */
  async tryTake() {
    // Node has no flock(2). A lock belongs to an open file, not to a process: so the program `flock`, which is given ours,
    // takes the lock and ends, and we have it.
    this.isHeld = (await runFlock(this.#file)) === 0;
    return this.isHeld;
  }

  close() {
    closeSync(this.#file);
  }
}

function runFlock(file) {
  return new Promise((resolve, reject) => {
    const child = spawn('flock', ['-n', '3'], { stdio: ['ignore', 'ignore', 'ignore', file] });
    child.once('error', (error) => {
      reject(new SpawnError('Lock', `the program flock, of util-linux or BusyBox, is needed to start a server: ${error.message}`));
    });
    child.once('close', resolve);
  });
}

// Makes the directory of a socket, and makes sure that nobody else can put anything into it.
function prepare(directory) {
  try {
    mkdirSync(directory, 0o700);
  } catch (error) {
    if (error.code !== 'EEXIST') throw failed('creating the directory', directory, error);
  }
  let found;
  try {
    found = lstatSync(directory);
  } catch (error) {
    throw failed('looking at the directory', directory, error);
  }
  let fault = null;
  if (!found.isDirectory()) fault = 'is not a directory';
  else if (found.uid !== process.geteuid()) fault = 'belongs to another user';
  else if ((found.mode & OTHERS_WRITE) !== 0) fault = 'can be written by others';
  if (fault === null) return;
  throw new SpawnError('Directory', `the directory ${directory} ${fault}, so no server can have its socket there; choose another socket path`);
}

function failed(what, path, error) {
  return new SpawnError('Io', `${what} ${path}: ${error.message}`);
}
