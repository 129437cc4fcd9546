// JSON as typed services have it: whole numbers are exact, and what JSON cannot say is an error where it is written.
//
// A whole number beyond 2^53 is a BigInt when it is read. Written it may be one or a number, whose own digits are sent: the
// engine would round them to those that suffice to tell it from its neighbours, which are another whole number. Such numbers are rare, so that the usual text goes straight
// through the engine's own JSON, which knows none: only where there may be one, it travels through that as a text with a
// mark that nobody else knows.

import { randomUUID } from 'node:crypto';
import { decodeText } from './payload.js';

const MARK = `integer ${randomUUID()} `;
const MARKED = new RegExp(`"${MARK}(-?\\d+)"`, 'g');
// Longer than any integer of 128 bits: such a number is rounded, as all numbers of JavaScript are.
const LONG = /\d{16}/;
// What the engine may have written instead of a large whole number's own digits.
const ROUNDED = /\d{16}|\de\+/;
// No integer of 128 bits is as large.
const BEYOND = 2 ** 128;
const LONG_INTEGER = /(?<![\d.eE+-])-?\d{16,40}(?![\d.eE])/g;

/** A value as JSON. Throws what cannot be written. */
export function encodeJson(value) {
  const text = textOf(value);
  if (text === undefined) throw new TypeError(`${typeof value} cannot be written as JSON`);
  // The engine writes NaN and infinity as null.
  if (text.includes('null')) checkNumbers(value, '');
  return Buffer.from(text);
}

/** The value that a payload of JSON holds. */
export function decodeJson(bytes) {
  const text = decodeText(bytes);
  return LONG.test(text) ? JSON.parse(markIntegers(text), unmarked) : JSON.parse(text);
}

/** A value as JSON, with numbers that it cannot say as `null`. */
export function textOf(value) {
  let text;
  try {
    text = JSON.stringify(value);
    if (text === undefined || !ROUNDED.test(text)) return text;
  } catch (error) {
    // It may have a BigInt. What else the engine refuses, it refuses again.
    if (!(error instanceof TypeError)) throw error;
  }
  return JSON.stringify(value, marked).replace(MARKED, '$1');
}

function marked(key, value) {
  if (typeof value === 'bigint') return MARK + value;
  return Number.isInteger(value) && !Number.isSafeInteger(value) && Math.abs(value) < BEYOND ? MARK + BigInt(value) : value;
}

function unmarked(key, value) {
  if (typeof value !== 'string' || !value.startsWith(MARK)) return value;
  const digits = value.slice(MARK.length);
  const number = Number(digits);
  return Number.isSafeInteger(number) ? number : BigInt(digits);
}

// Texts stay as they are, whatever digits they have.
function markIntegers(text) {
  let all = '';
  for (let at = 0; at < text.length; ) {
    const quote = text.indexOf('"', at);
    const between = quote < 0 ? text.slice(at) : text.slice(at, quote);
    all += between.replace(LONG_INTEGER, `"${MARK}$&"`);
    if (quote < 0) break;
    at = endOfText(text, quote + 1);
    all += text.slice(quote, at);
  }
  return all;
}

function endOfText(text, from) {
  for (;;) {
    const quote = text.indexOf('"', from);
    if (quote < 0) return text.length;
    let escapes = 0;
    while (text[quote - 1 - escapes] === '\\') escapes += 1;
    if (escapes % 2 === 0) return quote + 1;
    from = quote + 1;
  }
}

function checkNumbers(value, place) {
  if (typeof value === 'number' && !Number.isFinite(value)) throw new TypeError(`${place || 'it'} is ${value}, which JSON cannot say`);
  if (value === null || typeof value !== 'object' || typeof value.toJSON === 'function') return;
  if (Array.isArray(value)) value.forEach((element, index) => checkNumbers(element, `${place}[${index}]`));
  else for (const key of Object.keys(value)) checkNumbers(value[key], place === '' ? key : `${place}.${key}`);
}
