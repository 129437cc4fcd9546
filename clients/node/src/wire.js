// The records of the protocol: their numbers, and the table that each of them is checked against.
// Specification: docs/wire.md, "Records".

import { Violation } from './errors.js';

export const Kind = Object.freeze({
  request: 2,
  cancel: 3,
  credit: 4,
  response: 5,
  error: 6,
  chunk: 7,
  end: 8,
  fragment: 9,
  admitted: 10,
  types: 12,
  described: 13,
});

export const Style = Object.freeze({ unary: 0, serverStream: 1, clientStream: 2, duplex: 3 });
export const STYLE_NAMES = Object.freeze(['unary', 'server stream', 'client stream', 'duplex']);

export const HEADER_BYTES = 16;
export const EXTENSION_BYTES = 8;
export const MAX_HEAD_BYTES = HEADER_BYTES + EXTENSION_BYTES;

/** What a chunk costs beyond its length. */
export const CHUNK_COST = 64;

/** Payload bytes of every part but the last, at most. */
const PART_BYTES = 32_768;

/** Bytes of the text of an error, at most. */
export const MAX_ERROR_TEXT = 1_024;

export const EXTENDED = 1;

// For each kind: may the server send it, and must (true), may (null) or must not (false) it have a type, an extension
// and a payload.
const FORMS = [];
FORMS[Kind.request] = { fromServer: false };
FORMS[Kind.cancel] = { fromServer: false };
FORMS[Kind.credit] = { fromServer: true, type: false, extension: true, payload: false };
FORMS[Kind.response] = { fromServer: true, type: false, extension: false, payload: null };
FORMS[Kind.error] = { fromServer: true, type: null, extension: null, payload: null };
FORMS[Kind.chunk] = { fromServer: true, type: false, extension: true, payload: null };
FORMS[Kind.end] = { fromServer: true, type: false, extension: true, payload: false };
FORMS[Kind.fragment] = { fromServer: true, type: false, extension: true, payload: true };
FORMS[Kind.admitted] = { fromServer: true, type: false, extension: true, payload: false };
FORMS[Kind.types] = { fromServer: true, type: false, extension: true, payload: true };
FORMS[Kind.described] = { fromServer: false };

/** Checks the header of a record from the server, as soon as its eight bytes are there. `hearsTypes`: changes of the table may come. */
export function checkHeader(kind, flags, type, length, maxPayload, hearsTypes) {
  const form = FORMS[kind];
  if (form === undefined || (flags & ~EXTENDED) !== 0) {
    throw new Violation('bad_header', `kind ${kind}, flags ${flags}`);
  }
  if (length > maxPayload) throw new Violation('bad_length', `a record of ${length} bytes, at most ${maxPayload} are allowed`);
  if (!form.fromServer || (kind === Kind.types && !hearsTypes)) throw new Violation('bad_direction', `kind ${kind} does not come to this side`);
  if (!agrees(form.type, type !== 0) || !agrees(form.extension, flags === EXTENDED) || !agrees(form.payload, length !== 0)) {
    throw new Violation('bad_form', `kind ${kind}, type ${type}, flags ${flags}, ${length} bytes`);
  }
}

function agrees(wanted, present) {
  return wanted === null || wanted === present;
}

/** How a message of `size` bytes travels: so many fragments of `part` bytes, then the last record. */
export function partsOf(size, maxRecord) {
  if (size <= maxRecord) return { fragments: 0, part: 0, last: size };
  const part = Math.min(maxRecord, PART_BYTES);
  const fragments = Math.ceil(size / part) - 1;
  return { fragments, part, last: size - fragments * part };
}
