// Tables of message types that come in pages, and change while a client is connected.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clientOf, encodeAnswer, encodeType, startFake } from './fake-server.js';
import { RealServer, STYLES } from './real-server.js';

const SECONDS = { timeout: 30_000 };
const options = { timeout: 120_000, skip: STYLES ? false : 'BELLROPE_STYLES names no program' };
const LATER = { name: 'later', number: 9, style: 0 };
const TAKEN_OUT = Buffer.from([9, 0, 255, 0]);

// A client of a server that tells of changes, and answers requests that are not empty.
async function connected(t) {
  const onRecord = (peer, { kind, type, call, payload }) => {
    if (kind === 'request' && payload.length > 0) peer.send({ kind: 'response', call, payload: `${type}` });
  };
  const server = await startFake(t, { entries: 4, onRecord });
  const client = await clientOf(t, server.path);
  const peer = await server.peer();
  const change = (entries, ...changes) => peer.send({ kind: 'types', extension: entries, payload: Buffer.concat(changes) });
  return { server, client, peer, change };
}

const names = (client) => client.messageTypes.map(({ name }) => name);

test('a table of 4,096 types comes whole, however it is cut', SECONDS, async (t) => {
  const types = Array.from({ length: 4_096 }, (_, number) => ({ name: String(number).padStart(200, '0'), number, style: 0 }));
  const entries = types.map(encodeType);
  const server = await startFake(t, {
    onPeer(peer) {
      peer.manual = true;
      const head = encodeAnswer({ capacity: 262_144, maxMessage: 1_048_576, maxInFlight: 8, streamWindow: 65_536, entries: 4_096 }, types.slice(0, 300));
      const parts = [head];
      for (let at = 300; at < 4_096; at += 317) {
        const page = Buffer.concat(entries.slice(at, at + 317));
        const pageHead = Buffer.alloc(8);
        pageHead.writeUInt16LE(at, 0);
        pageHead.writeUInt16LE(Math.min(317, 4_096 - at), 2);
        pageHead.writeUInt32LE(page.length, 4);
        parts.push(pageHead, page);
      }
      const whole = Buffer.concat(parts);
      for (let at = 0; at < whole.length; at += 997) peer.socket.write(whole.subarray(at, at + 997));
    },
    onRecord: (peer, { type, call }) => peer.send({ kind: 'response', call, payload: `${type}` }),
  });
  const client = await clientOf(t, server.path);
  assert.deepEqual(names(client), types.map(({ name }) => name));
  assert.equal(String(await client.call(types[4_095].name)), '4095');
});

test('a page that is none is refused at once, and pages that do not come in time', SECONDS, async (t) => {
  for (const [bytes, error] of [
    [[4, 0, 1, 0, 0, 0, 1, 0], { message: /invalid: page/ }],
    [[4, 0, 1, 0, 20, 0, 0, 0], { message: /no connection in time/ }],
  ]) {
    const server = await startFake(t, {
      onPeer(peer) {
        peer.manual = true;
        peer.socket.write(encodeAnswer({ capacity: 4_096, maxMessage: 1, maxInFlight: 1, streamWindow: 1, entries: 5 }));
        peer.socket.write(Buffer.from(bytes));
      },
    });
    const connectTimeout = error.message.source.includes('in time') ? 100 : 60_000;
    await assert.rejects(clientOf(t, { path: server.path, connectTimeout }), { code: 'Connect', ...error });
  }
});

test('a client knows what has arrived before it says what there is not', SECONDS, async (t) => {
  const { client, peer, change } = await connected(t);
  await assert.rejects(client.call('later', 'x'), { code: 'UnknownMessageType' });
  for (let round = 0; round < 50; round += 1) {
    change(5, encodeType(LATER));
    assert.equal(String(await client.call('later', 'x')), '9');
    change(4, TAKEN_OUT);
    while (names(client).includes('later')) await new Promise(setImmediate);
    await assert.rejects(client.call('later', 'x'), { code: 'UnknownMessageType' });
  }
  // It may come back under its number, with another style.
  change(5, encodeType({ ...LATER, style: 1 }));
  await assert.rejects(client.call('later', 'x'), { code: 'WrongStyle', style: 'server stream' });
  change(5, TAKEN_OUT, encodeType(LATER));
  assert.equal(String(await client.call('later', 'x')), '9');
  assert.equal(peer.requests, 51);
});

test('a call that waits for what has arrived can be cancelled, and ends with the client', SECONDS, async (t) => {
  const { client, peer } = await connected(t);
  const abort = new AbortController();
  const cancelled = client.call('later', 'x', { signal: abort.signal });
  abort.abort();
  await assert.rejects(cancelled, { code: 'Cancelled' });
  const stream = client.stream('later');
  assert.deepEqual(await stream.return(), { done: true, value: undefined });
  const upload = client.clientStream('later');
  const sent = assert.rejects(upload.send('x'), { code: 'Closed' });
  const closed = assert.rejects(client.call('later', 'x'), { code: 'Closed' });
  client.close();
  await Promise.all([sent, closed]);
  assert.equal(peer.requests, 0);
});

test('a change that does not fit ends calls and connection', SECONDS, async (t) => {
  for (const record of [
    { kind: 'types', extension: 7, payload: encodeType(LATER) },
    { kind: 'types', extension: 5, payload: encodeType(LATER), call: 1, rule: 'bad_form' },
    { kind: 'types', extension: 5, payload: encodeType(LATER), call: 99, rule: 'bad_form' },
    { kind: 'types', extension: 5, payload: encodeType(LATER), type: 1, rule: 'bad_form' },
    { kind: 'types', extension: 4, payload: '', rule: 'bad_form' },
    { kind: 'types', payload: encodeType(LATER), rule: 'bad_form' },
  ]) {
    const { server, client, peer } = await connected(t);
    const call = client.call('unary', '');
    await peer.record(0);
    peer.send(record);
    await assert.rejects(call, { code: 'Violation', rule: record.rule ?? 'bad_types' });
    await server.peer(1);
    assert.equal(String(await client.call('unary', 'x')), '1');
  }
});

test('a type of a real server can be called once it is there, and is refused in words once it is not', options, async (t) => {
  const server = await RealServer.styles(t);
  const [client, other] = [await server.client(), await server.client()];
  const outcome = () => client.call('late', 'ding').then(String, (error) => error.code);
  const until = async (wanted) => {
    const seen = [];
    while (seen.at(-1) !== wanted) seen.push(await outcome());
    return new Set(seen);
  };
  for (let round = 0; round < 5; round += 1) {
    await other.call('add', 'late');
    assert.deepEqual([...(await until('ding'))].filter((seen) => seen !== 'UnknownMessageType' && seen !== 'Other'), ['ding']);
    await other.call('remove', 'late');
    // The server says so, as long as this side has not heard of it.
    const seen = await until('UnknownMessageType');
    assert.ok([...seen].every((one) => ['ding', 'Other', 'UnknownMessageType'].includes(one)), `${[...seen]}`);
  }
  [client, other].forEach((each) => each.close());
});

test('a table above 64 KiB of a real server comes whole', options, async (t) => {
  const server = await RealServer.styles(t, '1000');
  const client = await server.client();
  const more = names(client).filter((name) => name.startsWith('more.'));
  assert.equal(more.length, 1_000);
  assert.equal(String(await client.call(more[999], 'ding')), 'ding');
  client.close();
});
