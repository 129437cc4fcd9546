// Calls the example `typed` through the client that `bellrope generate ts` makes of it. What compiles here, and what does
// not, is part of the test: tsc fails for a `@ts-expect-error` above a line without an error.

import assert from 'node:assert/strict';
import { connect, Incompatible, ServiceError } from 'bellrope';
import { type FileError, FilesClient, type Integer, OddClient, type Part, type Tree, type Wide, type Words } from './client.js';

const client = await connect({ path: process.argv[2] ?? '' });
const files = new FilesClient(client);
const odd = new OddClient(client);

// Every style.
const size: Integer = await files.size({ path: 'ding' });
assert.equal(size, 4);
assert.equal(await files.size({ path: 'huge' }, { timeout: 30_000 }), 2n ** 64n - 1n);
assert.equal(await files.touch(), null);
const part: Part = { name: 'a', bytes: 'ZGluZyE=', at: [-7, 0.5] };
assert.deepEqual(await files.same({ part }), part);
assert.deepEqual(await files.same({ part: { name: 'a', bytes: '' } }), { name: 'a', bytes: '', at: null });
const lines: string[] = [];
for await (const line of files.lines({ path: 'a/b' }).results()) {
  if (line instanceof ServiceError) assert.equal(line.error satisfies FileError, 'Missing');
  else lines.push(line);
}
assert.deepEqual(lines, ['a', 'b', 'after it']);
const upload = files.upload({ name: 'abc' });
await upload.send(part);
const total: Integer = await upload.finish();
assert.equal(total, 8);
const edit = files.edit();
await edit.sendAll(['ding', 'dong']);
await edit.end();
const edited: string[] = [];
for await (const text of edit) edited.push(text);
assert.deepEqual(edited, ['DING', 'DONG']);
await assert.rejects(files.size({ path: '/root' }), { name: 'ServiceError', error: { Denied: { path: '/root' } } });
await assert.rejects(files.broken(), { code: 'Handler', number: 7 });

// Names that JavaScript has for itself, and types of every form.
assert.equal(await odd.call({ from: 'here', class: 7 }), 7);
await assert.rejects(odd.call({ class: 7 }), { name: 'ServiceError', error: 'no "way"' });
const words: Words = { from: 'a', class: 1, constructor: true, ['__proto__']: 'b', 'with-dash': '🔔', str: null };
assert.deepEqual(await odd.close({ this: words }), words);
const tree: Tree = { Branch: { left: { Both: [1, -2] }, right: { Named: 'x' } } };
assert.deepEqual(await odd.then_({ tree }), tree);
assert.deepEqual(await odd.then_({ tree: 'Leaf' }), 'Leaf');
assert.deepEqual(await odd.new({ depths: { 7: 0.5 }, pair: ['a', null] }), [{ 7: 0.5 }, ['a', null]]);
assert.deepEqual(await odd.constructor_(), { items: [], next: null });
assert.deepEqual(await odd.constructor_({ timeout: 3 }), { items: [3], next: null });
assert.deepEqual((await odd.str()).items, [{ items: [7], next: 2n ** 64n - 1n }]);
// A client that were taken for a promise would never come out of an async function.
assert.equal(await (async () => odd)(), odd);
await assert.rejects(odd.new({ depths: { 1: Number.NaN }, pair: ['a', true] }), { code: 'Unwritable' });

// Numbers at the ends of their types: a bigint from 2^53 on, a number below, and floats as they are.
const wide: Wide = {
  unsigned: 2n ** 64n - 1n,
  signed: -(2n ** 63n),
  widest: [2n ** 128n - 1n, -(2n ** 127n)],
  float: 2 ** 60,
  by_number: { '18446744073709551615': 2n ** 53n, '0': Number.MAX_SAFE_INTEGER },
};
assert.deepEqual(await odd.wide({ numbers: wide }), wide);
const small: Wide = { ...wide, unsigned: 7n, signed: 2 ** 53, float: -0 };
const read = await odd.wide({ numbers: small });
assert.deepEqual([read.unsigned, read.signed], [7, 2n ** 53n]);
// Above what the type holds, or no whole number: the service refuses it. No number is sent as another one.
for (const unsigned of [2n ** 64n, 2 ** 64, 1.5, -1]) {
  await assert.rejects(odd.wide({ numbers: { ...wide, unsigned } }), { code: 'InvalidRequest' });
}
for (const float of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
  await assert.rejects(odd.wide({ numbers: { ...wide, float } }), { code: 'Unwritable' });
}
await assert.rejects(odd.nowhere(), { code: 'Handler' });

// What the types refuse.
async function refused(): Promise<void> {
  // @ts-expect-error an argument is missing
  await files.size({});
  // @ts-expect-error a name that is none
  await files.size({ path: 'x', depth: 1 });
  // @ts-expect-error another type
  await odd.call({ class: 'seven' });
  // @ts-expect-error a variant that there is not
  await odd.then_({ tree: 'Leef' });
}
void refused;
void Incompatible;
client.close();
