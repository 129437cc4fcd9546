// What a client knows of a method of a typed service, and how values become what travels. docs/services.md has the rules.

import { ServiceError, Unreadable, Unwritable } from './errors.js';
import { decodeJson, encodeJson } from './json.js';

/** The codec of services that name none. A codec of another kind has the same fields: see index.d.ts. */
export const json = Object.freeze({ name: 'json', number: 1, named: true, encode: encodeJson, decode: decodeJson });

const CODEC_NAMES = { 1: 'json', 2: 'postcard' };

export class Method {
  constructor(name, { codec = json, schema = 0n, result = false, write, read, writeItem, readError } = {}) {
    if (typeof name !== 'string') throw new TypeError('a method has a name, such as Files.read');
    if (typeof schema !== 'bigint') throw new TypeError('schema is the hash of the types: a BigInt, or 0n if it is not known');
    this.name = name;
    this.codec = codec;
    this.schema = schema;
    this.result = result;
    this.write = write;
    this.read = read;
    this.writeItem = writeItem;
    this.readError = readError;
    Object.freeze(this);
  }
}

/** How a message type of the server's is another method than this one, or null. */
export function mismatch({ codec, schema }, type) {
  if (type.codec !== 0 && type.codec !== codec.number) {
    return `its codec is ${codec.name} here and ${CODEC_NAMES[type.codec] ?? `number ${type.codec}`} there`;
  }
  // Fields that travel with their names may be added.
  if (codec.named || schema === 0n || type.schema === 0n || type.schema === schema) return null;
  return `its types differ (${hex(schema)} here, ${hex(type.schema)} there), and ${codec.name} sends no names; make this client anew from that server, as with bellrope generate`;
}

/** The arguments of a call. */
export function requestBytes(method, value) {
  return written(method, 'the arguments', 'request', method.write, value);
}

/** An item for the server. */
export function itemBytes(method, value) {
  const bytes = written(method, 'an item', 'sent', method.writeItem, value);
  if (bytes.length === 0) throw new Unwritable(method.name, 'an item', new TypeError('an item of a stream takes at least a byte'));
  return bytes;
}

/** What a method has answered with. Throws a ServiceError if that is its own error. */
export function answerOf(method, bytes) {
  const outcome = outcomeOf(method, bytes, 'the answer');
  if (outcome instanceof ServiceError) throw outcome;
  return outcome;
}

/** The same, or an item, with a ServiceError as a value. */
export function outcomeOf(method, bytes, what) {
  try {
    const answer = method.codec.decode(bytes, 'answer');
    if (!method.result) return method.read === undefined ? answer : method.read(answer);
    const [variant, value] = variantOf(answer);
    if (variant === 'Ok') return method.read === undefined ? value : method.read(value);
    return new ServiceError(method.name, method.readError === undefined ? value : method.readError(value));
  } catch (error) {
    throw new Unreadable(method.name, what, asError(error));
  }
}

function written(method, what, place, write, value) {
  try {
    return method.codec.encode(write === undefined ? value : write(value), place);
  } catch (error) {
    throw new Unwritable(method.name, what, asError(error));
  }
}

// A Result of Rust: an object with one field, Ok or Err.
function variantOf(answer) {
  const variants = answer !== null && typeof answer === 'object' ? Object.entries(answer) : [];
  if (variants.length !== 1 || (variants[0][0] !== 'Ok' && variants[0][0] !== 'Err')) {
    throw new TypeError('neither {"Ok": ...} nor {"Err": ...}');
  }
  return variants[0];
}

function asError(thrown) {
  return thrown instanceof Error ? thrown : new TypeError(String(thrown));
}

function hex(hash) {
  return `0x${hash.toString(16).padStart(16, '0')}`;
}
