// What waits to be written, and its order.
//
// First cancels and credit, which are small and make others go on; then requests, chunks and ends in the order in which
// they came; then parts of large requests, one request after the other. Parts always get a place in a write, so that small
// calls cannot hold them up. At most one write is under way. What is not yet in it can still be taken back.

import { Batch } from './batch.js';
import { Kind, partsOf } from './wire.js';

/** Chunks wait with their senders while more than this is queued. */
const QUEUED_BYTES = 262_144;

export class Outbox {
  #socket;
  #maxRecord;
  #number;
  #roomMade;
  #urgent = [];
  // Items { kind, call, number, payload } in order. A set, so that a request can be taken back in one step.
  #queue = new Set();
  #queuedBytes = 0;
  // Calls with a large request, of which the first is being sent: { call, sent }.
  #large = new Map();
  #batch = new Batch();
  #scheduled = false;
  #writing = false;
  // Whether senders of chunks may wait for what the present flush brings.
  #stalled = false;
  #closed = false;
  #lastCall = 0;
  #requests = 0;

  /**
   * `number(call)` is told each call when the first of its records is written, and has its id then. `roomMade()` is called
   * when senders of chunks may go on.
   */
  constructor(socket, maxRecord, number, roomMade) {
    this.#socket = socket;
    this.#maxRecord = maxRecord;
    this.#number = number;
    this.#roomMade = roomMade;
  }

  /** Requests of which the last record has been written. */
  get requests() {
    return this.#requests;
  }

  get hasRoom() {
    return this.#queuedBytes < QUEUED_BYTES;
  }

  request(call, extension) {
    if (call.payload.length > this.#maxRecord) {
      this.#large.set(call, { extension, sent: 0 });
    } else {
      call.queued = this.#add({ kind: Kind.request, call, extension, payload: call.payload });
    }
    this.#schedule();
  }

  chunk(call, number, payload) {
    this.#add({ kind: Kind.chunk, call, extension: number, payload });
    this.#schedule();
  }

  end(call, chunks) {
    this.#add({ kind: Kind.end, call, extension: chunks, payload: null });
    this.#schedule();
  }

  credit(call, amount) {
    this.#urgent.push({ kind: Kind.credit, call, extension: amount });
    this.#schedule();
  }

  /** The call has ended on this side, or before its request was sent: takes back what can be, and cancels the rest. */
  cancel(call) {
    if (call.queued !== null) this.#remove(call.queued);
    this.#large.delete(call);
    if (call.id === 0) return;
    this.#urgent.push({ kind: Kind.cancel, call, extension: null });
    this.#schedule();
  }

  /** Whether the whole request is in the queue's order, so that chunks may follow. */
  requested(call) {
    return !this.#large.has(call);
  }

  close() {
    this.#closed = true;
    this.#queue.clear();
    this.#large.clear();
    this.#urgent = [];
  }

  #add(item) {
    this.#queue.add(item);
    this.#queuedBytes += sizeOf(item);
    return item;
  }

  #remove(item) {
    if (this.#queue.delete(item)) this.#queuedBytes -= sizeOf(item);
    if (item.kind === Kind.request) item.call.queued = null;
  }

  // Behind the present step of the program, and whatever it has scheduled, so that one write takes all its records.
  #schedule() {
    if (this.#scheduled || this.#writing || this.#closed) return;
    this.#scheduled = true;
    process.nextTick(this.#flush);
  }

  #flush = () => {
    this.#scheduled = false;
    if (this.#writing || this.#closed) return;
    this.#stalled = !this.hasRoom;
    this.#fill();
    if (!this.#batch.empty) {
      this.#writing = true;
      this.#socket.writePieces(this.#batch.take(), this.#written);
    }
    if (this.#stalled && this.hasRoom) this.#roomMade();
  };

  #written = () => {
    this.#writing = false;
    if (this.#closed || this.#socket.writeFailed) return;
    if (this.#urgent.length > 0 || this.#queue.size > 0 || this.#large.size > 0) {
      // Not at once: the socket may take each write without waiting, and must be read in between.
      this.#scheduled = true;
      setImmediate(this.#flush);
    }
  };

  #fill() {
    this.#fillUrgent();
    for (const item of this.#queue) {
      if (!this.#batch.hasRoom) break;
      this.#remove(item);
      this.#put(item);
    }
    // A cancelled request's parts end with its cancel, before those of another begin.
    if (this.#urgent.length === 0) this.#fillLarge();
  }

  #fillUrgent() {
    const batch = this.#batch;
    let done = 0;
    for (const { kind, call, extension } of this.#urgent) {
      if (!batch.hasRoom) break;
      done += 1;
      if (kind === Kind.cancel) batch.plain(kind, 0, call.id, null);
      else if (!call.ended) batch.extended(kind, 0, call.id, extension, null);
    }
    this.#urgent.splice(0, done);
  }

  #put({ kind, call, extension, payload }) {
    if (call.ended) return;
    if (kind === Kind.request) this.#putRequest(call, extension, payload);
    else this.#batch.extended(kind, 0, call.id, extension, payload);
  }

  #putRequest(call, extension, payload) {
    this.#begin(call);
    this.#requests += 1;
    call.requestNumber = this.#requests;
    if (extension === null) this.#batch.plain(Kind.request, call.type, call.id, payload);
    else this.#batch.extended(Kind.request, call.type, call.id, extension, payload);
  }

  // Parts of the first large request, then of the next: at least one, and no more than there is room for.
  #fillLarge() {
    for (const [call, state] of this.#large) {
      const { fragments, part } = partsOf(call.payload.length, this.#maxRecord);
      do {
        this.#begin(call);
        const from = state.sent * part;
        if (state.sent < fragments) {
          this.#batch.extended(Kind.fragment, 0, call.id, call.payload.length, call.payload.subarray(from, from + part));
          state.sent += 1;
        } else {
          this.#putRequest(call, state.extension, call.payload.subarray(from));
          this.#large.delete(call);
          this.#stalled = true;
          break;
        }
      } while (this.#batch.hasRoom);
      if (!this.#batch.hasRoom) return;
    }
  }

  #begin(call) {
    if (call.id !== 0) return;
    this.#lastCall += 1;
    call.id = this.#lastCall;
    this.#number(call);
  }
}

function sizeOf({ payload }) {
  return 24 + (payload === null ? 0 : payload.length);
}
