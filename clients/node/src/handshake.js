// The hello and its answer. Specification: docs/wire.md, "The handshake".

import { Connect } from './errors.js';
import { Growing } from './growing.js';
import { PAGE_HEAD_BYTES, Table, Unfit } from './table.js';

const MAGIC = Buffer.from('BELLROPE');
const MAJOR = 1;
const MINOR = 1;
const TRANSPORT_SOCKET = 1;
/** The feature bits by which codec and schema come with each message type, and the table comes whole, with its changes. */
const SCHEMAS = 1n;
const TABLE = 32n;
const FEATURES = SCHEMAS | TABLE;
const HELLO_BYTES = 88;
const HEAD_BYTES = 64;
const MAX_BODY = 65_536;
const MAX_NAME = 64;
/** Characters of a refusal's text that are shown. */
const SHOWN = 300;

const STATUS_NAMES = {
  1: 'version mismatch',
  2: 'malformed hello',
  3: 'full',
  4: 'draining',
  5: 'forbidden',
  6: 'paced',
  7: 'transport not available',
};
/** The names of refusals that mean another version: the server's, and this side's. */
const OTHER_VERSION = 'invalid version';
export const OTHER_VERSIONS = Object.freeze([STATUS_NAMES[1], OTHER_VERSION]);
// Refusals that pass without anybody doing something.
const PASSING = new Set([3, 4]);

/** The hello's 88 bytes. `name` is cut to 64 bytes, between characters. */
export function encodeHello({ name = '', priority = false, features = FEATURES, transport = TRANSPORT_SOCKET } = {}) {
  const hello = Buffer.alloc(HELLO_BYTES);
  const bytes = Buffer.from(name);
  let length = Math.min(bytes.length, MAX_NAME);
  // A byte 10xxxxxx right behind the cut would be the rest of a character.
  while (length < bytes.length && (bytes[length] & 0xc0) === 0x80) length -= 1;
  MAGIC.copy(hello, 0);
  hello.writeUInt16LE(MAJOR, 8);
  hello.writeUInt16LE(MINOR, 10);
  hello[12] = transport;
  hello[13] = priority ? 1 : 0;
  hello[14] = length;
  hello.writeBigUInt64LE(features, 16);
  bytes.copy(hello, 24, 0, length);
  return hello;
}

/** Collects the answer, which may come cut anywhere: a head, the body, and pages where there are any. */
export class AnswerReader {
  #part = new Growing(HEAD_BYTES);
  // Takes the part that is whole. Returns the bytes of the next one, or -1 behind the last.
  #step = (bytes) => this.#takeHead(bytes);
  #head = null;
  #table = null;

  /** Takes `bytes[at..end]` and returns where the answer ends in it, or -1 if it has not ended. Throws a Connect. */
  push(bytes, at, end) {
    try {
      for (;;) {
        at = fill(this.#part, bytes, at, end);
        if (this.#part.missing > 0) return -1;
        const next = this.#step(this.#part.take());
        if (next < 0) return at;
        this.#part = new Growing(next);
      }
    } catch (error) {
      throw error instanceof Unfit ? invalid(error.field) : error;
    }
  }

  /** What the whole answer says. */
  terms() {
    const head = this.#head;
    return {
      connection: head.readBigUInt64LE(24),
      features: head.readBigUInt64LE(16),
      capacity: head.readUInt32LE(32),
      maxMessage: head.readUInt32LE(36),
      maxInFlight: head.readUInt32LE(40),
      streamWindow: head.readUInt32LE(44),
      clockUs: head.readBigUInt64LE(56),
      table: this.#table,
    };
  }

  #takeHead(head) {
    const length = bodyLength(head);
    const features = head.readBigUInt64LE(16);
    const status = head.readUInt16LE(12);
    if (status === 0) this.#table = new Table((features & SCHEMAS) !== 0n, (features & TABLE) === 0n ? null : head.readUInt32LE(52));
    this.#head = head;
    this.#step = (body) => this.#takeBody(status, body);
    return length;
  }

  #takeBody(status, body) {
    if (status !== 0) throw refused(status, body);
    this.#table.body(body);
    return this.#next();
  }

  #takePageHead(head) {
    const length = this.#table.pageHead(head);
    this.#step = (page) => this.#takePage(page);
    return length;
  }

  #takePage(page) {
    this.#table.page(page);
    return this.#next();
  }

  #next() {
    if (this.#table.whole) return -1;
    this.#step = (head) => this.#takePageHead(head);
    return PAGE_HEAD_BYTES;
  }
}

function fill(growing, bytes, at, end) {
  const take = Math.min(growing.missing, end - at);
  growing.append(bytes, at, at + take);
  return at + take;
}

// Everything that the head alone can show to be wrong is found before a byte of the body is taken.
function bodyLength(head) {
  if (!head.subarray(0, 8).equals(MAGIC)) throw invalid('magic');
  const refused = head.readUInt16LE(12) !== 0;
  if (!refused && head.readUInt16LE(8) !== MAJOR) throw otherVersion(head.readUInt16LE(8), head.readUInt16LE(10));
  const length = head.readUInt32LE(48);
  if (length > MAX_BODY) throw invalid('body');
  if (!refused) checkRanges(head);
  return length;
}

function checkRanges(head) {
  const capacity = head.readUInt32LE(32);
  const maxMessage = head.readUInt32LE(36);
  if (capacity < 4_096 || capacity > 2 ** 24 || (capacity & (capacity - 1)) !== 0) throw invalid('capacity');
  if (maxMessage < 1 || maxMessage > 2 ** 30) throw invalid('max_message');
  if (head.readUInt32LE(40) < 1) throw invalid('max_in_flight');
  if (head.readUInt32LE(44) < 1) throw invalid('stream_window');
}

/** Most payload bytes of one record. */
export function maxRecordOf({ capacity, maxMessage }) {
  return Math.min(capacity / 4, maxMessage);
}

function otherVersion(major, minor) {
  const text = `the server speaks version ${major}.${minor}, this client ${MAJOR}.${MINOR}`;
  return new Connect(`the answer to the hello is invalid: ${text}`, { refusal: { status: -1, name: OTHER_VERSION, text, passing: false } });
}

function invalid(field) {
  return new Connect(`the answer to the hello is invalid: ${field}`, { refusal: { status: -1, name: `invalid ${field}`, text: '', passing: false } });
}

function refused(status, body) {
  const text = shown(body.toString('utf8'));
  const name = STATUS_NAMES[status] ?? `status ${status}`;
  return new Connect(`the server refused the connection (${name})${text ? `: ${text}` : ''}`, {
    refusal: { status, name, text, passing: PASSING.has(status) },
  });
}

function shown(text) {
  const plain = text.replace(/[\u0000-\u001f\u007f-\u009f]+/gu, ' ');
  return plain.length > SHOWN ? `${Array.from(plain).slice(0, SHOWN).join('')}...` : plain;
}
