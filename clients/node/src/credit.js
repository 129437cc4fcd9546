// Credit of a stream of chunks: a balance at each end. Specification: docs/wire.md, "Credit".
//
// Neither class knows records or the socket.

import { CHUNK_COST } from './wire.js';

/** What the sender of a stream may still send. */
export class SendCredit {
  balance;
  #window;

  constructor(window) {
    this.#window = window;
    this.balance = window;
  }

  get available() {
    return this.balance > 0;
  }

  spend(length) {
    this.balance -= length + CHUNK_COST;
  }

  /** Returns false, and changes nothing, if the balance would rise above the window. */
  add(amount) {
    if (this.balance + amount > this.#window) return false;
    this.balance += amount;
    return true;
  }
}

/** What the receiver of a stream still allows, and what it owes for what was consumed. */
export class ReceiveCredit {
  balance;
  owed = 0;
  #half;

  constructor(window) {
    this.balance = window;
    this.#half = Math.floor(window / 2);
  }

  /** A chunk came. Returns false, and changes nothing, if the sender had no credit for it. */
  spend(length) {
    if (this.balance <= 0) return false;
    this.balance -= length + CHUNK_COST;
    return true;
  }

  /** A chunk of that length was consumed. */
  consume(length) {
    this.owed += length + CHUNK_COST;
  }

  get due() {
    return this.owed > 0 && this.owed >= this.#half;
  }

  /** What is owed, which the caller sends as a credit record. */
  give() {
    const amount = this.owed;
    this.balance += amount;
    this.owed = 0;
    return amount;
  }
}
