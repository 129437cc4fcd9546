// Streams of values: what the application holds of a call to a typed service.

import { ServiceError } from './errors.js';
import { answerOf, itemBytes, outcomeOf } from './method.js';

const DONE = Object.freeze({ done: true, value: undefined });

// The half that the server sends, as an async iterator.
const reading = (Base) =>
  class extends Base {
    /**
     * The next item. An error of the application's is thrown as a ServiceError and cancels the call, as a loop ends with it;
     * `results()` goes on behind such errors.
     */
    async next() {
      const step = await this.#step();
      if (step.done || !(step.value instanceof ServiceError)) return step;
      // A loop does not call `return` when `next` fails.
      await this.stream.return();
      throw step.value;
    }

    return(value) {
      return this.stream.return(value);
    }

    throw(error) {
      return this.stream.throw(error);
    }

    [Symbol.asyncIterator]() {
      return this;
    }

    /** The same stream, in which an error of the application's is an item: a ServiceError. */
    results() {
      return {
        next: () => this.#step(),
        return: (value) => this.stream.return(value),
        throw: (error) => this.stream.throw(error),
        [Symbol.asyncIterator]() {
          return this;
        },
      };
    }

    async #step() {
      const { done, value } = await this.stream.next();
      if (done) return DONE;
      try {
        return { done: false, value: outcomeOf(this.method, value, 'an item') };
      } catch (error) {
        await this.stream.return();
        throw error;
      }
    }
  };

// The half that the client sends.
const writing = (Base) =>
  class extends Base {
    /** Sends an item. Resolves to true when it is on its way, to false if the server has ended the call. */
    async send(item) {
      return this.stream.send(itemBytes(this.method, item));
    }

    /** Sends every item of an iterable, until the server wants no more. */
    async sendAll(items) {
      for await (const item of items) {
        if (!(await this.send(item))) return false;
      }
      return true;
    }
  };

class Typed {
  #method;
  #stream;

  constructor(method, stream) {
    this.#method = method;
    this.#stream = stream;
  }

  get method() {
    return this.#method;
  }

  /** The stream of bytes below. */
  get stream() {
    return this.#stream;
  }

  /** Ends the call. What waits for it ends as Cancelled. */
  cancel(reason) {
    this.#stream.cancel(reason);
  }
}

/** Items from the server. */
export class Items extends reading(Typed) {}

/** Items to the server, and its one answer. */
export class ItemUpload extends writing(Typed) {
  /** Ends the stream and waits for the answer. */
  async finish() {
    return answerOf(this.method, await this.stream.finish());
  }
}

/** Items both ways. */
export class ItemDuplex extends reading(writing(Typed)) {
  /** Ends the client's stream. The server's goes on. */
  end() {
    return this.stream.end();
  }
}
