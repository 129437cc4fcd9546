// Calls that their caller gives up: by a signal, by leaving a loop, by forgetting the stream.

import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'node:test';
import { runInNewContext } from 'node:vm';
import { decodeText } from '../index.js';
import { clientOf, startFake } from './fake-server.js';

const SECONDS = { timeout: 30_000 };

async function connected(t, options) {
  const server = await startFake(t, options);
  const client = await clientOf(t, server.path);
  return { server, client, peer: await server.peer() };
}

// Answers everything but requests with the text `never`.
function mostly(peer, record) {
  const { kind, type, call, whole } = record;
  if (kind !== 'request' || decodeText(whole) === 'never') return;
  if (type === 1) peer.respond(call, whole);
  if (type === 2) {
    for (let i = 0; i < 10; i += 1) peer.send({ kind: 'chunk', call, extension: i, payload: String(i) });
  }
}

const kinds = (peer) => peer.records.map(({ kind }) => kind);

test('a thousand calls on one signal leave no listener and no warning', SECONDS, async (t) => {
  const { client } = await connected(t, { onRecord: mostly });
  const warnings = [];
  const warned = (warning) => warnings.push(warning);
  process.on('warning', warned);
  const { signal } = new AbortController();
  const at = () => getEventListeners(signal, 'abort').length;
  for (let i = 0; i < 500; i += 1) await client.call('unary', String(i), { signal });
  const many = Array.from({ length: 500 }, (_, i) => client.call('unary', String(i), { signal }));
  assert.equal(at(), 1);
  await Promise.all(many);
  assert.equal(at(), 0);
  const stream = client.stream('server_stream', '', { signal });
  await stream.next();
  assert.equal(at(), 1);
  await stream.return();
  assert.equal(at(), 0);
  await turn();
  process.off('warning', warned);
  assert.deepEqual(warnings, []);
});

test('a signal that has fired before sends no byte', SECONDS, async (t) => {
  const { client, peer } = await connected(t, { onRecord: mostly });
  const signal = AbortSignal.abort('too late');
  for (const options of [{ signal }, { signal, timeout: 1_000 }]) {
    await assert.rejects(client.call('unary', 'x', options), { code: 'Cancelled', cause: 'too late', retryable: false });
    await assert.rejects(client.stream('server_stream', 'x', options).next(), { code: 'Cancelled' });
    await assert.rejects(client.clientStream('client_stream', 'x', options).finish(), { code: 'Cancelled' });
    const both = client.duplex('duplex', 'x', options);
    await assert.rejects(both.send('y'), { code: 'Cancelled' });
  }
  assert.equal(getEventListeners(signal, 'abort').length, 0);
  assert.equal(decodeText(await client.call('unary', 'after', { timeout: null })), 'after');
  assert.equal(peer.bytesRead, 88 + 16 + 5);
});

test('a call that is cancelled before its write sends nothing', SECONDS, async (t) => {
  const { client, peer } = await connected(t, { onRecord: mostly });
  const abort = new AbortController();
  const call = client.call('unary', 'x', { signal: abort.signal });
  const large = client.call('unary', Buffer.alloc(200_000), { signal: abort.signal });
  const upload = client.clientStream('client_stream', 'x', { signal: abort.signal });
  void upload.send('y');
  abort.abort();
  await assert.rejects(call, { code: 'Cancelled' });
  await assert.rejects(large, { code: 'Cancelled' });
  await assert.rejects(upload.response, { code: 'Cancelled' });
  await client.call('unary', 'after');
  assert.deepEqual(kinds(peer), ['request']);
});

test('cancelled calls are cancelled at the server, and later ones get their own answers', SECONDS, async (t) => {
  const { client, peer } = await connected(t, { onRecord: mostly });
  for (let i = 0; i < 100; i += 1) {
    const abort = new AbortController();
    const call = client.call('unary', i % 2 === 0 ? 'never' : 'x', { signal: abort.signal });
    // At each point: queued, written, answered but not yet read.
    for (let steps = i % 5; steps > 0; steps -= 1) await turn();
    abort.abort();
    await call.then((bytes) => assert.equal(decodeText(bytes), 'x'), (error) => assert.equal(error.code, 'Cancelled'));
  }
  for (let i = 0; i < 1_000; i += 1) assert.equal(decodeText(await client.call('unary', `own ${i}`)), `own ${i}`);
  const requests = peer.records.filter(({ kind }) => kind === 'request');
  const cancelled = new Set(peer.records.filter(({ kind }) => kind === 'cancel').map(({ call }) => call));
  for (const { call, whole } of requests) assert.ok(decodeText(whole) !== 'never' || cancelled.has(call));
  assert.equal(peer.broken, null);
});

test('break, an exception and return cancel the stream', SECONDS, async (t) => {
  const { client, peer } = await connected(t, { onRecord: mostly });
  for await (const chunk of client.stream('server_stream', '')) {
    if (decodeText(chunk) === '3') break;
  }
  await peer.until(() => kinds(peer).filter((kind) => kind === 'cancel').length === 1);
  await assert.rejects(async () => {
    for await (const chunk of client.stream('server_stream', '')) throw new RangeError(decodeText(chunk));
  }, RangeError);
  await peer.until(() => kinds(peer).filter((kind) => kind === 'cancel').length === 2);
  const stream = client.streamJson('server_stream', {});
  assert.deepEqual(await stream.next(), { done: false, value: 0 });
  assert.deepEqual(await stream.return('left'), { done: true, value: 'left' });
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
  await peer.until(() => kinds(peer).filter((kind) => kind === 'cancel').length === 3);
  const unread = client.streamJson('server_stream', {});
  await turn();
  await turn();
  await unread.return();
  await assert.rejects(unread.throw(new RangeError('given')), RangeError);
  await client.call('unary', 'x');
  assert.equal(peer.broken, null);
});

test('return while next waits settles both, and cancels the stream', SECONDS, async (t) => {
  const { client, peer } = await connected(t, { onRecord: mostly });
  const stream = client.stream('server_stream', 'never');
  const waiting = [stream.next(), stream.next()];
  await peer.record(0);
  assert.deepEqual(await stream.return(), { done: true, value: undefined });
  assert.deepEqual(await Promise.all(waiting), [{ done: true, value: undefined }, { done: true, value: undefined }]);
  assert.equal((await peer.record(1)).kind, 'cancel');
  const both = client.duplex('duplex', 'never');
  const next = both.next();
  await both.return();
  assert.deepEqual(await next, { done: true, value: undefined });
  assert.equal(await both.send('x').catch((error) => error.code), 'Cancelled');
});

test('cancel ends what waits as Cancelled', SECONDS, async (t) => {
  const { client, peer } = await connected(t, { onRecord: mostly, streamWindow: 100 });
  const stream = client.stream('server_stream', 'never');
  const next = stream.next();
  const upload = client.clientStream('client_stream', 'never');
  await upload.send(Buffer.alloc(100));
  const stuck = upload.send('no credit');
  await peer.record(2);
  stream.cancel('enough');
  upload.cancel();
  await assert.rejects(next, { code: 'Cancelled', cause: 'enough' });
  await assert.rejects(stuck, { code: 'Cancelled' });
  await assert.rejects(upload.finish(), { code: 'Cancelled' });
  await peer.record(4);
  assert.deepEqual(kinds(peer), ['request', 'request', 'chunk', 'cancel', 'cancel']);
});

test('a large request that is cancelled or refused half way gives way to the next', SECONDS, async (t) => {
  for (const how of ['cancelled', 'refused', 'answered']) {
    const server = await startFake(t, {
      onRecord(peer, { kind, call, whole }) {
        if (kind === 'fragment' && call === 1n && !peer.stopped) {
          // Reads no more, so that the rest cannot be on its way.
          peer.stopped = true;
          peer.socket.pause();
          if (how === 'refused') peer.send({ kind: 'error', type: 7, call, extension: 1, payload: 'no room' });
          if (how === 'answered') peer.send({ kind: 'response', call, payload: 'early' });
        }
        if (kind === 'request' && whole !== null) peer.respond(call, String(whole.length));
      },
    });
    const client = await clientOf(t, server.path);
    const peer = await server.peer();
    const abort = new AbortController();
    const first = client.call('unary', Buffer.alloc(10_000_000), { signal: abort.signal });
    await peer.until(() => peer.stopped);
    if (how === 'cancelled') abort.abort();
    if (how === 'answered') assert.equal(decodeText(await first), 'early');
    else await assert.rejects(first, { code: how === 'refused' ? 'Rejected' : 'Cancelled' });
    const second = client.call('unary', Buffer.alloc(200_000));
    peer.socket.resume();
    assert.equal(decodeText(await second), '200000');
    const own = peer.records.filter(({ call }) => call === 1n).map(({ kind }) => kind);
    assert.equal(own.at(-1), 'cancel', how);
    assert.ok(!own.includes('request') && own.length < 300, `${how}: ${own.length} records`);
    assert.equal(peer.broken, null);
    client.close();
  }
});

test('a stream that nobody holds any more is cancelled', SECONDS, async (t) => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc');
  const { client, peer } = await connected(t, { onRecord: mostly });
  (() => void client.stream('server_stream', 'never'))();
  // Whoever waits for something of a stream holds it.
  const next = (() => client.stream('server_stream', 'never').next())();
  const response = (() => client.clientStream('client_stream', 'never').finish())();
  await peer.record(2);
  for (let i = 0; !kinds(peer).includes('cancel'); i += 1) {
    assert.ok(i < 1_000, 'the stream was not cancelled');
    collect();
    await turn();
  }
  for (let i = 0; i < 5; i += 1) {
    collect();
    await turn();
  }
  const cancels = peer.records.filter(({ kind }) => kind === 'cancel');
  assert.deepEqual(cancels.map(({ call }) => call), [1n]);
  peer.send({ kind: 'end', call: 2, extension: 0 });
  peer.send({ kind: 'response', call: 3, payload: 'held' });
  assert.deepEqual(await next, { done: true, value: undefined });
  assert.equal(decodeText(await response), 'held');
});
