// The client against a real server with message types of every style: the program of crates/bellrope/examples/styles.rs,
// which BELLROPE_STYLES names. Skipped without it.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectPlain, createServer } from 'node:net';
import { join as joinPath } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import { connect, decodeText, textOf } from '../index.js';
import { atEnd } from './at-end.js';
import { encodeRecord, folder } from './fake-server.js';
import { RealServer, STYLES } from './real-server.js';

const options = { timeout: 120_000, skip: STYLES ? false : 'BELLROPE_STYLES names no program' };

async function connected(t) {
  const server = await RealServer.styles(t);
  const client = await server.client({ name: 'test', reconnectTimeout: 20_000 });
  atEnd(t, () => client.close());
  return { server, client };
}

async function texts(stream) {
  const all = [];
  for await (const chunk of stream) all.push(decodeText(chunk));
  return all;
}

test('each style works', options, async (t) => {
  const { client } = await connected(t);
  assert.equal(decodeText(await client.call('echo', 'ding')), 'ding');
  assert.deepEqual(await texts(client.stream('count', '5')), ['0', '1', '2', '3', '4']);
  const join = client.clientStream('join');
  await join.sendAll(['a', '', 'b', Buffer.alloc(65_536, 'c')]);
  assert.equal(decodeText(await join.finish()), `ab${'c'.repeat(65_536)}`);
  const shout = client.duplex('shout');
  void shout.sendAll(['one', 'two']).then(() => shout.end());
  assert.deepEqual(await texts(shout), ['ONE', 'TWO']);
});

test('large responses come in parts, several at once', options, async (t) => {
  const { client } = await connected(t);
  const sizes = [1, 65_536, 65_537, 98_304, 98_305, 1_000_000, 10_485_760];
  const answers = await Promise.all(sizes.map((size) => client.call('repeat', String(size))));
  assert.deepEqual(answers.map(({ length }) => length), sizes);
  await assert.rejects(client.call('repeat', '10485761'), { code: 'MessageTooLarge', size: 10_485_761 });
});

test('characters that are cut come whole', options, async (t) => {
  const { client } = await connected(t);
  let text = '';
  for await (const piece of textOf(client.stream('drip', 'Glocke 🔔 und 鐘'))) text += piece;
  assert.equal(text, 'Glocke 🔔 und 鐘');
});

test('errors of handlers carry their outcome', options, async (t) => {
  const { client } = await connected(t);
  await assert.rejects(client.call('fail', 'why'), { code: 'Handler', message: 'why', number: 7 });
  await assert.rejects(client.call('refuse', 'why'), { code: 'InvalidRequest', message: 'why' });
  await assert.rejects(client.call('panic', 'why'), { code: 'HandlerPanic' });
  const stream = client.stream('break', 'why');
  assert.equal((await stream.next()).done, false);
  await assert.rejects(stream.next(), { code: 'Handler', number: 9 });
});

test('an answer before the end of an upload ends it', options, async (t) => {
  const { client } = await connected(t);
  const first = client.clientStream('first');
  let sent = 0;
  while (await first.send(Buffer.alloc(1_000, 'x'))) sent += 1;
  assert.ok(sent >= 1);
  assert.equal((await first.response).length, 1_000);
});

test('an upload that nobody takes waits for credit, and can be cancelled', options, async (t) => {
  const { client } = await connected(t);
  const abort = new AbortController();
  const ignore = client.clientStream('ignore', '', { signal: abort.signal });
  let accepted = 0;
  const sending = (async () => {
    for (;;) {
      await ignore.send(Buffer.alloc(10_000));
      accepted += 10_000;
    }
  })();
  assert.equal(decodeText(await client.call('echo', 'meanwhile')), 'meanwhile');
  while (accepted < 60_000) await sleep(1);
  for (let i = 0; i < 20; i += 1) await client.call('echo', 'more');
  assert.equal(accepted, 70_000);
  abort.abort();
  await assert.rejects(sending, { code: 'Cancelled' });
  await assert.rejects(ignore.finish(), { code: 'Cancelled' });
});

test('a stream without end is read for long, and left', options, async (t) => {
  const { client } = await connected(t);
  let next = 0;
  for await (const chunk of client.stream('count')) {
    assert.equal(decodeText(chunk), String(next));
    next += 1;
    if (next === 20_000) break;
  }
  // The server drops the handler.
  while ((await client.callJson('calls', '')).dropped !== 1) await sleep(1);
  assert.equal(decodeText(await client.call('echo', 'after')), 'after');
});

test('cancelled at every point, later calls get their own answers', options, async (t) => {
  const { client } = await connected(t);
  for (let i = 0; i < 200; i += 1) {
    const abort = new AbortController();
    const name = ['echo', 'never', 'repeat'][i % 3];
    const call = client.call(name, String(i * 3_000), { signal: abort.signal }).then(() => 'answered', (error) => error.code);
    for (let turns = i % 7; turns > 0; turns -= 1) await new Promise(setImmediate);
    abort.abort();
    assert.match(await call, /^(answered|Cancelled)$/);
  }
  for (let i = 0; i < 1_000; i += 1) assert.equal(decodeText(await client.call('echo', `own ${i}`)), `own ${i}`);
});

test('a deadline ends what does not answer', options, async (t) => {
  const { client } = await connected(t);
  await assert.rejects(client.call('never', '', { timeout: 30 }), { code: 'DeadlineExceeded' });
  await assert.rejects(texts(client.stream('count', '', { timeout: 30 })), { code: 'DeadlineExceeded' });
});

test('a killed server leaves calls of each style unknown, once', options, async (t) => {
  const { server, client } = await connected(t);
  const join = client.clientStream('join');
  const shout = client.duplex('shout');
  const ends = [
    client.call('never'),
    texts(client.stream('count')),
    join.response,
    texts(shout),
  ].map((call) => call.then(() => 'answered', (error) => error.code));
  await shout.send('x');
  assert.equal(decodeText(await client.call('echo', 'all is there')), 'all is there');
  await server.end('SIGKILL');
  assert.deepEqual(await Promise.all(ends), ['Unknown', 'Unknown', 'Unknown', 'Unknown']);
  while (client.state !== 'reconnecting') await once(client, 'state');
  await assert.rejects(join.send('y'), { code: 'Unknown' });
  const waiting = client.call('echo', 'again');
  server.start();
  assert.equal(decodeText(await waiting), 'again');
});

test('a client that is put out learns which rule was broken', options, async (t) => {
  const server = await RealServer.styles(t);
  // Something between the two writes to the connection.
  const path = joinPath(folder(t), 'between.sock');
  const ups = [];
  const between = createServer((down) => {
    const up = connectPlain(server.path);
    ups.push(up);
    for (const [one, other] of [[down, up], [up, down]]) one.on('error', () => other.destroy()).pipe(other);
  }).listen(path);
  await once(between, 'listening');
  atEnd(t, () => between.close());
  const client = await connect({ path, connectTimeout: 20_000, reconnectTimeout: 20_000 });
  atEnd(t, () => client.close());
  const calls = [client.call('never'), client.call('never')].map((call) => call.catch((error) => error));
  while (JSON.parse(decodeText(await client.call('calls'))).running < 2) await sleep(1);
  ups[0].write(encodeRecord({ kind: 'response', call: 1 }));
  for (const error of await Promise.all(calls)) {
    assert.equal(error.code, 'ClosedByServer');
    assert.match(error.reason, /broke the protocol \(bad_direction\)/);
    assert.equal(error.mayHaveRun, true);
  }
  assert.equal(decodeText(await client.call('echo', 'again')), 'again');
});
