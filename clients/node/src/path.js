// Where the server's socket lies, and whether what lies there can be trusted.

import { lstatSync } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Connect } from './errors.js';

/** What fits into the kernel's address of a Unix socket. */
const MAX_PATH = 107;
const STICKY = 0o1000;
const OTHERS_WRITE = 0o022;

/** The socket of this user's server, unless somebody names another. */
export function defaultSocketPath() {
  const runtime = process.env.XDG_RUNTIME_DIR;
  if (runtime) return join(runtime, 'bellrope', 'bellrope.sock');
  // Programs that are given other temporary directories must find the same server, so TMPDIR plays no part.
  const uid = process.getuid();
  const ofUser = `/run/user/${uid}`;
  return join(isOwnFolder(ofUser, uid) ? `${ofUser}/bellrope` : `/tmp/bellrope-${uid}`, 'bellrope.sock');
}

function isOwnFolder(path, uid) {
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found !== undefined && found.isDirectory() && found.uid === uid;
}

/** Refuses a path that the kernel, or an older Node, would cut. */
export function checkLength(path) {
  const length = Buffer.byteLength(path);
  if (length > MAX_PATH) {
    throw new Connect(`the path of a Unix socket has at most ${MAX_PATH} bytes, this one has ${length}: ${path}`);
  }
}

// Node cannot ask the kernel who listens (SO_PEERCRED). So the file system has to answer: the socket must belong to this
// user or to root, and nobody else may be able to put another one in its place.
export async function checkOwner(path) {
  const real = await realpath(path);
  const file = await stat(real);
  if (!trusted(file.uid)) throw distrust(`${path} belongs to the user ${file.uid}`);
  for (const folder of new Set([dirname(resolve(path)), dirname(real)])) {
    const { uid, mode } = await stat(folder);
    if (!trusted(uid)) throw distrust(`${folder} belongs to the user ${uid}`);
    if ((mode & OTHERS_WRITE) !== 0 && (mode & STICKY) === 0) throw distrust(`others may write to ${folder}`);
  }
}

function trusted(uid) {
  return uid === 0 || uid === process.getuid();
}

function distrust(why) {
  return new Connect(`no connection to a server that may be another user's: ${why}`, {
    refusal: { status: -1, name: 'distrusted', text: why, passing: false },
  });
}
