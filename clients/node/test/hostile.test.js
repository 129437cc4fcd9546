// Servers that send anything: each ends in a typed error, and takes no more memory than the limits allow.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { BellropeError, connect, decodeText } from '../index.js';
import { Growing } from '../src/growing.js';
import { clientOf, encodeAnswer, encodeRecord, encodeType, startFake } from './fake-server.js';

const MINUTE = { timeout: 60_000 };
const terms = { capacity: 4_096, maxMessage: 100_000, maxInFlight: 16, streamWindow: 1_000 };

// A generator whose seed is printed when a test fails.
function random(seed) {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const changes = [encodeType({ name: 'later', number: 9, style: 0 }), Buffer.from([9, 0, 255, 0]), Buffer.from([1, 0, 255, 0])];

function mangled(pick) {
  const kinds = ['request', 'cancel', 'credit', 'response', 'error', 'chunk', 'end', 'fragment', 'admitted', 'types'];
  const record = encodeRecord({
    kind: kinds[pick(kinds.length)],
    type: pick(4) === 0 ? pick(20) : 0,
    call: pick(7),
    extension: pick(2) === 0 ? null : pick(3) === 0 ? pick(2 ** 32) : pick(4),
    payload: pick(4) === 0 ? changes[pick(changes.length)] : randomBytes(pick(3) === 0 ? pick(1_100) : 0),
  });
  if (pick(3) === 0) record[pick(Math.min(record.length, 24))] ^= 1 << pick(8);
  return record;
}

async function attack(t, seed, bytesOf) {
  const server = await startFake(t, { ...terms, entries: 4, onRecord() {} });
  const client = await clientOf(t, server.path);
  const upload = client.clientStream('client_stream');
  const both = client.duplex('duplex');
  const stream = client.stream('server_stream');
  const ends = [
    client.call('unary', 'a'),
    upload.response,
    (async () => {
      for await (const chunk of both) assert.ok(chunk.length <= 1_024);
    })(),
    (async () => {
      for await (const chunk of stream) assert.ok(chunk.length <= 1_024);
    })(),
  ];
  const settled = Promise.allSettled(ends);
  const peer = await server.peer();
  await peer.record(3);
  for (let i = 0; i < 40 && !peer.closed; i += 1) {
    peer.socket.write(bytesOf());
    if (i % 8 === 0) await new Promise(setImmediate);
  }
  peer.socket.end();
  for (const end of await settled) {
    assert.ok(end.status === 'fulfilled' || end.reason instanceof BellropeError, `seed ${seed}: ${end.reason?.stack}`);
  }
  client.close();
  await server.close();
}

test('random bytes and mangled records end in typed errors', MINUTE, async (t) => {
  for (let round = 0; round < 120; round += 1) {
    const seed = randomBytes(4).readUInt32LE();
    const pick = random(seed);
    await attack(t, seed, round % 4 === 0 ? () => randomBytes(1 + pick(200)) : () => mangled(pick));
  }
});

test('a mangled answer is refused or understood, never a fault', MINUTE, async (t) => {
  const good = [encodeAnswer(terms), encodeAnswer({ ...terms, entries: 4 })];
  let seed;
  const server = await startFake(t, {
    onPeer(peer) {
      peer.manual = true;
      const answer = Buffer.from(good[seed % 2]);
      const pick = random(seed);
      for (let n = 1 + pick(3); n > 0; n -= 1) answer[pick(answer.length)] ^= 1 << pick(8);
      peer.socket.end(pick(5) === 0 ? answer.subarray(0, pick(answer.length)) : answer);
    },
  });
  for (let round = 0; round < 200; round += 1) {
    seed = randomBytes(4).readUInt32LE();
    const client = await connect(server.path).catch((error) => assert.equal(error.code, 'Connect', `seed ${seed}`));
    client?.close();
  }
});

test('memory follows what has come, not what was announced', MINUTE, async (t) => {
  const growing = new Growing(2 ** 30);
  growing.append(Buffer.alloc(100), 0, 100);
  assert.ok(growing.take().length <= 4_096);
  // A message of 1 GiB is announced, and one part of it comes.
  const server = await startFake(t, { capacity: 16_777_216, maxMessage: 2 ** 30, maxInFlight: 1, streamWindow: 1, onRecord() {} });
  const client = await clientOf(t, server.path);
  const call = client.call('unary').catch((error) => error);
  const peer = await server.peer();
  await peer.record(0);
  const before = process.memoryUsage().arrayBuffers;
  peer.socket.write(encodeRecord({ kind: 'fragment', call: 1, extension: 2 ** 30, payload: Buffer.alloc(32_768) }));
  // And the head of a record of 4 MiB, of which nothing comes.
  const head = encodeRecord({ kind: 'response', call: 1 });
  head.writeUInt32LE(4_194_304, 0);
  await new Promise((resolve) => peer.socket.write(head, resolve));
  for (let i = 0; i < 20; i += 1) await new Promise(setImmediate);
  assert.ok(process.memoryUsage().arrayBuffers - before < 2_000_000);
  client.close();
  assert.equal((await call).code, 'Closed');
});

test('an own limit holds messages of the server', MINUTE, async (t) => {
  const server = await startFake(t, {});
  const client = await clientOf(t, { path: server.path, maxMessage: 70_000 });
  assert.equal((await client.call('unary', Buffer.alloc(70_000))).length, 70_000);
  await assert.rejects(client.call('unary', Buffer.alloc(70_001)), { code: 'MessageTooLarge', limit: 70_000 });
  const peer = await server.peer();
  const call = client.call('unary', 'x');
  peer.send({ kind: 'fragment', call: 2, extension: 70_001, payload: 'x' });
  await assert.rejects(call, { code: 'Violation', rule: 'bad_size' });
});

test('a text of an error that is too long or no UTF-8 does no harm', MINUTE, async (t) => {
  const server = await startFake(t, {
    onRecord(peer, { call }) {
      peer.send({ kind: 'error', type: 1, call, payload: Buffer.concat([Buffer.from([0xff]), Buffer.alloc(5_000, 'x')]) });
    },
  });
  const client = await clientOf(t, server.path);
  await assert.rejects(client.call('unary'), (error) => error.code === 'Handler' && error.message === `\ufffd${'x'.repeat(1_023)}`);
});

test('records of calls that have ended are passed over', MINUTE, async (t) => {
  const server = await startFake(t, { onRecord() {} });
  const client = await clientOf(t, server.path);
  const abort = new AbortController();
  const gone = client.call('unary', 'x', { signal: abort.signal });
  const peer = await server.peer();
  await peer.record(0);
  peer.send({ kind: 'fragment', call: 1, extension: 100_000, payload: Buffer.alloc(1_000) });
  for (let i = 0; i < 5; i += 1) await new Promise(setImmediate);
  abort.abort();
  await assert.rejects(gone, { code: 'Cancelled' });
  const next = client.call('unary', 'y');
  await peer.record(2);
  peer.send({ kind: 'fragment', call: 1, extension: 100_000, payload: Buffer.alloc(1_000) });
  peer.send({ kind: 'fragment', call: 2, extension: 3, payload: 'ab' });
  peer.send({ kind: 'response', call: 1, payload: 'late' });
  peer.send({ kind: 'response', call: 2n ** 63n, payload: 'whose?' });
  peer.send({ kind: 'response', call: 2, payload: 'c' });
  assert.equal(decodeText(await next), 'abc');
});
