// What the application holds of a call with streams. The call knows nothing of these objects, so that one which nobody
// holds any more can be collected: its call is cancelled then.

import { Call } from './call.js';
import { Cancelled } from './errors.js';
import { Incoming } from './incoming.js';
import { Outgoing } from './outgoing.js';
import { bytesOf } from './payload.js';
import { Style } from './wire.js';

const dropped = new FinalizationRegistry((call) => call.abandon(new Cancelled('nobody reads the stream any more')));

const DONE = Object.freeze({ done: true, value: undefined });

/** A call with chunks. `response` is a promise where the style has a response. */
export class StreamCall extends Call {
  response = null;
  #resolve;
  #reject;

  constructor(style, name, payload, options, method = null) {
    super(style, name, payload, options, method);
    if (style !== Style.clientStream) this.incoming = new Incoming(this);
    if (style !== Style.serverStream) this.outgoing = new Outgoing(this);
    if (style === Style.clientStream) {
      this.response = new Promise((resolve, reject) => {
        this.#resolve = resolve;
        this.#reject = reject;
      });
      // Nobody has to ask for it.
      this.response.catch(() => {});
    }
  }

  settled(error, response) {
    if (this.response === null) return;
    if (error) this.#reject(error);
    else this.#resolve(response);
  }
}

class Stream {
  #call;

  constructor(call) {
    this.#call = call;
    dropped.register(this, call, this);
  }

  /** Ends the call. What waits for it ends as Cancelled. */
  cancel(reason) {
    this.#call.aborted(reason);
  }

  // For the classes below.
  static callOf(stream) {
    return stream.#call;
  }

  static keep(stream) {
    dropped.unregister(stream);
  }
}

// The half that the server sends, as an async iterator.
const reading = (Base) =>
  class extends Base {
    next() {
      return Stream.callOf(this).incoming.next(this);
    }

    /** Cancels the call, if it has not ended. What waits in `next` settles as done. */
    return(value) {
      this.#stop();
      return Promise.resolve(value === undefined ? DONE : { done: true, value });
    }

    throw(error) {
      this.#stop();
      return Promise.reject(error);
    }

    [Symbol.asyncIterator]() {
      return this;
    }

    #stop() {
      const call = Stream.callOf(this);
      call.incoming.discard();
      call.abandon(new Cancelled('the stream was closed by its reader'));
    }
  };

// The half that the client sends.
const writing = (Base) =>
  class extends Base {
    /** Sends a chunk. Resolves to true when it is on its way, to false if the server has ended the call. */
    send(chunk) {
      return attempt(() => Stream.callOf(this).outgoing.send(bytesOf(chunk), this));
    }

    /** Sends every chunk of an iterable, until the server wants no more. */
    async sendAll(chunks) {
      for await (const chunk of chunks) {
        if (!(await this.send(chunk))) return false;
      }
      return true;
    }
  };

/** Chunks from the server. */
export class ServerStream extends reading(Stream) {}

/** Chunks to the server, and its one response. */
export class ClientStream extends writing(Stream) {
  /** The response. The server may give it before the stream was ended. */
  get response() {
    return Stream.callOf(this).response;
  }

  /** Ends the stream and waits for the response. */
  finish() {
    const call = Stream.callOf(this);
    // The caller may hold nothing but the response from here on.
    Stream.keep(this);
    call.outgoing.end(this);
    return call.response;
  }
}

/** Chunks both ways. */
export class Duplex extends reading(writing(Stream)) {
  /** Ends the client's stream. The server's goes on. */
  end() {
    return Stream.callOf(this).outgoing.end(this);
  }
}

function attempt(action) {
  try {
    return action();
  } catch (error) {
    return Promise.reject(error);
  }
}
