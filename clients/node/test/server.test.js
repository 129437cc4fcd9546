// The client against a real server. Skipped without BELLROPE_PROGRAM.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import { decodeText, textOf } from '../index.js';
import { atEnd } from './at-end.js';
import { PROGRAM, RealServer } from './real-server.js';

const options = { timeout: 120_000, skip: PROGRAM ? false : 'BELLROPE_PROGRAM names no program' };
const question = { messages: [{ role: 'user', content: 'Who is there?' }] };

async function connected(t, ...settings) {
  const server = await RealServer.serve(t, ...settings);
  const client = await server.client({ name: 'test', reconnectTimeout: 20_000 });
  atEnd(t, () => client.close());
  return { server, client };
}

async function becomes(client, state) {
  while (client.state !== state) await once(client, 'state');
}

// Asks until `holds` is true of the answer, or the test's own deadline is over.
async function eventually(ask, holds) {
  for (;;) {
    const answer = await ask();
    if (holds(answer)) return answer;
    await sleep(5);
  }
}

test('the gateway answers and streams', options, async (t) => {
  const { client } = await connected(t);
  const names = client.messageTypes.map(({ name }) => name);
  for (const name of ['echo', 'ai.chat', 'ai.chat_stream', 'ai.complete', 'ai.models', 'ai.health']) assert.ok(names.includes(name), name);
  const answer = await client.callJson('ai.chat', question);
  assert.ok(answer.text.length > 0);
  const chunks = [];
  for await (const chunk of client.streamJson('ai.chat_stream', question)) chunks.push(chunk);
  chunks.forEach(({ seq }, i) => assert.equal(seq, i));
  assert.equal(chunks.at(-1).kind, 'done');
  assert.equal(chunks.filter(({ kind }) => kind === 'text').map(({ text }) => text).join(''), answer.text);
  const health = await client.callJson('ai.health', { version: 1 });
  assert.equal(health.default_provider, 'embedded');
  assert.equal(JSON.parse(decodeText(await client.call('ai.models'))).models[0].provider, 'embedded');
});

test('messages of every size come back whole', options, async (t) => {
  const { client } = await connected(t);
  for (const size of [0, 1, 7, 8, 63, 4_096, 32_767, 32_768, 32_769, 65_535, 65_536, 65_537, 98_304, 98_305, 5_000_000, 10_485_760]) {
    const message = randomBytes(size);
    assert.ok((await client.call('echo', message)).equals(message), String(size));
  }
  await assert.rejects(client.call('echo', Buffer.alloc(10_485_761)), { code: 'MessageTooLarge' });
  const emoji = '🔔'.repeat(50_000);
  assert.equal(decodeText(await client.call('echo', emoji)), emoji);
});

test('many calls of all sizes at once get their own answers', options, async (t) => {
  const { client } = await connected(t);
  const one = async (i) => {
    const message = Buffer.alloc(i % 50 === 0 ? 300_000 + i : i * 3, i);
    assert.ok((await client.call('echo', message)).equals(message), String(i));
  };
  await Promise.all(Array.from({ length: 500 }, (_, i) => one(i)));
});

test('errors of the server carry their outcome', options, async (t) => {
  const { client } = await connected(t);
  await assert.rejects(client.call('ai.chat', 'no JSON'), { code: 'InvalidRequest', retryable: false });
  await assert.rejects(client.callJson('ai.chat', { messages: [], version: 99 }), { name: /^(InvalidRequest|Handler)$/ });
  await assert.rejects(client.stream('ai.chat_stream', 'no JSON').next(), { code: 'InvalidRequest' });
  await assert.rejects(client.call('ai.nothing'), { code: 'UnknownMessageType' });
});

test('leaving a stream frees its place at the server', options, async (t) => {
  const { client } = await connected(t, '--set', 'server.max_in_flight=4');
  for (let i = 0; i < 20; i += 1) {
    for await (const chunk of client.streamJson('ai.chat_stream', question)) {
      assert.equal(chunk.seq, 0);
      break;
    }
    const abort = new AbortController();
    const call = client.callJson('ai.chat', question, { signal: abort.signal }).catch((error) => error.code);
    if (i % 2 === 0) await Promise.resolve();
    else await sleep(1);
    abort.abort();
    const end = await call;
    assert.ok(end === 'Cancelled' || end.text !== undefined, String(end));
    assert.equal(decodeText(await client.call('echo', `own ${i}`)), `own ${i}`);
  }
  assert.equal(client.limits.maxInFlight, 4);
  const all = Array.from({ length: 5 }, () => client.callJson('ai.chat', question).catch((error) => error));
  assert.equal((await Promise.all(all)).filter(({ code }) => code === 'Rejected').length, 1);
});

test('cancelled large requests give way to the next', options, async (t) => {
  const { client } = await connected(t);
  for (let i = 0; i < 20; i += 1) {
    const abort = new AbortController();
    const large = client.call('echo', Buffer.alloc(8_000_000), { signal: abort.signal }).then(() => 'answered', (error) => error.code);
    for (let turns = 0; turns < i; turns += 1) await new Promise(setImmediate);
    abort.abort();
    assert.match(await large, /^(answered|Cancelled)$/);
    assert.equal((await client.call('echo', Buffer.alloc(100_000))).length, 100_000);
  }
});

test('a deadline ends a call at the server or here', options, async (t) => {
  const { client } = await connected(t);
  await assert.rejects(client.call('echo', '', { timeout: 0 }), { code: 'DeadlineExceeded' });
  for (let i = 0; i < 200; i += 1) {
    await client.callJson('ai.chat', question, { timeout: 0.2 + i / 20 }).catch((error) => {
      assert.equal(error.code, 'DeadlineExceeded');
    });
  }
  assert.equal(decodeText(await client.call('echo', 'on', { timeout: 60_000 })), 'on');
});

test('a killed server leaves each call with one end, and the next server is found', options, async (t) => {
  const { server, client } = await connected(t);
  for (let round = 0; round < 6; round += 1) {
    const message = Buffer.alloc(2_000_000, round);
    const calls = [
      ...Array.from({ length: 50 }, (_, i) => client.call('echo', `${i}`)),
      client.call('echo', message),
      ...Array.from({ length: 5 }, () => textOf(client.stream('ai.chat_stream', JSON.stringify(question))).next()),
    ];
    const ends = Promise.all(calls.map((call) => call.then(() => 'answered', (error) => error.code)));
    for (let turns = 0; turns < round * 3; turns += 1) await new Promise(setImmediate);
    await server.end('SIGKILL');
    for (const end of await ends) assert.match(end, /^(answered|Unknown|NotExecuted)$/);
    await becomes(client, 'reconnecting');
    const waiting = client.call('echo', 'waited');
    server.start();
    assert.equal(decodeText(await waiting), 'waited');
    assert.equal(client.state, 'connected');
  }
});

test('a server that is stopped says what it has not taken', options, async (t) => {
  const { server, client } = await connected(t);
  const calls = Array.from({ length: 200 }, (_, i) => client.call('echo', Buffer.alloc(20_000, i)));
  const ends = Promise.all(calls.map((call) => call.then(() => 'answered', (error) => error.code)));
  await server.end('SIGTERM');
  for (const end of await ends) assert.match(end, /^(answered|Unknown|NotExecuted|Rejected)$/);
  await becomes(client, 'reconnecting');
  const gone = client.call('echo', 'x', { timeout: 200 });
  await assert.rejects(gone, { code: 'DeadlineExceeded' });
  client.close();
});

test('a slow reader of a stream does not hold up other calls', options, async (t) => {
  const { client } = await connected(t);
  const stream = client.streamJson('ai.chat_stream', question);
  assert.equal((await stream.next()).value.seq, 0);
  for (let i = 0; i < 200; i += 1) assert.equal(decodeText(await client.call('echo', `${i}`)), `${i}`);
  const kinds = [];
  for await (const { kind } of stream) kinds.push(kind);
  assert.equal(kinds.at(-1), 'done');
});

test('the server counts no fault of this client', options, async (t) => {
  const { server, client } = await connected(t);
  const both = await Promise.all([client.call('echo', Buffer.alloc(1_000_000)), client.callJson('ai.chat', question)]);
  assert.equal(both[0].length, 1_000_000);
  // Its own account of this process; whatever the fields, no rule was broken.
  await eventually(() => client.callJson('bellrope.stats', {}), (stats) => typeof stats === 'object');
  assert.doesNotMatch(server.log, /bad_|interleaved|duplicate_call|credit_/);
});
