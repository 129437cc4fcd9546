// The client: calls in every style over one connection, which it makes again when it is lost.

import { EventEmitter } from 'node:events';
import { Backoff } from './backoff.js';
import { Answered } from './call.js';
import { dial } from './dial.js';
import { Cancelled, Closed, Connect, Violation } from './errors.js';
import { optionsOf, spawnOf } from './options.js';
import { ItemDuplex, Items, ItemUpload } from './items.js';
import { answerOf, Method, requestBytes } from './method.js';
import { bytesOf } from './payload.js';
import { findOrStart } from './search.js';
import { ClientStream, Duplex, ServerStream, StreamCall } from './streams.js';
import { Waiting } from './waiting.js';
import { Style, STYLE_NAMES } from './wire.js';

const INTERNAL = Symbol('internal');
/** A pause between two tries that is worth cutting short when a call comes, in milliseconds. */
const LONG_PAUSE_MS = 50;

let open;

/** Connects to a server. Rejects with a Connect if there is none. */
export function connect(pathOrOptions) {
  return opened(pathOrOptions, dial);
}

/** Connects to a server, or starts it and connects then. Rejects with a Connect, of which SpawnErrors are a kind. */
export async function connectOrSpawn(pathOrOptions, spawn) {
  const server = spawnOf(spawn);
  return opened(pathOrOptions, (options, stop) => findOrStart(options, server, stop));
}

async function opened(pathOrOptions, find) {
  const options = optionsOf(pathOrOptions);
  const client = new Client(options, INTERNAL);
  await open(client, find, options.signal);
  return client;
}

export class Client extends EventEmitter {
  #options;
  #state = 'connecting';
  #connection = null;
  #referenced = true;
  #backoff = new Backoff();
  #waiting;
  // Ends tries to connect when the client is closed.
  #closing = new AbortController();
  // Ends the pause before the next try.
  #wake = null;
  #wakeForCalls = false;

  constructor(options, key) {
    if (key !== INTERNAL) throw new TypeError('use connect() to make a client');
    super();
    this.#options = options;
    this.#waiting = new Waiting(options.reconnectTimeout);
  }

  static {
    open = (client, find, signal) => client.#open(find, signal);
  }

  /** `connecting`, `connected`, `reconnecting` or `closed`. */
  get state() {
    return this.#state;
  }

  get path() {
    return this.#options.path;
  }

  /** The message types that the server offers now, as far as it is known. None while there is no connection. */
  get messageTypes() {
    const types = this.#connection?.terms.table.values() ?? [];
    return Array.from(types, ({ name, style, codec, schema }) => ({ name, style: STYLE_NAMES[style], codec, schema }));
  }

  /** The limits of the present connection, or null. */
  get limits() {
    if (this.#connection === null) return null;
    const { maxMessage, maxInFlight, streamWindow } = this.#connection.terms;
    return { maxMessage, maxInFlight, streamWindow };
  }

  /** One request, one response. */
  call(name, payload, options) {
    return this.#answered(name, payload, options);
  }

  /** One request, chunks from the server. */
  stream(name, payload, options) {
    return this.#stream(Style.serverStream, ServerStream, name, payload, options);
  }

  /** A request, chunks to the server, one response. */
  clientStream(name, payload, options) {
    return this.#stream(Style.clientStream, ClientStream, name, payload, options);
  }

  /** A request, chunks both ways. */
  duplex(name, payload, options) {
    return this.#stream(Style.duplex, Duplex, name, payload, options);
  }

  /** As `call`, of a method of a typed service: values both ways. */
  async callTyped(method, value, options) {
    const bytes = requestBytes(method, value);
    return answerOf(method, await this.#answered(method.name, bytes, options, method));
  }

  /** As `stream`, of a method of a typed service. */
  streamTyped(method, value, options) {
    return new Items(method, this.#typed(Style.serverStream, ServerStream, method, value, options));
  }

  /** As `clientStream`, of a method of a typed service. */
  clientStreamTyped(method, value, options) {
    return new ItemUpload(method, this.#typed(Style.clientStream, ClientStream, method, value, options));
  }

  /** As `duplex`, of a method of a typed service. */
  duplexTyped(method, value, options) {
    return new ItemDuplex(method, this.#typed(Style.duplex, Duplex, method, value, options));
  }

  /** As `call`, with JSON both ways. */
  callJson(name, value, options) {
    return this.callTyped(new Method(name), value, options);
  }

  /** As `stream`, with JSON both ways. */
  streamJson(name, value, options) {
    return this.streamTyped(new Method(name), value, options);
  }

  /** As `clientStream`, with JSON both ways. */
  clientStreamJson(name, value, options) {
    return this.clientStreamTyped(new Method(name), value, options);
  }

  /** As `duplex`, with JSON both ways. */
  duplexJson(name, value, options) {
    return this.duplexTyped(new Method(name), value, options);
  }

  /** Ends all calls as Closed, and everything that this client does. */
  close() {
    if (this.#state === 'closed') return;
    const connection = this.#connection;
    this.#connection = null;
    this.#state = 'closed';
    this.#closing.abort(closed());
    this.#wake?.();
    connection?.close();
    this.#waiting.end(closed);
    this.#changed('closed');
  }

  /** Keeps the program running while the client is open, which is the default. */
  ref() {
    this.#referenced = true;
    this.#connection?.ref();
    return this;
  }

  /** Lets the program end although the client is open. */
  unref() {
    this.#referenced = false;
    this.#connection?.unref();
    return this;
  }

  // The first try, and the only one before the application has the client.
  async #open(find, signal) {
    const stop = () => this.#closing.abort(new Cancelled('the caller gave up', { cause: signal.reason }));
    signal?.addEventListener('abort', stop);
    if (signal?.aborted) stop();
    try {
      this.#install(await find(this.#options, this.#closing.signal));
    } catch (error) {
      this.#state = 'closed';
      throw error;
    } finally {
      signal?.removeEventListener('abort', stop);
    }
  }

  #answered(name, payload, options, method = null) {
    return new Promise((resolve, reject) => {
      const call = new Answered(Style.unary, name, bytesOf(payload), options, resolve, reject, method);
      call.within(this.#options.callTimeout, options);
      this.#start(call);
    });
  }

  #stream(style, Type, name, payload, options) {
    return this.#begin(Type, new StreamCall(style, name, bytesOf(payload), options));
  }

  #typed(style, Type, method, value, options) {
    return this.#begin(Type, new StreamCall(style, method.name, requestBytes(method, value), options, method));
  }

  #begin(Type, call) {
    const stream = new Type(call);
    this.#start(call);
    return stream;
  }

  #start(call) {
    call.arm();
    if (call.ended) return;
    if (this.#connection?.usable) {
      this.#connection.begin(call);
    } else if (this.#state === 'closed') {
      call.end(closed(), undefined, true);
    } else {
      this.#waiting.add(call);
      if (this.#wakeForCalls) this.#wake?.();
    }
  }

  #install(connection) {
    if (this.#closing.signal.aborted) {
      connection.close();
      throw this.#closing.signal.reason;
    }
    this.#connection = connection;
    if (!this.#referenced) connection.unref();
    this.#backoff.connected(performance.now());
    this.#changed('connected');
    connection.watch((error) => this.#lost(connection, error));
    this.#waiting.moveTo(connection);
  }

  #lost(connection, error) {
    if (this.#connection !== connection) return;
    this.#connection = null;
    this.#changed('reconnecting', error);
    const hopeless = error instanceof Violation;
    void this.#reconnect(this.#backoff.lost(performance.now(), hopeless), hopeless);
  }

  // Never rejects: all that can happen is a try that fails, or the end of the client.
  async #reconnect(wait, hopeless) {
    const closing = this.#closing.signal;
    for (;;) {
      await this.#pause(wait, hopeless);
      if (closing.aborted) return;
      try {
        this.#install(await dial(this.#options, closing));
        return;
      } catch (error) {
        if (closing.aborted) return;
        hopeless = error.refusal !== undefined && !error.refusal.passing;
        if (hopeless) this.#waiting.end(() => new Connect(error.message, { refusal: error.refusal }));
        wait = this.#backoff.failed(performance.now(), hopeless);
      }
    }
  }

  #pause(wait, hopeless) {
    return new Promise((resolve) => {
      const woken = () => {
        clearTimeout(timer);
        this.#wake = null;
        resolve();
      };
      const timer = setTimeout(woken, wait);
      if (!this.#referenced) timer.unref();
      this.#wake = woken;
      this.#wakeForCalls = wait >= LONG_PAUSE_MS && !hopeless;
    });
  }

  // Listeners run on their own, so that what they throw harms nothing here.
  #changed(state, error) {
    this.#state = state;
    queueMicrotask(() => this.emit('state', error === undefined ? { state } : { state, error }));
  }
}

function closed() {
  return new Closed('the client was closed');
}
