// The chunks of a stream to the server, from the application to the queue of the connection.

import { SendCredit } from './credit.js';
import { MessageTooLarge, Violation } from './errors.js';

export class Outgoing {
  #call;
  #credit = null;
  #maxRecord = 0;
  #next = 0;
  // What waits for credit or room, in order: { chunk, sent, resolve, reject, keeper }, of which `sent` is the promise that the
  // sender holds. The end is one without a chunk.
  #waiting = [];
  #ending = false;
  #finished = false;
  #error = null;

  constructor(call) {
    this.#call = call;
  }

  /** The call has got a connection. */
  open(window, maxRecord) {
    this.#credit = new SendCredit(window);
    this.#maxRecord = maxRecord;
  }

  /** Resolves to true when the chunk is on its way, to false if the server has ended the call and wants no more. */
  send(chunk, keeper) {
    if (this.#ending) return Promise.reject(new TypeError('the stream was ended on this side'));
    return this.#enqueue(chunk, keeper);
  }

  /** As `send`, for the end of the stream. */
  end(keeper) {
    if (this.#ending) return Promise.resolve(false);
    const sent = this.#enqueue(null, keeper);
    this.#ending = true;
    return sent;
  }

  /** The server gives credit. */
  credit(amount) {
    if (!this.#credit.add(amount)) throw new Violation('credit_overflow', `credit of ${amount} bytes beyond the window`);
    this.pump();
  }

  /** Hands over what may go: called when credit or room in the connection's queue has come. */
  pump() {
    while (this.#waiting.length > 0 && !this.#finished) {
      const { chunk, resolve, reject } = this.#waiting[0];
      if (chunk !== null && chunk.length > this.#maxRecord) {
        this.#waiting.shift();
        reject(new MessageTooLarge(`a chunk of ${chunk.length} bytes exceeds the limit of ${this.#maxRecord} bytes`, chunk.length, this.#maxRecord));
        continue;
      }
      if (chunk !== null && !this.#credit.available) return;
      if (!this.#call.holder.hasRoom(this.#call)) return;
      this.#waiting.shift();
      if (chunk === null) {
        this.#call.holder.sendEnd(this.#call, this.#next);
      } else {
        this.#call.holder.sendChunk(this.#call, this.#next, chunk);
        this.#credit.spend(chunk.length);
        this.#next = (this.#next + 1) >>> 0;
      }
      resolve(true);
    }
  }

  /** The call has ended. */
  finish(error) {
    if (this.#finished) return;
    this.#finished = true;
    this.#error = error ?? null;
    for (const { sent, resolve, reject } of this.#waiting.splice(0)) {
      if (this.#error === null) {
        resolve(false);
      } else {
        known(sent);
        reject(this.#error);
      }
    }
  }

  #enqueue(chunk, keeper) {
    if (this.#finished) return this.#error === null ? Promise.resolve(false) : known(Promise.reject(this.#error));
    const waiter = { chunk, keeper };
    waiter.sent = new Promise((resolve, reject) => Object.assign(waiter, { resolve, reject }));
    this.#waiting.push(waiter);
    if (this.#credit !== null) this.pump();
    return waiter.sent;
  }
}

// Why a call ended is also said where its answer is awaited. So whoever does not await `send` misses nothing, and a
// rejection for that reason which nobody looks at is no fault.
function known(promise) {
  promise.catch(() => {});
  return promise;
}
