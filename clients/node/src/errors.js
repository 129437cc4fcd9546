// How calls end when they do not succeed: one class for each outcome of the specification.
//
// `code` is the outcome's name. `retryable` says whether the same call may be sent again without running twice.

import { textOf } from './json.js';

export class BellropeError extends Error {
  constructor(message, options) {
    super(message, options);
    this.code = this.constructor.code;
    this.retryable = this.constructor.retryable;
  }

  // On the prototype, so that it is not listed with the fields.
  get name() {
    return this.code;
  }

  static code = 'BellropeError';
  static retryable = false;
}

/** The handler answered with an error. */
export class Handler extends BellropeError {
  constructor(text, number) {
    super(text || `the handler failed with the number ${number}`);
    this.number = number;
  }

  static code = 'Handler';
}

/** The handler refused the contents of the request. */
export class InvalidRequest extends BellropeError {
  static code = 'InvalidRequest';
}

/** The handler panicked. */
export class HandlerPanic extends BellropeError {
  static code = 'HandlerPanic';
}

/** The server had no memory for the response, or nobody read the stream for too long. */
export class Exhausted extends BellropeError {
  static code = 'Exhausted';
}

/** An error of the server that this version has no name for. */
export class Other extends BellropeError {
  constructor(text, number) {
    super(text || `the server answered with the error ${number}`);
    this.number = number;
  }

  static code = 'Other';
}

/** Refused for now; no handler saw the call. */
export class Rejected extends BellropeError {
  constructor(text, reason, retryAfterMs) {
    super(text || `refused: ${reason}`);
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }

  static code = 'Rejected';
  static retryable = true;
}

/** The request, the response or a chunk has more bytes than the limit. */
export class MessageTooLarge extends BellropeError {
  constructor(text, size, limit) {
    super(text || `${size} bytes exceed the limit of ${limit} bytes`);
    this.size = size;
    this.limit = limit;
  }

  static code = 'MessageTooLarge';
}

/** The time for the call was over. */
export class DeadlineExceeded extends BellropeError {
  static code = 'DeadlineExceeded';
}

/** The caller cancelled the call. `cause` is the reason of the signal, if it was a signal. */
export class Cancelled extends BellropeError {
  static code = 'Cancelled';
}

/** The server has no message type of this name; nothing was sent. */
export class UnknownMessageType extends BellropeError {
  constructor(messageType) {
    super(`the server has no message type ${JSON.stringify(messageType)}`);
    this.messageType = messageType;
  }

  static code = 'UnknownMessageType';
}

/** The message type has another style than the call; nothing was sent. */
export class WrongStyle extends BellropeError {
  constructor(messageType, style, asked) {
    super(`${JSON.stringify(messageType)} is called as ${style}, not as ${asked}`);
    this.messageType = messageType;
    this.style = style;
    this.asked = asked;
  }

  static code = 'WrongStyle';
}

/** A value cannot be written as what travels; nothing was sent. `cause` says why. */
export class Unwritable extends BellropeError {
  constructor(method, what, cause) {
    super(`${method}: ${what} cannot be written: ${cause.message}`, { cause });
    this.method = method;
  }

  static code = 'Unwritable';
}

/** What the method has answered with cannot be read. It has run. `cause` says why. */
export class Unreadable extends BellropeError {
  constructor(method, what, cause) {
    super(`${method}: ${what} cannot be read: ${cause.message}`, { cause });
    this.method = method;
  }

  static code = 'Unreadable';
}

/** The server's method is another one than this client was made for; nothing was sent. */
export class Incompatible extends BellropeError {
  constructor(method, differences) {
    super(`${method} is another method at the server: ${differences}`);
    this.method = method;
    this.differences = differences;
  }

  static code = 'Incompatible';
}

/** The connection was lost, and it is certain that no handler saw the call. */
export class NotExecuted extends BellropeError {
  static code = 'NotExecuted';
  static retryable = true;
}

/** The connection was lost, and the call may have run, once. */
export class Unknown extends BellropeError {
  static code = 'Unknown';
}

/**
 * The server has closed the connection on account of this client, and has said why: `reason` is its own words. Whether the call
 * may have run, once, is `mayHaveRun`.
 */
export class ClosedByServer extends BellropeError {
  constructor(reason, mayHaveRun) {
    super(`the server closed the connection: ${reason}; the call ${mayHaveRun ? 'may have run' : 'has not run'}`);
    this.reason = reason;
    this.mayHaveRun = mayHaveRun;
    this.retryable = !mayHaveRun;
  }

  static code = 'ClosedByServer';
}

/** The server broke the protocol. `rule` is the name of the rule. */
export class Violation extends BellropeError {
  constructor(rule, text) {
    super(`the server broke the protocol (${rule}): ${text}`);
    this.rule = rule;
  }

  static code = 'Violation';
}

/** There is no connection, and none could be made; nothing was sent. `refusal` is there if a server answered so. */
export class Connect extends BellropeError {
  constructor(text, { refusal, cause } = {}) {
    super(text, cause === undefined ? undefined : { cause });
    this.refusal = refusal;
  }

  static code = 'Connect';
  static retryable = true;
}

/** There is no server, though one might have been started. index.d.ts explains the reasons. */
export class SpawnError extends Connect {
  constructor(reason, text, { program = null, exitCode = null, signal = null, lastLine = null, log = null, cause } = {}) {
    super(text, { cause });
    this.reason = reason;
    this.program = program;
    this.exitCode = exitCode;
    this.signal = signal;
    this.lastLine = lastLine;
    this.log = log;
  }
}

/** The client was closed on this side. */
export class Closed extends BellropeError {
  static code = 'Closed';
}

/** Characters of an application's error that its message shows. */
const SHOWN = 300;

/**
 * The method has answered with its own error, which is `error`: a value of the application's. The call has succeeded, so
 * this is no BellropeError.
 */
export class ServiceError extends Error {
  constructor(method, error) {
    super(`${method}: ${shown(error)}`);
    this.method = method;
    this.error = error;
    this.code = 'ServiceError';
    this.retryable = false;
  }

  get name() {
    return 'ServiceError';
  }
}

function shown(error) {
  if (error instanceof Error) return error.message;
  let text;
  try {
    text = typeof error === 'string' ? error : (textOf(error) ?? String(error));
  } catch {
    text = String(error);
  }
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}...` : text;
}

const REASONS = { 1: 'busy', 2: 'breaker', 3: 'draining' };

/** The error that an error record means. `low` and `high` are the halves of its detail. */
export function fromRecord(code, low, high, text, limit) {
  switch (code) {
    case 1:
    case 10:
      return new Handler(text, high === 0 ? low : 0);
    case 2:
      return new HandlerPanic(text || 'the handler panicked');
    case 4:
      return new MessageTooLarge(text, high * 2 ** 32 + low, limit);
    case 5:
      return new DeadlineExceeded(text || 'the deadline passed');
    case 6:
      return new Cancelled(text || 'the server cancelled the call');
    case 7: {
      const after = high * 2 ** 24 + (low >>> 8);
      return new Rejected(text, REASONS[low & 0xff] ?? 'other', after === 0 ? null : after);
    }
    case 8:
      return new InvalidRequest(text || 'the request is invalid');
    case 9:
      return new Exhausted(text || 'the server had no room for the answer');
    case 11:
      return new NotExecuted(text || 'the call did not run');
    case 12:
      return new Unknown(text || 'the call may have run');
    default:
      return new Other(text, code);
  }
}
