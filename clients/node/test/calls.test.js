// Calls of every style, and the limits that end them on this side.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { Client, decodeText, defaultSocketPath, textOf } from '../index.js';
import { atEnd } from './at-end.js';
import { clientOf, folder, startFake, TYPES } from './fake-server.js';

const SECONDS = { timeout: 30_000 };

async function all(chunks) {
  const texts = [];
  for await (const chunk of chunks) texts.push(decodeText(chunk));
  return texts;
}

async function connected(t, options) {
  const server = await startFake(t, options);
  const client = await clientOf(t, { path: server.path, reconnectTimeout: 500 });
  return { server, client, peer: await server.peer() };
}

test('each style carries text and bytes', SECONDS, async (t) => {
  const { client, peer } = await connected(t);
  assert.equal(decodeText(await client.call('unary', 'ding')), 'ding');
  assert.deepEqual(await client.call('unary', Uint8Array.of(1, 2, 255)), Buffer.of(1, 2, 255));
  assert.equal((await client.call('unary')).length, 0);
  assert.deepEqual(await all(client.stream('server_stream', 'as it comes')), ['as it c', 'omes']);
  const upload = client.clientStream('client_stream', 'ab');
  assert.equal(await upload.send('cd'), true);
  assert.equal(await upload.sendAll(['ef', Buffer.from('gh')]), true);
  assert.equal(decodeText(await upload.finish()), '8');
  const both = client.duplex('duplex');
  const sent = both.sendAll(['one', 'two', '']).then(() => both.end());
  assert.deepEqual(await all(both), ['one', 'two', '']);
  await sent;
  assert.equal(peer.broken, null);
});

test('JSON goes both ways', SECONDS, async (t) => {
  const { client } = await connected(t, {
    onRecord(peer, { kind, type, call, whole }) {
      if (kind !== 'request') return;
      if (type === 1) peer.respond(call, JSON.stringify({ got: JSON.parse(whole) }));
      peer.send({ kind: 'chunk', call, extension: 0, payload: '{"seq":0}' });
      peer.send({ kind: 'chunk', call, extension: 1, payload: 'no JSON' });
    },
  });
  assert.deepEqual(await client.callJson('unary', { a: [1, '🔔'] }), { got: { a: [1, '🔔'] } });
  const stream = client.streamJson('server_stream', {});
  assert.deepEqual(await stream.next(), { done: false, value: { seq: 0 } });
  await assert.rejects(stream.next(), { code: 'Unreadable' });
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
  await assert.rejects(client.callJson('unary', undefined), { code: 'Unwritable' });
});

test('a thousand calls at once get their own answers, in few writes', SECONDS, async (t) => {
  const { client, peer } = await connected(t);
  const calls = Array.from({ length: 1_000 }, (_, i) => client.call('unary', `call ${i}`));
  const answers = await Promise.all(calls);
  answers.forEach((answer, i) => assert.equal(decodeText(answer), `call ${i}`));
  assert.equal(peer.requests, 1_000);
  // One write takes them all; the kernel may hand it over in a few pieces.
  assert.ok(peer.reads <= 20, `the requests came in ${peer.reads} pieces`);
});

test('what cannot be called is refused before a byte is sent', SECONDS, async (t) => {
  const { client, peer } = await connected(t, { maxMessage: 1_000, maxInFlight: 2, onRecord() {} });
  await assert.rejects(client.call('nothing'), { code: 'UnknownMessageType', messageType: 'nothing', retryable: false });
  await assert.rejects(client.call('duplex'), { code: 'WrongStyle', style: 'duplex', asked: 'unary' });
  await assert.rejects(client.stream('unary').next(), { code: 'WrongStyle' });
  await assert.rejects(client.call('unary', Buffer.alloc(1_001)), { code: 'MessageTooLarge', size: 1_001, limit: 1_000 });
  await assert.rejects(client.call('unary', {}), TypeError);
  await assert.rejects(client.call('unary', '', { timeout: -1 }), TypeError);
  await assert.rejects(client.call('unary', '', { deadline: 'soon' }), TypeError);
  await assert.rejects(client.call('unary', '', { timeout: 0 }), { code: 'DeadlineExceeded' });
  await assert.rejects(client.call('unary', '', { deadline: new Date(Date.now() - 1) }), { code: 'DeadlineExceeded' });
  const open = [client.call('unary'), client.call('unary')].map((call) => call.catch((error) => error.code));
  await assert.rejects(client.call('unary'), { code: 'Rejected', reason: 'busy', retryAfterMs: null, retryable: true });
  await peer.record(1);
  assert.equal(peer.requests, 2);
  client.close();
  assert.deepEqual(await Promise.all(open), ['Closed', 'Closed']);
});

test('a chunk above the limit is refused and the stream goes on', SECONDS, async (t) => {
  const { client } = await connected(t, { capacity: 4_096 });
  const upload = client.clientStream('client_stream', '');
  await assert.rejects(upload.send(Buffer.alloc(1_025)), { code: 'MessageTooLarge', size: 1_025, limit: 1_024 });
  assert.equal(await upload.send(Buffer.alloc(1_024)), true);
  assert.equal(decodeText(await upload.finish()), '1024');
  await assert.rejects(upload.send('more'), TypeError);
});

test('a deadline travels on the server clock and ends the call on this side', SECONDS, async (t) => {
  const { client, peer } = await connected(t, { onRecord() {} });
  const before = process.hrtime.bigint() / 1000n;
  const late = client.call('unary', 'x', { timeout: 250, deadline: Date.now() + 60_000 });
  await assert.rejects(late, { code: 'DeadlineExceeded', retryable: false });
  const after = process.hrtime.bigint() / 1000n;
  const { extension } = await peer.record(0);
  assert.ok(extension >= before + 250_000n && extension <= after, `${before} ${extension} ${after}`);
  assert.equal((await peer.record(1)).kind, 'cancel');
  const stream = client.stream('server_stream', 'x', { timeout: 50 });
  await assert.rejects(stream.next(), { code: 'DeadlineExceeded' });
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
});

test('a call that names no time has 30 s, as the server is told, and a stream has no deadline', SECONDS, async (t) => {
  const { client, peer } = await connected(t, { onRecord() {} });
  const now = () => process.hrtime.bigint() / 1000n;
  const given = [undefined, {}, { timeout: undefined, deadline: undefined }];
  const before = now();
  const calls = given.map((options) => client.call('unary', '', options));
  calls.push(client.callJson('unary', 1));
  const after = now();
  calls.push(client.call('unary', '', { timeout: null }), client.call('unary', '', { timeout: Infinity }));
  const ended = Promise.all(calls.map((call) => call.catch((error) => error.code)));
  const streams = [client.stream('server_stream'), client.clientStream('client_stream'), client.duplex('duplex')];
  for (const stream of streams) stream.response?.catch(() => {});
  await peer.record(calls.length + streams.length - 1);
  const deadlines = peer.records.map(({ extension }) => extension);
  for (const deadline of deadlines.slice(0, 4)) {
    assert.ok(deadline >= before + 29_999_999n && deadline <= after + 30_000_000n, `${before} ${deadline} ${after}`);
  }
  assert.deepEqual(deadlines.slice(4), [null, null, null, null, null]);
  client.close();
  assert.deepEqual(await ended, calls.map(() => 'Closed'));
});

test('callTimeout ends what names no time, and nothing else', SECONDS, async (t) => {
  // Answers nothing before it is told to.
  const server = await startFake(t, {
    onRecord(peer, { kind, whole }) {
      if (kind !== 'request' || decodeText(whole) !== 'now') return;
      for (const { call, type } of peer.records.filter((record) => record.kind === 'request' && decodeText(record.whole) !== 'usual')) {
        peer.send(type === 2 ? { kind: 'end', call, extension: 0 } : { kind: 'response', call, payload: 'late' });
      }
    },
  });
  const client = await clientOf(t, { path: server.path, callTimeout: 20 });
  const named = client.call('unary', 'named', { timeout: null });
  const usual = client.call('unary', 'usual');
  const moment = client.call('unary', 'moment', { deadline: Date.now() + 600_000 });
  const stream = all(client.stream('server_stream', 'stream'));
  await assert.rejects(usual, { code: 'DeadlineExceeded', message: /20 ms, the client's callTimeout/ });
  assert.equal(decodeText(await client.call('unary', 'now', { timeout: null })), 'late');
  assert.equal(decodeText(await named), 'late');
  assert.equal(decodeText(await moment), 'late');
  assert.deepEqual(await stream, []);
  for (const callTimeout of [null, Infinity, 1e12]) {
    const patient = await clientOf(t, { path: server.path, callTimeout });
    const call = patient.call('unary', 'x');
    patient.close();
    await assert.rejects(call, { code: 'Closed' });
  }
  for (const callTimeout of [0, -1, NaN, '1']) await assert.rejects(clientOf(t, { path: server.path, callTimeout }), TypeError);
});

test('an answer before the end of an upload ends it', SECONDS, async (t) => {
  const { client } = await connected(t, {
    onRecord(peer, { kind, type, call }) {
      if (kind !== 'chunk') return;
      if (type === 0 && call === 1n) peer.send({ kind: 'response', call, payload: 'enough' });
      else peer.send({ kind: 'error', type: 8, call, payload: 'not this' });
    },
  });
  const upload = client.clientStream('client_stream');
  await upload.send('x');
  assert.equal(decodeText(await upload.response), 'enough');
  assert.equal(await upload.send('y'), false);
  assert.equal(decodeText(await upload.finish()), 'enough');
  const refused = client.clientStream('client_stream');
  await refused.send('x');
  await assert.rejects(refused.response, { code: 'InvalidRequest', message: 'not this' });
  await assert.rejects(refused.send('y'), { code: 'InvalidRequest' });
});

test('chunks that came before an error are given out first', SECONDS, async (t) => {
  const { client } = await connected(t, {
    onRecord(peer, { call }) {
      peer.send({ kind: 'chunk', call, extension: 0, payload: 'a' });
      peer.send({ kind: 'chunk', call, extension: 1, payload: 'b' });
      peer.send({ kind: 'error', type: 1, call, extension: 7, payload: 'hoarse' });
    },
  });
  const stream = client.stream('server_stream');
  await client.call('unary').catch(() => {});
  assert.equal(decodeText((await stream.next()).value), 'a');
  assert.equal(decodeText((await stream.next()).value), 'b');
  await assert.rejects(stream.next(), { code: 'Handler', number: 7, message: 'hoarse' });
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
});

test('several calls of next wait in order', SECONDS, async (t) => {
  const { client, peer } = await connected(t, { onRecord() {} });
  const stream = client.stream('server_stream');
  const waiting = [stream.next(), stream.next(), stream.next(), stream.next()];
  await peer.record(0);
  peer.send({ kind: 'chunk', call: 1, extension: 0, payload: 'a' });
  peer.send({ kind: 'chunk', call: 1, extension: 1, payload: 'b' });
  peer.send({ kind: 'end', call: 1, extension: 2 });
  const got = (await Promise.all(waiting)).map(({ done, value }) => (done ? null : decodeText(value)));
  assert.deepEqual(got, ['a', 'b', null, null]);
});

test('a client tells its message types, limits and state', SECONDS, async (t) => {
  const { client } = await connected(t, { maxInFlight: 5, types: [...TYPES, { name: 'new', number: 9, style: 7 }] });
  assert.ok(client instanceof Client);
  assert.equal(client.state, 'connected');
  assert.deepEqual(client.messageTypes[1], { name: 'server_stream', style: 'server stream', codec: 0, schema: 0n });
  assert.equal(client.messageTypes.length, 4);
  assert.deepEqual(client.limits, { maxMessage: 10_485_760, maxInFlight: 5, streamWindow: 65_536 });
  client.close();
  client.close();
  assert.equal(client.state, 'closed');
  assert.equal(client.limits, null);
  await assert.rejects(client.call('unary'), { code: 'Closed', retryable: false });
  await assert.rejects(client.stream('server_stream').next(), { code: 'Closed' });
  assert.throws(() => new Client({}), TypeError);
});

test('the default path is that of the user', (t) => {
  const { XDG_RUNTIME_DIR, TMPDIR } = process.env;
  atEnd(t, () => {
    for (const [key, value] of Object.entries({ XDG_RUNTIME_DIR, TMPDIR })) {
      if (value === undefined) delete process.env[key];
      else process.env[key] = value;
    }
  });
  // A machine with a login manager has a folder for each user, whose programs may be started without the variable.
  const uid = process.getuid();
  const home = existsSync(`/run/user/${uid}`)
    ? `/run/user/${uid}/bellrope/bellrope.sock`
    : `/tmp/bellrope-${uid}/bellrope.sock`;
  process.env.XDG_RUNTIME_DIR = '/run/user/7';
  assert.equal(defaultSocketPath(), '/run/user/7/bellrope/bellrope.sock');
  process.env.XDG_RUNTIME_DIR = '';
  process.env.TMPDIR = '/scratch';
  assert.equal(defaultSocketPath(), home, 'whatever temporary directory this program is given');
  delete process.env.TMPDIR;
  delete process.env.XDG_RUNTIME_DIR;
  assert.equal(defaultSocketPath(), home);
});

test('the hello names the client and its class', SECONDS, async (t) => {
  const server = await startFake(t);
  const client = await clientOf(t, { path: server.path, name: 'editor', priority: true });
  const { hello } = await server.peer();
  assert.equal(hello.toString('latin1', 24, 30), 'editor');
  assert.deepEqual([hello[12], hello[13], hello[14]], [1, 1, 6]);
  client.close();
  const plain = await clientOf(t, server.path);
  assert.ok((await server.peer(1)).hello[14] > 0);
  plain.close();
});

test('an idle client lets the program end if it is told so', SECONDS, async (t) => {
  const { spawn } = await import('node:child_process');
  const server = await startFake(t);
  const index = new URL('../index.js', import.meta.url).href;
  const script = `import { connect } from ${JSON.stringify(index)}; const c = await connect(${JSON.stringify(server.path)}); await c.unref().ref().call('unary', 'x'); c.unref();`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { cwd: folder(t), stdio: 'inherit' });
  assert.equal(await new Promise((resolve) => child.once('exit', resolve)), 0);
});

test('text that chunks have cut comes in whole characters', SECONDS, async (t) => {
  const { client } = await connected(t);
  const text = '🔔 süß 鐘 🇩🇪'.repeat(20);
  const pieces = [];
  for await (const piece of textOf(client.stream('server_stream', text))) pieces.push(piece);
  assert.equal(pieces.join(''), text);
  assert.ok(pieces.every((piece) => !piece.includes('\ufffd') && piece !== ''));
});
