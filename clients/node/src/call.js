// A call under way, from the caller's request to its one end.
//
// A call has a holder: the client while it waits for a connection, then the connection. The holder ends it with `end`.
// What ends it on this side (signal, deadline, an iterator that is dropped) goes through `abandon`, which tells the holder.

import { MAX_TIMER_MS, nowUs } from './clock.js';
import { Cancelled, DeadlineExceeded } from './errors.js';
import { listen, unlisten } from './signals.js';

export class Call {
  /** Given when the first of its records is written. */
  id = 0;
  /** The number of its message type on the present connection. */
  type = 0;
  /** How many requests this connection had sent with this one, 0 as long as this one is not written whole. */
  requestNumber = 0;
  /** Its request in the queue of the connection. */
  queued = null;
  ended = false;
  holder = null;
  /** A large response that is coming in parts. */
  parts = null;
  /** The chunks from the server and to it, where the style has them. */
  incoming = null;
  outgoing = null;
  /** On the own clock in microseconds, or 0. */
  deadlineUs = 0;
  #signal;
  #timer = null;
  /** The client's time for a call whose caller has named none, in milliseconds, or 0. */
  #usual = 0;

  /** `method` is what the caller knows of a typed method, else null. */
  constructor(style, name, payload, options, method) {
    this.style = style;
    this.name = name;
    this.method = method;
    this.payload = payload;
    this.#signal = options?.signal ?? null;
    if (options != null) this.deadlineUs = deadlineOf(options);
  }

  /** Gives the call the client's time for calls, unless its caller has named a time, if only `null`. */
  within(milliseconds, options) {
    if (milliseconds === Infinity || options?.timeout !== undefined || options?.deadline !== undefined) return;
    this.#usual = milliseconds;
    this.deadlineUs = nowUs() + milliseconds * 1e3;
  }

  /** Starts the clock and listens to the signal. Ends the call at once if it is too late for either. */
  arm() {
    if (this.#signal !== null) {
      if (this.#signal.aborted) return this.aborted(this.#signal.reason);
      listen(this.#signal, this);
    }
    if (this.deadlineUs !== 0) this.#watch();
  }

  /** Ends the call on this side. Nothing happens if it has ended. */
  abandon(error) {
    if (this.ended) return;
    this.holder?.drop(this);
    this.end(error, undefined, true);
  }

  aborted(reason) {
    this.abandon(new Cancelled('the caller cancelled the call', { cause: reason }));
  }

  /** Ends the call, once: with an error, or with the response. `here` says that this side ended it. */
  end(error, response, here = false) {
    if (this.ended) return;
    this.ended = true;
    this.holder = null;
    this.parts = null;
    this.payload = null;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#signal !== null) unlisten(this.#signal, this);
    this.outgoing?.finish(error);
    this.incoming?.finish(error, here);
    this.settled(error, response);
  }

  /** For those who wait for the end. */
  settled() {}

  // Timers may be early by a millisecond, and cannot be set for more than 24 days: so look at the clock again.
  #watch() {
    const left = this.deadlineUs - nowUs();
    if (left <= 0) return this.abandon(new DeadlineExceeded(this.#usual === 0 ? 'the deadline passed' : `no answer within ${this.#usual} ms, the client's callTimeout`));
    this.#timer = setTimeout(() => this.#watch(), Math.min(Math.ceil(left / 1e3), MAX_TIMER_MS));
    // The client keeps the program running, or not. Only a time that the caller has named does so by itself.
    if (this.#usual !== 0) this.#timer.unref();
  }
}

/** A call that ends with a response. */
export class Answered extends Call {
  #resolve;
  #reject;

  /** `resolve` and `reject` are those of the promise that the caller holds. */
  constructor(style, name, payload, options, resolve, reject, method = null) {
    super(style, name, payload, options, method);
    this.#resolve = resolve;
    this.#reject = reject;
  }

  settled(error, response) {
    if (error) this.#reject(error);
    else this.#resolve(response);
  }
}

function deadlineOf({ timeout, deadline }) {
  let us = Infinity;
  if (timeout !== undefined && timeout !== null) {
    if (typeof timeout !== 'number' || !(timeout >= 0)) throw new TypeError(`timeout must be milliseconds, not ${String(timeout)}`);
    us = nowUs() + timeout * 1e3;
  }
  if (deadline !== undefined) {
    const at = Number(deadline);
    if (Number.isNaN(at)) throw new TypeError(`deadline must be a Date or its milliseconds, not ${String(deadline)}`);
    us = Math.min(us, nowUs() + (at - Date.now()) * 1e3);
  }
  // 0 means that there is none; a deadline of a machine that has just started may lie before its clock's beginning.
  return us === Infinity ? 0 : Math.max(us, 1);
}
