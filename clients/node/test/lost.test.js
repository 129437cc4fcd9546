// Connections that are lost, and made again: each call ends once, as the specification says, and nothing runs on.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect as connectPlain, createServer } from 'node:net';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'node:test';
import { ClosedByServer, connect, Connect, decodeText } from '../index.js';
import { Backoff } from '../src/backoff.js';
import { atEnd } from './at-end.js';
import { clientOf, encodeAnswer, folder, startFake, TYPES } from './fake-server.js';

const SECONDS = { timeout: 30_000 };

const code = (promise) => promise.then(() => 'answered', (error) => error.code);

// Waits for an event that says the state.
async function becomes(client, state) {
  while (client.state !== state) await once(client, 'state');
}

async function connected(t, options, more) {
  const server = await startFake(t, options);
  const client = await clientOf(t, { path: server.path, ...more });
  return { server, client, peer: await server.peer() };
}

const silent = { onRecord() {} };

test('a server that is killed leaves calls unknown, and those never sent not executed', SECONDS, async (t) => {
  const { client, peer } = await connected(t, silent);
  const sent = [client.call('unary', 'a'), client.stream('server_stream', 'b').next(), client.clientStream('client_stream', 'c').response];
  await peer.record(2);
  peer.socket.pause();
  // Too much for one write: most of it is never handed over.
  const large = client.call('unary', Buffer.alloc(10_000_000));
  for (let i = 0; i < 20; i += 1) await turn();
  const held = client.call('unary', 'd');
  peer.kill();
  assert.deepEqual(await Promise.all(sent.map(code)), ['Unknown', 'Unknown', 'Unknown']);
  assert.equal(await code(large), 'NotExecuted');
  assert.equal(await code(held), 'NotExecuted');
});

test('the admitted record decides what ran', SECONDS, async (t) => {
  const { client, peer } = await connected(t, silent);
  const calls = [client.call('unary', 'a'), client.call('unary', Buffer.alloc(100_000)), client.stream('server_stream').next(), client.call('unary', 'd')];
  await peer.until(() => peer.requests === 4);
  // The parts of the large request do not count, and its last part was sent last.
  const order = peer.records.filter(({ kind }) => kind === 'request').map(({ whole }) => whole.length);
  assert.equal(order.length, 4);
  peer.send({ kind: 'response', call: 1, payload: 'in time' });
  peer.send({ kind: 'admitted', extension: 2 });
  peer.socket.end();
  const codes = await Promise.all(calls.map(code));
  const outcome = (length) => codes[[1, 100_000, 0].indexOf(length)];
  assert.equal(codes[0], 'answered');
  assert.equal(outcome(order[1]), 'Unknown');
  assert.deepEqual(codes.filter((c) => c === 'NotExecuted').length, 2);
});

test('why the server closes the connection is shown', SECONDS, async (t) => {
  const { server, client, peer } = await connected(t, silent);
  const states = [];
  client.on('state', (event) => states.push(event));
  const calls = [client.call('unary', 'a'), client.stream('server_stream', 'b').next()];
  await peer.until(() => peer.requests === 2);
  const reason = 'for 50 ms, the limit stall_timeout_ms, 🔔';
  peer.send({ kind: 'error', type: 9, extension: 0, payload: reason });
  peer.send({ kind: 'admitted', extension: 1 });
  peer.socket.end();
  const errors = await Promise.all(calls.map((call) => call.catch((error) => error)));
  assert.deepEqual(errors.map((error) => [error.code, error.reason, error.mayHaveRun, error.retryable]), [
    ['ClosedByServer', reason, true, false],
    ['ClosedByServer', reason, false, true],
  ]);
  assert.ok(errors[0] instanceof ClosedByServer && errors[0].message.endsWith('; the call may have run'), errors[0].message);
  await server.peer(1);
  assert.equal(states[0].state, 'reconnecting');
  assert.match(states[0].error.message, /closed the connection: for 50 ms/);
});

test('what arrived before the loss still counts, also after a write has failed', SECONDS, async (t) => {
  const { client, peer } = await connected(t, silent);
  const first = client.call('unary', 'a');
  const stream = client.stream('server_stream', 'b');
  await peer.record(1);
  peer.send({ kind: 'chunk', call: 2, extension: 0, payload: 'last words' });
  peer.send({ kind: 'response', call: 1, payload: 'answer' });
  peer.send({ kind: 'admitted', extension: 2 });
  await new Promise((resolve) => peer.socket.write('', resolve));
  peer.kill();
  // Written before the client has seen that the server is gone.
  const late = client.call('unary', 'c');
  assert.equal(decodeText(await first), 'answer');
  assert.equal(decodeText((await stream.next()).value), 'last words');
  assert.equal(await code(stream.next()), 'Unknown');
  // The write failed, which proves nothing by itself; the admitted record does.
  assert.equal(await code(late), 'NotExecuted');
});

for (const [what, records] of Object.entries({
  'more than was sent': [{ kind: 'admitted', extension: 2 }],
  'with a call id': [{ kind: 'admitted', call: 1, extension: 1 }],
  'with a payload': [{ kind: 'admitted', extension: 1, payload: 'x' }],
  'with a type': [{ kind: 'admitted', type: 1, extension: 1 }],
  'without a number': [{ kind: 'admitted' }],
  'with a record behind it': [{ kind: 'admitted', extension: 1 }, { kind: 'response', call: 1 }],
  'twice': [{ kind: 'admitted', extension: 1 }, { kind: 'admitted', extension: 1 }],
})) {
  test(`an admitted record ${what} is a violation`, SECONDS, async (t) => {
    const { client, peer } = await connected(t, silent);
    const call = client.call('unary');
    await peer.record(0);
    for (const record of records) peer.send(record);
    await assert.rejects(call, { code: 'Violation', rule: 'bad_form' });
  });
}

test('a client connects again, tells of it, and calls wait for it', SECONDS, async (t) => {
  const states = [];
  const { server, client, peer } = await connected(t, {});
  client.on('state', ({ state, error }) => states.push(error ? `${state} (${error.code})` : state));
  peer.kill();
  await becomes(client, 'reconnecting');
  assert.equal(decodeText(await client.call('unary', 'waited')), 'waited');
  assert.equal(server.peers.length, 2);
  client.close();
  await turn();
  assert.deepEqual(states.slice(-3), ['reconnecting (Connect)', 'connected', 'closed']);
});

test('calls that find no connection end as Connect, and the client goes on trying', SECONDS, async (t) => {
  const { server, client } = await connected(t, {}, { reconnectTimeout: 50 });
  await server.close();
  await becomes(client, 'reconnecting');
  const calls = [client.call('unary'), client.stream('server_stream').next(), client.duplex('duplex').send('x')];
  for (const call of calls) await assert.rejects(call, { code: 'Connect', retryable: true });
  await server.listen();
  await becomes(client, 'connected');
  assert.equal(decodeText(await client.call('unary', 'back')), 'back');
});

test('a call that waits for a connection ends by its deadline or its signal', SECONDS, async (t) => {
  const { server, client } = await connected(t, {}, { reconnectTimeout: 60_000 });
  await server.close();
  await becomes(client, 'reconnecting');
  await assert.rejects(client.call('unary', '', { timeout: 10 }), { code: 'DeadlineExceeded' });
  const abort = new AbortController();
  const given = client.stream('server_stream', '', { signal: abort.signal });
  abort.abort();
  await assert.rejects(given.next(), { code: 'Cancelled' });
  const left = client.duplex('duplex');
  const next = left.next();
  await left.return();
  assert.deepEqual(await next, { done: true, value: undefined });
});

test('numbers of message types are looked up anew on each connection', SECONDS, async (t) => {
  const options = {};
  const { server, client, peer } = await connected(t, options);
  await client.call('unary', 'x');
  await server.close();
  await becomes(client, 'reconnecting');
  const other = await startFake(t, { path: server.path, types: TYPES.map((type) => ({ ...type, number: type.number === 1 ? 777 : type.number })), onRecord: (p, { call }) => p.respond(call, 'y') });
  assert.equal(decodeText(await client.call('unary', 'x')), 'y');
  assert.equal((await other.peer()).records[0].type, 777);
  assert.equal(peer.records[0].type, 1);
});

test('closing while reconnecting ends everything', SECONDS, async (t) => {
  const { server, client } = await connected(t, {});
  await server.close();
  await becomes(client, 'reconnecting');
  const waiting = [code(client.call('unary')), code(client.stream('server_stream').next()), code(client.clientStream('client_stream').finish())];
  client.close();
  assert.deepEqual(await Promise.all(waiting), ['Closed', 'Closed', 'Closed']);
  await server.listen();
  for (let i = 0; i < 200; i += 1) await turn();
  assert.equal(server.peers.length, 1);
  assert.equal(client.state, 'closed');
});

test('closing during a handshake ends it', SECONDS, async (t) => {
  let mute = false;
  const { server, client, peer } = await connected(t, { onPeer: (p) => (p.manual = mute) });
  mute = true;
  peer.kill();
  const second = await server.peer(1);
  await second.until(() => second.hello !== null);
  const waiting = code(client.call('unary'));
  client.close();
  assert.equal(await waiting, 'Closed');
  await second.end();
});

test('a server that is killed at any moment leaves every call with one end', { timeout: 60_000 }, async (t) => {
  for (let round = 0; round <= 30; round += 1) {
    let seen = 0;
    const server = await startFake(t, {
      onRecord(peer, record) {
        seen += 1;
        if (seen === round) peer.kill();
        else if (!peer.socket.destroyed && record.kind === 'request' && record.type === 1 && seen % 2 === 0) peer.respond(record.call, record.whole);
      },
    });
    const client = await clientOf(t, { path: server.path, reconnectTimeout: 20 });
    let ends = 0;
    const ended = (promise) => promise.then(() => (ends += 1), (error) => {
      ends += 1;
      assert.match(error.code, /^(NotExecuted|Unknown|Connect|Closed)$/);
    });
    const upload = client.clientStream('client_stream', 'x');
    const both = client.duplex('duplex', 'x');
    const all = [
      ...Array.from({ length: 20 }, (_, i) => ended(client.call('unary', `${i}`))),
      ended(client.call('unary', Buffer.alloc(300_000))),
      ended(client.stream('server_stream', 'x').next()),
      ended(upload.sendAll(['a', 'b']).then(() => upload.finish())),
      ended(both.sendAll(['a', 'b']).then(() => both.next())),
    ];
    const peer = await server.peer();
    if (round > 0) await peer.until(() => seen >= round || peer.closed).catch(() => {});
    await turn();
    client.close();
    await Promise.all(all);
    assert.equal(ends, all.length);
    await server.close();
  }
});

test('connecting where nobody listens fails at once, in words', SECONDS, async (t) => {
  const home = folder(t);
  const path = join(home, 'nobody.sock');
  await assert.rejects(connect(path), (error) => error instanceof Connect && error.retryable && error.message.includes(path) && error.cause.code === 'ENOENT');
  writeFileSync(path, '');
  await assert.rejects(connect(path), { code: 'Connect' });
  await assert.rejects(connect(join(home, 'x'.repeat(120))), { code: 'Connect', message: /at most 107 bytes/ });
  for (const wrong of ['', 7, { path: 7 }, { connectTimeout: 0 }, { maxMessage: 0 }, { name: 7 }, null]) {
    await assert.rejects(connect(wrong), TypeError);
  }
});

test('a socket that another user could have put there is not trusted', SECONDS, async (t) => {
  const home = folder(t);
  const open = join(home, 'open');
  mkdirSync(open);
  chmodSync(open, 0o777);
  const server = await startFake(t, { path: join(open, 'fake.sock') });
  await assert.rejects(connect(server.path), { code: 'Connect', message: /others may write/ });
  symlinkSync(server.path, join(home, 'link.sock'));
  await assert.rejects(connect(join(home, 'link.sock')), { code: 'Connect', message: /others may write/ });
  (await connect({ path: server.path, checkOwner: false })).close();
  chmodSync(open, 0o700);
  (await connect(join(home, 'link.sock'))).close();
});

test('refusals are told with status and text', SECONDS, async (t) => {
  for (const [status, passing] of [[1, false], [2, false], [3, true], [4, true], [5, false], [6, false], [7, false], [99, false]]) {
    const server = await startFake(t, { status, text: 'this\u001b[2J is why' });
    await assert.rejects(connect(server.path), (error) => {
      assert.equal(error.code, 'Connect');
      assert.equal(error.refusal.status, status);
      assert.equal(error.refusal.passing, passing);
      assert.ok(error.message.endsWith('this [2J is why'));
      return true;
    });
  }
});

test('a refusal that came before the hello was read is read all the same', SECONDS, async (t) => {
  const path = join(folder(t), 'full.sock');
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.end(encodeAnswer({}, [], { status: 3, text: 'full' }), () => socket.destroy());
  });
  await new Promise((resolve) => server.listen(path, resolve));
  atEnd(t, () => server.close());
  for (let i = 0; i < 50; i += 1) await assert.rejects(connect(path), { code: 'Connect', message: /full/ });
});

test('a refusal that does not pass ends the calls that wait', SECONDS, async (t) => {
  const { server, client } = await connected(t, {}, { reconnectTimeout: 20_000 });
  await server.close();
  await becomes(client, 'reconnecting');
  const waiting = client.call('unary');
  await startFake(t, { path: server.path, status: 5, text: 'not you' });
  await assert.rejects(waiting, { code: 'Connect', message: /not you/ });
});

test('a server that does not answer, or hangs up, is no connection', SECONDS, async (t) => {
  const mute = await startFake(t, { onPeer: (peer) => (peer.manual = true) });
  await assert.rejects(connect({ path: mute.path, connectTimeout: 200 }), { code: 'Connect', message: /in time/ });
  // On a busy machine the time may be over before it has connected.
  await mute.peers[0]?.end();
  const other = await startFake(t, { onPeer: (peer) => (peer.manual = true) });
  const abort = new AbortController();
  const given = connect({ path: other.path, connectTimeout: 20_000, signal: abort.signal });
  const peer = await other.peer();
  abort.abort('changed my mind');
  await assert.rejects(given, { code: 'Cancelled', cause: 'changed my mind' });
  await peer.end();
  await assert.rejects(connect({ path: other.path, signal: abort.signal }), { code: 'Cancelled' });
  const short = await startFake(t, {
    onPeer(peer) {
      peer.manual = true;
      peer.socket.end('BELLROPE');
    },
  });
  await assert.rejects(connect(short.path), { code: 'Connect' });
});

test('a full queue of connections is waited for', SECONDS, async (t) => {
  // A server that takes nothing until it is told so, with a short queue.
  const path = join(folder(t), 'busy.sock');
  const script = `
    import { readSync } from 'node:fs';
    import { startFake } from ${JSON.stringify(new URL('fake-server.js', import.meta.url).href)};
    await startFake({ after() {} }, { path: ${JSON.stringify(path)}, backlog: 1 });
    process.stdout.write('ready');
    readSync(0, Buffer.alloc(1));
    process.stdin.resume().on('end', () => process.exit());`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['pipe', 'pipe', 'inherit'] });
  atEnd(t, () => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  const plain = await new Promise((resolve) => {
    const seen = (error) => resolve(error.code);
    for (let i = 0; i < 8; i += 1) connectPlain(path).on('error', seen).unref();
  });
  assert.equal(plain, 'EAGAIN');
  const clients = Array.from({ length: 5 }, () => clientOf(t, { path, connectTimeout: 20_000 }));
  for (let i = 0; i < 10; i += 1) await turn();
  await assert.rejects(connect({ path, connectTimeout: 30 }), { code: 'Connect', message: /in time/ });
  child.stdin.write('x');
  for (const client of await Promise.all(clients)) assert.equal(decodeText(await client.call('unary', 'x')), 'x');
});

test('records that come with the answer are not lost', SECONDS, async (t) => {
  const server = await startFake(t, {
    onPeer(peer) {
      peer.manual = peer.first = server.peers.length === 1;
      if (!peer.manual) return;
      const terms = { capacity: 4_096, maxMessage: 100, maxInFlight: 1, streamWindow: 1 };
      peer.socket.end(Buffer.concat([encodeAnswer(terms), Buffer.from('00000000000005000100000000000000', 'hex')]));
    },
  });
  const client = await clientOf(t, server.path);
  assert.equal(decodeText(await client.call('unary', 'x').catch(() => client.call('unary', 'x'))), 'x');
  assert.equal(server.peers.length, 2);
});

test('pauses between tries are those of the specification', () => {
  const backoff = new Backoff();
  backoff.connected(0);
  assert.equal(backoff.lost(10_000, false, 0), 2);
  assert.equal(backoff.failed(10_100, false, 1), 4);
  assert.equal(backoff.failed(12_100, false, 0), 8);
  assert.equal(backoff.failed(12_100, false, 1), 16);
  assert.equal(backoff.failed(50_000, false, 1), 200);
  assert.equal(backoff.failed(50_000, true, 0), 500);
  // A connection that does not last counts as a try.
  backoff.connected(50_000);
  assert.equal(backoff.lost(50_500, false, 1), 200);
  backoff.connected(60_000);
  assert.equal(backoff.lost(61_000, true, 0), 500);
  assert.equal(backoff.failed(61_500, false, 0), 2);
});
