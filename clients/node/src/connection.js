// One connection: the calls that are under way on it, what each record from the server means for them, and how they end
// with it. It never connects again; that is the client's part.

import { clockOffset, onServerClock } from './clock.js';
import {
  Closed,
  ClosedByServer,
  Connect,
  fromRecord,
  Incompatible,
  MessageTooLarge,
  NotExecuted,
  Rejected,
  Unknown,
  UnknownMessageType,
  Violation,
  WrongStyle,
} from './errors.js';
import { Growing } from './growing.js';
import { maxRecordOf } from './handshake.js';
import { mismatch } from './method.js';
import { Outbox } from './outbox.js';
import { Reader } from './reader.js';
import { Kind, MAX_ERROR_TEXT, Style, STYLE_NAMES } from './wire.js';

/** More bytes than a socket holds that have arrived and were not read. */
const MOST_ARRIVED = 16 * 1024 * 1024;

export class Connection {
  #socket;
  #terms;
  #maxRecord;
  #clockOffset;
  #reader;
  #outbox;
  // Calls of which a record was written, by id; and all that are under way.
  #sent = new Map();
  #calls = new Set();
  // The call whose large response is coming in parts.
  #assembling = null;
  // How many requests the server took, if it said so.
  #admitted = -1;
  // Why the server closes the connection, if it said so.
  #closedBecause = '';
  #ended = false;
  // What was read, to see whether anything still comes after a write has failed.
  #reads = 0;
  #bytesRead = 0;
  #onLost = null;
  #lostWith = null;

  /** `clockUs` is the own clock when the answer came. */
  constructor(socket, terms, clockUs, maxMessage = Infinity) {
    this.#socket = socket;
    // Chunks may be as large as the server's own limit allows, so only messages are held to a lower one of this side.
    this.#terms = { ...terms, maxMessage: Math.min(terms.maxMessage, maxMessage) };
    this.#maxRecord = maxRecordOf(this.#terms);
    this.#clockOffset = clockOffset(terms.clockUs, clockUs);
    this.#reader = new Reader(terms.capacity / 4, terms.table.changes, (record) => this.#take(record));
    this.#outbox = new Outbox(socket, this.#maxRecord, (call) => this.#sent.set(call.id, call), () => this.#roomMade());
    socket.onBytes = (bytes, length) => this.feed(bytes, 0, length);
    socket.onWriteFailed = () => this.#writeFailed();
    socket.once('end', () => this.#lost(null));
    socket.once('error', (error) => this.#lost(error));
    socket.once('close', () => this.#lost(null));
  }

  get terms() {
    return this.#terms;
  }

  /** Whether new calls may be begun. */
  get usable() {
    return !this.#ended && !this.#socket.writeFailed;
  }

  /** Calls `lost(error)` once, when the connection has ended in any other way than by `close`. */
  watch(lost) {
    this.#onLost = lost;
    if (this.#lostWith !== null) lost(this.#lostWith);
  }

  ref() {
    this.#socket.ref();
  }

  unref() {
    this.#socket.unref();
  }

  /** Begins a call, or ends it with the reason why it cannot be. `heard`: what had arrived before was read. */
  begin(call, heard = false) {
    const type = this.#terms.table.find(call.name);
    const misfit = misfitOf(call, type);
    if (misfit !== null && !heard && this.#terms.table.changes) return this.#hear(call, 2);
    const refusal = misfit ?? this.#refusal(call);
    if (refusal !== null) {
      call.end(refusal);
      return;
    }
    call.type = type.number;
    call.holder = this;
    this.#calls.add(call);
    call.incoming?.open(this.#terms.streamWindow);
    call.outgoing?.open(this.#terms.streamWindow, this.#maxRecord);
    this.#outbox.request(call, call.deadlineUs === 0 ? null : onServerClock(call.deadlineUs, this.#clockOffset));
    call.outgoing?.pump();
  }

  /** Ends the connection and its calls on this side. */
  close() {
    this.#finish(() => new Closed('the client was closed'), true);
  }

  /** Takes what was read. */
  feed(bytes, at, end) {
    if (this.#ended) return;
    this.#reads += 1;
    this.#bytesRead += end - at;
    try {
      this.#reader.push(bytes, at, end);
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      this.#broken(error);
    }
  }

  // What calls ask of their holder.

  /** The call is over on this side. */
  drop(call) {
    this.#forget(call);
    this.#outbox.cancel(call);
  }

  giveCredit(call, amount) {
    this.#outbox.credit(call, amount);
  }

  hasRoom(call) {
    return this.#outbox.hasRoom && this.#outbox.requested(call);
  }

  sendChunk(call, number, chunk) {
    this.#outbox.chunk(call, number, chunk);
  }

  sendEnd(call, chunks) {
    this.#outbox.end(call, chunks);
  }

  // The server may have told of another table just now: what has arrived is read first. The first turn of the event loop may
  // end before it gets to the socket.
  #hear(call, turns) {
    call.holder = this;
    this.#calls.add(call);
    setImmediate(() => {
      if (call.ended) return;
      if (turns > 1) return this.#hear(call, turns - 1);
      this.#calls.delete(call);
      this.begin(call, true);
    });
  }

  #refusal(call) {
    const limit = this.#terms.maxMessage;
    const size = call.payload.length;
    if (size > limit) return new MessageTooLarge(`a request of ${size} bytes exceeds the limit of ${limit} bytes`, size, limit);
    if (this.#calls.size >= this.#terms.maxInFlight) {
      return new Rejected(`${this.#calls.size} calls are under way, as many as the server allows`, 'busy', null);
    }
    return null;
  }

  #roomMade() {
    for (const call of this.#calls) call.outgoing?.pump();
  }

  // From here on: records from the server. The reader has checked their form.

  #take(record) {
    if (this.#ended) return;
    if (this.#admitted >= 0) throw new Violation('bad_form', 'a record behind the admitted record');
    if (record.kind >= Kind.admitted) return this.#takeOfConnection(record);
    const call = this.#sent.get(record.call);
    if (call === undefined) return this.#takeStray(record);
    switch (record.kind) {
      case Kind.response:
        return this.#takeResponse(call, record);
      case Kind.error:
        return this.#complete(call, fromRecord(record.type, record.low, record.high, record.text(MAX_ERROR_TEXT), this.#terms.maxMessage));
      case Kind.fragment:
        return this.#takeFragment(call, record);
      case Kind.chunk:
        must(call.incoming !== null, 'bad_form', 'a chunk for a call that streams nothing to us');
        return call.incoming.chunk(record);
      case Kind.end:
        must(call.incoming !== null, 'bad_form', 'the end of a stream for a call that has none');
        call.incoming.checkEnd(record);
        return this.#complete(call, null);
      case Kind.credit:
        must(call.outgoing !== null, 'bad_form', 'credit for a call without an upload');
        return call.outgoing.credit(record.extension);
    }
  }

  // What belongs to no call has crossed with its end, but for the reason why the connection is closed.
  #takeStray(record) {
    if (record.kind === Kind.error && record.call === 0) this.#closedBecause = record.text(MAX_ERROR_TEXT);
  }

  #takeOfConnection(record) {
    must(record.call === 0, 'bad_form', 'an admitted record, or one of message types, with a call id');
    if (record.kind === Kind.types) return this.#terms.table.change(record.bytes.subarray(record.start, record.end), record.extension);
    must(record.extension <= this.#outbox.requests, 'bad_form', 'more requests admitted than were sent');
    this.#admitted = record.extension;
  }

  #takeResponse(call, record) {
    must(call.style === Style.unary || call.style === Style.clientStream, 'bad_form', 'a response to a stream');
    const parts = call.parts;
    if (parts === null) return this.#complete(call, null, record.takePayload());
    must(record.length === parts.missing, 'bad_size', 'a last part of another size than is missing');
    parts.append(record.bytes, record.start, record.end);
    this.#complete(call, null, parts.take());
  }

  #takeFragment(call, record) {
    must(call.style === Style.unary || call.style === Style.clientStream, 'bad_form', 'a part for a stream');
    const size = record.extension;
    if (call.parts === null) {
      must(this.#assembling === null, 'interleaved', 'parts of two responses at a time');
      must(size <= this.#terms.maxMessage, 'bad_size', 'a response above the limit');
      call.parts = new Growing(size);
      this.#assembling = call;
    }
    must(size === call.parts.size, 'bad_size', 'parts that name different sizes');
    must(record.length < call.parts.missing, 'bad_size', 'a part that leaves nothing for the last one');
    call.parts.append(record.bytes, record.start, record.end);
  }

  // The server has ended a call. What it has not read of a large request is cancelled.
  #complete(call, error, response) {
    this.#forget(call);
    if (call.requestNumber === 0) this.#outbox.cancel(call);
    call.end(error, response);
  }

  #forget(call) {
    this.#calls.delete(call);
    this.#sent.delete(call.id);
    if (this.#assembling === call) this.#assembling = null;
  }

  // From here on: the end.

  // Answers and the admitted record may have arrived. They are read until two turns of the event loop have brought nothing:
  // the first may end before it gets to the socket. A server that goes on sending is not read for ever.
  #writeFailed(quiet = 0, most = this.#bytesRead + MOST_ARRIVED) {
    const before = this.#reads;
    setImmediate(() => {
      if (this.#ended) return;
      const came = this.#reads > before;
      if (this.#bytesRead < most && (came || quiet < 1)) this.#writeFailed(came ? 0 : quiet + 1, most);
      else this.#lost(null);
    });
  }

  #broken(violation) {
    this.#finish(() => violation, false, violation);
  }

  #lost(error) {
    const reason = this.#closedBecause;
    if (reason !== '') {
      const outcome = (call) => new ClosedByServer(reason, !this.#certain(call));
      return this.#finish(outcome, false, new Connect(`the server closed the connection: ${reason}`));
    }
    const why = error === null ? 'the server hung up' : `the connection was lost: ${error.message}`;
    const outcome = (call) => (this.#certain(call) ? new NotExecuted(`${why}; the call did not run`) : new Unknown(`${why}; the call may have run`));
    this.#finish(outcome, false, new Connect(why));
  }

  // Node does not say how much of a write the kernel has taken. So a request counts as sent when it was written.
  #certain(call) {
    if (call.requestNumber === 0) return true;
    return this.#admitted >= 0 && call.requestNumber > this.#admitted;
  }

  #finish(outcome, here, lostWith = null) {
    if (this.#ended) return;
    this.#ended = true;
    this.#reader.stop();
    this.#outbox.close();
    this.#socket.onBytes = null;
    this.#socket.onWriteFailed = null;
    this.#socket.on('error', () => {});
    this.#socket.destroy();
    const calls = [...this.#calls];
    this.#calls.clear();
    this.#sent.clear();
    for (const call of calls) call.end(outcome(call), undefined, here);
    if (here) return;
    this.#lostWith = lostWith;
    this.#onLost?.(lostWith);
  }
}

// Why the table forbids a call, or null.
function misfitOf(call, type) {
  if (type === undefined) return new UnknownMessageType(call.name);
  if (type.style !== call.style) return new WrongStyle(call.name, STYLE_NAMES[type.style], STYLE_NAMES[call.style]);
  const differences = call.method === null ? null : mismatch(call.method, type);
  return differences === null ? null : new Incompatible(call.name, differences);
}

// The texts are fixed, as this stands on the way of every record.
function must(holds, rule, text) {
  if (!holds) throw new Violation(rule, text);
}
