// Bytes that come cut, large messages, slow readers and writers.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'node:test';
import { decodeText, textOf } from '../index.js';
import { clientOf, startFake } from './fake-server.js';

const MINUTE = { timeout: 60_000 };

async function connected(t, options) {
  const server = await startFake(t, options);
  const client = await clientOf(t, server.path);
  return { server, client, peer: await server.peer() };
}

test('everything is whole when the server writes one byte at a time', MINUTE, async (t) => {
  const { client, peer } = await connected(t, { cut: 1, capacity: 4_096 });
  const large = randomBytes(2_500);
  assert.deepEqual(await client.call('unary', large), large);
  const text = 'Glocke 🔔, Seil 🪢';
  let got = '';
  for await (const piece of textOf(client.stream('server_stream', text))) got += piece;
  assert.equal(got, text);
  const both = client.duplex('duplex');
  void both.sendAll(['🔔', 'x']).then(() => both.end());
  const chunks = [];
  for await (const chunk of both) chunks.push(decodeText(chunk));
  assert.deepEqual(chunks, ['🔔', 'x']);
  assert.equal(peer.broken, null);
});

test('messages around 64 KiB and of 10 MiB come whole', MINUTE, async (t) => {
  const { client, peer } = await connected(t);
  for (const size of [32_767, 32_768, 32_769, 65_535, 65_536, 65_537, 98_304, 98_305, 10_485_760]) {
    const message = randomBytes(size);
    assert.ok((await client.call('unary', message)).equals(message), String(size));
  }
  await assert.rejects(client.call('unary', Buffer.alloc(10_485_761)), { code: 'MessageTooLarge' });
  assert.equal(peer.broken, null);
});

test('large and small calls at once all come whole, and small ones do not wait for large ones', MINUTE, async (t) => {
  const { client, peer } = await connected(t);
  const order = [];
  const messages = Array.from({ length: 6 }, (_, i) => randomBytes(2_000_000 + i));
  const large = messages.map(async (message) => {
    assert.ok((await client.call('unary', message)).equals(message));
    order.push('large');
  });
  const small = Array.from({ length: 200 }, async (_, i) => {
    assert.equal(decodeText(await client.call('unary', `small ${i}`)), `small ${i}`);
    order.push('small');
  });
  await Promise.all([...large, ...small]);
  assert.ok(order.lastIndexOf('small') < order.lastIndexOf('large'));
  assert.equal(peer.broken, null);
});

test('a server that reads slowly gets everything, and what waits is bounded', MINUTE, async (t) => {
  const { client, peer } = await connected(t, { capacity: 1_048_576, streamWindow: 100_000_000 });
  peer.socket.pause();
  const upload = client.clientStream('client_stream');
  let accepted = 0;
  const sending = (async () => {
    for (let i = 0; i < 200; i += 1) {
      await upload.send(Buffer.alloc(50_000, i));
      accepted += 50_000;
    }
    return upload.finish();
  })();
  for (let before = -1; before !== accepted; ) {
    before = accepted;
    for (let i = 0; i < 50; i += 1) await turn();
  }
  // The queue, one write and what the kernel holds.
  assert.ok(accepted < 2_000_000, `${accepted} bytes were accepted while nobody read`);
  peer.socket.resume();
  assert.equal(decodeText(await sending), '10000000');
  assert.equal(peer.broken, null);
});

test('a slow reader holds up its own stream alone', MINUTE, async (t) => {
  const window = 1_000;
  const { client, peer } = await connected(t, {
    streamWindow: window,
    onRecord(peer, { kind, type, call, extension, whole }) {
      if (kind === 'request' && type === 1) peer.respond(call, whole);
      if (kind === 'request' && type === 2) Object.assign(peer, { call, next: 0, balance: window });
      if (kind === 'credit') peer.balance += Number(extension);
      while (peer.next < 100 && peer.balance > 0) {
        peer.send({ kind: 'chunk', call: peer.call, extension: peer.next, payload: Buffer.alloc(100, peer.next) });
        peer.balance -= 164;
        peer.next += 1;
        if (peer.next === 100) peer.send({ kind: 'end', call: peer.call, extension: 100 });
      }
    },
  });
  const stream = client.stream('server_stream', '');
  await client.call('unary', 'x');
  assert.ok(peer.next <= 7);
  let count = 0;
  for await (const chunk of stream) {
    assert.ok(chunk.equals(Buffer.alloc(100, count)));
    count += 1;
    await client.call('unary', 'y');
  }
  assert.equal(count, 100);
});

test('two sides that write much at once do not wait for each other', MINUTE, async (t) => {
  const { client, peer } = await connected(t);
  const both = client.duplex('duplex');
  const chunk = randomBytes(60_000);
  const sent = (async () => {
    for (let i = 0; i < 100; i += 1) await both.send(chunk);
    await both.end();
  })();
  let bytes = 0;
  for await (const back of both) {
    assert.ok(back.equals(chunk));
    bytes += back.length;
  }
  await sent;
  assert.equal(bytes, 6_000_000);
  assert.equal(peer.broken, null);
});
