// What a test undoes when it ends: what was done last first, and each whatever becomes of the others. The hooks of node:test
// run first to last, and after one that throws no other: a server would outlive a folder that could not be removed.

import { rmSync } from 'node:fs';

const undos = new WeakMap();

/** Has `undo` run when `t` ends. */
export function atEnd(t, undo) {
  if (!undos.has(t)) {
    undos.set(t, []);
    t.after(() => undoAll(undos.get(t)));
  }
  undos.get(t).push(undo);
}

async function undoAll(undos) {
  const errors = [];
  while (undos.length > 0) {
    try {
      await undos.pop()();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}

/** Removes a folder, also if one that was killed a moment ago still writes there. */
export function remove(folder) {
  rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 10 });
}
