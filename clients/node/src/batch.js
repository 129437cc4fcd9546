// Records on their way into one write of the socket.
//
// Heads and small payloads are copied one behind the other into a buffer that serves every write. Larger payloads are
// written from where they lie.

import { EXTENDED, EXTENSION_BYTES, HEADER_BYTES, MAX_HEAD_BYTES } from './wire.js';

/** Payloads up to this size are copied: that costs less than another piece in the write. */
const COPIED_BYTES = 8_192;
const RECORD_BYTES = MAX_HEAD_BYTES + COPIED_BYTES;
const BUFFER_BYTES = 65_536;
/** No more is begun when a write has this many bytes. */
const ENOUGH_BYTES = 131_072;

export class Batch {
  // With a place for one record when there is no room any more.
  #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES + RECORD_BYTES);
  #start = 0;
  #at = 0;
  #pieces = [];
  #size = 0;

  get empty() {
    return this.#size === 0;
  }

  /** Whether another record may be put in, and one more after that. */
  get hasRoom() {
    return this.#size < ENOUGH_BYTES && BUFFER_BYTES - this.#at >= RECORD_BYTES;
  }

  /** A record without an extension. */
  plain(kind, type, call, payload) {
    this.#head(kind, type, 0, call, payload === null ? 0 : payload.length);
    if (payload !== null) this.#payload(payload);
  }

  /** A record with an extension, given as a number below 2^53 or as a BigInt. */
  extended(kind, type, call, extension, payload) {
    this.#head(kind, type, EXTENDED, call, payload === null ? 0 : payload.length);
    if (typeof extension === 'bigint') {
      this.#buffer.writeBigUInt64LE(extension, this.#at);
    } else {
      this.#number(extension);
    }
    this.#at += EXTENSION_BYTES;
    this.#size += EXTENSION_BYTES;
    if (payload !== null) this.#payload(payload);
  }

  /** What has been put in, as pieces for one write, and begins anew. The buffer is used again by the next batch. */
  take() {
    this.#cut();
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#start = 0;
    this.#at = 0;
    this.#size = 0;
    return pieces;
  }

  #head(kind, type, flags, call, length) {
    const buffer = this.#buffer;
    buffer.writeUInt32LE(length, this.#at);
    buffer.writeUInt16LE(type, this.#at + 4);
    buffer[this.#at + 6] = kind;
    buffer[this.#at + 7] = flags;
    this.#at += 8;
    this.#number(call);
    this.#at += 8;
    this.#size += HEADER_BYTES;
  }

  #number(value) {
    this.#buffer.writeUInt32LE(value >>> 0, this.#at);
    this.#buffer.writeUInt32LE(Math.floor(value / 2 ** 32), this.#at + 4);
  }

  #payload(payload) {
    this.#size += payload.length;
    if (payload.length <= COPIED_BYTES) {
      this.#buffer.set(payload, this.#at);
      this.#at += payload.length;
    } else {
      this.#cut();
      this.#pieces.push(payload);
    }
  }

  #cut() {
    if (this.#at > this.#start) this.#pieces.push(this.#buffer.subarray(this.#start, this.#at));
    this.#start = this.#at;
  }
}
