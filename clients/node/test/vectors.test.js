// The client against the vectors of the specification, docs/vectors.

import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Connect } from '../index.js';
import { Batch } from '../src/batch.js';
import { Answered } from '../src/call.js';
import { Connection } from '../src/connection.js';
import { ReceiveCredit, SendCredit } from '../src/credit.js';
import { fromRecord, Violation } from '../src/errors.js';
import { AnswerReader, encodeHello, maxRecordOf } from '../src/handshake.js';
import { Reader } from '../src/reader.js';
import { Table } from '../src/table.js';
import { checkHeader, Kind, partsOf } from '../src/wire.js';
import { clientOf, encodeRecord, encodeType, startFake } from './fake-server.js';
import { Rule, ServerRules } from './server-rules.js';

const FOLDER = process.env.BELLROPE_VECTORS ?? new URL('../../../docs/vectors', import.meta.url).pathname;
const vectors = (name) => JSON.parse(readFileSync(`${FOLDER}/${name}.json`, 'utf8'));
const STYLES = ['unary', 'server_stream', 'client_stream', 'duplex'];
const BY_NUMBER = new Map(STYLES.map((_, style) => [style + 1, style]));
const hex = (text) => Buffer.from(text, 'hex');
const handshake = vectors('handshake');

function readAnswer(bytes, step = bytes.length) {
  const reader = new AnswerReader();
  for (let at = 0; at < bytes.length; at += step) {
    const end = reader.push(bytes, at, Math.min(bytes.length, at + step));
    if (end >= 0) return { terms: reader.terms(), end };
  }
  if (bytes.length === 0 || reader.push(bytes, 0, 0) < 0) throw new Error('the answer is not whole');
  return { terms: reader.terms(), end: bytes.length };
}

test('hellos have the bytes of the vectors', () => {
  for (const { name, class: priority, features, transports } of handshake.hellos) {
    for (const { transport, bytes } of transports) {
      assert.equal(encodeHello({ name, priority: priority === 1, features: BigInt(features), transport }).toString('hex'), bytes);
    }
  }
});

test('a long name is cut between characters', () => {
  const hello = encodeHello({ name: `${'x'.repeat(62)}🔔` });
  assert.equal(hello[14], 62);
  assert.ok(hello.subarray(24 + 62).every((byte) => byte === 0));
});

test('answers mean what the vectors say, however they are cut', () => {
  for (const wanted of handshake.answers) {
    const bytes = Buffer.concat([hex(wanted.bytes), Buffer.from('records')]);
    for (const step of [1, 63, 64, 65, bytes.length]) {
      const { terms, end } = readAnswer(bytes, step);
      assert.equal(end, bytes.length - 'records'.length);
      assert.equal(terms.capacity, wanted.capacity);
      assert.equal(terms.maxMessage, wanted.max_message);
      assert.equal(terms.maxInFlight, wanted.max_in_flight);
      assert.equal(terms.streamWindow, wanted.stream_window);
      assert.equal(terms.clockUs, BigInt(wanted.clock_us));
      assert.equal(terms.connection, BigInt(wanted.connection));
      assert.equal(terms.features, BigInt(wanted.features));
      assert.equal(maxRecordOf(terms), wanted.max_record);
      const types = [...terms.table.values()].map(({ name, number, style, codec, schema }) => ({
        name,
        style: STYLES[style],
        type: number,
        codec,
        schema: String(schema),
      }));
      assert.deepEqual(types, wanted.types);
    }
  }
});

test('refusals carry status, name and text', () => {
  for (const { bytes, status, name, text } of handshake.refusals) {
    assert.throws(
      () => readAnswer(hex(bytes)),
      (error) => {
        assert.ok(error instanceof Connect);
        assert.deepEqual(error.refusal, { status, name, text, passing: status === 3 || status === 4 });
        return true;
      },
    );
  }
});

test('invalid answers are refused by the field that is wrong', () => {
  for (const { bytes, wrong } of handshake.invalid_answers) {
    assert.throws(() => readAnswer(hex(bytes)), (error) => error instanceof Connect && error.refusal.name === `invalid ${wrong}`, wrong);
  }
});

const tables = vectors('table');
const isMarked = ({ features }) => (BigInt(features) & 1n) !== 0n;

// A type as table.json shows it.
const shownIn = (group) => ({ name, number, style, codec, schema }) => ({
  ...(isMarked(group) ? { codec, hash: String(schema) } : {}),
  name,
  style: STYLES[style],
  type: number,
});

function entryOf({ name, style, type, codec = 0, hash = '0' }, group) {
  const mark = Buffer.alloc(isMarked(group) ? 9 : 0);
  if (isMarked(group)) {
    mark[0] = codec;
    mark.writeBigUInt64LE(BigInt(hash), 1);
  }
  return Buffer.concat([encodeType({ name, number: type, style: STYLES.indexOf(style) }), mark]);
}

// The types by the rule `made` of table.json, and the answer with them, of which the file has the heads.
function madeTypes(count, group) {
  const marks = (n) => (isMarked(group) ? { codec: 1, hash: String(2n ** 64n - 1n - BigInt(n)) } : {});
  return Array.from({ length: count }, (_, i) => ({ ...marks(i + 1), name: String(i + 1).padStart(250, '0'), style: 'unary', type: i + 1 }));
}

function madeAnswer(group) {
  const entries = madeTypes(group.made, group).map((type) => entryOf(type, group));
  assert.ok(Buffer.concat(entries).toString('hex').startsWith(group.first));
  const parts = [hex(group.head), ...entries.slice(0, group.in_body)];
  for (const head of group.page_heads.map(hex)) {
    const page = Buffer.concat(entries.slice(head.readUInt16LE(0), head.readUInt16LE(0) + head.readUInt16LE(2)));
    assert.equal(page.length, head.readUInt32LE(4));
    parts.push(head, page);
  }
  return Buffer.concat(parts);
}

test('a table comes whole with its pages, however it is cut', () => {
  for (const wanted of tables.answers) {
    const answer = wanted.answer === undefined ? madeAnswer(wanted) : hex(wanted.answer);
    for (const step of [7, 4_096, answer.length]) {
      const { terms, end } = readAnswer(Buffer.concat([answer, Buffer.from('records')]), step);
      assert.equal(end, answer.length);
      assert.equal(terms.table.changes, wanted.entries !== null);
      const types = [...terms.table.values()].map(shownIn(wanted));
      assert.deepEqual(types, wanted.types ?? madeTypes(wanted.known, wanted));
    }
  }
});

test('an answer whose table or page is wrong is refused by what is wrong', () => {
  for (const { answer, wrong, what } of tables.invalid_answers) {
    assert.throws(() => readAnswer(hex(answer)), (error) => error instanceof Connect && error.message.endsWith(`: ${wrong}`), what);
  }
  const { made, cases } = tables.invalid_pages;
  const group = tables.answers.find((answer) => answer.made === made && answer.entries !== null);
  const whole = madeAnswer(group);
  const at = whole.indexOf(hex(group.page_heads[0]));
  for (const { head, wrong, what } of cases) {
    const bytes = Buffer.from(whole);
    hex(head).copy(bytes, at);
    assert.throws(() => readAnswer(bytes), (error) => error instanceof Connect && error.message.endsWith(`: ${wrong}`), what);
  }
});

test('changes of the table are followed, and one that does not fit is a violation', () => {
  for (const group of tables.changes) {
    for (const { record, entries, types, rule } of group.cases) {
      const table = new Table(isMarked(group), group.before.length);
      table.body(Buffer.concat(group.before.map((type) => entryOf(type, group))));
      let given = null;
      const reader = new Reader(65_536, true, ({ kind, call, extension, bytes, start, end }) => {
        given = { kind, call, extension };
        table.change(bytes.subarray(start, end), extension);
      });
      const read = () => reader.push(hex(record), 0, hex(record).length);
      if (rule === undefined) {
        read();
        assert.deepEqual([...table.values()].map(shownIn(group)), types);
      } else {
        assert.throws(read, (error) => error instanceof Violation && error.rule === rule);
      }
      assert.deepEqual(given, { kind: Kind.types, call: 0, extension: entries });
      assert.throws(() => new Reader(65_536, false, () => {}).push(hex(record), 0, 8), { rule: 'bad_direction' });
    }
  }
});

test('records are written and read as in the vectors, however they are cut', () => {
  const { valid } = vectors('records');
  const fromServer = valid.filter(({ kind }) => kind !== Kind.request && kind !== Kind.cancel);
  const all = Buffer.concat(fromServer.map(({ bytes }) => hex(bytes)));
  for (let step = 1; step <= all.length; step += 1) {
    const seen = [];
    const reader = new Reader(65_536, false, (record) => {
      const payload = record.takePayload().toString('hex');
      const extension = record.extended ? (BigInt(record.high) * 2n ** 32n + BigInt(record.low)).toString() : null;
      seen.push({ kind: record.kind, type: record.type, call: String(record.call), extension, payload });
    });
    for (let at = 0; at < all.length; at += step) reader.push(all, at, Math.min(all.length, at + step));
    assert.deepEqual(seen, fromServer.map(({ kind, type, call, extension, payload }) => ({ kind, type, call, extension, payload })));
  }
  const batch = new Batch();
  for (const { kind, type, call, extension, payload, bytes } of valid) {
    if (BigInt(call) > 2n ** 53n) continue; // Ids of this client count up from 1.
    const body = payload === '' ? null : hex(payload);
    if (extension === null) batch.plain(kind, type, Number(call), body);
    else batch.extended(kind, type, Number(call), BigInt(extension), body);
    assert.equal(Buffer.concat(batch.take()).toString('hex'), bytes);
  }
});

test('invalid headers are refused by the rule of the vectors', () => {
  for (const { bytes, rule, what } of vectors('records').invalid_headers) {
    const header = hex(bytes);
    const check = () => checkHeader(header[6], header[7], header.readUInt16LE(4), header.readUInt32LE(0), 65_536, false);
    assert.throws(check, (error) => error instanceof Violation && error.rule === rule, what);
  }
});

test('errors of the server are the outcomes of the vectors', () => {
  for (const { bytes, outcome, code, detail, text, reason, retry_after_ms: after } of vectors('errors').errors) {
    let error;
    const record = hex(bytes);
    new Reader(65_536, false, (r) => (error = fromRecord(r.type, r.low, r.high, r.text(1_024), 10_485_760))).push(record, 0, record.length);
    assert.equal(error.code, outcome);
    assert.equal(error.constructor.name, outcome);
    assert.equal(error.message, text);
    assert.equal(error.retryable, ['Rejected', 'NotExecuted'].includes(outcome));
    if (outcome === 'Handler') assert.equal(error.number, Number(detail));
    if (outcome === 'Other') assert.equal(error.number, code);
    if (outcome === 'MessageTooLarge') assert.equal(error.size, Number(detail));
    if (outcome === 'Rejected') assert.deepEqual([error.reason, error.retryAfterMs], [reason, after]);
  }
});

test('credit goes as in the vectors', () => {
  for (const { window, steps } of vectors('credit').runs) {
    const sender = new SendCredit(window);
    const receiver = new ReceiveCredit(window);
    for (const step of steps) {
      if ('send' in step) {
        assert.equal(sender.available, step.allowed);
        assert.equal(receiver.spend(step.send), step.allowed);
        if (step.allowed) sender.spend(step.send);
      } else if ('consume' in step) {
        receiver.consume(step.consume);
        assert.equal(receiver.owed, step.owed);
        assert.equal(receiver.due, step.due);
      } else if ('return' in step) {
        const amount = receiver.due ? receiver.give() : 0;
        assert.equal(amount, step.return);
        assert.ok(sender.add(amount));
        assert.equal(receiver.balance, step.balance);
      } else {
        assert.equal(sender.add(Number(step.add)), step.allowed);
      }
      assert.equal(sender.balance, step.balance);
    }
  }
});

test('messages are cut into the parts of the vectors', () => {
  for (const { size, capacity, max_message: maxMessage, fragments, part, last } of vectors('parts').messages) {
    assert.deepEqual(partsOf(size, maxRecordOf({ capacity, maxMessage })), { fragments, part, last });
  }
});

const violations = vectors('violations');
const violationTerms = {
  capacity: violations.capacity,
  maxMessage: violations.max_message,
  maxInFlight: violations.max_in_flight,
  streamWindow: violations.stream_window,
};

test('the fake server of these tests finds what a server must find', () => {
  for (const { records, rule, what, only } of violations.from_client) {
    if (only === 'transport 0') continue;
    const rules = new ServerRules(violationTerms, BY_NUMBER);
    let broken = null;
    try {
      for (const record of records) rules.push(hex(record));
    } catch (error) {
      if (!(error instanceof Rule)) throw error;
      broken = error.rule;
    }
    assert.equal(broken, rule, what);
  }
});

test('what the server must not send ends all calls as a Violation with the rule of the vectors', async (t) => {
  for (const { records, rule, what, only } of violations.from_server.cases) {
    if (only === 'transport 0') continue;
    const server = await startFake(t, { ...violationTerms, onRecord() {} });
    const client = await clientOf(t, server.path);
    const streams = [];
    const calls = [client.call('unary', 'a')];
    const start = (stream) => (streams.push(stream), stream);
    start(client.stream('server_stream', 'b'));
    calls.push(start(client.clientStream('client_stream', 'c')).response);
    start(client.duplex('duplex', 'd'));
    calls.push(client.call('unary', 'e'));
    const ends = calls.map((call) => call.then(() => null, (error) => error));
    const peer = await server.peer();
    await peer.record(4);
    for (const record of records) peer.write(hex(record));
    const ended = records.some((record) => hex(record)[6] === Kind.admitted);
    if (rule === null && ended) {
      peer.socket.end();
      for (const error of await Promise.all(ends)) assert.ok(error === null || error.code !== 'Violation', what);
    } else if (rule === null) {
      const after = client.call('unary', 'f').then(() => null, (error) => error);
      await peer.record(5);
      peer.send({ kind: 'response', call: peer.records[5].call });
      assert.equal(await after, null, what);
    } else {
      const errors = (await Promise.all(ends)).filter((error) => error !== null);
      assert.ok(errors.length > 0, what);
      for (const error of errors) assert.deepEqual([error.code, error.rule, error.retryable], ['Violation', rule, false], what);
      await peer.end();
    }
    client.close();
    await server.close();
    for (const stream of streams) await stream.return?.();
  }
});

// A socket that takes what it is given, and says that it has written so many writes.
class SlowSocket extends EventEmitter {
  writeFailed = false;
  #writes;

  constructor(writes) {
    super();
    this.#writes = writes;
  }

  writePieces(pieces, done) {
    this.#writes -= 1;
    if (this.#writes > 0) process.nextTick(done);
  }

  destroy() {}
}

test('a lost connection ends calls as in the vectors', async () => {
  const { cases, requests, capacity, max_message: maxMessage, max_in_flight: maxInFlight, stream_window: streamWindow } = vectors('lost');
  const table = { changes: false, find: (name) => ({ name, number: 1, style: 0 }) };
  const first = 16 + requests[0];
  for (const { sent, admitted, outcomes, what } of cases) {
    // Node does not say how much of a write the kernel has taken. So what was given to it counts as sent.
    const exact = sent === 0 || sent === first || admitted !== null || !outcomes.includes('NotExecuted');
    const socket = new SlowSocket(sent <= first ? 1 : 3);
    const connection = new Connection(socket, { capacity, maxMessage, maxInFlight, streamWindow, clockUs: 0n, table }, 0);
    const ends = [];
    for (const size of requests) {
      ends.push(new Promise((resolve, reject) => connection.begin(new Answered(0, 'unary', Buffer.alloc(size), undefined, resolve, reject))).catch((error) => error.code));
      if (sent > 0) await new Promise(setImmediate);
    }
    if (sent > 0) await new Promise(setImmediate);
    if (admitted !== null) {
      const record = encodeRecord({ kind: 'admitted', extension: admitted });
      connection.feed(record, 0, record.length);
    }
    socket.emit('end');
    const got = await Promise.all(ends);
    got.forEach((outcome, i) => assert.ok(outcome === outcomes[i] || (!exact && outcome === 'Unknown'), `${what}: ${got}`));
  }
});

// Plays a conversation: does what makes the client send its records, and sends those of the server.
async function play(t, name, records) {
  const { capacity, max_message: maxMessage, max_in_flight: maxInFlight, stream_window: streamWindow } = conversations;
  const server = await startFake(t, { capacity, maxMessage, maxInFlight, streamWindow, onRecord() {} });
  const client = await clientOf(t, server.path);
  const peer = await server.peer();
  const calls = new Map();
  let sent = 0;
  for (const [i, record] of records.entries()) {
    if (record.from === 'server') {
      const { kind, type, call, extension, payload, bytes } = record;
      const sending = { kind, type, call, extension, payload: hex(payload) };
      assert.equal(encodeRecord(sending).toString('hex'), bytes);
      peer.send(sending);
      continue;
    }
    act(client, calls, record, records.slice(i));
    const got = await peer.record(sent);
    sent += 1;
    // A deadline is a moment of this machine's clock.
    if (record.kind === 'request' && record.extension !== null) assert.equal(got.extension !== null, true);
    else assert.equal(got.bytes.toString('hex'), record.bytes, `${name}, record ${i}`);
  }
  await Promise.all([...calls.values()].map(({ settled }) => settled));
  assert.equal(peer.broken, null);
  client.close();
  await server.close();
  return new Map([...calls].map(([id, { outcome }]) => [id, outcome]));
}

function act(client, calls, { kind, call: id, extension, payload }, rest) {
  const call = calls.get(id);
  if (kind === 'request' || kind === 'fragment') {
    if (call === undefined) calls.set(id, start(client, rest.filter((r) => r.call === id && r.from === 'client')));
  } else if (kind === 'chunk') {
    void call.stream.send(hex(payload));
  } else if (kind === 'end') {
    if (call.stream.finish) void call.stream.finish();
    else void call.stream.end();
  } else if (kind === 'cancel') {
    call.abort.abort();
  } else if (kind === 'credit') {
    assert.ok(Number(extension) > 0);
    call.read();
  }
}

function start(client, records) {
  const last = records.find(({ kind }) => kind === 'request');
  const parts = records.filter(({ kind }) => kind === 'request' || kind === 'fragment');
  const payload = Buffer.concat(parts.map(({ payload: part }) => hex(part)));
  const style = STYLES[last.type - 1];
  const abort = new AbortController();
  const options = { signal: abort.signal, timeout: last.extension === null ? null : 60_000 };
  const call = { abort, stream: null, outcome: null, read: () => {} };
  if (style === 'unary') {
    call.settled = client.call(style, payload, options).then(
      (bytes) => (call.outcome = bytes.toString()),
      (error) => (call.outcome = error.code),
    );
    return call;
  }
  call.stream = { server_stream: () => client.stream(style, payload, options), client_stream: () => client.clientStream(style, payload, options), duplex: () => client.duplex(style, payload, options) }[style]();
  if (style === 'client_stream') {
    call.settled = call.stream.response.then((bytes) => (call.outcome = bytes.toString()), (error) => (call.outcome = error.code));
    return call;
  }
  // Reads only when the conversation says so, or at its end.
  let begin;
  const begun = new Promise((resolve) => (begin = resolve));
  call.read = begin;
  const reading = begun.then(async () => {
    const chunks = [];
    try {
      for await (const chunk of call.stream) chunks.push(chunk.toString());
      call.outcome = chunks;
    } catch (error) {
      call.outcome = error.code;
    }
  });
  call.settled = { then: (...args) => (begin(), reading.then(...args)) };
  return call;
}

const conversations = vectors('conversations');

test('conversations go as in the vectors, byte for byte', async (t) => {
  const wanted = {
    unary: { 1: 'DING', 2: '' },
    server_stream: { 1: ['a'.repeat(300), 'b'.repeat(600), 'waits for credit'] },
    client_stream: { 1: '916' },
    duplex: { 1: ['ONE', ''] },
    cancel: { 1: 'Cancelled', 2: 'Cancelled', 3: 'NEXT' },
    failures: { 1: 'Handler', 2: 'Rejected', 3: 'HandlerPanic' },
    large: { 1: 'd'.repeat(2_049) },
  };
  for (const [name, records] of Object.entries(conversations.conversations)) {
    if (name === 'large_refused') continue; // Depends on what the kernel buffers; see cancel.test.js for the rule.
    assert.ok(name in wanted, `a conversation that this test does not know: ${name}`);
    assert.deepEqual(Object.fromEntries(await play(t, name, records)), wanted[name], name);
  }
});
