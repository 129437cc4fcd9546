// Methods of typed services, against a real server: the program of crates/bellrope/examples/typed, which BELLROPE_TYPED
// names. Skipped without it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BellropeError, json, Method, ServiceError } from '../index.js';
import { atEnd } from './at-end.js';
import { RealServer, STYLES, TYPED } from './real-server.js';

const options = { timeout: 120_000, skip: TYPED ? false : 'BELLROPE_TYPED names no program' };

const size = new Method('Files.size', { result: true });
const same = new Method('Files.same');
const lines = new Method('Files.lines', { result: true });
const upload = new Method('Files.upload', { result: true });
const edit = new Method('Files.edit');

async function connected(t) {
  const server = await RealServer.typed(t);
  const client = await server.client({ name: 'test', reconnectTimeout: 20_000 });
  atEnd(t, () => client.close());
  return { server, client };
}

async function all(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

test('methods of every style are called with values', options, async (t) => {
  const { client } = await connected(t);
  assert.equal(await client.callTyped(size, { path: 'ding' }), 4);
  assert.equal(await client.callTyped(new Method('Files.touch'), {}), null);
  const part = { name: '🔔', bytes: 'ZGluZyE=', at: [-7, 0.5] };
  assert.deepEqual(await client.callTyped(same, { part }), part);
  const items = client.streamTyped(lines, { path: 'a/b' });
  assert.deepEqual([await items.next(), await items.next()], [{ done: false, value: 'a' }, { done: false, value: 'b' }]);
  await items.return();
  const parts = client.clientStreamTyped(upload, { name: 'abc' });
  await parts.sendAll([part, part]);
  assert.equal(await parts.finish(), 13);
  const both = client.duplexTyped(edit, {});
  assert.equal(await both.sendAll(['ding', 'dong']), true);
  await both.end();
  assert.deepEqual(await all(both), ['DING', 'DONG']);
  assert.deepEqual(await client.callJson('Files.size', { path: '' }), { Err: 'Missing' });
});

test('an error of the application is a value, and no failed call', options, async (t) => {
  const { client } = await connected(t);
  const denied = await client.callTyped(size, { path: '/root' }).catch((error) => error);
  assert.ok(denied instanceof ServiceError && !(denied instanceof BellropeError));
  assert.deepEqual([denied.name, denied.method, denied.error], ['ServiceError', 'Files.size', { Denied: { path: '/root' } }]);
  assert.deepEqual([denied.code, denied.retryable], ['ServiceError', false]);
  assert.equal(denied.message, 'Files.size: {"Denied":{"path":"/root"}}');
  await assert.rejects(client.clientStreamTyped(upload, { name: '' }).finish(), { name: 'ServiceError', error: 'Missing' });
  await assert.rejects(client.callTyped(new Method('Files.broken', { result: true }), {}), { code: 'Handler', number: 7 });
  class Missing extends Error {}
  const named = new Method('Files.size', { result: true, readError: (error) => new Missing(error) });
  await assert.rejects(client.callTyped(named, { path: '' }), (error) => error.error instanceof Missing);
});

test('a stream ends with an error of the application in a loop, and goes on behind it in its results', options, async (t) => {
  const { client } = await connected(t);
  const seen = [];
  await assert.rejects(async () => {
    for await (const line of client.streamTyped(lines, { path: 'a/b' })) seen.push(line);
  }, { name: 'ServiceError', error: 'Missing' });
  assert.deepEqual(seen, ['a', 'b']);
  const results = await all(client.streamTyped(lines, { path: 'a' }).results());
  assert.deepEqual([results[0], results[2], results[1].error], ['a', 'after it', 'Missing']);
  assert.ok(results[1] instanceof ServiceError);
});

test('whole numbers are exact, and what JSON cannot say is refused before it is sent', options, async (t) => {
  const { client } = await connected(t);
  assert.equal(await client.callTyped(size, { path: 'huge' }), 18_446_744_073_709_551_615n);
  const part = { name: '"12345678901234567890\\', bytes: '', at: [-(2n ** 63n), 1e300] };
  assert.deepEqual(await client.callTyped(same, { part }), part);
  assert.deepEqual(await client.callTyped(same, { part: { ...part, at: [5n, 1] } }), { ...part, at: [5, 1] });
  // A number's own digits go, not those that suffice to tell it from its neighbours.
  assert.deepEqual(await client.callTyped(same, { part: { ...part, at: [2 ** 60, 2 ** 60] } }), { ...part, at: [2n ** 60n, 2 ** 60] });
  const refused = (at) => client.callTyped(same, { part: { ...part, at } }).catch((error) => error);
  assert.match((await refused([1, NaN])).message, /^Files\.same: the arguments cannot be written: part\.at\[1\] is NaN/);
  assert.equal((await refused([1, Infinity])).code, 'Unwritable');
  // What the server cannot read.
  assert.match((await refused([0.5, 1])).message, /^Files\.same: the arguments cannot be read: .*at/);
  assert.throws(() => client.streamTyped(lines, undefined), { code: 'Unwritable', method: 'Files.lines' });
  const loop = {};
  loop.loop = loop;
  await assert.rejects(client.callTyped(same, loop), { code: 'Unwritable' });
});

test('an answer that is none is unreadable', options, async (t) => {
  const { client } = await connected(t);
  await assert.rejects(client.callTyped(new Method('Files.touch', { result: true }), {}), { code: 'Unreadable', message: /Ok/ });
  const read = () => {
    throw new RangeError('too odd');
  };
  await assert.rejects(client.callTyped(new Method('Files.touch', { read }), {}), { code: 'Unreadable', message: /too odd/ });
});

// A text in postcard: its length, then its bytes.
const postcard = {
  name: 'postcard',
  number: 2,
  named: false,
  encode: ({ path }) => Buffer.from(`${String.fromCharCode(path.length)}${path}`),
  decode: (bytes) => (bytes[0] === 0 ? { Ok: bytes[1] } : { Err: bytes[1] }),
};

test('a client of another codec, or of other types with a codec without names, is refused before anything is sent', options, async (t) => {
  const { client } = await connected(t);
  const { codec, schema } = client.messageTypes.find(({ name }) => name === 'Places.size');
  assert.ok(codec === 2 && schema > 0n);
  const places = (of) => new Method('Places.size', { codec: postcard, result: true, ...of });
  assert.equal(await client.callTyped(places({ schema }), { path: 'ding' }), 4);
  assert.equal(await client.callTyped(places({}), { path: 'dong' }), 4);
  await assert.rejects(client.callTyped(places({ schema }), { path: '' }), { name: 'ServiceError', error: 0 });
  await assert.rejects(client.callTyped(places({ schema: schema ^ 1n }), { path: 'x' }), {
    code: 'Incompatible',
    method: 'Places.size',
    retryable: false,
    differences: /^its types differ \(0x[0-9a-f]{16} here, 0x[0-9a-f]{16} there\)/,
  });
  await assert.rejects(client.callTyped(places({ codec: json }), { path: 'x' }), {
    code: 'Incompatible',
    differences: 'its codec is json here and postcard there',
  });
  // With names, fields may have been added.
  assert.equal(await client.callTyped(new Method('Files.size', { schema: 1n, result: true }), { path: 'ding' }), 4);
  const stale = client.streamTyped(new Method('Places.lines', { codec: { ...postcard, encode: () => Buffer.alloc(1) }, schema: 1n }), {});
  await assert.rejects(stale.next(), { code: 'Incompatible' });
});

test('leaving a stream of values cancels it, and return settles what waits', { ...options, skip: STYLES ? false : 'BELLROPE_STYLES names no program' }, async (t) => {
  const server = await RealServer.styles(t);
  const client = await server.client({ name: 'test' });
  atEnd(t, () => client.close());
  const dropped = async (count) => {
    while ((await client.callJson('calls', '')).dropped !== count) await new Promise(setImmediate);
  };
  for await (const item of client.streamJson('count', 1e9)) if (item === 3) break;
  await dropped(1);
  await assert.rejects(async () => {
    for await (const item of client.streamJson('count', 1e9).results()) throw new RangeError(String(item));
  }, RangeError);
  await dropped(2);
  const read = (number) => {
    if (number === 3) throw new RangeError('three');
    return number;
  };
  await assert.rejects(all(client.streamTyped(new Method('count', { read }), 1e9)), { code: 'Unreadable' });
  await dropped(3);
  const both = client.duplexJson('shout', '');
  await both.send('ding');
  assert.equal((await both.next()).value, 'DING');
  const waiting = [both.next(), both.next()];
  assert.deepEqual(await both.return('left'), { done: true, value: 'left' });
  assert.deepEqual(await Promise.all(waiting), [{ done: true, value: undefined }, { done: true, value: undefined }]);
  await dropped(4);
  await assert.rejects(all(client.streamJson('count', 1e9, { timeout: 20 })), { code: 'DeadlineExceeded' });
  await dropped(5);
});

test('an error says its numbers, however large', () => {
  const error = new ServiceError('Jobs.get', { NotFound: { id: 2n ** 64n - 1n } });
  assert.equal(error.message, 'Jobs.get: {"NotFound":{"id":18446744073709551615}}');
});
