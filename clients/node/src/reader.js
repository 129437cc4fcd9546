// Cuts the bytes from the socket into records, wherever the kernel has cut them.
//
// A record is shown to `onRecord` as the reader itself, with the fields below, and only during that call: there is one
// reader for all records, and the payload usually lies in the socket's read buffer. What is kept must be taken with
// `takePayload`.

import { Growing } from './growing.js';
import { checkHeader, EXTENDED, EXTENSION_BYTES, HEADER_BYTES, MAX_HEAD_BYTES } from './wire.js';

export class Reader {
  kind = 0;
  type = 0;
  /** The call id, or -1 if it is above 2^53 and so none of ours. */
  call = 0;
  /** Whether there is an extension, and its two halves of 32 bits. */
  extended = false;
  low = 0;
  high = 0;
  /** Where the payload lies. */
  bytes = null;
  start = 0;
  end = 0;

  #maxPayload;
  #hearsTypes;
  #onRecord;
  #owned = false;
  // The beginning of a record that has not come whole: its head, then its payload.
  #head = Buffer.alloc(MAX_HEAD_BYTES);
  #filled = 0;
  #body = null;
  #stopped = false;

  constructor(maxPayload, hearsTypes, onRecord) {
    this.#maxPayload = maxPayload;
    this.#hearsTypes = hearsTypes;
    this.#onRecord = onRecord;
  }

  get length() {
    return this.end - this.start;
  }

  /** The extension as a number. Above 2^53 it is rounded, which is far beyond every limit that it is compared with. */
  get extension() {
    return this.high * 2 ** 32 + this.low;
  }

  /** The payload, in memory of its own. */
  takePayload() {
    if (this.#owned) return this.bytes;
    const payload = Buffer.allocUnsafe(this.length);
    this.bytes.copy(payload, 0, this.start, this.end);
    return payload;
  }

  text(limit) {
    return this.bytes.toString('utf8', this.start, Math.min(this.end, this.start + limit));
  }

  /** No record is shown after this one. */
  stop() {
    this.#stopped = true;
  }

  /** Takes `bytes[at..end]`. Throws a Violation; nothing may be pushed after that. */
  push(bytes, at, end) {
    while (at < end && !this.#stopped) {
      at = this.#filled === 0 && end - at >= HEADER_BYTES ? this.#whole(bytes, at, end) : this.#piece(bytes, at, end);
    }
  }

  // The usual case: the record lies in one piece. Else its head is kept.
  #whole(bytes, at, end) {
    this.#readHeader(bytes, at);
    const head = HEADER_BYTES + (this.extended ? EXTENSION_BYTES : 0);
    const length = this.end;
    if (end - at < head + length) return this.#piece(bytes, at, end);
    this.#readRest(bytes, at);
    this.#show(bytes, at + head, length, false);
    return at + head + length;
  }

  #piece(bytes, at, end) {
    if (this.#body === null) {
      at = this.#fillHead(bytes, at, end);
      if (this.#body === null) return at;
    }
    const take = Math.min(this.#body.missing, end - at);
    this.#body.append(bytes, at, at + take);
    if (this.#body.missing === 0) {
      const body = this.#body.take();
      this.#body = null;
      this.#filled = 0;
      this.#show(body, 0, body.length, true);
    }
    return at + take;
  }

  // Collects the header word, which is checked at once, then the rest of the head. Sets `#body` when the head is whole.
  #fillHead(bytes, at, end) {
    while (at < end) {
      const wanted = this.#filled < 8 ? 8 : HEADER_BYTES + (this.extended ? EXTENSION_BYTES : 0);
      const take = Math.min(wanted - this.#filled, end - at);
      bytes.copy(this.#head, this.#filled, at, at + take);
      this.#filled += take;
      at += take;
      if (this.#filled < wanted) return at;
      if (wanted === 8) {
        this.#readHeader(this.#head, 0);
        continue;
      }
      this.#readRest(this.#head, 0);
      this.#body = new Growing(this.end);
      return at;
    }
    return at;
  }

  // Leaves the length of the payload in `end`, as long as the payload is not there.
  #readHeader(bytes, at) {
    const length = bytes.readUInt32LE(at);
    this.type = bytes.readUInt16LE(at + 4);
    this.kind = bytes[at + 6];
    const flags = bytes[at + 7];
    checkHeader(this.kind, flags, this.type, length, this.#maxPayload, this.#hearsTypes);
    this.extended = flags === EXTENDED;
    this.start = 0;
    this.end = length;
  }

  #readRest(bytes, at) {
    const high = bytes.readUInt32LE(at + 12);
    this.call = high < 2 ** 21 ? high * 2 ** 32 + bytes.readUInt32LE(at + 8) : -1;
    this.low = this.extended ? bytes.readUInt32LE(at + 16) : 0;
    this.high = this.extended ? bytes.readUInt32LE(at + 20) : 0;
  }

  #show(bytes, start, length, owned) {
    this.bytes = bytes;
    this.start = start;
    this.end = start + length;
    this.#owned = owned;
    this.#onRecord(this);
    this.bytes = null;
  }
}
