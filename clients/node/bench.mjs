// What a call costs beside a plain socket, in the same run: node bench.mjs [--json] COMMAND...
//
// COMMAND starts a server with a unary `echo` at the socket that {} stands for: `target/release/bellrope serve --socket {}`.
// The plain socket is a Unix socket of Node, to an echo of Node in a process of its own, with a length of four bytes ahead of
// each message. Rounds alternate. It prints, and judges nothing.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect as connectPlain, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connect } from './index.js';

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

async function main(command, asJson) {
  const folder = mkdtempSync(join(tmpdir(), 'bellrope-bench-'));
  const paths = { bellrope: join(folder, 'private', 's'), plain: join(folder, 'plain') };
  const [program, ...args] = command.map((part) => part.replaceAll('{}', paths.bellrope));
  const children = [
    spawn(program, args, { stdio: ['pipe', 'ignore', 'ignore'] }),
    spawn(process.execPath, [fileURLToPath(import.meta.url), '--plain', paths.plain], { stdio: 'inherit' }),
  ];
  try {
    const client = await retried(() => connect(paths.bellrope));
    const plain = await plainClient(paths.plain);
    const sides = { bellrope: (message) => client.call('echo', message), plain: plain.call };
    const message = Buffer.alloc(BYTES, 7);
    const rows = [];
    for (const [what, measure] of [['one at a time, median', roundTrip], [`${DEPTH} under way, mean`, pipelined]]) {
      const rounds = { bellrope: [], plain: [] };
      for (let round = 0; round <= ROUNDS; round += 1) {
        for (const [side, call] of Object.entries(sides)) {
          const time = await measure(call, message);
          if (round > 0) rounds[side].push(time); // The first round warms up.
        }
      }
      const [bellrope, socket] = [median(rounds.bellrope), median(rounds.plain)];
      rows.push({ bytes: BYTES, what, bellrope_us: rounded(bellrope, 10), plain_us: rounded(socket, 10), ratio: rounded(bellrope / socket, 100) });
    }
    if (asJson) console.log(JSON.stringify({ node: process.version, rounds: ROUNDS, rows }));
    else for (const row of rows) console.log(`${row.bytes} bytes, ${row.what}: bellrope ${row.bellrope_us} us, plain socket ${row.plain_us} us (${row.ratio} x)`);
    client.close();
    plain.close();
  } finally {
    for (const child of children) child.kill();
    rmSync(folder, { recursive: true, force: true });
  }
}

function rounded(number, steps) {
  return Math.round(number * steps) / steps;
}

const given = process.argv.slice(2);
const asJson = given[0] === '--json';
const command = asJson ? given.slice(1) : given;
if (given[0] === '--plain') {
  servePlain(given[1]);
} else if (!command.some((part) => part.includes('{}'))) {
  console.error('usage: node bench.mjs [--json] COMMAND...    {} in it stands for the socket');
  process.exitCode = 2;
} else {
  await main(command, asJson);
}
