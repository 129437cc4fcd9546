// A small server made from docs/wire.md, for what a real one would never do: break rules, stop in the middle, answer one
// byte at a time.

import { mkdtempSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from '../index.js';
import { atEnd, remove } from './at-end.js';
import { ServerRules } from './server-rules.js';

const NUMBERS = { request: 2, cancel: 3, credit: 4, response: 5, error: 6, chunk: 7, end: 8, fragment: 9, admitted: 10, types: 12 };
const TABLE = 32n;

export const TYPES = [
  { name: 'unary', number: 1, style: 0 },
  { name: 'server_stream', number: 2, style: 1 },
  { name: 'client_stream', number: 3, style: 2 },
  { name: 'duplex', number: 4, style: 3 },
];

const TERMS = { capacity: 262_144, maxMessage: 10_485_760, maxInFlight: 1_024, streamWindow: 65_536 };

export function encodeRecord({ kind, type = 0, call = 0, extension = null, payload = '' }) {
  const body = Buffer.from(payload);
  const head = Buffer.alloc(extension === null ? 16 : 24);
  head.writeUInt32LE(body.length, 0);
  head.writeUInt16LE(type, 4);
  head[6] = NUMBERS[kind];
  head[7] = extension === null ? 0 : 1;
  head.writeBigUInt64LE(BigInt(call), 8);
  if (extension !== null) head.writeBigUInt64LE(BigInt(extension), 16);
  return Buffer.concat([head, body]);
}

export function encodeAnswer(terms, types = TYPES, { status = 0, text = '' } = {}) {
  const body = status === 0 ? Buffer.concat(types.map(encodeType)) : Buffer.from(text);
  const head = Buffer.alloc(64);
  head.write('BELLROPE');
  head.writeUInt16LE(1, 8);
  head.writeUInt16LE(1, 10);
  head.writeUInt16LE(status, 12);
  head.writeUInt32LE(body.length, 48);
  if (status === 0) {
    head.writeBigUInt64LE(7n, 24);
    head.writeUInt32LE(terms.capacity, 32);
    head.writeUInt32LE(terms.maxMessage, 36);
    head.writeUInt32LE(terms.maxInFlight, 40);
    head.writeUInt32LE(terms.streamWindow, 44);
    if (terms.entries !== undefined) {
      head.writeBigUInt64LE(TABLE, 16);
      head.writeUInt32LE(terms.entries, 52);
    }
    head.writeBigUInt64LE(process.hrtime.bigint() / 1000n, 56);
  }
  return Buffer.concat([head, body]);
}

/** A message type, as it stands in the table. */
export function encodeType({ name, number, style }) {
  const head = Buffer.alloc(4);
  head.writeUInt16LE(number);
  head[2] = style;
  head[3] = Buffer.byteLength(name);
  return Buffer.concat([head, Buffer.from(name)]);
}

/** A folder for a socket, which `t` removes. */
export function folder(t) {
  const path = mkdtempSync(join(tmpdir(), 'bellrope-node-'));
  atEnd(t, () => remove(path));
  return path;
}

/** A client that `t` closes. It has all the time to connect: a busy machine may stand still for seconds. */
export async function clientOf(t, pathOrOptions) {
  const options = typeof pathOrOptions === 'string' ? { path: pathOrOptions } : pathOrOptions;
  const client = await connect({ connectTimeout: 60_000, ...options });
  atEnd(t, () => client.close());
  return client;
}

/**
 * Starts a server. Options: the terms, with `entries` of the whole table where the bit TABLE is answered; `types`; `path`; `status` and `text` of a refusal; `onPeer(peer)` when a connection
 * comes (`peer.manual = true` there leaves the handshake to the test); `onRecord(peer, record)` for each record, else the server echoes; `cut` makes it write so
 * many bytes at a time.
 */
export async function startFake(t, options = {}) {
  const server = new FakeServer({ ...TERMS, ...options, path: options.path ?? join(folder(t), 'fake.sock') });
  atEnd(t, () => server.close());
  await server.listen();
  return server;
}

class FakeServer {
  peers = [];
  #options;
  #server = null;
  #waiting = [];

  constructor(options) {
    this.#options = options;
    this.path = options.path;
  }

  async listen() {
    this.#server = createServer((socket) => this.#accept(socket));
    await new Promise((resolve, reject) => this.#server.once('error', reject).listen({ path: this.path, backlog: this.#options.backlog }, resolve));
  }

  /** The peer with that index, once it has connected. */
  async peer(index = 0) {
    while (this.peers.length <= index) await new Promise((resolve) => this.#waiting.push(resolve));
    return this.peers[index];
  }

  async close() {
    for (const peer of this.peers) peer.socket.destroy();
    if (this.#server.listening) await new Promise((resolve) => this.#server.close(resolve));
  }

  #accept(socket) {
    const peer = new Peer(socket, this.#options);
    this.peers.push(peer);
    this.#options.onPeer?.(peer);
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

export class Peer {
  manual = false;
  hello = null;
  records = [];
  /** The rule that the client broke. */
  broken = null;
  closed = false;
  bytesRead = 0;
  reads = 0;
  #options;
  #rules;
  #head = Buffer.alloc(0);
  #waiting = [];
  #queue = Promise.resolve();

  constructor(socket, options) {
    this.socket = socket;
    this.#options = options;
    const types = options.types ?? TYPES;
    this.#rules = new ServerRules(options, new Map(types.map(({ number, style }) => [number, style])));
    socket.on('error', () => {});
    socket.on('data', (bytes) => this.#read(bytes));
    socket.on('close', () => {
      this.closed = true;
      this.#wake();
    });
  }

  get requests() {
    return this.#rules.requests;
  }

  /** Waits until `condition` holds of this peer. */
  async until(condition) {
    while (!condition(this)) {
      if (this.closed && !condition(this)) throw new Error(`the client hung up (rule ${this.broken})`);
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
  }

  /** Waits for the record with that index. */
  async record(index) {
    await this.until(() => this.records.length > index);
    return this.records[index];
  }

  /** Waits for the end of the connection. */
  async end() {
    while (!this.closed) await new Promise((resolve) => this.#waiting.push(resolve));
  }

  answer() {
    const { types, status, text } = this.#options;
    this.write(encodeAnswer(this.#options, types, { status, text }));
    if (status) this.socket.end();
  }

  send(record) {
    if (['response', 'error', 'end'].includes(record.kind) && record.call !== undefined) this.#rules.ended(BigInt(record.call));
    if (record.kind === 'credit') this.#rules.giveCredit(BigInt(record.call), Number(record.extension));
    if (record.kind === 'chunk') this.#rules.sentChunk(BigInt(record.call), Buffer.byteLength(record.payload ?? ''));
    this.write(encodeRecord(record));
  }

  /** A response in parts, if it has to be. */
  respond(call, payload) {
    const bytes = Buffer.from(payload);
    const maxRecord = Math.min(this.#options.capacity / 4, this.#options.maxMessage);
    const part = Math.min(maxRecord, 32_768);
    let at = 0;
    if (bytes.length > maxRecord) {
      for (; bytes.length - at > part; at += part) {
        this.send({ kind: 'fragment', call, extension: bytes.length, payload: bytes.subarray(at, at + part) });
      }
    }
    this.send({ kind: 'response', call, payload: bytes.subarray(at) });
  }

  write(bytes) {
    const { cut } = this.#options;
    if (!cut) {
      this.socket.write(bytes);
      return;
    }
    // One piece a turn of the event loop, so that the client reads them one by one.
    this.#queue = this.#queue.then(async () => {
      for (let at = 0; at < bytes.length && !this.socket.destroyed; at += cut) {
        this.socket.write(bytes.subarray(at, at + cut));
        await new Promise(setImmediate);
      }
    });
  }

  /** Hangs up as a server that was killed: at once, with unread bytes. */
  kill() {
    this.socket.destroy();
  }

  #read(bytes) {
    this.bytesRead += bytes.length;
    this.reads += 1;
    if (this.hello === null) {
      this.#head = Buffer.concat([this.#head, bytes]);
      if (this.#head.length < 88) return;
      this.hello = this.#head.subarray(0, 88);
      bytes = this.#head.subarray(88);
      if (!this.manual) this.answer();
    }
    try {
      for (const record of this.#rules.push(bytes)) {
        this.records.push(record);
        (this.#options.onRecord ?? echo)(this, record);
      }
    } catch (error) {
      if (error.rule === undefined) throw error;
      this.broken = error.rule;
      this.socket.destroy();
    }
    this.#wake();
  }

  #wake() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/**
 * What the server does on its own: `unary` answers with the request; `server_stream` sends the request's bytes in chunks of
 * 7; `client_stream` answers with the number of bytes; `duplex` sends each chunk back.
 */
export function echo(peer, { kind, type, call, payload, whole }) {
  const state = (peer.calls ??= new Map());
  if (kind === 'request' && type === 1) peer.respond(call, whole);
  if (kind === 'request' && type === 2) {
    let number = 0;
    for (let at = 0; at < whole.length; at += 7) {
      peer.send({ kind: 'chunk', call, extension: number, payload: whole.subarray(at, at + 7) });
      number += 1;
    }
    peer.send({ kind: 'end', call, extension: number });
  }
  if (kind === 'request' && type >= 3) state.set(call, { type, bytes: whole.length, chunks: 0 });
  if (kind === 'cancel') state.delete(call);
  const upload = state.get(call);
  if (upload === undefined) return;
  if (kind === 'chunk') {
    upload.bytes += payload.length;
    if (upload.type === 4) peer.send({ kind: 'chunk', call, extension: upload.chunks, payload });
    upload.chunks += 1;
    peer.send({ kind: 'credit', call, extension: payload.length + 64 });
  }
  if (kind === 'end') {
    state.delete(call);
    if (upload.type === 4) peer.send({ kind: 'end', call, extension: upload.chunks });
    else peer.respond(call, String(upload.bytes));
  }
}
