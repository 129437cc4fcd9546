// What a server checks of a client's records, from docs/wire.md alone: the fake server holds the client to it, and the
// vectors hold this file to the specification.

const KINDS = { 1: 'pad', 2: 'request', 3: 'cancel', 4: 'credit', 5: 'response', 6: 'error', 7: 'chunk', 8: 'end', 9: 'fragment', 10: 'admitted' };
const FROM_CLIENT = new Set(['request', 'cancel', 'credit', 'chunk', 'end', 'fragment']);
const NEEDS_EXTENSION = new Set(['credit', 'chunk', 'end', 'fragment']);

export class Rule extends Error {
  constructor(rule) {
    super(rule);
    this.rule = rule;
  }
}

export class ServerRules {
  #terms;
  #styles;
  #buffered = Buffer.alloc(0);
  #calls = new Map();
  #large = null;
  // Ids of large requests that were refused: what still comes of them is dropped.
  #refused = new Set();
  requests = 0;

  /** `styles` maps numbers of message types to 0..3. */
  constructor(terms, styles) {
    this.#terms = terms;
    this.#styles = styles;
  }

  /** Takes bytes and returns the records that are whole. Throws a Rule. */
  push(bytes) {
    this.#buffered = Buffer.concat([this.#buffered, bytes]);
    const records = [];
    for (;;) {
      const record = this.#cut();
      if (record === null) return records;
      this.#check(record);
      records.push(record);
    }
  }

  /** The server has ended the call. */
  ended(id) {
    if (this.#large?.id === id) {
      this.#refused.add(id);
      this.#large = null;
    }
    this.#calls.delete(id);
  }

  /** The server sends a chunk's credit back. */
  giveCredit(id, amount) {
    const call = this.#calls.get(id);
    if (call !== undefined) call.balance += amount;
  }

  /** The server sends a chunk. */
  sentChunk(id, length) {
    const call = this.#calls.get(id);
    if (call !== undefined) call.given -= length + 64;
  }

  #cut() {
    const b = this.#buffered;
    if (b.length < 8) return null;
    const length = b.readUInt32LE(0);
    const kind = KINDS[b[6]];
    const flags = b[7];
    if (kind === undefined || kind === 'pad' || flags > 1) throw new Rule('bad_header');
    if (length > this.#terms.capacity / 4) throw new Rule('bad_length');
    const head = flags === 1 ? 24 : 16;
    if (b.length < head + length) return null;
    this.#buffered = b.subarray(head + length);
    return {
      kind,
      type: b.readUInt16LE(4),
      call: b.readBigUInt64LE(8),
      extension: flags === 1 ? b.readBigUInt64LE(16) : null,
      payload: b.subarray(head, head + length),
      bytes: b.subarray(0, head + length),
    };
  }

  #check(record) {
    const { kind, type, call: id, extension, payload } = record;
    if (!FROM_CLIENT.has(kind)) throw new Rule('bad_direction');
    if (NEEDS_EXTENSION.has(kind) !== (extension !== null) && kind !== 'request') throw new Rule('bad_form');
    if (kind !== 'request' && type !== 0) throw new Rule('bad_form');
    if (['cancel', 'credit', 'end'].includes(kind) && payload.length > 0) throw new Rule('bad_form');
    if (kind === 'fragment' && payload.length === 0) throw new Rule('bad_form');
    const call = this.#calls.get(id);
    if (kind === 'fragment') return this.#fragment(id, extension, payload);
    if (kind === 'request') return this.#request(record);
    if (kind === 'cancel') return this.#cancel(id);
    if (call === undefined) return;
    const uploads = call.style >= 2;
    if (kind === 'credit') {
      if (call.style !== 1 && call.style !== 3) throw new Rule('bad_form');
      if (call.given + Number(extension) > this.#terms.streamWindow) throw new Rule('credit_overflow');
      call.given += Number(extension);
      return;
    }
    if (!uploads || call.ended) throw new Rule('bad_form');
    if (extension !== BigInt(call.next)) throw new Rule('bad_sequence');
    if (kind === 'end') {
      call.ended = true;
      return;
    }
    if (call.balance <= 0) throw new Rule('credit_exceeded');
    call.balance -= payload.length + 64;
    call.next = (call.next + 1) >>> 0;
  }

  #fragment(id, extension, payload) {
    if (this.#refused.has(id)) return;
    if (this.#calls.has(id)) throw new Rule('duplicate_call');
    if (this.#large !== null && this.#large.id !== id) throw new Rule('interleaved');
    this.#large ??= { id, size: Number(extension), got: 0, pieces: [] };
    if (this.#large.size !== Number(extension)) throw new Rule('bad_size');
    this.#large.got += payload.length;
    this.#large.pieces.push(payload);
    if (this.#large.got >= this.#large.size) throw new Rule('bad_size');
  }

  #request(record) {
    const id = record.call;
    this.requests += 1;
    record.whole = record.payload;
    if (this.#refused.delete(id)) {
      record.whole = null;
      return;
    }
    if (this.#calls.has(id)) throw new Rule('duplicate_call');
    if (this.#large?.id === id) {
      this.#large.pieces.push(record.payload);
      record.whole = Buffer.concat(this.#large.pieces);
      if (record.payload.length === 0 || record.whole.length !== this.#large.size) throw new Rule('bad_size');
      this.#large = null;
    }
    const window = this.#terms.streamWindow;
    this.#calls.set(id, { style: this.#styles.get(record.type), balance: window, given: window, next: 0, ended: false });
  }

  #cancel(id) {
    this.#refused.delete(id);
    if (this.#large?.id === id) this.#large = null;
    this.#calls.delete(id);
  }
}
