// The Unix socket: connecting, and a socket that is still read after a write has failed.

import { Socket } from 'node:net';

const READ_BYTES = 131_072;
/** Between two tries while the kernel's queue of the listening socket is full. */
const BUSY_PAUSE_MS = 3;

/**
 * Node destroys a socket whose write fails, and what has arrived is lost with it. But answers may lie there, and the
 * record that says which calls were taken. So a failed write is only noted here: reading goes on until the end of file.
 */
export class Pipe extends Socket {
  writeFailed = false;
  /** Takes what was read: a buffer that is used again, and how much of it. */
  onBytes = null;
  onWriteFailed = null;

  constructor() {
    super({
      onread: {
        buffer: Buffer.allocUnsafeSlow(READ_BYTES),
        callback: (length, buffer) => {
          this.onBytes?.(buffer, length);
          return true;
        },
      },
    });
  }

  /** Writes all pieces with one call of the system, if it takes them, and calls `done` when it has. */
  writePieces(pieces, done) {
    if (pieces.length === 1) {
      this.write(pieces[0], done);
      return;
    }
    this.cork();
    const last = pieces.length - 1;
    for (let i = 0; i < last; i += 1) this.write(pieces[i]);
    this.write(pieces[last], done);
    this.uncork();
  }

  _write(chunk, encoding, callback) {
    super._write(chunk, encoding, (error) => this.#written(error, callback));
  }

  _writev(chunks, callback) {
    super._writev(chunks, (error) => this.#written(error, callback));
  }

  #written(error, callback) {
    if (error && !this.destroyed && !this.writeFailed) {
      this.writeFailed = true;
      this.onWriteFailed?.();
    }
    callback();
  }
}

/** Connects to a path, until `stop` fires. */
export async function openPipe(path, stop) {
  for (;;) {
    try {
      return await connectOnce(path, stop);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
    await pause(BUSY_PAUSE_MS, stop);
  }
}

function connectOnce(path, stop) {
  const socket = new Pipe();
  return stoppable(stop, (resolve, reject) => {
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(socket);
    });
    socket.connect({ path });
    return () => socket.destroy();
  });
}

/** A promise that `stop` rejects with its reason. What `begin` returns undoes what it began, unless it succeeded. */
export function stoppable(stop, begin) {
  return new Promise((resolve, reject) => {
    let undo = () => {};
    const ended = (settle, undone) => (value) => {
      stop.removeEventListener('abort', stopped);
      if (undone) undo();
      settle(value);
    };
    const fail = ended(reject, true);
    const stopped = () => fail(stop.reason);
    if (stop.aborted) {
      reject(stop.reason);
      return;
    }
    stop.addEventListener('abort', stopped);
    undo = begin(ended(resolve, false), fail) ?? undo;
  });
}

/** Waits, until `stop` fires. */
export function pause(ms, stop) {
  return stoppable(stop, (resolve) => {
    const timer = setTimeout(resolve, ms);
    return () => clearTimeout(timer);
  });
}
