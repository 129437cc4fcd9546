// One try to get a connection: the path, the socket, the handshake.

import { nowUs } from './clock.js';
import { Connection } from './connection.js';
import { BellropeError, Connect } from './errors.js';
import { AnswerReader, encodeHello } from './handshake.js';
import { checkLength, checkOwner } from './path.js';
import { openPipe, stoppable } from './socket.js';

/**
 * Resolves to a Connection, or rejects with a Connect. `stop` ends the try; so does the time of `options.connectTimeout`.
 */
export async function dial(options, stop) {
  const own = new AbortController();
  const stopped = () => own.abort(stop.reason);
  const late = () => own.abort(new Connect('no connection in time'));
  // A program that was stopped for a while finds its timers first, and then what has arrived meanwhile. So it is read first.
  const timer = setTimeout(() => setImmediate(late), options.connectTimeout);
  stop.addEventListener('abort', stopped);
  if (stop.aborted) stopped();
  try {
    return await attempt(options, own.signal);
  } catch (error) {
    if (error instanceof BellropeError) throw error;
    throw new Connect(`no connection to ${options.path}: ${error.message}`, { cause: error });
  } finally {
    clearTimeout(timer);
    stop.removeEventListener('abort', stopped);
  }
}

async function attempt(options, stop) {
  checkLength(options.path);
  if (options.checkOwner) await stoppable(stop, (resolve, reject) => void checkOwner(options.path).then(resolve, reject));
  const socket = await openPipe(options.path, stop);
  return shakeHands(socket, options, stop);
}

function shakeHands(socket, options, stop) {
  const answer = new AnswerReader();
  return stoppable(stop, (resolve, reject) => {
    const hungUp = () => reject(new Connect('the server hung up before it had answered', { cause: endOfFile() }));
    const failed = (error) => reject(new Connect(`the server did not answer: ${error.message}`, { cause: error }));
    socket.once('end', hungUp);
    socket.once('error', failed);
    socket.onBytes = (bytes, length) => {
      try {
        const end = answer.push(bytes, 0, length);
        if (end < 0) return;
        const terms = answer.terms();
        socket.off('end', hungUp);
        socket.off('error', failed);
        const connection = new Connection(socket, terms, nowUs(), options.maxMessage);
        resolve(connection);
        // Records may have come with the answer.
        connection.feed(bytes, end, length);
      } catch (error) {
        reject(error);
      }
    };
    // A failed write is no failure here: the server may have refused before it read anything.
    socket.writePieces([encodeHello(options)], () => {});
    return () => socket.destroy();
  });
}

function endOfFile() {
  return Object.assign(new Error('end of file'), { code: 'EOF' });
}
