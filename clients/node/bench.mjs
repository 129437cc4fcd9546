// What a call costs beside a plain socket, in the same run: node bench.mjs PROGRAM
//
// PROGRAM is the bellrope program; its `echo` answers over transport 1. The plain socket is a Unix socket of Node, to an
// echo of Node in a process of its own, with a length of four bytes ahead of each message. `client alone` is this client
// with the tests' server, also Node in a process of its own: both ends of the same language, as the plain socket has them.
// Rounds alternate. It prints, and judges nothing.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect as connectPlain, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connect } from './index.js';
import { startFake } from './test/fake-server.js';

const BYTES = 64;
const ROUNDS = 7;
const ROUND_MS = 500;
const DEPTH = 64;

function framed(onMessage) {
  let rest = Buffer.alloc(0);
  return (bytes) => {
    rest = rest.length === 0 ? bytes : Buffer.concat([rest, bytes]);
    let at = 0;
    while (rest.length - at >= 4) {
      const length = rest.readUInt32LE(at);
      if (rest.length - at < 4 + length) break;
      onMessage(rest.subarray(at + 4, at + 4 + length));
      at += 4 + length;
    }
    rest = rest.subarray(at);
  };
}

function frame(message) {
  const bytes = Buffer.allocUnsafe(4 + message.length);
  bytes.writeUInt32LE(message.length);
  bytes.set(message, 4);
  return bytes;
}

function servePlain(path) {
  const server = createServer((socket) => {
    socket.on('data', framed((message) => socket.write(frame(message))));
    socket.on('end', () => process.exit());
  });
  server.listen(path);
}

async function serveFake(path) {
  const onRecord = (peer, { call, whole }) => {
    peer.respond(call, whole);
    peer.records.length = 0;
  };
  const types = [{ name: 'echo', number: 1, style: 0 }];
  await startFake({ after() {} }, { path, types, onRecord, onPeer: ({ socket }) => socket.on('close', () => process.exit()) });
}

async function plainClient(path) {
  const socket = await retried(
    () =>
      new Promise((resolve, reject) => {
        const attempt = connectPlain(path, () => resolve(attempt));
        attempt.once('error', reject);
      }),
  );
  const waiting = [];
  socket.on('data', framed((message) => waiting.shift()(Buffer.from(message))));
  const call = (message) =>
    new Promise((resolve) => {
      waiting.push(resolve);
      socket.write(frame(message));
    });
  return { call, close: () => socket.end() };
}

async function retried(action) {
  for (const until = Date.now() + 10_000; ; ) {
    try {
      return await action();
    } catch (error) {
      if (Date.now() > until) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

// Microseconds of each call one after the other, their median.
async function roundTrip(call, message) {
  const times = [];
  for (const until = performance.now() + ROUND_MS; performance.now() < until; ) {
    const began = performance.now();
    await call(message);
    times.push((performance.now() - began) * 1e3);
  }
  return median(times);
}

// Microseconds for each call with several under way.
async function pipelined(call, message) {
  let calls = 0;
  const began = performance.now();
  const until = began + ROUND_MS;
  await Promise.all(
    Array.from({ length: DEPTH }, async () => {
      while (performance.now() < until) {
        await call(message);
        calls += 1;
      }
    }),
  );
  return ((performance.now() - began) * 1e3) / calls;
}

function median(numbers) {
  return numbers.sort((a, b) => a - b)[numbers.length >> 1];
}

async function main(program) {
  const folder = mkdtempSync(join(tmpdir(), 'bellrope-bench-'));
  const paths = { bellrope: join(folder, 'private', 'bellrope.sock'), alone: join(folder, 'fake.sock'), plain: join(folder, 'plain.sock') };
  const self = fileURLToPath(import.meta.url);
  const children = [
    spawn(program, ['serve', '--socket', paths.bellrope, '--log', 'error'], { stdio: 'ignore' }),
    spawn(process.execPath, [self, '--fake', paths.alone], { stdio: 'inherit' }),
    spawn(process.execPath, [self, '--plain', paths.plain], { stdio: 'inherit' }),
  ];
  try {
    const client = await retried(() => connect(paths.bellrope));
    const alone = await retried(() => connect(paths.alone));
    const plain = await plainClient(paths.plain);
    const sides = {
      bellrope: (message) => client.call('echo', message),
      'client alone': (message) => alone.call('echo', message),
      'plain socket': plain.call,
    };
    const message = Buffer.alloc(BYTES, 7);
    for (const [what, measure] of [['one at a time, median', roundTrip], [`${DEPTH} under way, mean`, pipelined]]) {
      const rounds = Object.fromEntries(Object.keys(sides).map((side) => [side, []]));
      for (let round = 0; round <= ROUNDS; round += 1) {
        for (const [side, call] of Object.entries(sides)) {
          const time = await measure(call, message);
          if (round > 0) rounds[side].push(time); // The first round warms up.
        }
      }
      const times = Object.entries(rounds).map(([side, all]) => [side, median(all)]);
      const socket = times.at(-1)[1];
      const shown = times.map(([side, time]) => `${side} ${time.toFixed(1)} us (${(time / socket).toFixed(2)} x)`);
      console.log(`${BYTES} bytes, ${what}: ${shown.join(', ')}`);
    }
    alone.close();
    client.close();
    plain.close();
  } finally {
    for (const child of children) child.kill();
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[2] === '--plain') servePlain(process.argv[3]);
else if (process.argv[2] === '--fake') await serveFake(process.argv[3]);
else if (process.argv[2] === undefined) console.error('usage: node bench.mjs PROGRAM');
else await main(process.argv[2]);
