// Calls that wait for a connection, each for a bounded time. Nothing of them was sent.

import { Connect } from './errors.js';

export class Waiting {
  #timeout;
  // Each call with the timer that ends its wait.
  #calls = new Map();

  /** `timeout` in milliseconds. */
  constructor(timeout) {
    this.#timeout = timeout;
  }

  add(call) {
    call.holder = this;
    const late = () => this.#end(call, new Connect('there is no connection, and none could be made in time'));
    this.#calls.set(call, setTimeout(late, this.#timeout));
  }

  /** The call has ended on this side, or has found a connection. */
  drop(call) {
    clearTimeout(this.#calls.get(call));
    this.#calls.delete(call);
  }

  /** Ends all calls, each with an error of its own. */
  end(error) {
    for (const call of [...this.#calls.keys()]) this.#end(call, error());
  }

  /** Begins the calls on a connection, in order, for as long as it can take any. */
  moveTo(connection) {
    for (const call of [...this.#calls.keys()]) {
      if (!connection.usable) return;
      this.drop(call);
      connection.begin(call);
    }
  }

  #end(call, error) {
    this.drop(call);
    call.end(error);
  }
}
