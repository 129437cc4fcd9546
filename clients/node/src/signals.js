// Calls that listen to an AbortSignal. However many calls share a signal, it has one listener of ours, and none once the
// last of these calls has ended: long-lived signals gather nothing, and Node has no reason to warn of a leak.

const hubs = new WeakMap();

/** Calls `call.aborted(reason)` when the signal fires, until `unlisten`. */
export function listen(signal, call) {
  let hub = hubs.get(signal);
  if (hub === undefined) {
    hub = new Hub(signal);
    hubs.set(signal, hub);
  }
  hub.add(call);
}

export function unlisten(signal, call) {
  hubs.get(signal)?.remove(call);
}

class Hub {
  #signal;
  #calls = new Set();
  #fire = () => {
    for (const call of [...this.#calls]) call.aborted(this.#signal.reason);
  };

  constructor(signal) {
    this.#signal = signal;
  }

  add(call) {
    if (this.#calls.size === 0) this.#signal.addEventListener('abort', this.#fire);
    this.#calls.add(call);
  }

  remove(call) {
    if (this.#calls.delete(call) && this.#calls.size === 0) this.#signal.removeEventListener('abort', this.#fire);
  }
}
