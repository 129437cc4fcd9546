// When to try again to connect. It is told the time and the luck, and knows no socket.

// [milliseconds since the connection was lost, shortest pause, longest pause]. The last row is for a program that outlives
// its server by a night.
const PAUSES = [
  [2_000, 2, 4],
  [30_000, 8, 16],
  [Infinity, 100, 200],
];
/** After a refusal that does not pass by itself, and after a broken protocol. */
const HOPELESS_MS = [500, 1_000];
/** A connection that ends sooner counts as a try that failed. */
const LASTING_MS = 1_000;

export class Backoff {
  #since = null;
  #connectedAt = -Infinity;
  #hopeless = false;

  connected(now) {
    this.#connectedAt = now;
  }

  /** The connection was lost. Returns the pause before the first try, in milliseconds. */
  lost(now, hopeless, random = Math.random()) {
    this.#hopeless = hopeless;
    const lasted = now - this.#connectedAt >= LASTING_MS;
    if (lasted || this.#since === null) this.#since = now;
    return this.#pause(now, random);
  }

  /** A try has failed. Returns the pause before the next, in milliseconds. */
  failed(now, hopeless, random = Math.random()) {
    this.#hopeless = hopeless;
    return this.#pause(now, random);
  }

  #pause(now, random) {
    const [, shortest, longest] = this.#hopeless ? [0, ...HOPELESS_MS] : PAUSES.find(([until]) => now - this.#since < until);
    return shortest + random * (longest - shortest);
  }
}
