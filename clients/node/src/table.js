// The table of message types: what the answer to the hello has of it, the pages behind that, and its later changes.
// Specification: docs/wire.md, "The handshake" and "A table in pages".

import { Violation } from './errors.js';

/** Bytes of the head of a page. */
export const PAGE_HEAD_BYTES = 8;
/** Entries of a table, and bytes of the entries of a page, at most. */
const MAX_TYPES = 4_096;
const MAX_PAGE = 65_536;
const ENTRY_HEAD_BYTES = 4;
const MARK_BYTES = 9;
const LONGEST_ENTRY = ENTRY_HEAD_BYTES + 255 + MARK_BYTES;
/** In place of style and length: the type is there no longer. */
const REMOVED = [255, 0];
const CONTROLS = /[\u0000-\u001f\u007f-\u009f]/u;

/** What does not make a table: `field` is what is wrong. */
export class Unfit extends Error {
  constructor(field) {
    super(field);
    this.field = field;
  }
}

export class Table {
  #marked;
  #entries;
  #came = 0;
  // Entries of the page that is read.
  #page = 0;
  // By number, in the order of the table. Those of a style of a newer version count, and have no type.
  #numbers = new Map();
  #names = null;
  #utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

  /**
   * `marked`: codec and schema travel with each type. `entries` is how many the whole table has, null if the server does not
   * say so, and tells of no changes.
   */
  constructor(marked, entries) {
    if (entries !== null && entries > MAX_TYPES) throw new Unfit('entries');
    this.#marked = marked;
    this.#entries = entries;
  }

  /** Whether the server tells of changes. */
  get changes() {
    return this.#entries !== null;
  }

  /** Whether no page is to come. */
  get whole() {
    return this.#entries === null || this.#came === this.#entries;
  }

  /** Takes the body of the answer. */
  body(bytes) {
    for (let at = 0; at < bytes.length; ) at = this.#take(bytes, at);
  }

  /** Takes the head of a page. Returns how many bytes of entries follow. */
  pageHead(head) {
    const first = head.readUInt16LE(0);
    const length = head.readUInt32LE(4);
    this.#page = head.readUInt16LE(2);
    const counts = this.#page >= 1 && this.#page <= this.#entries - this.#came;
    const holds = length >= 1 && length <= Math.min(MAX_PAGE, this.#page * LONGEST_ENTRY);
    if (first !== this.#came || !counts || !holds) throw new Unfit('page');
    return length;
  }

  /** Takes the entries of the page. */
  page(bytes) {
    let at = 0;
    for (let left = this.#page; left > 0; left -= 1) at = this.#take(bytes, at);
    if (at !== bytes.length) throw new Unfit('page');
  }

  /** Takes a change, after which there are so many entries. Throws a Violation; then the connection is to be given up. */
  change(bytes, entries) {
    this.#names = null;
    try {
      for (let at = 0; at < bytes.length; ) at = this.#change(bytes, at);
      if (this.#came !== entries) throw new Unfit('entries');
    } catch (error) {
      if (error instanceof Unfit) throw new Violation('bad_types', `a change of the message types does not fit the table: ${error.field}`);
      throw error;
    }
  }

  find(name) {
    return this.#byName().get(name);
  }

  /** All types, in the order of the table. */
  values() {
    return this.#byName().values();
  }

  // If a name stands there twice, the first counts.
  #byName() {
    if (this.#names === null) {
      this.#names = new Map();
      for (const types of this.#numbers.values()) {
        for (const type of types) if (!this.#names.has(type.name)) this.#names.set(type.name, type);
      }
    }
    return this.#names;
  }

  #take(bytes, at) {
    if (this.#entries !== null && this.whole) throw new Unfit('entries');
    return this.#add(bytes, at);
  }

  #change(bytes, at) {
    if (bytes.length - at < ENTRY_HEAD_BYTES) throw new Unfit('types');
    const number = bytes.readUInt16LE(at);
    if (bytes[at + 2] === REMOVED[0] && bytes[at + 3] === REMOVED[1]) {
      if (!this.#numbers.delete(number)) throw new Unfit(`there is no number ${number} to take out`);
      this.#came -= 1;
      return at + ENTRY_HEAD_BYTES;
    }
    if (this.#numbers.has(number)) throw new Unfit(`the number ${number} is there already`);
    if (this.#came === MAX_TYPES) throw new Unfit('entries');
    return this.#add(bytes, at);
  }

  // Adds the entry that stands there, and returns where it ends.
  #add(bytes, at) {
    if (bytes.length - at < ENTRY_HEAD_BYTES) throw new Unfit('types');
    const number = bytes.readUInt16LE(at);
    const style = bytes[at + 2];
    const begin = at + ENTRY_HEAD_BYTES;
    const end = begin + bytes[at + 3];
    const next = this.#marked ? end + MARK_BYTES : end;
    if (end === begin || next > bytes.length) throw new Unfit('types');
    const name = this.#name(bytes.subarray(begin, end));
    const codec = this.#marked ? bytes[end] : 0;
    const schema = this.#marked ? bytes.readBigUInt64LE(end + 1) : 0n;
    const types = this.#numbers.get(number) ?? [];
    this.#numbers.set(number, types);
    if (style <= 3) types.push({ name, number, style, codec, schema });
    this.#came += 1;
    return next;
  }

  #name(bytes) {
    let name;
    try {
      name = this.#utf8.decode(bytes);
    } catch {
      throw new Unfit('types');
    }
    if (CONTROLS.test(name)) throw new Unfit('types');
    return name;
  }
}
