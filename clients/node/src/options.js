// The options of `connect`.

import { basename } from 'node:path';
import { MAX_TIMER_MS } from './clock.js';
import { defaultSocketPath } from './path.js';

const CONNECT_TIMEOUT_MS = 5_000;
const RECONNECT_TIMEOUT_MS = 1_000;
const CALL_TIMEOUT_MS = 30_000;

/** The options with all that was left out. Throws a TypeError. */
export function optionsOf(given = {}) {
  const options = typeof given === 'string' ? { path: given } : given;
  if (options === null || typeof options !== 'object') throw new TypeError('connect takes a path or options');
  const {
    path = defaultSocketPath(),
    name = basename(process.argv[1] ?? 'node'),
    priority = false,
    connectTimeout = CONNECT_TIMEOUT_MS,
    reconnectTimeout = RECONNECT_TIMEOUT_MS,
    callTimeout = CALL_TIMEOUT_MS,
    maxMessage = Infinity,
    checkOwner = true,
    signal,
  } = options;
  if (typeof path !== 'string' || path === '' || path.includes('\0')) throw new TypeError('path must be the path of a socket');
  if (typeof name !== 'string') throw new TypeError('name must be a string');
  if (typeof maxMessage !== 'number' || !(maxMessage >= 1)) throw new TypeError('maxMessage must be bytes');
  return {
    path,
    name,
    priority,
    connectTimeout: milliseconds(connectTimeout, 'connectTimeout'),
    reconnectTimeout: milliseconds(reconnectTimeout, 'reconnectTimeout'),
    // It is no timer's, but a deadline's: it may be as long as anyone likes, or none.
    callTimeout: callTimeout === null || callTimeout === Infinity ? Infinity : positive(callTimeout, 'callTimeout'),
    maxMessage,
    checkOwner,
    signal,
  };
}

const SPAWN_TIMEOUT_MS = 30_000;
const LOG_BYTES = 16 * 1024 * 1024;

/** What a server is started with, with all that was left out. Throws a TypeError. */
export function spawnOf(given) {
  if (given === null || typeof given !== 'object') throw new TypeError('connectOrSpawn takes options of the server to start');
  const { program, args = [], inherit = [], env = {}, log = null, logBytes = LOG_BYTES, timeout = SPAWN_TIMEOUT_MS, onStart } = given;
  if (typeof program !== 'string' || program === '') throw new TypeError('program must be a path, or a name in PATH');
  if (!Array.isArray(args)) throw new TypeError('args must be an array');
  if (!Array.isArray(inherit)) throw new TypeError('inherit must be an array of names');
  return { program, arguments: args.map(String), inherit, env, log, logBytes, timeout: milliseconds(timeout, 'timeout'), onStart };
}

function milliseconds(value, name) {
  return Math.min(positive(value, name), MAX_TIMER_MS);
}

function positive(value, name) {
  if (typeof value !== 'number' || !(value > 0)) throw new TypeError(`${name} must be milliseconds`);
  return value;
}
