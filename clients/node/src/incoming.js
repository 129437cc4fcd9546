// The chunks of a stream from the server, until the application takes them.
//
// There are never more than the credit allows: the window, and one chunk.

import { ReceiveCredit } from './credit.js';
import { Violation } from './errors.js';

const DONE = Object.freeze({ done: true, value: undefined });

export class Incoming {
  #call;
  #credit = null;
  #next = 0;
  #chunks = [];
  // Calls of `next` that wait for a chunk: { resolve, reject, keeper }.
  #waiting = [];
  #finished = false;
  #error = null;

  constructor(call) {
    this.#call = call;
  }

  /** The call has got a connection. */
  open(window) {
    this.#credit = new ReceiveCredit(window);
  }

  /** A chunk came, shown by the reader. */
  chunk(record) {
    this.#checkNumber(record);
    if (!this.#credit.spend(record.length)) throw new Violation('credit_exceeded', 'a chunk without credit');
    this.#next = (this.#next + 1) >>> 0;
    const chunk = record.takePayload();
    const waiter = this.#waiting.shift();
    if (waiter === undefined) {
      this.#chunks.push(chunk);
    } else {
      this.#consumed(chunk);
      waiter.resolve({ done: false, value: chunk });
    }
  }

  /** The end came. */
  checkEnd(record) {
    this.#checkNumber(record);
  }

  /**
   * The next chunk, for the iterator. `keeper` is the object that the application holds: as long as it waits here, it
   * counts as in use.
   */
  next(keeper) {
    if (this.#chunks.length > 0) {
      const chunk = this.#chunks.shift();
      this.#consumed(chunk);
      return Promise.resolve({ done: false, value: chunk });
    }
    if (this.#error !== null) {
      const error = this.#error;
      this.#error = null;
      return Promise.reject(error);
    }
    if (this.#finished) return Promise.resolve(DONE);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject, keeper }));
  }

  /** Nobody wants more: what waits is over, without an error. */
  discard() {
    this.#finished = true;
    this.#chunks = [];
    this.#error = null;
    for (const waiter of this.#waiting.splice(0)) waiter.resolve(DONE);
  }

  /** The call has ended. If the other side ended it, the chunks that have come are still given out. */
  finish(error, here) {
    if (this.#finished) return;
    this.#finished = true;
    if (here) this.#chunks = [];
    this.#error = error ?? null;
    if (this.#waiting.length === 0) return;
    // As a generator does: the first to ask gets the error, all others learn that it is over.
    const [first, ...others] = this.#waiting.splice(0);
    if (this.#error === null) first.resolve(DONE);
    else first.reject(this.#error);
    this.#error = null;
    for (const waiter of others) waiter.resolve(DONE);
  }

  #checkNumber(record) {
    if (record.high !== 0 || record.low !== this.#next) {
      throw new Violation('bad_sequence', `chunk or end ${record.extension} instead of ${this.#next}`);
    }
  }

  #consumed(chunk) {
    if (this.#finished) return;
    this.#credit.consume(chunk.length);
    if (this.#credit.due) this.#call.holder.giveCredit(this.#call, this.#credit.give());
  }
}
